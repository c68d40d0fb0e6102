//! `signalbox load`: participants with real media on any server that speaks the LiveKit protocol, and what came of them.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};
use signalbox_load::plan::{Layout, Plan, Protocol, Receive};
use signalbox_load::{Progress, clip, floor};
use tokio_util::sync::CancellationToken;

use crate::exit::Usage;
use crate::stdout;
use crate::token::{DEV_KEY, DEV_SECRET, parse_ttl};

/// Load a server with participants that send and receive real media, and measure what comes of it.
///
/// Any server that speaks LiveKit's protocol will do, or this one's WHIP and WHEP. Participants that publish join first, then those that receive; it counts when everybody is there.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    signalbox load --video-publishers 1 --subscribers 50\n  \
    signalbox load --publishers 4 --subscribers 200 --duration 1m --json\n  \
    signalbox load --url wss://calls.example --api-key mykey --api-secret mysecret-mysecret --rooms 10 --video-publishers 4 --subscribers 4 --simulcast\n  \
    signalbox load --video-publishers 10 --subscribers 10 --size 360p --server-pid \"$(pgrep -o signalbox-media)\"\n\n\
    The exit code is 1 when somebody could not join or stay, or more was lost than --max-loss allows.")]
pub struct Load {
    /// The server's URL: http://, https://, ws:// or wss://; for WHIP and WHEP http://. Certificates are checked against the system's, or those in the file that SSL_CERT_FILE names.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7880")]
    url: String,
    /// How to speak to it: LiveKit's protocol, or WHIP to publish and WHEP to receive.
    #[arg(long, value_enum, default_value_t = ProtocolName::Livekit)]
    protocol: ProtocolName,
    /// The API key to sign tokens with.
    #[arg(long, value_name = "KEY", env = "LIVEKIT_API_KEY", default_value = DEV_KEY)]
    api_key: String,
    /// Its secret. Prefer the environment variable: the process list is public.
    #[arg(long, value_name = "SECRET", env = "LIVEKIT_API_SECRET", hide_env_values = true, hide_default_value = true, default_value = DEV_SECRET)]
    api_secret: String,
    /// What the rooms' names begin with.
    #[arg(long, value_name = "NAME", default_value = "load")]
    room: String,
    /// How many rooms.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    rooms: usize,
    /// Participants of each room that publish sound.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    publishers: usize,
    /// Participants of each room that publish picture; the first --publishers of them publish both.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    video_publishers: usize,
    /// Participants of each room that receive everything.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    subscribers: usize,
    /// The pictures' size; with --simulcast that of the best layer.
    #[arg(long, value_enum, default_value_t = Size::P720)]
    size: Size,
    /// Publish all smaller sizes as well.
    #[arg(long)]
    simulcast: bool,
    /// How those who receive lay pictures out. Without it they say nothing, and the server decides.
    #[arg(long, value_enum)]
    layout: Option<LayoutName>,
    /// How to receive: `light` does all that a browser does but decode, for as little as that costs; `full` is a whole WebRTC stack.
    #[arg(long, value_enum, default_value_t = ReceiveName::Light)]
    receive: ReceiveName,
    /// For how long to measure, when everybody is there: a number with s, m or h.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_ttl)]
    duration: Duration,
    /// How many join per second.
    #[arg(long, value_name = "RATE", default_value_t = 20.0)]
    ramp: f64,
    /// How many of those who receive leave per second while it is measured, each for somebody new.
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    churn: f64,
    /// A process of the server's on this machine, to measure with all that it has started. Can be given several times.
    #[arg(long = "server-pid", value_name = "PID")]
    server_pids: Vec<u32>,
    /// Measure first what a packet costs on this machine at least: to encrypt it and to hand it to the kernel.
    #[arg(long)]
    floor: bool,
    /// How much may be lost, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    max_loss: f64,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProtocolName {
    Livekit,
    Whip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Size {
    #[value(name = "180p")]
    P180,
    #[value(name = "360p")]
    P360,
    #[value(name = "720p")]
    P720,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReceiveName {
    Light,
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LayoutName {
    /// One large, all others small.
    Speaker,
    #[value(name = "3x3")]
    Grid3,
    #[value(name = "4x4")]
    Grid4,
    #[value(name = "5x5")]
    Grid5,
}

/// The most participants: more than one machine has ports for is a slip of the pen.
const MAX_PARTICIPANTS: usize = 20_000;

impl Load {
    /// Runs it and prints what came of it.
    pub async fn run(self) -> anyhow::Result<()> {
        let plan = self.plan()?;
        let stop = CancellationToken::new();
        let interrupted = stop.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                interrupted.cancel();
            }
        });
        let floor = match self.floor {
            true => Some(tokio::task::spawn_blocking(floor::measure).await??),
            false => None,
        };
        let mut bar = Bar::new(plan.duration);
        let mut report = signalbox_load::run(plan, &self.server_pids, stop, |progress| bar.show(progress)).await?;
        bar.clear();
        report.floor = floor;
        if self.json {
            stdout::print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
        } else {
            stdout::print(&format!("{report}\n"))?;
        }
        if report.stayed < report.participants {
            bail!(
                "{} of {} participants could not join or stay",
                report.participants - report.stayed,
                report.participants
            );
        }
        if report.loss * 100.0 > self.max_loss {
            bail!(
                "{:.4}% was lost, and --max-loss allows {}%",
                report.loss * 100.0,
                self.max_loss
            );
        }
        Ok(())
    }

