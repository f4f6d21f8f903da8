//! The grammar of the command line: `everpost NOUN VERB`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A replicated mail store: every node runs every service, every message is kept on three nodes.
#[derive(Debug, Parser)]
#[command(name = "everpost", version, about, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// Print JSON, in the documented shapes, in place of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// The data directory of the node to ask, or the directory of a quickstart.
    #[arg(long, global = true, env = "EVERPOST_DIR", default_value = "everpost-data")]
    pub dir: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage, 67 no such object, 69 cluster or majority not reachable, \
73 exists already or quota, 75 try again, 77 not allowed, 78 configuration.";

/// Everything that can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a whole site on this machine, ready for mail programs.
    Quickstart(Quickstart),
    /// Run one node, until it is told to stop (SIGTERM, SIGINT).
    Run {
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Show nodes, groups, copies, disk, and what is not as it should be.
    Status,
    /// Prove that all copies agree, or say which do not. Ends with 0 only if all copies were seen and agree.
    Check,
    /// Found a cluster.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Add, drain, replace and remove nodes.
    #[command(subcommand)]
    Node(Node),
    /// The groups: who votes in them, and where.
    #[command(subcommand)]
    Group(Group),
    /// Settings of the whole cluster.
    #[command(subcommand)]
    Setting(Setting),
    /// The domains whose mail is kept here.
    #[command(subcommand)]
    Domain(Domain),
    /// The accounts.
    #[command(subcommand)]
    Account(Account),
    /// Addresses whose mail goes to other addresses.
    #[command(subcommand)]
    Alias(Alias),
    /// Mail that waits.
    #[command(subcommand)]
    Queue(Queue),
    /// Get mail back when the cluster is gone.
    #[command(subcommand)]
    Recover(Recover),
}

/// `everpost quickstart`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Quickstart {
    /// What to do with an existing quickstart.
    #[command(subcommand)]
    pub command: Option<QuickstartCommand>,
    /// How many nodes; 3 where nothing is said.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub nodes: Option<u64>,
    /// How many users: user1@DOMAIN, user2@DOMAIN, ...; 2 where nothing is said.
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub users: Option<u64>,
    /// The domain; example.test where nothing is said.
    #[arg(long)]
    pub domain: Option<String>,
    /// The password of all users; a random one where none is given.
    #[arg(long)]
    pub password: Option<String>,
    /// Node K listens on this port plus 1000 times K plus the service's own port; 10000 where nothing is said.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1024..))]
    pub base_port: Option<u16>,
    /// Return when all nodes serve mail, and leave them running.
    #[arg(long)]
    pub detach: bool,
}

/// `everpost quickstart VERB`
#[derive(Debug, Subcommand)]
pub enum QuickstartCommand {
    /// End all nodes, in order.
    Stop,
    /// Start one node that is not running.
    Start {
        /// Which, from 1.
        #[arg(long)]
        node: u64,
    },
}

/// `everpost cluster VERB`
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Make the first node of a new cluster. Run it afterwards.
    Init {
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
        /// The node's name.
        #[arg(long, default_value = "node-1")]
        name: String,
        /// The site's name.
        #[arg(long, default_value = "site-1")]
        site: String,
        /// How many mailbox groups the site has. It cannot be changed later.
        #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
        mailbox_groups: u32,
    },
}

/// `everpost node VERB`
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Make a token with which one node may join; it is good for 15 minutes.
    Add {
        /// The name that the node will have.
        name: String,
    },
    /// Make this machine a node of a cluster. Run it afterwards.
    Join {
        /// What `everpost node add` printed.
        #[arg(long)]
        token: String,
        /// The node's configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// List the nodes.
    List,
    /// Let other nodes take over everything that depends on a node. It goes on serving mail programs.
    Drain {
        /// The node's number.
        node: u64,
        /// Take it back: the node is used again.
        #[arg(long, conflicts_with_all = ["to", "force"])]
        undo: bool,
        /// The node that takes its places; any where nothing is said.
        #[arg(long)]
        to: Option<u64>,
        /// Drain it although too few other nodes are there: there are fewer copies then.
        #[arg(long)]
        force: bool,
        /// Do not wait until it is done.
        #[arg(long)]
        no_wait: bool,
        /// How to go about it.
        #[command(flatten)]
        consent: Consent,
    },
    /// Have a new node take the place of another one, which may be dead, and remove that one.
    Replace {
        /// The number of the node that goes.
        node: u64,
        /// The number of the node that takes its place. Without it, a token is made with which a new node may join.
        #[arg(long)]
        with: Option<u64>,
        /// The name of the new node, where a token is made.
        #[arg(long, conflicts_with = "with")]
        name: Option<String>,
        /// Remove the old node although something may be lost.
        #[arg(long)]
        force: bool,
        /// How to go about it.
        #[command(flatten)]
        consent: Consent,
    },
    /// Remove a drained or dead node for good. Its number is never used again.
    Remove {
        /// The node's number.
        node: u64,
        /// Remove it although something may be lost.
        #[arg(long)]
        force: bool,
        /// How to go about it.
        #[command(flatten)]
        consent: Consent,
    },
}

