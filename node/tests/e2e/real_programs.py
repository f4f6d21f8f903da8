"""A site of three nodes, used by programs that nobody here wrote.

swaks, curl, mbsync, mpop, fetchmail, and Python's smtplib, imaplib and poplib: what goes in at one node comes out at another,
byte for byte.
"""

import contextlib
import imaplib
import os
import poplib
import smtplib
import socket
import ssl
import tempfile
import time
from pathlib import Path

from testsite import (
    PASSWORD, Run, check_stored, fetch_all, find_message, message, need, ok, run_program, wait_for,
)

USERS = 112
# Each case has a user of its own, so that no case sees another one's mail.
SMTP, CURL, SWAKS, TLS, SUBMISSION, LMTP, IDLE, MBSYNC, MPOP, FETCHMAIL, MANY = range(1, 12)


def smtp_in_imap_and_pop3_out(site):
    sent = message("smtp-1", 5000)
    site.deliver(1, [SMTP], sent)
    with site.imap(2, SMTP, select="INBOX") as client:
        check_stored(find_message(client, "smtp-1"), sent)
        client.logout()
    check_stored(pop3_only_message(site, 3, SMTP), sent)


def pop3_only_message(site, node, user):
    client = poplib.POP3(*site.address(node, "pop3"), timeout=30)
    client.user(site.user(user))
    client.pass_(PASSWORD)
    assert client.stat()[0] == 1, client.stat()
    lines = client.retr(1)[1]
    assert len(client.uidl()[1]) == 1
    client.quit()
    return b"".join(line + b"\r\n" for line in lines)


def curl_in_and_out(site):
    curl = need("curl")
    sent = message("curl-1", 3000)
    with tempfile.NamedTemporaryFile() as file:
        file.write(sent)
        file.flush()
        run_program(
            curl, "-sS", "--url", "smtp://{}:{}".format(*site.address(1, "smtp")), "--mail-from", "sender@outside.test",
            "--mail-rcpt", site.user(CURL), "-T", file.name,
        )
    login = f"{site.user(CURL)}:{PASSWORD}"
    url = "imap://{}:{}/INBOX;UID=1".format(*site.address(2, "imap"))
    check_stored(run_program(curl, "-sS", "--user", login, "--url", url), sent)
    url = "pop3://{}:{}/1".format(*site.address(3, "pop3"))
    check_stored(run_program(curl, "-sS", "--user", login, "--url", url), sent)


def curl_over_tls(site):
    curl = need("curl")
    login = f"{site.user(TLS)}:{PASSWORD}"
    for scheme, service in (("imaps", "imaps"), ("pop3s", "pop3s")):
        url = "{}://{}:{}/".format(scheme, *site.address(3, service))
        run_program(curl, "-sS", "--cacert", site.ca, "--user", login, "--url", url)
    for scheme, service in (("imap", "imap"), ("pop3", "pop3")):
        url = "{}://{}:{}/".format(scheme, *site.address(2, service))
        run_program(curl, "-sS", "--ssl-reqd", "--cacert", site.ca, "--user", login, "--url", url)


def swaks_in(site):
    swaks = need("swaks")
    sent = message("swaks-1", 2500)
    with tempfile.NamedTemporaryFile() as file:
        file.write(sent.replace(b"\r\n", b"\n"))
        file.flush()
        run_program(
            swaks, "--server", "{}:{}".format(*site.address(1, "smtp")), "--from", "sender@outside.test",
            "--to", site.user(SWAKS), "--data", f"@{file.name}", "--hide-all",
        )
        run_program(
            swaks, "--server", "{}:{}".format(*site.address(2, "submission")), "--tls", "--auth", "PLAIN",
            "--auth-user", site.user(SWAKS), "--auth-password", PASSWORD, "--from", site.user(SWAKS),
            "--to", site.user(SWAKS), "--header", "Subject: by submission", "--hide-all",
        )
    with site.imap(3, SWAKS, select="INBOX") as client:
        stored = find_message(client, "swaks-1")
        # swaks ends its message with a line end of its own.
        check_stored(stored.rstrip(b"\r\n"), sent.rstrip(b"\r\n"))
        assert len(ok(client.search(None, "SUBJECT", '"by submission"'))[0].split()) == 1
        client.logout()