    fn plan(&self) -> anyhow::Result<Plan> {
        let in_room = self
            .publishers
            .max(self.video_publishers)
            .saturating_add(self.subscribers);
        let participants = in_room.saturating_mul(self.rooms);
        if participants == 0 {
            return Err(
                Usage("nobody would join: give --publishers, --video-publishers or --subscribers".to_owned()).into(),
            );
        }
        if participants > MAX_PARTICIPANTS {
            return Err(Usage(format!(
                "{participants} participants are more than the {MAX_PARTICIPANTS} that one machine can be"
            ))
            .into());
        }
        if !(0.01..=10_000.0).contains(&self.ramp) {
            return Err(Usage(format!(
                "--ramp must be between 0.01 and 10000 joins a second, not {}",
                self.ramp
            ))
            .into());
        }
        if !(0.0..=1_000.0).contains(&self.churn) || self.churn > 0.0 && self.subscribers == 0 {
            return Err(Usage(format!(
                "--churn must be between 0 and 1000 a second, and needs --subscribers, not {} of {}",
                self.churn, self.subscribers
            ))
            .into());
        }
        if self.layout.is_some() && self.protocol == ProtocolName::Whip {
            return Err(
                Usage("--layout is said with LiveKit's protocol: leave it out, or --protocol whip".to_owned()).into(),
            );
        }
        Ok(Plan {
            protocol: match self.protocol {
                ProtocolName::Livekit => Protocol::LiveKit,
                ProtocolName::Whip => Protocol::Whip,
            },
            url: self.url.clone(),
            key: self.api_key.clone(),
            secret: self.api_secret.clone(),
            room: self.room.clone(),
            rooms: self.rooms,
            publishers: self.publishers,
            video_publishers: self.video_publishers,
            subscribers: self.subscribers,
            size: match self.size {
                Size::P180 => clip::Size::P180,
                Size::P360 => clip::Size::P360,
                Size::P720 => clip::Size::P720,
            },
            simulcast: self.simulcast,
            layout: self.layout.map(|layout| match layout {
                LayoutName::Speaker => Layout::Speaker,
                LayoutName::Grid3 => Layout::Grid(3),
                LayoutName::Grid4 => Layout::Grid(4),
                LayoutName::Grid5 => Layout::Grid(5),
            }),
            receive: match self.receive {
                ReceiveName::Light => Receive::Light,
                ReceiveName::Full => Receive::Full,
            },
            duration: self.duration,
            ramp: self.ramp,
            churn: self.churn,
        })
    }
}

/// How far it is, on a terminal: one line that is written over.
struct Bar {
    is_shown: bool,
    duration: Duration,
    last: Progress,
}

const WIDTH: usize = 24;

impl Bar {
    fn new(duration: Duration) -> Self {
        Self {
            is_shown: std::io::stderr().is_terminal(),
            duration,
            last: Progress::default(),
        }
    }

    fn show(&mut self, progress: Progress) {
        if self.is_shown {
            // What cannot be written to is no reason to stop.
            let _ = write!(
                std::io::stderr(),
                "\r\x1b[K{}",
                line(progress, self.last, self.duration)
            );
        }
        self.last = progress;
    }

    fn clear(&self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(progress: Progress, last: Progress, duration: Duration) -> String {
    let part = match progress.measured {
        None => progress.connected as f64 / progress.participants.max(1) as f64,
        Some(measured) => measured.as_secs_f64() / duration.as_secs_f64().max(0.001),
    };
    let full = (part.clamp(0.0, 1.0) * WIDTH as f64) as usize;
    let bar = format!("[{}{}]", "#".repeat(full), ".".repeat(WIDTH - full));
    let failed = if progress.failed > 0 {
        format!(", {} failed", progress.failed)
    } else {
        String::new()
    };
    match progress.measured {
        None => format!(
            "{bar} {} of {} joined{failed}",
            progress.connected, progress.participants
        ),
        Some(measured) => {
            // Five times a second.
            let packets = (progress.packets - last.packets) * 5;
            let mbps = (progress.bytes - last.bytes) as f64 * 8.0 * 5.0 / 1e6;
            let seconds = (measured.as_secs(), duration.as_secs());
            format!(
                "{bar} {} of {} s, {packets} packets/s, {mbps:.1} Mbit/s{failed}",
                seconds.0, seconds.1
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is() {
        let mut progress = Progress {
            participants: 10,
            connected: 5,
            ..Progress::default()
        };
        let before = progress;
        assert_eq!(
            line(progress, before, Duration::from_secs(10)),
            "[############............] 5 of 10 joined"
        );
        progress.measured = Some(Duration::from_secs(10));
        (progress.packets, progress.bytes, progress.failed) = (100, 125_000, 1);
        assert_eq!(
            line(progress, before, Duration::from_secs(10)),
            "[########################] 10 of 10 s, 500 packets/s, 5.0 Mbit/s, 1 failed"
        );
    }
}
