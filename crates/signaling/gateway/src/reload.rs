//! What is of files, and is read or opened again when they change, or when it is asked for. What cannot be used changes nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Counter, Metrics};

/// How often the files are looked at. Higher: what is new is used later. Lower: more looks for nothing.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Something that is of files.
pub(crate) trait Reload: Send + Sync + 'static {
    /// What it is, in the plural.
    const WHAT: &'static str;

    /// The files.
    fn files(&self) -> impl Iterator<Item = &Path> + Send;

    /// Reads or opens them again.
    ///
    /// # Errors
    /// Why they cannot be used, as a sentence without its full stop; then nothing has changed.
    fn reload(&self, metrics: &Metrics) -> Result<(), String>;

    /// Where is counted how often that went well, and how often it did not.
    fn counters(metrics: &Metrics) -> [&Counter; 2];
}

/// Renews it whenever the files have changed, or `asked` says so, until `shutdown`.
pub(crate) async fn keep_fresh<T: Reload>(
    it: Arc<T>,
    metrics: Arc<Metrics>,
    mut asked: watch::Receiver<u64>,
    shutdown: CancellationToken,
) {
    let [read, failed] = T::counters(&metrics);
    let mut seen = stamp(&*it);
    loop {
        let is_asked = tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => false,
            Ok(()) = asked.changed() => true,
        };
        let stamp = stamp(&*it);
        if stamp == seen && !is_asked {
            continue;
        }
        match it.reload(&metrics) {
            Ok(()) => {
                read.increment();
                tracing::info!("{} were renewed, and are used from now on", T::WHAT);
            }
            Err(error) => {
                failed.increment();
                tracing::error!(%error, "{} stay as they were", T::WHAT);
            }
        }
        seen = stamp;
    }
}

/// Something that is another when one of the files is.
fn stamp(it: &impl Reload) -> Vec<Option<(SystemTime, u64)>> {
    let of_file = |path: &Path| {
        // Follows links: a container's volume replaces the folder that they lead to.
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    it.files().map(of_file).collect()
}
