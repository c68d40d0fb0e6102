//! Loads a server that speaks LiveKit's protocol, or WHIP and WHEP, with participants that send and receive real media, and tells what came of it.
//!
//! Everybody is a client as others are: a WebSocket with LiveKit's messages or an offer over HTTP, ICE, DTLS and SRTP over a UDP socket of its own, with feedback for
//! the sender's estimate, requests for what was lost, and repair. What is sent says when it was sent ([`stamp`]), so that delay is measured.
//!
//! Reading order: [`plan`] (who joins), `participant` (what one does), [`camera`] (what it sends), [`arrivals`] (what it gets),
//! [`report`] (what came of all).

pub mod arrivals;
pub mod camera;
pub mod clip;
mod connection;
mod crowd;
mod described;
pub mod floor;
mod handshake;
mod inbox;
mod livekit;
mod participant;
pub mod plan;
mod publication;
mod receiver;
pub mod report;
pub mod server;
mod shared;
mod signaling;
pub mod stamp;
mod tls;
mod transport_feedback;
mod whip;

use std::future::pending;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crowd::Crowd;
use plan::{Plan, Protocol};
use report::Report;
use shared::{Counts, Phase, Shared};

/// How long it may take until everybody's connection is up, when all have been let in.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long everything runs before it counts: estimates find their level, and key frames are over.
const SETTLE: Duration = Duration::from_secs(2);

/// How long what is on its way has to arrive.
const ENDING: Duration = Duration::from_secs(1);

/// How long participants may take to leave.
const LEAVING: Duration = Duration::from_secs(5);

/// How often the server's processes are looked at meanwhile.
const SAMPLES: u32 = 20;

/// How often whoever watches is told.
const TICK: Duration = Duration::from_millis(200);

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Participants in all.
    pub participants: u64,
    /// Those that the server has let in.
    pub joined: u64,
    /// Those whose connection is up.
    pub connected: u64,
    /// Those that failed.
    pub failed: u64,
    /// Packets that arrived so far.
    pub packets: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Packets that were sent so far.
    pub sent: u64,
    /// For how long it has been measured; nothing: it has not begun to count.
    pub measured: Option<Duration>,
}

