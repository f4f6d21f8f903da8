//! The INBOX behind a session's maildrop: its list at login, its messages' bytes, its deletes.

use std::ops::ControlFlow;

use bytes::Bytes;
use core_types::{MailboxGuid, MailboxName, MessageGuid, Uid};
use directory::Account;
use mailstore::{AccountMail, MessageBytes, StoreError};

use crate::Context;
use crate::context::Admitted;
use crate::proto::{Entry, Refusal};
use crate::refusal::of_store;

/// Where the messages of a maildrop come from.
pub(super) struct MaildropSource {
    mail: AccountMail,
    inbox: MailboxGuid,
    /// Counts the session.
    _admitted: Admitted,
}

/// A message that is being sent.
pub(super) struct OpenMessage {
    bytes: MessageBytes,
    /// Octets that were handed out, without `first`.
    position: u64,
    /// Read before it is said that the message can be had.
    first: Option<Bytes>,
}

impl MaildropSource {
    /// The INBOX with everything that was acknowledged anywhere before the call, in the order of the UIDs.
    pub(super) async fn open(context: &Context, account: &Account) -> Result<(Self, Vec<Entry>), Refusal> {
        let admitted = context.admit(account.id).ok_or(Refusal::InUse)?;
        let mail = context.store().account(account);
        match snapshot(&mail).await {
            Ok(Some((inbox, entries))) => Ok((
                Self {
                    mail,
                    inbox,
                    _admitted: admitted,
                },
                entries,
            )),
            Ok(None) => Err(Refusal::Temporary),
            Err(error) => {
                tracing::warn!(account = %account.address, %error, "a maildrop was not opened");
                Err(of_store(&error))
            }
        }
    }

    /// Opens a message, wherever in the account it is by now.
    pub(super) async fn open_message(&self, guid: MessageGuid) -> Result<OpenMessage, Refusal> {
        let opened = async {
            let Some((_, row)) = self.mail.message_by_guid(guid).await? else {
                return Ok(None);
            };
            let bytes = self.mail.open(&row).await?;
            let first = bytes.read(0..PIECE_BYTES as u64).await?;
            let message = OpenMessage {
                bytes,
                position: 0,
                first: Some(first),
            };
            Ok(Some(message))
        };
        match opened.await {
            Ok(message) => message.ok_or(Refusal::Gone),
            Err(error) => Err(logged(guid, &error)),
        }
    }

    /// Deletes these messages, as far as they are in the INBOX still: one that was moved elsewhere since login stays.
    ///
    /// Up to [`core_types::limits::MESSAGES_PER_OP_MAX`] of them, all or none; of more, an error may leave the first
    /// ones deleted (RFC 1939 6 permits that).
    pub(super) async fn delete(&self, guids: &[MessageGuid]) -> Result<(), Refusal> {
        match self.mail.expunge(self.inbox, guids, false).await {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(account = %self.mail.account().address, %error, "the deletes of QUIT were not committed");
                Err(of_store(&error))
            }
        }
    }
}

impl OpenMessage {
    /// The next octets, at most [`PIECE_BYTES`]; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let piece = match self.first.take() {
            Some(first) => first,
            None if self.position >= self.bytes.size() => return Ok(None),
            None => {
                let end = self.position.saturating_add(PIECE_BYTES as u64);
                let read = self.bytes.read(self.position..end).await;
                read.map_err(|error| {
                    tracing::warn!(%error, "a message broke off while it was sent");
                    of_store(&error)
                })?
            }
        };
        self.position = self.position.saturating_add(piece.len() as u64);
        match piece.is_empty() {
            true if self.position < self.bytes.size() => Err(Refusal::Temporary),
            true => Ok(None),
            false => Ok(Some(piece)),
        }
    }
}

/// The INBOX's messages, page by page; from the start again when its UIDs were given anew in the meantime.
async fn snapshot(mail: &AccountMail) -> Result<Option<(MailboxGuid, Vec<Entry>)>, StoreError> {
    mail.sync().await?;
    for _ in 0..SNAPSHOT_ATTEMPTS {
        let Some(inbox) = mail.mailbox_by_name(&MailboxName::inbox()).await? else {
            return Ok(None);
        };
        let mut entries = Vec::new();
        let mut from = Uid(1);
        while let ControlFlow::Continue(next) = read_page(mail, inbox.guid, from, &mut entries).await? {
            from = next;
        }
        let after = mail.mailbox(inbox.guid).await?;
        if after.is_some_and(|after| after.uid_validity == inbox.uid_validity) {
            entries.shrink_to_fit();
            return Ok(Some((inbox.guid, entries)));
        }
    }
    Ok(None)
}

async fn read_page(
    mail: &AccountMail,
    inbox: MailboxGuid,
    from: Uid,
    entries: &mut Vec<Entry>,
) -> Result<ControlFlow<(), Uid>, StoreError> {
    let rows = mail.messages(inbox, from, PAGE_MESSAGES).await?;
    entries.extend(rows.iter().map(|row| Entry {
        size: row.size,
        guid: row.guid,
    }));
    Ok(match rows.last().and_then(|last| last.uid.0.checked_add(1)) {
        Some(next) if rows.len() >= PAGE_MESSAGES => ControlFlow::Continue(Uid(next)),
        _ => ControlFlow::Break(()),
    })
}

fn logged(guid: MessageGuid, error: &StoreError) -> Refusal {
    tracing::warn!(message = %guid, %error, "a message was not opened");
    of_store(error)
}

/// Octets of a message that are read, encoded and written at once.
pub(super) const PIECE_BYTES: usize = 64 * 1024;
/// Rows that are read at once.
const PAGE_MESSAGES: usize = 1000;
/// How often the INBOX is read before the client is asked to come back.
const SNAPSHOT_ATTEMPTS: usize = 3;
