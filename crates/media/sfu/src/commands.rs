//! What gateways ask of a room: admission, and a participant's commands.

use std::time::Instant;

use signalbox_protocol::control::{
    CloseReason, Command, Event, Join, Joined, ParticipantUpdate, Preference, Refusal, RefusalReason, Reply, Target,
    Transports,
};
use signalbox_protocol::room::{Kind, MediaAddress, ParticipantInfo, ParticipantState};
use signalbox_protocol::{Identity, ParticipantId, TrackId};

use crate::one_offer::{self, Agreed};
use crate::participant::{Participant, Presence};
use crate::publish::{Offered, negotiate, no_participant, refused};
use crate::room::{Context, Room};

impl Room {
    /// Admits a participant; one with the same identity is closed. An offer that cannot be used changes nothing.
    pub fn join(
        &mut self,
        cx: &mut Context,
        now: Instant,
        now_ms: u64,
        media: MediaAddress,
        mut join: Join,
    ) -> Result<Reply, Refusal> {
        if let Some(resume) = join.resume.take() {
            return self.resume(cx, now, media, join, *resume);
        }
        let id = cx.ids.participant();
        let identity = join.identity.clone();
        let info = ParticipantInfo {
            id: id.clone(),
            identity: join.identity.clone(),
            name: join.name.clone(),
            metadata: join.metadata.clone(),
            attributes: join.attributes.clone(),
            state: ParticipantState::Joined,
            tracks: Vec::new(),
            joined_at_ms: now_ms,
            version: 1,
            grants: join.grants.clone(),
            dialect_info: join.dialect_info.clone(),
        };
        // Not attached yet: nobody is told anything of an admission that may still fail.
        let mut participant = Participant {
            offers_once: join.one_offer.is_some(),
            auto_subscribe: join.auto_subscribe,
            never_pause: join.never_pause,
            ..Participant::new(info, join.transports, join.limits, &cx.limits)
        };
        if let Some(track) = join.publish.iter().find(|track| !participant.may_publish(track.source)) {
            let detail = format!(
                "The token does not allow to publish from {:?}; ask for one with canPublish.",
                track.source
            );
            return Err(Refusal::new(RefusalReason::NotPermitted, detail));
        }
        let most = participant.max_tracks(&cx.limits);
        if join.publish.len() > most {
            let detail = format!("Too many tracks; publish at most {most}.");
            return Err(Refusal::new(RefusalReason::Full, detail));
        }
        // All that can fail comes first, so that a join that is refused changes nothing.
        let (mut negotiated, mut streams, mut countered) = (None, None, None);
        match (join.transports, &join.offer) {
            (Transports::Dual, _) => {
                let opened = cx
                    .connections
                    .open(now, &mut cx.ids, (self.key, id.clone()), Target::Subscriber, None);
                participant.subscriber = Some(opened.map_err(|fault| refused(&fault))?);
            }
            (Transports::Single, Some(offer)) => {
                let agreed = match join.one_offer {
                    Some(purpose) => self.agree_once(cx, now, &participant, purpose, offer)?,
                    None => {
                        let (key, answer) = negotiate(cx, now, self.key, &id, Offered::New(None), offer)?;
                        let offer = offer.clone();
                        Agreed::Answer { key, offer, answer }
                    }
                };
                match agreed {
                    Agreed::Answer { key, offer, answer } => {
                        participant.publisher = Some(key);
                        participant.last_offer = join.one_offer.map(|_| offer.clone());
                        negotiated = Some((key, offer, answer));
                    }
                    Agreed::Counter { key, sdp, outlets } => {
                        let (offer, sdp, counter) = one_offer::counter_offer(cx, sdp);
                        participant.publisher = Some(key);
                        participant.outlets = outlets;
                        participant.negotiation.last_id = offer;
                        participant.negotiation.in_flight = Some((offer, sdp));
                        countered = Some(counter);
                    }
                }
            }
            (Transports::Single, None) => {}
            (Transports::Srtp, _) => streams = Some(self.plan_streams(cx, &participant, &join)?),
        }
        let replaced = self.by_identity.insert(identity, id.clone());
        let joined = participant.info.clone();
        self.participants.insert(id.clone(), participant);
        self.empty_since = None;
        self.is_reported_empty = false;
        if let Some(replaced) = replaced {
            self.remove(cx, now, &replaced, CloseReason::DuplicateIdentity);
        }
        self.tell_others(cx, &id, Event::ParticipantJoined { participant: joined });
        let srtp = match streams {
            Some(streams) => Some(self.open_streams(cx, now, &id, streams)),
            None => {
                for track in join.publish {
                    self.announce(cx, now, &id, track)?;
                }
                None
            }
        };
        let mut answer = None;
        if let Some((key, offer, sdp)) = negotiated {
            self.apply_offer(cx, now, &id, key, &offer);
            answer = Some(self.with_codecs(key, &offer, &sdp));
        }
        if join.attach
            && let Some(participant) = self.participants.get_mut(&id)
        {
            participant.is_attached = true;
        }
        let Some(snapshot) = self.snapshot(&id) else {
            return Err(no_participant());
        };
        let connection = self.participants.get(&id).and_then(|participant| participant.publisher);
        let ice_session = connection
            .filter(|_| join.one_offer.is_some())
            .and_then(|key| cx.connections.ufrag(key))
            .map(str::to_owned);
        // With two connections, the first offer goes out after the reply.
        self.refresh_subscriptions(cx, now, &id);
        Ok(Reply::Joined(Box::new(Joined {
            snapshot,
            media,
            answer,
            counter_offer: countered,
            ice_session,
            srtp,
            keeps_ice: false,
        })))
    }

