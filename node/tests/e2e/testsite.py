"""What the end-to-end tests share: a site of real processes, made by `everpost quickstart`, and how cases are counted.

Python's standard library only. Each test program runs alone: `python3 node/tests/e2e/NAME.py --binary target/release/everpost`.
"""

import argparse
import contextlib
import email.utils
import fcntl
import imaplib
import json
import os
import random
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

PASSWORD = "secret"
DOMAIN = "example.test"
SERVICES = (24, 25, 80, 110, 143, 190, 443, 465, 587, 993, 995)
# Below the range that the kernel gives to outgoing connections, and apart from the default of `quickstart`.
BASES = [base + shift for base in (9000, 13000, 17000, 21000, 25000) for shift in (0, 200)]

imaplib._MAXLINE = 64 * 1024 * 1024


class Skipped(Exception):
    """A case that cannot run here."""


class Run:
    """Counts the cases of one program."""

    def __init__(self, description):
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--binary", default="target/release/everpost", type=Path)
        parser.add_argument("--keep", action="store_true", help="leave the site's directory behind")
        parser.add_argument("--only", help="run only the cases whose names hold this text")
        self.parser = parser
        self.passed = self.failed = self.skipped = 0
        self.args = None

    def parse(self):
        self.args = self.parser.parse_args()
        self.args.binary = self.args.binary.resolve()
        if not os.access(self.args.binary, os.X_OK):
            sys.exit(f"{self.args.binary}: no such program; cargo build --release makes it")
        return self.args

    def case(self, name, test, *arguments):
        """Runs one case; a failure is shown and counted, and the others go on."""
        if self.args.only and self.args.only not in name:
            return None
        begin = time.monotonic()
        try:
            result = test(*arguments)
        except Skipped as why:
            if os.environ.get("CI"):
                self.failed += 1
                print(f"FAILED  {name}: {why}", flush=True)
            else:
                self.skipped += 1
                print(f"skipped {name}: {why}", flush=True)
            return None
        except Exception:
            self.failed += 1
            print(f"FAILED  {name} ({time.monotonic() - begin:.1f} s)", flush=True)
            traceback.print_exc(file=sys.stdout)
            sys.stdout.flush()
            return None
        self.passed += 1
        print(f"ok      {name} ({time.monotonic() - begin:.1f} s)", flush=True)
        return result

    def finish(self):
        """Prints the counts; the exit status tells whether all is well."""
        if self.skipped:
            print(f"{self.skipped} skipped")
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(1 if self.failed or not self.passed else 0)

    @contextlib.contextmanager
    def site(self, kind=None, **options):
        """A running site, ended and cleared away in the end. A site that does not start is a failure."""
        try:
            site = (kind or Site)(self.args.binary, **options)
        except Exception:
            self.failed += 1
            print("FAILED  start of the site", flush=True)
            traceback.print_exc(file=sys.stdout)
            yield None
            return
        try:
            yield site
        finally:
            site.stop()
            if self.failed:
                site.show_logs()
            site.close(self.args.keep)


