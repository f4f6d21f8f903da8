"""Messages that wander from mailbox to mailbox and are expunged while nodes die, and a book of where each may be.

The rule that the book checks: a message is in exactly one of the places in which what was answered leaves it, once.
"""

import hashlib
import random
import re
import threading
import time

from load import FAILURES, RETRY_PAUSE, Load, fetch_bodies, fetch_ids
from testsite import message, ok, wait_for

PLACES = ("INBOX", "Moved")
GONE = "gone"


class Moves:
    """One thread for each node: APPEND, MOVE there and back, STORE \\Deleted with UID EXPUNGE."""

    def __init__(self, site, seed, first_user, pause=0.05):
        self.site, self.seed, self.pause = site, seed, pause
        self.running, self.ended = threading.Event(), threading.Event()
        self.user = {node: first_user + node - 1 for node in range(1, site.count + 1)}
        self.places = {node: {} for node in self.user}  # node -> id -> the places in which it may be
        self.sent = {}  # id -> (octets, SHA-256)
        self.done = {"append": 0, "move": 0, "expunge": 0}
        self.busy = {}
        self.threads = [threading.Thread(target=self._work, args=(node,), name=f"moves-{node}", daemon=True) for node in self.user]
        for node, user in self.user.items():
            with site.imap(node, user) as client:
                ok(client.create("Moved"))

    def start(self):
        self.running.set()
        for thread in self.threads:
            thread.start()

    def hold(self):
        self.running.clear()
        wait_for("the end of the moves under way", lambda: not any(self.busy.values()), 90)

    def go_on(self):
        self.running.set()

    def end(self):
        self.ended.set()
        self.running.set()
        for thread in self.threads:
            thread.join(90)

    def _work(self, node):
        rng = random.Random(f"{self.seed}-moves-{node}")
        session, number = None, 0
        while not self.ended.is_set():
            self.busy[node] = False
            self.running.wait()
            if self.ended.is_set():
                break
            self.busy[node] = True
            if not self.running.is_set():
                continue
            number += 1
            pause = self.pause
            try:
                session = session or self.site.imap(node, self.user[node], timeout=30)
                self._wander(node, session, rng, f"moves-{node}-{number}")
            except FAILURES:
                Load._drop(session)
                session, pause = None, RETRY_PAUSE
            time.sleep(pause)
        self.busy[node] = False
        Load._drop(session)

    def _wander(self, node, session, rng, ident):
        places, what = self.places[node], message(ident, rng.randrange(500, 4000))
        self.sent[ident] = (len(what), hashlib.sha256(what).digest())
        places[ident] = {GONE, "INBOX"}
        answer = ok(session.append("INBOX", None, None, what))
        places[ident] = {"INBOX"}
        self.done["append"] += 1
        uid, here = self._uid(rb"APPENDUID", answer), "INBOX"
        for _ in range(rng.randrange(0, 3)):
            there = PLACES[1 - PLACES.index(here)]
            ok(session.select(here))
            places[ident] = {here, there}
            ok(session.uid("MOVE", uid, there))
            places[ident] = {there}
            self.done["move"] += 1
            uid, here = self._uid(rb"COPYUID", session.response("COPYUID")[1]), there
        if rng.random() < 0.6:
            ok(session.select(here))
            ok(session.uid("STORE", uid, "+FLAGS.SILENT", "(\\Deleted)"))
            places[ident] = {here, GONE}
            ok(session.uid("EXPUNGE", uid))
            places[ident] = {GONE}
            self.done["expunge"] += 1

    @staticmethod
    def _uid(code, data):
        """The new UID that APPENDUID or COPYUID told."""
        text = b" ".join(part for part in data if part).removeprefix(code).rstrip(b"]")
        return re.search(rb"(\d+)(?:\])?[^\d]*$", text.split(b"]")[0])[1].decode()

    def check(self, node):
        """Reads all mailboxes at one node and compares them with the book; the bytes too."""
        problems = []
        for of, user in self.user.items():
            found = {}
            with self.site.imap(node, user) as client:
                for place in PLACES:
                    ok(client.select(place))
                    rows = fetch_ids(client)
                    for _, ident in rows:
                        found.setdefault(ident, []).append(place)
                    idents = dict(rows)
                    for uid, stored in fetch_bodies(client, sorted(idents)) if idents else []:
                        length, digest = self.sent.get(idents[uid], (0, b""))
                        if hashlib.sha256(stored[-length:]).digest() != digest:
                            problems.append(f"{idents[uid]} in {place} of user {user} is not what was sent")
                client.logout()
            for ident, allowed in self.places[of].items():
                where = found.pop(ident, [GONE])
                if len(where) != 1 or where[0] not in allowed:
                    problems.append(f"{ident} of user {user} is in {where}, not in one of {sorted(allowed)}")
            problems += [f"user {user} has {ident}, which nobody sent" for ident in found]
        assert not problems, f"{len(problems)} problems, seen at node {node}:\n  " + "\n  ".join(problems[:20])
