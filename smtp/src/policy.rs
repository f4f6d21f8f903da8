//! Who may send, who gets mail, and why not: the answers to the machine's questions, and a table of replies for each kind
//! of error.
//!
//! Invariants: nobody relays (a foreign domain is refused on every listener until there is a relay client); a "no such
//! user" is confirmed at the directory's majority before it is said (`directory` does), and what cannot be confirmed is
//! "not now". Not here: the end of data (`finish`).

use core_types::Address;
use directory::{Account, LookupError, Recipient};
use mailstore::StoreError;
use smtp_proto::{Enhanced, ForwardPath, Reply, ReversePath, Role, Verdict};
use state::Refusal;

use crate::Context;

/// An accepted recipient.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// RCPT TO; for `<postmaster>` the address that it stands for.
    pub(crate) address: Address,
    /// The accounts of ours behind it, at least one.
    pub(crate) accounts: Vec<Account>,
}

const NO_SUCH_USER: Reply = Reply::new(550, Enhanced(5, 1, 1), "No such user here");
const RELAYING_DENIED: Reply = Reply::new(550, Enhanced(5, 7, 1), "Relaying denied");
const NO_RELAY_YET: Reply = Reply::new(451, Enhanced(4, 3, 2), "Relaying to other domains is not available yet");
const FORWARDING_NOT_YET: Reply = Reply::new(451, Enhanced(4, 4, 0), "Relaying is not available yet");
const ALIASES: Reply = Reply::new(451, Enhanced(4, 3, 5), "The aliases of this address lead too far");
const DIRECTORY: Reply = Reply::new(
    450,
    Enhanced(4, 3, 0),
    "The directory cannot answer now, try again later",
);
const MAILBOX_FULL: Reply = Reply::new(452, Enhanced(4, 2, 2), "Mailbox full");
const NEVER_FITS: Reply = Reply::new(552, Enhanced(5, 2, 2), "Message is larger than the mailbox may be");
const NOT_YOURS: Reply = Reply::new(553, Enhanced(5, 7, 1), "That is not an address of yours");

/// What a failed login is answered (RFC 4954 6).
pub(crate) fn login_refusal(error: &directory::LoginError) -> Reply {
    use directory::LoginError;
    match error {
        LoginError::Wrong => Reply::new(535, Enhanced(5, 7, 8), "Authentication credentials invalid"),
        LoginError::TooMany => Reply::new(421, Enhanced(4, 7, 0), "Too many failed logins, try again later"),
        LoginError::Unavailable(_) => Reply::new(454, Enhanced(4, 7, 0), "Temporary authentication failure"),
    }
}

/// What an error of the mail store is answered.
pub(crate) fn store_refusal(error: &StoreError) -> Reply {
    const NOT_NOW: Reply = Reply::new(451, Enhanced(4, 3, 0), "Mail cannot be stored now, try again later");
    match error {
        StoreError::Refused(Refusal::OverQuota) => Reply::new(552, Enhanced(5, 2, 2), "Mailbox full"),
        StoreError::Refused(Refusal::NoSuchAccount | Refusal::NoSuchMailbox) => NO_SUCH_USER,
        StoreError::Full => Reply::new(452, Enhanced(4, 3, 1), "No space left, try again later"),
        StoreError::TooLarge(_) => Reply::new(552, Enhanced(5, 3, 4), "Message is larger than the limit"),
        // Unknown, too: the sender tries again, and may send twice (RFC 5321 6.1), but loses nothing.
        StoreError::Refused(_)
        | StoreError::Unavailable(_)
        | StoreError::Unknown
        | StoreError::BlobMissing(_)
        | StoreError::Internal(_) => NOT_NOW,
    }
}

fn lookup_refusal(error: &LookupError) -> Reply {
    tracing::warn!(%error, "recipient not looked up");
    DIRECTORY
}

/// Whether there is room on this node's disk for a message of so many octets.
pub(crate) async fn check_room(context: &Context, size: u64) -> Verdict {
    match context.store.check_room(size).await {
        Ok(()) => Verdict::Accepted,
        Err(error) => {
            tracing::warn!(size, %error, "no mail is taken");
            Verdict::Refused(store_refusal(&error))
        }
    }
}

/// Whether mail may come from this sender here. On submission it is the sender's own address, one that leads to it, or
/// `<>` for a report (RFC 8098 3).
pub(crate) async fn check_sender(context: &Context, account: Option<&Account>, path: &ReversePath) -> Verdict {
    let ReversePath::Mailbox(address) = path else {
        return Verdict::Accepted;
    };
    match context.role {
        Role::Relay | Role::Lmtp => return Verdict::Accepted,
        Role::Submission => {}
    }
    let Some(account) = account else {
        return Verdict::Refused(NOT_YOURS);
    };
    if address.folded() == account.address.folded() {
        return Verdict::Accepted;
    }
    match context.store.directory().recipient(address).await {
        Ok(Recipient::Known { accounts, .. }) if accounts.iter().any(|owner| owner.id == account.id) => {
            Verdict::Accepted
        }
        Ok(_) => Verdict::Refused(NOT_YOURS),
        Err(error) => Verdict::Refused(lookup_refusal(&error)),
    }
}

