"""What things cost: a message of 50 MB in and out in less than 32 MB more memory, and 1,000 idle IMAP sessions in less than 100 MB."""

import contextlib
import hashlib
import os
import poplib
import resource
import socket
import time
from pathlib import Path

from testsite import PASSWORD, Run, message, ok

LARGE = 50 * 1000 * 1000
LARGE_EXTRA_MIB_MAX = 32
IDLE_SESSIONS = 1000
IDLE_EXTRA_MIB_MAX = 100
# A node takes 100 connections from one address and 100 sessions of one account.
PER_ADDRESS = 50
USERS = 24


def memory(pid, field):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} tells no {field}")


def reset_peaks(site):
    """From here on VmHWM is the peak from now; the memory of each node now."""
    for node in site.info["nodes"]:
        Path(f"/proc/{node['pid']}/clear_refs").write_text("5")
    return [memory(node["pid"], "VmRSS") for node in site.info["nodes"]]


def peaks(site, before):
    extra = [memory(node["pid"], "VmHWM") - was for node, was in zip(site.info["nodes"], before)]
    return ", ".join(f"{value:.1f}" for value in extra), max(extra)


def large(size, compressible):
    head = message("large", 400)
    if compressible:
        line = b"It was a dark and stormy night; the rain fell in torrents, except at intervals.\r\n"
        body = line * ((size - len(head)) // len(line))
    else:
        body = b"\r\n".join(os.urandom(37).hex().encode() for _ in range((size - len(head)) // 76)) + b"\r\n"
    return head + body


def large_message(site, compressible, user):
    # What the first delivery sets up is no cost of a large one.
    for node in (1, 2, 3):
        site.deliver(node, [user], message(f"warm-{node}", 3000))
        with site.imap(node, user, select="INBOX") as client:
            client.fetch("1:*", "(BODY.PEEK[])")
            client.logout()
    sent = large(LARGE, compressible)
    before = reset_peaks(site)
    begin = time.monotonic()
    site.deliver(1, [user], sent)
    took = time.monotonic() - begin
    text, extra = peaks(site, before)
    print(f"        SMTP in: {took:.1f} s, extra MiB at the nodes: {text}", flush=True)
    assert extra < LARGE_EXTRA_MIB_MAX, f"{extra:.1f} MiB"

    digest = hashlib.sha256(sent).digest()
    before = reset_peaks(site)
    begin = time.monotonic()
    with site.imap(2, user, select="INBOX", timeout=120) as client:
        data = ok(client.fetch("4", "(BODY.PEEK[])"))
        stored = next(part[1] for part in data if isinstance(part, tuple))
        assert hashlib.sha256(stored[len(stored) - len(sent) :]).digest() == digest
        client.logout()
    took = time.monotonic() - begin
    text, extra = peaks(site, before)
    print(f"        IMAP out: {took:.1f} s, extra MiB at the nodes: {text}", flush=True)
    assert extra < LARGE_EXTRA_MIB_MAX, f"{extra:.1f} MiB"

    before = reset_peaks(site)
    client = poplib.POP3(*site.address(3, "pop3"), timeout=120)
    client.user(site.user(user))
    client.pass_(PASSWORD)
    stored = b"".join(line + b"\r\n" for line in client.retr(4)[1])
    assert hashlib.sha256(stored[len(stored) - len(sent) :]).digest() == digest
    client.quit()
    text, extra = peaks(site, before)
    print(f"        POP3 out: extra MiB at the nodes: {text}", flush=True)
    assert extra < LARGE_EXTRA_MIB_MAX, f"{extra:.1f} MiB"

    before = reset_peaks(site)
    with site.imap(3, user, timeout=120) as client:
        ok(client.append("INBOX", None, None, sent))
        client.logout()
    text, extra = peaks(site, before)
    print(f"        APPEND: extra MiB at the nodes: {text}", flush=True)
    assert extra < LARGE_EXTRA_MIB_MAX, f"{extra:.1f} MiB"


def too_large_is_refused(site):
    with contextlib.closing(site.smtp(1, timeout=120)) as client:
        code, text = client.docmd("MAIL FROM:<sender@outside.test> SIZE=999999999")
        assert code == 552, (code, text)
        client.quit()
    client = site.imap(1, 1)
    client.send(b"x1 APPEND INBOX {999999999}\r\n")
    line = client.readline()
    client.shutdown()
    assert line.startswith((b"x1 NO", b"x1 BAD")), line
    # The node still serves.
    site.deliver(1, [1], message("after-too-large"))


def idle_session(site, number):
    # From several loopback addresses, since a node limits the connections of one address.
    source = (f"127.0.0.{1 + number // PER_ADDRESS}", 0)
    client = socket.create_connection(site.address(1, "imap"), timeout=60, source_address=source)
    file = client.makefile("rb", buffering=512)
    user = site.user(1 + number % USERS)
    assert file.readline().startswith(b"* OK")
    client.sendall(f"a LOGIN {user} {PASSWORD}\r\n".encode())
    until(file, b"a OK")
    client.sendall(b"b SELECT INBOX\r\n")
    until(file, b"b OK")
    client.sendall(b"c IDLE\r\n")
    until(file, b"+")
    return client, file


def until(file, start):
    while not (line := file.readline()).startswith(start):
        refused = start[:1] != b"*" and line.startswith(start[:1] + b" ")
        assert line and not refused, line
    return line


def idle_sessions(site):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    warm = [idle_session(site, number) for number in range(30)]
    for client, file in warm:
        file.close()
        client.close()
    time.sleep(1)
    pid = site.node(1)["pid"]
    before = memory(pid, "VmRSS")
    begin = time.monotonic()
    sessions = [idle_session(site, number) for number in range(IDLE_SESSIONS)]
    opened = time.monotonic() - begin
    time.sleep(2)
    extra = memory(pid, "VmRSS") - before
    print(f"        before: {before:.1f} MiB", flush=True)
    print(f"        {IDLE_SESSIONS} sessions opened in {opened:.1f} s; {extra:.1f} MiB, {extra * 1024 / IDLE_SESSIONS:.0f} KiB each", flush=True)
    assert extra < IDLE_EXTRA_MIB_MAX, f"{extra:.1f} MiB"
    # All of them hear of a delivery: what they cost while they do nothing is not the cost of being deaf.
    begin = time.monotonic()
    site.deliver(2, range(1, USERS + 1), message("to-all-idle"))
    for client, file in sessions:
        until(file, b"*")
    print(f"        all heard of a delivery after {time.monotonic() - begin:.2f} s", flush=True)
    for client, file in sessions:
        client.sendall(b"DONE\r\nd LOGOUT\r\n")
    for client, file in sessions:
        until(file, b"d OK")
        file.close()
        client.close()


def main():
    run = Run(__doc__)
    run.parse()
    # First, and on a site of its own: what large messages leave to the allocator would hide what sessions take.
    with run.site(users=USERS) as site:
        if site:
            run.case("1,000 idle IMAP sessions", idle_sessions, site)
    with run.site(users=2) as site:
        if site:
            run.case("50 MB that do not compress, in and out", large_message, site, False, 1)
            run.case("50 MB that compress well, in and out", large_message, site, True, 2)
            run.case("too large is refused before it is sent", too_large_is_refused, site)
            run.case("all copies agree", site.wait_equal)
    run.finish()


if __name__ == "__main__":
    main()
