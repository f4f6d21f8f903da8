"""Clients that ask for much and read little: a mailbox of 100,000 messages read at 1 KiB/s, an idle client that is deaf to a
flood, a search through 1 GiB. Memory stays bounded, others are not held up, and a search ends with its client."""

import contextlib
import os
import socket
import threading
import time
from pathlib import Path

from limits import memory, reset_peaks
from testsite import PASSWORD, Run, message, ok, wait_for

MESSAGES = 100_000
# So many at once: a flood of many arrivals, not of a few large ones.
STEP = 2_000
# Each: the view of one more session, the outgoing buffers of a few, and what the allocator keeps back.
READER_EXTRA_MIB_MAX = 48
SEARCH_EXTRA_MIB_MAX = 32
# Rows of 100,000 messages come into the index and its log besides, so this only shows that changes are not queued one by one
# with what they hold.
FLOOD_EXTRA_MIB_MAX = 400
ANSWER_SECONDS_MAX = 3.0
LARGE = 50 * 1000 * 1000
COPIES = 21


class Raw:
    """A client of lines whose kernel buffers next to nothing."""

    def __init__(self, site, number, user):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(60)
        self.socket.connect(site.address(number, "imap"))
        self.rest = b""
        self.until(b"* OK")
        self.send(f"a LOGIN {site.user(user)} {PASSWORD}")
        self.until(b"a OK")

    def send(self, line):
        self.socket.sendall(line.encode() + b"\r\n")

    def until(self, start):
        """The line that begins so, and those before it."""
        lines = []
        while True:
            line, found, rest = self.rest.partition(b"\n")
            if not found:
                piece = self.socket.recv(65536)
                assert piece, (lines[-3:], self.rest)
                self.rest += piece
                continue
            self.rest = rest
            lines.append(line)
            if line.startswith(start):
                return lines

    def close(self):
        self.socket.close()


class Others:
    """Another session, and deliveries at the same node, that go on all the time: the longest that one of them took."""

    def __init__(self, site, number, user):
        self.site, self.number, self.user = site, number, user
        self.longest, self.rounds, self.errors = 0.0, 0, []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._work)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        assert not self.errors, self.errors
        assert self.rounds >= 5, self.rounds
        print(f"        {self.rounds} rounds of others, the longest {self.longest:.2f} s", flush=True)
        assert self.longest < ANSWER_SECONDS_MAX, f"{self.longest:.2f} s"

    def _work(self):
        try:
            with self.site.imap(self.number, self.user, select="INBOX") as client:
                while not self.over.is_set():
                    begin = time.monotonic()
                    self.site.deliver(self.number, [self.user], message(f"other-{self.rounds}"))
                    ok(client.noop())
                    data = ok(client.fetch("*", "(FLAGS BODY.PEEK[])"))
                    assert f"other-{self.rounds}".encode() in data[0][1], data[0][1][:500]
                    self.longest = max(self.longest, time.monotonic() - begin)
                    self.rounds += 1
                    time.sleep(0.1)
                client.logout()
        except Exception as error:  # Told where the test is.
            self.errors.append(repr(error))


def extra(site, number, before):
    return memory(site.node(number)["pid"], "VmHWM") - before[number - 1]


def idle_flood(site):
    """An idle client that does not read while its mailbox grows to 100,000 messages and all their flags change."""
    with site.imap(1, 1, timeout=300, select="INBOX") as client:
        for number in range(10):
            ok(client.append("INBOX", None, None, message(f"flood-{number}", 10_000)))
        deaf = Raw(site, 1, 1)
        deaf.send("b SELECT INBOX")
        deaf.until(b"b OK")
        deaf.send("c IDLE")
        deaf.until(b"+")
        before = reset_peaks(site)
        begin = time.monotonic()
        with Others(site, 1, 2):
            count = 10
            while count < MESSAGES:
                more = min(count, STEP, MESSAGES - count)
                ok(client.copy(f"1:{more}", "INBOX"))
                ok(client.noop())
                count += more
            # 100,000 FETCH responses wait for whoever reads.
            for first in range(1, MESSAGES, STEP):
                ok(client.store(f"{first}:{first + STEP - 1}", "+FLAGS.SILENT", "(\\Flagged)"))
        took = time.monotonic() - begin
        grown = extra(site, 1, before)
        print(f"        {MESSAGES} messages and changes in {took:.1f} s, extra MiB: {grown:.1f}", flush=True)
        assert grown < FLOOD_EXTRA_MIB_MAX, f"{grown:.1f} MiB"
        deaf.send("DONE")
        lines = deaf.until(b"c OK")
        exists = [line for line in lines if line.rstrip().endswith(b" EXISTS")]
        flags = sum(b" FETCH " in line for line in lines)
        print(f"        what the deaf one reads then: {len(exists)} EXISTS, {flags} FETCH", flush=True)
        assert exists[-1].split()[1] == str(MESSAGES).encode(), exists[-3:]
        assert len(exists) < 100 and flags <= 2 * MESSAGES, (len(exists), flags)
        deaf.close()
        client.logout()


