//! The controller of libwebrtc (draft-ietf-rmcat-gcc-02, with loss and probes as that has them), from the crate `goog_cc`, which is named
//! here and nowhere else.
//!
//! What a peer says reaches it, so that a panic in it must cost no more than what it knows: it is dropped, and the next picture packet
//! begins a new one. After some of those it is left alone, and the estimate is made of receiver reports.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use goog_cc::experiments::FieldTrials;
use goog_cc::network_control::{NetworkControllerConfig, NetworkControllerInterface};
use goog_cc::transport::{
    NetworkAvailability, NetworkControlUpdate, PacedPacketInfo, PacketResult, ProcessInterval, SentPacket,
    StreamsConfig, TargetRateConstraints, TransportPacketsFeedback,
};
use goog_cc::units::{DataRate, DataSize, Timestamp};
use goog_cc::{GoogCcConfig, GoogCcNetworkController, RobustThroughputEstimatorSettings};

use super::history::Sent;
use super::{Load, MAX_BPS, MIN_BPS, PACING, Probe};

/// After so many panics there is no further controller. Higher: a peer that provokes them fills the log. Lower: one that did not has a
/// poorer estimate from then on.
const MAX_FAILURES: u32 = 3;

/// The controller of one connection.
pub struct Controller {
    begun: Instant,
    inner: Option<Box<GoogCcNetworkController>>,
    failures: u32,
}

/// What has changed.
#[derive(Debug, Default)]
pub struct Update {
    /// What may be sent, in bits per second.
    pub target: Option<u64>,
    /// How fast, in bits per second.
    pub pacing: Option<u64>,
    /// What is to be sent to look for more.
    pub probes: Vec<Probe>,
}

impl Controller {
    /// None is running yet.
    pub fn new(begun: Instant) -> Self {
        Self {
            begun,
            inner: None,
            failures: 0,
        }
    }

    /// Whether one is running.
    pub fn is_running(&self) -> bool {
        self.inner.is_some()
    }

    /// Whether no more is begun.
    pub fn has_failed(&self) -> bool {
        self.failures >= MAX_FAILURES
    }

    /// Begins a new one, from so many bits per second; so many would be of use, 0: as many as there are.
    pub fn begin(&mut self, now: Instant, start: u64, wanted: u64) -> Update {
        if self.has_failed() {
            return Update::default();
        }
        let at_time = self.time(now);
        let config = NetworkControllerConfig {
            constraints: TargetRateConstraints {
                at_time,
                min_data_rate: Some(rate(MIN_BPS)),
                max_data_rate: Some(rate(MAX_BPS)),
                starting_rate: Some(rate(start)),
            },
            stream_based_config: StreamsConfig {
                at_time,
                requests_alr_probing: Some(true),
                pacing_factor: Some(PACING),
                max_total_allocated_bitrate: (wanted > 0).then(|| rate(wanted)),
                ..StreamsConfig::default()
            },
            field_trials: trials(),
        };
        let controller = GoogCcNetworkController::new(config, GoogCcConfig { feedback_only: true });
        self.inner = Some(Box::new(controller));
        let available = NetworkAvailability {
            at_time,
            network_available: true,
        };
        let mut update = self.consult(|controller| controller.on_network_availability(available));
        update.and(self.look(now));
        update
    }

    /// A packet has left.
    pub fn sent(&mut self, sent: &Sent) -> Update {
        let packet = self.packet(sent);
        self.consult(|controller| controller.on_sent_packet(packet))
    }

    /// The peer has told of packets that did not arrive, and of some that did, with the time by its clock in microseconds. It takes the
    /// former only together with some of the latter.
    pub fn told(&mut self, now: Instant, lost: &[Sent], arrived: &[(Sent, i64)], in_flight: usize) -> Update {
        let lost = lost.iter().map(|sent| (sent, None));
        let arrived = arrived.iter().map(|(sent, time)| (sent, Some(*time)));
        let mut packet_feedbacks: Vec<PacketResult> = lost
            .chain(arrived)
            .map(|(sent, time)| {
                let mut result = PacketResult {
                    sent_packet: self.packet(sent),
                    ..PacketResult::default()
                };
                if let Some(time) = time {
                    result.receive_time = Timestamp::from_micros(time);
                }
                result
            })
            .collect();
        packet_feedbacks.sort_by_key(|result| result.sent_packet.sequence_number);
        let report = TransportPacketsFeedback {
            feedback_time: self.time(now),
            data_in_flight: size(in_flight),
            packet_feedbacks,
            ..TransportPacketsFeedback::default()
        };
        self.consult(|controller| controller.on_transport_packets_feedback(report))
    }