/// Who gets mail for this recipient, and whether it fits.
pub(crate) async fn check_recipient(
    context: &Context,
    recipient: &smtp_proto::Recipient,
    size: u64,
) -> Result<Resolved, Reply> {
    let (address, found) = look_up(context, &recipient.forward_path).await?;
    let accounts = match found {
        Recipient::Known { foreign, .. } if !foreign.is_empty() => return Err(FORWARDING_NOT_YET),
        Recipient::Known { accounts, .. } => accounts,
        Recipient::TooMany => return Err(ALIASES),
        Recipient::Unknown => return Err(NO_SUCH_USER),
        Recipient::NotLocal => {
            return Err(match context.role {
                Role::Relay | Role::Lmtp => RELAYING_DENIED,
                Role::Submission => NO_RELAY_YET,
            });
        }
    };
    for account in &accounts {
        check_quota(context, account, size).await?;
    }
    Ok(Resolved { address, accounts })
}

async fn look_up(context: &Context, path: &ForwardPath) -> Result<(Address, Recipient), Reply> {
    let directory = context.store.directory();
    match path {
        ForwardPath::Mailbox(address) => match directory.recipient(address).await {
            Ok(found) => Ok((address.clone(), found)),
            Err(error) => Err(lookup_refusal(&error)),
        },
        // RFC 5321 4.5.1: `postmaster` without a domain reaches a person. The first domain that has one will do.
        ForwardPath::Postmaster => {
            let domains = directory.domains().await.map_err(|error| lookup_refusal(&error))?;
            for row in domains {
                let Ok(address) = Address::parse(&format!("postmaster@{}", row.domain)) else {
                    continue;
                };
                match directory.recipient(&address).await {
                    Ok(found @ (Recipient::Known { .. } | Recipient::TooMany)) => return Ok((address, found)),
                    Ok(Recipient::Unknown | Recipient::NotLocal) => {}
                    Err(error) => return Err(lookup_refusal(&error)),
                }
            }
            Err(NO_SUCH_USER)
        }
    }
}

/// Whether so many octets fit. What cannot be found out now is no reason to refuse: the message can be queued.
async fn check_quota(context: &Context, account: &Account, size: u64) -> Result<(), Reply> {
    let Ok(quota) = context.store.account(account).quota().await else {
        return Ok(());
    };
    match quota.limit_bytes {
        Some(limit) if size > limit => Err(NEVER_FITS),
        // Without SIZE: full is who has no octet left, since no message is empty.
        Some(limit) if quota.used_bytes.saturating_add(size.max(1)) > limit => Err(MAILBOX_FULL),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use directory::LoginError;

    fn codes(reply: &Reply) -> (u16, Option<Enhanced>) {
        (reply.code, reply.enhanced)
    }

    #[test]
    fn every_login_error_has_its_reply() {
        let table = [
            (LoginError::Wrong, 535, Enhanced(5, 7, 8)),
            (LoginError::TooMany, 421, Enhanced(4, 7, 0)),
            (LoginError::Unavailable("x".to_owned()), 454, Enhanced(4, 7, 0)),
        ];
        for (error, code, enhanced) in table {
            assert_eq!(codes(&login_refusal(&error)), (code, Some(enhanced)), "{error}");
        }
    }

    #[test]
    fn every_store_error_has_its_reply() {
        let table = [
            (StoreError::Refused(Refusal::OverQuota), 552, Enhanced(5, 2, 2)),
            (StoreError::Refused(Refusal::NoSuchAccount), 550, Enhanced(5, 1, 1)),
            (StoreError::Refused(Refusal::NoSuchMailbox), 550, Enhanced(5, 1, 1)),
            (StoreError::Refused(Refusal::BadToken), 451, Enhanced(4, 3, 0)),
            (StoreError::Unavailable("x".to_owned()), 451, Enhanced(4, 3, 0)),
            (StoreError::Unknown, 451, Enhanced(4, 3, 0)),
            (StoreError::Full, 452, Enhanced(4, 3, 1)),
            (StoreError::TooLarge("message"), 552, Enhanced(5, 3, 4)),
            (StoreError::Internal("x".to_owned()), 451, Enhanced(4, 3, 0)),
        ];
        for (error, code, enhanced) in table {
            assert_eq!(codes(&store_refusal(&error)), (code, Some(enhanced)), "{error}");
        }
    }
}
