//! What a forwarded packet costs on a peer connection that carries few tracks, and on one that carries many.
//!
//! Publishers without a peer connection send two packets a millisecond in all, whatever their number, to one subscriber with a peer connection;
//! what is measured is the shard alone: taking the packet, forwarding it, and taking the subscriber's feedback. `cargo bench -p signalbox-sfu
//! --bench many_tracks` exits with 1 if many tracks cost more than the bar. Without cargo's `--bench`, as under `cargo test`, it runs
//! briefly and without a bar. One thread; system calls are not part of it.
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
use signalbox_protocol::room::{Kind, PublishTrack, Source};
use signalbox_protocol::srtp::{SrtpRequest, SrtpStream, SrtpSuite};
use signalbox_protocol::{Generation, NodeId};
use signalbox_sfu::{Limits, Output, Shard, ShardConfig};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Rtc};

#[path = "request.rs"]
mod request;

use request::request;

/// Subscribed tracks.
const TRACKS: [usize; 3] = [2, 20, 100];

/// What a packet may cost at most with the most tracks, in parts of what it costs with the fewest.
const BAR: f64 = 2.0;

/// Bytes of a payload: a full packet of video.
const PAYLOAD_BYTES: usize = 1_100;

/// Time between two packets: with 100 tracks, each has 20 a second.
const STEP: Duration = Duration::from_micros(500);

fn main() -> ExitCode {
    let is_full = std::env::args().any(|argument| argument == "--bench");
    let (warm_up, measured, rounds) = if is_full { (12_000, 20_000, 5) } else { (6_000, 200, 1) };
    println!("{:8} {:>14} {:>16}", "tracks", "ns per packet", "packets forwarded");
    // Rounds alternate between the numbers of tracks, and the quickest of each counts: the machine may be busy with something else.
    let mut benches: Vec<Bench> = TRACKS.iter().map(|tracks| Bench::new(*tracks)).collect();
    for bench in &mut benches {
        bench.run(warm_up);
    }
    let mut best = [(f64::INFINITY, 0); TRACKS.len()];
    for _ in 0..rounds {
        for (bench, best) in benches.iter_mut().zip(&mut best) {
            let (nanoseconds, forwarded) = bench.run(measured);
            assert!(
                forwarded as usize >= measured * 9 / 10,
                "{forwarded} of {measured} forwarded"
            );
            *best = (best.0.min(nanoseconds / forwarded as f64), best.1 + forwarded);
        }
    }
    for (tracks, (nanoseconds, forwarded)) in TRACKS.iter().zip(best) {
        println!("{tracks:8} {nanoseconds:14.0} {forwarded:16}");
    }
    let ratio = best[TRACKS.len() - 1].0 / best[0].0;
    println!(
        "{} tracks cost {ratio:.2} times as much as {}",
        TRACKS[TRACKS.len() - 1],
        TRACKS[0]
    );
    if is_full && ratio > BAR {
        eprintln!("that is above the bar of {BAR}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A shard with publishers and a subscriber of all of them.
struct Bench {
    shard: Shard,
    now: Instant,
    publishers: Vec<Publisher>,
    next: usize,
    client: Rtc,
    client_due: Instant,
    received: u64,
    is_connected: bool,
    in_shard: Duration,
}

struct Publisher {
    address: SocketAddr,
    stream: SrtpStream,
    sender: Context,
    sequence: u16,
}

fn public() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 50_000))
}

fn subscriber() -> SocketAddr {
    SocketAddr::from(([10, 0, 1, 1], 4_000))
}

impl Bench {
    fn new(tracks: usize) -> Self {
        let now = Instant::now();
        let config = ShardConfig {
            node: NodeId::random(),
            public: public(),
            tunnel: None,
            unix_ms: 0,
            seed: [7; 32],
            limits: Limits::default(),
        };
        let mut shard = Shard::new(config, now);
        let publishers = (0..tracks).map(|number| publisher(&mut shard, now, number)).collect();
        let mut client = Rtc::builder().set_rtp_mode(true).build(now);
        client.add_local_candidate(Candidate::host(subscriber(), "udp").unwrap());
        let mut api = client.sdp_api();
        for _ in 0..tracks {
            api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        }
        let (offer, pending) = api.apply().unwrap();
        let joined = join(
            &mut shard,
            now,
            Join {
                transports: Transports::Single,
                auto_subscribe: true,
                never_pause: true,
                offer: Some(offer.to_sdp_string()),
                ..request("subscriber")
            },
        );
        let answer = SdpAnswer::from_sdp_string(&joined.answer.unwrap()).unwrap();
        client.sdp_api().accept_answer(pending, answer).unwrap();
        let mut bench = Self {
            shard,
            now,
            publishers,
            next: 0,
            client,
            client_due: now,
            received: 0,
            is_connected: false,
            in_shard: Duration::ZERO,
        };
        while !bench.is_connected {
            bench.step();
        }
        bench
    }

