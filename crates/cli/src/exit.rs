//! Exit codes: 2 for what the person who typed the command can correct there, 1 for everything else.

use std::fmt;
use std::process::ExitCode;

/// The command line, or an address in it, cannot be used. Its text is a sentence that says what to change.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The exit code for an error.
pub fn code(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(|cause| cause.is::<Usage>()) {
        ExitCode::from(2)
    } else {
        ExitCode::FAILURE
    }
}
