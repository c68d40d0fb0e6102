//! Taking participants up from another node.
//!
//! Whoever was in a room that is lost with its node is *expected* first, so that nobody is seen to leave: it is shown with its tracks, of
//! which nothing comes yet. When its gateway takes it up it is here again, with its wishes and its subscriptions; its tracks carry media again when its client has
//! offered. One that is not taken up is absent, and leaves as everyone does who is absent for too long.

mod checks;

use std::time::Instant;

use signalbox_protocol::control::{
    CloseReason, Event, Join, Joined, Refusal, RefusalReason, Reply, Resume, SaidTrack, Target, Transports,
};
use signalbox_protocol::room::{Kind, MediaAddress, ParticipantInfo, PublishTrack, RoomInfo, TrackInfo};
use signalbox_protocol::tunnel::SoundStream;
use signalbox_protocol::{ParticipantId, TrackId};

use crate::codec::Codec;
use crate::connections::{Key, NONE};
use crate::data::Delivery;
use crate::packet::{Mid, Rid};
use crate::participant::{Kept, MAX_PENDING_TRACKS, Outlet, Participant, Presence, Want};
use crate::publish::{no_participant, refused};
use crate::rewrite::{Begun, Rewriter};
use crate::room::{Context, Room};
use crate::sdp::{self, MediaLine};
use crate::track::Track;

pub use checks::check;
use checks::{check_kept, check_participant, invalid};

impl Room {
    /// Expects those who were in the room at another node. Who is here, or has left since, stays as it is; of who is expected already, what is
    /// newer is taken.
    pub fn expect(&mut self, cx: &mut Context, now: Instant, room: &RoomInfo, participants: Vec<ParticipantInfo>) {
        // Somebody who knew less was here first.
        if self.metadata.is_empty() && !room.metadata.is_empty() {
            self.metadata.clone_from(&room.metadata);
            let room = self.info();
            self.tell(cx, Event::RoomUpdated { room }, |_| true);
        }
        for mut info in participants {
            let id = info.id.clone();
            let tracks = std::mem::take(&mut info.tracks);
            match self.participants.get(&id) {
                Some(known) if known.presence == Presence::Expected && known.info.version < info.version => {
                    let before = self.participant_info(&id);
                    if let Some(known) = self.participants.get_mut(&id) {
                        known.info = info;
                    }
                    self.resume_tracks(cx, now, &id, tracks, Vec::new());
                    self.tell_of_difference(cx, &id, before);
                }
                Some(_) => {}
                None => self.expect_one(cx, now, info, tracks),
            }
        }
        self.refresh_everyones_subscriptions(cx, now);
    }

    fn expect_one(&mut self, cx: &mut Context, now: Instant, info: ParticipantInfo, tracks: Vec<TrackInfo>) {
        let id = info.id.clone();
        let has_left = self.departed.iter().any(|(_, gone)| gone.participant == id);
        if has_left || !self.is_latest(&info) {
            return;
        }
        let expected = Participant {
            presence: Presence::Expected,
            ..Participant::new(info, Transports::Dual, Default::default(), &cx.limits)
        };
        self.enter(cx, now, expected);
        self.resume_tracks(cx, now, &id, tracks, Vec::new());
        if let Some(participant) = self.participant_info(&id) {
            self.tell_others(cx, &id, Event::ParticipantJoined { participant });
        }
    }

    /// Whether nobody of the same identity is here, or has joined later.
    fn is_latest(&self, info: &ParticipantInfo) -> bool {
        let other = self.by_identity.get(&info.identity).filter(|other| **other != info.id);
        let other = other.and_then(|other| self.participants.get(other));
        other.is_none_or(|other| other.presence == Presence::Expected && other.info.joined_at_ms < info.joined_at_ms)
    }

    /// It is in the room from now on, in place of itself and of whoever has its identity.
    fn enter(&mut self, cx: &mut Context, now: Instant, participant: Participant) {
        let (id, identity) = (participant.info.id.clone(), participant.info.identity.clone());
        let replaced = self.by_identity.insert(identity, id.clone());
        self.participants.insert(id.clone(), participant);
        self.empty_since = None;
        self.is_reported_empty = false;
        if let Some(replaced) = replaced.filter(|replaced| *replaced != id) {
            self.remove(cx, now, &replaced, CloseReason::DuplicateIdentity);
        }
    }

