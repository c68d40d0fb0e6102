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

/// For so long after it has begun, after a loss, and after the path was what bounds, the controller is told of every packet. Its memory of losses reaches about as far, and it
/// counts packets there: what arrives in fewer, larger ones would weigh too little beside what is lost. Higher: a path that loses something now and then costs more.
const DETAILED: Duration = Duration::from_secs(6);

/// The controller of one connection.
pub struct Controller {
    begun: Instant,
    inner: Option<Box<GoogCcNetworkController>>,
    failures: u32,
    /// What has left at the same moment, and was not told to the one that is running yet.
    leaving: Option<SentPacket>,
    /// Until when it is told of every packet.
    detailed_until: Instant,
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
            leaving: None,
            detailed_until: begun,
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
        self.leaving = None;
        self.detailed_until = now + DETAILED;
        let available = NetworkAvailability {
            at_time,
            network_available: true,
        };
        let mut update = self.consult(|controller| controller.on_network_availability(available));
        update.and(self.look(now));
        update
    }

    /// A packet has left. What leaves at one moment is told as one, and before anything else is; there is nothing that it changes.
    pub fn sent(&mut self, sent: &Sent) {
        let packet = self.packet(sent);
        match &mut self.leaving {
            Some(leaving) if is_same_burst(leaving, &packet) => join(leaving, &packet),
            _ => {
                self.tell_leaving();
                self.leaving = Some(packet);
            }
        }
    }

    fn tell_leaving(&mut self) {
        if let Some(leaving) = self.leaving.take() {
            self.consult(|controller| controller.on_sent_packet(leaving));
        }
    }

    /// The peer has told of packets that did not arrive, and of some that did, with the time by its clock in microseconds. It takes the
    /// former only together with some of the latter. As long as the path is wide, what left at one moment may be told as one, which is most of what an estimate costs.
    pub fn told(
        &mut self,
        now: Instant,
        lost: &[Sent],
        arrived: &[(Sent, i64)],
        in_flight: usize,
        is_wide: bool,
    ) -> Update {
        self.tell_leaving();
        if !lost.is_empty() || !is_wide {
            self.detailed_until = now + DETAILED;
        }
        let packet_feedbacks = self.results(lost, arrived, now >= self.detailed_until);
        let report = TransportPacketsFeedback {
            feedback_time: self.time(now),
            data_in_flight: size(in_flight),
            packet_feedbacks,
            ..TransportPacketsFeedback::default()
        };
        self.consult(|controller| controller.on_transport_packets_feedback(report))
    }

    /// What became of which packets, ascending; what left at one moment and arrived as one, if that may be.
    fn results(&self, lost: &[Sent], arrived: &[(Sent, i64)], may_join: bool) -> Vec<PacketResult> {
        let mut results: Vec<PacketResult> = Vec::with_capacity(lost.len() + arrived.len());
        results.extend(lost.iter().map(|sent| PacketResult {
            sent_packet: self.packet(sent),
            ..PacketResult::default()
        }));
        for (sent, time) in arrived {
            let (packet, receive_time) = (self.packet(sent), Timestamp::from_micros(*time));
            match results.last_mut() {
                // It groups them itself by when they left, and looks at when the last of a group arrives.
                Some(last)
                    if may_join && is_same_burst(&last.sent_packet, &packet) && last.receive_time <= receive_time =>
                {
                    join(&mut last.sent_packet, &packet);
                    last.receive_time = receive_time;
                }
                _ => results.push(PacketResult {
                    sent_packet: packet,
                    receive_time,
                    ..PacketResult::default()
                }),
            }
        }
        results.sort_by_key(|result| result.sent_packet.sequence_number);
        results
    }

    /// So many bits per second would be of use.
    pub fn want(&mut self, now: Instant, bps: u64) -> Update {
        self.tell_leaving();
        let config = StreamsConfig {
            at_time: self.time(now),
            max_total_allocated_bitrate: Some(rate(bps)),
            ..StreamsConfig::default()
        };
        self.consult(|controller| controller.on_streams_config(config))
    }

    /// Time has passed.
    pub fn look(&mut self, now: Instant) -> Update {
        self.tell_leaving();
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

/// Whether a packet left at the same moment as another before it. Those of probes are counted one by one.
fn is_same_burst(before: &SentPacket, packet: &SentPacket) -> bool {
    let is_probe = |packet: &SentPacket| packet.pacing_info.probe_cluster_id != PacedPacketInfo::NOT_APROBE;
    before.send_time == packet.send_time
        && before.audio == packet.audio
        && !is_probe(before)
        && !is_probe(packet)
        && before.sequence_number < packet.sequence_number
}

fn join(before: &mut SentPacket, packet: &SentPacket) {
    before.size += packet.size;
    before.sequence_number = packet.sequence_number;
    before.data_in_flight = packet.data_in_flight;
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

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn sent(sequence: u64, at: Instant, load: Load, probe: Option<Probe>) -> Sent {
        Sent {
            sequence,
            at,
            bytes: 1_000,
            load,
            probe: probe.map(|probe| (probe, 0)),
            in_flight: 1_000 * sequence as usize,
        }
    }

    /// Number, bytes and time of arrival of each.
    fn told(results: &[PacketResult]) -> Vec<(i64, i64, i64)> {
        let told = |result: &PacketResult| {
            let (sent, at) = (&result.sent_packet, result.receive_time);
            (sent.sequence_number, sent.size.bytes(), at.us())
        };
        results.iter().map(told).collect()
    }

    #[test]
    fn what_left_at_one_moment_is_told_as_one_if_that_may_be() {
        let begun = Instant::now();
        let controller = Controller::new(begun);
        let (first, second) = (begun + 10 * MS, begun + 43 * MS);
        let probe = Probe {
            id: 7,
            bps: 1_000_000,
            packets: 5,
            bytes: 5_000,
        };
        let arrived = [
            (sent(1, first, Load::Video, None), 100),
            (sent(2, first, Load::Video, None), 200),
            (sent(3, first, Load::Video, None), 300),
            (sent(4, second, Load::Audio, None), 400),
            (sent(5, second, Load::Video, None), 600),
            // It has overtaken the one before.
            (sent(6, second, Load::Video, None), 500),
            (sent(7, second, Load::Padding, Some(probe)), 700),
            (sent(8, second, Load::Padding, Some(probe)), 800),
        ];
        let joined = controller.results(&[], &arrived, true);
        let expected = [
            (3, 3_000, 300),
            (4, 1_000, 400),
            (5, 1_000, 600),
            (6, 1_000, 500),
            (7, 1_000, 700),
            (8, 1_000, 800),
        ];
        assert_eq!(told(&joined), expected);
        assert_eq!(joined[0].sent_packet.data_in_flight, size(3_000));
        let each: Vec<_> = (1..)
            .zip(&arrived)
            .map(|(number, (_, at))| (number, 1_000, *at))
            .collect();
        assert_eq!(told(&controller.results(&[], &arrived, false)), each);
    }

    #[test]
    fn every_packet_is_told_for_a_while_after_a_loss_and_after_the_path_was_narrow() {
        let begun = Instant::now();
        let mut controller = Controller::new(begun);
        controller.begin(begun, 1_000_000, 0);
        let is_detailed = |controller: &Controller, now: Instant| now < controller.detailed_until;
        assert!(is_detailed(&controller, begun + DETAILED - MS));
        let mut now = begun;
        let mut tell = |controller: &mut Controller, lost: &[Sent], is_wide: bool| {
            now += DETAILED;
            let arrived = [(sent(2, now - 20 * MS, Load::Video, None), 1_000_000)];
            controller.told(now, lost, &arrived, 0, is_wide);
            now
        };
        let now = tell(&mut controller, &[], true);
        assert!(!is_detailed(&controller, now));
        let lost = [sent(1, begun, Load::Video, None)];
        for (lost, is_wide) in [(&lost[..], true), (&[], false)] {
            let now = tell(&mut controller, lost, is_wide);
            assert!(is_detailed(&controller, now + DETAILED - MS));
            assert!(!is_detailed(&controller, now + DETAILED));
        }
    }
}
