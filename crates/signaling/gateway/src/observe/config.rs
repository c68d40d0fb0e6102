//! The settings of what is seen from outside: flags and environment.

use std::path::PathBuf;

use signalbox_telemetry::ExportConfig;

/// What is written of requests.
#[derive(Debug, Clone, clap::Args)]
pub struct ObserveConfig {
    /// Write a line of JSON for each request to this file, `-` for the standard output. It is opened anew at a SIGHUP, for whoever rotates it.
    #[arg(long, env = "SIGNALBOX_ACCESS_LOG", value_name = "FILE")]
    pub access_log: Option<PathBuf>,

    /// Where traces go.
    #[command(flatten)]
    pub export: ExportConfig,

    /// The share of requests whose traces are exported, from 0 to 1, of those that do not belong to a trace yet; of the others it is heeded what
    /// they say. Only gateways begin traces.
    #[arg(
        long,
        env = "SIGNALBOX_TRACE_SHARE",
        default_value_t = 0.01,
        value_parser = share,
        value_name = "SHARE"
    )]
    pub trace_share: f64,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be a number from 0 to 1, such as 0.01 for one request in a hundred".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_from_0_to_1() {
        assert_eq!(share("0"), Ok(0.0));
        assert_eq!(share("0.25"), Ok(0.25));
        assert_eq!(share("1"), Ok(1.0));
        for wrong in ["", "-0.1", "1.1", "NaN", "1%", "all"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
