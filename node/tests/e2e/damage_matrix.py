"""Every kind of file of a data directory, damaged in every way while its node was down.

Each file is emptied, cut, has a bit or many bits flipped, is removed, or is put back to an older copy; each directory is removed or put back; and
the whole data directory is put back. The node then repairs itself from the others, and all that was acknowledged is there once, with its bytes, through
this node; or it refuses to start, says which file is wrong, and ends with a documented code. It never gives a wrong answer, panics or
hangs.

Best with a binary that has the feature `failpoints`: with it the node has small segments, and snapshots after few entries.
"""

import collections
import contextlib
import hashlib
import imaplib
import os
import random
import re
import shutil
import signal
import threading
import time
from pathlib import Path

from blobs import decode, verify_blobs
from load import fetch_bodies, fetch_ids
from processes import ProcessSite
from testsite import Run, message, ok, wait_for

# Kinds of files, as patterns inside of the data directory.
FILES = (
    "identity",
    "seed",
    "remembered",
    "log.id",
    "lock",
    "log/*.seg",
    "snapshots/*.snap",
    "index/db",
    "index/conf",
    "index/snap.*",
    "index/clean",
    "blobs/??/??/*.eml*",
    "blobs.journal/*.segment",
    "manifest/*.tsv",
)
DIRECTORIES = ("log", "snapshots", "index", "blobs", "blobs.journal", "manifest", "tmp", "quarantine")
WAYS = ("emptied", "cut", "bit flipped", "rotten", "removed", "put back")
DIRECTORY_WAYS = ("removed", "put back")
WHOLE = "."
# What is never changed has no older copy, and what is empty nothing to spoil.
SENSELESS = {(kind, "put back") for kind in ("identity", "seed", "log.id", "lock", "index/conf", "blobs/??/??/*.eml*")}
SENSELESS |= {("lock", way) for way in WAYS if way != "removed"}
CASES = [(kind, way) for kind in FILES for way in WAYS if (kind, way) not in SENSELESS]
CASES += [(kind, way) for kind in DIRECTORIES for way in DIRECTORY_WAYS] + [(WHOLE, "put back")]
# Without it a node does not know who it is.
MAY_REFUSE = {"identity"}
# The codes that docs/operations.md has for a node that does not start.
REFUSALS = {1, 77, 78}
REPAIRED_WITHIN = 90
FAULTS = {
    "REPLICA_REPAIRING", "REPLICA_CLOSED", "REPLICA_NOT_OPENED", "BLOBS_MISSING", "BLOBS_UNDER_REPLICATED",
    "GROUP_NO_LEADER", "NODE_UNREACHABLE",
}  # fmt: skip
USERS = (1, 2)


class NothingThere(Exception):
    """The node has no file of the kind now."""


class Book:
    """What was acknowledged."""

    def __init__(self, site, rng):
        self.site, self.rng = site, rng
        self.sent = {}  # id -> (user, octets, SHA-256)
        self.serial = 0

    def deliver(self, number, count=1):
        for _ in range(count):
            self.serial += 1
            ident, user = f"m{self.serial}", self.rng.choice(USERS)
            size = self.rng.randrange(60_000, 120_000) if self.rng.random() < 0.2 else self.rng.randrange(500, 6000)
            what = message(ident, size)
            self.site.deliver(number, [user], what)
            self.sent[ident] = (user, len(what), hashlib.sha256(what).digest())

    def read(self, number, timeout=60):
        """Reads everything through one node: what is wrong with it."""
        known, problems = dict(self.sent), []
        for user in USERS:
            with self.site.imap(number, user, timeout=timeout, select="INBOX") as client:
                rows = fetch_ids(client)
                idents = dict(rows)
                counts = collections.Counter(ident for _, ident in rows)
                for ident, (of, _, _) in known.items():
                    if of == user and counts[ident] != 1:
                        problems.append(f"{ident} is there {counts[ident]} times")
                uids = sorted(idents)
                for begin in range(0, len(uids), 40):
                    for uid, stored in fetch_bodies(client, uids[begin : begin + 40]):
                        entry = self.sent.get(idents[uid])
                        if entry and hashlib.sha256(stored[-entry[1] :]).digest() != entry[2]:
                            problems.append(f"{idents[uid]} has other bytes")
                client.logout()
        return problems


