"""BLAKE3 of whole files, in plain Python: slow, and independent of what the node uses to name its blobs.

After the specification of O'Connor, Aumasson, Neves and Wilcox-O'Hearn; the hash of no input is checked at import.
"""

import struct

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
ROUND = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
MASK = 0xFFFFFFFF


def compress(chaining, block, counter, length, flags):
    v = list(chaining) + list(IV[:4]) + [counter & MASK, counter >> 32, length, flags]
    m = list(block)
    for turn in range(7):
        for index, (a, b, c, d) in enumerate(ROUND):
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            va = (va + vb + m[2 * index]) & MASK
            vd ^= va
            vd = (vd >> 16 | vd << 16) & MASK
            vc = (vc + vd) & MASK
            vb ^= vc
            vb = (vb >> 12 | vb << 20) & MASK
            va = (va + vb + m[2 * index + 1]) & MASK
            vd ^= va
            vd = (vd >> 8 | vd << 24) & MASK
            vc = (vc + vd) & MASK
            vb ^= vc
            vb = (vb >> 7 | vb << 25) & MASK
            v[a], v[b], v[c], v[d] = va, vb, vc, vd
        if turn < 6:
            m = [m[index] for index in PERMUTATION]
    return tuple(v[index] ^ v[index + 8] for index in range(8))


def chunk(data, counter, root):
    chaining = IV
    blocks = [data[at : at + 64] for at in range(0, len(data), 64)] or [b""]
    for index, block in enumerate(blocks):
        flags = CHUNK_START if index == 0 else 0
        if index == len(blocks) - 1:
            flags |= CHUNK_END | (ROOT if root else 0)
        words = struct.unpack("<16I", block.ljust(64, b"\0"))
        chaining = compress(chaining, words, counter, len(block), flags)
    return chaining


def tree(data, counter, root):
    if len(data) <= 1024:
        return chunk(data, counter, root)
    # The left side is the largest power of two of chunks that leaves something for the right one.
    left = 1024 << (((len(data) - 1) // 1024).bit_length() - 1)
    words = tree(data[:left], counter, False) + tree(data[left:], counter + left // 1024, False)
    return compress(IV, words, 0, 64, PARENT | (ROOT if root else 0))


def blake3_hex(data):
    """The 32 octets of the hash, hexadecimal."""
    return struct.pack("<8I", *tree(data, 0, True)).hex()


assert blake3_hex(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
