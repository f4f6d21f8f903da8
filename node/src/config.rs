//! A node's own configuration: one small TOML file, every value also as an environment variable `EVERPOST_...`.
//!
//! What is not the node's own (domains, accounts, policies) is in the directory group and never here. A wrong key or
//! value names the file, the line and what is allowed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use directory::PasswordCost;
use serde::{Deserialize, Serialize};

/// Everything that is this node's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the node keeps everything.
    pub data_dir: PathBuf,
    /// The name that the node says of itself to mail programs and servers (EHLO, greetings, Received).
    #[serde(default = "default_hostname")]
    pub hostname: String,
    /// What the node does: `store` (keeps replicas), `front` (serves mail programs). Both where nothing is said.
    #[serde(default = "default_roles")]
    pub roles: Vec<Role>,
    /// The sockets.
    pub listen: Listen,
    /// Certificate and key for mail programs; without them the node makes a self-signed certificate.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// Where logging in without TLS is offered.
    #[serde(default)]
    pub plain_login: PlainLogin,
    /// What the log says.
    #[serde(default)]
    pub log: Log,
    /// The index engine's cache in MiB.
    #[serde(default = "default_cache_mib")]
    pub index_cache_mib: u64,
    /// What hashing a password costs.
    #[serde(default)]
    pub password: PasswordHash,
}

/// What hashing a password (argon2id) costs. Hashes that exist keep the cost that they were made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PasswordHash {
    /// Memory in KiB, 8 to 1,048,576.
    pub memory_kib: u32,
    /// Passes over it, 1 to 64.
    pub passes: u32,
}

impl Default for PasswordHash {
    fn default() -> Self {
        let PasswordCost { memory_kib, passes } = PasswordCost::default();
        Self { memory_kib, passes }
    }
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It keeps replicas.
    Store,
    /// It serves mail programs.
    Front,
}

/// The sockets that a node listens on. What is not named is not bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// UDP, for the other nodes.
    pub cluster: Option<SocketAddr>,
    /// How the other nodes reach `cluster`, `host:port`, when it is another address.
    pub cluster_advertised: Option<String>,
    /// SMTP from the world, port 25.
    pub smtp: Option<SocketAddr>,
    /// Submission with STARTTLS, port 587.
    pub submission: Option<SocketAddr>,
    /// Submission with TLS, port 465.
    pub submissions: Option<SocketAddr>,
    /// LMTP, port 24.
    pub lmtp: Option<SocketAddr>,
    /// IMAP with STARTTLS, port 143.
    pub imap: Option<SocketAddr>,
    /// IMAP with TLS, port 993.
    pub imaps: Option<SocketAddr>,
    /// POP3 with STLS, port 110.
    pub pop3: Option<SocketAddr>,
    /// POP3 with TLS, port 995.
    pub pop3s: Option<SocketAddr>,
    /// Metrics and health over HTTP.
    pub metrics: Option<SocketAddr>,
}

/// A certificate chain and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The chain, the node's certificate first.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// Where logging in without TLS is offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlainLogin {
    /// To clients on this machine only.
    #[default]
    Loopback,
    /// To nobody.
    Never,
    /// To everybody. Passwords cross the network in clear.
    Always,
}

/// What the log says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A filter as `tracing` reads it: `info`, or `info,smtp=debug`.
    pub filter: String,
    /// One JSON object a line, in place of text.
    pub json: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: "info,openraft=error".to_owned(),
            json: false,
        }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A key or value is wrong; the text names line, column and what is allowed.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// An environment variable is wrong.
    #[error("environment variable {variable}: {message}")]
    Environment {
        /// Its name.
        variable: String,
        /// What is wrong.
        message: String,
    },
}

impl Config {
    /// Reads a file and lays the environment variables over it.
    ///
    /// # Errors
    /// [`ConfigError`], which says where the mistake is.
    pub fn load(path: &Path, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
            path: path.to_owned(),
            error,
        })?;
        Self::parse(&text, path, environment)
    }

    /// The same with the file's text at hand; `path` is for messages.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(
        text: &str,
        path: &Path,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let at = |message: String| ConfigError::Parse {
            path: path.to_owned(),
            message,
        };
        let variables: BTreeMap<String, String> = environment
            .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
            .collect();
        if variables.is_empty() {
            // The common case keeps the file's own line numbers in the message.
            let config: Self = toml::from_str(text).map_err(|error| at(error.to_string()))?;
            return config.checked(path);
        }
        let mut table: toml::Table = toml::from_str(text).map_err(|error| at(error.to_string()))?;
        for (variable, value) in &variables {
            overlay(&mut table, variable, value)?;
        }
        // Checked apart, so that a mistake in the file is reported as one of the file.
        if let Err(error) = toml::from_str::<Self>(text)
            && !error.message().starts_with("missing field")
        {
            return Err(at(error.to_string()));
        }
        let config: Self =
            toml::Value::Table(table)
                .try_into()
                .map_err(|error: toml::de::Error| ConfigError::Environment {
                    variable: variables.keys().cloned().collect::<Vec<_>>().join(", "),
                    message: error.to_string(),
                })?;
        config.checked(path)
    }

    /// Refuses values that are well formed and still of no use.
    fn checked(self, path: &Path) -> Result<Self, ConfigError> {
        let PasswordHash { memory_kib, passes } = self.password;
        let wrong = if !self.has_role(Role::Store) {
            "roles: a node without replicas is not built yet: name `store`, as in [\"store\"] or [\"store\", \"front\"]"
        } else if !MEMORY_KIB.contains(&memory_kib) {
            "password.memory_kib: 8 to 1048576 are allowed"
        } else if !PASSES.contains(&passes) {
            "password.passes: 1 to 64 are allowed"
        } else {
            return Ok(self);
        };
        Err(ConfigError::Parse {
            path: path.to_owned(),
            message: wrong.to_owned(),
        })
    }

    /// Whether the node does this.
    #[must_use]
    pub fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// Sets one value of the table from `EVERPOST_LISTEN__IMAP=...`: two underscores between section and key.
