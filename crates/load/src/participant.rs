//! One participant from its join to its leave: the WebSocket, one or two peer connections, what it sends and what it gets. One task drives all of it.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use livekit_protocol as proto;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid, Pt, Rid, Simulcast, SimulcastLayer};
use str0m::rtp::{ExtensionValues, RtpWrite};
use str0m::{Candidate, Event, Rtc};
use tokio::sync::watch;

use crate::arrivals::{Arrivals, Arrived};
use crate::camera::{Packet, Source};
use crate::connection::{Connection, Happened};
use crate::plan::{Member, Plan, Receive, Role};
use crate::signaling::{Signaling, description};

/// How often the server is told that the participant is there.
const PING: Duration = Duration::from_secs(5);

/// How loud the sound is said to be, in -dBov.
const LEVEL: i8 = -25;

/// If it has fallen so far behind, pictures and sound are left out, as on a machine that is too slow for its encoder.
const BEHIND: Duration = Duration::from_millis(500);

/// What everybody does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Some have yet to join.
    Joining,
    /// It counts.
    Measuring,
    /// Nothing more is sent, and what is on its way arrives.
    Ending,
    /// They leave.
    Leaving,
}

/// What all participants have in common.
#[derive(Debug)]
pub struct Shared {
    /// What is to be done.
    pub plan: Plan,
    /// The address of this machine that the server is reached from.
    pub address: IpAddr,
    /// What to do now.
    pub phase: watch::Receiver<Phase>,
    /// How far it is.
    pub counts: Counts,
}

/// How far it is, for whoever watches.
#[derive(Debug, Default)]
pub struct Counts {
    /// Participants that the server has let in.
    pub joined: AtomicU64,
    /// Participants whose peer connection is up.
    pub connected: AtomicU64,
    /// Participants that failed.
    pub failed: AtomicU64,
    /// Packets that arrived.
    pub packets: AtomicU64,
    /// Bytes in them.
    pub bytes: AtomicU64,
    /// Packets that were sent.
    pub sent: AtomicU64,
}

/// What came of a participant.
#[derive(Debug)]
pub struct Stay {
    /// How long it took until the server let it in.
    pub joined: Duration,
    /// The same until its peer connection was up.
    pub connected: Option<Duration>,
    /// The same until the first packet arrived.
    pub first_packet: Option<Duration>,
    /// The same until the first key frame began to arrive.
    pub first_key_frame: Option<Duration>,
    /// What it sent while it counted.
    pub sent: u64,
    /// What it got while it counted.
    pub arrivals: Arrivals,
}

/// What is sent on an m-line.
struct Line {
    source: Source,
    mid: Mid,
    rids: Vec<Option<Rid>>,
}

struct Participant {
    shared: Arc<Shared>,
    signaling: Signaling,
    begun: Instant,
    joined: Duration,
    connected: Option<Duration>,
    /// The connection that it offers, of those that send.
    publisher: Option<Connection>,
    /// The connection that the server offers: with media for those that receive, for data alone to the others.
    subscriber: Connection,
    receives: bool,
    lines: Vec<Line>,
    /// Tracks that the server has been told how they are looked at.
    pictures: HashSet<String>,
    inbox: Inbox,
    sent: u64,
}

/// Where what arrives goes.
#[derive(Default)]
struct Inbox {
    arrivals: Arrivals,
    /// Whether a stream is sound.
    sounds: HashMap<u32, bool>,
    packets: u64,
    bytes: u64,
    is_connected: bool,
}

/// Joins, stays until the end, and leaves.
pub async fn stay(shared: Arc<Shared>, member: Member) -> anyhow::Result<Stay> {
    let begun = Instant::now();
    let (signaling, join) = Signaling::join(&shared.plan, &member).await?;
    let joined = begun.elapsed();
    shared.counts.joined.fetch_add(1, Ordering::Relaxed);
    let is_light = shared.plan.receive == Receive::Light;
    let subscriber = Connection::new(shared.address, is_light).await?;
    let publisher = match member.role {
        Role::Publisher { .. } => Some(Connection::new(shared.address, false).await?),
        Role::Subscriber => None,
    };
    let mut participant = Participant {
        shared,
        signaling,
        begun,
        joined,
        connected: None,
        publisher,
        subscriber,
        receives: member.role == Role::Subscriber,
        lines: Vec::new(),
        pictures: HashSet::new(),
        inbox: Inbox::default(),
        sent: 0,
    };
    if let Role::Publisher { sound, picture } = member.role {
        participant.publish(sound, picture).await?;
    }
    participant.look_at(&join.other_participants).await?;
    participant.run().await
}

