//! What came of it: figures, as JSON and as a table.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use crate::arrivals::Delays;
use crate::floor::Floor;
use crate::participant::Stay;
use crate::server::Usage;

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Participants that should have joined.
    pub participants: usize,
    /// Participants that did, and stayed.
    pub stayed: usize,
    /// Why others did not: each reason, and how often.
    pub failures: Vec<(String, usize)>,
    /// Joins a second, from the first one's beginning until the last one's end.
    pub joins_per_second: f64,
    /// From the beginning of a join until the server let it in.
    pub join: Times,
    /// The same until the peer connection was up.
    pub connected: Times,
    /// The same until the first packet, of those that receive.
    pub first_packet: Times,
    /// The same until the first key frame.
    pub first_key_frame: Times,
    /// For how long it was measured, in seconds.
    pub seconds: f64,
    /// Packets that were sent, by all.
    pub packets_sent: u64,
    /// Packets that arrived, at all.
    pub packets_received: u64,
    /// Streams that arrived, at all.
    pub streams: usize,
    /// Bits of payload that arrived in a second, at all.
    pub bits_per_second: f64,
    /// The part of the packets that did not arrive at last, from 0 to 1.
    pub loss: f64,
    /// One-way delay from one participant to the other.
    pub delay: Times,
    /// Interarrival jitter.
    pub jitter: Times,
    /// What the server took.
    pub server: Option<Server>,
    /// What a packet costs on this machine at least.
    pub floor: Option<Floor>,
}

/// A distribution, in milliseconds; nothing: there was none.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Times {
    /// The median.
    pub p50: Option<f64>,
    /// What 95 of 100 do not exceed.
    pub p95: Option<f64>,
    /// What 99 of 100 do not exceed.
    pub p99: Option<f64>,
}

/// What the server took while it was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Server {
    /// Seconds of processor time.
    pub cpu_seconds: f64,
    /// Packets that arrived for each of them.
    pub packets_per_cpu_second: f64,
    /// Microseconds of processor time for each packet that arrived.
    pub microseconds_per_packet: f64,
    /// Memory at the end, in KiB.
    pub memory_kib: f64,
    /// How much more memory there was at the end than before the first join, in KiB for each participant.
    pub kib_per_participant: f64,
    /// What it had from the beginning of the measurement to its end.
    pub samples: Vec<Sample>,
}

/// What the server had at a moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sample {
    /// Seconds since the measurement began.
    pub seconds: f64,
    /// Memory, in KiB.
    pub memory_kib: f64,
    /// Open file descriptors.
    pub files: u64,
}

impl From<&Delays> for Times {
    fn from(delays: &Delays) -> Self {
        let at = |part| delays.quantile(part).map(|delay| delay.as_secs_f64() * 1_000.0);
        Self {
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
        }
    }
}

/// What participants tell, added up as they leave.
#[derive(Debug, Default)]
pub struct Tally {
    stayed: usize,
    join: Delays,
    connected: Delays,
    first_packet: Delays,
    first_key_frame: Delays,
    sent: u64,
    received: u64,
    bytes: u64,
    streams: usize,
    expected: u64,
    lost: u64,
    delays: Delays,
    jitters: Delays,
}

impl Tally {
    /// Adds one.
    pub fn add(&mut self, stay: &Stay) {
        self.stayed += 1;
        self.join.add(stay.joined);
        let times = [
            (&mut self.connected, stay.connected),
            (&mut self.first_packet, stay.first_packet),
            (&mut self.first_key_frame, stay.first_key_frame),
        ];
        for (delays, time) in times {
            time.into_iter().for_each(|time| delays.add(time));
        }
        let (expected, lost) = stay.arrivals.expected_and_lost();
        self.expected += expected;
        self.lost += lost;
        self.sent += stay.sent;
        self.received += stay.arrivals.packets;
        self.bytes += stay.arrivals.bytes;
        self.streams += stay.arrivals.streams();
        self.delays.merge(&stay.arrivals.delays);
        self.jitters.merge(&stay.arrivals.jitters);
    }
}

