//! How a site comes into being, and the last look at it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::administrator;
use crate::check;
use crate::client::{Answer, admin};
use crate::host::Host;
use crate::site::Site;
use crate::workload::{Ledger, MAILBOXES, PASSWORD, address};

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
pub(super) async fn found(
    site: Site,
    hosts: Vec<Host>,
    users: usize,
    replace_after: u64,
    outcome: Slot,
) -> turmoil::Result {
    let done = async {
        founding(&site, &hosts, users).await?;
        if replace_after > 0 {
            administrator::set_replace_after(&site.members(), replace_after).await?;
        }
        Ok(())
    };
    let done: Answer<()> = done.await;
    outcome.set(done.map_err(|failure| format!("founding: {failure}")));
    Ok(())
}

async fn founding(site: &Site, hosts: &[Host], users: usize) -> Answer<()> {
    let nodes = site.members();
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
    for user in 0..users {
        let body = format!("{{\"address\":\"{}\",\"password\":\"{PASSWORD}\"}}", address(user));
        patient(nodes[0], "POST", "/v1/accounts", &body).await?;
        let mut imap = crate::client::imap::Imap::login(nodes[0], &address(user), PASSWORD).await?;
        for mailbox in MAILBOXES.iter().filter(|name| **name != "INBOX") {
            // "Archive" may be one that every account has.
            let _ = imap.command(&format!("CREATE {mailbox}")).await;
        }
        imap.logout().await;
    }
    // Everything at full strength before the load begins.
    check::quiet(&nodes, site.voters())
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

pub(super) async fn last_look(site: &Site, users: usize, ledger: &Ledger) -> Result<(), String> {
    let nodes = &site.members();
    check::quiet(nodes, site.voters())
        .await
        .map_err(|wrong| format!("I32: still wrong after the last fault: {wrong}"))?;
    check::everything(nodes, users, ledger)
        .await
        .map_err(|failure| format!("I32: reading: {failure}"))?;
    check::still_works(nodes)
        .await
        .map_err(|failure| format!("I32: a new delivery: {failure}"))
}
