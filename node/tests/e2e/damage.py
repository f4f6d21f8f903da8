"""Damage on one node's disk: a blob whose bytes changed, a blob that is gone, an index that is gone. Nothing wrong is served,
and what a peer has comes back from it."""

import shutil
from pathlib import Path

from testsite import Run, check_stored, find_message, message, wait_for


def blob_of(site, node, ident, before):
    wait_for("the blob's file", lambda: set(site.blob_files(node)) - before, 30, 0.2)
    return next(path for name, path in site.blob_files(node).items() if name not in before)


def read(site, node, ident):
    with site.imap(node, 1, select="INBOX") as client:
        return find_message(client, ident)


def changed_blob(site):
    before = set(site.blob_files(2))
    sent = message("changed", 30_000)
    site.deliver(1, [1], sent)
    path = blob_of(site, 2, "changed", before)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle] ^= 0x40
    path.write_bytes(data)
    check_stored(read(site, 2, "changed"), sent)
    wait_for("the count of what was damaged", lambda: site.status(2)["blobs"]["corrupt"] >= 1, 30, 0.2)
    check_stored(read(site, 2, "changed"), sent)


def missing_blob(site):
    before = set(site.blob_files(3))
    sent = message("missing", 30_000)
    site.deliver(1, [1], sent)
    blob_of(site, 3, "missing", before).unlink()
    check_stored(read(site, 3, "missing"), sent)


def missing_index(site):
    """The index is only what can be rebuilt."""
    sent = message("index", 2000)
    site.deliver(1, [1], sent)
    site.kill(3)
    indexes = [path for path in Path(site.node(3)["dir"]).iterdir() if path.is_dir() and path.name.startswith("index")]
    assert indexes, list(Path(site.node(3)["dir"]).iterdir())
    for path in indexes:
        shutil.rmtree(path)
    site.restart(3)
    site.wait_equal(60)
    check_stored(read(site, 3, "index"), sent)


def all_blobs_of_a_node_gone(site):
    site.kill(2)
    shutil.rmtree(site.blob_dir(2))
    site.restart(2)
    site.wait_equal(120)
    assert b"This is index." in read(site, 2, "index")
    verify = lambda: len(site.blob_files(2)) == len(site.blob_files(1))
    wait_for("the blobs' return", verify, 120, 0.5)


def main():
    run = Run(__doc__)
    run.parse()
    with run.site(users=2) as site:
        if site:
            for test in (changed_blob, missing_blob, missing_index, all_blobs_of_a_node_gone):
                run.case(test.__name__.replace("_", " "), test, site)
    run.finish()


if __name__ == "__main__":
    main()
