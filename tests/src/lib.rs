//! What the whole-system tests are made of: clients that speak the real protocols with synthetic media, and clusters to run them
//! against, in one process or in several.
//!
//! | module | what it stands for |
//! |---|---|
//! | [`media`] | a camera and a microphone whose packets say where they come from, and the ledger of what arrived |
//! | [`peer`] | one peer connection over a UDP socket of its own |
//! | [`client`] | a client of the HTTP join |
//! | [`livekit`] | a client of the LiveKit protocol |
//! | [`cluster`] | gateways, an orchestrator and media nodes in this process |
//! | [`processes`] | the same as processes, over PostgreSQL |
//! | [`stun`] | hand-made STUN requests, right and wrong |
//!
//! Every wait is on a condition, with a limit that only a failure reaches.

pub mod client;
pub mod cluster;
pub mod livekit;
pub mod media;
pub mod peer;
pub mod processes;
pub mod stun;

use std::time::Duration;

use tokio::sync::watch;

/// How long any wait may take. Higher: a failing test takes longer. Lower: a busy machine makes tests fail.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until a watched state meets a condition.
///
/// # Panics
/// When that takes longer than [`PATIENCE`], or the state's owner is gone, with `what` was waited for and the state as it is.
pub async fn until<T: std::fmt::Debug>(state: &mut watch::Receiver<T>, what: &str, condition: impl FnMut(&T) -> bool) {
    let ended = match tokio::time::timeout(PATIENCE, state.wait_for(condition)).await {
        Ok(Ok(_)) => return,
        Ok(Err(_)) => true,
        Err(_) => false,
    };
    let seen = state.borrow();
    assert!(!ended, "{what}: it has ended: {seen:#?}");
    panic!("{what}: not within {PATIENCE:?}: {seen:#?}");
}

/// Shows the servers' logs in failing tests when `SIGNALBOX_LOG` is set.
pub fn init_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SIGNALBOX_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    // Every test calls it; only the first call counts.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_test_writer()
        .try_init();
}
