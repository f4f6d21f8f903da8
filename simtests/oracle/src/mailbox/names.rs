//! The tree of an account's mailboxes as a set of names.

use std::collections::BTreeSet;
use std::fmt;

use super::timed;
use crate::history::{Action, History, Op, Outcome};
use crate::linear::{Model, Timed};

/// The model.
pub(super) struct Names;

/// All names that exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tree(BTreeSet<String>);

/// What is done to the names, or seen of them.
#[derive(Clone, Debug)]
pub(super) struct NamesOp(Action);

impl fmt::Display for NamesOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Model for Names {
    type Op = NamesOp;
    type State = Tree;

    fn initial(&self) -> Tree {
        Tree(BTreeSet::from(["INBOX".to_owned()]))
    }

    fn step(&self, state: &Tree, op: &NamesOp) -> Option<Tree> {
        let mut tree = state.0.clone();
        match &op.0 {
            Action::Create { name, .. } => {
                if !tree.insert(name.clone()) {
                    return None;
                }
                insert_superiors(&mut tree, name);
            }
            Action::Delete { name, .. } => {
                let was_there = tree.remove(name);
                if !was_there {
                    return None;
                }
            }
            Action::Rename { from, to, .. } => {
                let inferiors = format!("{from}/");
                let moved: Vec<String> = tree
                    .iter()
                    .filter(|name| *name == from || name.starts_with(&inferiors))
                    .cloned()
                    .collect();
                if !tree.contains(from) || tree.contains(to) {
                    return None;
                }
                for name in moved {
                    tree.remove(&name);
                    let rest = name.get(from.len()..).unwrap_or_default();
                    tree.insert(format!("{to}{rest}"));
                }
                insert_superiors(&mut tree, to);
            }
            Action::List { names, .. } => {
                let listed: BTreeSet<&String> = names.iter().collect();
                if listed.len() != names.len() || !listed.into_iter().eq(&tree) {
                    return None;
                }
            }
            _ => {}
        }
        Some(Tree(tree))
    }

    fn show(&self, state: &Tree) -> String {
        format!("{:?}", state.0)
    }

    fn is_read(&self, op: &NamesOp) -> bool {
        matches!(op.0, Action::List { .. })
    }
}

fn insert_superiors(tree: &mut BTreeSet<String>, name: &str) {
    let mut rest = name;
    while let Some((superior, _)) = rest.rsplit_once('/') {
        tree.insert(superior.to_owned());
        rest = superior;
    }
}

/// Whose names an operation concerns.
pub(super) fn account(op: &Op) -> Option<u32> {
    match &op.action {
        Action::Create { account, .. } | Action::Rename { account, .. } | Action::List { account, .. } => {
            Some(*account)
        }
        Action::Delete { mailbox, .. } => Some(mailbox.account),
        _ => None,
    }
}

/// The history of an account's names.
pub(super) fn of(history: &History, whose: u32) -> Vec<Timed<NamesOp>> {
    let concerned = |op: &&Op| {
        let is_read = matches!(op.action, Action::List { .. });
        account(op) == Some(whose) && op.outcome != Outcome::Failed && (op.is_ok() || !is_read)
    };
    let ops = history.ops().iter().filter(concerned);
    ops.map(|op| timed(op, NamesOp(op.action.clone()))).collect()
}
