//! What somebody who administers a room asks of it, and what of a participant can be changed.

use std::time::Instant;

use signalbox_protocol::control::{
    CloseReason, Event, ParticipantUpdate, Refusal, RefusalReason, Reply, ResumptionChange, RoomCommand,
};
use signalbox_protocol::id::MAX_NAME_BYTES;
use signalbox_protocol::room::ParticipantInfo;
use signalbox_protocol::{Identity, ParticipantId, TrackId};

use crate::participant::Participant;
use crate::publish::no_participant;
use crate::room::{Context, Room};

/// Attributes of one participant.
const MAX_ATTRIBUTES: usize = 64;

/// Metadata and attributes of one participant, in bytes. Everybody in the room is told them.
const MAX_METADATA_BYTES: usize = 64 * 1024;

impl Room {
    /// Does what somebody asks who administers the room.
    pub fn administer(&mut self, cx: &mut Context, now: Instant, command: RoomCommand) -> Result<Reply, Refusal> {
        match command {
            RoomCommand::List => {
                return Ok(Reply::Room {
                    room: self.info(),
                    participants: self
                        .participants
                        .keys()
                        .filter_map(|id| self.participant_info(id))
                        .collect(),
                });
            }
            RoomCommand::SetMetadata { metadata } => {
                self.set_metadata(cx, metadata)?;
                return self.administer(cx, now, RoomCommand::List);
            }
            RoomCommand::Find { participant } => {
                let id = self.named(&participant)?;
                return self.told(&id);
            }
            RoomCommand::Update { participant, update } => {
                let id = self.named(&participant)?;
                self.update(cx, now, &id, *update)?;
                return self.told(&id);
            }
            RoomCommand::Mute {
                participant,
                track,
                muted,
            } => {
                let id = self.named(&participant)?;
                let is_news = self.tracks.get(&track).is_some_and(|found| found.info.muted != muted);
                self.own_or_announced(&id, &track)?;
                if muted && is_news {
                    let event = Event::MutedRemotely { track: track.clone() };
                    self.tell(cx, event, |told| *told == id);
                }
                self.mute(cx, now, &id, &track, muted)?;
            }
            RoomCommand::Unpublish { participant, track } => {
                let id = self.named(&participant)?;
                self.unpublish(cx, now, &id, &track)?;
            }
            RoomCommand::Remove { participant } => {
                let id = self.named(&participant)?;
                self.remove(cx, now, &id, CloseReason::Removed);
            }
        }
        Ok(Reply::Done)
    }

    fn set_metadata(&mut self, cx: &mut Context, metadata: String) -> Result<(), Refusal> {
        check_metadata(&metadata)?;
        if self.metadata != metadata {
            self.metadata = metadata;
            let room = self.info();
            self.tell(cx, Event::RoomUpdated { room }, |_| true);
        }
        Ok(())
    }

    /// Ends a participant's track, announced or published.
    pub fn unpublish(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: &ParticipantId,
        track: &TrackId,
    ) -> Result<(), Refusal> {
        let participant = self.participants.get_mut(id).ok_or_else(no_participant)?;
        let pending = participant.pending.iter().position(|(pending, _)| pending == track);
        match pending {
            Some(index) => {
                drop(participant.pending.swap_remove(index));
                let change = ResumptionChange::Ended { id: track.clone() };
                cx.tell_one(id, Event::Resumable { change });
            }
            None => {
                self.own_track(id, track)?;
                self.end_track(cx, now, track);
            }
        }
        Ok(())
    }

