//! Applying what is asked of the directory group.

use core_types::{Address, Domain, GroupId, Incarnation, NodeId, SiteId, UnixMillis};

use crate::apply::tx::{Halt, Tx, refuse};
use crate::command::DirectoryOp;
use crate::directory::{Reader, accounts, nodes};
use crate::keys;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::rows::{ClusterRow, DomainRow, GroupRow, JoinTokenRow, NodeRow, SiteRow};

/// Mailbox groups of one site. Reason: each node of a site answers for each of them twice a second at most.
const MAILBOX_GROUPS_MAX: u32 = 1024;

pub(crate) fn apply(tx: &mut Tx<'_>, op: &DirectoryOp) -> Result<Outcome, Halt> {
    let outcome = match op {
        DirectoryOp::FoundCluster { .. } => found(tx, op),
        DirectoryOp::AddJoinToken {
            token_key,
            site,
            name,
            expires,
        } => add_join_token(tx, token_key, *site, name, *expires),
        DirectoryOp::JoinNode {
            token_key,
            node_key,
            address,
        } => join(tx, token_key, node_key, address),
        DirectoryOp::AddFirstNode {
            site,
            name,
            node_key,
            address,
        } => {
            if !reader(tx).nodes()?.is_empty() {
                return refuse(Refusal::AlreadyExists);
            }
            let node = add_node(tx, *site, name, node_key, address)?;
            Ok(Outcome::NodeAdded { node })
        }
        DirectoryOp::SetNodeAddress { node, address } => {
            let row = reader(tx).node(*node)?.ok_or_else(|| no_such("node", node))?;
            tx.put(
                keys::node(*node),
                &NodeRow {
                    address: address.clone(),
                    ..row
                },
            )?;
            Ok(Outcome::Done)
        }
        DirectoryOp::SetPlacement {
            group,
            voters,
            learners,
        } => set_placement(tx, *group, voters, learners),
        DirectoryOp::AddDomain { domain } => add_domain(tx, domain),
        DirectoryOp::RemoveDomain { domain } => remove_domain(tx, domain),
        DirectoryOp::AddAccount {
            account,
            address,
            group,
            credential,
            quota_bytes,
        } => accounts::add(tx, *account, address, *group, credential, *quota_bytes),
        DirectoryOp::ActivateAccount { account } => accounts::activate(tx, *account),
        DirectoryOp::SetCredential { account, credential } => accounts::set_credential(tx, *account, credential),
        DirectoryOp::RemoveAccount { account } => accounts::remove(tx, *account),
        DirectoryOp::SetAlias { address, targets } => accounts::set_alias(tx, address, targets),
        DirectoryOp::RemoveAlias { address } => accounts::remove_alias(tx, address),
        DirectoryOp::SetSetting { name, value } => set_setting(tx, name, value.as_deref()),
        DirectoryOp::SetNodeDuty { node, duty } => nodes::set_duty(tx, *node, *duty),
        DirectoryOp::RemoveNode { node, forced } => nodes::remove(tx, *node, *forced),
        DirectoryOp::ChangePlacement {
            group,
            expected,
            voters,
            learners,
        } => nodes::change_placement(tx, *group, expected, voters, learners),
        DirectoryOp::MoveVoter { group, from, to } => nodes::move_voter(tx, *group, *from, *to),
        DirectoryOp::PinGroup { group, pinned } => nodes::pin(tx, *group, *pinned),
    }?;
    tx.effect(Effect::Directory);
    Ok(outcome)
}

pub(crate) fn reader<'a>(tx: &'a Tx<'_>) -> Reader<'a> {
    Reader::new(tx.view())
}

pub(crate) fn no_such(kind: &str, name: &dyn std::fmt::Display) -> Refusal {
    Refusal::NoSuchObject(format!("{kind} {name}"))
}

