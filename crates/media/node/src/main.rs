//! `signalbox-media`: a media node as a process of its own, with a supervisor behind it.

mod worker;

use std::process::ExitCode;

use clap::Parser;
use signalbox_media::{Config, Error, supervisor};
use signalbox_telemetry::Export;

/// A Signalbox media node: takes the rooms that the orchestrator places on it and forwards their media over UDP.
#[derive(Debug, clap::Parser)]
#[command(name = "signalbox-media", version, max_term_width = 120)]
struct Arguments {
    #[command(flatten)]
    config: Config,

    /// Run the node in this very process, without a supervisor that releases its rooms and starts it again when it dies.
    #[arg(long, env = "SIGNALBOX_NO_SUPERVISOR")]
    no_supervisor: bool,

    /// When the node dies, release its rooms, but do not start it again: end with a failure.
    #[arg(long, env = "SIGNALBOX_NO_RESTART")]
    no_restart: bool,

    /// This process is the supervisor's worker.
    #[arg(long, hide = true)]
    worker: bool,
}

fn main() -> ExitCode {
    signalbox_telemetry::log("info");
    let arguments = Arguments::parse();
    let ended = if arguments.worker || arguments.no_supervisor {
        let export = Export::start(&arguments.config.export, "signalbox-media", 0.0);
        let ended = export
            .map_err(Into::into)
            .and_then(|_export| work(arguments.config, arguments.worker));
        ended.map(|()| ExitCode::SUCCESS)
    } else {
        supervise(&arguments.config, !arguments.no_restart)
    };
    ended.unwrap_or_else(|error| {
        eprintln!("signalbox-media: {error:#}");
        match error.downcast_ref() {
            Some(Error::Config(_) | Error::Refused(_)) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    })
}

#[tokio::main]
async fn work(config: Config, is_supervised: bool) -> anyhow::Result<()> {
    worker::run(config, is_supervised).await
}

#[tokio::main(flavor = "current_thread")]
async fn supervise(config: &Config, restart: bool) -> anyhow::Result<ExitCode> {
    let arguments = std::env::args_os().skip(1).collect();
    Ok(supervisor::run(config, arguments, restart).await?)
}
