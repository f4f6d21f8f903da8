//! Clients that idle, and look when something came.

use std::time::Duration;

use oracle::schedule::During;

use super::Client;
use crate::client::Answer;

/// An IDLE of a client ends after so long.
const LONGEST: Duration = Duration::from_secs(3);

impl Client {
    pub(super) async fn idle_a_while(&mut self) -> (&'static str, Answer<()>) {
        ("idle", self.idle().await)
    }

    async fn idle(&mut self) -> Answer<()> {
        if !self.has_selected() || self.chance(6) {
            self.open_some().await?;
        }
        let dies = self.chance(10) || self.world.is_doomed(self.plan.id, During::Idle);
        let hears = 1 + self.below(4);
        let session = self.session().await?;
        let idling = session.imap.begin_idle().await?;
        let mut heard = 0;
        for _ in 0..hears {
            if !session.imap.hear(LONGEST).await? {
                break;
            }
            heard += 1;
        }
        self.book().add("op.idle-heard", heard);
        if dies {
            self.book().count("op.die-in-idle");
            self.lose_session();
            return Ok(());
        }
        self.session().await?.imap.end_idle(idling).await?;
        self.book().count("op.idle");
        self.look(None).await.map(drop)
    }
}