/// The domain of an address, which must be ours.
pub(crate) fn domain_of(tx: &Tx<'_>, address: &Address) -> Result<DomainRow, Halt> {
    let row = tx.load(&keys::domain(&address.domain))?;
    Ok(row.ok_or_else(|| no_such("domain", &address.domain))?)
}

fn found(tx: &mut Tx<'_>, op: &DirectoryOp) -> Result<Outcome, Halt> {
    let DirectoryOp::FoundCluster {
        cluster,
        ca_certificate,
        ca_key,
        site,
        site_name,
        mailbox_groups,
    } = op
    else {
        return refuse(Refusal::Invalid("not a founding".to_owned()));
    };
    if reader(tx).cluster()?.is_some() {
        return refuse(Refusal::AlreadyExists);
    }
    if *mailbox_groups == 0 || *mailbox_groups > MAILBOX_GROUPS_MAX {
        return refuse(Refusal::Invalid(format!(
            "a site has 1 to {MAILBOX_GROUPS_MAX} mailbox groups"
        )));
    }
    let (ca_certificate, ca_key) = (ca_certificate.clone(), ca_key.clone());
    tx.put(
        keys::cluster(),
        &ClusterRow {
            cluster: *cluster,
            ca_certificate,
            ca_key,
            next_node: NodeId(1),
        },
    )?;
    tx.put(
        keys::site(*site),
        &SiteRow {
            site: *site,
            name: site_name.clone(),
        },
    )?;
    for number in 0..=*mailbox_groups {
        let group = GroupId(number);
        let site = (group != GroupId::DIRECTORY).then_some(*site);
        let incarnation = Incarnation(1);
        let row = GroupRow {
            group,
            incarnation,
            site,
            voters: vec![],
            learners: vec![],
            account_count: 0,
        };
        tx.put(keys::group(group), &row)?;
    }
    Ok(Outcome::Done)
}

fn add_join_token(
    tx: &mut Tx<'_>,
    token_key: &[u8; 32],
    site: SiteId,
    name: &str,
    expires: UnixMillis,
) -> Result<Outcome, Halt> {
    check_node_name(tx, name)?;
    if !tx.exists(&keys::site(site))? {
        return refuse(no_such("site", &site.0));
    }
    if tx.exists(&keys::join_token(token_key))? {
        return refuse(Refusal::AlreadyExists);
    }
    let row = JoinTokenRow {
        token_key: *token_key,
        site,
        name: name.to_owned(),
        expires,
        spent: None,
    };
    tx.put(keys::join_token(token_key), &row)?;
    Ok(Outcome::Done)
}

fn join(tx: &mut Tx<'_>, token_key: &[u8; 32], node_key: &[u8; 32], address: &str) -> Result<Outcome, Halt> {
    let token = reader(tx).join_token(token_key)?.ok_or(Refusal::BadToken)?;
    if let Some((spender, node)) = token.spent {
        // The answer was lost: whoever proves the same key may have it again. Not once the node is removed.
        return if spender == *node_key && reader(tx).node(node)?.is_some() {
            Ok(Outcome::NodeAdded { node })
        } else {
            refuse(Refusal::BadToken)
        };
    }
    // The group's time may lag behind after a long silence; the maker's word is believed against the token too.
    if tx.time.max(tx.claimed_time) > token.expires {
        return refuse(Refusal::BadToken);
    }
    let node = add_node(tx, token.site, &token.name, node_key, address)?;
    tx.put(
        keys::join_token(token_key),
        &JoinTokenRow {
            spent: Some((*node_key, node)),
            ..token
        },
    )?;
    Ok(Outcome::NodeAdded { node })
}

