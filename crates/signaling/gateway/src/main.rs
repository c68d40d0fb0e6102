//! The gateway's process: settings, listeners, signals.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use clap::error::{ContextKind, ErrorKind};
use signalbox_gateway::Config;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("SIGNALBOX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let config = match Config::try_parse() {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("signalbox-gateway: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Says what is wrong with the settings. Values are not repeated: they may be secrets.
fn refuse(error: &clap::Error) -> ExitCode {
    let invalid = (error.kind() == ErrorKind::ValueValidation)
        .then(|| error.get(ContextKind::InvalidArg))
        .flatten();
    match (invalid, std::error::Error::source(error)) {
        (Some(argument), Some(reason)) => {
            eprintln!("signalbox-gateway: {argument}: {reason}");
            ExitCode::from(2)
        }
        _ => error.exit(),
    }
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<()> {
    let listener = bind(config.listen).await?;
    let admin = bind(config.admin_listen).await?;
    let shutdown = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tracing::info!(listen = %config.listen, admin = %config.admin_listen, "the gateway is up");
    let mut running = std::pin::pin!(signalbox_gateway::run(listener, Some(admin), config, shutdown.clone()));
    loop {
        let signal = tokio::select! {
            ended = running.as_mut() => return Ok(ended?),
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        if shutdown.is_cancelled() {
            tracing::warn!(
                signal,
                "the gateway ends at once, and its clients find out by themselves"
            );
            return Ok(());
        }
        tracing::info!(
            signal,
            "the gateway takes nobody any more, and sends its clients to others; again to end at once"
        );
        shutdown.cancel();
    }
}

async fn bind(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; choose another address or stop what uses it"))
}
