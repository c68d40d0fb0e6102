//! One participant from its join to its leave: its signaling, one or two peer connections, what it sends and what it gets. One task drives all of it.

use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use livekit_protocol as proto;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use str0m::Candidate;
use tokio_util::sync::CancellationToken;

use crate::arrivals::Arrivals;
use crate::connection::Connection;
use crate::inbox::Inbox;
use crate::livekit::{LiveKit, description};
use crate::plan::{Member, Protocol, Receive, Role};
use crate::publication::{self, Publication};
use crate::shared::{Phase, Shared};
use crate::signaling::Signaling;
use crate::whip::Whip;

/// How often the server is told that the participant is there.
const PING: Duration = Duration::from_secs(5);

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

struct Participant {
    shared: Arc<Shared>,
    signaling: Signaling,
    begun: Instant,
    joined: Duration,
    connected: Option<Duration>,
    /// The connection that it offers, of those that send.
    publisher: Option<Connection>,
    /// The connection on which it receives: with LiveKit's protocol the server offers it, with media for those that receive, for data alone to the others.
    subscriber: Option<Connection>,
    receives: bool,
    publication: Publication,
    /// Tracks that the server has been told how they are looked at.
    pictures: HashSet<String>,
    inbox: Inbox,
    sent: u64,
}

/// Joins, stays until the end or until it is to leave, and leaves.
pub async fn stay(shared: Arc<Shared>, member: Member, leave: CancellationToken) -> anyhow::Result<Stay> {
    let participant = match shared.plan.protocol {
        Protocol::LiveKit => join_with_livekit(shared, member).await?,
        Protocol::Whip => join_with_whip(shared, member).await?,
    };
    participant.run(leave).await
}

async fn join_with_livekit(shared: Arc<Shared>, member: Member) -> anyhow::Result<Participant> {
    let begun = Instant::now();
    let (livekit, join) = LiveKit::join(&shared.plan, &shared.tls, &member).await?;
    let joined = begun.elapsed();
    let is_light = shared.plan.receive == Receive::Light;
    let subscriber = Some(Connection::new(shared.address, is_light).await?);
    let publisher = match member.role {
        Role::Publisher { .. } => Some(Connection::new(shared.address, false).await?),
        Role::Subscriber => None,
    };
    let signaling = Signaling::LiveKit(Box::new(livekit));
    let mut participant = Participant::new(shared, signaling, (begun, joined), publisher, subscriber);
    participant.receives = member.role == Role::Subscriber;
    if let Role::Publisher { sound, picture } = member.role {
        participant.publish(sound, picture).await?;
    }
    participant.look_at(&join.other_participants).await?;
    Ok(participant)
}

async fn join_with_whip(shared: Arc<Shared>, member: Member) -> anyhow::Result<Participant> {
    let begun = Instant::now();
    let plan = &shared.plan;
    let is_light = plan.receive == Receive::Light && member.role == Role::Subscriber;
    let mut connection = Connection::new(shared.address, is_light).await?;
    let (offer, publication) = match member.role {
        Role::Publisher { sound, picture } => {
            let layers = picture.then(|| plan.layers());
            Publication::offer(&mut connection, sound, layers.as_deref())?
        }
        Role::Subscriber => {
            let offer = connection.offer_to_receive(plan.publishers, plan.video_publishers)?;
            (offer, Publication::default())
        }
    };
    let (whip, answer) = Whip::begin(&shared.http, plan, &member, &offer).await?;
    let joined = begun.elapsed();
    connection.accept_answer(&answer)?;
    let (publisher, subscriber) = match member.role {
        Role::Publisher { .. } => (Some(connection), None),
        Role::Subscriber => (None, Some(connection)),
    };
    let mut participant = Participant::new(shared, Signaling::Whip(whip), (begun, joined), publisher, subscriber);
    participant.receives = member.role == Role::Subscriber;
    participant.publication = publication;
    Ok(participant)
}

impl Participant {
    /// One that the server has let in.
    fn new(
        shared: Arc<Shared>,
        signaling: Signaling,
        (begun, joined): (Instant, Duration),
        publisher: Option<Connection>,
        subscriber: Option<Connection>,
    ) -> Self {
        shared.counts.joined.fetch_add(1, Ordering::Relaxed);
        Self {
            shared,
            signaling,
            begun,
            joined,
            connected: None,
            publisher,
            subscriber,
            receives: false,
            publication: Publication::default(),
            pictures: HashSet::new(),
            inbox: Inbox::default(),
            sent: 0,
        }
    }

