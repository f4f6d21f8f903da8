//! Nodes that come and go, the places of groups, and the proof that copies agree.
//!
//! A command that takes long shows how far it is on standard error; one that was interrupted is finished by the same command.

use std::time::Duration;

use admin::api;
use hyper::Method;
use serde_json::json;
use tokio::time::Instant;

use super::{Ask, confirmed, numbers};
use crate::cli::{Consent, Group, Setting};
use crate::output;
use crate::{Exit, Failure};

impl Ask {
    pub(super) async fn drain(
        &self,
        node: u64,
        undo: bool,
        to: Option<u64>,
        force: bool,
        no_wait: bool,
        consent: Consent,
    ) -> Result<(), Failure> {
        let departure = self.departure(node).await?;
        if departure.state == "removed" {
            return Err(was_removed(node));
        }
        if undo {
            let request = api::Drain {
                undo,
                ..api::Drain::default()
            };
            let done = format!("node {node} is used again");
            let path = format!("/v1/nodes/{node}/drain");
            return self.change(Method::POST, &path, Some(&request), &done).await;
        }
        let plan = match &departure.refusal {
            Some(refusal) if !force => return Err(not_drained(node, refusal)),
            Some(refusal) => format!(
                "node {node} ({}) will be drained although {refusal}: its groups ({}) go on with fewer voters, and bear fewer losses",
                departure.name,
                groups(&departure.votes_in)
            ),
            None => format!(
                "node {node} ({}) will be drained: other nodes take its places in groups {}",
                departure.name,
                groups(&departure.votes_in)
            ),
        };
        // Without force nothing is lost, and it can be taken back.
        let consent = Consent {
            yes: consent.yes || !force,
            ..consent
        };
        if !self.agreed(&departure, &plan, node, consent)? {
            return Ok(());
        }
        self.start_drain(node, force, to).await?;
        if !no_wait {
            self.until_drained(node, None).await?;
        }
        let departure = self.departure(node).await?;
        if self.json {
            return output::json(&departure);
        }
        output::line(&match departure.state.as_str() {
            "removed" => format!("node {node} is removed"),
            "drained" => format!("node {node} is drained: it may be removed, or taken back with --undo"),
            _ => format!("node {node} is being drained; `everpost node drain {node}` shows how far it is"),
        });
        Ok(())
    }

    pub(super) async fn remove_node(&self, node: u64, force: bool, consent: Consent) -> Result<(), Failure> {
        let departure = self.departure(node).await?;
        if departure.state == "removed" {
            return self.tell_removed(node);
        }
        if departure.state == "active" && departure.reachable && !force && !departure.votes_in.is_empty() {
            return Err(Failure::new(
                Exit::NotAllowed,
                format!("node {node} is running and votes: drain it first with `everpost node drain {node}`"),
            ));
        }
        if departure.state == "active"
            && !force
            && let Some(refusal) = &departure.refusal
        {
            return Err(not_drained(node, refusal));
        }
        let plan = removal_plan(&departure, force);
        if !self.agreed(&departure, &plan, node, consent)? {
            return Ok(());
        }
        if departure.state == "active" || (force && !departure.forced) {
            self.start_drain(node, force, departure.heir).await?;
        }
        self.finish_removal(node, force).await
    }

    pub(super) async fn replace(
        &self,
        node: u64,
        with: Option<u64>,
        name: Option<String>,
        force: bool,
        consent: Consent,
    ) -> Result<(), Failure> {
        let departure = self.departure(node).await?;
        let is_removed = departure.state == "removed";
        let Some(heir) = with else {
            if is_removed {
                return Err(was_removed(node));
            }
            let name = name.unwrap_or_else(|| format!("{}-new", departure.name));
            output::note(&format!(
                "When the new node runs: everpost node replace {node} --with ITS_NUMBER (`everpost node list` tells it)."
            ));
            return self.add_node(name).await;
        };
        if is_removed {
            return self.tell_removed(node);
        }
        let new = self.departure(heir).await?;
        if new.state != "active" || !new.reachable {
            return Err(Failure::new(
                Exit::NotAllowed,
                format!("node {heir} cannot take a place now: it is to leave itself, or cannot be reached"),
            ));
        }
        let plan = format!(
            "node {heir} ({}) takes the places of node {node} in groups {}. Then: {}",
            new.name,
            groups(&departure.votes_in),
            removal_plan(&departure, force)
        );
        if !self.agreed(&departure, &plan, node, consent)? {
            return Ok(());
        }
        self.start_drain(node, force, Some(heir)).await?;
        self.finish_removal(node, force).await
    }

