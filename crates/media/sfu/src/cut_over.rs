//! When those who are taken up from a node that still serves them come over: all of a room at once.
//!
//! A client is served by its old node until it is told of the new one's DTLS, and by the new one from when that is up. What one sends while another
//! is still at the other node is lost between the two. So whoever is taken up with a way to its client over the old node is told nothing until
//! everyone has offered anew, or has had the time; and no key frame is asked for until those who are to see it are here. Sound is passed from one node to
//! the other meanwhile ([`crate::bridge`]), since clients do not all come over at the same moment.

use std::time::{Duration, Instant};

use signalbox_protocol::ParticipantId;
use signalbox_protocol::room::Kind;

use crate::bridge::Sound;
use crate::connections::{Entry, Key};
use crate::participant::{Participant, Presence};
use crate::room::{Context, Room};
use crate::track::Track;

/// How long those who were quick wait for the others. Nobody misses anything meanwhile. Higher: the others have more time. Lower: a room whose
/// clients do not all come is at the new node sooner.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long key frames are put off for those whose connection is not up yet. Higher: slow ones need no second key frame. Lower: the others see pictures
/// sooner if one does not come.
const KEY_FRAME_PATIENCE: Duration = Duration::from_millis(200);

/// How long a node that a client is leaving asks it for no key frame: the next node is about to, and clients heed only one request in a while.
const LEAVING: Duration = Duration::from_secs(1);

impl Room {
    /// A participant was taken up with a way to its client over the node that it was at.
    pub fn begin_cut_over(&mut self, cx: &mut Context, now: Instant) {
        let until = *self.cut_over.get_or_insert(now + PATIENCE);
        cx.cut_over_due = Some(cx.cut_over_due.map_or(until, |due| due.min(until)));
    }

    /// Whether what is to be told to a participant's client waits for the others.
    pub fn is_held(&self, cx: &Context, id: &ParticipantId) -> bool {
        let participant = self.participants.get(id).filter(|_| self.cut_over.is_some());
        participant.is_some_and(|participant| participant.connections().any(|key| is_tunneled(cx, key)))
    }

    /// A participant has offered on this connection. Who is late is not waited for, and waits for nobody.
    pub fn offered(&mut self, cx: &mut Context, now: Instant, key: Key) {
        self.tend_cut_over(cx, now);
        if self.cut_over.is_none() {
            release(cx, key);
        }
    }

    /// Lets everyone come over, if all have offered or the time is over.
    pub fn tend_cut_over(&mut self, cx: &mut Context, now: Instant) {
        let Some(until) = self.cut_over else {
            return;
        };
        if now < until
            && self
                .participants
                .values()
                .any(|participant| self.is_awaited(participant))
        {
            return;
        }
        self.cut_over = None;
        let of_tunnels = self.participants.values();
        let of_tunnels = of_tunnels.filter(|participant| participant.connections().any(|key| is_tunneled(cx, key)));
        let of_tunnels: Vec<ParticipantId> = of_tunnels.map(|participant| participant.info.id.clone()).collect();
        self.is_quiet = self.awaits_viewers(cx);
        let quiet_until = self.is_quiet.then(|| now + KEY_FRAME_PATIENCE);
        for track in self.tracks.values_mut() {
            track.quiet_until = quiet_until;
        }
        for id in of_tunnels {
            let connections = self.participants.get(&id).map(Participant::connections);
            for key in connections.into_iter().flatten() {
                release(cx, key);
            }
            self.repeat_offer(cx, &id);
        }
    }

    /// A viewer's connection is up: if it was the last one, it is time for key frames.
    pub fn end_quiet(&mut self, cx: &mut Context, now: Instant) {
        if !self.is_quiet || self.cut_over.is_some() || self.awaits_viewers(cx) {
            return;
        }
        self.is_quiet = false;
        for track in self.tracks.values_mut() {
            track.quiet_until = None;
            track.request_awaited(now, &mut cx.connections);
        }
    }

    /// Sound of a participant that another node has: those who are here hear it as well.
    pub fn hear(&mut self, cx: &mut Context, now: Instant, id: &ParticipantId, sound: Sound) {
        let track = self.tracks.get_mut(&sound.track);
        let is_its = |track: &&mut Track| track.publisher == *id && track.info.kind == Kind::Audio;
        if let Some(track) = track.filter(is_its) {
            cx.stats.forwarded += track.forward_from_elsewhere(now, sound, &mut cx.connections);
        }
    }

    /// What a participant publishes is about to come from it to another node.
    pub fn leave_pictures_alone(&mut self, now: Instant, id: &ParticipantId) {
        let own = |track: &&mut Track| track.publisher == *id;
        for track in self.tracks.values_mut().filter(own) {
            track.quiet_until = Some(now + LEAVING);
        }
    }

    /// Whether a participant has yet to be taken up, or to offer.
    fn is_awaited(&self, participant: &Participant) -> bool {
        if participant.presence == Presence::Expected {
            return true;
        }
        let publishes = || self.tracks.values().any(|track| track.publisher == participant.info.id);
        participant.kept.tunnel.is_some() && (publishes() || !participant.kept.channels.is_empty())
    }

    /// Whether somebody who comes over has no connection to see pictures on yet.
    fn awaits_viewers(&self, cx: &Context) -> bool {
        let viewers = self
            .participants
            .values()
            .filter_map(|participant| participant.outgoing());
        let mut entries = viewers.filter_map(|key| cx.connections.get(key));
        entries.any(|entry| entry.via.is_some() && !entry.is_connected)
    }
}

/// Lets a connection's DTLS begin.
fn release(cx: &mut Context, key: Key) {
    let entry = cx.connections.change(key);
    if let Some(connection) = entry.and_then(|entry| entry.transport.peer_mut()) {
        connection.release();
    }
}

fn is_tunneled(cx: &Context, key: Key) -> bool {
    cx.connections.get(key).and_then(|entry: &Entry| entry.via).is_some()
}