def slow_reader(site):
    """FETCH 1:* BODY[] of 100,000 messages, 1 GB, by a client that reads 1 KiB/s."""
    slow = Raw(site, 1, 1)
    slow.send("b SELECT INBOX")
    lines = slow.until(b"b OK")
    assert any(line.startswith(f"* {MESSAGES} EXISTS".encode()) for line in lines), lines
    before = reset_peaks(site)
    with Others(site, 1, 2):
        slow.send("c FETCH 1:* BODY.PEEK[]")
        got = 0
        end = time.monotonic() + 15
        while time.monotonic() < end:
            got += len(slow.socket.recv(1024))
            time.sleep(1)
    grown = extra(site, 1, before)
    print(f"        {got} octets read, extra MiB: {grown:.1f}", flush=True)
    assert grown < READER_EXTRA_MIB_MAX, f"{grown:.1f} MiB"
    assert got > 5000, got
    slow.close()


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def large_search(site):
    """SEARCH BODY of 60 KiB that almost matches everywhere, over 21 messages of 50 MB."""
    head = message("large-search", 400)
    # Not quite what is looked for, again and again; it compresses, so that disks are not the point.
    line = b"a" * 74 + b"\r\n"
    sent = head + line * ((LARGE - len(head)) // len(line))
    with site.imap(1, 3, timeout=300) as client:
        ok(client.append("INBOX", None, None, sent))
        ok(client.select("INBOX"))
        for _ in range(COPIES - 1):
            ok(client.copy("1", "INBOX"))
        ok(client.noop())
        client.logout()
    needle = "a" * (60 * 1024 - 1) + "b"
    search = f"c SEARCH BODY {{{len(needle)}+}}\r\n{needle}"
    seeker = Raw(site, 1, 3)
    seeker.socket.settimeout(300)
    seeker.send("b SELECT INBOX")
    seeker.until(b"b OK")
    before = reset_peaks(site)
    begin = time.monotonic()
    with Others(site, 1, 2):
        seeker.send(search)
        lines = seeker.until(b"c OK")
    took = time.monotonic() - begin
    grown = extra(site, 1, before)
    print(f"        {COPIES * LARGE / 2**30:.2f} GiB searched in {took:.1f} s, extra MiB: {grown:.1f}", flush=True)
    assert b"* SEARCH\r" in lines, lines[-3:]
    assert grown < SEARCH_EXTRA_MIB_MAX, f"{grown:.1f} MiB"

    # A search ends with its client.
    pid = site.node(1)["pid"]
    seeker.send(search)
    time.sleep(0.5)
    seeker.close()

    def at_rest():
        used = cpu_seconds(pid)
        time.sleep(1)
        return cpu_seconds(pid) - used < 0.3

    begin = time.monotonic()
    wait_for("the search to end", at_rest, max(4.0, took / 2), 0)
    print(f"        at rest {time.monotonic() - begin:.1f} s after its client had gone", flush=True)


def main():
    run = Run(__doc__)
    run.parse()
    with run.site(users=3) as site:
        if site:
            run.case("an idle client is deaf to 100,000 messages", idle_flood, site)
            run.case("100,000 messages are read at 1 KiB/s", slow_reader, site)
            run.case("60 KiB are looked for in 1 GiB", large_search, site)
            with contextlib.suppress(Exception):
                site.imap(1, 1).logout()
            run.case("all copies agree", site.wait_equal)
    run.finish()


if __name__ == "__main__":
    main()