    async fn departure(&self, node: u64) -> Result<api::Departure, Failure> {
        self.client.get(&format!("/v1/nodes/{node}/departure")).await
    }

    async fn start_drain(&self, node: u64, force: bool, heir: Option<u64>) -> Result<(), Failure> {
        let request = api::Drain {
            undo: false,
            force,
            heir,
        };
        let path = format!("/v1/nodes/{node}/drain");
        self.client.request(Method::POST, &path, Some(&request)).await
    }

    /// Shows the plan and asks. `false` when it was only to be shown.
    fn agreed(&self, object: &impl serde::Serialize, plan: &str, node: u64, consent: Consent) -> Result<bool, Failure> {
        if consent.dry_run && self.json {
            output::json(&json!({ "plan": plan, "node": object }))?;
            return Ok(false);
        }
        output::note(plan);
        if consent.dry_run {
            return Ok(false);
        }
        let node = node.to_string();
        if !consent.yes && !confirmed(&format!("Type {node} to go on: "), &node)? {
            return Err(Failure::new(Exit::NotAllowed, "nothing was done"));
        }
        Ok(true)
    }

    async fn finish_removal(&self, node: u64, force: bool) -> Result<(), Failure> {
        self.until_drained(node, force.then_some(FORCED_PATIENCE)).await?;
        let path = format!("/v1/nodes/{node}/remove");
        let () = self
            .client
            .request(Method::POST, &path, Some(&api::RemoveNode { force }))
            .await?;
        self.tell_removed(node)
    }

    /// Also when an earlier command did it, whose answer was lost.
    fn tell_removed(&self, node: u64) -> Result<(), Failure> {
        if self.json {
            return output::json(&json!({ "done": true }));
        }
        output::line(&format!("node {node} is removed; its number is never used again"));
        Ok(())
    }

    /// Waits until nothing depends on the node any more, at most so long, and shows how far it is.
    async fn until_drained(&self, node: u64, patience: Option<Duration>) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut told = Instant::now();
        let mut silent_since: Option<Instant> = None;
        loop {
            match self.departure(node).await {
                Ok(departure) if matches!(departure.state.as_str(), "drained" | "removed") => return Ok(()),
                Ok(departure) if departure.state == "active" => {
                    return Err(Failure::new(
                        Exit::NotAllowed,
                        format!("node {node} was taken back meanwhile"),
                    ));
                }
                Ok(departure) => {
                    silent_since = None;
                    if told.elapsed() >= PROGRESS_EVERY {
                        told = Instant::now();
                        output::note(&progress(&departure, begun.elapsed()));
                    }
                }
                // The node that was asked may be handing over just now.
                Err(failure) if matches!(failure.exit, Exit::Unreachable | Exit::TryAgain) => {
                    let since = *silent_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= SILENCE_PATIENCE {
                        return Err(failure);
                    }
                }
                Err(failure) => return Err(failure),
            }
            if patience.is_some_and(|patience| begun.elapsed() >= patience) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) async fn group(&self, command: Group) -> Result<(), Failure> {
        match command {
            Group::List => self.groups().await,
            Group::Move {
                group,
                from,
                to,
                no_wait,
            } => self.move_voter(group, from, to, no_wait).await,
            Group::Pin { group } => self.pin(group, true, &format!("group {group} stays where it is")).await,
            Group::Unpin { group } => self.pin(group, false, &format!("group {group} may be moved")).await,
        }
    }

    async fn pin(&self, group: u32, pinned: bool, done: &str) -> Result<(), Failure> {
        let path = format!("/v1/groups/{group}/pin");
        self.change(Method::PUT, &path, Some(&api::Pin { pinned }), done).await
    }

