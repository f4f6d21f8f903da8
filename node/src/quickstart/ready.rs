//! Waiting until nodes answer, and until all of them serve mail.

use std::time::Duration;

use admin::api::Status;
use ctl::{Exit, Failure, output};
use tokio::time::Instant;

use super::layout::Layout;
use super::process::Children;

/// Waits until a node's admin socket answers.
pub(crate) async fn answers(layout: &Layout, node: u64, children: &mut Children) -> Result<(), Failure> {
    let deadline = Instant::now() + ANSWER_PATIENCE;
    loop {
        if layout.client(node).get::<Status>("/v1/status").await.is_ok() {
            return Ok(());
        }
        let log = layout.log_path(node);
        if let Some(status) = children.exited(node) {
            let last = std::fs::read_to_string(&log).unwrap_or_default();
            let last = last.lines().last().unwrap_or_default().to_owned();
            return Err(Failure::new(
                Exit::Failed,
                format!("node {node} ended at once ({status}): {last}"),
            ));
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(
                Exit::Unreachable,
                format!("node {node} does not answer; its log is {}", log.display()),
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until every group has its voters and every node knows a leader of every group.
pub(crate) async fn all_serve(layout: &Layout, nodes: u64, mailbox_groups: u32) -> Result<(), Failure> {
    let deadline = Instant::now() + SERVE_PATIENCE;
    let mut shown = Instant::now();
    loop {
        let mut waiting = None;
        for node in 1..=nodes {
            match layout.client(node).get::<Status>("/v1/status").await {
                Ok(status) => waiting = waiting.or_else(|| lacks(&status, nodes, mailbox_groups)),
                Err(error) => waiting = waiting.or_else(|| Some(format!("node {node}: {error}"))),
            }
        }
        let Some(waiting) = waiting else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(Failure::new(
                Exit::TryAgain,
                format!("the site is not complete yet: {waiting}"),
            ));
        }
        if shown.elapsed() >= SHOW_EVERY {
            output::note(&format!("waiting: {waiting}"));
            shown = Instant::now();
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What a node still lacks.
fn lacks(status: &Status, nodes: u64, mailbox_groups: u32) -> Option<String> {
    let node = status.node;
    let opened = status.groups.len();
    if opened <= usize::try_from(mailbox_groups).unwrap_or(usize::MAX) {
        return Some(format!(
            "node {node} has {opened} of {} groups",
            u64::from(mailbox_groups) + 1
        ));
    }
    let voters = usize::try_from(nodes.min(3)).unwrap_or(3);
    status.groups.iter().find_map(|group| {
        if group.voters.len() < voters {
            return Some(format!(
                "group {} has {} of {voters} voters",
                group.group,
                group.voters.len()
            ));
        }
        group
            .leader
            .is_none()
            .then(|| format!("node {node} knows no leader of group {}", group.group))
    })
}

/// How long a node may take to answer: it may have a long log to read.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// How long the site may take to become whole.
const SERVE_PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Between two lines of progress.
const SHOW_EVERY: Duration = Duration::from_secs(2);