class Reader:
    """Reads through the damaged node all the time: what it answers has to be right, or no answer."""

    def __init__(self, book, number):
        self.book, self.number = book, number
        self.problems, self.ended = [], threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while not self.ended.is_set():
            with contextlib.suppress(OSError, EOFError, imaplib.IMAP4.error, AssertionError):
                self.problems += self.book.read(self.number, timeout=20)
            self.ended.wait(0.3)

    def end(self):
        self.ended.set()
        self.thread.join(60)
        assert not self.problems, f"a wrong answer while it was being repaired: {self.problems[:10]}"


def files_of(directory, kind):
    return sorted(path for path in directory.glob(kind) if path.is_file())


def damage(directory, image, kind, way, rng):
    """Does it; what was done."""
    if kind == WHOLE:
        shutil.rmtree(directory)
        copy(image, directory)
        return "the whole data directory put back"
    if kind in DIRECTORIES:
        if way == "put back" and not (image / kind).exists():
            raise NothingThere
        shutil.rmtree(directory / kind, ignore_errors=True)
        if way == "put back":
            copy(image / kind, directory / kind)
        return f"{kind}/ {way}"
    if way == "put back":
        found = [path for path in files_of(image, kind) if not same(path, directory / path.relative_to(image))]
        if not found:
            raise NothingThere
        path = rng.choice(found)
        target = directory / path.relative_to(image)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
        return f"{path.relative_to(image)} put back"
    found = [path for path in files_of(directory, kind) if path.stat().st_size or way == "removed"]
    if not found:
        raise NothingThere
    path = rng.choice(found)
    name = path.relative_to(directory)
    if way == "removed":
        path.unlink()
        return f"{name} removed"
    data = path.read_bytes()
    # Segments are filled with zeros to their full size before they are used.
    used = len(data.rstrip(b"\0"))
    if way == "emptied":
        os.truncate(path, 0)
        return f"{name} emptied"
    if used < 2:
        raise NothingThere
    if way == "cut":
        place = rng.randrange(1, used)
        os.truncate(path, place)
        return f"{name} cut from {len(data)} octets to {place}"
    # About one in 8 KiB.
    places = sorted(rng.sample(range(used), 1 if way == "bit flipped" else min(used, 1 + used // 8192)))
    about = path.stat()
    with open(path, "r+b") as file:
        for place in places:
            file.seek(place)
            file.write(bytes([data[place] ^ (1 << rng.randrange(8))]))
    # A disk that rots tells nobody.
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    return f"{name}: a bit flipped at {len(places)} places of {used} octets, the first {places[0]}"


def same(one, other):
    return other.is_file() and one.read_bytes() == other.read_bytes()


def copy(source, target):
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.sock"))


def panics(text):
    """The panics in a log; those of sled are caught, and its index is set aside."""
    found = re.findall(r"panicked at ([^\n]*)", text)
    return [where for where in found if "/sled-" not in where]


class Matrix:
    """The site, the older copy of each node, and what came of each case."""

    def __init__(self, site, rng):
        self.site, self.rng = site, rng
        self.book = Book(site, rng)
        self.rows = []
        self.images = {number: site.dir / f"image-{number}" for number in range(1, site.count + 1)}

    def directory(self, number):
        return Path(self.site.node(number)["dir"])

    def take_image(self, number):
        self.site.end(number, self.rng.choice((signal.SIGTERM, signal.SIGKILL)))
        shutil.rmtree(self.images[number], ignore_errors=True)
        copy(self.directory(number), self.images[number])
        self.site.start(number)
        self.site.wait_serving(number)

    def case(self, kind, way, node):
        """One kind of damage at one node."""
        site, others = self.site, [number for number in range(1, self.site.count + 1) if number != node]
        for number in range(1, site.count + 1):
            self.book.deliver(number, 3)
        site.wait_equal(60)
        stop = self.rng.choice((signal.SIGTERM, signal.SIGKILL))
        site.end(node, stop)
        present = site.dir / "present"
        shutil.rmtree(present, ignore_errors=True)
        copy(self.directory(node), present)
        try:
            done = damage(self.directory(node), self.images[node], kind, way, self.rng)
        except NothingThere:
            self.rows.append((kind, way, "no such file now", ""))
            site.start(node)
            site.wait_serving(node)
            return
        done += f" at node {node}, which had been {'stopped' if stop == signal.SIGTERM else 'killed'}"
        self.book.deliver(others[0], 2)
        before, offset, begin = self.log_sizes(), site.log_size(node), time.monotonic()
        print(f"        {done}", flush=True)
        site.start(node)
        reader = Reader(self.book, node)
        try:
            self.book.deliver(others[1], 2)
            outcome = self.watch(node, kind, offset)
        finally:
            reader.end()
        for number, size in before.items():
            assert not panics(site.log_since(number, size)), f"node {number}: {panics(site.log_since(number, size))}"
        told = f"{time.monotonic() - begin:.1f} s"
        if outcome is not None:
            told = outcome
            shutil.rmtree(self.directory(node))
            copy(present, self.directory(node))
            site.start(node)
            site.wait_serving(node)
            site.wait_equal(60)
        self.rows.append((kind, way, "refuses" if outcome is not None else "well", told))
        print(f"        {'refused: ' if outcome is not None else 'well after '}{told}", flush=True)
        # What is there now is the older copy of the next case.
        shutil.rmtree(self.images[node])
        present.rename(self.images[node])

    def watch(self, node, kind, offset):
        """Waits until the node is well; its words, if it refuses to start."""
        site, last, starts = self.site, [""], [1]

        def is_well():
            if site.is_dead(node):
                if kind.startswith("index") and starts[0] == 1 and self.asks_for_a_start(node, offset):
                    # As a supervisor does.
                    starts[0] += 1
                    site.start(node)
                    return False
                return True
            last[0] = self.ailment(node)
            return not last[0]

        try:
            wait_for("the repair", is_well, REPAIRED_WITHIN, 0.3)
        except TimeoutError:
            raise AssertionError(f"not well after {REPAIRED_WITHIN} s: {last[0]}") from None
        if site.is_dead(node):
            code, log = site.children[node].poll(), site.log_since(node, offset)
            words = [line for line in log.splitlines() if line.startswith("everpost: ")]
            assert kind in MAY_REFUSE, f"it does not start: {code} {words}\n{log[-3000:]}"
            assert code in REFUSALS and words, f"no documented refusal: {code} {words}\n{log[-3000:]}"
            assert any(Path(kind).name.split("*")[0] in line for line in words), f"it does not name what is wrong: {words}"
            return f"{code}: {words[-1].removeprefix('everpost: ')}"
        problems = self.book.read(node)
        assert not problems, f"wrong through node {node}: {problems[:10]}"
        # It takes mail, and votes like any other.
        self.book.deliver(node, 1)
        self.blobs_are_back(node)
        return None

    def asks_for_a_start(self, node, offset):
        """Whether the node ended since its index is damaged, which it makes anew at its next start."""
        words = [line for line in self.site.log_since(node, offset).splitlines() if line.startswith("everpost: ")]
        print(f"        ended with {self.site.children[node].poll()}: {words}", flush=True)
        return self.site.children[node].poll() == 1 and any("index" in line for line in words)

    def ailment(self, node):
        """What is wrong with the site, as it says itself; nothing when all is well."""
        try:
            status = self.site.status(node)
            codes = {check["code"] for check in status["checks"]} & FAULTS
            if codes:
                return str([check for check in status["checks"] if check["code"] in codes])
            if short := [group["group"] for group in status["groups"] if len(group["voters"]) != self.site.count]:
                return f"groups {short} have too few voters"
            if not self.site.is_serving(node):
                return "mail programs are not served"
            return "; ".join(self.site.differences())
        except Exception as error:
            return str(error)[:500]

    def blobs_are_back(self, node):
        """Every blob that all others have is a file here too, and holds the same message."""
        site = self.site
        others = [number for number in range(1, site.count + 1) if number != node]

        def lacking():
            wanted = set.intersection(*(set(site.blob_files(number)) for number in others))
            return {name for name in wanted - set(site.blob_files(node)) if self.is_known(site.blob_files(others[0])[name])}

        try:
            wait_for("the blobs", lambda: not lacking(), REPAIRED_WITHIN, 0.5)
        except TimeoutError:
            raise AssertionError(f"blobs that did not come back to node {node}: {sorted(lacking())[:5]}") from None

    def is_known(self, path):
        found = re.search(rb"X-E2E-Id: *(\S+)", decode(path))
        return found is not None and found[1].decode() in self.book.sent

    def log_sizes(self):
        return {number: self.site.log_size(number) for number in range(1, self.site.count + 1)}

    def finish(self):
        """After all of it: everything anew from the disks, and the proof that the copies agree."""
        site = self.site
        for number in range(1, site.count + 1):
            site.end(number, signal.SIGTERM)
        for number in range(1, site.count + 1):
            site.start(number)
        for number in range(1, site.count + 1):
            site.wait_serving(number)
        site.wait_equal(90)
        for number in range(1, site.count + 1):
            problems = self.book.read(number)
            assert not problems, f"wrong through node {number}: {problems[:10]}"
        code, out, err = site.everpost("check", check=False, timeout=120)
        assert code == 0, f"everpost check: exit {code}\n{out}{err}"
        verify_blobs(site, set(self.book.sent))

    def table(self):
        print(f"        {'what':28}{'how':14}{'then':18}after")
        for kind, way, then, told in sorted(self.rows):
            print(f"        {'data directory' if kind == WHOLE else kind:28}{way:14}{then:18}{told}")
        counts = collections.Counter(then for _, _, then, _ in self.rows)
        print(f"        {len(self.rows)} cases: " + ", ".join(f"{count} {then}" for then, count in sorted(counts.items())), flush=True)


def main():
    run = Run(__doc__)
    run.parser.set_defaults(binary=Path("target/release/everpost-failpoints"))
    run.parser.add_argument("--cases", type=int, default=12, help="so many, drawn by the seed")
    run.parser.add_argument("--all", action="store_true", help="all of them")
    run.parser.add_argument("--go-on", action="store_true", help="with a new site after a failure")
    run.parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    args = run.parse()
    print(f"        seed {args.seed}")
    rng = random.Random(args.seed)
    os.environ["FAILPOINTS_SCALE"] = "small"
    cases = [case for case in CASES if not args.only or args.only in " ".join(case)]
    args.only = None
    rng.shuffle(cases)
    if not args.all:
        cases = cases[: args.cases]
    rows = []
    while cases:
        with run.site(ProcessSite, users=2) as site:
            if not site:
                break
            rows += some_cases(run, site, rng, cases)
            if run.failed and not args.go_on:
                break
    run.finish()


def some_cases(run, site, rng, cases):
    """Works off cases until one fails."""
    matrix = Matrix(site, rng)
    matrix.book.deliver(1, 10)
    for number in range(1, site.count + 1):
        matrix.take_image(number)
    site.wait_equal(60)
    # More than a snapshot's worth of entries.
    matrix.book.deliver(2, 60)
    failed = run.failed
    while cases and run.failed == failed:
        kind, way = cases.pop(0)
        run.case(f"{'data directory' if kind == WHOLE else kind} {way}", matrix.case, kind, way, rng.randrange(1, site.count + 1))
    if run.failed == failed:
        run.case("everything is there, and everpost check finds nothing", matrix.finish)
    matrix.table()
    return matrix.rows


if __name__ == "__main__":
    main()
