//! A client of the HTTP join: one offer, slots, and the event stream.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context, bail};
use futures_util::StreamExt;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use signalbox_protocol::control::{CodecWanted, StreamState};
use signalbox_protocol::room::{
    ConnectionQuality, Kind, LayerInfo, MediaAddress, ParticipantInfo, ParticipantQuality, PublishTrack, RoomInfo,
    Slot, Source, Speaker, TrackInfo,
};
use signalbox_protocol::{ParticipantId, TrackId};
use str0m::change::SdpApi;
use str0m::media::{Direction, MediaKind, Mid, Simulcast, SimulcastLayer};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::media;
use crate::peer::Peer;
use crate::until;

/// What a client wants to do in a room.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The room.
    pub room: String,
    /// Who.
    pub identity: String,
    /// Publish a microphone.
    pub audio: bool,
    /// Publish a camera, with these simulcast layers, lowest first; none of them: a single encoding. Absent: no camera.
    pub video: Option<Vec<&'static str>>,
    /// Receiving m-lines for sound.
    pub audio_slots: usize,
    /// Receiving m-lines for picture.
    pub video_slots: usize,
    /// Say what the camera's layers are, rather than leaving it to the offer.
    pub announced: bool,
}

impl Wish {
    /// Sends and receives sound and picture, with two slots each.
    pub fn call(room: &str, identity: &str) -> Self {
        Self {
            room: room.to_owned(),
            identity: identity.to_owned(),
            audio: true,
            video: Some(Vec::new()),
            audio_slots: 2,
            video_slots: 2,
            announced: false,
        }
    }

    /// Receives only.
    pub fn watch(room: &str, identity: &str) -> Self {
        Self {
            audio: false,
            video: None,
            ..Self::call(room, identity)
        }
    }

    /// Sends a picture only.
    pub fn show(room: &str, identity: &str, layers: &[&'static str]) -> Self {
        Self {
            audio: false,
            video: Some(layers.to_vec()),
            audio_slots: 0,
            video_slots: 0,
            ..Self::call(room, identity)
        }
    }
}

/// What a join answers.
#[derive(Debug, Clone, Deserialize)]
pub struct Joined {
    /// The room.
    pub room: RoomInfo,
    /// The participant itself.
    pub participant: ParticipantInfo,
    /// The others.
    pub participants: Vec<ParticipantInfo>,
    /// The slots.
    pub slots: Vec<Slot>,
    /// Where media goes.
    pub media: MediaAddress,
    /// The SDP answer.
    pub answer: String,
    /// The path of the event stream.
    pub events: String,
}

/// What the event stream has told.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The others, by id.
    pub participants: BTreeMap<ParticipantId, ParticipantInfo>,
    /// The participant itself.
    pub own: Option<ParticipantInfo>,
    /// The slots as they are now.
    pub slots: BTreeMap<String, Slot>,
    /// Who has spoken, with the last state.
    pub speakers: BTreeMap<ParticipantId, Speaker>,
    /// How well connections do.
    pub qualities: BTreeMap<ParticipantId, ConnectionQuality>,
    /// What its publisher is to send of each of its own tracks, where that was said.
    pub encodings_wanted: BTreeMap<TrackId, Vec<CodecWanted>>,
    /// The tracks that are paused for lack of room.
    pub paused: BTreeSet<TrackId>,
    /// The tracks that cannot be received.
    pub failed: BTreeSet<TrackId>,
    /// Where media goes, as it was said last.
    pub media: Option<MediaAddress>,
    /// The last `slots_wanted`.
    pub wanted: Option<(u64, u64)>,
    /// Why the participant is gone.
    pub closed: Option<String>,
    /// Why the socket is gone: the close code, 0 without one.
    pub socket_closed: Option<u16>,
    /// The types of all messages, in order.
    pub log: Vec<String>,
}

impl View {
    /// Another participant by identity.
    pub fn who(&self, identity: &str) -> Option<&ParticipantInfo> {
        self.participants
            .values()
            .find(|participant| participant.identity.as_str() == identity)
    }

    /// A track of another participant.
    pub fn track(&self, identity: &str, kind: Kind) -> Option<&TrackInfo> {
        self.who(identity)?.tracks.iter().find(|track| track.kind == kind)
    }