def tls_on_every_port(site):
    context = ssl.create_default_context(cafile=site.ca)
    sent = message("tls-1", 2500)
    with contextlib.closing(site.smtp(1)) as client:
        client.starttls(context=context)
        assert not client.sendmail("sender@outside.test", [site.user(TLS)], sent)
        client.quit()
    host, port = site.address(2, "imaps")
    client = imaplib.IMAP4_SSL(host, port, ssl_context=context, timeout=30)
    client.login(site.user(TLS), PASSWORD)
    ok(client.select("INBOX"))
    check_stored(find_message(client, "tls-1"), sent)
    client.logout()
    client = imaplib.IMAP4(*site.address(3, "imap"), timeout=30)
    client.starttls(context)
    client.login(site.user(TLS), PASSWORD)
    client.logout()
    host, port = site.address(3, "pop3s")
    client = poplib.POP3_SSL(host, port, context=context, timeout=30)
    client.user(site.user(TLS))
    client.pass_(PASSWORD)
    assert client.stat()[0] == 1
    client.quit()
    client = poplib.POP3(*site.address(1, "pop3"), timeout=30)
    client.stls(context)
    client.user(site.user(TLS))
    client.pass_(PASSWORD)
    client.quit()


def submission_with_a_login(site):
    context = ssl.create_default_context(cafile=site.ca)
    sent = message("submission-1", 1500).replace(b"sender@outside.test", site.user(SUBMISSION).encode(), 1)
    with contextlib.closing(site.smtp(1, "submission")) as client:
        client.starttls(context=context)
        client.ehlo()
        code, text = client.docmd(f"MAIL FROM:<{site.user(SUBMISSION)}>")
        assert code == 530, (code, text)
        client.login(site.user(SUBMISSION), PASSWORD)
        assert not client.sendmail(site.user(SUBMISSION), [site.user(SUBMISSION)], sent)
        client.quit()
    host, port = site.address(2, "submissions")
    with contextlib.closing(smtplib.SMTP_SSL(host, port, context=context, timeout=30)) as client:
        client.login(site.user(SUBMISSION), PASSWORD)
        second = sent.replace(b"submission-1", b"submission-2")
        assert not client.sendmail(site.user(SUBMISSION), [site.user(SUBMISSION)], second)
        # There is no relay to other domains yet, and it is not the message's fault.
        client.mail(site.user(SUBMISSION))
        code, text = client.rcpt("somebody@elsewhere.test")
        assert 400 <= code < 500, (code, text)
        client.quit()
    with contextlib.closing(smtplib.SMTP_SSL(host, port, context=context, timeout=30)) as client:
        try:
            client.login(site.user(SUBMISSION), "wrong")
        except smtplib.SMTPAuthenticationError as error:
            assert error.smtp_code == 535, error
        else:
            raise AssertionError("a wrong password is taken")
    with site.imap(3, SUBMISSION, select="INBOX") as client:
        check_stored(find_message(client, "submission-1"), sent)
        check_stored(find_message(client, "submission-2"), second)
        client.logout()


def lmtp_answers_for_each_recipient(site):
    sent = message("lmtp-1", 2500)
    with contextlib.closing(site.smtp(2, "lmtp")) as client:
        refused = client.sendmail("sender@outside.test", [site.user(LMTP), "nobody@example.test"], sent)
        assert list(refused) == ["nobody@example.test"] and refused["nobody@example.test"][0] == 550, refused
        client.quit()
    check_stored(pop3_only_message(site, 1, LMTP), sent)


def idle_hears_of_a_delivery_at_another_node(site):
    slowest = 0.0
    with contextlib.closing(socket.create_connection(site.address(2, "imap"), timeout=30)) as client:
        file = client.makefile("rb")
        file.readline()
        client.sendall(f'a LOGIN {site.user(IDLE)} {PASSWORD}\r\nb SELECT INBOX\r\n'.encode())
        while not file.readline().startswith(b"b OK"):
            pass
        client.sendall(b"c IDLE\r\n")
        while not file.readline().startswith(b"+"):
            pass
        for number in range(1, 11):
            site.deliver(1, [IDLE], message(f"idle-{number}"))
            begin = time.monotonic()
            while b"* %d EXISTS" % number not in file.readline():
                pass
            slowest = max(slowest, time.monotonic() - begin)
        client.sendall(b"DONE\r\n")
        while not file.readline().startswith(b"c OK"):
            pass
    print(f"        slowest notice after {slowest * 1000:.0f} ms")
    assert slowest < 1.0, f"{slowest} s"


