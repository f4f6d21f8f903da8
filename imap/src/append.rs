//! APPEND (RFC 3501 6.3.11), with APPENDUID (RFC 4315 3). The message goes to the blob store as it comes in.
//!
//! What can be refused is refused before the client sends its message. A message that does not come to its end leaves
//! nothing behind.

use std::time::Duration;

use core_types::limits::{SMTP_DATA_RATE_MIN, SMTP_DATA_RATE_WINDOW};
use core_types::{Flags, MailboxGuid, UnixMillis};
use imap_proto::command::Append;
use imap_proto::date::DateTime;
use imap_proto::{Code, Refusal, Status, Tag};
use mailstore::{AccountMail, Ingest};
use tokio::time::Instant;

use crate::client::{Client, Read};
use crate::errors::{Answer, End, Failure};
use crate::selected::Telling;
use crate::session::{Session, UnderWay};

/// A message on its way in.
pub(crate) struct Appending {
    tag: Tag,
    mail: AccountMail,
    mailbox: MailboxGuid,
    flags: Flags,
    date: Option<UnixMillis>,
    ingest: Ingest,
    pub(crate) pace: Pace,
}

/// How fast a message comes in. Only the time in which we wait for the client counts.
#[derive(Default)]
pub(crate) struct Pace {
    octets: u64,
    waited: Duration,
}

impl Pace {
    /// What the client sends next of a message; `None` when nothing came for a while, but what came before was enough.
    pub(crate) async fn read(&mut self, client: &mut Client) -> Result<Option<Vec<u8>>, End> {
        let began = Instant::now();
        let deadline = began + SMTP_DATA_RATE_WINDOW.saturating_sub(self.waited);
        let octets = match client.read(APPEND_READ_BYTES, deadline).await? {
            Read::Octets(octets) => Some(octets),
            Read::Late => None,
        };
        self.octets += octets.as_ref().map_or(0, |octets| octets.len() as u64);
        self.waited += began.elapsed();
        if self.waited >= SMTP_DATA_RATE_WINDOW {
            if self.octets < SMTP_DATA_RATE_MIN * SMTP_DATA_RATE_WINDOW.as_secs() {
                return Err(End::Bye("The message comes in too slowly"));
            }
            *self = Self::default();
        }
        Ok(octets)
    }
}

impl Session {
    pub(crate) async fn begin_append(&mut self, append: Append) -> Result<(), End> {
        let tag = append.tag.clone();
        let sync = append.sync;
        match self.prepare_append(append).await {
            Ok(appending) => {
                self.under_way = UnderWay::Append(Box::new(appending));
                self.reader.accept_append();
                if sync {
                    self.client.say(|encoder| encoder.continuation("OK")).await?;
                    self.client.flush().await?;
                }
                Ok(())
            }
            Err(failure) => self.refuse_append(&tag, failure),
        }
    }

    async fn prepare_append(&mut self, append: Append) -> Result<Appending, Failure> {
        let Append {
            tag,
            mailbox,
            flags,
            date,
            size,
            ..
        } = append;
        let mail = self.mail()?;
        if size == 0 {
            return Err(Answer::no(Code::Cannot, "A message without any octet").into());
        }
        let row = self.target(&mailbox).await?;
        if !mail.has_room_for(size).await? {
            return Err(Answer::no(Code::OverQuota, "Over quota").into());
        }
        // Before the client sends it, and so before the continuation.
        self.context.mail.check_room(size).await?;
        let ingest = self.context.mail.ingest();
        Ok(Appending {
            tag,
            mail,
            mailbox: row.guid,
            flags,
            date: date.map(unix_millis),
            ingest,
            pace: Pace::default(),
        })
    }

    pub(crate) async fn append_octets(&mut self, octets: &[u8]) -> Result<(), End> {
        let UnderWay::Append(appending) = &mut self.under_way else {
            return Ok(());
        };
        let Err(error) = appending.ingest.write(octets).await else {
            return Ok(());
        };
        let tag = appending.tag.clone();
        self.under_way = UnderWay::Nothing;
        self.refuse_append(&tag, error.into())
    }

    pub(crate) async fn finish_append(&mut self) -> Result<(), End> {
        let UnderWay::Append(appending) = std::mem::replace(&mut self.under_way, UnderWay::Nothing) else {
            return Ok(());
        };
        let tag = appending.tag.clone();
        let outcome = self.append(*appending).await;
        self.tell_news(Telling {
            expunge: true,
            uid: false,
        })
        .await?;
        self.end_command(&tag, outcome).await
    }

    async fn append(&mut self, appending: Appending) -> Result<Answer, Failure> {
        let message = self.context.mail.finish_ingest(appending.ingest).await?;
        let Appending {
            mail,
            mailbox,
            flags,
            date,
            ..
        } = appending;
        let placed = mail.append(mailbox, &message, flags, date).await?;
        if let Ok((_, _, selected)) = self.selected()
            && selected.guid == mailbox
        {
            // The session sees its own writes, whether the watch has heard of them yet or not.
            selected.watch.note_change();
        }
        Ok(Answer::ok_with(
            Code::AppendUid(placed.uid_validity, placed.uid),
            "APPEND completed",
        ))
    }

    /// The reader says when the client has sent its octets, and only then this answer.
    fn refuse_append(&mut self, tag: &Tag, failure: Failure) -> Result<(), End> {
        let answer = match failure {
            Failure::Answer(answer) => answer,
            Failure::Done => return Ok(()),
            Failure::End(end) => return Err(end),
        };
        let Answer { status, code, text } = answer;
        self.reader.refuse_append(Refusal {
            tag: Some(tag.clone()),
            status: if status == Status::Bad { Status::Bad } else { Status::No },
            code,
            text,
        });
        Ok(())
    }
}

/// Times before 1970 cannot be stored.
fn unix_millis(date: DateTime) -> UnixMillis {
    UnixMillis(u64::try_from(date.unix_seconds()).unwrap_or(0).saturating_mul(1000))
}

/// Octets of a message that are read at once.
const APPEND_READ_BYTES: usize = 64 * 1024;
