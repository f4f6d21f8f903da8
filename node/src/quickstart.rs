//! `everpost quickstart`: a whole site on this machine, each node a process of its own.
//!
//! It goes the way that an administrator goes: `cluster init`, `node add`, `node join`, `domain add`, `account add`. What it
//! has made stands in `quickstart.json`, which is written when all nodes serve mail.
//!
//! Not here: anything that a node could not do without it.

mod layout;
mod process;
mod ready;

use std::path::Path;
use std::time::Duration;

use admin::api;
use core_types::Entropy;
use ctl::cli::{Quickstart, QuickstartCommand};
use ctl::client::Client;
use ctl::{Exit, Failure, output};
use hyper::Method;
use platform::SystemEntropy;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::layout::{Layout, NodeEntry, Plan, Summary, Traces, UserEntry};
use crate::commands;

/// Carries out `quickstart` and its verbs.
///
/// # Errors
/// [`Failure`].
pub async fn run(dir: &Path, options: Quickstart, json: bool) -> Result<(), Failure> {
    match options.command {
        Some(QuickstartCommand::Stop) => stop(dir).await,
        Some(QuickstartCommand::Start { node }) => start_one(dir, node).await,
        None => begin(dir, options, json).await,
    }
}

async fn begin(dir: &Path, options: Quickstart, json: bool) -> Result<(), Failure> {
    let mut interrupts = Interrupts::install()?;
    let mut children = process::Children::default();
    let existing = Summary::load(dir)?;
    let started = match &existing {
        Some(summary) => {
            say_ignored(dir, summary, &options);
            interrupts.or(start_existing(dir, summary.clone(), &mut children)).await
        }
        None => begin_new(dir, &options, &mut children, &mut interrupts).await,
    };
    let summary = match started {
        Ok(summary) => summary,
        Err(failure) => {
            // What this run started goes with it: nobody else would know the processes.
            if existing.is_some() {
                stop_started(dir, &mut children).await?;
            }
            return Err(failure);
        }
    };
    if json {
        output::json(&summary)?;
    } else {
        print_table(dir, &summary, options.detach);
    }
    if options.detach {
        return Ok(());
    }
    wait_for_interrupt(dir, &mut interrupts, &mut children).await;
    output::note("stopping");
    // Nodes may have been started again by `quickstart start` since.
    stop_nodes(dir, Summary::load(dir)?.unwrap_or(summary)).await
}

fn say_ignored(dir: &Path, summary: &Summary, options: &Quickstart) {
    let ignored = summary.ignored(options);
    if !ignored.is_empty() {
        output::note(&format!(
            "{} ignored: there is a quickstart in {} already, and it stays as it is; choose another directory with --dir",
            ignored.join(", "),
            dir.display()
        ));
    }
}

/// Makes everything anew. When that fails, nothing stays behind.
async fn begin_new(
    dir: &Path,
    options: &Quickstart,
    children: &mut process::Children,
    interrupts: &mut Interrupts,
) -> Result<Summary, Failure> {
    let plan = Plan::of(options, random_password)?;
    let traces = Traces::before(dir, plan.nodes)?;
    let made = interrupts.or(make(dir, &plan, children)).await;
    if made.is_err() {
        children.stop(dir).await;
        traces.remove();
    }
    made
}

async fn make(dir: &Path, plan: &Plan, children: &mut process::Children) -> Result<Summary, Failure> {
    let layout = Layout::create(dir, plan)?;
    let summary = make_nodes(&layout, plan, children).await?;
    summary.save(dir)?;
    Ok(summary)
}

/// Stops the nodes that this run has started.
async fn stop_started(dir: &Path, children: &mut process::Children) -> Result<(), Failure> {
    children.stop(dir).await;
    let mut summary = existing(dir)?;
    for stopped in children.entries() {
        for entry in &mut summary.nodes {
            if entry.pid == stopped.pid {
                entry.pid = 0;
            }
        }
    }
    summary.save(dir)
}

async fn stop_nodes(dir: &Path, mut summary: Summary) -> Result<(), Failure> {
    process::stop_all(dir, &summary.nodes).await;
    for node in &mut summary.nodes {
        node.pid = 0;
    }
    summary.save(dir)
}

