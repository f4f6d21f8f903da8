//! Commands that ask a node.

mod nodes;

use std::io::{BufRead, IsTerminal, Write};

use admin::api;
use hyper::Method;

use crate::cli::{Account, Alias, Cli, Cluster, Command, Domain, Local, Node, Password, Queue, Recover};
use crate::client::Client;
use crate::output::{self, octets};
use crate::{Exit, Failure};

pub(crate) async fn run(cli: Cli) -> Result<Option<Local>, Failure> {
    let Cli { json, dir, command } = cli;
    let local = match command {
        Command::Quickstart(options) => Local::Quickstart { dir, options, json },
        Command::Run { config } => Local::Run { config },
        Command::Cluster(Cluster::Init {
            config,
            name,
            site,
            mailbox_groups,
        }) => Local::ClusterInit {
            config,
            name,
            site,
            mailbox_groups,
        },
        Command::Node(Node::Join { token, config }) => Local::NodeJoin { token, config },
        Command::Recover(Recover::Mail { from_blobs, to }) => Local::RecoverMail { from_blobs, to },
        command => {
            let ask = Ask {
                client: Client::find(&dir).await?,
                json,
            };
            ask.carry_out(command).await?;
            return Ok(None);
        }
    };
    Ok(Some(local))
}

/// What can be removed by its name.
trait Removable: serde::de::DeserializeOwned + serde::Serialize {
    /// What people call it.
    const KIND: &'static str;
    /// Where all of them are listed; each is below it, under its name.
    const PATH: &'static str;

    /// Without regard to case, this is what it is found by; to confirm, it has to be typed as it is.
    fn name(&self) -> &str;

    /// What will happen, for people.
    fn plan(&self) -> String;
}

impl Removable for api::Domain {
    const KIND: &'static str = "domain";
    const PATH: &'static str = "/v1/domains";

    fn name(&self) -> &str {
        &self.domain
    }

    fn plan(&self) -> String {
        let domain = &self.domain;
        match self.addresses {
            0 => format!("domain {domain} will be removed; mail to it is refused from then on"),
            count => format!(
                "domain {domain} has {count} accounts and aliases: its removal is refused until they are removed"
            ),
        }
    }
}

impl Removable for api::Account {
    const KIND: &'static str = "account";
    const PATH: &'static str = "/v1/accounts";

    fn name(&self) -> &str {
        &self.address
    }

    fn plan(&self) -> String {
        format!(
            "account {} with {} messages ({}) will be removed; its messages are kept for 30 days before they are deleted",
            self.address,
            self.messages,
            octets(self.used_bytes)
        )
    }
}

impl Removable for api::Alias {
    const KIND: &'static str = "alias";
    const PATH: &'static str = "/v1/aliases";

    fn name(&self) -> &str {
        &self.address
    }

    fn plan(&self) -> String {
        let targets = self.targets.join(", ");
        format!(
            "alias {} will be removed; its mail no longer goes to {targets}",
            self.address
        )
    }
}

struct Ask {
    client: Client,
    json: bool,
}

