//! A load generator for any mail server, by host and port: rates and latencies of SMTP and LMTP delivery, of IMAP APPEND,
//! FETCH, STORE, SEARCH and login, and of POP3 RETR; and idle IMAP sessions, held by the thousand.
//!
//! It uses nothing of the server beside it, so that other servers can be measured in the same way.
//! Not here: checks of what the server answers beyond success or failure; those are the end-to-end tests.

mod idle;
mod imap;
mod load;
mod operations;
mod pop3;
mod report;
mod smtp;
mod stream;
mod target;

#[cfg(test)]
mod fake;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::load::Amount;
use crate::operations::Test;
use crate::report::Report;
use crate::target::{Target, TargetOptions};

/// Measures a mail server: rates, and p50, p99 and maximum of the latencies.
#[derive(Debug, Parser)]
#[command(name = "everpost-bench", version)]
struct Cli {
    #[command(flatten)]
    target: TargetOptions,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run load tests, one after the other.
    Run {
        /// Which; all that the target has addresses for, where none is named.
        #[arg(value_enum)]
        tests: Vec<Test>,
        /// Connections at the same time.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        connections: u32,
        /// How long each test runs.
        #[arg(long, default_value_t = 10, conflicts_with = "count")]
        seconds: u64,
        /// How many operations each test makes, in place of a time.
        #[arg(long)]
        count: Option<u64>,
        /// Octets of each message.
        #[arg(long, default_value_t = 10 * 1024, value_parser = clap::value_parser!(u64).range(200..))]
        size: u64,
        /// Messages in the mailbox that FETCH, STORE and SEARCH work on.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        messages: u32,
    },
    /// Open IMAP sessions, put them into IDLE, and hold them.
    Idle {
        /// How many.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
        connections: u32,
        /// For how many seconds they are held once all are open.
        #[arg(long, default_value_t = 10)]
        hold: u64,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli).await {
        Ok(report) => {
            let text = if cli.json { report.json() } else { report.table() };
            if write_out(&text).is_err() {
                return ExitCode::from(1);
            }
            if report.failed() {
                ExitCode::from(1)
            } else {
                ExitCode::SUCCESS
            }
        }
        Err(message) => {
            // Nothing is left to do when even this cannot be written.
            let _ = writeln!(std::io::stderr(), "everpost-bench: {message}");
            ExitCode::from(1)
        }
    }
}

async fn run(cli: &Cli) -> Result<Report, String> {
    let target = Target::new(&cli.target)?;
    match &cli.command {
        Command::Run {
            tests,
            connections,
            seconds,
            count,
            size,
            messages,
        } => {
            let amount = (*count).map_or(Amount::Seconds(*seconds), Amount::Count);
            let tests = if tests.is_empty() {
                Test::all_for(&target)
            } else {
                tests.clone()
            };
            if tests.is_empty() {
                return Err("no address to test: give --quickstart, or --smtp, --lmtp, --imap or --pop3".to_owned());
            }
            let mut results = Vec::new();
            for test in tests {
                if !cli.json {
                    let _ = writeln!(std::io::stderr(), "{} ...", test.name());
                }
                results.push(test.run(&target, *connections, amount, *size, *messages).await?);
            }
            Ok(Report::Load(results))
        }
        Command::Idle { connections, hold } => idle::run(&target, *connections, std::time::Duration::from_secs(*hold))
            .await
            .map(Report::Idle),
    }
}

fn write_out(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
