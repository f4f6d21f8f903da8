//! What must hold when everything is healed and quiet.
//!
//! The last look is taken as clients take it, through every node, and in the states of all replicas; what it shows is
//! judged together with everything that clients were told while it went on.

mod dump;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use admin::api;
use core_types::limits::QUEUE_ATTEMPT_TIME;
use oracle::history::{Action, MailboxKey, Outcome, Seen};
use oracle::judge::Last;
use oracle::mail::FinalMessage;
use oracle::mailbox::Tokens;
use oracle::message::read as read_body;
use oracle::time::Time;

use crate::book::Book;
use crate::client::imap::{Fetched, Imap, Selected};
use crate::client::smtp::Smtp;
use crate::client::{Answer, Failure, admin as ask};
use crate::workload::look::{in_state, state_view};
use crate::workload::world::World;
use crate::workload::{MAILBOXES, PASSWORD, address};

/// How long after the last fault everything must work again, all copies be there, and nothing be wrong.
///
/// What was being tried out of a queue when its node died is tried again only after the time of an attempt.
pub const QUIET_WITHIN: Duration = Duration::from_secs(QUEUE_ATTEMPT_TIME.as_secs() + 30);
/// How long an operation of a client may take.
const OPERATION_WITHIN: Duration = Duration::from_secs(120);
/// States that are looked at in each check of linearizability: what is not decided by then seldom is, and is counted.
const BUDGET: usize = 20_000;
/// Differences between nodes are looked for so often: what one has applied the other has a moment later.
const DUMPS_MAX: usize = 10;

