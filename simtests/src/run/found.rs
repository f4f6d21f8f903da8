//! How a site comes into being, and the last look at it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::administrator;
use crate::check;
use crate::client::{Answer, admin};
use crate::host::Host;
use crate::workload::world::World;
use crate::workload::{PASSWORD, address};

/// A result that a simulated host leaves for the run.
#[derive(Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Result<(), String>>>>);

impl Slot {
    pub(super) fn set(&self, result: Result<(), String>) {
        *self.0.lock().expect("no panic") = Some(result);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.lock().expect("no panic").is_some()
    }

    pub(super) fn take(&self) -> Result<(), String> {
        self.0.lock().expect("no panic").take().unwrap_or(Ok(()))
    }
}

/// Nodes join one after the other; then domain, accounts, mailboxes.
pub(super) async fn found(world: World, hosts: Vec<Host>, replace_after: u64, outcome: Slot) -> turmoil::Result {
    let done = async {
        founding(&world, &hosts).await?;
        if replace_after > 0 {
            administrator::set_replace_after(&world.site.members(), replace_after).await?;
        }
        Ok(())
    };
    let done: Answer<()> = done.await;
    outcome.set(done.map_err(|failure| format!("founding: {failure}")));
    Ok(())
}

async fn founding(world: &World, hosts: &[Host]) -> Answer<()> {
    let nodes = world.site.members();
    for host in hosts.iter().skip(1) {
        let body = format!("{{\"name\":\"{}\"}}", host.name());
        let answer = patient(nodes[0], "POST", "/v1/nodes", &body).await?;
        let token = answer
            .split("\"token\":\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap_or_default();
        host.set_token(token.to_owned());
        while host.running().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    patient(nodes[0], "POST", "/v1/domains", "{\"domain\":\"example.test\"}").await?;
    for user in 1..=world.users {
        let body = format!("{{\"address\":\"{}\",\"password\":\"{PASSWORD}\"}}", address(user));
        patient(nodes[0], "POST", "/v1/accounts", &body).await?;
    }
    check::prepare(world).await?;
    // Everything at full strength before the load begins.
    check::quiet(&nodes, world.site.voters())
        .await
        .map_err(crate::client::Failure::Refused)?;
    Ok(())
}

async fn patient(node: IpAddr, method: &str, path: &str, body: &str) -> Answer<String> {
    let mut last = Ok(String::new());
    for _ in 0..40 {
        last = admin::request(node, method, path, body).await;
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    last
}

pub(super) async fn last_look(world: &World) -> Result<(), String> {
    let nodes = &world.site.members();
    check::quiet(nodes, world.site.voters())
        .await
        .map_err(|wrong| format!("I32: still wrong after the last fault: {wrong}"))?;
    check::everything(world)
        .await
        .map_err(|failure| format!("I32: reading: {failure}"))?;
    check::still_works(nodes)
        .await
        .map_err(|failure| format!("I32: a new delivery: {failure}"))
}
