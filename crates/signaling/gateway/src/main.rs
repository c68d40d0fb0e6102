//! The gateway's process: settings, listeners, signals.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use clap::error::{ContextKind, ErrorKind};
use futures_util::FutureExt;
use sd_notify::NotifyState;
use signalbox_gateway::inherited::Inherited;
use signalbox_gateway::{Config, Listeners, Signals};
use signalbox_telemetry::Export;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    signalbox_telemetry::log("info");
    let config = match Config::try_parse() {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    if config.check {
        return match signalbox_gateway::check(&config) {
            Ok(()) => {
                println!("The settings can be used.");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("signalbox-gateway: {error}");
                ExitCode::from(2)
            }
        };
    }
    let export = Export::start(&config.observe.export, "signalbox-gateway", config.observe.trace_share);
    let ended = export.map_err(Into::into).and_then(|_export| run(config));
    match ended {
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
    let inherited = Inherited::take().context("cannot take the sockets that the gateway was started with")?;
    let redirect = match (inherited.redirect, config.front.redirect_listen) {
        (None, None) => None,
        (given, wanted) => Some(listener(given, wanted.unwrap_or(config.listen)).await?),
    };
    let listeners = Listeners {
        clients: listener(inherited.clients, config.listen).await?,
        operators: Some(listener(inherited.operators, config.admin_listen).await?),
        redirect,
        peers: match config.affinity.peer_listen {
            Some(address) => Some(listener(None, address).await?),
            None => None,
        },
    };
    let (reload, reloads) = watch::channel(0);
    let shutdown = CancellationToken::new();
    let signals = Signals {
        shutdown: shutdown.clone(),
        reload: reloads,
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let (listen, admin) = (listeners.clients.local_addr()?, config.admin_listen);
    let mut running = std::pin::pin!(signalbox_gateway::run(listeners, config, signals));
    // Settings that cannot be used end it before it is up.
    if let Some(ended) = running.as_mut().now_or_never() {
        return Ok(ended?);
    }
    tracing::info!(%listen, %admin, "the gateway is up");
    tell(&[NotifyState::Ready]);
    loop {
        let signal = tokio::select! {
            ended = running.as_mut() => return Ok(ended?),
            _ = hang_up.recv() => {
                reload.send_modify(|count| *count += 1);
                continue;
            }
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
        tell(&[NotifyState::Stopping]);
        shutdown.cancel();
    }
}

/// Tells the service manager, if there is one (`sd_notify(3)`).
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// The one that is there already, or a new one.
async fn listener(inherited: Option<std::net::TcpListener>, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let Some(inherited) = inherited else {
        return TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}; choose another address or stop what uses it"));
    };
    inherited.set_nonblocking(true)?;
    Ok(TcpListener::from_std(inherited)?)
}
