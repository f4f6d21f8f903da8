//! What is measured: the addresses of the services, the accounts, and how TLS is checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Deserialize;

use crate::stream::{self, Endpoint};

/// What is measured, as the command line says it.
#[derive(Debug, Default, Args)]
pub(crate) struct TargetOptions {
    /// The file that `everpost quickstart` writes: its addresses, accounts and CA.
    #[arg(long, global = true)]
    pub(crate) quickstart: Option<PathBuf>,
    /// Only this node of the quickstart; connections go to all in turn where none is named.
    #[arg(long, global = true, requires = "quickstart")]
    pub(crate) node: Option<usize>,
    /// SMTP, host:port.
    #[arg(long, global = true)]
    pub(crate) smtp: Vec<String>,
    /// LMTP, host:port.
    #[arg(long, global = true)]
    pub(crate) lmtp: Vec<String>,
    /// IMAP, host:port.
    #[arg(long, global = true)]
    pub(crate) imap: Vec<String>,
    /// POP3, host:port.
    #[arg(long, global = true)]
    pub(crate) pop3: Vec<String>,
    /// A login name, which is the recipient too; several are used in turn.
    #[arg(long, global = true)]
    pub(crate) user: Vec<String>,
    /// The password of all users.
    #[arg(long, global = true, env = "BENCH_PASSWORD")]
    pub(crate) password: Option<String>,
    /// The sender of deliveries.
    #[arg(long, global = true, default_value = "bench@bench.invalid")]
    pub(crate) from: String,
    /// Log in before SMTP delivery.
    #[arg(long, global = true)]
    pub(crate) smtp_auth: bool,
    /// TLS from the first octet (with --quickstart: the ports that have it).
    #[arg(long, global = true)]
    pub(crate) tls: bool,
    /// The certificate authority, PEM.
    #[arg(long, global = true)]
    pub(crate) ca: Option<PathBuf>,
    /// Accept any certificate.
    #[arg(long, global = true, conflicts_with = "ca")]
    pub(crate) insecure: bool,
}

/// A login name with its password.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Account {
    pub(crate) address: String,
    pub(crate) password: String,
}

/// What is measured, ready for use.
#[derive(Debug, Default)]
pub(crate) struct Target {
    pub(crate) smtp: Vec<Endpoint>,
    pub(crate) lmtp: Vec<Endpoint>,
    pub(crate) imap: Vec<Endpoint>,
    pub(crate) pop3: Vec<Endpoint>,
    pub(crate) accounts: Vec<Account>,
    pub(crate) from: String,
    pub(crate) smtp_auth: bool,
}

#[derive(Deserialize)]
struct Quickstart {
    ca: PathBuf,
    nodes: Vec<QuickstartNode>,
    accounts: Vec<Account>,
}

#[derive(Deserialize)]
struct QuickstartNode {
    smtp: Option<String>,
    submissions: Option<String>,
    lmtp: Option<String>,
    imap: Option<String>,
    imaps: Option<String>,
    pop3: Option<String>,
    pop3s: Option<String>,
}

impl Target {
    /// Reads what the options name.
    ///
    /// # Errors
    /// A file that cannot be read, options that do not fit each other.
    pub(crate) fn new(options: &TargetOptions) -> Result<Self, String> {
        let quickstart = options.quickstart.as_deref().map(read_quickstart).transpose()?;
        let ca = options
            .ca
            .clone()
            .or_else(|| quickstart.as_ref().map(|quickstart| quickstart.ca.clone()));
        let tls = if options.tls {
            Some(Arc::new(stream::tls_config(ca.as_deref(), options.insecure)?))
        } else {
            None
        };
        let endpoints = |addresses: &[String]| -> Vec<Endpoint> {
            addresses
                .iter()
                .map(|address| Endpoint {
                    address: address.clone(),
                    tls: tls.clone(),
                })
                .collect()
        };
        let mut target = Self {
            smtp: endpoints(&options.smtp),
            lmtp: endpoints(&options.lmtp),
            imap: endpoints(&options.imap),
            pop3: endpoints(&options.pop3),
            accounts: Vec::new(),
            from: options.from.clone(),
            smtp_auth: options.smtp_auth,
        };
        let password = options.password.clone().unwrap_or_default();
        target.accounts.extend(options.user.iter().map(|user| Account {
            address: user.clone(),
            password: password.clone(),
        }));
        if let Some(quickstart) = quickstart {
            target.add_quickstart(quickstart, options, &endpoints)?;
        }
        if target.accounts.is_empty() {
            return Err("no account: give --user and --password, or --quickstart".to_owned());
        }
        Ok(target)
    }