async fn make_nodes(layout: &Layout, plan: &Plan, children: &mut process::Children) -> Result<Summary, Failure> {
    for node in 1..=plan.nodes {
        let config = commands::load_config(&layout.config_path(node))?;
        if node == 1 {
            commands::cluster_init(&config, "node-1", "site-1", MAILBOX_GROUPS)?;
        } else {
            let token: api::JoinToken = layout
                .client(1)
                .request(
                    Method::POST,
                    "/v1/nodes",
                    Some(&api::NewNode {
                        name: format!("node-{node}"),
                    }),
                )
                .await?;
            commands::node_join(&config, &token.token).await?;
        }
        children.start(layout.dir(), node)?;
        ready::answers(layout, node, children).await?;
        output::note(&format!("node {node}: started (pid {})", children.pid(node)));
    }
    output::note("copying everything to every node");
    ready::all_serve(layout, plan.nodes, MAILBOX_GROUPS).await?;
    let client = layout.client(1);
    add_users(&client, plan).await?;
    let password = layout.password().to_owned();
    let user = |number| UserEntry {
        address: format!("user{number}@{}", plan.domain),
        password: password.clone(),
    };
    Ok(Summary {
        ca: layout.authority_path(),
        nodes: (1..=plan.nodes)
            .map(|node| layout.entry(node, children.pid(node)))
            .collect(),
        accounts: (1..=plan.users).map(user).collect(),
    })
}

async fn add_users(client: &Client, plan: &Plan) -> Result<(), Failure> {
    let domain = api::NewDomain {
        domain: plan.domain.clone(),
    };
    let () = client.request(Method::POST, "/v1/domains", Some(&domain)).await?;
    for number in 1..=plan.users {
        let address = format!("user{number}@{}", plan.domain);
        let account = api::NewAccount {
            address,
            password: plan.password.clone(),
            quota_bytes: None,
        };
        let () = client.request(Method::POST, "/v1/accounts", Some(&account)).await?;
        if number % USERS_SHOWN == 0 {
            output::note(&format!("{number} of {} users", plan.users));
        }
    }
    if plan.users > 0 {
        let postmaster = api::Alias {
            address: format!("postmaster@{}", plan.domain),
            targets: vec![format!("user1@{}", plan.domain)],
        };
        let () = client.request(Method::PUT, "/v1/aliases", Some(&postmaster)).await?;
    }
    Ok(())
}

/// Starts what is there and not running.
async fn start_existing(
    dir: &Path,
    mut summary: Summary,
    children: &mut process::Children,
) -> Result<Summary, Failure> {
    let layout = Layout::of(dir, &summary);
    for position in 0..summary.nodes.len() {
        let Some(entry) = summary.nodes.get_mut(position) else {
            break;
        };
        if process::runs(dir, entry) {
            continue;
        }
        children.start(dir, entry.id)?;
        entry.pid = children.pid(entry.id);
        output::note(&format!("node {}: started (pid {})", entry.id, entry.pid));
        summary.save(dir)?;
    }
    for entry in &summary.nodes {
        ready::answers(&layout, entry.id, children).await?;
    }
    ready::all_serve(&layout, summary.nodes.len() as u64, MAILBOX_GROUPS).await?;
    Ok(summary)
}

async fn start_one(dir: &Path, node: u64) -> Result<(), Failure> {
    let mut summary = existing(dir)?;
    let layout = Layout::of(dir, &summary);
    let entry = summary
        .nodes
        .iter_mut()
        .find(|entry| entry.id == node)
        .ok_or_else(|| Failure::new(Exit::NoSuchObject, format!("this quickstart has no node {node}")))?;
    if process::runs(dir, entry) {
        return Err(Failure::new(
            Exit::Exists,
            format!("node {node} runs already (pid {})", entry.pid),
        ));
    }
    let mut children = process::Children::default();
    children.start(dir, node)?;
    entry.pid = children.pid(node);
    let pid = entry.pid;
    summary.save(dir)?;
    ready::answers(&layout, node, &mut children).await?;
    output::line(&format!("node {node}: started (pid {pid})"));
    Ok(())
}

