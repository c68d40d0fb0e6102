//! What a datagram costs that is dropped: of an SSRC that nobody has, with a wrong tag, and when a stream's forgeries are over their bound;
//! beside them, what one costs that is taken and forwarded.
//!
//! `cargo bench -p signalbox-sfu --bench drops` exits with 1 if a figure misses its bar. Without cargo's `--bench`, as under
//! `cargo test`, it runs briefly and without bars. One thread; system calls are not part of it.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rtc_rtp::{Header, Packet};
use rtc_shared::marshal::Marshal;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;
use signalbox_protocol::control::{Join, Joined, Reply, Transports};
use signalbox_protocol::room::{Grants, Kind, PublishTrack, Source};
use signalbox_protocol::srtp::{SrtpRequest, SrtpStream, SrtpSuite};
use signalbox_protocol::{Generation, NodeId};
use signalbox_sfu::{Limits, Output, Shard, ShardConfig, ShardStats};

/// Bytes of a datagram: a full packet of video.
const DATAGRAM_BYTES: usize = 1_200;

/// Datagrams dropped in a second on one core, at least, where nothing has to be authenticated.
const BAR: f64 = 500_000.0;

/// Participants beside the one that is measured: the maps are not empty.
const OTHERS: usize = 500;

const SUITES: [SrtpSuite; 2] = [SrtpSuite::AesCm128HmacSha1_80, SrtpSuite::AeadAes128Gcm];