impl Report {
    /// Of so many participants, who took so long to join and were measured for so long.
    pub fn of(tally: &Tally, participants: usize, joining: Duration, measured: Duration) -> Self {
        let seconds = measured.as_secs_f64();
        Self {
            participants,
            stayed: tally.stayed,
            failures: Vec::new(),
            joins_per_second: tally.stayed as f64 / joining.as_secs_f64().max(0.001),
            join: Times::from(&tally.join),
            connected: Times::from(&tally.connected),
            first_packet: Times::from(&tally.first_packet),
            first_key_frame: Times::from(&tally.first_key_frame),
            seconds,
            packets_sent: tally.sent,
            packets_received: tally.received,
            streams: tally.streams,
            bits_per_second: tally.bytes as f64 * 8.0 / seconds.max(0.001),
            loss: tally.lost as f64 / tally.expected.max(1) as f64,
            delay: Times::from(&tally.delays),
            jitter: Times::from(&tally.jitters),
            server: None,
            floor: None,
        }
    }

    /// Adds what the server took: before the first join, and from when it began to count until the end. So many participants were there at a time.
    pub fn with_server(mut self, present: usize, idle: Usage, samples: &[(Duration, Usage)]) -> Self {
        let (Some((_, begin)), Some((_, end))) = (samples.first(), samples.last()) else {
            return self;
        };
        let kib = |memory: u64| memory as f64 / 1_024.0;
        let cpu = end.cpu.saturating_sub(begin.cpu).as_secs_f64();
        let packets = self.packets_received as f64;
        self.server = Some(Server {
            cpu_seconds: cpu,
            packets_per_cpu_second: packets / cpu.max(0.001),
            microseconds_per_packet: cpu * 1e6 / packets.max(1.0),
            memory_kib: kib(end.memory),
            kib_per_participant: kib(end.memory.saturating_sub(idle.memory)) / present.max(1) as f64,
            samples: samples
                .iter()
                .map(|(at, usage)| Sample {
                    seconds: at.as_secs_f64(),
                    memory_kib: kib(usage.memory),
                    files: usage.files,
                })
                .collect(),
        });
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            participants, stayed, ..
        } = self;
        writeln!(
            f,
            "joined              {stayed} of {participants}, {:.1} a second",
            self.joins_per_second
        )?;
        for (why, count) in &self.failures {
            writeln!(f, "  failed            {count} × {why}")?;
        }
        writeln!(f, "{:<20}{:>10}{:>10}{:>10}", "", "p50", "p95", "p99")?;
        let rows = [
            ("join", self.join),
            ("connected", self.connected),
            ("first packet", self.first_packet),
            ("first key frame", self.first_key_frame),
            ("one-way delay", self.delay),
            ("jitter", self.jitter),
        ];
        for (name, times) in rows {
            let mut cells = String::new();
            for time in [times.p50, times.p95, times.p99] {
                let cell = time.map_or_else(|| "-".to_owned(), |time| format!("{time:.1} ms"));
                write!(cells, "{cell:>10}")?;
            }
            writeln!(f, "{name:<20}{cells}")?;
        }
        let per_second = |count: u64| count as f64 / self.seconds.max(0.001);
        writeln!(f, "sent                {:.0} packets/s", per_second(self.packets_sent))?;
        writeln!(
            f,
            "received            {:.0} packets/s, {:.1} Mbit/s in {} streams, for {:.0} s",
            per_second(self.packets_received),
            self.bits_per_second / 1e6,
            self.streams,
            self.seconds
        )?;
        write!(f, "lost                {:.4}%", self.loss * 100.0)?;
        if let Some(server) = &self.server {
            writeln!(f)?;
            writeln!(
                f,
                "server              {:.2} s of processor time, {:.0} packets for each, {:.2} µs for each packet",
                server.cpu_seconds, server.packets_per_cpu_second, server.microseconds_per_packet
            )?;
            write!(
                f,
                "                    {:.1} MiB, {:.0} KiB for each participant",
                server.memory_kib / 1_024.0,
                server.kib_per_participant
            )?;
            if let (Some(begin), Some(end)) = (server.samples.first(), server.samples.last()) {
                let grown = (end.memory_kib / begin.memory_kib.max(1.0) - 1.0) * 100.0;
                write!(
                    f,
                    ", {grown:+.1}% since it began; {} open files, then {}",
                    begin.files, end.files
                )?;
            }
        }
        if let Some(floor) = self.floor {
            writeln!(f)?;
            write!(
                f,
                "floor               {:.2} µs to encrypt and send a packet of a picture, {:.2} µs when 8 leave together",
                floor.alone, floor.in_runs
            )?;
            if let Some(server) = &self.server {
                let times = |floor: f64| server.microseconds_per_packet / floor;
                write!(
                    f,
                    "\n                    the server takes {:.1} times the one, {:.1} times the other",
                    times(floor.alone),
                    times(floor.in_runs)
                )?;
            }
        }
        Ok(())
    }
}