    /// Tells the others of what differs now.
    fn tell_of_difference(&mut self, cx: &mut Context, id: &ParticipantId, before: Option<ParticipantInfo>) {
        let now = self.participant_info(id);
        let is_same = before.zip(now).is_some_and(|(mut before, now)| {
            before.version = now.version;
            before == now
        });
        if !is_same && let Some(participant) = self.changed(id) {
            self.tell_others(cx, id, Event::ParticipantUpdated { participant });
        }
    }

    /// Takes up a participant that was in the room at another node. Again: it is here, and is attached as it is.
    ///
    /// # Errors
    /// It has left or joined anew since; what it has agreed on makes no sense; it has too many tracks. Nothing is changed then.
    pub fn resume(
        &mut self,
        cx: &mut Context,
        now: Instant,
        media: MediaAddress,
        join: Join,
        resume: Resume,
    ) -> Result<Reply, Refusal> {
        let Resume {
            participant: mut info,
            kept,
            slots,
            tunnels,
        } = resume;
        let id = info.id.clone();
        if info.identity != join.identity {
            return Err(invalid("The participant to resume has another identity than the join."));
        }
        let presence = self.participants.get(&id).map(|known| known.presence);
        let has_left = self.departed.iter().any(|(_, gone)| gone.participant == id);
        if !self.is_latest(&info) || has_left || presence == Some(Presence::Gone) {
            return Err(no_participant());
        }
        if presence == Some(Presence::Here) {
            return self.resume_again(cx, now, media, &id, join.attach);
        }
        check_participant(self, &info)?;
        let tracks = std::mem::take(&mut info.tracks);
        let mut participant = Participant {
            auto_subscribe: kept.auto_subscribe,
            never_pause: kept.never_pause,
            is_resumed: true,
            ..Participant::new(info, kept.transports, join.limits, &cx.limits)
        };
        if tracks.len() > participant.max_tracks(&cx.limits) {
            let most = participant.max_tracks(&cx.limits);
            let detail = format!("Too many tracks; publish at most {most}.");
            return Err(Refusal::new(RefusalReason::Full, detail));
        }
        let channels = |target: Target| -> Vec<(Delivery, u16)> {
            let of = kept.channels.iter().filter(|channel| channel.target == target);
            of.filter_map(|channel| Some((Delivery::from_label(&channel.label)?, channel.id)))
                .collect()
        };
        check_kept(&kept, slots.len(), cx.limits.media_lines)?;
        let keeps_ice = !tunnels.is_empty() && tunnels.iter().all(|tunnel| cx.connections.can_use(tunnel));
        let mut tunnels = if keeps_ice { tunnels } else { Vec::new() };
        let subscribers = tunnels.iter().position(|tunnel| tunnel.target == Target::Subscriber);
        let subscribers = subscribers.map(|index| tunnels.swap_remove(index));
        // All that can fail comes first.
        let mut streams = None;
        match (kept.transports, &kept.subscriber) {
            (Transports::Dual, Some(agreed)) => {
                let (key, offer) = cx
                    .connections
                    .take_up(
                        now,
                        &mut cx.ids,
                        (self.key, id.clone()),
                        agreed,
                        &channels(Target::Subscriber),
                        subscribers.as_ref(),
                    )
                    .map_err(|fault| refused(&fault))?;
                participant.subscriber = Some(key);
                participant.outlets = outlets(cx, key, &agreed.offer);
                for sound in subscribers.iter().flat_map(|tunnel| &tunnel.sounds) {
                    go_on(&mut participant.outlets, sound);
                }
                participant.negotiation.last_id = agreed.id.wrapping_add(1);
                participant.negotiation.in_flight = Some((participant.negotiation.last_id, offer));
            }
            (Transports::Dual, None) => {
                let opened = cx
                    .connections
                    .open(now, &mut cx.ids, (self.key, id.clone()), Target::Subscriber, None);
                participant.subscriber = Some(opened.map_err(|fault| refused(&fault))?);
            }
            (Transports::Single, _) => {}
            (Transports::Srtp, _) => streams = Some(self.plan_streams(cx, &participant, &join)?),
        }
        participant.negotiation.agreed = kept.subscriber.map(Box::new);
        participant.wants = kept
            .wants
            .into_iter()
            .map(|wanted| {
                let want = Want {
                    subscribed: wanted.subscribed,
                    preference: wanted.preference,
                };
                (wanted.track, want)
            })
            .collect();
        participant.kept = Kept {
            tunnel: tunnels.pop(),
            channels: kept
                .channels
                .iter()
                .filter(|channel| channel.target == Target::Publisher)
                .filter_map(|channel| Some((Delivery::from_label(&channel.label)?, channel.id)))
                .collect(),
            streams: kept
                .tracks
                .iter()
                .flat_map(|track| {
                    track
                        .streams
                        .iter()
                        .map(|stream| (Mid::from(track.mid.as_str()), stream))
                })
                .map(|(mid, stream)| {
                    let rid = (!stream.rid.is_empty()).then(|| Rid::from(stream.rid.as_str()));
                    (mid, (rid, stream.ssrc, stream.repair_ssrc))
                })
                .collect(),
            slots: slots
                .into_iter()
                .filter_map(|slot| Some((Mid::from(slot.mid.as_str()), slot.track?.track)))
                .collect(),
        };
        // What others are told of it goes on from what they were told, which may be newer than what its own gateway knows.
        let before = self.participant_info(&id);
        let mut tracks = tracks;
        if let Some(before) = before
            .clone()
            .filter(|before| before.version > participant.info.version)
        {
            tracks.clone_from(&before.tracks);
            participant.info = ParticipantInfo {
                tracks: Vec::new(),
                ..before
            };
        }
        self.enter(cx, now, participant);
        self.resume_tracks(cx, now, &id, tracks, kept.tracks);
        self.know_streams(&id);
        if before.is_some() {
            self.tell_of_difference(cx, &id, before);
        } else if let Some(participant) = self.participant_info(&id) {
            self.tell_others(cx, &id, Event::ParticipantJoined { participant });
        }
        let srtp = streams.map(|streams| self.open_streams(cx, now, &id, streams));
        self.fill_outlets(cx, now, &id);
        self.refresh_everyones_subscriptions(cx, now);
        let reply = self.resumed(media, &id, join.attach, srtp, keeps_ice)?;
        // After the reply.
        if keeps_ice {
            self.begin_cut_over(cx, now);
        } else {
            self.repeat_offer(cx, &id);
        }
        self.tend_cut_over(cx, now);
        self.refresh_subscriptions(cx, now, &id);
        Ok(reply)
    }