    /// Sends so many packets. Returns the nanoseconds that the shard took, and how many packets the subscriber got.
    fn run(&mut self, packets: usize) -> (f64, u64) {
        let (before, received) = (self.in_shard, self.received);
        for _ in 0..packets {
            let index = self.next % self.publishers.len();
            self.next += 1;
            let publisher = &mut self.publishers[index];
            let (address, datagram) = (publisher.address, publisher.packet());
            self.timed(|shard, now| shard.handle_datagram(now, address, &datagram));
            self.step();
        }
        let nanoseconds = (self.in_shard - before).as_nanos() as f64;
        (nanoseconds, self.received - received)
    }

    fn timed<T>(&mut self, run: impl FnOnce(&mut Shard, Instant) -> T) -> T {
        let begun = Instant::now();
        let done = run(&mut self.shard, self.now);
        self.in_shard += begun.elapsed();
        done
    }

    /// Lets a step of time pass.
    fn step(&mut self) {
        self.exchange();
        self.now += STEP;
        if self.shard.poll_timeout().is_some_and(|due| due <= self.now) {
            self.timed(|shard, now| shard.handle_timeout(now));
        }
        if self.client_due <= self.now {
            self.client.handle_input(Input::Timeout(self.now)).unwrap();
        }
        self.exchange();
    }

    fn exchange(&mut self) {
        loop {
            let sent = self.timed(|shard, now| {
                let outputs = std::iter::from_fn(|| shard.poll_output(now));
                outputs.collect::<Vec<_>>()
            });
            for output in sent {
                if let Output::Datagram { to, bytes } = output
                    && to == subscriber()
                {
                    let receive = Receive::new(Protocol::Udp, public(), subscriber(), &bytes).unwrap();
                    self.client.handle_input(Input::Receive(self.now, receive)).unwrap();
                    self.poll_client();
                }
            }
            if self.poll_client() == 0 {
                return;
            }
        }
    }

    /// Gives the shard what the client sends; how many datagrams that were.
    fn poll_client(&mut self) -> usize {
        let mut datagrams = 0;
        loop {
            match self.client.poll_output().unwrap() {
                str0m::Output::Transmit(transmit) => {
                    datagrams += 1;
                    self.timed(|shard, now| shard.handle_datagram(now, subscriber(), &transmit.contents));
                }
                str0m::Output::Event(event) => {
                    self.is_connected |= matches!(event, Event::Connected);
                    self.received += u64::from(matches!(event, Event::RtpPacket(_)));
                }
                str0m::Output::Timeout(due) => {
                    self.client_due = due;
                    return datagrams;
                }
            }
        }
    }
}

impl Publisher {
    /// The next packet: a key frame in VP8.
    fn packet(&mut self) -> Vec<u8> {
        let mut payload = vec![0x10, 0];
        payload.resize(PAYLOAD_BYTES, 7);
        let packet = Packet {
            header: Header {
                version: 2,
                marker: true,
                payload_type: self.stream.payload_type,
                sequence_number: self.sequence,
                timestamp: u32::from(self.sequence) * 3_000,
                ssrc: self.stream.ssrc,
                ..Header::default()
            },
            payload: payload.into(),
        };
        self.sequence += 1;
        self.sender.encrypt_rtp(&packet.marshal().unwrap()).unwrap().to_vec()
    }
}

fn publisher(shard: &mut Shard, now: Instant, number: usize) -> Publisher {
    let track = PublishTrack {
        codec: Some("video/VP8".into()),
        ..PublishTrack::new("track", Kind::Video, Source::Camera)
    };
    let joined = join(
        shard,
        now,
        Join {
            transports: Transports::Srtp,
            publish: vec![track],
            srtp: Some(SrtpRequest {
                suite: SrtpSuite::AeadAes128Gcm,
                ssrcs: Vec::new(),
                receive_present: false,
                receive: Vec::new(),
                resume: Vec::new(),
            }),
            ..request(&format!("publisher-{number}"))
        },
    );
    let stream = joined.srtp.unwrap().publish.remove(0);
    let bytes = STANDARD.decode(&stream.key.0).unwrap();
    let (key, salt) = bytes.split_at(stream.suite.key_bytes());
    let provider = rtc_srtp::crypto::default_provider().unwrap();
    let profile = ProtectionProfile::AeadAes128Gcm;
    Publisher {
        address: SocketAddr::from(([10, 0, 2, number as u8], 6_000)),
        sender: Context::new(key, salt, profile, None, None, provider.crypto()).unwrap(),
        stream,
        sequence: 0,
    }
}

fn join(shard: &mut Shard, now: Instant, join: Join) -> Joined {
    match shard.handle_join(now, Generation(1), join).unwrap() {
        Reply::Joined(joined) => *joined,
        other => panic!("{other:?}"),
    }
}