async fn stop(dir: &Path) -> Result<(), Failure> {
    stop_nodes(dir, existing(dir)?).await?;
    output::line("all nodes are stopped");
    Ok(())
}

fn existing(dir: &Path) -> Result<Summary, Failure> {
    Summary::load(dir)?.ok_or_else(|| {
        Failure::new(
            Exit::NoSuchObject,
            format!("there is no quickstart in {}: name it with --dir", dir.display()),
        )
    })
}

/// The signals that end a quickstart in the foreground.
struct Interrupts {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Interrupts {
    fn install() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| Failure::new(Exit::Failed, error.to_string()));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// What `work` gives, or a failure when a signal comes first.
    async fn or<T>(&mut self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.received() => Err(Failure::new(Exit::Failed, "interrupted: the nodes that were started are stopped")),
            result = work => result,
        }
    }
}

async fn wait_for_interrupt(dir: &Path, interrupts: &mut Interrupts, children: &mut process::Children) {
    loop {
        tokio::select! {
            biased;
            () = interrupts.received() => return,
            () = tokio::time::sleep(CHILDREN_LOOK) => {
                for (node, status) in children.ended() {
                    let dir = dir.display();
                    output::note(&format!(
                        "node {node} ended ({status}); its log is {dir}/node-{node}.log; start it again with `everpost quickstart start --node {node} --dir {dir}`"
                    ));
                }
            }
        }
    }
}

fn print_table(dir: &Path, summary: &Summary, detach: bool) {
    output::line("");
    let row = |node: &NodeEntry| {
        let port = |address: &str| address.rsplit_once(':').map_or("", |(_, port)| port).to_owned();
        vec![
            node.id.to_string(),
            port(&node.imap),
            port(&node.imaps),
            port(&node.pop3),
            port(&node.pop3s),
            port(&node.submission),
            port(&node.submissions),
            port(&node.smtp),
            port(&node.lmtp),
        ]
    };
    let headings = [
        "NODE",
        "IMAP",
        "IMAPS",
        "POP3",
        "POP3S",
        "SUBMISSION",
        "SUBMISSIONS",
        "SMTP",
        "LMTP",
    ];
    output::table(
        &headings,
        &summary.nodes.iter().map(row).collect::<Vec<_>>(),
        "no nodes",
    );
    output::line("");
    output::line("Server 127.0.0.1, any node; certificates are signed by");
    output::line(&format!("  {}", summary.ca));
    let shown: Vec<_> = summary.accounts.iter().take(ACCOUNTS_SHOWN).collect();
    for account in &shown {
        output::line(&format!("User {}  password {}", account.address, account.password));
    }
    if summary.accounts.len() > shown.len() {
        output::line(&format!(
            "... and {} more, in quickstart.json",
            summary.accounts.len() - shown.len()
        ));
    }
    output::line("");
    let dir = dir.display();
    output::line(&format!("How it is:     everpost status --dir {dir}"));
    if detach {
        output::line(&format!("End it:        everpost quickstart stop --dir {dir}"));
    } else {
        output::line("End it with Ctrl-C; run the same command to start it again.");
    }
}

/// A password that is easy to copy: no letter that looks like another.
fn random_password() -> String {
    let entropy: &dyn Entropy = &SystemEntropy;
    let letters = b"abcdefghjkmnpqrstuvwxyz23456789";
    let bytes: [u8; 16] = entropy.bytes();
    bytes
        .iter()
        .filter_map(|byte| letters.get(usize::from(*byte) % letters.len()))
        .map(|letter| char::from(*letter))
        .collect()
}

/// Mailbox groups of a quickstart's site.
const MAILBOX_GROUPS: u32 = 4;
/// After so many users a line says how far it is.
const USERS_SHOWN: u64 = 25;
/// Accounts that the table shows.
const ACCOUNTS_SHOWN: usize = 5;
/// Between two looks at the nodes' processes.
const CHILDREN_LOOK: Duration = Duration::from_millis(500);