def refusals(site):
    with contextlib.closing(site.smtp(3)) as client:
        client.mail("sender@outside.test")
        code, text = client.rcpt("nobody@example.test")
        assert code == 550 and b"5.1.1" in text, (code, text)
        code, text = client.rcpt("somebody@elsewhere.test")
        assert 550 <= code <= 554, (code, text)
        # The transaction is alive, and a good recipient is still taken.
        code, text = client.rcpt(site.user(SMTP))
        assert code == 250, (code, text)
        client.rset()
        client.quit()


def mbsync_both_ways(site):
    mbsync = need("mbsync")
    root = Path(tempfile.mkdtemp(prefix="everpost-mbsync-"))
    (root / "mail").mkdir()
    near = root / "mail" / "INBOX"
    for folder in ("cur", "new", "tmp"):
        (near / folder).mkdir(parents=True)
    with site.imap(1, MBSYNC) as client:
        for number in range(250):
            flags = r"(\Seen)" if number % 2 else None
            ok(client.append("INBOX", flags, None, message(f"far-{number}", 800)))
        client.logout()
    for number in range(250):
        flags = "S" if number % 2 else ""
        text = message(f"near-{number}", 800).replace(b"\r\n", b"\n")
        (near / "cur" / f"1700000000.{number}.host:2,{flags}").write_bytes(text)
    host, port = site.address(2, "imap")
    (root / "mbsyncrc").write_text(
        f"IMAPStore far\nHost {host}\nPort {port}\nUser {site.user(MBSYNC)}\nPass {PASSWORD}\nSSLType None\n"
        f"AuthMechs LOGIN\nTimeout 60\n\nMaildirStore near\nPath {root}/mail/\nInbox {near}\nSubFolders Verbatim\n\n"
        "Channel all\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Both\nExpunge Both\nSync All\nSyncState *\n"
    )
    run = lambda: run_program(mbsync, "-c", root / "mbsyncrc", "all", env={**os.environ, "HOME": str(root)}, timeout=300)

    def far(node):
        with site.imap(node, MBSYNC, select="INBOX") as client:
            state = sorted(ok(client.uid("FETCH", "1:*", "(UID FLAGS)")))
            status = ok(client.status("INBOX", "(MESSAGES UIDNEXT UIDVALIDITY UNSEEN)"))
            idents = {text.split(b"X-E2E-Id: ")[1].split(b"\r\n")[0] for _, text in fetch_all(client)}
            client.logout()
        return state, status, idents

    def here():
        return sorted(path.name for folder in ("cur", "new") for path in (near / folder).iterdir())

    run()
    expected = {f"{side}-{number}".encode() for side in ("near", "far") for number in range(250)}
    state = far(3)
    assert len(state[0]) == 500 and state[2] == expected, (len(state[0]), len(state[2]))
    assert len(here()) == 500, len(here())
    assert b"UNSEEN 250" in state[1][0], state[1]
    before = state[:2], here()
    run()
    assert (far(1)[:2], here()) == before, "the second run moved something"
    # A flag and a removal on each side go over to the other.
    with site.imap(3, MBSYNC, select="INBOX") as client:
        ok(client.uid("STORE", "1", "+FLAGS", r"(\Flagged)"))
        ok(client.uid("STORE", "2", "+FLAGS", r"(\Deleted)"))
        ok(client.expunge())
        client.logout()
    victim = next(path for path in (near / "cur").iterdir() if b"X-E2E-Id: near-7\n" in path.read_bytes())
    victim.unlink()
    run()
    names = here()
    assert len(names) == 498 and sum("F" in name.rsplit(",", 1)[1] for name in names) == 1, len(names)
    state = far(2)
    assert len(state[0]) == 498 and b"near-7" not in state[2], len(state[0])


