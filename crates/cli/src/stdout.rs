//! Printing what was asked for.

use std::io::{ErrorKind, Write, stdout};

/// Writes to standard output. That nobody reads it any more, as in `signalbox rooms | head`, is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
