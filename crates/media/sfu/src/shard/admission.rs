//! Who enters a room, and how it comes to be open.

use std::time::Instant;

use signalbox_protocol::control::{Join, Refusal, RefusalReason, Reply};
use signalbox_protocol::room::{ParticipantInfo, RoomInfo};
use signalbox_protocol::{Generation, RoomName};

use super::{Shard, media_address};
use crate::publish::no_participant;
use crate::resume;
use crate::room::Room;

impl Shard {
    /// Opens a room in this generation, or finds it open. The caller has checked the ticket.
    pub fn handle_open(&mut self, now: Instant, room: &RoomName, generation: Generation) -> Result<Reply, Refusal> {
        self.open(now, room, generation);
        Ok(Reply::Opened {
            media: media_address(&self.config, generation),
        })
    }

    /// Admits a participant to a room, which is opened in this generation if it is not open. The caller has checked the ticket.
    pub fn handle_join(&mut self, now: Instant, generation: Generation, join: Join) -> Result<Reply, Refusal> {
        // Who was expected has its place already.
        let resumed = join.resume.as_ref().map(|resume| &resume.participant.id);
        let is_known = resumed.is_some_and(|id| self.rooms.iter().any(|(_, room)| room.participants.contains_key(id)));
        if self.present() >= self.config.limits.participants && !is_known {
            return Err(full());
        }
        let (now_ms, media) = (self.unix_ms(now), media_address(&self.config, generation));
        let key = self.open(now, &join.room, generation);
        match self.rooms.get_mut(key) {
            Some(room) => room.join(&mut self.cx, now, now_ms, media, join),
            None => Err(no_participant()),
        }
    }

    /// Opens a room that was lost with its node, or finds it open, and expects those who were in it. The caller has checked the ticket.
    pub fn handle_expect(
        &mut self,
        now: Instant,
        generation: Generation,
        room: RoomInfo,
        participants: Vec<ParticipantInfo>,
    ) -> Result<Reply, Refusal> {
        let known = self.keys.get(&room.name).and_then(|key| self.rooms.get(*key));
        let is_new = known.is_none();
        let mut news = participants.iter();
        let is_news = |info: &&ParticipantInfo| known.is_none_or(|room| !room.participants.contains_key(&info.id));
        let news = news.by_ref().filter(is_news).count();
        if news > 0 && self.present() + news > self.config.limits.participants {
            return Err(full());
        }
        resume::check(known, &room, &participants)?;
        let key = self.open(now, &room.name, generation);
        if let Some(opened) = self.rooms.get_mut(key) {
            if is_new {
                opened.id.clone_from(&room.id);
                opened.created_at_ms = room.created_at_ms;
            }
            opened.expect(&mut self.cx, now, &room, participants);
        }
        Ok(Reply::Opened {
            media: media_address(&self.config, generation),
        })
    }

    /// How many participants are in its rooms.
    pub(super) fn present(&self) -> usize {
        self.rooms.iter().map(|(_, room)| room.present()).sum()
    }

    fn open(&mut self, now: Instant, name: &RoomName, generation: Generation) -> usize {
        if let Some(key) = self.keys.get(name) {
            return *key;
        }
        if self.rooms.is_empty() {
            self.next_tick = now;
            self.next_allocation = now;
        }
        let (id, now_ms) = (self.cx.ids.room(), self.unix_ms(now));
        let entry = self.rooms.vacant_entry();
        let key = entry.key();
        let limits = &self.config.limits;
        entry.insert(Room::new(key, name.clone(), id, generation, now_ms, now, limits));
        self.keys.insert(name.clone(), key);
        key
    }
}

fn full() -> Refusal {
    Refusal::new(RefusalReason::Full, "This shard takes no more participants.")
}