/// How something is gone about that destroys.
#[derive(Clone, Copy, Debug, Args)]
pub struct Consent {
    /// Show what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// `everpost group VERB`
#[derive(Debug, Subcommand)]
pub enum Group {
    /// List the groups.
    List,
    /// Have a node vote in a group in place of another one. The group stays there until `unpin`.
    Move {
        /// The group's number.
        #[arg(long)]
        group: u32,
        /// The node that votes now.
        #[arg(long)]
        from: u64,
        /// The node that is to vote.
        #[arg(long)]
        to: u64,
        /// Do not wait until it is done.
        #[arg(long)]
        no_wait: bool,
    },
    /// Keep a group where it is while the others are spread evenly.
    Pin {
        /// The group's number.
        #[arg(long)]
        group: u32,
    },
    /// Let a group be moved again.
    Unpin {
        /// The group's number.
        #[arg(long)]
        group: u32,
    },
}

/// `everpost setting VERB`
#[derive(Debug, Subcommand)]
pub enum Setting {
    /// List the settings that differ from the defaults.
    List,
    /// Set one.
    Set {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Go back to the default.
    Clear {
        /// Its name.
        name: String,
    },
}

/// `everpost domain VERB`
#[derive(Debug, Subcommand)]
pub enum Domain {
    /// Keep the mail of a domain.
    Add {
        /// The domain.
        domain: String,
    },
    /// List the domains.
    List,
    /// Stop keeping a domain's mail. Refused while it has accounts or aliases.
    Remove {
        /// The domain.
        domain: String,
        /// Show what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// `everpost account VERB`
#[derive(Debug, Subcommand)]
pub enum Account {
    /// Add an account; its address is its login name.
    Add {
        /// The address.
        address: String,
        /// Where its password is.
        #[command(flatten)]
        password: Password,
        /// Octets it may keep.
        #[arg(long)]
        quota_bytes: Option<u64>,
    },
    /// List the accounts.
    List,
    /// Set an account's password.
    Passwd {
        /// The address.
        address: String,
        /// Where its password is.
        #[command(flatten)]
        password: Password,
    },
    /// Remove an account with all its mail.
    Remove {
        /// The address.
        address: String,
        /// Show what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Where a password comes from: standard input, where nothing is said.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct Password {
    /// The password. Other users of this machine can see it while the command runs.
    #[arg(long)]
    pub password: Option<String>,
    /// A file whose first line is the password.
    #[arg(long)]
    pub password_file: Option<PathBuf>,
}

/// `everpost alias VERB`
#[derive(Debug, Subcommand)]
pub enum Alias {
    /// Send an address's mail to other addresses; replaces what was set before.
    Set {
        /// The alias.
        address: String,
        /// Where its mail goes.
        #[arg(required = true)]
        targets: Vec<String>,
    },
    /// List the aliases.
    List,
    /// Remove an alias.
    Remove {
        /// The alias.
        address: String,
        /// Show what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// `everpost queue VERB`
#[derive(Debug, Subcommand)]
pub enum Queue {
    /// List the entries.
    List,
}

/// `everpost recover WHAT`
#[derive(Debug, Subcommand)]
pub enum Recover {
    /// Rebuild mailboxes as Maildir folders from the blobs and manifests of a stopped node.
    Mail {
        /// The node's data directory, with `blobs` and `manifest` in it.
        #[arg(long)]
        from_blobs: PathBuf,
        /// Where to write; it must not exist or be empty.
        #[arg(long)]
        to: PathBuf,
    },
}

/// Commands that the binary carries out itself.
#[derive(Debug)]
pub enum Local {
    /// `quickstart`
    Quickstart {
        /// The quickstart's directory.
        dir: PathBuf,
        /// What was asked for.
        options: Quickstart,
        /// Print JSON.
        json: bool,
    },
    /// `run`
    Run {
        /// The node's configuration.
        config: PathBuf,
    },
    /// `cluster init`
    ClusterInit {
        /// The node's configuration.
        config: PathBuf,
        /// The node's name.
        name: String,
        /// The site's name.
        site: String,
        /// How many mailbox groups the site has.
        mailbox_groups: u32,
    },
    /// `node join`
    NodeJoin {
        /// The token.
        token: String,
        /// The node's configuration.
        config: PathBuf,
    },
    /// `recover mail`
    RecoverMail {
        /// The node's data directory.
        from_blobs: PathBuf,
        /// Where to write.
        to: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_documentation_parse() {
        for line in [
            "everpost quickstart --nodes 3 --detach",
            "everpost quickstart stop --dir x",
            "everpost quickstart start --dir x --node 2",
            "everpost status --json",
            "everpost account add a@b.example --password-file f",
            "everpost alias set info@b.example a@b.example c@b.example",
            "everpost alias remove info@b.example --dry-run",
            "everpost domain remove b.example --yes",
            "everpost node join --token t --config c.toml",
            "everpost node drain 2",
            "everpost node drain 2 --to 4 --no-wait",
            "everpost node drain 2 --undo",
            "everpost node replace 2 --with 4 --yes",
            "everpost node replace 2 --name mx9",
            "everpost node remove 2 --dry-run --json",
            "everpost group list",
            "everpost group move --group 3 --from 1 --to 4",
            "everpost group unpin --group 3",
            "everpost setting set replace_after 3600",
            "everpost setting clear replace_after",
            "everpost check --json",
            "everpost recover mail --from-blobs d --to out",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        assert!(Cli::try_parse_from(["everpost", "quickstart", "--nodes", "0"]).is_err());
    }
}
