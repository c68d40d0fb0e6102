//! Brings what a room's subscribers want together with what its tracks have and what the network takes.

use std::collections::BTreeMap;
use std::time::Instant;

use signalbox_protocol::control::{Event, StreamState};
use signalbox_protocol::room::{Kind, Source};
use signalbox_protocol::{ParticipantId, TrackId};

use super::{INTERVAL, Receiver, Request};
use crate::allocator::{Budget, fill_costs};
use crate::dynacast::{self, Places};
use crate::room::{Context, Room};
use crate::track::Track;

impl Room {
    /// Decides anew what everyone gets: who is to be seen best has changed.
    pub fn allocate_everyone(&mut self, cx: &mut Context, now: Instant) {
        for participant in self.participants.values_mut() {
            participant.receiver.due = None;
        }
        self.allocate_due(cx, now);
    }

    /// Decides anew what those subscribers get whose turn it is.
    pub fn allocate_due(&mut self, cx: &mut Context, now: Instant) {
        let is_due = |receiver: &Receiver| receiver.due.is_none_or(|due| due <= now);
        let due: Vec<ParticipantId> = self
            .participants
            .values()
            .filter(|participant| is_due(&participant.receiver))
            .map(|participant| participant.info.id.clone())
            .collect();
        if due.is_empty() {
            return;
        }
        let speech = self.speech();
        for id in due {
            self.allocate_one(cx, now, &id, &speech);
        }
    }

    /// Decides anew what a subscriber gets of its video tracks.
    pub fn allocate(&mut self, cx: &mut Context, now: Instant, id: &ParticipantId) {
        let speech = self.speech();
        self.allocate_one(cx, now, id, &speech);
    }

    /// Something has changed for all who receive a track: it is their turn as soon as possible.
    pub fn allocate_soon(&mut self, track: &TrackId) {
        let Some(track) = self.tracks.get(track).filter(|track| track.info.kind == Kind::Video) else {
            return;
        };
        for subscription in &track.subscriptions {
            if let Some(subscriber) = self.participants.get_mut(&subscription.subscriber) {
                subscriber.receiver.due = None;
            }
        }
    }

    /// Tells a participant again what it may have missed: what is paused, and what is wanted of its own tracks.
    pub fn repeat_allocation(&self, cx: &mut Context, id: &ParticipantId) {
        let Some(participant) = self.participants.get(id) else {
            return;
        };
        let paused = participant
            .receiver
            .paused()
            .map(|track| (track.clone(), true))
            .collect();
        self.tell_stream_states(cx, id, paused);
        for (track, wanted) in &self.wanted {
            let codecs = wanted.told();
            if self.tracks.get(track).is_some_and(|track| track.publisher == *id) && !codecs.is_empty() {
                let track = track.clone();
                cx.tell_one(id, Event::EncodingsWanted { track, codecs });
            }
        }
    }

    /// How many have spoken after each.
    fn speech(&self) -> BTreeMap<ParticipantId, usize> {
        let recency = self.speakers.recency();
        recency.into_iter().enumerate().map(|(rank, id)| (id, rank)).collect()
    }

    fn allocate_one(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: &ParticipantId,
        speech: &BTreeMap<ParticipantId, usize>,
    ) {
        let requests = self.requests(now, id, speech);
        let Some(participant) = self.participants.get_mut(id) else {
            return;
        };
        participant.receiver.due = Some(now + INTERVAL);
        let Some(key) = participant.outgoing() else {
            return;
        };
        let Some(entry) = cx.connections.get(key) else {
            return;
        };
        let allowed = [entry.transport.estimate(), participant.limits.receive_bps];
        let budget = Budget {
            bps: allowed.into_iter().flatten().min(),
            reserve: entry.transport.overhead(now),
            never_pause: participant.never_pause,
        };
        let decision = participant.receiver.decide(now, budget, &requests);
        if participant.receiver.wanted.replace(decision.wanted) != Some(decision.wanted)
            && let Some(entry) = cx.connections.change(key)
        {
            entry.transport.set_wanted(now, decision.wanted);
        }
        for (track, target) in decision.targets {
            if let Some(track) = self.tracks.get_mut(&track) {
                track.set_target(now, id, target, &mut cx.connections);
            }
        }
        for track in decision.desires {
            self.ask_for_encodings(cx, now, &track);
        }
        self.tell_stream_states(cx, id, decision.paused);
    }

    /// What a participant is subscribed to, as it is now.
    fn requests(&self, now: Instant, id: &ParticipantId, speech: &BTreeMap<ParticipantId, usize>) -> Vec<Request> {
        let Some(participant) = self.participants.get(id) else {
            return Vec::new();
        };
        let outlets = participant.outlets.iter().filter(|outlet| outlet.kind == Kind::Video);
        let tracks = outlets.filter_map(|outlet| self.tracks.get(outlet.track.as_ref()?));
        let requests = tracks.filter(|track| track.is_subscribed(id)).map(|track| {
            let mut rungs = track.ladder(now, id);
            fill_costs(&mut rungs, &track.info);
            Request {
                track: track.id().clone(),
                rungs,
                preference: participant.preference(track.id()),
                limit: participant.limits.receive_quality,
                is_screen: track.info.source == Source::ScreenShare,
                spoke: speech.get(&track.publisher).copied(),
                is_muted: track.info.muted,
                asked: self.asked(now, track, id),
            }
        });
        requests.collect()
    }

    /// The spatial layers of a subscriber's encoding that should have come by now.
    fn asked(&self, now: Instant, track: &Track, subscriber: &ParticipantId) -> Places {
        let mut asked = Places::default();
        let (encoding, wanted) = (track.encoding_of(subscriber), self.wanted.get(track.id()));
        if let (Some(encoding), Some(wanted)) = (encoding, wanted)
            && let Some(codec) = encoding.codec
        {
            let (names, top) = (wanted.asked(now, codec.mime_type()), encoding.highest(now, &track.info));
            let hopeless = (0..=top).filter(|spatial| names.contains(&dynacast::name(encoding, top, *spatial)));
            hopeless.for_each(|spatial| asked.insert(spatial));
        }
        asked
    }

    fn tell_stream_states(&self, cx: &mut Context, id: &ParticipantId, paused: Vec<(TrackId, bool)>) {
        let streams: Vec<StreamState> = paused
            .into_iter()
            .filter_map(|(track, paused)| {
                Some(StreamState {
                    participant: self.publisher_of(&track)?,
                    track,
                    paused,
                })
            })
            .collect();
        if !streams.is_empty() {
            self.tell(cx, Event::StreamStates { streams }, |told| told == id);
        }
    }
}