    async fn groups(&self) -> Result<(), Failure> {
        let groups: Vec<api::Group> = self.client.get("/v1/groups").await?;
        if self.json {
            return output::json(&groups);
        }
        let row = |group: &api::Group| {
            let lag: Vec<_> = group.lag.iter().map(|(node, lag)| format!("{node}:{lag}")).collect();
            let state = match (&group.waits, group.voters == group.wanted, group.pinned) {
                (Some(why), ..) => format!("moving: {why}"),
                (None, false, _) => format!("moving to {}", numbers(&group.wanted)),
                (None, true, true) => "pinned".to_owned(),
                (None, true, false) => String::new(),
            };
            vec![
                if group.group == 0 {
                    "directory".to_owned()
                } else {
                    group.group.to_string()
                },
                group.incarnation.to_string(),
                group.leader.map_or_else(|| "-".to_owned(), |leader| leader.to_string()),
                numbers(&group.voters),
                numbers(&group.learners),
                group.applied.to_string(),
                lag.join(" "),
                group.digests.clone(),
                group.under_replicated.to_string(),
                group.accounts.to_string(),
                state,
            ]
        };
        output::table(
            &[
                "GROUP",
                "LIFE",
                "LEADER",
                "VOTERS",
                "LEARNERS",
                "APPLIED",
                "LAG",
                "DIGESTS",
                "UNDER-REPLICATED",
                "ACCOUNTS",
                "STATE",
            ],
            &groups.iter().map(row).collect::<Vec<_>>(),
            "no groups",
        );
        Ok(())
    }