    /// Announces what it will send, and offers it.
    async fn publish(&mut self, sound: bool, picture: bool) -> anyhow::Result<()> {
        let layers = picture.then(|| self.shared.plan.layers());
        let of_picture = layers.as_deref().map(publication::picture);
        let requests = sound.then(publication::sound).into_iter().chain(of_picture);
        let mut announced = HashSet::new();
        for request in requests {
            announced.insert(request.cid.clone());
            self.signaling.livekit()?.send(Request::AddTrack(request)).await?;
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
        let publisher = self.publisher.as_mut().context("it does not publish")?;
        let (sdp, publication) = Publication::offer(publisher, sound, layers.as_deref())?;
        self.publication = publication;
        let offer = Request::Offer(description("offer", sdp, 1));
        self.signaling.livekit()?.send(offer).await
    }

    async fn run(mut self, leave: CancellationToken) -> anyhow::Result<Stay> {
        let mut phase = self.shared.phase.clone();
        let mut now = *phase.borrow_and_update();
        let mut next_ping = Instant::now() + PING;
        loop {
            let media = self.publication.due();
            let media = media.filter(|_| self.inbox.is_connected && now < Phase::Ending);
            let connections = self.publisher.iter().chain(&self.subscriber);
            let due = connections.map(Connection::due).chain(media).chain([next_ping]).min();
            tokio::select! {
                message = self.signaling.next() => self.told(message?).await?,
                () = readable(self.publisher.as_ref()) => self.receive()?,
                () = readable(self.subscriber.as_ref()) => self.receive()?,
                () = at(due) => {}
                () = leave.cancelled() => return self.leave().await,
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
                self.signaling.ping().await?;
            }
            self.account();
        }
    }

    async fn leave(mut self) -> anyhow::Result<Stay> {
        self.signaling.leave().await;
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

    /// The server has said something.
    async fn told(&mut self, message: Response) -> anyhow::Result<()> {
        match message {
            Response::Answer(answer) => {
                let publisher = self.publisher.as_mut().context("an answer to one who offers nothing")?;
                publisher.accept_answer(&answer.sdp)
            }
            Response::Offer(offer) => {
                let subscriber = self
                    .subscriber
                    .as_mut()
                    .context("an offer to one who receives nothing")?;
                let answer = subscriber.accept_offer(&offer.sdp)?;
                let answer = description("answer", answer, offer.id);
                self.signaling.livekit()?.send(Request::Answer(answer)).await
            }
            Response::Trickle(trickle) => {
                let is_subscribers = trickle.target == proto::SignalTarget::Subscriber as i32;
                let connection = match is_subscribers {
                    true => self.subscriber.as_mut(),
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
            self.signaling.livekit()?.send(Request::TrackSetting(settings)).await?;
        }
        Ok(())
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        let (inbox, publication, receives) = (&mut self.inbox, &mut self.publication, self.receives);
        if let Some(publisher) = &mut self.publisher {
            publisher.receive(|what| inbox.happened(publication, what, true))?;
        }
        if let Some(subscriber) = &mut self.subscriber {
            subscriber.receive(|what| inbox.happened(publication, what, receives))?;
        }
        Ok(())
    }

    fn handle_timeout(&mut self, now: Instant) -> anyhow::Result<()> {
        let (inbox, publication, receives) = (&mut self.inbox, &mut self.publication, self.receives);
        if let Some(publisher) = &mut self.publisher {
            publisher.handle_timeout(now, |what| inbox.happened(publication, what, true))?;
        }
        if let Some(subscriber) = &mut self.subscriber {
            subscriber.handle_timeout(now, |what| inbox.happened(publication, what, receives))?;
        }
        Ok(())
    }

    fn send_due(&mut self, now: Instant) -> anyhow::Result<()> {
        let Some(publisher) = self.publisher.as_mut().filter(|_| self.inbox.is_connected) else {
            return Ok(());
        };
        let sent = self.publication.send_due(&mut publisher.rtc, now);
        self.sent += sent;
        self.shared.counts.sent.fetch_add(sent, Ordering::Relaxed);
        let (inbox, publication) = (&mut self.inbox, &mut self.publication);
        publisher.drain(|what| inbox.happened(publication, what, true))
    }

    /// Tells whoever watches how far it is.
    fn account(&mut self) {
        let counts = &self.shared.counts;
        if self.inbox.is_connected && self.connected.is_none() {
            self.connected = Some(self.begun.elapsed());
            counts.connected.fetch_add(1, Ordering::Relaxed);
        }
        let (packets, bytes) = self.inbox.counted();
        counts.packets.fetch_add(packets, Ordering::Relaxed);
        counts.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
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