impl Participant {
    /// Announces what it will send, and offers it.
    async fn publish(&mut self, sound: bool, picture: bool) -> anyhow::Result<()> {
        let sizes = self.shared.plan.layers();
        let mut announced = HashSet::new();
        if sound {
            announced.insert("sound".to_owned());
            let request = proto::AddTrackRequest {
                cid: "sound".to_owned(),
                r#type: proto::TrackType::Audio as i32,
                source: proto::TrackSource::Microphone as i32,
                ..proto::AddTrackRequest::default()
            };
            self.signaling.send(Request::AddTrack(request)).await?;
        }
        if picture {
            announced.insert("picture".to_owned());
            let (width, height) = self.shared.plan.size.pixels();
            let qualities = [
                proto::VideoQuality::Low,
                proto::VideoQuality::Medium,
                proto::VideoQuality::High,
            ];
            let layers = sizes.iter().zip(qualities).map(|(size, quality)| {
                let (width, height) = size.pixels();
                proto::VideoLayer {
                    quality: quality as i32,
                    width,
                    height,
                    bitrate: size.bps(),
                    ..proto::VideoLayer::default()
                }
            });
            let request = proto::AddTrackRequest {
                cid: "picture".to_owned(),
                r#type: proto::TrackType::Video as i32,
                source: proto::TrackSource::Camera as i32,
                width,
                height,
                layers: layers.collect(),
                ..proto::AddTrackRequest::default()
            };
            self.signaling.send(Request::AddTrack(request)).await?;
        }
        while !announced.is_empty() {
            match self.signaling.next().await? {
                Response::TrackPublished(published) => {
                    announced.remove(&published.cid);
                }
                // The server's own offer may come before.
                other => self.told(other).await?,
            }
        }
        self.offer(sound, picture).await
    }

    async fn offer(&mut self, sound: bool, picture: bool) -> anyhow::Result<()> {
        let sizes = self.shared.plan.layers();
        let publisher = self.publisher.as_mut().context("it does not publish")?;
        let rids: Vec<Option<Rid>> = match sizes.len() {
            1 => vec![None],
            _ => sizes.iter().map(|size| Some(Rid::from(size.rid()))).collect(),
        };
        let simulcast = (rids.len() > 1).then(|| Simulcast {
            send: rids
                .iter()
                .flatten()
                .map(|rid| SimulcastLayer::new(&rid.to_string()))
                .collect(),
            recv: Vec::new(),
        });
        let now = Instant::now();
        let stream = || Some("load".to_owned());
        let (sdp, lines) = publisher.offer(|api| {
            let mut lines = Vec::new();
            if sound {
                let track = Some("sound".to_owned());
                let mid = api.add_media(MediaKind::Audio, Direction::SendOnly, stream(), track, None);
                let source = Source::microphone(now);
                lines.push(Line {
                    source,
                    mid,
                    rids: vec![None],
                });
            }
            if picture {
                let track = Some("picture".to_owned());
                let mid = api.add_media(MediaKind::Video, Direction::SendOnly, stream(), track, simulcast);
                let source = Source::camera(now, &sizes);
                lines.push(Line { source, mid, rids });
            }
            lines
        })?;
        self.lines = lines;
        self.signaling.send(Request::Offer(description("offer", sdp, 1))).await
    }

    async fn run(mut self) -> anyhow::Result<Stay> {
        let mut phase = self.shared.phase.clone();
        let mut now = *phase.borrow_and_update();
        let mut next_ping = Instant::now() + PING;
        loop {
            let media = self.lines.iter().map(|line| line.source.due).min();
            let media = media.filter(|_| self.inbox.is_connected && now < Phase::Ending);
            let connections = self.publisher.iter().chain([&self.subscriber]);
            let due = connections.map(Connection::due).chain(media).chain([next_ping]).min();
            tokio::select! {
                message = self.signaling.next() => self.told(message?).await?,
                () = readable(self.publisher.as_ref()) => self.receive()?,
                () = self.subscriber.readable() => self.receive()?,
                () = at(due) => {}
                changed = phase.changed() => {
                    changed.context("nobody leads any more")?;
                    now = *phase.borrow_and_update();
                    match now {
                        Phase::Measuring => {
                            self.inbox.arrivals.begin();
                            self.sent = 0;
                        }
                        Phase::Leaving => return self.leave().await,
                        Phase::Joining | Phase::Ending => {}
                    }
                }
            }
            let time = Instant::now();
            self.handle_timeout(time)?;
            if now < Phase::Ending {
                self.send_due(time)?;
            }
            if next_ping <= time {
                next_ping = time + PING;
                self.ping().await?;
            }
            self.account();
        }
    }

