"""kill -9 at chosen points: before and after every sync, write, rename and removal, and between Raft's log and the index.

Needs a binary with the feature `failpoints` (node/src/failpoints.rs). In each round one node, or two at once, dies at a point, and at
times again while it starts; the clients go on. Then: everything acknowledged is there exactly once through every node, with its bytes,
and the copies agree. A table says in the end at which points nodes died.
"""

import collections
import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

from blobs import verify_blobs
from load import Load
from moves import Moves
from processes import ProcessSite
from testsite import Run, wait_for

CHANGES = ("write.before", "write.torn", "write.after", "sync.before", "sync.after")
NAMES = ("create.before", "create.after", "rename.before", "rename.after")
REMOVALS = ("remove.before", "remove.after")
DIRECTORY = ("sync_dir.before", "sync_dir.after")
# What happens in which part of the data directory: (point, what the path begins with).
POINTS = [
    (point, area)
    for area, points in {
        "log/": CHANGES + NAMES + REMOVALS,
        "log": DIRECTORY,
        "blobs.journal/": CHANGES,
        "blobs/": ("rename.before", "rename.after", "create_dir.before", "create_dir.after") + DIRECTORY,
        "tmp/": CHANGES + NAMES[:2],
        "snapshots/": CHANGES + NAMES + REMOVALS,
        "snapshots": DIRECTORY,
        "manifest/": CHANGES,
        "remembered": CHANGES + NAMES,
        ".": DIRECTORY,
        "index": ("index.batch.before", "index.batch.after", "index.checkpoint.before", "index.checkpoint.after"),
    }.items()
    for point in points
]
# Where little happens.
RARE = ("snapshots/", "snapshots", "manifest/", "remembered", ".")
# While a node starts: any path.
START_POINTS = [(point, "") for point in CHANGES + NAMES[:3] + REMOVALS + DIRECTORY] + [("index.batch.before", ""), ("index.batch.after", "")]
LIMIT_SECONDS = 10
TRIES = 3