/// Carries out a plan. `watch` is told how far it is five times a second; `stop` ends the measurement early. `pids` are processes of the server
/// on this machine, which are watched with all that they started.
///
/// # Errors
/// When the server's address cannot be used, or a process is not there. Participants that fail are in the report.
pub async fn run(
    plan: Plan,
    pids: &[u32],
    stop: CancellationToken,
    mut watch: impl FnMut(Progress),
) -> anyhow::Result<Report> {
    if plan.protocol == Protocol::Whip && tls::is_encrypted(&plan.url) {
        bail!("WHIP and WHEP are loaded over http:// only: give the address of what is behind TLS");
    }
    let idle = server::usage(pids)?;
    let members = plan.members();
    let (count, duration, ramp, churn) = (members.len(), plan.duration, plan.ramp, plan.churn);
    let address = local_address(&plan.url).await?;
    let tls = tls::connector(&plan.url)?;
    let (phase, phases) = watch::channel(Phase::Joining);
    let shared = Arc::new(Shared {
        plan,
        http: whip::client()?,
        tls,
        address,
        phase: phases,
        counts: Counts::default(),
    });
    let mut crowd = Crowd::new(Arc::clone(&shared));
    let begun = Instant::now();
    let mut tell = |measured: Option<Duration>| watch(progress(&shared.counts, count, measured));

    let mut turns = every(ramp);
    for member in members {
        if stop.run_until_cancelled(turns.tick()).await.is_none() {
            break;
        }
        crowd.join(member);
        tell(None);
    }
    let spawned = crowd.len() as u64;
    let is_settled = |counts: &Counts| load(&counts.connected) + load(&counts.failed) >= spawned;
    let everybody = async {
        let mut ticks = interval(TICK);
        while !is_settled(&shared.counts) {
            tokio::select! {
                _ = ticks.tick() => tell(None),
                () = crowd.ended() => {}
            }
        }
    };
    let _ = timeout(PATIENCE, stop.run_until_cancelled(everybody)).await;
    let joining = begun.elapsed();
    stop.run_until_cancelled(sleep(SETTLE)).await;

    phase.send_replace(Phase::Measuring);
    let (begin, begun) = (server::usage(pids)?, Instant::now());
    let mut samples = vec![(Duration::ZERO, begin)];
    let measuring = async {
        let mut ticks = interval(TICK);
        let mut replacements = (churn > 0.0).then(|| every(churn));
        let mut looks = interval((duration / SAMPLES).max(TICK));
        looks.reset();
        while begun.elapsed() < duration {
            tokio::select! {
                _ = ticks.tick() => tell(Some(begun.elapsed())),
                () = tick(replacements.as_mut()) => crowd.replace(),
                _ = looks.tick() => samples.push((begun.elapsed(), server::usage(pids)?)),
                () = crowd.ended() => {}
            }
        }
        anyhow::Ok(())
    };
    if let Some(measured) = stop.run_until_cancelled(measuring).await {
        measured?;
    }
    let (end, measured) = (server::usage(pids)?, begun.elapsed());
    samples.push((measured, end));
    phase.send_replace(Phase::Ending);
    sleep(ENDING).await;
    phase.send_replace(Phase::Leaving);

    if timeout(LEAVING, crowd.all_ended()).await.is_err() {
        crowd.abandon();
    }
    let mut report = Report::of(&crowd.tally, count + crowd.newcomers(), joining, measured);
    report.failures = crowd.failures.into_iter().collect();
    if !pids.is_empty() {
        report = report.with_server(count, idle, &samples);
    }
    Ok(report)
}

/// So many times a second; what is late is made up for.
fn every(per_second: f64) -> Interval {
    let mut turns = interval(Duration::from_secs_f64(1.0 / per_second));
    turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
    turns
}

async fn tick(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => pending().await,
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn progress(counts: &Counts, participants: usize, measured: Option<Duration>) -> Progress {
    Progress {
        participants: participants as u64,
        joined: load(&counts.joined),
        connected: load(&counts.connected),
        failed: load(&counts.failed),
        packets: load(&counts.packets),
        bytes: load(&counts.bytes),
        sent: load(&counts.sent),
        measured,
    }
}

/// The address of this machine from which the server is reached: media goes the same way as signaling, as far as is known.
async fn local_address(url: &str) -> anyhow::Result<IpAddr> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let port = match scheme {
        "http" | "ws" => 80,
        "https" | "wss" => 443,
        _ => bail!("the server's URL has to begin with http://, https://, ws:// or wss://"),
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let with_port = if host.rsplit(']').next().is_some_and(|end| end.contains(':')) {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    };
    let mut addresses = tokio::net::lookup_host(&with_port)
        .await
        .with_context(|| format!("{host} is not known"))?;
    let server = addresses.next().with_context(|| format!("{host} has no address"))?;
    let any: SocketAddr = if server.is_ipv4() {
        (IpAddr::from([0; 4]), 0).into()
    } else {
        (IpAddr::from([0; 16]), 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket
        .connect(server)
        .with_context(|| format!("{host} is not reached from here"))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_way_to_the_server_is_the_way_of_its_media() {
        for url in [
            "http://127.0.0.1:7880",
            "ws://127.0.0.1:7880/",
            "http://127.0.0.1",
            "wss://127.0.0.1",
            "https://127.0.0.1:7881/x",
        ] {
            assert_eq!(local_address(url).await.unwrap(), IpAddr::from([127, 0, 0, 1]), "{url}");
        }
        for url in ["127.0.0.1:7880", "ftp://127.0.0.1:7880", ""] {
            let error = local_address(url).await.unwrap_err();
            assert!(error.to_string().contains("http://"), "{url}: {error}");
        }
    }
}
