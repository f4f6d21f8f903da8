//! IDLE (RFC 2177): changes are told as they come, without being asked for.
//!
//! A client that does not read is waited for, and while it is, changes are not even looked at: afterwards many of them are
//! one.

use std::time::Duration;

use imap_proto::Tag;
use tokio::time::Instant;

use crate::errors::{Answer, End, Failure};
use crate::selected::{Expected, Telling};
use crate::session::{Session, UnderWay};

impl Session {
    pub(crate) async fn begin_idle(&mut self, tag: &Tag) -> Result<Answer, Failure> {
        let mail = self.mail()?;
        mail.sync().await?;
        if let Ok((_, mail, mailbox)) = self.selected() {
            mailbox.pull(mail, &Expected::new()).await?;
        }
        self.client.say(|encoder| encoder.continuation("idling")).await?;
        self.tell_news(TELLING).await?;
        self.client.flush().await?;
        self.reader.begin_idle(tag.clone());
        self.under_way = UnderWay::Idle(tag.clone());
        Err(Failure::Done)
    }

    /// The selected mailbox of an idle session changed.
    pub(crate) async fn push_changes(&mut self) -> Result<(), End> {
        self.look_again = None;
        if let Ok((_, mail, mailbox)) = self.selected() {
            match mailbox.pull(mail, &Expected::new()).await {
                Err(Failure::End(end)) => return Err(end),
                Err(_) => {
                    // The change that woke us would not wake us a second time; whatever comes next looks again.
                    mailbox.watch.note_change();
                    self.look_again = Some(Instant::now() + RETRY_PAUSE);
                    return Ok(());
                }
                Ok(()) => {}
            }
        }
        self.tell_news(TELLING).await
    }

    pub(crate) async fn end_idle(&mut self) -> Result<(), End> {
        let UnderWay::Idle(tag) = std::mem::replace(&mut self.under_way, UnderWay::Nothing) else {
            return Ok(());
        };
        self.look_again = None;
        if let Ok((_, _, mailbox)) = self.selected() {
            mailbox.watch.note_change();
        }
        self.tell_news(TELLING).await?;
        self.client.answer(&tag, &Answer::ok("IDLE completed")).await
    }
}

const TELLING: Telling = Telling {
    expunge: true,
    uid: false,
};

/// How long an idle session waits before it looks again for changes that could not be read.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
