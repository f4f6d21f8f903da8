//! The directory of a quickstart: what is in it, and on which ports its nodes listen.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ctl::cli::Quickstart;
use ctl::client::Client;
use ctl::{Exit, Failure};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Listen, Log, PlainLogin, Role, TlsFiles};
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

/// Where things are.
pub(crate) struct Layout {
    dir: PathBuf,
    base_port: u16,
    password: String,
}

impl Summary {
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
        let temporary = dir.join("quickstart.json.new");
        write_private(&temporary, &bytes)?;
        fs::rename(&temporary, &path).map_err(|error| at(&path, &error))
    }
}

impl Layout {
    /// Makes the directory with the nodes' configurations and the certificate that all nodes show.
    pub(crate) fn create(dir: &Path, options: &Quickstart) -> Result<Self, Failure> {
        if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Failure::new(
                Exit::Exists,
                format!(
                    "{} is not empty and holds no finished quickstart: remove it, or choose another directory with --dir",
                    dir.display()
                ),
            ));
        }
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
            base_port: options.base_port,
            password: options.password.clone().unwrap_or_default(),
        };
        for node in 1..=options.nodes {
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
}