    /// Changes what others see of a participant, and what it may do. An update that asks for too much changes nothing.
    pub fn update(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: &ParticipantId,
        update: ParticipantUpdate,
    ) -> Result<(), Refusal> {
        let participant = self.participants.get_mut(id).ok_or_else(no_participant)?;
        let mut info = participant.info.clone();
        info.name = update.name.unwrap_or(info.name);
        info.metadata = update.metadata.unwrap_or(info.metadata);
        for (key, value) in update.attributes {
            if value.is_empty() {
                info.attributes.remove(&key);
            } else {
                info.attributes.insert(key, value);
            }
        }
        check_texts(&info)?;
        let was_hidden = info.grants.hidden;
        if let Some(grants) = update.grants {
            grants.apply(&mut info.grants);
        }
        let (hides, grants_change) = (info.grants.hidden, info.grants != participant.info.grants);
        participant.info = info;
        let Some(changed) = self.changed(id) else {
            return Err(no_participant());
        };
        match (was_hidden, hides) {
            (false, true) => {
                // To the others it is as if it had left.
                let mut participant = changed.clone();
                participant.tracks.clear();
                self.tell(cx, Event::ParticipantLeft { participant }, |told| told != id);
            }
            (true, false) => {
                let participant = changed.clone();
                self.tell(cx, Event::ParticipantJoined { participant }, |told| told != id);
            }
            (false, false) | (true, true) => {}
        }
        let news = Event::ParticipantUpdated { participant: changed };
        if was_hidden && !hides {
            self.tell(cx, news, |told| told == id);
        } else {
            self.tell_about(cx, id, news);
        }
        if grants_change {
            self.enforce_grants(cx, now, id);
        }
        Ok(())
    }

    /// Ends what a participant does and may not do any more.
    fn enforce_grants(&mut self, cx: &mut Context, now: Instant, id: &ParticipantId) {
        let Some(participant) = self.participants.get_mut(id) else {
            return;
        };
        let granted = |participant: &Participant, source| participant.may_publish(source);
        let pending = std::mem::take(&mut participant.pending);
        participant.pending = pending
            .into_iter()
            .filter(|(_, said)| granted(participant, said.source))
            .collect();
        let forbidden: Vec<TrackId> = self
            .tracks
            .values()
            .filter(|track| track.publisher == *id && !granted(participant, track.info.source))
            .map(|track| track.id().clone())
            .collect();
        for track in forbidden {
            self.end_track(cx, now, &track);
        }
        self.refresh_subscriptions(cx, now, id);
    }

    /// The participant of an id or an identity.
    fn named(&self, name: &str) -> Result<ParticipantId, Refusal> {
        let id = ParticipantId::new(name);
        if self.participants.contains_key(&id) {
            return Ok(id);
        }
        let identity = name.parse::<Identity>().ok();
        let found = identity.and_then(|identity| self.by_identity.get(&identity));
        found.cloned().ok_or_else(|| {
            Refusal::new(
                RefusalReason::NoParticipant,
                "There is no participant with this id or identity in the room.",
            )
        })
    }

    fn told(&self, id: &ParticipantId) -> Result<Reply, Refusal> {
        let participant = self.participant_info(id).ok_or_else(no_participant)?;
        Ok(Reply::Participant {
            participant: Box::new(participant),
        })
    }

    fn own_or_announced(&self, id: &ParticipantId, track: &TrackId) -> Result<(), Refusal> {
        let announced = self
            .participants
            .get(id)
            .is_some_and(|participant| participant.pending.iter().any(|(pending, _)| pending == track));
        if announced { Ok(()) } else { self.own_track(id, track) }
    }
}

/// Refuses texts of a participant that are too long.
pub fn check_texts(info: &ParticipantInfo) -> Result<(), Refusal> {
    let attributes: usize = info.attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    if info.name.len() > MAX_NAME_BYTES
        || info.attributes.len() > MAX_ATTRIBUTES
        || info.metadata.len() + attributes > MAX_METADATA_BYTES
    {
        let detail = format!(
            "A participant's name has at most {MAX_NAME_BYTES} bytes, it has at most {MAX_ATTRIBUTES} attributes, and these and its metadata \
             together have at most {MAX_METADATA_BYTES} bytes; send less."
        );
        return Err(Refusal::new(RefusalReason::Invalid, detail));
    }
    Ok(())
}

/// Refuses metadata of a room that is too long.
pub fn check_metadata(metadata: &str) -> Result<(), Refusal> {
    if metadata.len() > MAX_METADATA_BYTES {
        let detail = format!("The room's metadata may have at most {MAX_METADATA_BYTES} bytes.");
        return Err(Refusal::new(RefusalReason::Invalid, detail));
    }
    Ok(())
}