impl Ask {
    async fn carry_out(&self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Status => self.status().await,
            Command::Node(Node::Add { name }) => self.add_node(name).await,
            Command::Node(Node::List) => self.nodes().await,
            Command::Node(Node::Drain {
                node,
                undo,
                to,
                force,
                no_wait,
                consent,
            }) => self.drain(node, undo, to, force, no_wait, consent).await,
            Command::Node(Node::Replace {
                node,
                with,
                name,
                force,
                consent,
            }) => self.replace(node, with, name, force, consent).await,
            Command::Node(Node::Remove { node, force, consent }) => self.remove_node(node, force, consent).await,
            Command::Group(command) => self.group(command).await,
            Command::Setting(command) => self.setting(command).await,
            Command::Check => self.check().await,
            Command::Domain(command) => self.domain(command).await,
            Command::Account(command) => self.account(command).await,
            Command::Alias(command) => self.alias(command).await,
            Command::Queue(Queue::List) => self.queue().await,
            // The others were handed on before a node was looked for.
            _ => Err(Failure::new(Exit::Usage, "this command does not ask a node")),
        }
    }

    async fn status(&self) -> Result<(), Failure> {
        let status: api::Status = self.client.get("/v1/status").await?;
        if self.json {
            return output::json(&status);
        }
        output::line(&format!(
            "everpost {}: {} (node {}, cluster {})",
            status.version,
            word(status.health),
            status.node,
            status.cluster.get(..8).unwrap_or(&status.cluster)
        ));
        for check in &status.checks {
            output::line(&format!(
                "  {} {}: {} {}",
                word(check.severity),
                check.code,
                check.message,
                check.advice
            ));
        }
        output::line("");
        self.print_nodes(&status.nodes);
        output::line("");
        let group = |group: &api::GroupStatus| {
            vec![
                if group.group == 0 {
                    "directory".to_owned()
                } else {
                    group.group.to_string()
                },
                group.role.clone(),
                group.leader.map_or_else(|| "-".to_owned(), |leader| leader.to_string()),
                group.term.to_string(),
                group.applied.to_string(),
                numbers(&group.voters),
                group
                    .lag
                    .iter()
                    .map(|(node, lag)| format!("{node}:{lag}"))
                    .collect::<Vec<_>>()
                    .join(" "),
                group.digest.get(..8).unwrap_or_default().to_owned(),
            ]
        };
        output::table(
            &[
                "GROUP",
                "ROLE HERE",
                "LEADER",
                "TERM",
                "APPLIED",
                "VOTERS",
                "LAG",
                "DIGEST",
            ],
            &status.groups.iter().map(group).collect::<Vec<_>>(),
            "no groups",
        );
        output::line("");
        output::line(&format!(
            "blobs {} ({}), under-replicated {}, damaged {}, journal {}; queue {}; index {}; disk free {}",
            status.blobs.count,
            octets(status.blobs.bytes),
            status.blobs.under_replicated,
            status.blobs.corrupt,
            status.blobs.journal_backlog,
            status.queue,
            octets(status.disk.index_bytes),
            octets(status.disk.free_bytes),
        ));
        Ok(())
    }

    async fn nodes(&self) -> Result<(), Failure> {
        let status: api::Status = self.client.get("/v1/status").await?;
        if self.json {
            return output::json(&status.nodes);
        }
        self.print_nodes(&status.nodes);
        Ok(())
    }

    fn print_nodes(&self, nodes: &[api::NodeStatus]) {
        let node = |node: &api::NodeStatus| {
            let rtt = node
                .rtt_micros
                .map_or_else(String::new, |micros| format!("{:.1} ms", micros as f64 / 1000.0));
            vec![
                node.node.to_string(),
                node.name.clone(),
                node.site.clone(),
                node.address.clone(),
                node.state.clone(),
                node.duty.clone(),
                rtt,
            ]
        };
        output::table(
            &["NODE", "NAME", "SITE", "ADDRESS", "STATE", "DUTY", "RTT"],
            &nodes.iter().map(node).collect::<Vec<_>>(),
            "no nodes",
        );
    }

    async fn add_node(&self, name: String) -> Result<(), Failure> {
        let token: api::JoinToken = self
            .client
            .request(Method::POST, "/v1/nodes", Some(&api::NewNode { name }))
            .await?;
        if self.json {
            return output::json(&token);
        }
        output::note(&format!(
            "Good once, for {} minutes. On the new machine: everpost node join --config FILE --token ...",
            token.valid_seconds / 60
        ));
        output::line(&token.token);
        Ok(())
    }

    async fn domain(&self, command: Domain) -> Result<(), Failure> {
        match command {
            Domain::Add { domain } => {
                let request = api::NewDomain { domain };
                let done = format!("domain {} added", request.domain);
                self.change(Method::POST, "/v1/domains", Some(&request), &done).await?;
                // The domain is there: that the hint cannot be given is no failure.
                if let Ok(false) = self.has_postmaster(&request.domain).await {
                    output::note(&format!(
                        "mail to postmaster@{0} goes to nobody yet (RFC 5321 4.5.1 wants it read): everpost alias set postmaster@{0} SOMEBODY@{0}",
                        request.domain
                    ));
                }
                Ok(())
            }
            Domain::Remove { domain, dry_run, yes } => self.remove::<api::Domain>(&domain, dry_run, yes).await,
            Domain::List => {
                let domains: Vec<api::Domain> = self.client.get("/v1/domains").await?;
                if self.json {
                    return output::json(&domains);
                }
                let rows: Vec<_> = domains
                    .iter()
                    .map(|row| vec![row.domain.clone(), row.addresses.to_string()])
                    .collect();
                output::table(
                    &["DOMAIN", "ADDRESSES"],
                    &rows,
                    "no domains: add one with `everpost domain add`",
                );
                Ok(())
            }
        }
    }

    async fn account(&self, command: Account) -> Result<(), Failure> {
        match command {
            Account::Add {
                address,
                password,
                quota_bytes,
            } => {
                let password = read_password(password)?;
                let done = format!("account {address} added");
                let request = api::NewAccount {
                    address,
                    password,
                    quota_bytes,
                };
                self.change(Method::POST, "/v1/accounts", Some(&request), &done).await
            }
            Account::Passwd { address, password } => {
                let request = api::NewPassword {
                    password: read_password(password)?,
                };
                let path = format!("/v1/accounts/{}/password", escape(&address));
                self.change(
                    Method::PUT,
                    &path,
                    Some(&request),
                    &format!("password of {address} set"),
                )
                .await
            }
            Account::Remove { address, dry_run, yes } => self.remove::<api::Account>(&address, dry_run, yes).await,
            Account::List => {
                let accounts: Vec<api::Account> = self.client.get("/v1/accounts").await?;
                if self.json {
                    return output::json(&accounts);
                }
                let row = |row: &api::Account| {
                    vec![
                        row.address.clone(),
                        row.messages.to_string(),
                        octets(row.used_bytes),
                        row.quota_bytes.map_or_else(|| "-".to_owned(), octets),
                        row.group.to_string(),
                        row.state.clone(),
                    ]
                };
                let rows: Vec<_> = accounts.iter().map(row).collect();
                let empty = "no accounts: add one with `everpost account add`";
                output::table(
                    &["ADDRESS", "MESSAGES", "USED", "QUOTA", "GROUP", "STATE"],
                    &rows,
                    empty,
                );
                Ok(())
            }
        }
    }

    async fn has_postmaster(&self, domain: &str) -> Result<bool, Failure> {
        let postmaster = format!("postmaster@{domain}");
        let accounts: Vec<api::Account> = self.client.get("/v1/accounts").await?;
        let aliases: Vec<api::Alias> = self.client.get("/v1/aliases").await?;
        let mut addresses = accounts
            .iter()
            .map(|row| &row.address)
            .chain(aliases.iter().map(|row| &row.address));
        Ok(addresses.any(|address| address.eq_ignore_ascii_case(&postmaster)))
    }

    /// Shows what will go, asks, and removes it.
    async fn remove<T: Removable>(&self, name: &str, dry_run: bool, yes: bool) -> Result<(), Failure> {
        let rows: Vec<T> = self.client.get(T::PATH).await?;
        let row = rows
            .iter()
            .find(|row| row.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| Failure::new(Exit::NoSuchObject, format!("there is no {} {name}", T::KIND)))?;
        let (name, plan) = (row.name(), row.plan());
        if dry_run && self.json {
            return output::json(&serde_json::json!({ "would_remove": row, "plan": plan }));
        }
        output::note(&plan);
        if dry_run {
            return Ok(());
        }
        if !yes && !confirmed(&format!("Type {name} to go on: "), name)? {
            return Err(Failure::new(Exit::NotAllowed, "nothing was removed"));
        }
        let path = format!("{}/{}", T::PATH, escape(name));
        let done = format!("{} {name} removed", T::KIND);
        self.change(Method::DELETE, &path, None::<&()>, &done).await
    }

    async fn alias(&self, command: Alias) -> Result<(), Failure> {
        match command {
            Alias::Set { address, targets } => {
                let done = format!("alias {address} set");
                self.change(
                    Method::PUT,
                    "/v1/aliases",
                    Some(&api::Alias { address, targets }),
                    &done,
                )
                .await
            }
            Alias::Remove { address, dry_run, yes } => self.remove::<api::Alias>(&address, dry_run, yes).await,
            Alias::List => {
                let aliases: Vec<api::Alias> = self.client.get("/v1/aliases").await?;
                if self.json {
                    return output::json(&aliases);
                }
                let rows: Vec<_> = aliases
                    .iter()
                    .map(|row| vec![row.address.clone(), row.targets.join(", ")])
                    .collect();
                output::table(&["ALIAS", "TARGETS"], &rows, "no aliases");
                Ok(())
            }
        }
    }

    async fn queue(&self) -> Result<(), Failure> {
        let entries: Vec<api::QueueEntry> = self.client.get("/v1/queue").await?;
        if self.json {
            return output::json(&entries);
        }
        let row = |entry: &api::QueueEntry| {
            let recipients: Vec<_> = entry
                .recipients
                .iter()
                .map(|(address, state)| format!("{address} ({state})"))
                .collect();
            vec![
                entry.id.clone(),
                format!("<{}>", entry.from),
                recipients.join(", "),
                octets(entry.size),
                entry.attempts.to_string(),
                entry.held.clone().unwrap_or_default(),
            ]
        };
        let rows: Vec<_> = entries.iter().map(row).collect();
        output::table(
            &["ID", "FROM", "TO", "SIZE", "ATTEMPTS", "HELD"],
            &rows,
            "the queue is empty",
        );
        Ok(())
    }

    async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl serde::Serialize>,
        done: &str,
    ) -> Result<(), Failure> {
        let () = self.client.request(method, path, body).await?;
        if self.json {
            output::json(&serde_json::json!({ "done": true }))
        } else {
            output::line(done);
            Ok(())
        }
    }
}