    /// The slot that carries a participant's track.
    pub fn slot(&self, identity: &str, kind: Kind) -> Option<&Slot> {
        let track = &self.track(identity, kind)?.id;
        self.slots
            .values()
            .find(|slot| slot.track.as_ref().is_some_and(|carried| carried.track == *track))
    }

    fn handle(&mut self, message: &Value) -> anyhow::Result<()> {
        let kind = message["type"].as_str().context("an event without a type")?;
        self.log.push(kind.to_owned());
        match kind {
            "snapshot" => {
                self.own = Some(serde_json::from_value(message["participant"].clone())?);
                let others: Vec<ParticipantInfo> = serde_json::from_value(message["participants"].clone())?;
                self.participants = others.into_iter().map(|other| (other.id.clone(), other)).collect();
                self.set_slots(&message["slots"])?;
                self.set_speakers(&message["speakers"])?;
                self.set_qualities(&message["qualities"])?;
                self.media = Some(serde_json::from_value(message["media"].clone())?);
            }
            "joined" | "updated" | "published" | "unpublished" | "muted" => {
                let participant: ParticipantInfo = serde_json::from_value(message["participant"].clone())?;
                if self.own.as_ref().is_some_and(|own| own.id == participant.id) {
                    self.own = Some(participant);
                } else {
                    self.participants.insert(participant.id.clone(), participant);
                }
            }
            "left" => {
                let participant: ParticipantInfo = serde_json::from_value(message["participant"].clone())?;
                self.participants.remove(&participant.id);
            }
            "speakers" => self.set_speakers(&message["speakers"])?,
            "slots" => self.set_slots(&message["slots"])?,
            "quality" => self.set_qualities(&message["participants"])?,
            "encodings_wanted" => {
                let track = serde_json::from_value(message["track"].clone())?;
                let codecs = serde_json::from_value(message["codecs"].clone())?;
                self.encodings_wanted.insert(track, codecs);
            }
            "stream_states" => {
                let streams: Vec<StreamState> = serde_json::from_value(message["streams"].clone())?;
                for state in streams {
                    if state.paused {
                        self.paused.insert(state.track);
                    } else {
                        self.paused.remove(&state.track);
                    }
                }
            }
            "subscription_failed" => {
                self.failed.insert(serde_json::from_value(message["track"].clone())?);
            }
            "moved" => self.media = Some(serde_json::from_value(message["media"].clone())?),
            "slots_wanted" => {
                let count = |kind: &str| message[kind].as_u64().unwrap_or_default();
                self.wanted = Some((count("audio"), count("video")));
            }
            "closed" => self.closed = message["reason"].as_str().map(str::to_owned),
            other => bail!("an event of unknown type {other}"),
        }
        Ok(())
    }

    fn set_slots(&mut self, slots: &Value) -> anyhow::Result<()> {
        let slots: Vec<Slot> = serde_json::from_value(slots.clone())?;
        self.slots
            .extend(slots.into_iter().map(|slot| (slot.mid.clone(), slot)));
        Ok(())
    }

    fn set_qualities(&mut self, qualities: &Value) -> anyhow::Result<()> {
        let qualities: Vec<ParticipantQuality> = serde_json::from_value(qualities.clone())?;
        self.qualities
            .extend(qualities.into_iter().map(|told| (told.participant, told.quality)));
        Ok(())
    }

    fn set_speakers(&mut self, speakers: &Value) -> anyhow::Result<()> {
        let speakers: Vec<Speaker> = serde_json::from_value(speakers.clone())?;
        self.speakers.extend(
            speakers
                .into_iter()
                .map(|speaker| (speaker.participant.clone(), speaker)),
        );
        Ok(())
    }
}

/// A participant in a room.
#[derive(Debug)]
pub struct Client {
    /// Its peer connection.
    pub peer: Peer,
    /// What the join answered.
    pub joined: Joined,
    /// The number in its packets' marks.
    pub sender: u32,
    /// The m-line of its camera.
    pub video: Option<Mid>,
    gateway: String,
    token: String,
    http: reqwest::Client,
    view: watch::Receiver<View>,
    events: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.events.abort();
    }
}