class Site:
    """The nodes of one `everpost quickstart`."""

    def __init__(self, binary, nodes=3, users=4, room=None):
        """`room` is for how many nodes there have to be ports, where more will come."""
        self.binary = binary
        self.dir = Path(tempfile.mkdtemp(prefix="everpost-e2e-"))
        self.lock, self.base = free_base(room or nodes)
        self.pids = set()
        begin = time.monotonic()
        options = ["--nodes", nodes, "--users", users, "--password", PASSWORD, "--base-port", self.base]
        try:
            self.everpost("quickstart", *options, "--detach", timeout=180 + users)
            self.read()
        except Exception:
            # What came up before it failed must not outlive the test.
            with contextlib.suppress(Exception):
                self.everpost("quickstart", "stop", timeout=60)
            self.show_logs()
            self.close(False)
            raise
        print(f"        {nodes} nodes, {users} users, {self.dir}, ready after {time.monotonic() - begin:.1f} s", flush=True)

    def read(self):
        """Reads quickstart.json again: a node that was started again has another pid."""
        self.info = json.loads((self.dir / "quickstart.json").read_text())
        self.pids.update(node["pid"] for node in self.info["nodes"])
        self.ca = self.info["ca"]

    def everpost(self, *arguments, timeout=60, check=True):
        """Runs the program; its standard output."""
        command = [str(self.binary), "--dir", str(self.dir)] + [str(argument) for argument in arguments]
        # Into files, not pipes: nodes that are left running would hold a pipe open.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=timeout)
            out.seek(0)
            err.seek(0)
            stdout, stderr = out.read(), err.read()
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{stdout[-2000:]}{stderr[-4000:]}")
        return stdout if check else (done.returncode, stdout, stderr)

    @property
    def count(self):
        return len(self.info["nodes"])

    def node(self, number):
        return self.info["nodes"][number - 1]

    def address(self, number, service):
        host, port = self.node(number)[service].rsplit(":", 1)
        return host, int(port)

    def user(self, number):
        return f"user{number}@{DOMAIN}"

    def blob_dir(self, number):
        return Path(self.node(number)["dir"]) / "blobs"

    def blob_files(self, number):
        """The blob files of a node, by name."""
        return {path.name: path for path in self.blob_dir(number).glob("??/??/*.eml*") if path.name.endswith((".eml", ".zst"))}

    # Nodes.

    def kill(self, *numbers):
        """kill -9, and waits until the processes are gone."""
        pids = [self.node(number)["pid"] for number in numbers]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            wait_for(f"the end of {pid}", lambda: not alive(pid), 10, 0.01)

    def restart(self, number, timeout=60):
        self.everpost("quickstart", "start", "--node", number, timeout=timeout)
        self.read()

    def restart_all(self, timeout=120):
        """Starts every node of a site that is down as a whole."""
        self.everpost("quickstart", "--detach", timeout=timeout)
        self.read()

    def status(self, number):
        """`everpost status --json` of one node."""
        command = [str(self.binary), "--dir", self.node(number)["dir"], "--json", "status"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if not done.stdout.lstrip().startswith("{"):
            raise RuntimeError(f"status of node {number}: exit {done.returncode}: {done.stdout[-500:]}{done.stderr[-1000:]}")
        status = json.loads(done.stdout)
        if "groups" not in status:
            raise RuntimeError(f"status of node {number}: exit {done.returncode}: {status}")
        return status

    def differences(self):
        """What keeps the copies from being the same everywhere; nothing when all is well."""
        found, groups = [], {}
        for number in range(1, self.count + 1):
            try:
                status = self.status(number)
            except Exception as error:
                return [f"node {number}: {str(error)[:300]}"]
            if status["blobs"]["under_replicated"]:
                found.append(f"node {number}: {status['blobs']['under_replicated']} blobs under-replicated")
            for group in status["groups"]:
                if group["closed"]:
                    found.append(f"node {number}: group {group['group']} is closed: {group['closed']}")
                groups.setdefault(group["group"], []).append((number, group["applied"], group["digest"]))
        for group, replicas in sorted(groups.items()):
            if len(replicas) != self.count or len({replica[1:] for replica in replicas}) != 1:
                found.append(f"group {group}: (node, applied, digest) {replicas}")
        return found

    def wait_equal(self, timeout=60):
        """Waits until every group has the same digest on every node, and every blob its copies."""
        last = []

        def equal():
            last[:] = self.differences()
            return not last

        try:
            wait_for("equal copies", equal, timeout, 0.3)
        except TimeoutError:
            raise AssertionError("the copies do not agree:\n  " + "\n  ".join(last)) from None

    # Clients.

    def imap(self, number, user, timeout=60, select=None):
        client = imaplib.IMAP4(*self.address(number, "imap"), timeout=timeout)
        client.login(self.user(user), PASSWORD)
        if select:
            ok(client.select(select))
        return client

    def smtp(self, number, service="smtp", timeout=60):
        client = (smtplib.LMTP if service == "lmtp" else smtplib.SMTP)(*self.address(number, service), timeout=timeout)
        client.ehlo_or_helo_if_needed()
        return client

    def deliver(self, number, users, message, service="smtp"):
        recipients = [self.user(user) for user in users]
        with contextlib.closing(self.smtp(number, service)) as client:
            refused = client.sendmail("sender@outside.test", recipients, message)
            assert not refused, refused
            client.quit()

    # The end.

    def stop(self):
        with contextlib.suppress(Exception):
            self.everpost("quickstart", "stop", timeout=60)
        self.end_all()

    def end_all(self):
        """Ends what is left of our own processes, by the ids that quickstart.json named."""
        for pid in self.pids:
            if alive(pid) and str(self.dir) in command_line(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def show_logs(self):
        for path in sorted(self.dir.rglob("*.log")):
            if path.is_file() and "blobs" not in path.parts:
                with contextlib.suppress(OSError):
                    lines = path.read_bytes()[-200_000:].decode(errors="replace").splitlines()[-25:]
                    print(f"--- {path}", *lines, sep="\n    ", flush=True)

    def close(self, keep):
        if keep:
            print(f"        kept: {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
        self.lock.close()


def alive(pid):
    """Whether a process runs; one that ended and that nobody waited for does not.

    While a thread is still in the kernel, its process looks like a zombie too, but holds its files and locks.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state not in "ZX" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def free_base(nodes):
    """A base of ports that nobody uses, and the lock that keeps other tests from it."""
    bases = BASES[:]
    random.shuffle(bases)
    for base in bases:
        lock = open(Path(tempfile.gettempdir()) / f"everpost-e2e-{base}.lock", "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        if all(is_free(base + 1000 * node + port) for node in range(1, nodes + 1) for port in SERVICES):
            return lock, base
        lock.close()
    raise RuntimeError("no free ports")


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


def wait_for(what, condition, timeout, pause=0.05):
    """Waits until the condition holds; its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(pause)


def ok(answer):
    """The data of an imaplib answer that has to be OK."""
    kind, data = answer
    assert kind == "OK", (kind, data)
    return data


def message(ident, size=2000, subject="a message"):
    """A message, its lines ended by CRLF, that is its own proof: it holds what no other message holds."""
    head = (
        f"From: sender@outside.test\r\nTo: somebody@{DOMAIN}\r\nSubject: {subject}\r\nX-E2E-Id: {ident}\r\n"
        f"Message-ID: <{ident}@outside.test>\r\nDate: {email.utils.formatdate()}\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    )
    lines = [f"This is {ident}.", "..a line that begins with dots", ".", "Grüße, 日本語, trailing blanks   ", ""]
    text = head + "\r\n".join(lines) + "\r\n"
    source = random.Random(str(ident))
    parts = [text.encode()]
    length = len(parts[0])
    while length < size:
        line = source.randbytes(27).hex().encode() + b"\r\n"
        parts.append(line)
        length += len(line)
    return b"".join(parts)


def check_stored(stored, sent):
    """What is stored is what was sent, behind trace fields and nothing else."""
    assert stored.endswith(sent), f"the message is not the one that was sent:\n{stored[:1500]!r}\n---\n{sent[:500]!r}"
    trace = stored[: len(stored) - len(sent)]
    for line in trace.splitlines():
        name = line.split(b":")[0].lower()
        is_trace = name in (b"return-path", b"received", b"delivered-to")
        assert is_trace or line[:1] in b" \t", f"not a trace field: {line!r}"


def need(program):
    """The path of a program that nobody here wrote."""
    path = shutil.which(program)
    if not path:
        raise Skipped(f"{program} is not installed")
    return path


def run_program(*command, timeout=120, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, timeout=timeout, **options)
    assert done.returncode == 0, f"{command[0]}: exit {done.returncode}\n{done.stdout[-2000:]!r}\n{done.stderr[-2000:]!r}"
    return done.stdout


def fetch_all(client):
    """(UID, message) of everything in the selected mailbox."""
    found = []
    for part in ok(client.uid("FETCH", "1:*", "(UID BODY.PEEK[])")):
        if isinstance(part, tuple):
            uid = int(part[0].split(b"UID ")[1].split()[0])
            found.append((uid, part[1]))
    return found


def find_message(client, ident):
    """The one message of the selected mailbox with this id."""
    uids = ok(client.uid("SEARCH", "HEADER", "X-E2E-Id", f'"{ident}"'))[0].split()
    assert len(uids) == 1, f"{ident}: UIDs {uids}"
    data = ok(client.uid("FETCH", uids[0].decode(), "(BODY.PEEK[])"))
    return next(part[1] for part in data if isinstance(part, tuple))