/// Returns when every node finds nothing to complain about and each group has so many voters, or says what it complains about after [`QUIET_WITHIN`].
///
/// # Errors
/// What is still wrong.
pub async fn quiet(nodes: &[IpAddr], voters: usize) -> Result<Duration, String> {
    let begin = tokio::time::Instant::now();
    loop {
        let mut wrong = String::new();
        for node in nodes {
            match ask::request(*node, "GET", "/v1/status", "").await {
                Ok(body) => {
                    for text in complaints(&body, nodes.len(), voters) {
                        wrong.push_str(&format!("{node}: {text}; "));
                    }
                }
                Err(failure) => wrong.push_str(&format!("{node}: {failure}; ")),
            }
        }
        if wrong.is_empty() {
            return Ok(begin.elapsed());
        }
        if begin.elapsed() > QUIET_WITHIN {
            return Err(wrong);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What a node's status says that is not as it should be in a quiet site.
fn complaints(body: &str, nodes: usize, voters: usize) -> Vec<String> {
    let status: api::Status = match serde_json::from_str(body) {
        Ok(status) => status,
        Err(error) => return vec![error.to_string()],
    };
    // That damaged copies were found, and replaced, stays said until the next start.
    let checks = status.checks.iter().filter(|check| check.code != "BLOBS_DAMAGED");
    let mut complaints: Vec<String> = checks
        .map(|check| format!("{} {}", check.code, check.message))
        .collect();
    if status.queue > 0 {
        complaints.push(format!("{} entries in the queue", status.queue));
    }
    for group in status
        .groups
        .iter()
        .filter(|group| group.voters.len() != voters || group.learners.len() != nodes - voters)
    {
        complaints.push(format!(
            "group {} has the voters {:?} and the learners {:?}",
            group.group, group.voters, group.learners
        ));
    }
    complaints
}

/// Makes the mailboxes that every user has, and writes down what there is.
///
/// # Errors
/// When the node does not answer.
pub async fn prepare(world: &World) -> Answer<()> {
    world.learn_accounts().await;
    let node = world.hosts[0].address();
    for user in 1..=world.users {
        let mut imap = Imap::login(node, &address(user), PASSWORD, &world.book, "the founder").await?;
        for mailbox in MAILBOXES.iter().filter(|name| **name != "INBOX") {
            // "Archive" may be one that every account has.
            let _ = imap.command(&format!("CREATE {mailbox}")).await;
        }
        for name in names(&mut imap).await? {
            world.name(user, &name, &name);
            world.set_there(user, &name, true);
            if name != "INBOX" {
                let op = world.invoke(0, 0, Action::Create { account: user, name });
                world.end(op, Outcome::Ok, |_| {});
            }
        }
        imap.logout().await;
    }
    Ok(())
}

async fn names(imap: &mut Imap) -> Answer<Vec<String>> {
    let responses = imap.command("LIST \"\" *").await?;
    let listed = responses.iter().map(|response| response.text.as_str());
    let mut names: Vec<String> = listed.filter_map(crate::workload::listed_name).collect();
    names.sort();
    Ok(names)
}

/// Reads everything through every node and in every state, and has all of it judged.
///
/// # Errors
/// When a node does not answer.
pub async fn everything(world: &World) -> Answer<()> {
    let mut last = Last::default();
    let mut gone: BTreeMap<MailboxKey, BTreeSet<u32>> = BTreeMap::new();
    for user in 1..=world.users {
        let mut first: Option<BTreeMap<String, Shown>> = None;
        let mut nodes = world.members();
        // Bytes are read through one node, another one for each user.
        let begin = user as usize % nodes.len().max(1);
        nodes.rotate_left(begin);
        for node in nodes {
            let shown = through_node(world, user, node, first.is_none(), &mut last, &mut gone).await?;
            match &first {
                None => first = Some(shown),
                Some(seen) => compare(world, user, node, seen, &shown),
            }
        }
    }
    add_sweeps(world, &gone, &last);
    for round in 0..DUMPS_MAX {
        last.dumps = dump::all(world).await;
        if oracle::dump::compare(&last.dumps, 1).is_empty() || round + 1 == DUMPS_MAX {
            break;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    last.accounts = dump::accounts(world).await;
    world.book.add(
        "look.dumped-rows",
        last.dumps.values().map(|dump| dump.len() as u64).sum(),
    );
    world.book.finish(&last, OPERATION_WITHIN, BUDGET);
    Ok(())
}

/// A mailbox as a node shows it, without bytes.
type Shown = (Selected, Vec<Fetched>);

/// Everything that a user has, as a node shows it.
async fn through_node(
    world: &World,
    user: u32,
    node: usize,
    bodies: bool,
    last: &mut Last,
    gone: &mut BTreeMap<MailboxKey, BTreeSet<u32>>,
) -> Answer<BTreeMap<String, Shown>> {
    let address = (world.hosts[node].address(), address(user));
    let mut imap = Imap::login(address.0, &address.1, PASSWORD, &world.book, "the last look").await?;
    let op = world.invoke(
        0,
        node,
        Action::List {
            account: user,
            names: Vec::new(),
        },
    );
    let listed = names(&mut imap).await?;
    world.end(op, Outcome::Ok, |action| {
        if let Action::List { names, .. } = action {
            names.clone_from(&listed);
        }
    });
    let mut all = BTreeMap::new();
    for name in listed {
        let key = MailboxKey::new(user, &world.label(user, &name));
        let began = Book::now();
        let op = world.invoke(
            0,
            node,
            Action::Read {
                mailbox: key.clone(),
                messages: None,
                some: Vec::new(),
                count: None,
            },
        );
        let (told, mut fetched) = read_all(&mut imap, &name, bodies).await?;
        let seen = fetched.iter().map(|message| {
            let token = read_body(&message.body).token.filter(|_| bodies);
            let flags = Some(message.flags);
            (message.uid, Seen { token, flags })
        });
        let seen: Vec<(u32, Seen)> = seen.collect();
        world.end(op, Outcome::Ok, |action| {
            if let Action::Read { messages, count, .. } = action {
                *count = u32::try_from(seen.len()).ok();
                *messages = Some(seen);
            }
        });
        if bodies {
            last.messages
                .extend(fetched.iter().map(|message| final_message(&key, message)));
        }
        let vanished = look_at_state(world, user, node, began, &key, told.uid_validity).await;
        gone.entry(key).or_default().extend(vanished);
        fetched.iter_mut().for_each(|message| message.body.clear());
        all.insert(name, (told, fetched));
    }
    imap.logout().await;
    Ok(all)
}

async fn read_all(imap: &mut Imap, name: &str, bodies: bool) -> Answer<Shown> {
    let told = imap.select(name).await?;
    let count = imap.exists();
    if count == 0 {
        return Ok((told, Vec::new()));
    }
    let body = if bodies { " BODY.PEEK[]" } else { "" };
    let command = format!("FETCH 1:{count} (UID FLAGS INTERNALDATE RFC822.SIZE{body})");
    let fetched = imap.fetch(&command).await?;
    if fetched.len() != count as usize {
        let what = format!("{name}: {} of {count} messages were told", fetched.len());
        return Err(Failure::Protocol(what));
    }
    Ok((told, fetched))
}

fn final_message(key: &MailboxKey, message: &Fetched) -> FinalMessage {
    let body = read_body(&message.body);
    FinalMessage {
        mailbox: key.clone(),
        uid: message.uid,
        token: body.token,
        digest: body.digest,
        flags: message.flags,
    }
}

/// The state behind what a node just showed; gives the UIDs that vanished.
async fn look_at_state(
    world: &World,
    user: u32,
    node: usize,
    began: Time,
    key: &MailboxKey,
    uid_validity: u32,
) -> BTreeSet<u32> {
    let Some((account, group)) = world.account(user) else {
        return BTreeSet::new();
    };
    let view = in_state(&world.hosts[node], group, |view| {
        let rows = state::mailbox::Reader::new(view).mailboxes(account)?;
        let row = rows.iter().find(|row| row.uid_validity.0 == uid_validity);
        row.map(|row| state_view(view, key, row)).transpose()
    });
    let Some(view) = view.await.flatten() else {
        return BTreeSet::new();
    };
    let number = node as u64 + 1;
    world.book.judge(|judge| judge.look(number, began, Book::now(), &view));
    world.book.count("look.last");
    view.vanished.into_iter().flatten().map(|(uid, _)| uid).collect()
}

/// What EXPUNGE and CLOSE may have taken that their clients had not heard of: it is gone now.
fn add_sweeps(world: &World, gone: &BTreeMap<MailboxKey, BTreeSet<u32>>, last: &Last) {
    let there: BTreeSet<(&MailboxKey, u32)> = last
        .messages
        .iter()
        .map(|message| (&message.mailbox, message.uid))
        .collect();
    let sweeps = world.sweeps();
    world.book.judge(|judge| {
        let (tokens, _) = Tokens::of(&judge.history);
        for sweep in sweeps {
            let mut uids = tokens.uids(&judge.history, &sweep.mailbox);
            uids.extend(gone.get(&sweep.mailbox).into_iter().flatten());
            uids.retain(|uid| {
                let can_be = sweep.below.is_none_or(|below| *uid < below);
                can_be && !sweep.known.contains(uid) && !there.contains(&(&sweep.mailbox, *uid))
            });
            for uid in uids {
                let action = Action::Expunge {
                    mailbox: sweep.mailbox.clone(),
                    uids: vec![uid],
                };
                let op = judge.history.invoke(sweep.client, sweep.node, sweep.began, action);
                judge.history.end(op, sweep.began, Outcome::Unknown, |_| {});
            }
        }
    });
}

/// Two nodes show a user's mail alike.
fn compare(world: &World, user: u32, node: usize, one: &BTreeMap<String, Shown>, other: &BTreeMap<String, Shown>) {
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    for name in names {
        let (here, there) = (one.get(name), other.get(name));
        if here != there {
            let what = format!(
                "{name} of {} differs between the node asked first and node {}: {here:?} and {there:?}",
                address(user),
                node + 1
            );
            world.book.violation("I12", what);
        }
    }
}

/// A new message is delivered at every node.
///
/// # Errors
/// The first refusal.
pub async fn still_works(nodes: &[IpAddr]) -> Answer<()> {
    for node in nodes {
        let mut smtp = Smtp::connect(*node, false).await?;
        let to = [address(1)];
        let outcomes = smtp
            .deliver("a@example.org", &to, b"Subject: still there?\r\n\r\nyes\r\n")
            .await?;
        outcomes.into_iter().collect::<Answer<Vec<_>>>()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use oracle::history::{FlagSet, Token};

    use crate::site::Site;

    use super::*;
    use crate::workload::world::Sweep;

    fn finished(world: &World, last: &Last) -> Vec<&'static str> {
        world.book.finish(last, OPERATION_WITHIN, BUDGET);
        world.book.violations().iter().map(|violation| violation.id).collect()
    }

    /// A message that was appended, and shown as UID 7 to somebody.
    fn appended() -> (World, MailboxKey) {
        let world = World::new(Book::default(), &[], Site::default(), 1);
        let key = MailboxKey::new(1, "INBOX");
        let append = Action::Append {
            to: key.clone(),
            token: Token(1),
            digest: [0; 32],
            flags: FlagSet(0),
            uid: Some(7),
        };
        let op = world.invoke(1, 0, append);
        world.end(op, Outcome::Ok, |_| {});
        (world, key)
    }

    fn sweep(key: &MailboxKey, known: &[u32], below: Option<u32>) -> Sweep {
        Sweep {
            client: 2,
            node: 1,
            began: Time(0),
            mailbox: key.clone(),
            known: known.iter().copied().collect(),
            below,
        }
    }

    #[test]
    fn what_a_client_was_told_is_judged() {
        let (world, _) = appended();
        assert_eq!(finished(&world, &Last::default()), ["I01", "I01"]);
        assert_eq!(world.book.coverage().counter("op.append").hits, 1);
    }

    #[test]
    fn a_sweep_explains_what_its_client_did_not_know_of_and_nothing_else() {
        let explained = |known: &[u32], below| {
            let (world, key) = appended();
            world.swept(sweep(&key, known, below));
            add_sweeps(&world, &BTreeMap::new(), &Last::default());
            finished(&world, &Last::default()).is_empty()
        };
        assert!(explained(&[], None));
        assert!(explained(&[6], Some(8)));
        // What the client did know of it has recorded itself.
        assert!(!explained(&[7], None));
        // It came only after the sweep was over.
        assert!(!explained(&[], Some(7)));
    }

    #[test]
    fn what_is_there_no_sweep_took() {
        let (world, key) = appended();
        world.swept(sweep(&key, &[], None));
        let mut last = Last::default();
        last.messages.push(FinalMessage {
            mailbox: key,
            uid: 7,
            token: Some(Token(1)),
            digest: [0; 32],
            flags: FlagSet(0),
        });
        add_sweeps(&world, &BTreeMap::new(), &last);
        world.book.judge(|judge| assert_eq!(judge.history.ops().len(), 1));
        assert!(finished(&world, &last).is_empty());
    }

    #[test]
    fn nodes_that_show_different_flags_are_told() {
        let world = World::new(Book::default(), &[], Site::default(), 1);
        let shown = |flags| {
            let message = Fetched {
                uid: 1,
                flags: FlagSet(flags),
                ..Fetched::default()
            };
            BTreeMap::from([("INBOX".to_owned(), (Selected::default(), vec![message]))])
        };
        compare(&world, 1, 1, &shown(1), &shown(1));
        assert!(world.book.violations().is_empty());
        compare(&world, 1, 1, &shown(1), &shown(0));
        compare(&world, 1, 1, &shown(1), &BTreeMap::new());
        assert_eq!(world.book.violations().len(), 2);
    }
}