    /// The m-lines that it receives on go on carrying what they did.
    fn fill_outlets(&mut self, cx: &mut Context, now: Instant, id: &ParticipantId) {
        let Some(participant) = self.participants.get_mut(id) else {
            return;
        };
        if participant.transports != Transports::Dual {
            return;
        }
        let mut carried = Vec::new();
        for (index, outlet) in participant.outlets.iter_mut().enumerate() {
            match outlet.track.clone() {
                Some(track) if self.tracks.contains_key(&track) => carried.push((index, track)),
                _ => outlet.track = None,
            }
        }
        for (index, track) in carried {
            self.fill_outlet(cx, now, id, index, &track);
        }
    }

    fn resumed(
        &mut self,
        media: MediaAddress,
        id: &ParticipantId,
        attach: bool,
        srtp: Option<signalbox_protocol::srtp::SrtpSession>,
        keeps_ice: bool,
    ) -> Result<Reply, Refusal> {
        let participant = self.participants.get_mut(id).ok_or_else(no_participant)?;
        participant.is_attached |= attach;
        let snapshot = self.snapshot(id).ok_or_else(no_participant)?;
        Ok(Reply::Joined(Box::new(Joined {
            snapshot,
            media,
            answer: None,
            counter_offer: None,
            ice_session: None,
            srtp,
            keeps_ice,
        })))
    }

