//! Looks what a room's subscribers receive of a track, and tells its publisher.

use std::time::Instant;

use signalbox_protocol::TrackId;
use signalbox_protocol::control::{Event, Quality};
use signalbox_protocol::room::Kind;

use crate::room::{Context, Room};

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
        let mime_type = track.info.mime_type.as_str();
        if mime_type.is_empty() {
            return;
        }
        let desires = track.subscriptions.iter().map(|subscription| {
            let subscriber = self.participants.get(&subscription.subscriber);
            subscriber.map_or(Some(Quality::High), |subscriber| subscriber.receiver.desire(id))
        });
        let received = desires.max().flatten();
        let wanted = self.wanted.entry(id.clone()).or_default();
        if !wanted.update(now, &[(mime_type, received)]) {
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
}
