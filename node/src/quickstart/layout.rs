//! The directory of a quickstart: what is in it, and on which ports its nodes listen.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use core_types::Domain;
use ctl::cli::Quickstart;
use ctl::client::Client;
use ctl::{Exit, Failure};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Listen, Log, PasswordHash, PlainLogin, Role, TlsFiles};
use crate::tls::private_authority;

/// `quickstart.json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// The certificate authority for mail programs, PEM.
    pub(crate) ca: String,
    pub(crate) nodes: Vec<NodeEntry>,
    pub(crate) accounts: Vec<UserEntry>,
}

/// One node of `quickstart.json`. Addresses are `host:port`; `pid` is 0 while the node is stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeEntry {
    pub(crate) id: u64,
    pub(crate) pid: u32,
    pub(crate) dir: String,
    pub(crate) smtp: String,
    pub(crate) submission: String,
    pub(crate) submissions: String,
    pub(crate) lmtp: String,
    pub(crate) imap: String,
    pub(crate) imaps: String,
    pub(crate) pop3: String,
    pub(crate) pop3s: String,
    pub(crate) metrics: String,
    pub(crate) cluster: String,
}

/// One account of `quickstart.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserEntry {
    pub(crate) address: String,
    pub(crate) password: String,
}

/// What a new quickstart is to be.
pub(crate) struct Plan {
    pub(crate) nodes: u64,
    pub(crate) users: u64,
    pub(crate) domain: String,
    pub(crate) password: String,
    base_port: u16,
}

/// What a first start makes, so that one that fails can take it away again.
pub(crate) struct Traces {
    dir: PathBuf,
    dir_is_new: bool,
    nodes: u64,
}

/// Where things are.
pub(crate) struct Layout {
    dir: PathBuf,
    base_port: u16,
    password: String,
}

impl Summary {
    /// The options that were given and that an existing quickstart contradicts.
    pub(crate) fn ignored(&self, options: &Quickstart) -> Vec<&'static str> {
        let first = self.accounts.first();
        let domain = first.and_then(|account| account.address.split_once('@'));
        let cluster = self.nodes.first().and_then(|node| node.cluster.rsplit_once(':'));
        let base_port = cluster.and_then(|(_, port)| port.parse::<u16>().ok()?.checked_sub(1433));
        let differs = [
            (
                "--nodes",
                options.nodes.is_some_and(|nodes| nodes != self.nodes.len() as u64),
            ),
            (
                "--users",
                options.users.is_some_and(|users| users != self.accounts.len() as u64),
            ),
            (
                "--domain",
                options.domain.is_some() && options.domain.as_deref() != domain.map(|(_, domain)| domain),
            ),
            (
                "--password",
                options.password.is_some() && options.password.as_ref() != first.map(|account| &account.password),
            ),
            (
                "--base-port",
                options.base_port.is_some() && options.base_port != base_port,
            ),
        ];
        differs
            .into_iter()
            .filter_map(|(name, differs)| differs.then_some(name))
            .collect()
    }

    /// `None` when there is no quickstart in the directory.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = dir.join(SUMMARY);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| at(&path, &error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path, &error)),
        }
    }

    /// Writes it whole: who reads it sees the old one or the new one. It holds passwords: nobody else may read it.
    pub(crate) fn save(&self, dir: &Path) -> Result<(), Failure> {
        let path = dir.join(SUMMARY);
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| at(&path, &error))?;
        let temporary = dir.join(SUMMARY_NEW);
        write_private(&temporary, &bytes)?;
        fs::rename(&temporary, &path).map_err(|error| at(&path, &error))
    }
}