struct Lines {
    audio: Option<Mid>,
    video: Option<Mid>,
}

fn add_lines(api: &mut SdpApi<'_>, wish: &Wish) -> Lines {
    let mut add = |kind, direction, simulcast| api.add_media(kind, direction, None, None, simulcast);
    let audio = wish.audio.then(|| add(MediaKind::Audio, Direction::SendOnly, None));
    let video = wish.video.as_ref().map(|rids| {
        let mut simulcast = Simulcast::new();
        for rid in rids {
            simulcast.add_send_layer(SimulcastLayer::new(rid));
        }
        add(
            MediaKind::Video,
            Direction::SendOnly,
            (!rids.is_empty()).then_some(simulcast),
        )
    });
    for _ in 0..wish.audio_slots {
        add(MediaKind::Audio, Direction::RecvOnly, None);
    }
    for _ in 0..wish.video_slots {
        add(MediaKind::Video, Direction::RecvOnly, None);
    }
    Lines { audio, video }
}

/// A camera of 640 × 480 pixels whose lower layers have half and a quarter of that.
fn announcement(wish: &Wish, lines: &Lines) -> Vec<PublishTrack> {
    let (Some(mid), Some(rids), true) = (lines.video, &wish.video, wish.announced) else {
        return Vec::new();
    };
    let layer = |(index, rid): (usize, &&str)| {
        let halvings = rids.len() - 1 - index;
        LayerInfo {
            rid: (*rid).to_owned(),
            width: 640 >> halvings,
            height: 480 >> halvings,
            bitrate: 800_000 >> (2 * halvings),
        }
    };
    vec![PublishTrack {
        width: 640,
        height: 480,
        layers: rids.iter().enumerate().map(layer).collect(),
        ..PublishTrack::new(mid.to_string(), Kind::Video, Source::Camera)
    }]
}

/// A join's URL.
pub fn join_url(gateway: &str, room: &str) -> String {
    format!("{gateway}/v1/rooms/{room}/join")
}

impl Client {
    /// Joins, connects the event stream, and sends what it wishes as soon as the peer connection is up.
    pub async fn join(gateway: &str, token: &str, wish: &Wish) -> anyhow::Result<Self> {
        let http = reqwest::Client::new();
        let peer = Peer::new().await?;
        let wanted = wish.clone();
        let (offer, lines) = peer.offer(move |api| add_lines(api, &wanted)).await?;
        let response = http
            .post(join_url(gateway, &wish.room))
            .bearer_auth(token)
            .json(&json!({"offer": offer, "name": wish.identity, "publish": announcement(wish, &lines)}))
            .send()
            .await?;
        let (status, location) = (response.status(), response.headers().get("location").cloned());
        let body = response.text().await?;
        if status != StatusCode::CREATED {
            bail!("join answered {status}: {body}");
        }
        let joined: Joined = serde_json::from_str(&body).with_context(|| body.clone())?;
        let path = format!("/v1/rooms/{}/participants/{}", wish.room, joined.participant.id);
        if location.as_ref().and_then(|location| location.to_str().ok()) != Some(&path) {
            bail!("Location is {location:?}, not {path}");
        }
        peer.accept_answer(joined.answer.clone()).await?;
        let sender = rand::random();
        let now = Instant::now();
        if let Some(mid) = lines.audio {
            peer.send(media::Source::audio(mid, sender, now)).await?;
        }
        if let (Some(mid), Some(rids)) = (lines.video, &wish.video) {
            peer.send(media::Source::video(mid, sender, rids, now)).await?;
        }
        let (view, events) = watch_events(gateway, &joined.events, token).await?;
        Ok(Self {
            peer,
            joined,
            sender,
            video: lines.video,
            gateway: gateway.to_owned(),
            token: token.to_owned(),
            http,
            view,
            events,
        })
    }

    /// What the event stream has told.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Waits for a condition on the event stream; see [`until`].
    pub async fn until(&self, what: &str, condition: impl FnMut(&View) -> bool) {
        until(&mut self.view.clone(), what, condition).await;
    }

