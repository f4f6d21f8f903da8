"""The blobs of all nodes: the same files everywhere, each the message whose hash is its name."""

import hashlib
import re
import subprocess

from blake3 import blake3_hex
from testsite import need, wait_for


def decode(path):
    """The message in a blob's file, by a program that nobody here wrote."""
    if path.suffix == ".eml":
        return path.read_bytes()
    return subprocess.run([need("zstd"), "-dcq", path], capture_output=True, check=True, timeout=60).stdout


def verify_blobs(site, referenced, hashed_max=600):
    """Every blob of a message that is in a mailbox is on every node, decodes, and has its hash as its name.

    `referenced` are the ids of those messages. A blob of a delivery that was cut off before it was committed may be on some nodes
    only: nothing refers to it, and it is collected after the grace time.
    """
    nodes = range(1, site.count + 1)
    idents = {}

    def lacking():
        """The names of blobs that a message refers to and some node does not have."""
        files = {node: site.blob_files(node) for node in nodes}
        places = {}
        for node, found in files.items():
            for name, path in found.items():
                places.setdefault(name, {})[node] = path
        found = {}
        for name, paths in places.items():
            if len(paths) < site.count:
                if name not in idents:
                    idents[name] = ident_of(decode(next(iter(paths.values()))))
                if idents[name] in referenced:
                    found[name] = (idents[name], sorted(paths))
        return found

    idle = lambda: not any(site.status(node)["blobs"]["journal_backlog"] for node in nodes)
    wait_for("the journals of blobs", idle, 60, 0.3)
    try:
        wait_for("three copies of each", lambda: not lacking(), 60, 0.5)
    except TimeoutError:
        raise AssertionError(f"blobs that are not on every node (id, nodes): {dict(list(lacking().items())[:10])}") from None
    files = {node: site.blob_files(node) for node in nodes}
    names = sorted(set.intersection(*(set(found) for found in files.values())))
    seen = set()
    for index, name in enumerate(names):
        copies = [decode(files[node][name]) for node in nodes]
        assert len({hashlib.sha256(copy).digest() for copy in copies}) == 1, f"the copies of {name} differ"
        if index < hashed_max:
            assert blake3_hex(copies[0]) == name.split(".")[0], f"{name} is not the hash of what is in it"
        seen.add(ident_of(copies[0]))
    assert referenced <= seen, f"no blob at all for {sorted(referenced - seen)[:10]}"
    for node in nodes:
        blobs = site.status(node)["blobs"]
        assert blobs["corrupt"] == 0 and blobs["under_replicated"] == 0, (node, blobs)
    print(f"        {len(names)} blobs, {site.count} copies each; {min(len(names), hashed_max)} hashed", flush=True)


def ident_of(message):
    found = re.search(rb"X-E2E-Id: *(\S+)", message)
    return found[1].decode() if found else None
