//! A shard whose participants are WebRTC clients that send pictures and sound and receive everybody's; what is measured is the shard alone. No sockets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use signalbox_protocol::control::{Join, Reply};
use signalbox_protocol::room::{Kind, PublishTrack, Source};
use signalbox_protocol::{Generation, NodeId};
use signalbox_sfu::{Limits, Output, Shard, ShardConfig};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionValues, RtpWrite};
use str0m::{Candidate, Event, Input, Rtc};

use crate::request::request;

/// Packets of a picture.
pub const BURST: usize = 8;

/// Packets of sound in the time of a picture.
pub const SOUNDS: usize = 2;

/// Bytes of a picture's packet on the wire are some 50 more.
const PICTURE_BYTES: usize = 1_100;

const SOUND_BYTES: usize = 80;

/// Pictures per second: 30.
const INTERVAL: Duration = Duration::from_micros(33_333);

/// How finely time passes.
const STEP: Duration = Duration::from_millis(1);

/// Until estimates have found how much the network takes.
const WARM_UP: Duration = Duration::from_secs(20);

/// Who sends, and who receives.
pub struct Stage {
    shard: Shard,
    now: Instant,
    publishers: usize,
    peers: Vec<Peer>,
    by_address: HashMap<SocketAddr, usize>,
    outputs: Vec<Output>,
    in_shard: Duration,
    counts: bool,
}

struct Peer {
    rtc: Rtc,
    address: SocketAddr,
    due: Instant,
    is_connected: bool,
    lines: Vec<(Mid, MediaKind, u64)>,
    ticks: u32,
    received: u64,
}

fn public() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 50_000))
}

/// The shard at work, when that counts. A function of its own, so that a profiler can tell it from everything else.
#[inline(never)]
fn in_shard<T>(shard: &mut Shard, work: impl FnOnce(&mut Shard) -> T) -> T {
    work(shard)
}

impl Stage {
    /// So many who send a picture and sound, and so many who receive all of that.
    pub fn new(publishers: usize, subscribers: usize) -> Self {
        let now = Instant::now();
        let config = ShardConfig {
            node: NodeId::random(),
            public: public(),
            tunnel: None,
            unix_ms: 0,
            seed: [7; 32],
            limits: Limits::default(),
        };
        let mut stage = Self {
            shard: Shard::new(config, now),
            now,
            publishers,
            peers: Vec::new(),
            by_address: HashMap::new(),
            outputs: Vec::with_capacity(100_000),
            in_shard: Duration::ZERO,
            counts: false,
        };
        for _ in 0..publishers {
            stage.join(Direction::SendOnly, 1);
        }
        for _ in 0..subscribers {
            stage.join(Direction::RecvOnly, publishers);
        }
        while !stage.peers.iter().all(|peer| peer.is_connected) {
            stage.step();
        }
        let end = stage.now + WARM_UP;
        while stage.now < end {
            stage.picture();
        }
        stage.counts = true;
        stage
    }

    /// How many packets a subscriber should get of a picture's time from all publishers.
    pub fn packets(&self) -> u64 {
        let subscribers = self.peers.len() - self.publishers;
        ((BURST + SOUNDS) * self.publishers * subscribers) as u64
    }

    /// How long the shard has worked so far.
    pub fn worked(&self) -> Duration {
        self.in_shard
    }

    /// The time of a picture passes. Returns how many packets subscribers got.
    pub fn picture(&mut self) -> u64 {
        let received = |stage: &Self| stage.peers.iter().map(|peer| peer.received).sum::<u64>();
        let (before, end) = (received(self), self.now + INTERVAL);
        for index in 0..self.publishers {
            self.peers[index].send(self.now);
            self.deliver(index);
        }
        self.drain();
        while self.now < end {
            self.step();
        }
        received(self) - before
    }

