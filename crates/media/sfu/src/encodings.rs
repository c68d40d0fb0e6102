//! Further encodings: a track whose publisher sends it in a second codec as well, for those who can decode no other.
//!
//! They have no id of their own. Each is announced under the id of its track, arrives on an m-line of its own, and ends with that; the
//! track decides who gets which.

use std::time::Instant;

use signalbox_protocol::control::{Refusal, RefusalReason, Reply, SaidTrack};
use signalbox_protocol::room::PublishTrack;
use signalbox_protocol::{ParticipantId, TrackId};

use crate::codec::Codec;
use crate::connections::Key;
use crate::packet::{Mid, Rid};
use crate::participant::UnclaimedLine;
use crate::publish::{letter, no_participant};
use crate::room::{Context, Room};

/// Encodings of a track, the first one included. Higher: a publisher may be asked to encode its picture more often. Lower: viewers that
/// cannot decode the first see nothing.
const MAX_ENCODINGS: usize = 2;

impl Room {
    /// A client says in which codec it is about to send one of its tracks as well. Said again, it is the same encoding.
    ///
    /// # Errors
    /// The track is not its own, the codec is not one of its kind that is known, or there are too many encodings.
    pub fn announce_encoding(
        &mut self,
        cx: &mut Context,
        now: Instant,
        id: &ParticipantId,
        of: &TrackId,
        said: PublishTrack,
    ) -> Result<Reply, Refusal> {
        self.own_track(id, of)?;
        let (Some(track), Some(participant)) = (self.tracks.get(of), self.participants.get_mut(id)) else {
            return Err(no_participant());
        };
        let reply = Reply::Published {
            track: Box::new(track.info.clone()),
        };
        let Some(codec) = codec_of(&said).filter(|codec| codec.kind() == track.info.kind) else {
            return Err(Refusal::new(
                RefusalReason::Invalid,
                "A further encoding needs a codec that is known and of its track's kind, such as video/VP8.",
            ));
        };
        let is_same = |other: &PublishTrack| other.encoding_of == said.encoding_of && codec_of(other) == Some(codec);
        let is_known = track.encodings().iter().any(|encoding| encoding.codec == Some(codec))
            || participant.pending.iter().any(|(_, other)| is_same(other));
        if is_known {
            return Ok(reply);
        }
        let announced = participant.pending.iter();
        let announced = announced
            .filter(|(_, other)| other.encoding_of == said.encoding_of)
            .count();
        if track.encodings().len() + announced >= MAX_ENCODINGS {
            return Err(Refusal::new(
                RefusalReason::Full,
                "Too many encodings of one track; a second codec is the last.",
            ));
        }
        match (participant.claim_line(&said), participant.publisher) {
            (Some(line), Some(key)) => {
                let announced = cx.ids.track(letter(said.kind));
                self.add_encoding(cx, now, key, &line, of, (announced, &said));
            }
            // Under an id of its own, which nobody knows, so that nobody takes it for the track.
            _ => {
                let announced = cx.ids.track(letter(said.kind));
                participant.pending.push((announced.clone(), said));
                self.tell_of_track(cx, id, &announced);
            }
        }
        Ok(reply)
    }

    /// A further encoding has an m-line. Nothing happens if its track is gone.
    pub fn add_encoding(
        &mut self,
        cx: &mut Context,
        now: Instant,
        key: Key,
        line: &UnclaimedLine,
        of: &TrackId,
        (announced, said): (TrackId, &PublishTrack),
    ) {
        let Some(track) = self.tracks.get_mut(of) else {
            return;
        };
        let further = SaidTrack {
            id: announced.clone(),
            said: said.clone(),
            mid: line.mid.as_str().to_owned(),
            streams: Vec::new(),
        };
        let publisher = track.publisher.clone();
        track.said_further.push(further);
        let layers = if said.layers.is_empty() {
            &line.layers
        } else {
            &said.layers
        };
        let rids = layers.iter().map(|layer| Rid::from(layer.rid.as_str()));
        track.add_encoding(key, line.mid, codec_of(said), rids);
        // Whoever waited for it.
        track.request_awaited(now, &mut cx.connections);
        self.tell_of_track(cx, &publisher, &announced);
        self.refresh_everyones_subscriptions(cx, now);
    }

    /// Nothing more comes of an encoding. With the one that it was published with, the track ends.
    pub fn end_encoding(&mut self, cx: &mut Context, now: Instant, id: &TrackId, key: Key, mid: Mid) {
        let Some(track) = self.tracks.get_mut(id) else {
            return;
        };
        if track.encoding_on(key, mid) == Some(0) {
            self.end_track(cx, now, id);
            return;
        }
        track.remove_encoding(key, mid);
        cx.connections.end_stream(key, mid);
        track.request_awaited(now, &mut cx.connections);
        self.refresh_everyones_subscriptions(cx, now);
    }
}

fn codec_of(said: &PublishTrack) -> Option<Codec> {
    said.codec.as_deref().and_then(Codec::from_mime_type)
}
