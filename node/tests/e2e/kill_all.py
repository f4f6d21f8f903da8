"""kill -9 of all nodes at once under load: nothing acknowledged is missing, UIDs and UIDVALIDITY are as before."""

import random
import time

from blobs import verify_blobs
from load import Load, fetch_ids
from testsite import Run, wait_for


def numbers(site, load, node):
    """UIDVALIDITY and the UIDs by id, of all mailboxes, as a client sees them."""
    found = {}
    for user in load.mail_users + list(load.flag_user.values()):
        with site.imap(node, user, select="INBOX") as client:
            validity = int(client.response("UIDVALIDITY")[1][0])
            found[user] = (validity, {ident: uid for uid, ident in fetch_ids(client)})
            client.logout()
    return found


def one_round(site, load, rng):
    time.sleep(rng.uniform(2.0, 4.0))
    before = numbers(site, load, rng.randrange(1, site.count + 1))
    time.sleep(rng.uniform(0.2, 1.0))
    site.kill(*range(1, site.count + 1))
    down = time.monotonic()
    site.restart_all()
    print(f"        all serve again after {time.monotonic() - down:.1f} s", flush=True)
    load.hold()
    site.wait_equal(90)
    load.check(rng.randrange(1, site.count + 1), whole=True)
    for node in range(1, site.count + 1):
        after = numbers(site, load, node)
        for user, (validity, uids) in before.items():
            assert after[user][0] == validity, f"UIDVALIDITY of user {user}: {validity}, now {after[user][0]}"
            changed = {ident: (uid, after[user][1].get(ident)) for ident, uid in uids.items() if after[user][1].get(ident) != uid}
            assert not changed, f"node {node}, user {user}: UIDs before and now: {dict(list(changed.items())[:10])}"
    load.go_on()


def main():
    run = Run(__doc__)
    run.parser.add_argument("--rounds", type=int, default=3)
    run.parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    args = run.parse()
    print(f"        seed {args.seed}")
    rng = random.Random(args.seed)
    with run.site(users=Load.users(3)) as site:
        if site:
            load = Load(site, args.seed)
            load.start()
            wait_for("the first successes", lambda: all(load.successes.values()), 30)
            for number in range(args.rounds):
                before = run.failed
                run.case(f"all nodes at once, round {number + 1} of {args.rounds}", one_round, site, load, rng)
                if run.failed > before:
                    break
            load.end()
            print(f"        {load.summary()}")
            run.case("all copies agree", site.wait_equal)
            run.case("every blob has three copies, and its name is its hash", verify_blobs, site, load.present())
    run.finish()


if __name__ == "__main__":
    main()
