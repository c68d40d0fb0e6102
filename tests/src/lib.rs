//! What the whole-system tests are made of: clients that speak the real protocols with synthetic media, and clusters to run them
//! against, in one process or in several.
//!
//! | module | what it stands for |
//! |---|---|
//! | [`media`] | a camera and a microphone whose packets say where they come from, and the ledger of what arrived |
//! | [`peer`] | one peer connection over a UDP socket of its own |
//! | [`client`] | a client of the HTTP join |
//! | [`livekit`] | a client of the LiveKit protocol |
//! | [`whip`] | a client of WHIP and WHEP |
//! | [`collector`] | whoever the servers export their traces to |
//! | [`cluster`] | gateways, an orchestrator and media nodes in this process |
//! | [`processes`] | the same as processes, over PostgreSQL |
//! | [`postgres`] | a PostgreSQL server that a test may kill, and its standby |
//! | [`process_tree`] | processes with the children that they have started |
//! | [`fake_node`] | a media node without media: only what the room map sees of one |
//! | [`map`] | what an orchestrator answers about rooms and nodes |
//! | [`load`] | joins that go on while something breaks, and what came of them |
//! | [`stun`] | hand-made STUN requests, right and wrong |
//!
//! Every wait is on a condition, with a limit that only a failure reaches.

pub mod client;
pub mod cluster;
pub mod collector;
pub mod fake_node;
pub mod livekit;
pub mod load;
pub mod map;
pub mod media;
pub mod peer;
pub mod postgres;
pub mod process_tree;
pub mod processes;
pub mod stun;
pub mod whip;

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

/// Asks again and again until there is an answer, for what cannot be waited for.
///
/// # Panics
/// When that takes longer than [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(answer) => answer,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// A number from the environment, by which a benchmark makes a test longer than it is in the suite.
///
/// # Panics
/// When it is not a number.
pub fn parameter(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable} must be a number, not {text}")),
        Err(_) => otherwise,
    }
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
