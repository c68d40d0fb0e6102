//! Publishing: how the m-lines of a client's offer and what it says about its tracks become tracks of the room.

use std::time::Instant;

use signalbox_protocol::control::{Event, Refusal, RefusalReason, Reply, Target, Transports};
use signalbox_protocol::room::{Kind, LayerInfo, PublishTrack, Source, TrackInfo};
use signalbox_protocol::tunnel::Tunnel;
use signalbox_protocol::{ParticipantId, TrackId};

use crate::codec::Codec;
use crate::connection::Fault;
use crate::connections::Key;
use crate::packet::Mid;
use crate::participant::{MAX_PENDING_TRACKS, Outlet, UnclaimedLine};
use crate::rewrite::Rewriter;
use crate::room::{Context, Room};
use crate::sdp;
use crate::track::{self, RED, Track};

impl Room {
    /// Answers a client's offer, and publishes and receives on its m-lines.
    pub fn take_offer(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: &ParticipantId,
        offer: &str,
    ) -> Result<String, Refusal> {
        let Some(participant) = self.participants.get_mut(id) else {
            return Err(no_participant());
        };
        // A client that has begun ICE anew is not to be found where it was.
        let tunnel = participant.kept.tunnel.take();
        let client = sdp::ice::credentials(offer);
        let tunnel = tunnel.filter(|tunnel| client.is_some_and(|client| client.ufrag == tunnel.client_ufrag));
        let connection = participant
            .publisher
            .map_or(Offered::New(tunnel.as_ref()), Offered::Known);
        let (key, answer) = negotiate(cx, now, self.key, id, connection, offer)?;
        participant.publisher = Some(key);
        self.recognize(cx, id, key, offer);
        self.apply_offer(cx, now, id, key, offer);
        self.end_unawaited(cx, now, id);
        self.offered(cx, now, key);
        Ok(self.with_codecs(key, offer, &answer))
    }

    /// An answer that asks for each published track in the codec that its publisher said.
    pub fn with_codecs(&self, key: Key, offer: &str, answer: &str) -> String {
        sdp::with_codec_order(offer, answer, |mid| {
            let mut tracks = self.tracks.values();
            tracks.find_map(|track| match track.encoding_on(key, Mid::from(mid))? {
                0 if track.is_redundant => Some(RED.to_owned()),
                0 => Some(track.info.mime_type.clone()),
                further => Some(track.encodings().get(further)?.codec?.mime_type().to_owned()),
            })
        })
    }

    /// Publishes and receives on the m-lines of an offer that was answered.
    pub fn apply_offer(&mut self, cx: &mut Context, now: Instant, id: &ParticipantId, key: Key, offer: &str) {
        let is_single = self
            .participants
            .get(id)
            .is_some_and(|found| found.transports == Transports::Single);
        for line in sdp::media_lines(offer) {
            let mid = Mid::from(line.mid);
            let Some(entry) = cx.connections.get(key) else {
                return;
            };
            let Some(connection) = entry.transport.peer() else {
                return;
            };
            let (receives, sends) = (connection.receives_on(mid), connection.sends_on(mid));
            if is_single {
                self.set_outlet(cx, id, mid, line.kind, sends);
            }
            self.set_inlet(cx, now, id, key, receives, inlet(&line));
        }
        if is_single {
            if let Some(participant) = self.participants.get_mut(id) {
                participant.data.has_channels = sdp::has_data(offer);
            }
            for subscription in self.tracks.values_mut().filter_map(|track| track.subscription(id)) {
                subscription.renegotiated();
            }
            self.refresh_subscriptions(cx, now, id);
        }
    }

