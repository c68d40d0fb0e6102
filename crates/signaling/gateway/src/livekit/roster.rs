//! Who the client believes is in the room.
//!
//! Each connection keeps its own, for three things that no single event tells: how many are in the room, whom to
//! declare gone after events were missed, and whether a departure is about a stay that a newer one of the same identity
//! has replaced already. It holds a few words a participant, since a room of n participants has n rosters.

use std::collections::HashMap;

use signalbox_protocol::control::Snapshot;
use signalbox_protocol::room::{ParticipantInfo, RoomInfo};
use signalbox_protocol::{Identity, ParticipantId};

/// The room and who is in it.
#[derive(Debug)]
pub(super) struct Roster {
    room: RoomInfo,
    me: ParticipantId,
    here: HashMap<Identity, Here>,
}

#[derive(Debug)]
struct Here {
    id: ParticipantId,
    hidden: bool,
    publishes: bool,
}

impl Roster {
    /// As a snapshot has it.
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let mut roster = Self {
            room: snapshot.room.clone(),
            me: snapshot.participant.id.clone(),
            here: HashMap::with_capacity(snapshot.others.len() + 1),
        };
        roster.put(&snapshot.participant);
        for other in &snapshot.others {
            roster.put(other);
        }
        roster
    }

    /// The own participant's id.
    pub(super) fn me(&self) -> &ParticipantId {
        &self.me
    }

    /// Takes note of what has changed of the room itself.
    pub(super) fn put_room(&mut self, room: &RoomInfo) {
        self.room = room.clone();
    }

    /// Takes note of a participant as it is now.
    pub(super) fn put(&mut self, participant: &ParticipantInfo) {
        let here = Here {
            id: participant.id.clone(),
            hidden: participant.grants.hidden,
            publishes: !participant.tracks.is_empty(),
        };
        self.here.insert(participant.identity.clone(), here);
    }

    /// Takes note of a departure. False when the identity has been back since: clients know each other by identity, so
    /// that the news would remove the wrong stay.
    pub(super) fn remove(&mut self, participant: &ParticipantInfo) -> bool {
        if self
            .here
            .get(&participant.identity)
            .is_some_and(|now| now.id != participant.id)
        {
            return false;
        }
        self.here.remove(&participant.identity);
        true
    }

    /// Starts over from a snapshot; returns those who are gone since.
    pub(super) fn reset(&mut self, snapshot: &Snapshot) -> Vec<(Identity, ParticipantId)> {
        let before = std::mem::replace(self, Self::new(snapshot)).here;
        before
            .into_iter()
            .filter(|(identity, _)| !self.here.contains_key(identity))
            .map(|(identity, gone)| (identity, gone.id))
            .collect()
    }

    /// The room with its numbers brought up to date.
    pub(super) fn room(&self) -> RoomInfo {
        let visible = || self.here.values().filter(|here| !here.hidden);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        RoomInfo {
            participants: count(visible().count()),
            publishers: count(visible().filter(|here| here.publishes).count()),
            ..self.room.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use signalbox_protocol::Generation;
    use signalbox_protocol::room::{Grants, ParticipantState};

    use super::*;

    fn participant(id: &str, identity: &str) -> ParticipantInfo {
        ParticipantInfo {
            id: ParticipantId::new(id),
            identity: identity.parse().unwrap(),
            name: String::new(),
            metadata: String::new(),
            attributes: BTreeMap::new(),
            state: ParticipantState::Joined,
            tracks: Vec::new(),
            joined_at_ms: 0,
            version: 0,
            grants: Grants::default(),
            dialect_info: None,
        }
    }

    fn snapshot(others: &[(&str, &str)]) -> Snapshot {
        Snapshot {
            limits: Default::default(),
            room: RoomInfo {
                name: "daily".parse().unwrap(),
                id: "RM_a".into(),
                generation: Generation(1),
                created_at_ms: 0,
                participants: 0,
                publishers: 0,
                metadata: String::new(),
            },
            participant: participant("PA_me", "me"),
            others: others.iter().map(|(id, identity)| participant(id, identity)).collect(),
            speakers: Vec::new(),
            slots: Vec::new(),
            qualities: Vec::new(),
            media: None,
            srtp: None,
            resumption: None,
            departed: Vec::new(),
        }
    }

    #[test]
    fn a_late_departure_does_not_remove_the_stay_that_replaced_it() {
        let mut roster = Roster::new(&snapshot(&[("PA_1", "ann")]));
        roster.put(&participant("PA_2", "ann"));
        assert!(!roster.remove(&participant("PA_1", "ann")));
        assert!(roster.remove(&participant("PA_2", "ann")));
    }

    #[test]
    fn a_fresh_snapshot_tells_who_is_gone() {
        let mut roster = Roster::new(&snapshot(&[("PA_1", "ann"), ("PA_2", "bob")]));
        let gone = roster.reset(&snapshot(&[("PA_3", "ann"), ("PA_4", "cat")]));
        assert_eq!(gone, [("bob".parse().unwrap(), ParticipantId::new("PA_2"))]);
        assert_eq!(roster.room().participants, 3);
    }

    #[test]
    fn hidden_participants_are_not_counted() {
        let mut roster = Roster::new(&snapshot(&[("PA_1", "ann")]));
        let mut spy = participant("PA_2", "spy");
        spy.grants.hidden = true;
        roster.put(&spy);
        assert_eq!(roster.room().participants, 2);
    }
}