    /// The gateway has not heard that it was taken up, or another one comes for it.
    fn resume_again(
        &mut self,
        cx: &mut Context,
        now: Instant,
        media: MediaAddress,
        id: &ParticipantId,
        attach: bool,
    ) -> Result<Reply, Refusal> {
        let participant = self.participants.get_mut(id).ok_or_else(no_participant)?;
        participant.absent_since = None;
        participant.slots_wanted = (0, 0);
        participant.undecodable.clear();
        let srtp = participant.srtp.as_deref().cloned();
        let connections = participant.connections();
        let mut own = participant.connections().filter_map(|key| cx.connections.get(key));
        let keeps_ice = participant.kept.tunnel.is_some() || own.any(|entry| entry.via.is_some());
        let reply = self.resumed(media, id, attach, srtp, keeps_ice)?;
        if attach {
            let up = connections.filter_map(|key| cx.connections.get(key).filter(|entry| entry.is_connected));
            for target in up.map(|entry| entry.target).collect::<Vec<_>>() {
                cx.tell_one(id, Event::Connected { target });
            }
        }
        if !self.is_held(cx, id) {
            self.repeat_offer(cx, id);
        }
        self.refresh_subscriptions(cx, now, id);
        self.repeat_allocation(cx, id);
        Ok(reply)
    }

    /// The tracks of a participant that is taken up: those that are expected, and those that nobody knew of.
    fn resume_tracks(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: &ParticipantId,
        tracks: Vec<TrackInfo>,
        said: Vec<SaidTrack>,
    ) {
        let ended = self.tracks.values().filter(|track| track.publisher == *id);
        let ended = ended.filter(|track| tracks.iter().all(|info| info.id != track.info.id));
        let ended: Vec<TrackId> = ended.map(|track| track.id().clone()).collect();
        for track in ended {
            self.end_track(cx, now, &track);
        }
        for info in tracks {
            let own = said.iter().find(|said| said.id == info.id && !said.mid.is_empty());
            let own = own.map_or_else(|| unsaid(&info), |said| said.said.clone());
            match self.tracks.get_mut(&info.id) {
                Some(track) if track.publisher == *id => {
                    if track.info.mid != info.mid {
                        track.move_to(NONE, Mid::from(info.mid.as_str()));
                    }
                    track.info = info;
                    track.describe(own);
                }
                // Somebody else's: an id that was made up.
                Some(_) => {}
                None => self.insert_track(now, awaited(info, id, own)),
            }
        }
        for further in said {
            match &further.said.encoding_of {
                Some(of) if !further.mid.is_empty() => {
                    let codec = further.said.codec.as_deref().and_then(Codec::from_mime_type);
                    let rids: Vec<Rid> = further
                        .said
                        .layers
                        .iter()
                        .map(|layer| Rid::from(layer.rid.as_str()))
                        .collect();
                    if let Some(track) = self.tracks.get_mut(of).filter(|track| track.publisher == *id) {
                        track.add_encoding(NONE, Mid::from(further.mid.as_str()), codec, rids);
                        track.said_further.push(further);
                    }
                }
                _ if further.mid.is_empty() => {
                    if let Some(participant) = self.participants.get_mut(id)
                        && participant.pending.len() < MAX_PENDING_TRACKS
                    {
                        participant.pending.push((further.id, further.said));
                    }
                }
                _ => {}
            }
        }
    }

    /// The streams of its tracks are those that they were, should it have to move on before they have come.
    fn know_streams(&mut self, id: &ParticipantId) {
        let Some(participant) = self.participants.get(id) else {
            return;
        };
        for track in self.tracks.values_mut().filter(|track| track.publisher == *id) {
            let streams = participant.kept.streams.iter();
            let own = streams.filter(|(mid, _)| track.encodings().iter().any(|encoding| encoding.mid == *mid));
            let own = own.copied().collect();
            track.know_streams(own);
        }
    }

    /// The client has offered here for the first time: its data channels are open, and it does not say again what its streams are.
    pub fn recognize(&mut self, cx: &mut Context, id: &ParticipantId, key: Key, offer: &str) {
        self.find_by_name(id, &sdp::media_lines(offer));
        let Some(participant) = self.participants.get_mut(id) else {
            return;
        };
        let channels = std::mem::take(&mut participant.kept.channels);
        let streams = std::mem::take(&mut participant.kept.streams);
        if channels.is_empty() && streams.is_empty() {
            return;
        }
        let entry = cx.connections.change(key);
        if let Some(connection) = entry.and_then(|entry| entry.transport.peer_mut()) {
            // A fault shows itself again when the connection is polled.
            let _ = connection.adopt_channels(&channels);
            for (mid, stream) in streams {
                let _ = connection.expect_streams(mid, &[stream]);
            }
        }
    }

