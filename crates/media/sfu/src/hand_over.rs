//! Participants of a room that moves to another node: until they are there they are served here, and the way to their clients leads over
//! this node until those have found the other one.

use std::time::Instant;

use signalbox_protocol::ParticipantId;
use signalbox_protocol::tunnel::Tunnel;

use crate::participant::Presence;
use crate::room::{Context, Room};

impl Room {
    /// The ways to a participant's client, for the node that is about to take it up.
    pub fn open_tunnels(&mut self, cx: &mut Context, now: Instant, id: &ParticipantId) -> Vec<Tunnel> {
        let participant = self.participants.get(id).filter(|found| !found.offers_once);
        let keys = participant
            .into_iter()
            .flat_map(|participant| participant.connections());
        let tunnels = keys
            .filter_map(|key| cx.connections.open_tunnel(now, &mut cx.ids, key))
            .collect();
        self.leave_pictures_alone(now, id);
        tunnels
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
