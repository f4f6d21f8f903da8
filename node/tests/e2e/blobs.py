"""The blobs of all nodes: the same files everywhere, each the message whose hash is its name."""

import hashlib
import subprocess

from blake3 import blake3_hex
from testsite import need, wait_for


def decode(path):
    """The message in a blob's file, by a program that nobody here wrote."""
    if path.suffix == ".eml":
        return path.read_bytes()
    return subprocess.run([need("zstd"), "-dcq", path], capture_output=True, check=True, timeout=60).stdout


def verify_blobs(site, hashed_max=600):
    """Waits until the files of all blobs are written, then decodes all and hashes up to `hashed_max` of them."""
    nodes = range(1, site.count + 1)
    idle = lambda: not any(site.status(node)["blobs"]["journal_backlog"] for node in nodes)
    wait_for("the journals of blobs", idle, 60, 0.3)
    same = lambda: len({frozenset(site.blob_files(node)) for node in nodes}) == 1
    try:
        wait_for("the same blobs on all nodes", same, 60, 0.5)
    except TimeoutError:
        files = {node: set(site.blob_files(node)) for node in nodes}
        every = set.union(*files.values())
        missing = {node: sorted(every - found)[:5] for node, found in files.items()}
        raise AssertionError(f"{len(every)} blobs; missing at: {missing}") from None
    files = {node: site.blob_files(node) for node in nodes}
    names = sorted(files[1])
    assert names, "there are no blobs at all"
    for index, name in enumerate(names):
        copies = [decode(files[node][name]) for node in nodes]
        assert len({hashlib.sha256(copy).digest() for copy in copies}) == 1, f"the copies of {name} differ"
        if index < hashed_max:
            assert blake3_hex(copies[0]) == name.split(".")[0], f"{name} is not the hash of what is in it"
    for node in nodes:
        blobs = site.status(node)["blobs"]
        assert blobs["corrupt"] == 0 and blobs["under_replicated"] == 0, (node, blobs)
    print(f"        {len(names)} blobs, {site.count} copies each; {min(len(names), hashed_max)} hashed", flush=True)