fn overlay(table: &mut toml::Table, variable: &str, value: &str) -> Result<(), ConfigError> {
    let wrong = |message: &str| ConfigError::Environment {
        variable: variable.to_owned(),
        message: message.to_owned(),
    };
    let name = variable
        .strip_prefix(ENVIRONMENT_PREFIX)
        .unwrap_or_default()
        .to_lowercase();
    let value = parse_value(value);
    match name.split_once("__") {
        None => {
            table.insert(name, value);
        }
        Some((section, key)) => {
            let section = table
                .entry(section)
                .or_insert_with(|| toml::Value::Table(toml::Table::new()));
            let section = section
                .as_table_mut()
                .ok_or_else(|| wrong("it names a value, not a section"))?;
            section.insert(key.to_owned(), value);
        }
    }
    Ok(())
}

/// A number, a truth value or a list where the text is one in TOML; else the text itself.
fn parse_value(text: &str) -> toml::Value {
    let parsed = toml::from_str::<toml::Table>(&format!("value = {text}")).ok();
    match parsed.and_then(|mut table| table.remove("value")) {
        Some(value @ (toml::Value::Integer(_) | toml::Value::Boolean(_) | toml::Value::Array(_))) => value,
        _ => toml::Value::String(text.to_owned()),
    }
}

const ENVIRONMENT_PREFIX: &str = "EVERPOST_";
/// argon2 needs 8 KiB; more than a gibibyte for each login is a mistake.
const MEMORY_KIB: RangeInclusive<u32> = 8..=1024 * 1024;
const PASSES: RangeInclusive<u32> = 1..=64;

fn default_hostname() -> String {
    "localhost".to_owned()
}

fn default_roles() -> Vec<Role> {
    vec![Role::Store, Role::Front]
}

fn default_cache_mib() -> u64 {
    64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::parse(text, Path::new("everpost.toml"), environment)
    }

    const SMALL: &str = "data_dir = \"/srv/mail\"\n[listen]\nimap = \"127.0.0.1:143\"\n";

    #[test]
    fn a_small_file_is_enough() {
        let config = parse(SMALL, &[]).unwrap();
        assert_eq!(config.listen.imap, Some("127.0.0.1:143".parse().unwrap()));
        assert_eq!((config.listen.smtp, config.plain_login), (None, PlainLogin::Loopback));
        assert!(config.has_role(Role::Store) && config.has_role(Role::Front));
        assert_eq!(
            toml::from_str::<Config>(&toml::to_string(&config).unwrap()).unwrap(),
            config
        );
    }

    #[test]
    fn mistakes_name_the_line_and_what_is_allowed() {
        let error = parse("data_dir = \"/x\"\nroles = [\"stor\"]\n[listen]\n", &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("line 2") && error.contains("`store`") && error.contains("everpost.toml"),
            "{error}"
        );
        let error = parse("data_dir = \"/x\"\n[listen]\nimapp = \"1\"\n", &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("line 3") && error.contains("imapp") && error.contains("`imaps`"),
            "{error}"
        );
        let error = parse("data_dir = \"/x\"\n[listen]\nimap = \"nonsense\"\n", &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 3"), "{error}");
        assert!(parse("[listen]\n", &[]).unwrap_err().to_string().contains("data_dir"));
    }

    #[test]
    fn a_value_of_no_use_is_refused() {
        for (line, key) in [
            ("roles = []", "roles"),
            ("roles = [\"front\"]", "roles"),
            ("password = { memory_kib = 7 }", "memory_kib"),
            ("password = { passes = 0 }", "passes"),
        ] {
            let error = parse(&format!("{line}\n{SMALL}"), &[]).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("everpost.toml"), "{error}");
            assert!(parse(SMALL, &[("EVERPOST_ROLES", "[\"front\"]")]).is_err());
        }
        let config = parse(&format!("password = {{ passes = 3 }}\n{SMALL}"), &[]).unwrap();
        assert_eq!((config.password.memory_kib, config.password.passes), (19 * 1024, 3));
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let environment = [
            ("EVERPOST_LISTEN__IMAP", "127.0.0.1:10143"),
            ("EVERPOST_HOSTNAME", "mx.example.org"),
            ("EVERPOST_INDEX_CACHE_MIB", "128"),
            ("EVERPOST_ROLES", "[\"store\"]"),
            ("OTHER", "x"),
        ];
        let config = parse(SMALL, &environment).unwrap();
        assert_eq!(config.listen.imap, Some("127.0.0.1:10143".parse().unwrap()));
        assert_eq!(
            (config.hostname.as_str(), config.index_cache_mib),
            ("mx.example.org", 128)
        );
        assert!(!config.has_role(Role::Front));
        let error = parse(SMALL, &[("EVERPOST_PLAIN_LOGIN", "sometimes")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("EVERPOST_PLAIN_LOGIN") && error.contains("`loopback`"),
            "{error}"
        );
    }
}
