//! Looks what a room's subscribers receive of a track and in which codec, and tells its publisher, or them if there is none that will do.

use std::collections::BTreeSet;
use std::time::Instant;

use signalbox_protocol::control::{Event, Quality, SubscriptionFault, Transports};
use signalbox_protocol::room::Kind;
use signalbox_protocol::{ParticipantId, TrackId};

use crate::codec::Codec;
use crate::dynacast::{self, Places};
use crate::participant::{Outlet, Participant};
use crate::room::{Context, Room};
use crate::track::Track;

impl Room {
    /// Looks whether the publishers should send something else than they were asked for.
    pub fn ask_for_all_encodings(&mut self, cx: &mut Context, now: Instant) {
        self.wanted.retain(|track, _| self.tracks.contains_key(track));
        let tracks: Vec<TrackId> = self.tracks.keys().cloned().collect();
        for track in tracks {
            self.ask_for_encodings(cx, now, &track);
        }
    }

    /// Looks whether the publisher of a track should send something else than it was asked for.
    pub fn ask_for_encodings(&mut self, cx: &mut Context, now: Instant, id: &TrackId) {
        let Some(track) = self.tracks.get(id).filter(|track| track.info.kind == Kind::Video) else {
            return;
        };
        let codecs: Vec<Option<Codec>> = track.codecs().collect();
        if codecs.contains(&None) {
            return;
        }
        let mut wanted = vec![Places::default(); codecs.len()];
        for subscription in &track.subscriptions {
            let Some(entry) = cx.connections.get(subscription.connection) else {
                continue;
            };
            let mut codecs = codecs.iter();
            let best = codecs.position(|codec| entry.transport.can_take(subscription.mid, *codec));
            if let Some((best, wanted)) = best.and_then(|best| Some((best, wanted.get_mut(best)?))) {
                wanted.extend(self.desire(track, best, &subscription.subscriber));
                if let Some(current) = track.current(now, &subscription.subscriber)
                    && subscription.encoding == best
                {
                    wanted.insert(current.spatial);
                }
            }
        }
        let received = codecs.iter().zip(wanted).enumerate().map(|(index, (codec, wanted))| {
            let encoding = track.encodings().get(index);
            let top = encoding.map_or(0, |encoding| encoding.highest(now, &track.info));
            (
                codec.map_or("", Codec::mime_type),
                dynacast::names(encoding, top, wanted),
            )
        });
        let received: Vec<(&str, BTreeSet<Quality>)> = received.collect();
        let wanted = self.wanted.entry(id.clone()).or_default();
        if !wanted.update(now, &received) {
            return;
        }
        let (codecs, publisher) = (wanted.told(), &track.publisher);
        if self
            .participants
            .get(publisher)
            .is_some_and(|publisher| publisher.is_attached)
        {
            let track = id.clone();
            cx.tell_one(publisher, Event::EncodingsWanted { track, codecs });
        }
    }

    /// What a subscriber desires of an encoding of a track. As long as that was not decided: the best, and what it will begin with.
    fn desire(&self, track: &Track, encoding: usize, subscriber: &ParticipantId) -> Places {
        let subscriber = self.participants.get(subscriber);
        let decided = subscriber.and_then(|subscriber| subscriber.receiver.desire(track.id()));
        let encoding = track
            .encodings()
            .get(encoding)
            .filter(|encoding| encoding.is_simulcast());
        match (decided, encoding) {
            (Some(decided), _) => decided,
            (None, Some(encoding)) => {
                let mut places = Places::default();
                places.insert(0);
                places.insert(encoding.streams.len().saturating_sub(1) as u8);
                places
            }
            (None, None) => Places::ALL,
        }
    }

    /// Tells a participant which of the tracks that it wants are in no codec that it can take, once for each.
    pub fn tell_of_codecs(&mut self, cx: &mut Context, id: &ParticipantId) {
        let Some(participant) = self.participants.get(id).filter(|participant| participant.is_attached) else {
            return;
        };
        let wanted = self
            .tracks
            .values()
            .filter(|track| track.publisher != *id && participant.wants(track.id()));
        let failed: Vec<(ParticipantId, TrackId)> = wanted
            .filter(|track| !can_decode(cx, participant, track))
            .map(|track| (track.publisher.clone(), track.id().clone()))
            .collect();
        let Some(participant) = self.participants.get_mut(id) else {
            return;
        };
        let told = &mut participant.undecodable;
        told.retain(|track| failed.iter().any(|(_, failed)| failed == track));
        let news: Vec<_> = failed
            .into_iter()
            .filter(|(_, track)| told.insert(track.clone()))
            .collect();
        for (participant, track) in news {
            let event = Event::SubscriptionFailed {
                participant,
                track,
                reason: SubscriptionFault::Codec,
            };
            cx.tell_one(id, event);
        }
    }
}

/// Whether a participant can take a track on the m-line that carries it, or, if none does, on one that is free. Without any such m-line
/// nothing is known.
fn can_decode(cx: &Context, participant: &Participant, track: &Track) -> bool {
    // Slots without a peer connection are of the codec that their owner asked for.
    let connection = participant.outgoing().and_then(|key| cx.connections.get(key));
    let (Some(entry), Transports::Single | Transports::Dual) = (connection, participant.transports) else {
        return true;
    };
    let lines = participant
        .outlets
        .iter()
        .filter(|outlet| outlet.is_open && outlet.kind == track.info.kind);
    let carries = |outlet: &&Outlet| outlet.track.as_ref() == Some(track.id());
    let carrying = lines.clone().find(carries);
    let mut candidates = lines.filter(|outlet| match carrying {
        Some(line) => line.mid == outlet.mid,
        None => outlet.track.is_none(),
    });
    let takes = |outlet: &Outlet| track.codecs().any(|codec| entry.transport.can_take(outlet.mid, codec));
    candidates.clone().next().is_none() || candidates.any(takes)
}
