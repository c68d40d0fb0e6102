//! What takes a participant up again at another node, as its gateway is told it: with each snapshot in full, and then as it changes.

use signalbox_protocol::control::{ChannelInfo, Event, Resumption, ResumptionChange, SaidTrack, Target, Wanted};
use signalbox_protocol::{ParticipantId, TrackId};

use crate::participant::Participant;
use crate::room::{Context, Room};
use crate::track::Track;

impl Room {
    /// What the participant's next node has to know of it; none: it can be moved to no other.
    pub fn resumption(&self, id: &ParticipantId) -> Option<Resumption> {
        let participant = self.participants.get(id).filter(|found| !found.offers_once)?;
        let pending = participant.pending.iter().map(|(track, said)| SaidTrack {
            id: track.clone(),
            said: said.clone(),
            mid: String::new(),
        });
        let published = self.tracks.values().filter(|track| track.publisher == *id);
        Some(Resumption {
            transports: participant.transports,
            auto_subscribe: participant.auto_subscribe,
            never_pause: participant.never_pause,
            tracks: published.flat_map(said).chain(pending).collect(),
            wants: participant
                .wants
                .keys()
                .filter_map(|track| participant.wanted(track))
                .collect(),
            subscriber: participant.negotiation.agreed.as_deref().cloned(),
            channels: channels(participant),
        })
    }

    /// Tells a participant's gateway that a track of its, or a further encoding, was announced or published, by the id that it was announced
    /// under.
    pub fn tell_of_track(&self, cx: &mut Context, id: &ParticipantId, announced: &TrackId) {
        let Some(participant) = self.participants.get(id) else {
            return;
        };
        let pending = participant.pending.iter().find(|(track, _)| track == announced);
        let pending = pending.map(|(track, said)| SaidTrack {
            id: track.clone(),
            said: said.clone(),
            mid: String::new(),
        });
        let published = self.tracks.values().filter(|track| track.publisher == *id);
        let published = published.flat_map(said).find(|track| track.id == *announced);
        if let Some(track) = published.or(pending) {
            tell(cx, participant, ResumptionChange::Track { track: Box::new(track) });
        }
    }

    /// Tells a participant's gateway that it has said something new about these tracks.
    pub fn tell_of_wants(&self, cx: &mut Context, id: &ParticipantId, tracks: &[TrackId]) {
        let Some(participant) = self.participants.get(id) else {
            return;
        };
        let wants: Vec<Wanted> = tracks.iter().filter_map(|track| participant.wanted(track)).collect();
        if !wants.is_empty() {
            tell(cx, participant, ResumptionChange::Wants { wants });
        }
    }

    /// Tells a participant's gateway which of its data channels are open.
    pub fn tell_of_channels(&self, cx: &mut Context, id: &ParticipantId) {
        if let Some(participant) = self.participants.get(id) {
            let channels = channels(participant);
            tell(cx, participant, ResumptionChange::Channels { channels });
        }
    }
}

fn tell(cx: &mut Context, participant: &Participant, change: ResumptionChange) {
    if participant.is_attached && !participant.offers_once {
        cx.tell_one(&participant.info.id, Event::Resumable { change });
    }
}

/// What was said of a track and of its further encodings.
fn said(track: &Track) -> impl Iterator<Item = SaidTrack> {
    let first = SaidTrack {
        id: track.id().clone(),
        said: track.said.clone(),
        mid: track.info.mid.clone(),
    };
    std::iter::once(first).chain(track.said_further.iter().cloned())
}

fn channels(participant: &Participant) -> Vec<ChannelInfo> {
    let channels = participant.channels.iter().map(|open| ChannelInfo {
        target: if participant.subscriber == Some(open.connection) {
            Target::Subscriber
        } else {
            Target::Publisher
        },
        label: open.delivery.label().to_owned(),
        id: open.stream,
    });
    channels.collect()
}