    /// Does what a participant's gateway asks. `media` is where the room's media goes.
    pub fn command(
        &mut self,
        cx: &mut Context,
        now: Instant,
        media: MediaAddress,
        id: &ParticipantId,
        identity: &Identity,
        command: Command,
    ) -> Result<Reply, Refusal> {
        let Some(participant) = self
            .participants
            .get_mut(id)
            .filter(|found| found.info.identity == *identity && found.presence == Presence::Here)
        else {
            return Err(no_participant());
        };
        match command {
            Command::Attach => {
                participant.is_attached = true;
                participant.absent_since = None;
                // Whatever was said before may have been lost.
                participant.slots_wanted = (0, 0);
                participant.undecodable.clear();
                self.repeat_offer(cx, id);
                let mut snapshot = self.snapshot(id).ok_or_else(no_participant)?;
                snapshot.media = Some(media);
                self.refresh_subscriptions(cx, now, id);
                self.repeat_allocation(cx, id);
                return Ok(Reply::Snapshot(Box::new(snapshot)));
            }
            Command::Detach => participant.is_attached = false,
            Command::Offer { sdp } => {
                return self.take_offer(cx, now, id, &sdp).map(|sdp| Reply::Answer { sdp });
            }
            Command::Answer { id: offer, sdp } => self.take_answer(cx, now, id, offer, &sdp)?,
            Command::RestartIce => {
                participant.negotiation.restart_ice = true;
                self.refresh_subscriptions(cx, now, id);
            }
            Command::PatchIce { sessions, fragment } => return self.patch_ice(cx, id, &sessions, &fragment),
            // Addresses are learned from authenticated checks alone: what a client claims could be anyone's.
            Command::Candidate { .. } => {}
            Command::Publish(said) => return self.announce(cx, now, id, *said),
            Command::Unpublish { track } => self.unpublish(cx, now, id, &track)?,
            Command::Mute { track, muted } => self.mute(cx, now, id, &track, muted)?,
            Command::Subscribe { tracks, subscribed } => {
                let known = self.known(&tracks);
                for track in &known {
                    if let Some(participant) = self.participants.get_mut(id) {
                        participant.wants.entry(track.clone()).or_default().subscribed = Some(subscribed);
                    }
                }
                self.tell_of_wants(cx, id, &known);
                self.refresh_subscriptions(cx, now, id);
            }
            Command::Prefer { tracks, preference } => self.prefer(cx, now, id, &tracks, preference),
            Command::Update {
                name,
                metadata,
                attributes,
            } => {
                if !participant.grants().update_own_metadata {
                    return Err(Refusal::new(
                        RefusalReason::NotPermitted,
                        "The token does not allow to change name, metadata or attributes; ask for one with canUpdateOwnMetadata.",
                    ));
                }
                let update = ParticipantUpdate {
                    name,
                    metadata,
                    attributes,
                    grants: None,
                };
                self.update(cx, now, id, update)?;
            }
            Command::Leave => self.remove(cx, now, id, CloseReason::Left),
            Command::OpenTunnels => {
                let tunnels = self.open_tunnels(cx, now, id);
                return Ok(Reply::Tunnels { tunnels });
            }
            Command::Moved => self.let_go(cx, id),
        }
        Ok(Reply::Done)
    }

    /// Refuses a track that is not the participant's.
    pub fn own_track(&self, id: &ParticipantId, track: &TrackId) -> Result<(), Refusal> {
        match self.publisher_of(track) {
            Some(publisher) if publisher == *id => Ok(()),
            _ => Err(Refusal::new(
                RefusalReason::NoTrack,
                "The participant has no such track.",
            )),
        }
    }

    fn known(&self, tracks: &[TrackId]) -> Vec<TrackId> {
        tracks
            .iter()
            .filter(|track| self.tracks.contains_key(track))
            .cloned()
            .collect()
    }

    /// Mutes or unmutes a participant's track, announced or published.
    pub fn mute(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: &ParticipantId,
        track: &TrackId,
        muted: bool,
    ) -> Result<(), Refusal> {
        let pending = self
            .participants
            .get_mut(id)
            .and_then(|participant| participant.pending.iter_mut().find(|(pending, _)| pending == track));
        if let Some((_, said)) = pending {
            said.muted = muted;
            self.tell_of_track(cx, id, track);
            return Ok(());
        }
        self.own_track(id, track)?;
        let Some(found) = self.tracks.get_mut(track).filter(|found| found.info.muted != muted) else {
            return Ok(());
        };
        found.set_muted(now, muted, &mut cx.connections);
        if muted && found.info.kind == Kind::Audio {
            self.speakers.muted(id);
            found.set_selected(self.loudest.muted(track));
        }
        self.allocate_soon(track);
        if let Some(participant) = self.changed(id) {
            self.tell_about(
                cx,
                id,
                Event::TrackMuted {
                    participant,
                    track: track.clone(),
                    muted,
                },
            );
        }
        Ok(())
    }

    fn prefer(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: &ParticipantId,
        tracks: &[TrackId],
        preference: Preference,
    ) {
        let known = self.known(tracks);
        for track in &known {
            if let Some(participant) = self.participants.get_mut(id) {
                participant.wants.entry(track.clone()).or_default().preference = preference;
            }
            if let Some(track) = self.tracks.get_mut(track) {
                track.prefer(now, id, preference, &mut cx.connections);
            }
        }
        self.tell_of_wants(cx, id, &known);
        self.allocate(cx, now, id);
    }
}