fn word(health: api::Health) -> &'static str {
    match health {
        api::Health::Ok => "OK",
        api::Health::Warning => "WARNING",
        api::Health::Error => "ERROR",
    }
}

fn numbers(values: &[u64]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn read_password(password: Password) -> Result<String, Failure> {
    let unreadable = |what: &str, error: std::io::Error| Failure::new(Exit::Usage, format!("{what}: {error}"));
    let text = match (password.password, password.password_file) {
        (Some(password), _) => return Ok(password),
        (None, Some(path)) => {
            std::fs::read_to_string(&path).map_err(|error| unreadable(&path.display().to_string(), error))?
        }
        (None, None) => {
            if std::io::stdin().is_terminal() {
                prompt("Password (it is shown): ");
            }
            let mut line = String::new();
            std::io::stdin()
                .lock()
                .read_line(&mut line)
                .map_err(|error| unreadable("standard input", error))?;
            line
        }
    };
    let first = text.lines().next().unwrap_or_default();
    if first.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            "the password is empty: give it on standard input or with --password-file",
        ));
    }
    Ok(first.to_owned())
}

fn confirmed(question: &str, wanted: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "this needs --yes when no person is there to be asked",
        ));
    }
    prompt(question);
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    Ok(line.trim() == wanted)
}

fn prompt(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

/// Percent-encodes what a path may not hold (RFC 3986 3.3).
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'@' | b'+') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_holds_no_foreign_octet() {
        assert_eq!(escape("a+b@x.example"), "a+b@x.example");
        assert_eq!(escape("../é %"), "..%2F%C3%A9%20%25");
    }
}
