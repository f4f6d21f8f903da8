"""Load on a site while its nodes die: deliveries, APPENDs and flag changes over all nodes, and a book of what was acknowledged.

The rule that the book checks: what was answered `250` or `OK` is there exactly once; what got another answer, or none, is there
at most once; a flag is as its last acknowledged change left it.
"""

import contextlib
import hashlib
import imaplib
import random
import re
import smtplib
import threading
import time

from testsite import message, ok, wait_for

# What a client may see of a server that goes away.
FAILURES = (OSError, EOFError, imaplib.IMAP4.error, smtplib.SMTPException, AssertionError)
FLAG_MESSAGES = 10
RETRY_PAUSE = 0.1


class Load:
    """Three threads for each node: SMTP deliveries, IMAP APPENDs, flag changes."""

    def __init__(self, site, seed, pause=0.02):
        self.site, self.seed, self.pause = site, seed, pause
        self.lock = threading.Lock()
        self.running = threading.Event()
        self.ended = threading.Event()
        self.acknowledged = {}  # id -> user
        self.in_doubt = {}  # id -> user
        self.sent = {}  # id -> (octets, SHA-256) of the message
        self.proven = {}  # node -> the ids whose bytes were compared there
        self.sizes = lambda rng: rng.randrange(500, 8000)
        self.delivery = {}  # node -> the service that takes its deliveries, where that is not SMTP
        self.appended = {}  # id -> (user, UIDVALIDITY, UID), as APPENDUID said
        self.flags = {}  # (node, UID) -> the sets of flags that the message may have
        self.successes = {}  # (node, kind) -> times of successes
        self.refusals = {}  # the texts of failures, counted
        self.busy = {}  # thread -> whether it is inside an operation
        self.seen = {}  # user -> {id: [UID, ...]}
        self.uid_validity = {}
        nodes = range(1, site.count + 1)
        # Users 1..N take the mail; user N + k has the mailbox whose flags the thread of node k changes.
        self.mail_users = list(nodes)
        self.flag_user = {node: site.count + node for node in nodes}
        self.threads = []
        for node in nodes:
            for kind in ("deliver", "append", "flags"):
                self.successes[node, kind] = []
                thread = threading.Thread(target=self._work, args=(node, kind), name=f"{kind}-{node}", daemon=True)
                self.threads.append(thread)
        for node in nodes:
            self._prepare_flags(node)

    @staticmethod
    def users(nodes):
        """How many users a site needs for this."""
        return 2 * nodes

    def start(self):
        self.running.set()
        for thread in self.threads:
            thread.start()

    def hold(self):
        """Stops the load and waits for the operations under way."""
        self.running.clear()
        wait_for("the end of the operations under way", lambda: not any(self.busy.values()), 90)

    def go_on(self):
        self.running.set()

    def end(self):
        self.ended.set()
        self.running.set()
        for thread in self.threads:
            thread.join(90)

    # Workers.

    def _work(self, node, kind):
        rng = random.Random(f"{self.seed}-{node}-{kind}")
        operate = {"deliver": self._deliver, "append": self._append, "flags": self._change_flags}[kind]
        name, session, number = threading.current_thread().name, None, 0
        while not self.ended.is_set():
            self.busy[name] = False
            self.running.wait()
            if self.ended.is_set():
                break
            self.busy[name] = True
            if not self.running.is_set():
                continue
            number += 1
            try:
                if session is None:
                    session = self._open(node, kind)
                operate(node, session, rng, f"{kind}-{node}-{number}")
                self.successes[node, kind].append(time.monotonic())
                pause = self.pause
            except FAILURES as error:
                with self.lock:
                    text = f"{kind}: {type(error).__name__}: {str(error)[:100]}"
                    self.refusals[text] = self.refusals.get(text, 0) + 1
                self._drop(session)
                session, pause = None, RETRY_PAUSE
            time.sleep(pause)
        self.busy[name] = False
        self._drop(session)

    def _open(self, node, kind):
        if kind == "deliver":
            return self.site.smtp(node, self.delivery.get(node, "smtp"), timeout=30)
        if kind == "append":
            return self.site.imap(node, self.mail_users[0], timeout=30)
        return self.site.imap(node, self.flag_user[node], timeout=30, select="INBOX")

    @staticmethod
    def _drop(session):
        if session is not None:
            with contextlib.suppress(*FAILURES):
                session.close() if isinstance(session, smtplib.SMTP) else session.shutdown()

    def _deliver(self, node, session, rng, ident):
        user = rng.choice(self.mail_users)
        what = self._doubt(ident, user, rng)
        refused = session.sendmail("sender@outside.test", [self.site.user(user)], what)
        assert not refused, refused
        self._acknowledge(ident, user)

    def _append(self, node, session, rng, ident):
        user = self.mail_users[0]
        data = ok(session.append("INBOX", None, None, self._doubt(ident, user, rng)))
        self._acknowledge(ident, user)
        if found := re.search(rb"APPENDUID (\d+) (\d+)", data[0] or b""):
            self.appended[ident] = (user, int(found[1]), int(found[2]))

    def _doubt(self, ident, user, rng):
        """The message that is about to be sent."""
        what = message(ident, self.sizes(rng))
        with self.lock:
            self.in_doubt[ident] = user
            self.sent[ident] = (len(what), hashlib.sha256(what).digest())
        return what

    def _acknowledge(self, ident, user):
        with self.lock:
            del self.in_doubt[ident]
            self.acknowledged[ident] = user

    def _prepare_flags(self, node):
        with self.site.imap(node, self.flag_user[node]) as client:
            for number in range(FLAG_MESSAGES):
                ok(client.append("INBOX", None, None, message(f"flags-{node}-{number}", 600)))
            client.logout()
        for uid in range(1, FLAG_MESSAGES + 1):
            self.flags[node, uid] = [frozenset()]

    def _change_flags(self, node, session, rng, ident):
        uid = rng.randrange(1, FLAG_MESSAGES + 1)
        choice = rng.sample(["\\Seen", "\\Flagged", "\\Answered", "$Label1", "later"], rng.randrange(0, 4))
        self.flags[node, uid] = self.flags[node, uid] + [frozenset(choice)]
        ok(session.uid("STORE", str(uid), "FLAGS.SILENT", f"({' '.join(choice)})"))
        self.flags[node, uid] = [frozenset(choice)]

    # What clients saw.

    def longest_gap(self, begin, end, nodes):
        """The longest time without a success of one kind at one of these nodes, and where it was."""
        worst = (0.0, None)
        for (node, kind), times in self.successes.items():
            if node in nodes:
                last = begin
                for moment in [moment for moment in times if begin <= moment <= end] + [end]:
                    worst = max(worst, (moment - last, (node, kind)), key=lambda gap: gap[0])
                    last = moment
        return worst

    # The book.

    def check(self, node, whole=False, timeout=60):
        """Reads all mail at one node and compares it with the book."""
        if whole:
            self.seen.clear()
        deadline = time.monotonic() + timeout
        while True:
            self._read_mail(node)
            problems = self._problems()
            # A recipient whose group could not take it at once comes out of the queue a little later.
            if not problems or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        problems += self._flag_problems(node)
        assert not problems, f"{len(problems)} problems, seen at node {node}:\n  " + "\n  ".join(problems[:20])

    def _read_mail(self, node):
        for user in self.mail_users:
            seen = self.seen.setdefault(user, {})
            with self.site.imap(node, user, select="INBOX") as client:
                validity = int(client.response("UIDVALIDITY")[1][0])
                known = self.uid_validity.setdefault(user, validity)
                assert known == validity, f"UIDVALIDITY of user {user} changed from {known} to {validity}"
                first = 1 + max((uid for uids in seen.values() for uid in uids), default=0)
                for uid, ident in fetch_ids(client, first):
                    seen.setdefault(ident, []).append(uid)
                client.logout()

    def _problems(self):
        problems = []
        for ident, user in self.acknowledged.items():
            uids = self.seen[user].get(ident, [])
            if len(uids) != 1:
                problems.append(f"{ident} was acknowledged, user {user} has it {len(uids)} times (UIDs {uids})")
            elif (told := self.appended.get(ident)) and told != (user, self.uid_validity[user], uids[0]):
                problems.append(f"{ident}: APPENDUID said {told}, it has UID {uids[0]}")
        for ident, user in self.in_doubt.items():
            if len(self.seen[user].get(ident, [])) > 1:
                problems.append(f"{ident} was not acknowledged, user {user} has it twice")
        known = self.acknowledged.keys() | self.in_doubt.keys()
        for user, seen in self.seen.items():
            problems += [f"user {user} has {ident}, which nobody sent" for ident in seen.keys() - known]
        return problems

    def check_bytes(self, node, chunk=50):
        """Reads the messages that were not read at this node yet, after `check`: they are what was sent."""
        proven = self.proven.setdefault(node, set())
        problems = []
        for user, seen in self.seen.items():
            idents = {uids[0]: ident for ident, uids in seen.items() if uids and ident not in proven}
            uids = sorted(idents)
            with self.site.imap(node, user, select="INBOX") as client:
                for begin in range(0, len(uids), chunk):
                    asked = uids[begin : begin + chunk]
                    for uid, stored in fetch_bodies(client, asked):
                        length, digest = self.sent[idents[uid]]
                        if hashlib.sha256(stored[-length:]).digest() == digest:
                            proven.add(idents[uid])
                    lacking = [idents[uid] for uid in asked if idents[uid] not in proven]
                    problems += [f"{ident} of user {user} is not what was sent" for ident in lacking]
                client.logout()
        assert not problems, f"{len(problems)} problems, seen at node {node}:\n  " + "\n  ".join(problems[:20])

    def _flag_problems(self, node):
        problems = []
        for of, user in self.flag_user.items():
            with self.site.imap(node, user, select="INBOX") as client:
                for line in ok(client.uid("FETCH", "1:*", "(UID FLAGS)")):
                    uid = int(re.search(rb"UID (\d+)", line)[1])
                    flags = re.search(rb"FLAGS \(([^)]*)\)", line)[1].decode().split()
                    flags = frozenset(flag for flag in flags if flag.lower() != "\\recent")
                    if flags not in self.flags[of, uid]:
                        expected = [sorted(choice) for choice in self.flags[of, uid]]
                        problems.append(f"flags of UID {uid} of user {user}: {sorted(flags)}, not one of {expected}")
                client.logout()
        return problems

    def present(self):
        """The ids of all messages that are in a mailbox, as the last check saw them."""
        mail = {ident for seen in self.seen.values() for ident in seen}
        return mail | {f"flags-{node}-{number}" for node in self.flag_user for number in range(FLAG_MESSAGES)}

    def summary(self):
        rate = {kind: sum(len(times) for (_, of), times in self.successes.items() if of == kind) for kind in ("deliver", "append", "flags")}
        return f"{rate}, {len(self.in_doubt)} in doubt"


def fetch_bodies(client, uids):
    """(UID, message) of some messages of the selected mailbox."""
    wanted = ",".join(str(uid) for uid in uids)
    parts = ok(client.uid("FETCH", wanted, "(UID BODY.PEEK[])"))
    return [(int(re.search(rb"UID (\d+)", part[0])[1]), part[1]) for part in parts if isinstance(part, tuple)]


def fetch_ids(client, first=1):
    """(UID, id) of the messages of the selected mailbox from a UID on."""
    found = []
    for part in ok(client.uid("FETCH", f"{first}:*", "(UID BODY.PEEK[HEADER.FIELDS (X-E2E-Id)])")):
        if isinstance(part, tuple):
            uid = int(re.search(rb"UID (\d+)", part[0])[1])
            # n:* names the last message also where its UID is below n.
            if uid >= first:
                found.append((uid, re.search(rb"(?i)X-E2E-Id: *(\S+)", part[1])[1].decode()))
    return found