impl Plan {
    /// Checks what was asked for, before anything is made.
    ///
    /// # Errors
    /// [`Exit::Usage`].
    pub(crate) fn of(options: &Quickstart, random_password: impl FnOnce() -> String) -> Result<Self, Failure> {
        let plan = Self {
            nodes: options.nodes.unwrap_or(NODES),
            users: options.users.unwrap_or(USERS),
            domain: options.domain.clone().unwrap_or_else(|| DOMAIN.to_owned()),
            password: options.password.clone().unwrap_or_else(random_password),
            base_port: options.base_port.unwrap_or(BASE_PORT),
        };
        let usage = |message: String| Err(Failure::new(Exit::Usage, message));
        if !Domain::parse(&plan.domain).is_ok_and(|domain| !domain.is_literal()) {
            return usage(format!("--domain: {:?} is not a domain name", plan.domain));
        }
        if plan.password.is_empty() {
            return usage("--password: it must not be empty".to_owned());
        }
        let highest = u64::from(plan.base_port) + 1000 * plan.nodes + u64::from(HIGHEST_PORT);
        if highest > u64::from(u16::MAX) {
            return usage(format!(
                "--base-port is too high: node {} would need port {highest}",
                plan.nodes
            ));
        }
        Ok(plan)
    }
}

