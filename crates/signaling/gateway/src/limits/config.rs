//! The settings of the limits: flags and environment.

/// How much may be asked.
#[derive(Debug, Clone, clap::Args)]
pub struct LimitsConfig {
    /// How many requests a second each user may send, by its token's key and identity; what is over is answered with 429. 0: any number.
    #[arg(
        long,
        env = "SIGNALBOX_REQUESTS_PER_USER",
        default_value_t = 50,
        value_name = "COUNT"
    )]
    pub requests_per_user: u32,

    /// How many of them at once.
    #[arg(long, env = "SIGNALBOX_BURST_PER_USER", default_value_t = 250, value_name = "COUNT")]
    pub burst_per_user: u32,

    /// How many requests a second may come from one address, which many people may share. 0: any number.
    #[arg(
        long,
        env = "SIGNALBOX_REQUESTS_PER_ADDRESS",
        default_value_t = 2_000,
        value_name = "COUNT"
    )]
    pub requests_per_address: u32,

    /// How many of them at once.
    #[arg(
        long,
        env = "SIGNALBOX_BURST_PER_ADDRESS",
        default_value_t = 10_000,
        value_name = "COUNT"
    )]
    pub burst_per_address: u32,

    /// How many joins may be under way; as many again may wait for a moment, and what is over is answered with 503. Other requests have twice as many of their own.
    #[arg(long, env = "SIGNALBOX_JOINS_AT_ONCE", default_value_t = 256, value_name = "COUNT")]
    pub joins_at_once: usize,
}