    /// A track whose m-line is not there any more is awaited on the one that has the client's own name of it.
    fn find_by_name(&mut self, id: &ParticipantId, lines: &[MediaLine<'_>]) {
        let own = self.tracks.values_mut();
        for track in own.filter(|track| track.publisher == *id && track.is_awaited()) {
            let mid = track.info.mid.as_str();
            let is_there = lines.iter().any(|line| line.mid == mid && line.kind == track.info.kind);
            let mut named = lines.iter().filter(|line| line.kind == track.info.kind);
            if !is_there && let Some(line) = named.find(|line| line.track_id == Some(track.said.cid.as_str())) {
                track.move_to(NONE, Mid::from(line.mid));
            }
        }
    }

    /// The track that is awaited on an m-line of a participant.
    pub fn adopt(&mut self, id: &ParticipantId, key: Key, mid: Mid, kind: Kind) -> Option<TrackId> {
        let own = self.tracks.values_mut();
        let mut own = own.filter(|track| track.publisher == *id && track.info.kind == kind);
        own.find_map(|track| track.adopt(key, mid).then(|| track.id().clone()))
    }

    /// The client has offered all that it sends: what is still awaited does not come.
    pub fn end_unawaited(&mut self, cx: &mut Context, now: Instant, id: &ParticipantId) {
        if let Some(participant) = self.participants.get_mut(id) {
            participant.kept.slots.clear();
        }
        let own = self.tracks.values().filter(|track| track.publisher == *id);
        let awaited: Vec<(TrackId, Mid)> = own
            .flat_map(|track| {
                let awaited = track.encodings().iter().filter(|encoding| encoding.source == NONE);
                awaited.map(|encoding| (track.id().clone(), encoding.mid))
            })
            .collect();
        for (track, mid) in awaited {
            self.end_encoding(cx, now, &track, NONE, mid);
        }
    }
}

/// A track of which nothing comes yet.
fn awaited(info: TrackInfo, publisher: &ParticipantId, said: PublishTrack) -> Track {
    let mid = Mid::from(info.mid.as_str());
    Track::new(info, publisher.clone(), NONE, mid, said)
}

/// What is known of a track of which nothing was said.
fn unsaid(info: &TrackInfo) -> PublishTrack {
    PublishTrack {
        name: info.name.clone(),
        muted: info.muted,
        width: info.width,
        height: info.height,
        layers: info.layers.clone(),
        codec: (!info.mime_type.is_empty()).then(|| info.mime_type.clone()),
        stream: info.stream.clone(),
        dialect_info: info.dialect_info.clone(),
        ..PublishTrack::new(info.id.as_str(), info.kind, info.source)
    }
}

/// The stream of an m-line goes on with the numbers that it has.
fn go_on(outlets: &mut [Outlet], sound: &SoundStream) {
    let mid = Mid::from(sound.mid.as_str());
    let is_its = |outlet: &&mut Outlet| outlet.mid == mid && outlet.track.as_ref() == Some(&sound.track);
    if let Some(outlet) = outlets.iter_mut().find(is_its) {
        outlet.rewriter = Some(Rewriter::going_on(Begun {
            sequence_offset: sound.sequence_offset,
            timestamp_offset: sound.timestamp_offset,
        }));
    }
}

/// The m-lines that are sent on, and what they carry by the names that they were offered with.
fn outlets(cx: &Context, key: Key, offer: &str) -> Vec<Outlet> {
    let connection = cx.connections.get(key).and_then(|entry| entry.transport.peer());
    let lines = sdp::media_lines(offer).into_iter().filter_map(|line| {
        let mid = Mid::from(line.mid);
        connection.filter(|connection| connection.sends_on(mid))?;
        Some(Outlet {
            mid,
            kind: line.kind,
            track: line.track_id.map(TrackId::new),
            codec: None,
            rewriter: None,
            // As the client agreed to before.
            is_open: true,
        })
    });
    lines.collect()
}
