//! How whoever runs a node steers it, and what it is told of it.

use signalbox_protocol::Epoch;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The outside's end of a running node. A bare token makes one that only stops.
#[derive(Debug, Clone, Default)]
pub struct Handle {
    /// Cancelled: the node has its rooms moved to others first ([`Config::drain_seconds`](crate::Config::drain_seconds)), and then ends.
    pub drain: CancellationToken,
    /// Cancelled: the node closes its rooms and ends.
    pub stop: CancellationToken,
    /// The epoch that the node holds. It stays what it was when the orchestrators could not be told that it is over.
    pub epoch: watch::Sender<Option<Epoch>>,
}

impl From<CancellationToken> for Handle {
    fn from(stop: CancellationToken) -> Self {
        Self {
            stop,
            ..Self::default()
        }
    }
}