    /// The client sends on an m-line from now on, or no longer.
    fn set_inlet(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: &ParticipantId,
        key: Key,
        receives: bool,
        line: UnclaimedLine,
    ) {
        let published = self
            .tracks
            .values()
            .find(|track| track.encoding_on(key, line.mid).is_some())
            .map(|track| track.id().clone())
            .or_else(|| self.adopt(id, key, line.mid, line.kind));
        let Some(participant) = self.participants.get_mut(id) else {
            return;
        };
        participant.unclaimed.retain(|unclaimed| unclaimed.mid != line.mid);
        match (receives, published) {
            (true, None) => {
                if let Some((track, said)) = participant.claim_pending(&line) {
                    self.go_live(cx, now, id, key, &line, (track, said));
                } else if participant.transports == Transports::Single {
                    let said = unannounced(&line);
                    if participant.may_publish(said.source) {
                        let track = cx.ids.track(letter(line.kind));
                        self.go_live(cx, now, id, key, &line, (track, said));
                    }
                } else {
                    participant.unclaimed.push(line);
                }
            }
            (false, Some(track)) => self.end_encoding(cx, now, &track, key, line.mid),
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// The client takes media on an m-line from now on, or no longer.
    fn set_outlet(&mut self, cx: &mut Context, id: &ParticipantId, mid: Mid, kind: Kind, sends: bool) {
        let Some(participant) = self.participants.get_mut(id) else {
            return;
        };
        let existing = participant.outlets.iter().position(|outlet| outlet.mid == mid);
        match (sends, existing) {
            (true, None) => participant.outlets.push(Outlet {
                mid,
                kind,
                track: None,
                codec: None,
                rewriter: Some(Rewriter::new(cx.ids.sequence_start())),
                is_open: true,
            }),
            (false, Some(index)) => {
                let outlet = participant.outlets.remove(index);
                if let Some(track) = outlet.track.and_then(|track| self.tracks.get_mut(&track)) {
                    track.unsubscribe(id);
                }
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// A client says what it is about to publish.
    pub fn announce(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: &ParticipantId,
        said: PublishTrack,
    ) -> Result<Reply, Refusal> {
        if let Some(of) = said.encoding_of.clone() {
            return self.announce_encoding(cx, now, id, &of, said);
        }
        let published = self.tracks.values().filter(|track| track.publisher == *id).count();
        let live = self
            .tracks
            .values()
            .find(|track| track.publisher == *id && track.said.cid == said.cid);
        if let Some(track) = live {
            return Ok(Reply::Published {
                track: Box::new(track.info.clone()),
            });
        }
        let Some(participant) = self.participants.get_mut(id) else {
            return Err(no_participant());
        };
        if let Some((track, said)) = participant.pending.iter().find(|(_, pending)| pending.cid == said.cid) {
            return Ok(Reply::Published {
                track: Box::new(track_info(track.clone(), said)),
            });
        }
        if !participant.may_publish(said.source) {
            return Err(Refusal::new(
                RefusalReason::NotPermitted,
                "The token does not allow to publish from this source; ask for one with canPublish.",
            ));
        }
        if participant.transports == Transports::Srtp {
            return Err(Refusal::new(
                RefusalReason::Invalid,
                "An SRTP participant publishes what its join names; join again with this track in `publish`.",
            ));
        }
        if published + participant.pending.len() >= participant.max_tracks(&cx.limits).min(MAX_PENDING_TRACKS) {
            return Err(Refusal::new(
                RefusalReason::Full,
                "Too many tracks; unpublish one first.",
            ));
        }
        let track = cx.ids.track(letter(said.kind));
        let info = track_info(track.clone(), &said);
        match (participant.claim_line(&said), participant.publisher) {
            (Some(line), Some(key)) => self.go_live(cx, now, id, key, &line, (track, said)),
            _ => {
                participant.pending.push((track.clone(), said));
                self.tell_of_track(cx, id, &track);
            }
        }
        Ok(Reply::Published { track: Box::new(info) })
    }

    /// A track has an m-line: it is published.
    pub fn go_live(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: &ParticipantId,
        key: Key,
        line: &UnclaimedLine,
        (track, mut said): (TrackId, PublishTrack),
    ) {
        if let Some(of) = &said.encoding_of {
            return self.add_encoding(cx, now, key, line, of, (track, &said));
        }
        if let Some(awaited) = self.tracks.get_mut(&track).filter(|awaited| awaited.publisher == *id)
            && awaited.is_awaited()
        {
            // Of a client without a peer connection, whose m-lines are counted anew with each join.
            awaited.move_to(key, line.mid);
            awaited.describe(said);
            return self.refresh_everyones_subscriptions(cx, now);
        }
        let published = self.tracks.values().filter(|track| track.publisher == *id).count();
        let most = self
            .participants
            .get(id)
            .map(|participant| participant.max_tracks(&cx.limits));
        if most.is_some_and(|most| published >= most) {
            return;
        }
        if said.layers.is_empty() {
            said.layers.clone_from(&line.layers);
        }
        let mid = line.mid;
        let mut info = track_info(track.clone(), &said);
        info.mid = mid.as_str().to_owned();
        // Until a packet tells: what the publisher said that it is going to be.
        let offered = cx
            .connections
            .get(key)
            .and_then(|entry| entry.transport.peer()?.preferred_codec(mid));
        if let Some(codec) = said.codec.as_deref().and_then(Codec::from_mime_type).or(offered) {
            info.mime_type = codec.mime_type().to_owned();
        }
        self.insert_track(now, Track::new(info, id.clone(), key, mid, said));
        self.tell_of_track(cx, id, &track);
        if let Some(participant) = self.changed(id) {
            self.tell_about(cx, id, Event::TrackPublished { participant, track });
        }
        self.refresh_everyones_subscriptions(cx, now);
    }

    /// A track is there from now on.
    pub fn insert_track(&mut self, now: Instant, mut track: Track) {
        if track.info.kind == Kind::Audio {
            // Shared sound has no pauses of speech.
            let is_steady = track.info.source == Source::ScreenShareAudio;
            track.set_selected(self.loudest.insert(now, track.id(), is_steady));
        }
        self.tracks.insert(track.id().clone(), track);
    }

    /// Ends a track.
    pub fn end_track(&mut self, cx: &mut Context, now: Instant, track: &TrackId) {
        let Some(ended) = self.tracks.remove(track) else {
            return;
        };
        for encoding in ended.encodings() {
            cx.connections.end_stream(encoding.source, encoding.mid);
        }
        if ended.info.kind == Kind::Audio {
            self.speakers.muted(&ended.publisher);
            self.loudest.remove(track);
        }
        self.by_source.retain(|_, indexed| indexed != track);
        for subscription in ended.subscriptions {
            if let Some(outlet) = self
                .participants
                .get_mut(&subscription.subscriber)
                .and_then(|subscriber| {
                    subscriber
                        .outlets
                        .iter_mut()
                        .find(|outlet| outlet.mid == subscription.mid)
                })
            {
                let mut rewriter = subscription.rewriter;
                rewriter.release();
                outlet.rewriter = Some(rewriter);
            }
        }
        for participant in self.participants.values_mut() {
            participant.wants.remove(track);
            participant
                .pending
                .retain(|(_, said)| said.encoding_of.as_ref() != Some(track));
        }
        if let Some(participant) = self.changed(&ended.publisher) {
            self.tell_about(
                cx,
                &ended.publisher,
                Event::TrackUnpublished {
                    participant,
                    track: track.clone(),
                },
            );
        }
        self.refresh_everyones_subscriptions(cx, now);
    }
}

/// The connection that an offer is for.
#[derive(Clone, Copy)]
pub enum Offered<'a> {
    /// One that there is.
    Known(Key),
    /// A new one; if there is a way to its client over another node, its ICE session goes on.
    New(Option<&'a Tunnel>),
}

/// Answers an offer on a client's connection, which is opened if it has none. An offer that cannot be used changes nothing.
pub fn negotiate(
    cx: &mut Context,
    now: Instant,
    room: usize,
    id: &ParticipantId,
    connection: Offered<'_>,
    offer: &str,
) -> Result<(Key, String), Refusal> {
    let lines = sdp::count_media_lines(offer);
    if lines > cx.limits.media_lines {
        let detail = format!(
            "The SDP offer has {lines} m-lines; offer at most {}.",
            cx.limits.media_lines
        );
        return Err(Refusal::new(RefusalReason::Sdp, detail));
    }
    let key = match connection {
        Offered::Known(key) => key,
        Offered::New(tunnel) => cx
            .connections
            .open(now, &mut cx.ids, (room, id.clone()), Target::Publisher, tunnel)
            .map_err(|fault| refused(&fault))?,
    };
    let is_new = matches!(connection, Offered::New(_));
    let Some(connection) = cx.connections.change(key).and_then(|entry| entry.transport.peer_mut()) else {
        return Err(Refusal::new(
            RefusalReason::Invalid,
            "An SRTP participant has no peer connection; join with an SDP offer to have one.",
        ));
    };
    if is_new {
        connection.hold_if_moved();
    }
    match connection.accept_offer(offer) {
        Ok(answer) => {
            cx.connections.refresh_ufrag(key);
            Ok((key, answer))
        }
        Err(fault) => {
            if is_new {
                cx.connections.close(key);
            }
            Err(refused(&fault))
        }
    }
}

/// What an m-line says of the media that the client sends on it.
fn inlet(line: &sdp::MediaLine<'_>) -> UnclaimedLine {
    let layer = |rid: &&str| LayerInfo {
        rid: (*rid).to_owned(),
        width: 0,
        height: 0,
        bitrate: 0,
    };
    let mut layers: Vec<LayerInfo> = line.rids.iter().map(layer).collect();
    layers.sort_by_key(|layer| track::rank(&layer.rid));
    UnclaimedLine {
        mid: Mid::from(line.mid),
        kind: line.kind,
        track_id: line.track_id.map(str::to_owned),
        layers,
    }
}

/// What an m-line that nobody has announced is taken for.
fn unannounced(line: &UnclaimedLine) -> PublishTrack {
    PublishTrack::new(
        line.track_id.clone().unwrap_or_else(|| line.mid.as_str().to_owned()),
        line.kind,
        likely_source(line.kind),
    )
}

/// What sends an m-line that nobody has announced.
pub fn likely_source(kind: Kind) -> Source {
    match kind {
        Kind::Audio => Source::Microphone,
        Kind::Video => Source::Camera,
    }
}

/// The letter in the ids of tracks of a kind.
pub fn letter(kind: Kind) -> char {
    match kind {
        Kind::Audio => 'A',
        Kind::Video => 'V',
    }
}

fn track_info(id: TrackId, said: &PublishTrack) -> TrackInfo {
    let stream = match (said.stream.as_str(), said.source) {
        ("", Source::ScreenShare | Source::ScreenShareAudio) => "screen",
        ("", _) => "camera",
        (stream, _) => stream,
    };
    TrackInfo {
        id,
        kind: said.kind,
        source: said.source,
        name: said.name.clone(),
        muted: said.muted,
        mime_type: String::new(),
        width: said.width,
        height: said.height,
        layers: said.layers.clone(),
        mid: String::new(),
        stream: stream.to_owned(),
        dialect_info: said.dialect_info.clone(),
    }
}

/// The refusal of a request for a participant that is not in the room.
pub fn no_participant() -> Refusal {
    Refusal::new(
        RefusalReason::NoParticipant,
        "This participant is not in the room (any more); join again.",
    )
}

/// The refusal that a fault of a connection becomes.
pub fn refused(fault: &Fault) -> Refusal {
    match fault {
        Fault::Sdp(detail) => Refusal::new(RefusalReason::Sdp, detail.clone()),
        Fault::Stack(_) | Fault::Panicked => {
            Refusal::new(RefusalReason::Internal, "The connection failed; join again.")
        }
    }
}