    async fn move_voter(&self, group: u32, from: u64, to: u64, no_wait: bool) -> Result<(), Failure> {
        let path = format!("/v1/groups/{group}/move");
        let () = self
            .client
            .request(Method::POST, &path, Some(&api::MoveVoter { from, to }))
            .await?;
        let begun = Instant::now();
        let mut told = Instant::now();
        loop {
            let groups: Vec<api::Group> = self.client.get("/v1/groups").await?;
            let now = groups
                .into_iter()
                .find(|row| row.group == group)
                .ok_or_else(|| Failure::new(Exit::NoSuchObject, format!("there is no group {group}")))?;
            let is_there = now.voters.contains(&to) && !now.voters.contains(&from);
            if no_wait || is_there {
                if self.json {
                    return output::json(&now);
                }
                let what = if is_there { "votes" } else { "is to vote" };
                output::line(&format!("node {to} {what} in group {group} in place of node {from}"));
                return Ok(());
            }
            if !now.wanted.contains(&to) {
                return Err(Failure::new(
                    Exit::TryAgain,
                    format!("the plan for group {group} changed meanwhile: {}", numbers(&now.wanted)),
                ));
            }
            if told.elapsed() >= PROGRESS_EVERY {
                told = Instant::now();
                let why = now.waits.unwrap_or_else(|| "under way".to_owned());
                output::note(&format!("group {group}, {} s: {why}", begun.elapsed().as_secs()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) async fn setting(&self, command: Setting) -> Result<(), Failure> {
        let (name, value) = match command {
            Setting::List => {
                let settings: Vec<api::Setting> = self.client.get("/v1/settings").await?;
                if self.json {
                    return output::json(&settings);
                }
                let row = |row: &api::Setting| vec![row.name.clone(), row.value.clone().unwrap_or_default()];
                let rows: Vec<_> = settings.iter().map(row).collect();
                output::table(&["NAME", "VALUE"], &rows, "all settings have their defaults");
                return Ok(());
            }
            Setting::Set { name, value } => (name, Some(value)),
            Setting::Clear { name } => (name, None),
        };
        let done = match &value {
            Some(value) => format!("{name} is {value}"),
            None => format!("{name} has its default"),
        };
        let request = api::Setting { name, value };
        self.change(Method::PUT, "/v1/settings", Some(&request), &done).await
    }

    pub(super) async fn check(&self) -> Result<(), Failure> {
        let asked = self.client.get("/v1/check");
        tokio::pin!(asked);
        let agreement: api::Agreement = tokio::select! {
            biased;
            answer = &mut asked => answer?,
            () = tokio::time::sleep(PROGRESS_EVERY) => {
                output::note("comparing all copies: every node looks at all its blobs ...");
                asked.await?
            }
        };
        if self.json {
            output::json(&agreement)?;
        } else {
            print_agreement(&agreement);
        }
        match (agreement.agree, agreement.complete) {
            (true, true) => Ok(()),
            (true, false) => Err(Failure::new(
                Exit::Unreachable,
                "what was seen agrees, but not everything could be seen",
            )),
            (false, _) => Err(Failure::new(Exit::Failed, "the copies do not agree")),
        }
    }
}

fn print_agreement(agreement: &api::Agreement) {
    let row = |group: &api::GroupAgreement| {
        let replica = |replica: &api::ReplicaAgreement| {
            let kind = if replica.votes { "" } else { " (follows)" };
            format!("{}{kind} {}", replica.node, replica.state)
        };
        vec![
            if group.group == 0 {
                "directory".to_owned()
            } else {
                group.group.to_string()
            },
            group
                .compared_at
                .map_or_else(|| "-".to_owned(), |index| index.to_string()),
            group.accounts.to_string(),
            group.messages.to_string(),
            group
                .bears_losses
                .map_or_else(|| "no majority".to_owned(), |losses| losses.to_string()),
            group.replicas.iter().map(replica).collect::<Vec<_>>().join(", "),
        ]
    };
    output::table(
        &["GROUP", "AT ENTRY", "ACCOUNTS", "MESSAGES", "BEARS LOSSES", "COPIES"],
        &agreement.groups.iter().map(row).collect::<Vec<_>>(),
        "no groups",
    );
    for problem in &agreement.problems {
        output::line(&format!("  {problem}"));
    }
    for group in &agreement.groups {
        for mailbox in &group.mailboxes {
            output::line(&format!("  group {}: {mailbox} differs", group.group));
        }
    }
    output::line(match (agreement.agree, agreement.complete) {
        (true, true) => "All copies of all mailboxes agree.",
        (true, false) => "What could be seen agrees; not everything could be seen.",
        (false, _) => "The copies do NOT agree.",
    });
}

fn was_removed(node: u64) -> Failure {
    Failure::new(Exit::NoSuchObject, format!("node {node} was removed"))
}

fn not_drained(node: u64, refusal: &str) -> Failure {
    Failure::new(
        Exit::NotAllowed,
        format!(
            "node {node} cannot be drained: {refusal}. Add a node first (`everpost node add`), or use --force: there are fewer copies then"
        ),
    )
}

fn removal_plan(departure: &api::Departure, force: bool) -> String {
    let mut plan = format!(
        "node {} ({}) will be removed for good: no other node talks to it from then on, and its number is never used again",
        departure.node, departure.name
    );
    if departure.state != "drained" && !departure.votes_in.is_empty() {
        plan.push_str(&format!(
            ". Before that, others take its places in groups {}",
            groups(&departure.votes_in)
        ));
    }
    if !departure.would_lose.is_empty() {
        let how = if force { "is not waited for" } else { "is waited for" };
        plan.push_str(&format!(
            ". If it went now ({how}): {}",
            departure.would_lose.join("; ")
        ));
    }
    plan
}

fn progress(departure: &api::Departure, elapsed: Duration) -> String {
    let mut text = format!("node {}, {} s", departure.node, elapsed.as_secs());
    if !departure.votes_in.is_empty() {
        text.push_str(&format!(": votes in groups {} still", groups(&departure.votes_in)));
    }
    for why in departure.waits.iter().take(3) {
        text.push_str(&format!("; {why}"));
    }
    text
}

fn groups(ids: &[u32]) -> String {
    if ids.is_empty() {
        return "none".to_owned();
    }
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Between two looks.
const LOOK: Duration = Duration::from_millis(300);
/// Between two lines that say how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// How long the node that is asked may be silent.
const SILENCE_PATIENCE: Duration = Duration::from_secs(30);
/// How long a forced removal waits for others to take over, before it goes on without.
const FORCED_PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn departure() -> api::Departure {
        api::Departure {
            node: 3,
            name: "mx3".to_owned(),
            state: "draining".to_owned(),
            votes_in: vec![0, 2],
            waits: vec!["group 2: node 4 has not verified all blobs yet".to_owned()],
            would_lose: vec!["group 2: only 1 other nodes are sure".to_owned()],
            ..api::Departure::default()
        }
    }

    #[test]
    fn progress_says_what_is_still_waited_for() {
        assert_eq!(
            progress(&departure(), Duration::from_secs(4)),
            "node 3, 4 s: votes in groups 0 2 still; group 2: node 4 has not verified all blobs yet"
        );
    }

    #[test]
    fn the_plan_of_a_removal_names_what_would_be_lost() {
        let plan = removal_plan(&departure(), true);
        assert!(
            plan.contains("only 1 other nodes are sure") && plan.contains("is not waited for"),
            "{plan}"
        );
        let drained = api::Departure {
            state: "drained".to_owned(),
            votes_in: vec![],
            would_lose: vec![],
            ..departure()
        };
        assert!(!removal_plan(&drained, false).contains("Before that"));
    }
}
