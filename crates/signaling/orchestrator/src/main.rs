//! The orchestrator as a process.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use signalbox_orchestrator::{Config, Error, run};
use signalbox_telemetry::Export;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let config = Config::parse();
    // What sqlx says of the database on its own, the fencer says once and in our words.
    signalbox_telemetry::log("info,sqlx=error,sqlx_core=error");
    let export = Export::start(&config.export, "signalbox-orchestrator", 0.0);
    match export.map_err(Into::into).and_then(|_export| serve(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("signalbox-orchestrator: {error:#}");
            let misconfigured = matches!(error.downcast_ref(), Some(Error::Config(_)));
            ExitCode::from(if misconfigured { 2 } else { 1 })
        }
    }
}

#[tokio::main]
async fn serve(config: Config) -> anyhow::Result<()> {
    config.check()?;
    let shutdown = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    tracing::info!(listen = %listener.local_addr()?, "orchestrator started");
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
    Ok(run(listener, config, shutdown).await?)
}
