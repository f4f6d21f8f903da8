//! The binary: parses the command line and carries it out.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use ctl::{Cli, Exit, Failure, Local, output};
use node::config::{Config, Log};
use node::{commands, quickstart, recover};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.json;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::note(&format!("everpost: the runtime does not start: {error}"));
            return ExitCode::from(Exit::Failed as u8);
        }
    };
    let result = runtime.block_on(carry_out(cli));
    // Blocking jobs of a node that has stopped are not waited for.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if json {
                let error =
                    serde_json::json!({ "error": { "exit_code": failure.exit as u8, "message": failure.message } });
                let _ = output::json(&error);
            }
            output::note(&format!("everpost: {failure}"));
            ExitCode::from(failure.exit as u8)
        }
    }
}

async fn carry_out(cli: Cli) -> Result<(), Failure> {
    let Some(local) = ctl::run(cli).await? else {
        return Ok(());
    };
    match local {
        Local::Quickstart { dir, options, json } => quickstart::run(&dir, options, json).await,
        Local::Run { config } => {
            let path = config;
            let config = commands::load_config(&path)?;
            start_log(&config, &path)?;
            commands::run(config).await
        }
        Local::ClusterInit {
            config,
            name,
            site,
            mailbox_groups,
        } => {
            let path = config;
            let config = commands::load_config(&path)?;
            commands::cluster_init(&config, &name, &site, mailbox_groups)?;
            output::line(&format!(
                "The first node of a new cluster is made. Start it: everpost run --config {}",
                path.display()
            ));
            Ok(())
        }
        Local::NodeJoin { token, config } => {
            let path = config;
            let config = commands::load_config(&path)?;
            let node = commands::node_join(&config, &token).await?;
            output::line(&format!(
                "This is node {node} now. Start it: everpost run --config {}",
                path.display()
            ));
            Ok(())
        }
        Local::RecoverMail { from_blobs, to } => recover::mail(&from_blobs, &to).await,
    }
}

fn start_log(config: &Config, path: &Path) -> Result<(), Failure> {
    let Log { filter, json } = &config.log;
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Failure::new(Exit::Configuration, format!("{}: log.filter: {error}", path.display())))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(true);
    if *json {
        builder.json().init()
    } else {
        builder.with_ansi(false).init()
    }
    Ok(())
}
