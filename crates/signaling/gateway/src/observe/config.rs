//! The settings of what is seen from outside: flags and environment.

use std::path::PathBuf;

/// What is written of requests.
#[derive(Debug, Clone, clap::Args)]
pub struct ObserveConfig {
    /// Write a line of JSON for each request to this file, `-` for the standard output. It is opened anew at a SIGHUP, for whoever rotates it.
    #[arg(long, env = "SIGNALBOX_ACCESS_LOG", value_name = "FILE")]
    pub access_log: Option<PathBuf>,
}
