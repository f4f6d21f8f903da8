//! Replicas of this node that cannot go on: which they are, and having them repaired from the others until they are well.
//!
//! A replica that needs it takes no part in its group. One that is repaired begins empty, and comes back as any new replica
//! does: the placement adds it, it catches up, and it votes again.
//!
//! Not here: how a replica is repaired, and why that is safe (`raft`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_types::{GroupId, NodeId};
use raft::{Ailing, Group, RepairError};
use tokio::task::JoinSet;

use crate::start::Parts;

/// The replicas that are being repaired.
#[derive(Debug, Default)]
pub(crate) struct Ailments(Mutex<BTreeMap<GroupId, Ailment>>);

#[derive(Clone, Debug)]
struct Ailment {
    ailing: Ailing,
    /// It was open when it was found: what attends to its group goes on with the new replica.
    is_attended: bool,
    /// Why it did not work the last time.
    wanting: Option<String>,
}

impl Ailments {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Ailment>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A replica was found that cannot go on, while it was open or when it was to be opened.
    pub(crate) fn found(&self, ailing: Ailing, was_open: bool) {
        let mut ailments = self.lock();
        let group = ailing.group;
        ailments.entry(group).or_insert_with(|| {
            tracing::error!(%group, reason = ailing.reason, "the replica cannot go on; it is being repaired from the others");
            Ailment {
                ailing,
                is_attended: was_open,
                wanting: None,
            }
        });
    }

    /// Its replica is open again; gives whether its group is attended to already.
    fn is_well(&self, group: GroupId) -> bool {
        self.lock().remove(&group).is_some_and(|ailment| ailment.is_attended)
    }

    fn wants(&self, group: GroupId, error: &RepairError) {
        let wanting = error.to_string();
        if let Some(ailment) = self.lock().get_mut(&group)
            && ailment.wanting.as_ref() != Some(&wanting)
        {
            tracing::warn!(%group, wanting, "the replica is not repaired yet");
            ailment.wanting = Some(wanting);
        }
    }

    pub(crate) fn contains(&self, group: GroupId) -> bool {
        self.lock().contains_key(&group)
    }

    /// Returns once this group's replica is among them.
    pub(crate) async fn has(&self, group: GroupId) {
        while !self.contains(group) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The groups concerned, each with what is wrong and what becomes of it.
    pub(crate) fn all(&self) -> Vec<(GroupId, String)> {
        let text = |ailment: &Ailment| {
            let reason = &ailment.ailing.reason;
            match &ailment.wanting {
                None => format!("{reason}; being repaired from the others"),
                Some(wanting) => format!("{reason}; to be repaired from the others, but not yet possible: {wanting}"),
            }
        };
        let ailments = self.lock();
        ailments
            .iter()
            .map(|(group, ailment)| (*group, text(ailment)))
            .collect()
    }

    fn list(&self) -> Vec<Ailing> {
        self.lock().values().map(|ailment| ailment.ailing.clone()).collect()
    }
}

/// Repairs for ever.
pub(crate) async fn run(parts: Arc<Parts>) {
    let mut attendants = JoinSet::new();
    loop {
        for ailing in parts.groups.ailing() {
            parts.ailments.found(ailing, true);
        }
        let repairs = parts.ailments.list().into_iter().map(|ailing| {
            let parts = Arc::clone(&parts);
            async move {
                let repaired = once(&parts, &ailing).await?;
                Some((ailing, repaired))
            }
        });
        for (ailing, repaired) in futures_util::future::join_all(repairs).await.into_iter().flatten() {
            if let Repaired::Unattended(opened) = repaired {
                parts.attend(&opened, ailing.kind, &mut attendants);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A replica that is open again.
enum Repaired {
    /// Nobody attends to its group yet.
    Unattended(Group),
    Attended,
}

/// Repairs one replica that could not be opened, and returns when it is open.
pub(crate) async fn until_open(parts: &Arc<Parts>, group: GroupId) -> Option<Group> {
    loop {
        let ailing = parts.ailments.list().into_iter().find(|ailing| ailing.group == group)?;
        if let Some(Repaired::Unattended(opened)) = once(parts, &ailing).await {
            return Some(opened);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn once(parts: &Arc<Parts>, ailing: &Ailing) -> Option<Repaired> {
    let node = parts.identity.node();
    let members = parts.members.seed().nodes;
    let others: Vec<NodeId> = members
        .into_iter()
        .map(|(member, ..)| member)
        .filter(|member| *member != node)
        .collect();
    match parts.groups.repair_group(ailing, &others).await {
        Ok(opened) => {
            tracing::info!(group = %ailing.group, "the replica is begun anew and fetches everything from the others");
            parts.health.opened(ailing.group);
            Some(match parts.ailments.is_well(ailing.group) {
                true => Repaired::Attended,
                false => Repaired::Unattended(opened),
            })
        }
        Err(error) => {
            parts.ailments.wants(ailing.group, &error);
            None
        }
    }
}

/// Between two looks for a replica that is ailing.
const LOOK: Duration = Duration::from_millis(100);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::Incarnation;
    use raft::OpenError;
    use state::MachineKind;

    #[test]
    fn what_is_wrong_and_what_is_wanting_are_said_together() {
        let ailments = Ailments::default();
        let ailing = |reason: &str| Ailing {
            group: GroupId(3),
            incarnation: Incarnation(1),
            kind: MachineKind::Mailbox,
            reason: reason.to_owned(),
        };
        ailments.found(
            ailing("log damaged: a record is damaged, at offset 512 of log/1.seg"),
            false,
        );
        ailments.found(ailing("something later"), true);
        let said = ailments.all();
        assert_eq!(said[0].0, GroupId(3));
        assert_eq!(
            said[0].1,
            "log damaged: a record is damaged, at offset 512 of log/1.seg; being repaired from the others"
        );
        ailments.wants(GroupId(3), &RepairError::Open(OpenError::IsOpen(GroupId(3))));
        assert!(
            ailments.all()[0]
                .1
                .contains("not yet possible: group 3 is open already")
        );
        assert!(ailments.contains(GroupId(3)));
        assert!(!ailments.is_well(GroupId(3)), "it was found when it was to be opened");
        ailments.found(ailing("something else"), true);
        assert!(ailments.is_well(GroupId(3)));
        assert!(ailments.all().is_empty());
    }
}