    fn add_quickstart(
        &mut self,
        quickstart: Quickstart,
        options: &TargetOptions,
        endpoints: &dyn Fn(&[String]) -> Vec<Endpoint>,
    ) -> Result<(), String> {
        if self.accounts.is_empty() {
            self.accounts = quickstart.accounts;
        }
        if options.tls && self.from == "bench@bench.invalid" {
            // Submission takes no sender that is not the account's own.
            self.from = String::new();
        }
        self.smtp_auth |= options.tls;
        let nodes: Vec<QuickstartNode> = match options.node {
            None => quickstart.nodes,
            Some(number) => {
                let node = number
                    .checked_sub(1)
                    .and_then(|index| quickstart.nodes.into_iter().nth(index));
                vec![node.ok_or_else(|| format!("the quickstart has no node {number}"))?]
            }
        };
        for node in nodes {
            let (smtp, lmtp, imap, pop3) = if options.tls {
                (node.submissions, None, node.imaps, node.pop3s)
            } else {
                (node.smtp, node.lmtp, node.imap, node.pop3)
            };
            self.smtp.extend(endpoints(smtp.as_slice()));
            self.lmtp.extend(endpoints(lmtp.as_slice()));
            self.imap.extend(endpoints(imap.as_slice()));
            self.pop3.extend(endpoints(pop3.as_slice()));
        }
        Ok(())
    }

    /// The account of a connection.
    pub(crate) fn account(&self, number: u32) -> Result<&Account, String> {
        pick(&self.accounts, number).ok_or_else(|| "no account".to_owned())
    }
}

/// The connections go over what there is in turn.
pub(crate) fn pick<T>(all: &[T], number: u32) -> Option<&T> {
    let index = usize::try_from(number).unwrap_or(0).checked_rem(all.len())?;
    all.get(index)
}

fn read_quickstart(path: &Path) -> Result<Quickstart, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quickstart_file_gives_addresses_and_accounts() {
        let path = std::env::temp_dir().join(format!("everpost-bench-{}.json", std::process::id()));
        let text = r#"{"ca": "/ca.pem", "nodes": [
            {"id": 1, "pid": 7, "dir": "/d", "smtp": "127.0.0.1:11025", "imap": "127.0.0.1:11143"},
            {"id": 2, "pid": 8, "dir": "/e", "smtp": "127.0.0.1:12025", "imap": "127.0.0.1:12143"}],
            "accounts": [{"address": "user1@example.test", "password": "secret"}]}"#;
        std::fs::write(&path, text).unwrap();
        let mut options = TargetOptions {
            quickstart: Some(path.clone()),
            ..TargetOptions::default()
        };
        let target = Target::new(&options).unwrap();
        assert_eq!((target.smtp.len(), target.imap.len(), target.pop3.len()), (2, 2, 0));
        assert_eq!(target.account(5).unwrap().address, "user1@example.test");
        options.node = Some(2);
        assert_eq!(Target::new(&options).unwrap().imap[0].address, "127.0.0.1:12143");
        options.node = Some(3);
        assert!(Target::new(&options).unwrap_err().contains("no node 3"));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn without_an_account_nothing_is_measured() {
        let options = TargetOptions {
            imap: vec!["127.0.0.1:143".to_owned()],
            ..TargetOptions::default()
        };
        assert!(Target::new(&options).unwrap_err().contains("--user"));
    }
}