def mpop_fetches(site):
    mpop = need("mpop")
    sent = [message(f"mpop-{number}", 1500) for number in range(5)]
    for text in sent:
        site.deliver(2, [MPOP], text)
    root = Path(tempfile.mkdtemp(prefix="everpost-mpop-"))
    for folder in ("cur", "new", "tmp"):
        (root / "maildir" / folder).mkdir(parents=True)
    host, port = site.address(3, "pop3")
    config = root / "mpoprc"
    config.write_text(
        f"account a\nhost {host}\nport {port}\nuser {site.user(MPOP)}\npassword {PASSWORD}\nauth user\ntls off\nkeep on\n"
        f"received_header off\nuidls_file {root}/uidls\ndelivery maildir {root}/maildir\n"
    )
    config.chmod(0o600)
    fetch = lambda: run_program(mpop, "-C", config, "a")
    fetch()
    files = [path.read_bytes().replace(b"\n", b"\r\n") for path in (root / "maildir" / "new").iterdir()]
    assert len(files) == 5, len(files)
    for text in sent:
        check_stored(next(file for file in files if file.endswith(text)), text)
    fetch()
    assert len(list((root / "maildir" / "new").iterdir())) == 5, "UIDL changed between two sessions"


def fetchmail_fetches(site):
    fetchmail = need("fetchmail")
    sent = message("fetchmail-1", 1500)
    site.deliver(3, [FETCHMAIL], sent)
    root = Path(tempfile.mkdtemp(prefix="everpost-fetchmail-"))
    host, port = site.address(1, "pop3")
    config = root / "fetchmailrc"
    config.write_text(
        f'poll {host} service {port} protocol pop3\n  user "{site.user(FETCHMAIL)}" password "{PASSWORD}" sslproto ""\n'
        f'  nokeep mda "cat >> {root}/mail"\n'
    )
    config.chmod(0o600)
    run_program(fetchmail, "-f", config, "--nosyslog", "-i", root / "ids", env={**os.environ, "HOME": str(root)})
    body = (root / "mail").read_bytes().replace(b"\r\n", b"\n")
    assert sent.replace(b"\r\n", b"\n").split(b"\n\n", 1)[1].rstrip() in body, body[-1500:]
    # It deletes what it fetched, and the other nodes know it.
    with site.imap(2, FETCHMAIL, select="INBOX") as client:
        assert ok(client.search(None, "ALL"))[0] == b""
        client.logout()


def hundred_recipients_are_one_blob(site):
    nodes = range(1, site.count + 1)
    # Files are written behind the acknowledgement: wait until those of the cases before are all there.
    wait_for("the journals of blobs", lambda: not any(site.status(node)["blobs"]["journal_backlog"] for node in nodes), 60, 0.3)
    before = {node: set(site.blob_files(node)) for node in nodes}
    users = range(MANY, MANY + 100)
    sent = message("hundred", 20_000)
    site.deliver(1, users, sent)
    added = lambda: {node: set(site.blob_files(node)) - before[node] for node in nodes}
    wait_for("a file on each node", lambda: all(added().values()), 30)
    time.sleep(2)
    names = added()
    assert all(len(found) == 1 for found in names.values()) and len(set.union(*names.values())) == 1, names
    for user in (users[0], users[50], users[99]):
        with site.imap(1 + user % 3, user, select="INBOX") as client:
            check_stored(find_message(client, "hundred"), sent)
            client.logout()
    if path := next((file for file in [site.blob_files(2)[name] for name in names[2]] if file.suffix == ".zst"), None):
        check_stored(run_program(need("zstd"), "-dc", path), sent)


def copies_agree(site):
    site.wait_equal()
    for number in range(1, site.count + 1):
        assert site.status(number)["blobs"]["corrupt"] == 0


def main():
    run = Run(__doc__)
    run.parse()
    with run.site(users=USERS) as site:
        if site:
            for test in (
                smtp_in_imap_and_pop3_out, curl_in_and_out, swaks_in, tls_on_every_port, curl_over_tls, submission_with_a_login,
                lmtp_answers_for_each_recipient, idle_hears_of_a_delivery_at_another_node, refusals, mbsync_both_ways,
                mpop_fetches, fetchmail_fetches, hundred_recipients_are_one_blob, copies_agree,
            ):
                run.case(test.__name__.replace("_", " "), test, site)
    run.finish()


if __name__ == "__main__":
    main()