fn add_node(tx: &mut Tx<'_>, site: SiteId, name: &str, key: &[u8; 32], address: &str) -> Result<NodeId, Halt> {
    let cluster = reader(tx)
        .cluster()?
        .ok_or_else(|| Refusal::NoSuchObject("cluster".to_owned()))?;
    check_node_name(tx, name)?;
    if !tx.exists(&keys::site(site))? {
        return refuse(no_such("site", &site.0));
    }
    let nodes = reader(tx).nodes()?;
    // Every node of a site holds a replica of its groups.
    let most = core_types::limits::SLOTS_MAX;
    if nodes.iter().filter(|node| node.site == site).count() >= usize::from(most) {
        return refuse(Refusal::Limit(format!("SLOTS_MAX, {most} nodes in a site")));
    }
    let is_known =
        nodes.iter().any(|node| node.key == *key) || reader(tx).removed_nodes()?.iter().any(|node| node.key == *key);
    if is_known {
        return refuse(Refusal::AlreadyExists);
    }
    let node = cluster.next_node;
    let row = NodeRow {
        node,
        site,
        name: name.to_owned(),
        key: *key,
        address: address.to_owned(),
    };
    tx.put(keys::node(node), &row)?;
    tx.put(
        keys::cluster(),
        &ClusterRow {
            next_node: NodeId(node.0.saturating_add(1)),
            ..cluster
        },
    )?;
    Ok(node)
}

fn check_node_name(tx: &Tx<'_>, name: &str) -> Result<(), Halt> {
    if name.is_empty() || name.len() > 64 || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return refuse(Refusal::BadName(
            "a node's name has 1 to 64 octets and no space".to_owned(),
        ));
    }
    if reader(tx).nodes()?.iter().any(|node| node.name == name) {
        return refuse(Refusal::AlreadyExists);
    }
    Ok(())
}

pub(crate) fn set_placement(
    tx: &mut Tx<'_>,
    group: GroupId,
    voters: &[NodeId],
    learners: &[NodeId],
) -> Result<Outcome, Halt> {
    let row = reader(tx).group(group)?.ok_or_else(|| no_such("group", &group))?;
    let replicas: std::collections::BTreeSet<NodeId> = voters.iter().chain(learners).copied().collect();
    if voters.is_empty() || replicas.len() != voters.len() + learners.len() {
        return refuse(Refusal::Invalid(
            "a group has a voter at least, and each node once".to_owned(),
        ));
    }
    if group != GroupId::DIRECTORY && replicas.len() > usize::from(core_types::limits::SLOTS_MAX) {
        return refuse(Refusal::Limit("SLOTS_MAX".to_owned()));
    }
    for node in replicas {
        if !tx.exists(&keys::node(node))? {
            return refuse(no_such("node", &node));
        }
    }
    tx.put(
        keys::group(group),
        &GroupRow {
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            ..row
        },
    )?;
    Ok(Outcome::Done)
}

fn add_domain(tx: &mut Tx<'_>, domain: &Domain) -> Result<Outcome, Halt> {
    if tx.exists(&keys::domain(domain))? {
        return refuse(Refusal::AlreadyExists);
    }
    tx.put(
        keys::domain(domain),
        &DomainRow {
            domain: domain.clone(),
            address_count: 0,
        },
    )?;
    Ok(Outcome::Done)
}

fn remove_domain(tx: &mut Tx<'_>, domain: &Domain) -> Result<Outcome, Halt> {
    let row: DomainRow = tx
        .load(&keys::domain(domain))?
        .ok_or_else(|| no_such("domain", domain))?;
    if row.address_count > 0 {
        return refuse(Refusal::InUse(format!("{} addresses", row.address_count)));
    }
    tx.delete(keys::domain(domain));
    Ok(Outcome::Done)
}

fn set_setting(tx: &mut Tx<'_>, name: &str, value: Option<&str>) -> Result<Outcome, Halt> {
    if name.is_empty() {
        return refuse(Refusal::Invalid("a setting without a name".to_owned()));
    }
    match value {
        Some(value) => tx.put(keys::setting(name), value)?,
        None => tx.delete(keys::setting(name)),
    }
    Ok(Outcome::Done)
}