impl Traces {
    /// Looks at the directory before anything is made in it.
    ///
    /// # Errors
    /// [`Exit::Exists`] when there is something already.
    pub(crate) fn before(dir: &Path, nodes: u64) -> Result<Self, Failure> {
        if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Failure::new(
                Exit::Exists,
                format!(
                    "{} is not empty and holds no finished quickstart: remove it, or choose another directory with --dir",
                    dir.display()
                ),
            ));
        }
        Ok(Self {
            dir: dir.to_owned(),
            dir_is_new: !dir.exists(),
            nodes,
        })
    }

    /// Removes what [`Layout::create`] and the nodes have made, and nothing else.
    pub(crate) fn remove(&self) {
        // What is not there needs no removing; what cannot be removed is named by the next start.
        for node in 1..=self.nodes {
            let _ = fs::remove_dir_all(self.dir.join(format!("node-{node}")));
            let _ = fs::remove_file(config_path(&self.dir, node));
            let _ = fs::remove_file(log_path(&self.dir, node));
        }
        let _ = fs::remove_dir_all(self.dir.join("tls"));
        for name in [SUMMARY, SUMMARY_NEW] {
            let _ = fs::remove_file(self.dir.join(name));
        }
        if self.dir_is_new {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

impl Layout {
    /// Makes the directory with the nodes' configurations and the certificate that all nodes show.
    pub(crate) fn create(dir: &Path, plan: &Plan) -> Result<Self, Failure> {
        let made = |path: &Path| {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|error| at(path, &error))
        };
        made(dir)?;
        let dir = fs::canonicalize(dir).map_err(|error| at(dir, &error))?;
        made(&dir.join("tls"))?;
        let (authority, certificate, key) =
            private_authority("localhost").map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        for (name, text) in [("ca.pem", authority), ("mail.pem", certificate), ("mail.key", key)] {
            write_private(&dir.join("tls").join(name), text.as_bytes())?;
        }
        let this = Self {
            dir,
            base_port: plan.base_port,
            password: plan.password.clone(),
        };
        for node in 1..=plan.nodes {
            let text =
                toml::to_string(&this.config(node)?).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
            write_private(&this.config_path(node), text.as_bytes())?;
        }
        Ok(this)
    }

    /// Of a quickstart that is there.
    pub(crate) fn of(dir: &Path, summary: &Summary) -> Self {
        let password = summary
            .accounts
            .first()
            .map(|account| account.password.clone())
            .unwrap_or_default();
        Self {
            dir: fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()),
            base_port: 0,
            password,
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    pub(crate) fn config_path(&self, node: u64) -> PathBuf {
        config_path(&self.dir, node)
    }

    pub(crate) fn log_path(&self, node: u64) -> PathBuf {
        log_path(&self.dir, node)
    }

    pub(crate) fn authority_path(&self) -> String {
        self.dir.join("tls").join("ca.pem").display().to_string()
    }

    /// The admin socket of a node.
    pub(crate) fn client(&self, node: u64) -> Client {
        Client::of_node(&self.dir.join(format!("node-{node}")))
    }

    /// The node's line of `quickstart.json`.
    pub(crate) fn entry(&self, node: u64, pid: u32) -> NodeEntry {
        let text = |port: u16| {
            self.address(node, port)
                .map_or_else(|_| String::new(), |address| address.to_string())
        };
        NodeEntry {
            id: node,
            pid,
            dir: self.dir.join(format!("node-{node}")).display().to_string(),
            smtp: text(25),
            submission: text(587),
            submissions: text(465),
            lmtp: text(24),
            imap: text(143),
            imaps: text(993),
            pop3: text(110),
            pop3s: text(995),
            metrics: text(80),
            cluster: text(433),
        }
    }

    fn config(&self, node: u64) -> Result<Config, Failure> {
        let at = |port: u16| self.address(node, port).map(Some);
        Ok(Config {
            data_dir: self.dir.join(format!("node-{node}")),
            hostname: "localhost".to_owned(),
            roles: vec![Role::Store, Role::Front],
            listen: Listen {
                cluster: at(433)?,
                cluster_advertised: None,
                smtp: at(25)?,
                submission: at(587)?,
                submissions: at(465)?,
                lmtp: at(24)?,
                imap: at(143)?,
                imaps: at(993)?,
                pop3: at(110)?,
                pop3s: at(995)?,
                metrics: at(80)?,
            },
            tls: Some(TlsFiles {
                certificate: self.dir.join("tls").join("mail.pem"),
                key: self.dir.join("tls").join("mail.key"),
            }),
            plain_login: PlainLogin::Loopback,
            log: Log::default(),
            index_cache_mib: 64,
            password: PasswordHash::default(),
        })
    }

    fn address(&self, node: u64, port: u16) -> Result<SocketAddr, Failure> {
        let sum = u64::from(self.base_port) + 1000 * node + u64::from(port);
        let port = u16::try_from(sum).map_err(|_| {
            Failure::new(
                Exit::Usage,
                format!("--base-port is too high: node {node} would need port {sum}"),
            )
        })?;
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }
}

pub(crate) fn config_path(dir: &Path, node: u64) -> PathBuf {
    dir.join(format!("node-{node}.toml"))
}

pub(crate) fn log_path(dir: &Path, node: u64) -> PathBuf {
    dir.join(format!("node-{node}.log"))
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write;
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(|error| at(path, &error))
}

fn at(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, format!("{}: {error}", path.display()))
}

const SUMMARY: &str = "quickstart.json";
const SUMMARY_NEW: &str = "quickstart.json.new";
/// What a quickstart is where nothing is said; `everpost quickstart --help` names the same.
const NODES: u64 = 3;
const USERS: u64 = 2;
const DOMAIN: &str = "example.test";
const BASE_PORT: u16 = 10_000;
/// The highest port that is added to a node's thousand (POP3S).
const HIGHEST_PORT: u16 = 995;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_k_listens_where_the_documentation_says() {
        let layout = Layout {
            dir: "/q".into(),
            base_port: 10_000,
            password: String::new(),
        };
        let entry = layout.entry(2, 7);
        assert_eq!(
            (entry.imap.as_str(), entry.cluster.as_str()),
            ("127.0.0.1:12143", "127.0.0.1:12433")
        );
        assert!(
            Layout {
                dir: "/q".into(),
                base_port: 65_000,
                password: String::new()
            }
            .config(1)
            .is_err()
        );
    }

    #[test]
    fn a_plan_is_refused_before_anything_is_made() {
        let options = |domain: Option<&str>, base_port: Option<u16>| Quickstart {
            command: None,
            nodes: None,
            users: None,
            domain: domain.map(str::to_owned),
            password: None,
            base_port,
            detach: false,
        };
        let plan = |domain, base_port| Plan::of(&options(domain, base_port), || "x".to_owned());
        assert!(plan(None, None).is_ok());
        assert!(plan(None, Some(65_535 - 3_995)).is_ok());
        assert!(plan(None, Some(65_535 - 3_994)).is_err());
        assert!(plan(Some("not a domain"), None).is_err());
        assert!(plan(Some("[127.0.0.1]"), None).is_err());
    }
}
