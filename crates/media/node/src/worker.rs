//! The process that holds the node: its signals, and its ties to the supervisor.

use std::io::{Read, Write, stdin, stdout};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use signalbox_media::asks::Asks;
use signalbox_media::{Config, Handle, supervisor};
use signalbox_protocol::Epoch;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long an orderly end may take, besides the drain, before the process just ends.
const END: Duration = Duration::from_secs(10);

/// How long it may take for who asks twice. The supervisor waits a little longer.
const HURRY: Duration = Duration::from_millis(1_400);

/// Runs the node until it ends by itself, or is asked to by SIGTERM or SIGINT: then its rooms are moved to other nodes first. Asked a second
/// time it ends at once. `is_supervised`: also until standard input ends, and
/// standard output is told the epochs.
pub async fn run(config: Config, is_supervised: bool) -> anyhow::Result<()> {
    let handle = Handle::default();
    let (drain, stop) = (handle.drain.clone(), handle.stop.clone());
    let grace = Duration::from_secs(config.drain_seconds.into());
    let mut epochs = handle.epoch.subscribe();
    let mut asks = Asks::new()?;
    if is_supervised {
        end_with_supervisor(stop.clone())?;
    }
    let media = config.bind_media()?;
    let address = config.control_listen;
    let control = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot bind the control address {address}"))?;

    let node = signalbox_media::run(control, media, config, handle);
    tokio::pin!(node);
    let mut over = CancellationToken::new();
    let ended = loop {
        tokio::select! {
            ended = &mut node => break ended,
            () = report(&mut epochs), if is_supervised => {}
            () = asks.next() => match asks.count {
                1 => {
                    if grace.is_zero() { stop.cancel() } else { drain.cancel() }
                    over = after(grace + END);
                }
                2 => {
                    stop.cancel();
                    exit_after(HURRY);
                }
                _ => {}
            },
            () = over.cancelled() => anyhow::bail!("not ended in {} seconds", (grace + END).as_secs()),
        }
    };
    if is_supervised {
        tell(*epochs.borrow());
    }
    Ok(ended?)
}

/// Cancelled after a time.
fn after(time: Duration) -> CancellationToken {
    let over = CancellationToken::new();
    let token = over.clone();
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        token.cancel();
    });
    over
}

/// Waits for the next change of the epoch, and tells the supervisor.
async fn report(epochs: &mut watch::Receiver<Option<Epoch>>) {
    match epochs.changed().await {
        Ok(()) => tell(*epochs.borrow_and_update()),
        Err(_) => std::future::pending().await,
    }
}

/// Eight bytes always fit: the supervisor reads them at once, and if it is gone nobody has to know.
fn tell(epoch: Option<Epoch>) {
    let mut out = stdout().lock();
    let _ = out.write_all(&supervisor::encode(epoch)).and_then(|()| out.flush());
}

/// Ends the node at once when the supervisor is gone: whoever has killed it will start the next one in this one's place.
fn end_with_supervisor(stop: CancellationToken) -> anyhow::Result<()> {
    let watch = move || {
        let mut nothing = [0; 64];
        // Nothing is ever written to it.
        while stdin().read(&mut nothing).is_ok_and(|count| count > 0) {}
        tracing::warn!("the supervisor is gone; the node ends");
        stop.cancel();
        exit_after(HURRY);
    };
    thread::Builder::new().name("lifeline".to_owned()).spawn(watch)?;
    Ok(())
}

/// Ends the process after a time, whatever its runtime does.
fn exit_after(time: Duration) {
    let end = move || {
        thread::sleep(time);
        std::process::exit(1);
    };
    if thread::Builder::new().name("hurry".to_owned()).spawn(end).is_err() {
        std::process::exit(1);
    }
}