    fn join(&mut self, direction: Direction, tracks: usize) {
        let index = self.peers.len();
        let address = SocketAddr::from(([10, 0, 1, index as u8 + 1], 4_000));
        let mut rtc = Rtc::builder()
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .set_rtp_mode(true)
            .build(self.now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        let (mut api, mut lines) = (rtc.sdp_api(), Vec::new());
        let named = |name: &str| (direction == Direction::SendOnly).then(|| name.to_owned());
        for (kind, name) in [(MediaKind::Audio, "sound"), (MediaKind::Video, "picture")] {
            for _ in 0..tracks {
                let mid = api.add_media(kind, direction, None, named(name), None);
                lines.push((mid, kind, 1_000));
            }
        }
        let (offer, pending) = api.apply().unwrap();
        let publishes = direction == Direction::SendOnly;
        let publish = [
            PublishTrack::new("sound", Kind::Audio, Source::Microphone),
            PublishTrack::new("picture", Kind::Video, Source::Camera),
        ];
        let join = Join {
            auto_subscribe: !publishes,
            never_pause: true,
            publish: if publishes { publish.into() } else { Vec::new() },
            offer: Some(offer.to_sdp_string()),
            ..request(&format!("participant-{index}"))
        };
        let reply = self.shard.handle_join(self.now, Generation(1), join).unwrap();
        let Reply::Joined(joined) = reply else {
            panic!("{reply:?}")
        };
        let answer = SdpAnswer::from_sdp_string(&joined.answer.unwrap()).unwrap();
        rtc.sdp_api().accept_answer(pending, answer).unwrap();
        self.by_address.insert(address, index);
        self.peers.push(Peer {
            rtc,
            address,
            due: self.now,
            is_connected: false,
            lines,
            ticks: 0,
            received: 0,
        });
    }

    fn timed<T>(&mut self, work: impl FnOnce(&mut Shard, Instant) -> T) -> T {
        let (now, begun) = (self.now, Instant::now());
        let done = match self.counts {
            true => in_shard(&mut self.shard, |shard| work(shard, now)),
            false => work(&mut self.shard, now),
        };
        self.in_shard += begun.elapsed();
        done
    }

    fn step(&mut self) {
        self.now += STEP;
        if self.shard.poll_timeout().is_some_and(|due| due <= self.now) {
            self.timed(|shard, now| shard.handle_timeout(now));
        }
        for index in 0..self.peers.len() {
            if self.peers[index].due <= self.now {
                self.peers[index].rtc.handle_input(Input::Timeout(self.now)).unwrap();
                self.deliver(index);
            }
        }
        self.drain();
    }

    /// Gives the shard what a peer sends, all at once, as they are read from a socket.
    fn deliver(&mut self, index: usize) {
        let address = self.peers[index].address;
        for datagram in self.peers[index].poll() {
            self.timed(|shard, now| shard.handle_datagram(now, address, &datagram));
        }
    }

    fn drain(&mut self) {
        loop {
            let mut outputs = std::mem::take(&mut self.outputs);
            self.timed(|shard, now| outputs.extend(std::iter::from_fn(|| shard.poll_output(now))));
            if outputs.is_empty() {
                self.outputs = outputs;
                return;
            }
            let mut heard = Vec::new();
            for output in outputs.drain(..) {
                let Output::Datagram { to, bytes } = output else {
                    continue;
                };
                let index = self.by_address[&to];
                let peer = &mut self.peers[index];
                let receive = Receive::new(Protocol::Udp, public(), to, &bytes).unwrap();
                peer.rtc.handle_input(Input::Receive(self.now, receive)).unwrap();
                let answers = peer.poll();
                if !answers.is_empty() {
                    heard.push((to, answers));
                }
            }
            self.outputs = outputs;
            for (from, answers) in heard {
                for datagram in answers {
                    self.timed(|shard, now| shard.handle_datagram(now, from, &datagram));
                }
            }
        }
    }
}

impl Peer {
    fn send(&mut self, now: Instant) {
        self.ticks += 1;
        for (mid, kind, sequence) in &mut self.lines {
            let (packets, bytes, ticks) = match kind {
                MediaKind::Audio => (SOUNDS, SOUND_BYTES, 1_600),
                MediaKind::Video => (BURST, PICTURE_BYTES, 3_000),
            };
            let kind: Pt = self.rtc.media(*mid).unwrap().remote_pts()[0];
            for part in 0..packets {
                let is_picture = packets == BURST;
                // Each picture is a key frame in VP8 (RFC 7741 section 4.2), so that nobody waits for one.
                let mut payload = vec![if part == 0 { 0x10 } else { 0 }, 0];
                payload.resize(bytes, 0);
                let timestamp = self.ticks * ticks + if is_picture { 0 } else { part as u32 * 800 };
                let values = ExtensionValues {
                    audio_level: (!is_picture).then_some(-25),
                    voice_activity: (!is_picture).then_some(true),
                    ..ExtensionValues::default()
                };
                let write = RtpWrite::new(kind, (*sequence).into(), timestamp, now, payload)
                    .marker(is_picture && part + 1 == packets)
                    .nackable(is_picture)
                    .ext_vals(values);
                *sequence += 1;
                let mut api = self.rtc.direct_api();
                api.stream_tx_by_mid(*mid, None).unwrap().write_rtp(write);
            }
        }
    }

    fn poll(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        loop {
            match self.rtc.poll_output().unwrap() {
                str0m::Output::Transmit(transmit) => sent.push(transmit.contents.to_vec()),
                str0m::Output::Event(Event::Connected) => self.is_connected = true,
                str0m::Output::Event(Event::RtpPacket(_)) => self.received += 1,
                str0m::Output::Event(_) => {}
                str0m::Output::Timeout(due) => {
                    self.due = due;
                    return sent;
                }
            }
        }
    }
}
