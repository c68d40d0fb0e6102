//! `signalbox-media`: a media node as a process of its own.

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use signalbox_media::{Config, Error};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// How long an orderly end may take before the process just ends.
const DRAIN: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("SIGNALBOX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
    let config = Config::parse();
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("signalbox-media: {error:#}");
            match error.downcast_ref() {
                Some(Error::Config(_) | Error::Refused(_)) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

#[tokio::main]
async fn start(config: Config) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let media = config.bind_media()?;
    let address = config.control_listen;
    let control = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot bind the control address {address}"))?;

    let node = signalbox_media::run(control, media, config, shutdown.clone());
    tokio::pin!(node);
    tokio::select! {
        ended = &mut node => return Ok(ended?),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    shutdown.cancel();
    tokio::select! {
        ended = &mut node => Ok(ended?),
        // Whoever asks twice does not want to wait.
        _ = interrupt.recv() => Ok(()),
        () = tokio::time::sleep(DRAIN) => anyhow::bail!("not ended in {} seconds", DRAIN.as_secs()),
    }
}