    async fn leave(mut self) -> anyhow::Result<Stay> {
        let leave = proto::LeaveRequest {
            reason: proto::DisconnectReason::ClientInitiated as i32,
            ..proto::LeaveRequest::default()
        };
        // Whoever is gone has left.
        let _ = self.signaling.send(Request::Leave(leave)).await;
        let since = |at: Instant| at.saturating_duration_since(self.begun);
        Ok(Stay {
            joined: self.joined,
            connected: self.connected,
            first_packet: self.inbox.arrivals.first_packet.map(since),
            first_key_frame: self.inbox.arrivals.first_key_frame.map(since),
            sent: self.sent,
            arrivals: self.inbox.arrivals,
        })
    }

    async fn ping(&mut self) -> anyhow::Result<()> {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let ping = proto::Ping {
            timestamp: since.as_millis() as i64,
            rtt: 0,
        };
        self.signaling.send(Request::PingReq(ping)).await
    }

    /// The server has said something.
    async fn told(&mut self, message: Response) -> anyhow::Result<()> {
        match message {
            Response::Answer(answer) => {
                let publisher = self.publisher.as_mut().context("an answer to one who offers nothing")?;
                publisher.accept_answer(&answer.sdp)
            }
            Response::Offer(offer) => {
                let answer = self.subscriber.accept_offer(&offer.sdp)?;
                let answer = description("answer", answer, offer.id);
                self.signaling.send(Request::Answer(answer)).await
            }
            Response::Trickle(trickle) => {
                let is_subscribers = trickle.target == proto::SignalTarget::Subscriber as i32;
                let connection = match is_subscribers {
                    true => Some(&mut self.subscriber),
                    false => self.publisher.as_mut(),
                };
                if let (Some(connection), Some(candidate)) = (connection, candidate(&trickle.candidate_init)) {
                    connection.rtc.add_remote_candidate(candidate);
                }
                Ok(())
            }
            Response::Update(update) => self.look_at(&update.participants).await,
            Response::Leave(leave) => bail!("was sent away: {:?}", leave.reason()),
            _ => Ok(()),
        }
    }

    /// Tells the server how new pictures are looked at.
    async fn look_at(&mut self, others: &[proto::ParticipantInfo]) -> anyhow::Result<()> {
        let Some(layout) = self.shared.plan.layout.filter(|_| self.receives) else {
            return Ok(());
        };
        let tracks = others.iter().flat_map(|other| &other.tracks);
        for track in tracks.filter(|track| track.r#type == proto::TrackType::Video as i32) {
            let place = self.pictures.len();
            if !self.pictures.insert(track.sid.clone()) {
                continue;
            }
            let size = layout.size(place);
            let (width, height) = size.unwrap_or_default();
            let settings = proto::UpdateTrackSettings {
                track_sids: vec![track.sid.clone()],
                disabled: size.is_none(),
                width,
                height,
                ..proto::UpdateTrackSettings::default()
            };
            self.signaling.send(Request::TrackSetting(settings)).await?;
        }
        Ok(())
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        let (inbox, lines, receives) = (&mut self.inbox, &mut self.lines, self.receives);
        if let Some(publisher) = &mut self.publisher {
            publisher.receive(|what| inbox.happened(lines, what, true))?;
        }
        self.subscriber.receive(|what| inbox.happened(lines, what, receives))
    }

    fn handle_timeout(&mut self, now: Instant) -> anyhow::Result<()> {
        let (inbox, lines, receives) = (&mut self.inbox, &mut self.lines, self.receives);
        if let Some(publisher) = &mut self.publisher {
            publisher.handle_timeout(now, |what| inbox.happened(lines, what, true))?;
        }
        self.subscriber
            .handle_timeout(now, |what| inbox.happened(lines, what, receives))
    }

    /// Sends what is due of picture and sound.
    fn send_due(&mut self, now: Instant) -> anyhow::Result<()> {
        let Some(publisher) = self.publisher.as_mut().filter(|_| self.inbox.is_connected) else {
            return Ok(());
        };
        let (clock, mut sent) = (SystemTime::now(), 0);
        for line in &mut self.lines {
            if now.saturating_duration_since(line.source.due) > BEHIND {
                line.source.due = now;
            }
            while line.source.due <= now {
                let is_sound = line.source.is_sound();
                let Some(kind) = payload_type(&publisher.rtc, line.mid, is_sound) else {
                    break;
                };
                let (mid, rids) = (line.mid, &line.rids);
                line.source.next(now, clock, |packet| {
                    let rid = rids.get(packet.layer).copied().flatten();
                    sent += u64::from(write(&mut publisher.rtc, (mid, rid, kind), now, is_sound, packet));
                });
            }
        }
        self.sent += sent;
        self.shared.counts.sent.fetch_add(sent, Ordering::Relaxed);
        let (inbox, lines) = (&mut self.inbox, &mut self.lines);
        publisher.drain(|what| inbox.happened(lines, what, true))
    }