    /// So many bits per second would be of use.
    pub fn want(&mut self, now: Instant, bps: u64) -> Update {
        let config = StreamsConfig {
            at_time: self.time(now),
            max_total_allocated_bitrate: Some(rate(bps)),
            ..StreamsConfig::default()
        };
        self.consult(|controller| controller.on_streams_config(config))
    }

    /// Time has passed.
    pub fn look(&mut self, now: Instant) -> Update {
        let interval = ProcessInterval {
            at_time: self.time(now),
            pacer_queue: None,
        };
        self.consult(|controller| controller.on_process_interval(interval))
    }

    /// A time by our clock, in microseconds, that the peer's are comparable to.
    pub fn micros(&self, now: Instant) -> i64 {
        // The controller's times must not be zero.
        let since = now.saturating_duration_since(self.begun) + Duration::from_secs(100);
        since.as_micros() as i64
    }

    fn consult(&mut self, call: impl FnOnce(&mut GoogCcNetworkController) -> NetworkControlUpdate) -> Update {
        let Some(controller) = &mut self.inner else {
            return Update::default();
        };
        match catch_unwind(AssertUnwindSafe(|| call(controller))) {
            Ok(update) => Update::from(update),
            Err(_) => {
                self.inner = None;
                self.failures += 1;
                Update::default()
            }
        }
    }

    fn packet(&self, sent: &Sent) -> SentPacket {
        let pacing_info = sent.probe.map_or_else(PacedPacketInfo::default, |(probe, before)| {
            let mut info = PacedPacketInfo::new(probe.id as i32, probe.packets.into(), probe.bytes as i64);
            info.send_bitrate = rate(probe.bps);
            info.probe_cluster_bytes_sent = before as i64;
            info
        });
        SentPacket {
            send_time: self.time(sent.at),
            size: size(sent.bytes),
            prior_unacked_data: DataSize::default(),
            pacing_info,
            audio: sent.load == Load::Audio,
            sequence_number: sent.sequence as i64,
            data_in_flight: size(sent.in_flight),
        }
    }

    fn time(&self, now: Instant) -> Timestamp {
        Timestamp::from_micros(self.micros(now))
    }
}

impl Update {
    /// What has changed after it.
    fn and(&mut self, later: Self) {
        self.target = later.target.or(self.target);
        self.pacing = later.pacing.or(self.pacing);
        self.probes.extend(later.probes);
    }
}

impl From<NetworkControlUpdate> for Update {
    fn from(update: NetworkControlUpdate) -> Self {
        let probes = update.probe_cluster_configs.iter().filter_map(|cluster| {
            let bps = bps(cluster.target_data_rate);
            Some(Probe {
                id: u32::try_from(cluster.id).ok()?,
                bps,
                packets: cluster.target_probe_count.max(1) as u32,
                bytes: bps * cluster.target_duration.us().max(0) as u64 / 8_000_000,
            })
        });
        Self {
            target: update
                .target_rate
                .map(|target| bps(target.target_rate).clamp(MIN_BPS, MAX_BPS)),
            pacing: update.pacer_config.map(|pacer| bps(pacer.data_rate()).max(MIN_BPS)),
            probes: probes.collect(),
        }
    }
}

/// How many arrivals at most are looked back at to tell the throughput, of the last second's. The crate goes through all of them for each packet that arrives, as libwebrtc
/// does not, so this is most of what an estimate costs. Higher: dearer on fast paths; libwebrtc has 500. Lower: on those one picture that is larger or later than others
/// counts for more.
const THROUGHPUT_PACKETS: usize = 200;

fn trials() -> FieldTrials {
    FieldTrials {
        robust_throughput_estimator_settings: RobustThroughputEstimatorSettings {
            max_window_packets: THROUGHPUT_PACKETS,
            ..RobustThroughputEstimatorSettings::default()
        },
        ..FieldTrials::default()
    }
}

fn rate(bps: u64) -> DataRate {
    DataRate::from_bits_per_sec(bps as i64)
}

fn bps(rate: DataRate) -> u64 {
    if rate.is_finite() {
        rate.bps().max(0) as u64
    } else {
        MAX_BPS
    }
}

fn size(bytes: usize) -> DataSize {
    DataSize::from_bytes(bytes as i64)
}

#[cfg(test)]
impl Controller {
    /// Makes the one that is running panic.
    pub fn panic_now(&mut self) {
        self.consult(|_| panic!("on purpose"));
    }
}
