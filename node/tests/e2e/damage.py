"""Damage on one node's disk: a blob whose bytes changed, a blob that is gone, an index that is gone, a log with a flipped bit
below what was acknowledged, a log that is gone. Nothing wrong is served, what a peer has comes back from it, and a replica that
may have forgotten a vote takes no part before the others have taken it out."""

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


def log_dir(site, node):
    return Path(site.node(node)["dir"]) / "log"


def node_log(site, node):
    """What a node wrote about itself."""
    return (site.dir / f"node-{node}.log").read_text(errors="replace")


def is_whole(site, node):
    """Whether the node votes in every group again and nothing is wrong with it."""
    groups = site.status(node)["groups"]
    return groups and all(not group["closed"] and len(group["voters"]) == site.count for group in groups)


def comes_back(site, node, damage, name):
    """Damages a node while it is down, and has it come back by itself, with everything that was acknowledged."""
    sent = {}

    def deliver(number, ident):
        sent[ident] = message(ident, 3000)
        site.deliver(number, [1], sent[ident])

    others = [number for number in range(1, site.count + 1) if number != node]
    for number in range(6):
        deliver(node, f"{name}-before-{number}")
    site.wait_equal(60)
    site.kill(node)
    damage()
    deliver(others[0], f"{name}-down")
    site.restart(node)
    deliver(others[0], f"{name}-repair")
    wait_for(f"node {node} to be whole", lambda: is_whole(site, node), 90, 0.3)
    site.wait_equal(90)
    with site.imap(node, 1, select="INBOX") as client:
        for ident, what in sent.items():
            check_stored(find_message(client, ident), what)
    checks = [check["code"] for check in site.status(node)["checks"]]
    assert not {"REPLICA_REPAIRING", "REPLICA_CLOSED", "REPLICA_NOT_OPENED", "LOG_DAMAGED"} & set(checks), checks
    # It votes like any other: without another one the site goes on.
    site.kill(others[1])
    deliver(node, f"{name}-after")
    site.restart(others[1])
    site.wait_equal(90)
    with site.imap(others[1], 1, select="INBOX") as client:
        check_stored(find_message(client, f"{name}-after"), sent[f"{name}-after"])


def flipped_bit_in_the_log(site):
    place = {}

    def flip():
        path = sorted(log_dir(site, 2).glob("*.seg"))[0]
        with open(path, "r+b") as file:
            data = file.read().rstrip(b"\0")
            # In the entry of a message, whose preview is stored with it; others were acknowledged after it.
            offset = data.index(b"flip-before-3")
            file.seek(offset)
            file.write(bytes([data[offset] ^ 0x10]))
        place.update(path=path.name, offset=offset)

    comes_back(site, 2, flip, "flip")
    log = node_log(site, 2)
    assert "log damaged" in log and place["path"] in log, f"not named in the log of the node: {place}"


def flipped_bit_at_the_head_of_the_log(site):
    """The header of the only segment: nothing of the log can be read."""

    def flip():
        path = sorted(log_dir(site, 1).glob("*.seg"))[0]
        with open(path, "r+b") as file:
            file.seek(20)
            byte = file.read(1)[0]
            file.seek(20)
            file.write(bytes([byte ^ 0x10]))

    comes_back(site, 1, flip, "header")


def missing_log(site):
    comes_back(site, 3, lambda: shutil.rmtree(log_dir(site, 3)), "log")


def missing_log_and_index(site):
    def remove():
        shutil.rmtree(log_dir(site, 2))
        for path in Path(site.node(2)["dir"]).iterdir():
            if path.is_dir() and path.name.startswith(("index", "snapshots")):
                shutil.rmtree(path)

    comes_back(site, 2, remove, "both")


def older_image(site):
    """A node whose whole disk is put back to what it was: nothing on it is damaged, but it has forgotten what it said."""
    directory, image = Path(site.node(3)["dir"]), site.dir / "image"
    site.kill(3)
    shutil.copytree(directory, image, ignore=shutil.ignore_patterns("*.sock"))
    site.restart(3)

    def put_back():
        shutil.rmtree(directory)
        image.rename(directory)

    comes_back(site, 3, put_back, "image")
    assert "this disk is an older image" in node_log(site, 3), "not named in the log of the node"


def main():
    run = Run(__doc__)
    run.parse()
    with run.site(users=2) as site:
        if site:
            tests = (
                changed_blob,
                missing_blob,
                missing_index,
                all_blobs_of_a_node_gone,
                flipped_bit_in_the_log,
                flipped_bit_at_the_head_of_the_log,
                missing_log,
                missing_log_and_index,
                older_image,
            )
            for test in tests:
                run.case(test.__name__.replace("_", " "), test, site)
    run.finish()


if __name__ == "__main__":
    main()
