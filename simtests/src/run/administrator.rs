//! Changes of the members, over the admin API, as an administrator makes them: asked at any node, again until it is done.

use std::net::IpAddr;
use std::time::Duration;

use admin::api;
use oracle::schedule::Change;

use super::found::Slot;
use crate::book::Book;
use crate::client::{Answer, Failure, admin as ask};
use crate::host::Host;
use crate::site::{Site, Standing};
use crate::trace::Trace;

/// Between two looks at how far something is.
const LOOK: Duration = Duration::from_millis(300);

/// How long a machine may try to join with a token.
const TOKEN_PATIENCE: Duration = Duration::from_secs(20);

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    /// As the schedule has it.
    Change(Change),
    /// The machine has an empty disk; its node takes the place of the one with this id.
    Replace(u64, u64),
}

/// Somebody with a command line.
#[derive(Clone)]
pub(super) struct Administrator {
    pub(super) site: Site,
    pub(super) hosts: Vec<Host>,
    pub(super) book: Book,
    pub(super) trace: Trace,
}

impl Administrator {
    /// Does it, and lets the machine go that was claimed for it.
    pub(super) async fn work(self, task: Task, ended: Slot) {
        let (name, machine, result) = match task {
            Task::Change(Change::Add(machine)) => ("add", machine, self.add(machine).await),
            Task::Change(Change::Drain(machine)) => ("drain", machine, self.drain_only(machine).await),
            Task::Change(Change::Remove(machine)) => ("remove", machine, self.remove(machine).await),
            Task::Change(Change::Move { group, from, to }) => ("move", 0, self.move_voter(group, from, to).await),
            Task::Replace(machine, old) => ("replace", machine, self.replace(machine, old).await),
        };
        self.site.free(machine);
        let text = result.as_ref().map_or_else(ToString::to_string, |()| "done".to_owned());
        self.trace
            .note("admin", name, &format!("machine {machine}: {text}"), &[]);
        let outcome = if result.is_ok() { "done" } else { "refused" };
        self.book.count(&format!("admin.{name}.{outcome}"));
        if let Err(Failure::Protocol(text)) = result {
            self.book
                .violation("I34", format!("{name} of machine {machine}: {text}"));
        }
        ended.set(Ok(()));
    }

    fn host(&self, machine: u64) -> Answer<&Host> {
        let host = self.hosts.iter().find(|host| host.number() == machine);
        host.ok_or_else(|| Failure::Refused(format!("there is no machine {machine}")))
    }

    fn node_id(&self, machine: u64) -> Answer<u64> {
        let id = self.host(machine)?.node_id();
        id.ok_or_else(|| Failure::Refused(format!("machine {machine} has no node")))
    }

    /// Asks one member after the other until one answers for good: yes, or a no that says why.
    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer<String> {
        loop {
            for node in self.site.members() {
                match ask::request(node, method, path, body).await {
                    Err(failure) if is_passing(&failure) => {}
                    answer => return answer,
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A node on an empty machine joins.
    async fn join(&self, machine: u64) -> Answer<()> {
        let host = self.host(machine)?;
        let mut asked = false;
        loop {
            let body = format!("{{\"name\":\"{}-{}\"}}", host.name(), host.lives());
            match self.ask("POST", "/v1/nodes", &body).await {
                Ok(answer) => {
                    let token: api::JoinToken =
                        serde_json::from_str(&answer).map_err(|error| Failure::Protocol(error.to_string()))?;
                    host.set_token(token.token);
                    asked = true;
                }
                // It has joined meanwhile, and is not up yet.
                Err(Failure::Refused(text)) if asked && text.contains("already exists") => {}
                Err(failure) => return Err(failure),
            }
            // A token may be no good where wall clocks jump by hours: then another is asked for, as a person would.
            let patience = tokio::time::Instant::now() + TOKEN_PATIENCE;
            while tokio::time::Instant::now() < patience {
                if host.running().is_some() && host.node_id().is_some() {
                    return Ok(());
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    async fn add(&self, machine: u64) -> Answer<()> {
        self.join(machine).await?;
        self.site.set(machine, Standing::Member);
        Ok(())
    }

    async fn departure(&self, node: u64) -> Answer<api::Departure> {
        let body = self.ask("GET", &format!("/v1/nodes/{node}/departure"), "").await?;
        serde_json::from_str(&body).map_err(|error| Failure::Protocol(error.to_string()))
    }

    /// Returns when nothing depends on the node any more.
    async fn drain(&self, node: u64, heir: Option<u64>) -> Answer<()> {
        let body = heir.map_or_else(|| "{}".to_owned(), |heir| format!("{{\"heir\":{heir}}}"));
        self.ask("POST", &format!("/v1/nodes/{node}/drain"), &body).await?;
        while self.departure(node).await?.state != "drained" {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn drain_only(&self, machine: u64) -> Answer<()> {
        self.drain(self.node_id(machine)?, None).await?;
        self.site.set(machine, Standing::Drained);
        Ok(())
    }

    async fn remove(&self, machine: u64) -> Answer<()> {
        let node = self.node_id(machine)?;
        self.drain(node, None).await?;
        self.site.set(machine, Standing::Drained);
        self.finish_removal(node).await?;
        self.site.set(machine, Standing::Gone);
        Ok(())
    }

    async fn finish_removal(&self, node: u64) -> Answer<()> {
        loop {
            let asked = self.ask("POST", &format!("/v1/nodes/{node}/remove"), "{}").await;
            let why = match asked {
                Ok(_) => return Ok(()),
                Err(Failure::Refused(text)) => text,
                Err(failure) => return Err(failure),
            };
            // An earlier attempt whose answer was lost has done it; or somebody depends on the node again for a moment.
            match self.departure(node).await {
                Ok(departure) if departure.state == "active" => {
                    return Err(Failure::Protocol(format!("a drained node is active: {why}")));
                }
                Ok(_) => tokio::time::sleep(LOOK).await,
                Err(Failure::Refused(_)) => return Ok(()),
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn replace(&self, machine: u64, old: u64) -> Answer<()> {
        self.join(machine).await?;
        let heir = self.node_id(machine)?;
        if let Err(Failure::Refused(text)) = self.drain(old, Some(heir)).await {
            return Err(Failure::Protocol(format!(
                "node {heir} may not replace node {old}: {text}"
            )));
        }
        self.finish_removal(old).await
    }

    async fn move_voter(&self, group: u32, from: u64, to: u64) -> Answer<()> {
        let body = format!("{{\"from\":{},\"to\":{}}}", self.node_id(from)?, self.node_id(to)?);
        let path = format!("/v1/groups/{group}/move");
        self.ask("POST", &path, &body).await.map(drop)
    }
}

/// Whether another attempt, or another node, may bring another answer.
fn is_passing(failure: &Failure) -> bool {
    match failure {
        Failure::Unknown(_) => true,
        Failure::Refused(text) => text.split(' ').nth(1).is_some_and(|code| code.starts_with('5')),
        Failure::Protocol(_) => false,
    }
}

/// How long after a node's death its places go to others by themselves.
pub(super) async fn set_replace_after(nodes: &[IpAddr], seconds: u64) -> Answer<()> {
    let body = format!("{{\"name\":\"replace_after\",\"value\":\"{seconds}\"}}");
    let mut last = Ok(());
    for node in nodes {
        last = ask::request(*node, "PUT", "/v1/settings", &body).await.map(drop);
        if last.is_ok() {
            break;
        }
    }
    last
}
