//! The signals by which a process is asked to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, and how often they came.
#[derive(Debug)]
pub struct Asks {
    interrupt: Signal,
    terminate: Signal,
    /// How often the end was asked for.
    pub count: u32,
}

impl Asks {
    /// From now on the two no longer end the process by themselves.
    ///
    /// # Errors
    /// When the kernel refuses the handlers.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            count: 0,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        self.count = self.count.saturating_add(1);
    }
}
