"""A site grows from three nodes to more and shrinks to three others, under a running load of deliveries.

On the way: a node is drained and removed, one is killed and replaced by command, one is killed and replaced by itself, a group is
moved by hand. At every stage each message that was acknowledged is on three nodes at least; in the end each is there exactly
once, at every node, and `everpost check` proves that all copies agree.
"""

import contextlib
import json
import os
import random
import re
import signal
import smtplib
import subprocess
import threading
import time

from blobs import decode, ident_of
from load import fetch_ids
from testsite import Run, Site, alive, message, wait_for

COPIES = 3
USERS = 3


class GrowingSite(Site):
    """A site whose nodes come and go; `members` are the numbers of those that are there."""

    def __init__(self, binary, room, **options):
        self.extra = {}
        self.processes = {}
        super().__init__(binary, room=room, **options)
        self.members = {node["id"] for node in self.info["nodes"]}

    def read(self):
        super().read()
        self.info["nodes"] += [self.extra[number] for number in sorted(self.extra)]

    def node(self, number):
        return next(node for node in self.info["nodes"] if node["id"] == number)

    def add(self):
        """One more node, as an administrator adds it; its number."""
        token = self.everpost("node", "add", f"node-{1 + max(node['id'] for node in self.info['nodes'])}").strip()
        number = 1 + max(node["id"] for node in self.info["nodes"])
        text = (self.dir / "node-1.toml").read_text().replace("node-1", f"node-{number}")
        move = lambda found: f"127.0.0.1:{int(found[1]) + 1000 * (number - 1)}"
        config = self.dir / f"node-{number}.toml"
        config.write_text(re.sub(r"127\.0\.0\.1:(\d+)", move, text))
        said = self.everpost("node", "join", "--token", token, "--config", config)
        assert f"node {number} now" in said, said
        entry = {key: re.sub(r":(\d+)$", lambda found: f":{int(found[1]) + 1000 * (number - 1)}", value) if isinstance(value, str) else value
                 for key, value in self.node(1).items()}
        entry |= {"id": number, "dir": str(self.dir / f"node-{number}")}
        self.extra[number] = entry
        self.start_extra(number)
        self.read()
        self.members.add(number)
        return number

    def start_extra(self, number):
        with open(self.dir / f"node-{number}.log", "ab") as log:
            command = [str(self.binary), "run", "--config", str(self.dir / f"node-{number}.toml")]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes[number] = process
        self.extra[number]["pid"] = process.pid
        self.pids.add(process.pid)

    def kill(self, *numbers):
        for number in numbers:
            if number in self.processes:
                os.kill(self.processes[number].pid, signal.SIGKILL)
                self.processes[number].wait(10)
            else:
                super().kill(number)

    def restart(self, number, timeout=60):
        if number in self.extra:
            self.start_extra(number)
            self.read()
            wait_for("the admin socket", lambda: self.ask(number, "status", check=False)[0] == 0, timeout, 0.3)
        else:
            super().restart(number, timeout)

    def ask(self, number, *arguments, timeout=240, check=True):
        """Runs a command against one node."""
        command = [str(self.binary), "--dir", self.node(number)["dir"]] + [str(argument) for argument in arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done.stdout if check else (done.returncode, done.stdout, done.stderr)

    def any(self):
        return max(self.members)

    def groups(self):
        return json.loads(self.ask(self.any(), "--json", "group", "list"))

    def places(self):
        """How many groups each member votes in, when every group is where it is to be; otherwise nothing."""
        places = dict.fromkeys(self.members, 0)
        for group in self.groups():
            if not group["voters"] or sorted(group["voters"]) != sorted(group["wanted"]) or group["waits"]:
                return None
            for node in group["voters"]:
                places[node] = places.get(node, 0) + 1
        return places

    def wait_even(self, timeout=120):
        """Waits until the places of voters are spread evenly."""
        seen = [None]

        def even():
            seen[0] = self.places()
            return seen[0] and set(seen[0]) == self.members and max(seen[0].values()) - min(seen[0].values()) <= 1

        try:
            wait_for("evenly spread voters", even, timeout, 0.5)
        except TimeoutError:
            raise AssertionError(f"places {seen[0]}, groups {self.groups()}") from None
        return seen[0]

    def end_of(self, number, timeout=60):
        """How the process of a node that was added here ended."""
        return self.processes[number].wait(timeout)


class Deliveries:
    """Threads that deliver to any member, and the book of what was acknowledged."""

    def __init__(self, site, seed, threads=3, pause=0.05):
        self.site, self.pause = site, pause
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.acknowledged, self.in_doubt, self.refusals, self.times = {}, {}, {}, []
        self.threads = [threading.Thread(target=self.work, args=(f"{seed}-{number}",), daemon=True) for number in range(threads)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def end(self):
        self.ended.set()
        for thread in self.threads:
            thread.join(90)

    def work(self, name):
        rng, number = random.Random(name), 0
        while not self.ended.is_set():
            number += 1
            ident, user = f"grow-{name}-{number}", rng.randrange(1, USERS + 1)
            node = rng.choice(sorted(self.site.members))
            with self.lock:
                self.in_doubt[ident] = user
            try:
                with contextlib.closing(self.site.smtp(node, timeout=30)) as client:
                    refused = client.sendmail("sender@outside.test", [self.site.user(user)], message(ident, rng.randrange(500, 6000)))
                    assert not refused, refused
                with self.lock:
                    del self.in_doubt[ident]
                    self.acknowledged[ident] = user
                    self.times.append(time.monotonic())
            except (OSError, EOFError, smtplib.SMTPException, AssertionError) as error:
                with self.lock:
                    text = f"{type(error).__name__}: {str(error)[:100]}"
                    self.refusals[text] = self.refusals.get(text, 0) + 1
            time.sleep(self.pause)


class Copies:
    """Counts on how many living members each message's bytes are."""

    def __init__(self, site, load):
        self.site, self.load, self.idents = site, load, {}

    def lacking(self, idents, among):
        places = {}
        for node in among:
            for name, path in self.site.blob_files(node).items():
                if name not in self.idents:
                    try:
                        self.idents[name] = ident_of(decode(path))
                    except (OSError, subprocess.CalledProcessError):
                        continue
                places.setdefault(self.idents[name], set()).add(node)
        return {ident: sorted(places.get(ident, ())) for ident in idents if len(places.get(ident, ())) < COPIES}

    def sample(self, without=()):
        """Whatever was acknowledged before now is on three living members: at once, or once the journals are files."""
        with self.load.lock:
            idents = set(self.load.acknowledged)
        among = sorted(self.site.members - set(without))
        last = {}

        def enough():
            last.clear()
            last.update(self.lacking(idents, among))
            return not last

        begin = time.monotonic()
        if not enough():
            state = lambda blobs: {key: blobs[key] for key in ("journal_backlog", "under_replicated") if blobs[key]}
            print(f"        {len(last)} to come: {dict(list(last.items())[:3])}, {[(node, state(self.site.status(node)['blobs'])) for node in among]}", flush=True)
        try:
            wait_for("three copies of each", enough, 30, 0.5)
        except TimeoutError:
            raise AssertionError(f"{len(last)} of {len(idents)} messages with too few copies: {dict(list(last.items())[:5])}") from None
        print(f"        {len(idents)} messages on {COPIES} of nodes {among} at least, seen after {time.monotonic() - begin:.1f} s", flush=True)


def grow(site, copies, nodes):
    while len(site.members) < nodes:
        number = site.add()
        wait_for(f"status of node {number}", lambda: site.ask(number, "status", check=False)[0] == 0, 60, 0.3)
        copies.sample()
    places = site.wait_even()
    print(f"        places of voters: {places}", flush=True)
    # The proof needs no silence.
    wait_for("agreement under load", lambda: site.ask(site.any(), "check", check=False)[0] == 0, 60, 0.5)


def drain_and_remove(site, copies, number):
    code, _, text = site.ask(number, "node", "remove", number, "--yes", check=False)
    assert code == 77 and "drain it first" in text, (code, text)
    begin = time.monotonic()
    code, out, text = site.ask(site.any(), "node", "drain", number, check=False)
    assert code == 0, (code, out, text)
    departure = json.loads(site.ask(site.any(), "--json", "node", "remove", number, "--dry-run"))["node"]
    assert departure["state"] == "drained" and not departure["votes_in"] and not departure["would_lose"], departure
    # It serves until it is removed.
    with contextlib.closing(site.smtp(number)) as client:
        assert client.noop()[0] == 250
    # What is counted is on those that stay.
    copies.sample(without=[number])
    site.members.discard(number)
    site.ask(site.any(), "node", "remove", number, "--yes")
    print(f"        node {number} drained and removed after {time.monotonic() - begin:.1f} s", flush=True)
    stopped(site, number)
    # Once more, as after an answer that was lost; and there is nothing left to drain.
    assert "is removed" in site.ask(site.any(), "node", "remove", number, "--yes")
    code, _, text = site.ask(site.any(), "node", "drain", number, check=False)
    assert code == 67 and "was removed" in text, (code, text)
    copies.sample()


def stopped(site, number):
    """A removed node says so and ends."""
    pid = site.node(number)["pid"]
    wait_for(f"the end of node {number}", lambda: not alive(pid), 60, 0.2)
    log = (site.dir / f"node-{number}.log").read_text(errors="replace")
    assert "serves no more" in log, log[-2000:]


def replace_killed(site, copies, number, heir):
    site.kill(number)
    site.members.discard(number)
    before = site.places()
    code, _, text = site.ask(site.any(), "node", "replace", number, "--with", heir, "--yes", check=False)
    assert code == 0, (code, text)
    assert all(number not in group["voters"] + group["learners"] for group in wait_gone(site, number))
    copies.sample()
    print(f"        places before {before}, after {site.places()}", flush=True)
    # It comes back, and nobody talks to it.
    if number in site.extra:
        site.start_extra(number)
    else:
        site.everpost("quickstart", "start", "--node", number, timeout=90, check=False)
        site.read()
    stopped(site, number)
    site.wait_even()


def wait_gone(site, number):
    gone = lambda: (groups := site.groups()) and all(group["leader"] and number not in group["learners"] for group in groups) and groups
    return wait_for(f"groups without node {number}", gone, 30, 0.3)


def replaced_by_itself(site, copies):
    """A voter that is dead for longer than was set is replaced by a spare node, and follows when it is back."""
    site.wait_even()
    number = max(site.members - {site.any()})
    site.ask(site.any(), "setting", "set", "replace_after", 10)
    assert any(number in group["voters"] for group in site.groups())
    site.kill(number)
    site.members.discard(number)
    begin = time.monotonic()
    # Without a leader nobody says who votes.
    elsewhere = lambda: all(group["leader"] and number not in group["voters"] for group in site.groups())
    wait_for("all places of the dead node with others", elsewhere, 90, 0.5)
    print(f"        node {number} replaced {time.monotonic() - begin:.1f} s after its death", flush=True)
    copies.sample()
    code, _, text = site.ask(site.any(), "check", check=False)
    assert code == 69 and "does not answer" in text + _, (code, _, text)
    site.ask(site.any(), "setting", "clear", "replace_after")
    site.restart(number)
    site.members.add(number)
    site.wait_even()


def move_by_hand(site):
    groups = site.groups()
    group = next(group for group in groups if group["group"] == 1)
    source, target = group["voters"][0], next(node for node in sorted(site.members) if node not in group["voters"])
    moved = json.loads(site.ask(site.any(), "--json", "group", "move", "--group", 1, "--from", source, "--to", target))
    assert target in moved["voters"] and source in moved["learners"] and moved["pinned"], moved
    code, _, text = site.ask(site.any(), "group", "move", "--group", 1, "--from", source, "--to", target, check=False)
    assert code == 67, (code, text)
    site.ask(site.any(), "group", "unpin", "--group", 1)


def moves_while_nodes_die(site, copies, seed):
    """Voters move while their leaders, old and new, are killed at any moment: every move comes to its end."""
    rng = random.Random(seed)
    # Nothing else moves meanwhile.
    for group in site.groups():
        site.ask(site.any(), "group", "pin", "--group", group["group"])
    for _ in range(5):
        wait_for("groups at rest", site.places, 60, 0.5)
        group = rng.choice(site.groups())
        source = rng.choice(group["voters"])
        target = rng.choice([node for node in sorted(site.members) if node not in group["voters"]])
        site.ask(site.any(), "group", "move", "--group", group["group"], "--from", source, "--to", target, "--no-wait")
        victim = rng.choice([source, target, group["leader"] or source])
        time.sleep(rng.uniform(0.0, 1.5))
        site.kill(victim)
        site.members.discard(victim)
        time.sleep(rng.uniform(0.5, 2.0))
        site.restart(victim)
        site.members.add(victim)
        moved = lambda: any(row["group"] == group["group"] and target in row["voters"] and source not in row["voters"] for row in site.groups())
        wait_for(f"node {target} in place of {source} in group {group['group']}", moved, 60, 0.5)
    for group in site.groups():
        site.ask(site.any(), "group", "unpin", "--group", group["group"])
    site.wait_even()
    wait_for("agreement", lambda: site.ask(site.any(), "check", check=False)[0] == 0, 60, 0.5)
    copies.sample()


def drain_is_taken_back(site):
    number = max(site.members)
    before = site.wait_even()
    departure = json.loads(site.ask(site.any(), "--json", "node", "drain", number, "--no-wait"))
    assert departure["state"] in ("draining", "drained"), departure
    assert {node["node"]: node["duty"] for node in site.status(number)["nodes"]}[number] == "leaving"
    site.ask(site.any(), "node", "drain", number, "--undo")
    after = site.wait_even()
    assert sum(after.values()) == sum(before.values()), (before, after)


def dead_one_of_three_by_force(site, copies):
    """With no spare node a dead one is removed by force only: two voters are left until another node joins."""
    number = min(site.members)
    site.kill(number)
    site.members.discard(number)
    code, _, text = site.ask(site.any(), "node", "remove", number, "--yes", check=False)
    assert code == 77 and "only 2 other nodes" in text, (code, text)
    plan = json.loads(site.ask(site.any(), "--json", "node", "remove", number, "--force", "--dry-run"))
    assert len(plan["node"]["votes_in"]) == 5 and plan["node"]["would_lose"], plan
    site.ask(site.any(), "node", "remove", number, "--force", "--yes")
    two = lambda: all(sorted(group["voters"]) == sorted(site.members) for group in wait_gone(site, number))
    wait_for("groups of two voters", two, 60, 0.5)
    wait_for("agreement of two", lambda: site.ask(site.any(), "check", check=False)[0] == 0, 60, 0.5)
    losses = {group["bears_losses"] for group in json.loads(site.ask(site.any(), "--json", "check"))["groups"]}
    assert losses == {0}, losses
    new = site.add()
    wait_for(f"status of node {new}", lambda: site.ask(new, "status", check=False)[0] == 0, 60, 0.3)
    three = lambda: (places := site.places()) and places.get(new) == 5
    wait_for("three voters again", three, 90, 0.5)
    copies.sample()


def three_stay_three(site):
    number = min(site.members)
    code, _, text = site.ask(site.any(), "node", "drain", number, check=False)
    assert code == 77 and "only 2 other nodes" in text, (code, text)
    code, _, _ = site.ask(site.any(), "node", "drain", 99, check=False)
    assert code == 67, code
    # Without a node to take the place there is a token for one.
    token = json.loads(site.ask(site.any(), "--json", "node", "replace", number, "--name", "spare"))
    assert token["token"].startswith("everpost-join-1."), token
    code, _, text = site.ask(site.any(), "setting", "set", "replace_after", "soon", check=False)
    assert code == 2 and "number of seconds" in text, (code, text)
    code, _, _ = site.ask(site.any(), "group", "move", "--group", 99, "--from", 1, "--to", 2, check=False)
    assert code == 67, code


def everything_once(site, load):
    """Each acknowledged message exactly once, each other one at most once, at every node."""
    wait_for("an empty queue", lambda: all(site.status(node)["queue"] == 0 for node in site.members), 60, 0.5)
    for node in sorted(site.members):
        found = {}
        for user in range(1, USERS + 1):
            with site.imap(node, user, select="INBOX") as client:
                for _, ident in fetch_ids(client):
                    found.setdefault(ident, []).append(user)
                client.logout()
        lost = [ident for ident, user in load.acknowledged.items() if found.get(ident) != [user]]
        assert not lost, f"node {node}: {len(lost)} of {len(load.acknowledged)} acknowledged messages are not there once: {lost[:10]}"
        twice = [ident for ident, users in found.items() if len(users) > 1]
        assert not twice, twice[:10]


def green(site):
    for node in sorted(site.members):
        agreement = json.loads(site.ask(node, "--json", "check"))
        assert agreement["agree"] and agreement["complete"] and not agreement["problems"], agreement
        assert all(group["bears_losses"] == 1 for group in agreement["groups"]), agreement
    print(site.ask(site.any(), "check"), flush=True)


def main():
    run = Run(__doc__)
    run.parser.add_argument("--nodes", type=int, default=7, help="to how many nodes the site grows; 5 at least")
    run.parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    args = run.parse()
    print(f"        seed {args.seed}, {args.nodes} nodes")
    with run.site(users=USERS, kind=GrowingSite, room=args.nodes + 1) as site:
        if site:
            load = Deliveries(site, args.seed)
            copies = Copies(site, load)
            load.start()
            steps = [
                ("three are not drained", three_stay_three, site),
                (f"grows to {args.nodes} nodes", grow, site, copies, args.nodes),
                ("a group is moved by hand", move_by_hand, site),
                ("voters move while nodes die", moves_while_nodes_die, site, copies, args.seed),
                ("a drain is taken back", drain_is_taken_back, site),
                ("a node is drained and removed", drain_and_remove, site, copies, 1),
                ("a dead voter is replaced by itself", replaced_by_itself, site, copies),
                ("a killed node is replaced", replace_killed, site, copies, 2, args.nodes),
            ]
            steps += [(f"node {number} is drained and removed", drain_and_remove, site, copies, number) for number in range(3, args.nodes - 2)]
            steps += [("a dead one of three is removed by force, and another joins", dead_one_of_three_by_force, site, copies)]
            for name, *step in steps:
                before = run.failed
                run.case(name, *step)
                if run.failed > before:
                    break
            load.end()
            gaps = [later - earlier for earlier, later in zip(load.times, load.times[1:])]
            print(f"        {len(load.acknowledged)} acknowledged, {len(load.in_doubt)} in doubt, longest pause {max(gaps, default=0):.1f} s")
            for text, count in sorted(load.refusals.items(), key=lambda item: -item[1])[:8]:
                print(f"        {count} x {text}")
            run.case("everything acknowledged is there once, at every node", everything_once, site, load)
            run.case("three copies of each", copies.sample)
            run.case("the copies agree", green, site)
    run.finish()


if __name__ == "__main__":
    main()