    /// Waits until a slot carries a participant's track, and says which m-line it is.
    pub async fn slot(&self, identity: &str, kind: Kind) -> String {
        self.until(&format!("a slot for {identity}'s {kind:?}"), |view| {
            view.slot(identity, kind).is_some()
        })
        .await;
        self.view()
            .slot(identity, kind)
            .map(|slot| slot.mid.clone())
            .unwrap_or_default()
    }

    /// Goes on through another gateway: requests and the event stream.
    pub async fn move_to(&mut self, gateway: &str) -> anyhow::Result<()> {
        self.events.abort();
        let (view, events) = watch_events(gateway, &self.joined.events, &self.token).await?;
        (self.view, self.events, self.gateway) = (view, events, gateway.to_owned());
        Ok(())
    }

    fn url(&self, path: &str) -> String {
        let room = &self.joined.room.name;
        format!(
            "{}/v1/rooms/{room}/participants/{}{path}",
            self.gateway, self.joined.participant.id
        )
    }

    async fn expect(&self, request: reqwest::RequestBuilder, wanted: StatusCode) -> anyhow::Result<String> {
        let response = request.bearer_auth(&self.token).send().await?;
        let status = response.status();
        let body = response.text().await?;
        if status != wanted {
            bail!("answered {status}, not {wanted}: {body}");
        }
        Ok(body)
    }

    /// Leaves the room.
    pub async fn leave(&self) -> anyhow::Result<()> {
        self.expect(self.http.delete(self.url("")), StatusCode::NO_CONTENT)
            .await
            .map(drop)
    }

    /// Mutes or unmutes one of its own tracks.
    pub async fn mute(&self, track: &str, muted: bool) -> anyhow::Result<()> {
        let request = self
            .http
            .patch(self.url(&format!("/tracks/{track}")))
            .json(&json!({"muted": muted}));
        self.expect(request, StatusCode::NO_CONTENT).await.map(drop)
    }

    /// Ends one of its own tracks.
    pub async fn unpublish(&self, track: &str) -> anyhow::Result<()> {
        self.expect(
            self.http.delete(self.url(&format!("/tracks/{track}"))),
            StatusCode::NO_CONTENT,
        )
        .await
        .map(drop)
    }

    /// Changes how it receives a track.
    pub async fn prefer(&self, track: &str, preference: Value) -> anyhow::Result<()> {
        let request = self
            .http
            .patch(self.url(&format!("/subscriptions/{track}")))
            .json(&preference);
        self.expect(request, StatusCode::NO_CONTENT).await.map(drop)
    }

    /// Offers this many slots more.
    pub async fn add_slots(&self, audio: usize, video: usize) -> anyhow::Result<()> {
        let wish = Wish {
            audio_slots: audio,
            video_slots: video,
            ..Wish::watch("", "")
        };
        let (offer, _) = self.peer.offer(move |api| add_lines(api, &wish)).await?;
        let body = self
            .expect(
                self.http.post(self.url("/offer")).json(&json!({"offer": offer})),
                StatusCode::OK,
            )
            .await?;
        let body: Value = serde_json::from_str(&body)?;
        self.peer
            .accept_answer(body["answer"].as_str().context("no answer")?.to_owned())
            .await
    }
}

async fn watch_events(
    gateway: &str,
    path: &str,
    token: &str,
) -> anyhow::Result<(watch::Receiver<View>, JoinHandle<()>)> {
    let url = format!("{}{path}?access_token={token}", gateway.replacen("http", "ws", 1));
    let (mut socket, _) = tokio_tungstenite::connect_async(url)
        .await
        .context("the event stream")?;
    let (sender, view) = watch::channel(View::default());
    let events = tokio::spawn(async move {
        let mut code = 0;
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Text(text) => sender.send_modify(|view| {
                    let message = serde_json::from_str(&text).unwrap_or_default();
                    if let Err(error) = view.handle(&message) {
                        view.log.push(format!("{error:#}: {text}"));
                    }
                }),
                Message::Close(frame) => code = frame.map_or(0, |frame| frame.code.into()),
                _ => {}
            }
        }
        sender.send_modify(|view| view.socket_closed = Some(code));
        // Kept, so that whoever waits sees the last state and not a missing one.
        sender.closed().await;
    });
    Ok((view, events))
}
