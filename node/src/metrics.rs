//! Metrics and health over HTTP: `/livez`, `/readyz`, `/metrics` (Prometheus text format).
//!
//! No address, name or subject is ever a label.

use std::fmt::Write;
use std::sync::Arc;

use admin::Node;
use admin::api::{Health, Status};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::face::Face;
use crate::listen::ListenError;
use crate::start::Parts;

pub(crate) async fn bind(parts: &Arc<Parts>, listeners: &mut JoinSet<()>) -> Result<(), ListenError> {
    let Some(address) = parts.config.listen.metrics else {
        return Ok(());
    };
    let bound = TcpListener::bind(address).await;
    let listener = bound.map_err(|error| ListenError::Bind {
        service: "metrics",
        address,
        error,
    })?;
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(parts));
    let shutdown = parts.shutdown.clone();
    listeners.spawn(async move {
        let until = async move { shutdown.stopped().await };
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(until).await {
            tracing::error!(%error, "the metrics listener failed");
        }
    });
    Ok(())
}

/// Ready: every group here has a leader, and the node is not stopping.
async fn ready(State(parts): State<Arc<Parts>>) -> (StatusCode, String) {
    let stopping = parts.shutdown.is_stopped();
    match Face(parts).status().await {
        Ok(status) if !stopping && status.groups.iter().all(|group| group.leader.is_some()) => {
            (StatusCode::OK, "ok\n".to_owned())
        }
        Ok(status) => {
            let mut text = String::new();
            for check in status.checks {
                let _ = writeln!(text, "[-] {} {}", check.code, check.message);
            }
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

async fn metrics(State(parts): State<Arc<Parts>>) -> (StatusCode, String) {
    match Face(parts).status().await {
        Ok(status) => (StatusCode::OK, render(&status)),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("# {error}\n")),
    }
}

fn render(status: &Status) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, values: &[(String, u64)]| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in values {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let one = |value: u64| vec![(String::new(), value)];
    let health = match status.health {
        Health::Ok => 0,
        Health::Warning => 1,
        Health::Error => 2,
    };
    gauge("everpost_health", "0 ok, 1 warning, 2 error", &one(health));
    let reached = status.nodes.iter().map(|node| {
        (
            format!("{{node=\"{}\"}}", node.node),
            u64::from(node.state != "unreachable"),
        )
    });
    gauge(
        "everpost_node_reachable",
        "1 when the node is reached from here",
        &reached.collect::<Vec<_>>(),
    );
    let per_group = |value: fn(&admin::api::GroupStatus) -> u64| -> Vec<(String, u64)> {
        status
            .groups
            .iter()
            .map(|group| (format!("{{group=\"{}\"}}", group.group), value(group)))
            .collect()
    };
    gauge(
        "everpost_group_applied_index",
        "the last log entry applied here",
        &per_group(|group| group.applied),
    );
    gauge(
        "everpost_group_is_leader",
        "1 when this node leads the group",
        &per_group(|group| u64::from(group.role == "leader")),
    );
    gauge(
        "everpost_group_has_leader",
        "1 when the group has a leader",
        &per_group(|group| u64::from(group.leader.is_some())),
    );
    gauge("everpost_blobs", "blobs on this node", &one(status.blobs.count));
    gauge("everpost_blob_bytes", "their octets on disk", &one(status.blobs.bytes));
    gauge(
        "everpost_blobs_under_replicated",
        "blobs with fewer copies than wanted",
        &one(status.blobs.under_replicated),
    );
    gauge(
        "everpost_blobs_damaged",
        "copies found damaged since the start",
        &one(status.blobs.corrupt),
    );
    gauge("everpost_queue_entries", "entries in the queue", &one(status.queue));
    gauge(
        "everpost_disk_free_bytes",
        "octets that can still be written",
        &one(status.disk.free_bytes),
    );
    gauge(
        "everpost_index_bytes",
        "octets of the index",
        &one(status.disk.index_bytes),
    );
    text
}