fn main() -> ExitCode {
    let is_full = std::env::args().any(|argument| argument == "--bench");
    let time = Duration::from_millis(if is_full { 2_000 } else { 20 });
    let mut is_met = true;
    println!(
        "{:52} {:>12} {:>8}",
        "datagrams of 1,200 bytes", "per second", "ns each"
    );
    let mut print = |what: &str, rate: f64, bar: Option<f64>| {
        println!("{what:52} {rate:12.0} {:8.0}", 1e9 / rate);
        is_met &= bar.is_none_or(|bar| rate >= bar);
    };
    for suite in SUITES {
        let name = suite.name();
        let mut bench = Bench::new(suite);
        let stranger = SocketAddr::from(([192, 0, 2, 7], 9));
        let forged = vec![0x80; DATAGRAM_BYTES];
        let rate = bench.rate(
            time,
            |stats| stats.dropped_ssrc,
            |bench, now, _| {
                bench.shard.handle_datagram(now, stranger, &forged);
            },
        );
        print(&format!("unknown SSRC ({name})"), rate, Some(BAR));

        // From the proven address, so that each is looked at.
        let mut forged = bench.packet();
        let (ssrc, address) = (bench.stream.ssrc, bench.address);
        bench.shard.handle_datagram(bench.now, address, &forged);
        bench.drain();
        let end = forged.len() - 1;
        forged[end] ^= 1;
        let rate = bench.rate(
            time,
            |stats| stats.dropped_unauthentic,
            |bench, now, number| {
                forged[2..4].copy_from_slice(&(20_000 + (number % 10_000) as u16).to_be_bytes());
                bench.shard.handle_datagram(now, address, &forged);
            },
        );
        print(&format!("wrong tag ({name})"), rate, None);

        let mut forged = vec![0x80; DATAGRAM_BYTES];
        forged[1] = 96;
        forged[8..12].copy_from_slice(&ssrc.to_be_bytes());
        let rate = bench.rate(
            time,
            |stats| stats.dropped_limited,
            |bench, now, number| {
                forged[2..4].copy_from_slice(&(20_000 + (number % 10_000) as u16).to_be_bytes());
                bench.shard.handle_datagram(now, stranger, &forged);
            },
        );
        print(&format!("over the bound ({name})"), rate, Some(BAR));

        let packets: Vec<Vec<u8>> = (0..20_000).map(|_| bench.packet()).collect();
        let before = (bench.shard.stats().forwarded, Instant::now());
        for packet in &packets {
            bench.shard.handle_datagram(bench.now, address, packet);
            bench.drain();
        }
        let seconds = before.1.elapsed().as_secs_f64();
        let forwarded = bench.shard.stats().forwarded - before.0;
        assert_eq!(forwarded, packets.len() as u64, "each to one subscriber");
        print(
            &format!("taken and forwarded to one ({name})"),
            forwarded as f64 / seconds,
            None,
        );
    }
    if is_full && !is_met {
        eprintln!("a figure is below its bar of {BAR} per second");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A shard with a publisher whose address is proven and a subscriber whose address is proven.
struct Bench {
    shard: Shard,
    now: Instant,
    stream: SrtpStream,
    address: SocketAddr,
    sender: Context,
    sequence: u16,
}

impl Bench {
    fn new(suite: SrtpSuite) -> Self {
        let now = Instant::now();
        let config = ShardConfig {
            node: NodeId::random(),
            public: SocketAddr::from(([10, 0, 0, 1], 50_000)),
            tunnel: None,
            unix_ms: 0,
            seed: [7; 32],
            // As fast as it can.
            limits: Limits {
                packets_per_second: 0,
                publish_bps: 0,
                ..Limits::default()
            },
        };
        let mut shard = Shard::new(config, now);
        for number in 0..OTHERS {
            // Rooms of their own: what is told to everyone is no part of this.
            join(&mut shard, now, &format!("room-{number}"), "other", suite, true);
        }
        let published = join(&mut shard, now, "measured", "ann", suite, true);
        let received = join(&mut shard, now, "measured", "bob", suite, false);
        let stream = published.srtp.unwrap().publish.remove(0);
        let proof = received.srtp.unwrap().receive.remove(0).proof.unwrap();
        let proof = STANDARD.decode(proof.0).unwrap();
        shard.handle_datagram(now, SocketAddr::from(([10, 0, 2, 2], 6_000)), &proof);
        let mut bench = Self {
            shard,
            now,
            sender: context(&stream),
            stream,
            address: SocketAddr::from(([10, 0, 2, 1], 6_000)),
            sequence: 0,
        };
        bench.drain();
        bench
    }

    /// How many datagrams a second are handled, all of which must be counted so.
    fn rate(
        &mut self,
        time: Duration,
        counted: impl Fn(ShardStats) -> u64,
        mut handle: impl FnMut(&mut Self, Instant, u64),
    ) -> f64 {
        let (mut number, begun) = (0, Instant::now());
        // The bound's second begins with the first that are looked at.
        for _ in 0..100 {
            handle(self, self.now, number);
            number += 1;
        }
        let (before, first) = (counted(self.shard.stats()), number);
        let measured = Instant::now();
        while begun.elapsed() < time {
            for _ in 0..1_000 {
                handle(self, self.now, number);
                number += 1;
            }
        }
        let seconds = measured.elapsed().as_secs_f64();
        assert_eq!(
            counted(self.shard.stats()) - before,
            number - first,
            "all for that reason"
        );
        (number - first) as f64 / seconds
    }

    /// The publisher's next packet: a key frame in VP8.
    fn packet(&mut self) -> Vec<u8> {
        let mut payload = vec![0x10, 0];
        payload.resize(DATAGRAM_BYTES - 12 - 16, 7);
        let packet = Packet {
            header: Header {
                version: 2,
                payload_type: self.stream.payload_type,
                sequence_number: self.sequence,
                ssrc: self.stream.ssrc,
                ..Header::default()
            },
            payload: payload.into(),
        };
        self.sequence += 1;
        let plain = packet.marshal().unwrap();
        self.sender.encrypt_rtp(&plain).unwrap().to_vec()
    }

    fn drain(&mut self) {
        while let Some(output) = self.shard.poll_output(self.now) {
            if let Output::Datagram { bytes, .. } = output {
                std::hint::black_box(bytes);
            }
        }
    }
}

fn context(stream: &SrtpStream) -> Context {
    let bytes = STANDARD.decode(&stream.key.0).unwrap();
    let (key, salt) = bytes.split_at(stream.suite.key_bytes());
    let profile = match stream.suite {
        SrtpSuite::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        SrtpSuite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
    };
    let provider = rtc_srtp::crypto::default_provider().unwrap();
    Context::new(key, salt, profile, None, None, provider.crypto()).unwrap()
}

fn join(shard: &mut Shard, now: Instant, room: &str, identity: &str, suite: SrtpSuite, publishes: bool) -> Joined {
    let track = PublishTrack {
        codec: Some("video/VP8".into()),
        ..PublishTrack::new("track", Kind::Video, Source::Camera)
    };
    let join = Join {
        limits: Default::default(),
        ticket: String::new(),
        room: room.parse().unwrap(),
        identity: identity.parse().unwrap(),
        name: String::new(),
        metadata: String::new(),
        attributes: Default::default(),
        grants: Grants::default(),
        transports: Transports::Srtp,
        auto_subscribe: true,
        never_pause: false,
        attach: true,
        publish: publishes.then_some(track).into_iter().collect(),
        offer: None,
        one_offer: None,
        srtp: Some(SrtpRequest {
            suite,
            ssrcs: Vec::new(),
            receive_present: true,
            receive: Vec::new(),
            resume: Vec::new(),
        }),
        dialect_info: None,
        resume: None,
    };
    match shard.handle_join(now, Generation(1), join).unwrap() {
        Reply::Joined(joined) => *joined,
        other => panic!("{other:?}"),
    }
}