class Chooser:
    """Which point next, and at which pass: the points met least often, and passes that are reached in a few seconds."""

    def __init__(self, rng):
        self.rng = rng
        self.chosen = collections.Counter()
        self.reach = {point: 4 if point[1] in RARE or "checkpoint" in point[0] else 50 for point in POINTS}
        self.reach.update({point: 1 for point in POINTS if point[1] in ("log/", "log") and point[0] not in CHANGES})
        self.misses = collections.Counter()
        self.never = set()

    def next(self):
        open_points = [point for point in POINTS if point not in self.never]
        least = min(self.chosen[point] for point in open_points)
        point = self.rng.choice([point for point in open_points if self.chosen[point] == least])
        self.chosen[point] += 1
        return point

    def spec(self, point):
        # A moment later is inside of what comes next: the engine of the index has points of its own.
        later = f"+{self.rng.randrange(50, 3000)}" if self.rng.random() < 0.15 else ""
        self.at = self.rng.randint(1, self.reach[point])
        return f"{point[0]}@{point[1]}:{self.at}{later}"

    def reached(self, point, seconds):
        if seconds < LIMIT_SECONDS / 4:
            self.reach[point] = min(5000, self.reach[point] * 2)

    def missed(self, point):
        self.misses[point] += self.reach[point] == 1
        if self.misses[point] == 2 * TRIES:
            self.never.add(point)
        self.reach[point] = max(1, self.reach[point] // 6)


def die(site, chooser, rng, victims):
    """Starts nodes that die at points, and returns when they are dead; how many died at their points."""
    died = 0
    wanted = {victim: chooser.next() for victim in victims}
    for attempt in range(TRIES):
        begin, waiting, specs = time.monotonic(), dict(wanted), {}
        for victim, point in wanted.items():
            site.end(victim, rng.choice((signal.SIGTERM, signal.SIGKILL)))
            specs[victim] = chooser.spec(point)
            site.start(victim, specs[victim])
        while waiting and time.monotonic() - begin < LIMIT_SECONDS:
            for victim in [victim for victim in waiting if site.is_dead(victim)]:
                code = site.children[victim].poll()
                assert code == -signal.SIGKILL, f"node {victim} ended by itself, {code}, armed with {specs[victim]}"
                chooser.reached(waiting.pop(victim), time.monotonic() - begin)
                died += 1
            time.sleep(0.02)
        told = ", ".join(f"node {victim} {'not at' if victim in waiting else 'at'} {spec}" for victim, spec in specs.items())
        print(f"        died after {time.monotonic() - begin:.1f} s: {told}", flush=True)
        for victim, point in waiting.items():
            chooser.missed(point)
            site.end(victim, signal.SIGKILL)
        wanted = {victim: point for victim, point in waiting.items() if point not in chooser.never}
        if not wanted or died:
            return died
    return died


def die_while_starting(site, rng, victim):
    point, area = rng.choice(START_POINTS)
    spec = f"{point}@{area}:{rng.randint(1, 12)}"
    site.start(victim, spec)
    with contextlib.suppress(TimeoutError):
        wait_for("the end at its start", lambda: site.is_dead(victim), 4, 0.02)
    print(f"        {'died' if site.is_dead(victim) else 'did not die'} while it started: node {victim} at {spec}", flush=True)
    if site.is_dead(victim):
        code = site.children[victim].poll()
        assert code == -signal.SIGKILL, f"node {victim} ended by itself: {code}"
    site.end(victim, signal.SIGKILL)


def one_round(site, load, moves, chooser, rng):
    nodes = list(range(1, site.count + 1))
    victims = rng.sample(nodes, 2 if rng.random() < 0.2 else 1)
    die(site, chooser, rng, victims)
    for victim in victims:
        while rng.random() < 0.3:
            die_while_starting(site, rng, victim)
        site.start(victim)
    for victim in victims:
        site.wait_serving(victim)
    verify(site, load, moves)
    load.go_on()
    moves.go_on()


def verify(site, load, moves):
    load.hold()
    moves.hold()
    site.wait_equal(90)
    for node in range(1, site.count + 1):
        load.check(node, whole=True)
        load.check_bytes(node)
        moves.check(node)


def restart_of_all(site, load, moves):
    for number in range(1, site.count + 1):
        site.end(number, signal.SIGTERM)
    for number in range(1, site.count + 1):
        site.start(number)
    for number in range(1, site.count + 1):
        site.wait_serving(number)
    load.proven.clear()
    verify(site, load, moves)


def check_command(site):
    code, out, err = site.everpost("check", check=False, timeout=120)
    assert code == 0, f"exit {code}\n{out}{err}"


def print_table(deaths, chooser):
    """How many nodes died at each point, by part of the data directory."""
    table = collections.Counter()
    for line in deaths:
        point, _, path = line.partition(" ")
        area = path.split("/")[0].removesuffix(".new")
        table[point, "data directory" if area == "." else area] += 1
    print(f"        {'point':26}{'where':20}deaths")
    for (point, area), count in sorted(table.items()):
        print(f"        {point:26}{area:20}{count:5}")
    print(f"        {len(deaths)} deaths at {len(table)} points", flush=True)
    if chooser.never:
        print("        not passed in time: " + ", ".join(sorted(f"{point}@{area}" for point, area in chooser.never)))


def sizes(rng):
    """Now and then one that does not go through the blob journal."""
    return rng.randrange(70_000, 200_000) if rng.random() < 0.08 else rng.randrange(500, 6000)


def main():
    run = Run(__doc__)
    run.parser.set_defaults(binary=Path("target/release/everpost-failpoints"))
    run.parser.add_argument("--rounds", type=int, default=100)
    run.parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    args = run.parse()
    if b"FAILPOINTS_SCALE" not in args.binary.read_bytes():
        sys.exit(f"{args.binary} does not end itself: cargo build --release --features node/failpoints --bin everpost makes one that does")
    print(f"        seed {args.seed}")
    rng = random.Random(args.seed)
    os.environ["FAILPOINTS_SCALE"] = "small"
    chooser = Chooser(rng)
    with run.site(ProcessSite, users=Load.users(3) + 3) as site:
        if site:
            load = Load(site, args.seed, pause=0.08)
            load.sizes, load.delivery = sizes, {2: "lmtp"}
            moves = Moves(site, args.seed, Load.users(3) + 1)
            load.start()
            moves.start()
            wait_for("the first successes", lambda: all(load.successes.values()), 30)
            for number in range(args.rounds):
                before = run.failed
                run.case(f"round {number + 1} of {args.rounds}", one_round, site, load, moves, chooser, rng)
                if run.failed > before:
                    break
            load.end()
            moves.end()
            print(f"        {load.summary()}, {moves.done}")
            run.case("everpost check", check_command, site)
            run.case("all nodes start again, and everything is there", restart_of_all, site, load, moves)
            run.case("everpost check after that", check_command, site)
            run.case("every blob has three copies, and its name is its hash", verify_blobs, site, load.present())
            deaths = [line for number in range(1, site.count + 1) for line in site.deaths(number)]
            print_table(deaths, chooser)
    run.finish()


if __name__ == "__main__":
    main()