    /// Tells whoever watches how far it is.
    fn account(&mut self) {
        let counts = &self.shared.counts;
        if self.inbox.is_connected && self.connected.is_none() {
            self.connected = Some(self.begun.elapsed());
            counts.connected.fetch_add(1, Ordering::Relaxed);
        }
        counts
            .packets
            .fetch_add(std::mem::take(&mut self.inbox.packets), Ordering::Relaxed);
        counts
            .bytes
            .fetch_add(std::mem::take(&mut self.inbox.bytes), Ordering::Relaxed);
    }
}

impl Inbox {
    /// Something has happened on a connection; whether it is the one that it joined for.
    fn happened(&mut self, lines: &mut [Line], what: Happened<'_>, is_main: bool) {
        let (rtc, event) = match what {
            Happened::Event(rtc, event) => (rtc, event),
            Happened::Media(receiver, described, datagram) => {
                let now = (Instant::now(), SystemTime::now());
                let bytes = receiver.handle(now, datagram, described, &mut self.arrivals);
                return self.got(bytes);
            }
        };
        match event {
            Event::Connected => self.is_connected |= is_main,
            Event::RtpPacket(packet) => {
                let ssrc = *packet.header.ssrc;
                let is_sound = *self.sounds.entry(ssrc).or_insert_with(|| {
                    let stream = rtc
                        .direct_api()
                        .stream_rx(&packet.header.ssrc)
                        .map(|stream| stream.mid());
                    let media = stream.and_then(|mid| rtc.media(mid));
                    media.is_some_and(|media| media.kind() == MediaKind::Audio)
                });
                let arrived = Arrived {
                    ssrc,
                    sequence: *packet.seq_no,
                    timestamp: packet.header.timestamp,
                    is_sound,
                    payload: &packet.payload,
                };
                let bytes = self.arrivals.add(Instant::now(), SystemTime::now(), arrived);
                self.got(bytes);
            }
            Event::KeyframeRequest(request) => {
                for line in lines.iter_mut().filter(|line| line.mid == request.mid) {
                    let layer = line.rids.iter().position(|rid| rid.is_some() && *rid == request.rid);
                    line.source.want_key_frame(layer);
                }
            }
            _ => {}
        }
    }

    /// A packet with so many bytes has come; 0: it is nothing new.
    fn got(&mut self, bytes: usize) {
        self.packets += u64::from(bytes > 0);
        self.bytes += bytes as u64;
    }
}

fn write(
    rtc: &mut Rtc,
    (mid, rid, kind): (Mid, Option<Rid>, Pt),
    now: Instant,
    is_sound: bool,
    packet: Packet,
) -> bool {
    let mut direct = rtc.direct_api();
    let Some(stream) = direct.stream_tx_by_mid(mid, rid) else {
        return false;
    };
    let values = ExtensionValues {
        audio_level: is_sound.then_some(LEVEL),
        voice_activity: is_sound.then_some(true),
        ..ExtensionValues::default()
    };
    let write = RtpWrite::new(kind, packet.sequence.into(), packet.timestamp, now, packet.payload)
        .marker(packet.marker)
        .nackable(!is_sound)
        .ext_vals(values);
    stream.write_rtp(write);
    true
}

fn payload_type(rtc: &Rtc, mid: Mid, is_sound: bool) -> Option<Pt> {
    let wanted = if is_sound { Codec::Opus } else { Codec::Vp8 };
    let negotiated = rtc.media(mid)?.remote_pts();
    let params = rtc.codec_config().params().iter();
    let mut fitting = params
        .filter(|params| params.spec().codec == wanted)
        .map(|params| params.pt());
    fitting.find(|kind| negotiated.contains(kind))
}

/// The candidate in a trickle message: JSON as `RTCIceCandidate.toJSON` makes it.
fn candidate(init: &str) -> Option<Candidate> {
    let init: serde_json::Value = serde_json::from_str(init).ok()?;
    Candidate::from_sdp_string(init["candidate"].as_str()?).ok()
}

async fn readable(connection: Option<&Connection>) {
    match connection {
        Some(connection) => connection.readable().await,
        None => pending().await,
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => pending().await,
    }
}
