//! Clients that send mail, over SMTP and LMTP, to one recipient or to several.

use oracle::history::{Action, Outcome};
use oracle::message::digest;
use oracle::schedule::During;

use super::{Client, address, outcome_of};
use crate::book::Book;
use crate::client::smtp::{Smtp, Taken};
use crate::client::{Answer, Failure};

/// With so many messages in an INBOX senders wait until some are gone: what is judged has to stay small.
const INBOX_MAX: usize = 30;

impl Client {
    pub(super) async fn deliver_something(&mut self) -> (&'static str, Answer<()>) {
        if self.chance(15) || self.world.is_doomed(self.plan.id, During::Data) {
            return ("die-in-data", self.die_in_data().await);
        }
        let room = |user: &u32| self.world.size(&super::MailboxKey::new(*user, "INBOX")) < INBOX_MAX;
        let users: Vec<u32> = (1..=self.world.users).filter(room).collect();
        let Some(first) = self.pick(&users).copied() else {
            return ("wait", Ok(()));
        };
        let to = if self.chance(4) { users } else { vec![first] };
        ("deliver", self.deliver(&to).await)
    }

    async fn deliver(&mut self, to: &[u32]) -> Answer<()> {
        let (token, bytes) = self.message();
        let lmtp = self.chance(2);
        if self.roams {
            self.move_on();
        }
        let node = self.world.hosts[self.node].address();
        let mut smtp = Smtp::connect(node, lmtp).await?;
        let digest = digest(&bytes);
        let ops: Vec<_> = to
            .iter()
            .map(|user| {
                let to = super::MailboxKey::new(*user, "INBOX");
                self.invoke(Action::Deliver { to, token, digest })
            })
            .collect();
        let addresses: Vec<String> = to.iter().map(|user| address(*user)).collect();
        let began = Book::now();
        let outcomes = match smtp.deliver("a@example.org", &addresses, &bytes).await {
            Ok(outcomes) => outcomes,
            Err(failure) => vec![Err(failure); to.len()],
        };
        if outcomes.iter().any(|outcome| matches!(outcome, Ok(Taken::Delivered))) {
            self.book().acknowledged(began, &bytes);
        }
        for (op, outcome) in ops.into_iter().zip(&outcomes) {
            let ended = match outcome {
                Ok(Taken::Delivered) => Outcome::Ok,
                Ok(Taken::Queued) => Outcome::Later,
                Err(failure) => outcome_of(failure),
            };
            if ended == Outcome::Later {
                self.book().count("op.deliver-queued");
            }
            self.end(op, ended, |_| {});
        }
        self.book()
            .count(if lmtp { "op.deliver-lmtp" } else { "op.deliver-smtp" });
        if to.len() > 1 {
            self.book().count("op.deliver-many");
        }
        outcomes.into_iter().try_for_each(|outcome| outcome.map(drop))
    }

    async fn die_in_data(&mut self) -> Answer<()> {
        let (_, bytes) = self.message();
        let node = self.world.hosts[self.node].address();
        let smtp = Smtp::connect(node, false)
            .await
            .map_err(|failure| Failure::Refused(failure.to_string()))?;
        let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
        smtp.die_in_data("a@example.org", &address(self.user), half).await;
        Ok(())
    }
}
