//! Tests of the directory's ops and of who gets mail for an address.

use core_types::{Address, Domain, GroupId, SiteId};

use super::*;
use crate::directory::{Reader, Resolution};
use crate::rows::Credential;

const SITE: SiteId = SiteId(3);

fn ask(group: &mut Group, op: DirectoryOp) -> Outcome {
    group.applied(Op::Directory(op)).outcome
}

fn founded() -> Group {
    let mut group = Group::new(MachineKind::Directory);
    let (ca_certificate, ca_key) = (vec![1], vec![2]);
    let op = DirectoryOp::FoundCluster {
        cluster: 5,
        ca_certificate,
        ca_key,
        site: SITE,
        site_name: "home".into(),
        mailbox_groups: 2,
    };
    assert_eq!(ask(&mut group, op.clone()), Outcome::Done);
    assert_eq!(ask(&mut group, op), Outcome::Refused(Refusal::AlreadyExists));
    group
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn add_account(group: &mut Group, number: u8, text: &str) -> Outcome {
    let op = DirectoryOp::AddAccount {
        account: AccountId([number; 16]),
        address: address(text),
        group: None,
        credential: Credential::None,
        quota_bytes: None,
    };
    ask(group, op)
}

fn alias(group: &mut Group, text: &str, targets: &[&str]) -> Outcome {
    let targets = targets.iter().map(|target| address(target)).collect();
    ask(
        group,
        DirectoryOp::SetAlias {
            address: address(text),
            targets,
        },
    )
}

fn with_domain() -> Group {
    let mut group = founded();
    ask(
        &mut group,
        DirectoryOp::AddDomain {
            domain: Domain::parse("our.example").unwrap(),
        },
    );
    group
}

/// Accounts by their number, and remote addresses.
fn resolved(group: &Group, text: &str) -> Option<(Vec<u8>, Vec<String>)> {
    match Reader::new(&group.engine).resolve(&address(text)).unwrap() {
        Resolution::Recipients(found) => Some((
            found.accounts.iter().map(|row| row.account.0[0]).collect(),
            found.remote.iter().map(Address::to_string).collect(),
        )),
        _ => None,
    }
}

#[test]
fn founding_makes_the_site_and_its_groups() {
    let group = founded();
    let reader = Reader::new(&group.engine);
    let groups: Vec<_> = reader
        .groups()
        .unwrap()
        .into_iter()
        .map(|row| (row.group.0, row.site, row.incarnation.0))
        .collect();
    assert_eq!(groups, [(0, None, 1), (1, Some(SITE), 1), (2, Some(SITE), 1)]);
    assert_eq!(reader.sites().unwrap().len(), 1);
}

#[test]
fn quic_join_id_reuse() {
    let mut group = founded();
    let first = DirectoryOp::AddFirstNode {
        site: SITE,
        name: "n1".into(),
        node_key: [1; 32],
        address: "a:1".into(),
    };
    assert_eq!(ask(&mut group, first), Outcome::NodeAdded { node: NodeId(1) });
    let token = |key: u8, name: &str| DirectoryOp::AddJoinToken {
        token_key: [key; 32],
        site: SITE,
        name: name.into(),
        expires: START.saturating_add(1000),
    };
    let join = |token: u8, node: u8| DirectoryOp::JoinNode {
        token_key: [token; 32],
        node_key: [node; 32],
        address: "b:1".into(),
    };
    assert_eq!(ask(&mut group, token(7, "n2")), Outcome::Done);
    assert_eq!(ask(&mut group, join(7, 2)), Outcome::NodeAdded { node: NodeId(2) });
    // Its disk is wiped, its key with it: neither its old token nor its name gives the new key the old id.
    assert_eq!(ask(&mut group, join(7, 3)), Outcome::Refused(Refusal::BadToken));
    assert_eq!(
        ask(&mut group, token(8, "n2")),
        Outcome::Refused(Refusal::AlreadyExists)
    );
    assert_eq!(ask(&mut group, token(8, "n2-again")), Outcome::Done);
    assert_eq!(ask(&mut group, token(9, "n2-once-more")), Outcome::Done);
    // The old key has its id for ever and gets no second one; refused, that uses up neither token nor id.
    assert_eq!(ask(&mut group, join(8, 2)), Outcome::Refused(Refusal::AlreadyExists));
    assert_eq!(ask(&mut group, join(8, 3)), Outcome::NodeAdded { node: NodeId(3) });
    assert_eq!(ask(&mut group, join(9, 4)), Outcome::NodeAdded { node: NodeId(4) });
    let nodes: Vec<_> = Reader::new(&group.engine)
        .nodes()
        .unwrap()
        .into_iter()
        .map(|row| (row.node.0, row.key[0]))
        .collect();
    assert_eq!(nodes, [(1, 1), (2, 2), (3, 3), (4, 4)]);
}

#[test]
fn a_join_token_is_good_once_and_for_one_key() {
    let mut group = founded();
    let first = DirectoryOp::AddFirstNode {
        site: SITE,
        name: "n1".into(),
        node_key: [1; 32],
        address: "a:1".into(),
    };
    assert_eq!(ask(&mut group, first.clone()), Outcome::NodeAdded { node: NodeId(1) });
    assert_eq!(ask(&mut group, first), Outcome::Refused(Refusal::AlreadyExists));
    let token = |key: u8, name: &str| DirectoryOp::AddJoinToken {
        token_key: [key; 32],
        site: SITE,
        name: name.into(),
        expires: START.saturating_add(1000),
    };
    assert_eq!(
        ask(&mut group, token(7, "n1")),
        Outcome::Refused(Refusal::AlreadyExists)
    );
    assert_eq!(ask(&mut group, token(7, "n2")), Outcome::Done);
    assert_eq!(ask(&mut group, token(8, "n3")), Outcome::Done);
    let join = |key: u8, node: u8| DirectoryOp::JoinNode {
        token_key: [key; 32],
        node_key: [node; 32],
        address: "b:1".into(),
    };
    assert_eq!(ask(&mut group, join(9, 2)), Outcome::Refused(Refusal::BadToken));
    assert_eq!(ask(&mut group, join(7, 1)), Outcome::Refused(Refusal::AlreadyExists));
    assert_eq!(ask(&mut group, join(7, 2)), Outcome::NodeAdded { node: NodeId(2) });
    assert_eq!(ask(&mut group, join(7, 2)), Outcome::NodeAdded { node: NodeId(2) });
    assert_eq!(ask(&mut group, join(7, 3)), Outcome::Refused(Refusal::BadToken));
    group.now = START.saturating_add(1001);
    assert_eq!(ask(&mut group, join(8, 3)), Outcome::Refused(Refusal::BadToken));
    assert_eq!(ask(&mut group, join(7, 2)), Outcome::NodeAdded { node: NodeId(2) });
    let place = |voters: &[u64]| DirectoryOp::SetPlacement {
        group: GroupId(1),
        voters: voters.iter().map(|node| NodeId(*node)).collect(),
        learners: vec![],
    };
    assert_eq!(ask(&mut group, place(&[1, 2])), Outcome::Done);
    assert!(matches!(
        ask(&mut group, place(&[1, 1])),
        Outcome::Refused(Refusal::Invalid(_))
    ));
    assert!(matches!(
        ask(&mut group, place(&[1, 3])),
        Outcome::Refused(Refusal::NoSuchObject(_))
    ));
}

#[test]
fn accounts_go_where_the_fewest_are_and_addresses_are_unique() {
    let mut group = with_domain();
    assert_eq!(
        add_account(&mut group, 1, "Ann@our.example"),
        Outcome::AccountAdded { group: GroupId(1) }
    );
    assert_eq!(
        add_account(&mut group, 2, "bob@our.example"),
        Outcome::AccountAdded { group: GroupId(2) }
    );
    assert_eq!(
        add_account(&mut group, 3, "cid@our.example"),
        Outcome::AccountAdded { group: GroupId(1) }
    );
    assert_eq!(
        add_account(&mut group, 4, "ANN@our.example"),
        Outcome::Refused(Refusal::AlreadyExists)
    );
    assert!(matches!(
        add_account(&mut group, 4, "x@other.example"),
        Outcome::Refused(Refusal::NoSuchObject(_))
    ));
    assert_eq!(
        alias(&mut group, "bob@our.example", &["x@y.example"]),
        Outcome::Refused(Refusal::AlreadyExists)
    );
    alias(&mut group, "all@our.example", &["x@y.example"]);
    alias(&mut group, "all@our.example", &["z@y.example"]);
    assert_eq!(
        add_account(&mut group, 4, "All@our.example"),
        Outcome::Refused(Refusal::AlreadyExists)
    );
    let domain = Domain::parse("our.example").unwrap();
    assert_eq!(Reader::new(&group.engine).domains().unwrap()[0].address_count, 4);
    let remove = DirectoryOp::RemoveDomain { domain };
    assert!(matches!(
        ask(&mut group, remove.clone()),
        Outcome::Refused(Refusal::InUse(_))
    ));
    for number in 1..=3 {
        ask(
            &mut group,
            DirectoryOp::RemoveAccount {
                account: AccountId([number; 16]),
            },
        );
    }
    ask(
        &mut group,
        DirectoryOp::RemoveAlias {
            address: address("all@our.example"),
        },
    );
    assert_eq!(ask(&mut group, remove), Outcome::Done);
    assert!(
        Reader::new(&group.engine)
            .groups()
            .unwrap()
            .iter()
            .all(|row| row.account_count == 0)
    );
    assert_eq!(
        digest::stored(&group.engine).unwrap(),
        digest::recomputed(&group.engine).unwrap()
    );
}

#[test]
fn aliases_lead_to_everybody_once_also_in_loops() {
    let mut group = with_domain();
    add_account(&mut group, 1, "ann@our.example");
    add_account(&mut group, 2, "bob@our.example");
    alias(
        &mut group,
        "a@our.example",
        &["ann@our.example", "b@our.example", "x@else.example"],
    );
    alias(
        &mut group,
        "b@our.example",
        &[
            "a@our.example",
            "BOB@our.example",
            "ann+t@our.example",
            "nobody@our.example",
        ],
    );
    alias(&mut group, "loop@our.example", &["loop@our.example"]);
    let everybody = Some((vec![1, 2], vec!["x@else.example".to_owned()]));
    assert_eq!(resolved(&group, "A@our.example"), everybody);
    assert_eq!(resolved(&group, "ann+tag+more@our.example"), Some((vec![1], vec![])));
    assert_eq!(resolved(&group, "a+tag@our.example"), everybody);
    let unknown = |text: &str| Reader::new(&group.engine).resolve(&address(text)).unwrap();
    assert_eq!(unknown("loop@our.example"), Resolution::Unknown);
    assert_eq!(unknown("nobody@our.example"), Resolution::Unknown);
    assert_eq!(unknown("+ann@our.example"), Resolution::Unknown);
    assert_eq!(unknown("ann@else.example"), Resolution::NotLocal);
}

#[test]
fn aliases_that_lead_too_deep_are_an_error() {
    use core_types::limits::ALIAS_DEPTH_MAX;
    let mut group = with_domain();
    add_account(&mut group, 1, "a0@our.example");
    for depth in 1..=ALIAS_DEPTH_MAX + 1 {
        alias(
            &mut group,
            &format!("a{depth}@our.example"),
            &[&format!("a{}@our.example", depth - 1)],
        );
    }
    let at = |depth: usize| {
        Reader::new(&group.engine)
            .resolve(&address(&format!("a{depth}@our.example")))
            .unwrap()
    };
    assert!(matches!(at(ALIAS_DEPTH_MAX - 1), Resolution::Recipients(_)));
    assert!(matches!(at(ALIAS_DEPTH_MAX), Resolution::Recipients(_)));
    assert_eq!(at(ALIAS_DEPTH_MAX + 1), Resolution::TooMany);
}

#[test]
fn postmaster_is_taken_where_the_setting_says_so() {
    let mut group = with_domain();
    add_account(&mut group, 1, "ann@our.example");
    assert_eq!(resolved(&group, "Postmaster@our.example"), None);
    let set = |value: Option<&str>| DirectoryOp::SetSetting {
        name: "postmaster".into(),
        value: value.map(str::to_owned),
    };
    ask(&mut group, set(Some("ann@our.example")));
    assert_eq!(resolved(&group, "Postmaster@our.example"), Some((vec![1], vec![])));
    assert_eq!(Reader::new(&group.engine).settings().unwrap().len(), 1);
    ask(&mut group, set(None));
    assert_eq!(Reader::new(&group.engine).setting("postmaster").unwrap(), None);
}
