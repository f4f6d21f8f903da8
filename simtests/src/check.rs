//! What must hold when everything is healed and quiet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use admin::api;

use crate::client::Answer;
use crate::client::admin as ask;
use crate::client::imap::{Fetched, Imap};
use crate::client::smtp::Smtp;
use crate::workload::{Known, Ledger, Listing, MAILBOXES, PASSWORD, address, check_bytes, list, owned};

/// How long after the last fault everything must work again, all copies be there, and nothing be wrong.
pub const QUIET_WITHIN: Duration = Duration::from_secs(90);

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

/// Reads everything through every node, and compares.
///
/// # Errors
/// When a node does not answer.
pub async fn everything(nodes: &[IpAddr], users: usize, ledger: &Ledger) -> Answer<()> {
    let mails = ledger.mails();
    for user in 0..users {
        let mut totals: BTreeMap<String, i32> = BTreeMap::new();
        for mailbox in MAILBOXES {
            let mut first: Option<(Listing, Vec<Fetched>)> = None;
            for (number, node) in nodes.iter().enumerate() {
                let mut imap = Imap::login(*node, &address(user), PASSWORD).await?;
                let (mut listing, fetched) = list(&mut imap, mailbox).await?;
                imap.logout().await;
                owned(&mut listing, user);
                ledger.check_listing(number, user, mailbox, &mails, &listing);
                check_bytes(ledger, &fetched, user);
                match &first {
                    None => first = Some((listing, fetched)),
                    Some(seen) if *seen == (listing.clone(), fetched.clone()) => {}
                    Some((seen, _)) => ledger.violation(&format!(
                        "I12: {mailbox} of {} differs between node 1 and node {}: {}",
                        address(user),
                        number + 1,
                        difference(seen, &listing)
                    )),
                }
            }
            let Some((listing, fetched)) = first else { continue };
            for ((_, token), message) in listing.messages.iter().zip(&fetched) {
                *totals.entry(token.clone()).or_default() += 1;
                let flagged = message.flags.iter().any(|flag| flag == "\\Flagged");
                let known = mails
                    .get(token)
                    .and_then(|mail| mail.places.get(mailbox))
                    .map_or(Known::Maybe, |place| place.flagged);
                if known != Known::Maybe && (known == Known::Yes) != flagged {
                    ledger.violation(&format!(
                        "I12: {token} in {mailbox}: \\Flagged is {flagged}, acknowledged was {known:?}"
                    ));
                }
            }
        }
        for (token, mail) in mails.iter().filter(|(_, mail)| mail.user == user) {
            let there = totals.get(token).copied().unwrap_or(0);
            if there < mail.total.0 || there > mail.total.1 {
                ledger.violation(&format!(
                    "I01/I05: {token} is {there} times in all mailboxes; {} to {} times can be",
                    mail.total.0, mail.total.1
                ));
            }
        }
    }
    Ok(())
}

fn difference(one: &Listing, other: &Listing) -> String {
    let only = |here: &Listing, there: &Listing| -> Vec<String> {
        here.messages
            .iter()
            .filter(|message| !there.messages.contains(message))
            .map(|(uid, token)| format!("{uid}={token}"))
            .collect()
    };
    format!(
        "UIDVALIDITY {} and {}, UIDNEXT {} and {}, only there {:?}, only here {:?}",
        one.uid_validity,
        other.uid_validity,
        one.uid_next,
        other.uid_next,
        only(one, other),
        only(other, one)
    )
}

/// A new message is delivered at every node.
///
/// # Errors
/// The first refusal.
pub async fn still_works(nodes: &[IpAddr]) -> Answer<()> {
    for node in nodes {
        let mut smtp = Smtp::connect(*node, false).await?;
        let to = [address(0)];
        let outcomes = smtp
            .deliver("a@example.org", &to, b"Subject: still there?\r\n\r\nyes\r\n")
            .await?;
        outcomes.into_iter().collect::<Answer<Vec<_>>>()?;
    }
    Ok(())
}
