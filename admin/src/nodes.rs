//! Requests about nodes that come and go, the groups' places, the proof that copies agree, and settings.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use core_types::{GroupId, NodeId};
use state::DirectoryOp;
use state::rows::NodeDuty;

use crate::handlers::{Answer, change, parse};
use crate::server::Context;
use crate::{AdminError, Kind, api};

pub(crate) async fn departure(State(context): State<Context>, Path(node): Path<String>) -> Answer<api::Departure> {
    context.node.departure(number(&node, "node")?).await.map(Json)
}

pub(crate) async fn drain(State(context): State<Context>, Path(node): Path<String>, body: Bytes) -> Answer<()> {
    let node = NodeId(number(&node, "node")?);
    let request: api::Drain = parse(&body)?;
    let duty = if request.undo {
        NodeDuty::Active
    } else {
        NodeDuty::Leaving {
            heir: request.heir.map(NodeId),
            forced: request.force,
        }
    };
    change(&context, DirectoryOp::SetNodeDuty { node, duty }).await
}

/// Refused while anything depends on the node, unless forced, and while a group would lose its majority: the directory looks
/// at the plan, this at how things are.
pub(crate) async fn remove(State(context): State<Context>, Path(node): Path<String>, body: Bytes) -> Answer<()> {
    let node = number(&node, "node")?;
    let request: api::RemoveNode = parse(&body)?;
    context.store.directory().confirm().await?;
    let departure = context.node.departure(node).await?;
    if departure.state == "removed" {
        // The first answer may have been lost.
        return Ok(Json(()));
    }
    may_be_removed(&departure, request.force)
        .map_err(|reason| AdminError::new(Kind::NotAllowed, format!("node {node} cannot be removed: {reason}")))?;
    let op = DirectoryOp::RemoveNode {
        node: NodeId(node),
        forced: request.force,
    };
    change(&context, op).await
}

/// Why a node cannot be removed now.
fn may_be_removed(departure: &api::Departure, force: bool) -> Result<(), String> {
    if !departure.would_stop.is_empty() {
        let groups: Vec<String> = departure.would_stop.iter().map(ToString::to_string).collect();
        return Err(format!(
            "without it no majority of the voters of groups {} is there, and they would stop for good. Start the nodes that are away, or replace them first",
            groups.join(" ")
        ));
    }
    if departure.state == "drained" || force {
        return Ok(());
    }
    Err(match departure.state.as_str() {
        "active" => "it is not drained".to_owned(),
        _ if departure.waits.is_empty() => "it is not drained yet".to_owned(),
        _ => departure.waits.join("; "),
    })
}

pub(crate) async fn list_groups(State(context): State<Context>) -> Answer<Vec<api::Group>> {
    context.node.groups().await.map(Json)
}

pub(crate) async fn move_voter(State(context): State<Context>, Path(group): Path<String>, body: Bytes) -> Answer<()> {
    let group = group_id(&group)?;
    let request: api::MoveVoter = parse(&body)?;
    let (from, to) = (NodeId(request.from), NodeId(request.to));
    change(&context, DirectoryOp::MoveVoter { group, from, to }).await
}

pub(crate) async fn pin(State(context): State<Context>, Path(group): Path<String>, body: Bytes) -> Answer<()> {
    let group = group_id(&group)?;
    let request: api::Pin = parse(&body)?;
    let pinned = request.pinned;
    change(&context, DirectoryOp::PinGroup { group, pinned }).await
}

pub(crate) async fn check(State(context): State<Context>) -> Answer<api::Agreement> {
    context.node.agreement().await.map(Json)
}

pub(crate) async fn list_settings(State(context): State<Context>) -> Answer<Vec<api::Setting>> {
    let settings = context.store.directory().query(|reader| reader.settings()).await?;
    let setting = |(name, value): (String, String)| api::Setting {
        name,
        value: Some(value),
    };
    Ok(Json(settings.into_iter().map(setting).collect()))
}

pub(crate) async fn set_setting(State(context): State<Context>, body: Bytes) -> Answer<()> {
    let api::Setting { name, value } = parse(&body)?;
    context.node.check_setting(&name, value.as_deref())?;
    change(&context, DirectoryOp::SetSetting { name, value }).await
}

fn number(text: &str, kind: &str) -> Result<u64, AdminError> {
    text.parse()
        .map_err(|_| AdminError::new(Kind::Usage, format!("{text:?} is not the number of a {kind}")))
}

fn group_id(text: &str) -> Result<GroupId, AdminError> {
    let number = u32::try_from(number(text, "group")?);
    number
        .map(GroupId)
        .map_err(|_| AdminError::new(Kind::NoSuchObject, format!("no such group: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn force_removes_a_node_unless_a_group_would_stop_for_good() {
        let mut departure = api::Departure {
            state: "draining".to_owned(),
            waits: vec!["group 1: something".to_owned()],
            ..api::Departure::default()
        };
        assert_eq!(may_be_removed(&departure, false), Err("group 1: something".to_owned()));
        assert_eq!(may_be_removed(&departure, true), Ok(()));
        departure.would_stop = vec![1, 4];
        let refused = may_be_removed(&departure, true).unwrap_err();
        assert!(refused.contains("groups 1 4"), "{refused}");
        let drained = api::Departure {
            state: "drained".to_owned(),
            ..api::Departure::default()
        };
        assert_eq!(may_be_removed(&drained, false), Ok(()));
    }
}
