//! Participants of a room that moves to another node: until they are there they are served here, and the way to their clients leads over
//! this node until those have found the other one.

use std::time::Instant;

use signalbox_protocol::ParticipantId;
use signalbox_protocol::room::Kind;
use signalbox_protocol::tunnel::{SoundStream, Tunnel};

use crate::connections::Key;
use crate::participant::Presence;
use crate::room::{Context, Room};
use crate::track::Track;

impl Room {
    /// The ways to a participant's client, for the node that is about to take it up.
    pub fn open_tunnels(&mut self, cx: &mut Context, now: Instant, id: &ParticipantId) -> Vec<Tunnel> {
        let participant = self.participants.get(id).filter(|found| !found.offers_once);
        let keys = participant
            .into_iter()
            .flat_map(|participant| participant.connections());
        let mut tunnels = Vec::new();
        for key in keys {
            if let Some(tunnel) = cx.connections.open_tunnel(now, &mut cx.ids, key) {
                let sounds = self.sounds(cx, key, id);
                tunnels.push(Tunnel { sounds, ..tunnel });
            }
        }
        self.leave_pictures_alone(now, id);
        tunnels
    }

    /// The sound that a participant receives on a connection.
    fn sounds(&self, cx: &Context, key: Key, id: &ParticipantId) -> Vec<SoundStream> {
        let connection = cx.connections.get(key).and_then(|entry| entry.transport.peer());
        let sound = |track: &Track| {
            let (mid, begun) = track.begun(key, id)?;
            Some(SoundStream {
                mid: mid.as_str().to_owned(),
                track: track.id().clone(),
                ssrc: connection?.ssrc(mid)?,
                sequence_offset: begun.sequence_offset,
                timestamp_offset: begun.timestamp_offset,
            })
        };
        let tracks = self.tracks.values();
        let tracks = tracks.filter(|track| track.info.kind == Kind::Audio);
        tracks.filter_map(sound).collect()
    }

    /// It is at another node, where the room is moving to. Those who have not gone there yet go on to see it, and receive nothing more of it.
    pub fn let_go(&mut self, cx: &mut Context, id: &ParticipantId) {
        let Some(participant) = self.participants.get_mut(id) else {
            return;
        };
        participant.presence = Presence::Gone;
        participant.is_attached = false;
        participant.outlets.clear();
        participant.channels.clear();
        participant.negotiation.in_flight = None;
        let connections = [participant.publisher.take(), participant.subscriber.take()];
        for track in self.tracks.values_mut() {
            track.unsubscribe(id);
            if track.publisher == *id {
                track.lose_source();
            }
        }
        self.speakers.remove(id);
        for key in connections.into_iter().flatten() {
            cx.connections.close(key);
        }
    }
}
