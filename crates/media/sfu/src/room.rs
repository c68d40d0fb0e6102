//! One room: who is in it, what is published, and who is told.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use signalbox_protocol::control::{CloseReason, Departed, Event, Snapshot};
use signalbox_protocol::room::{ParticipantInfo, ParticipantQuality, RoomInfo};
use signalbox_protocol::{Generation, Identity, ParticipantId, RoomName, TrackId};

use crate::api::{Limits, Output, ShardStats};
use crate::clock::Clock;
use crate::connections::{Connections, Key};
use crate::courses::Failing;
use crate::dynacast::Wanted;
use crate::ids::Ids;
use crate::loudest::Loudest;
use crate::packet::Mid;
use crate::participant::{Participant, Presence};
use crate::speakers::Speakers;
use crate::track::Track;

/// How long a departure is remembered for those who had no signaling when it happened.
const DEPARTURE_MEMORY: Duration = Duration::from_secs(60);

/// How many departures are remembered.
const MAX_DEPARTED: usize = 256;

/// What a room works with and does not own.
pub struct Context {
    /// All connections of the shard.
    pub connections: Connections,
    /// What is to be done outside.
    pub outputs: VecDeque<Output>,
    /// Rooms and tracks of which packets have come that not everybody has, in the order in which they came.
    pub bursts: VecDeque<(usize, TrackId)>,
    /// Makes ids.
    pub ids: Ids,
    /// Counters.
    pub stats: ShardStats,
    /// Whose connections failed of late.
    pub failing: Failing,
    /// What is bounded.
    pub limits: Limits,
    /// The time of day.
    pub clock: Clock,
    /// When a room has waited long enough for those who come over.
    pub cut_over_due: Option<Instant>,
}

impl Context {
    /// Tells one participant, who is attached.
    pub fn tell_one(&mut self, id: &ParticipantId, event: Event) {
        self.outputs.push_back(Output::Event {
            to: vec![id.clone()],
            event: Box::new(event),
        });
    }
}

/// A room.
pub struct Room {
    /// Its key in the shard.
    pub key: usize,
    /// Its name.
    pub name: RoomName,
    /// Its id.
    pub id: String,
    /// Its generation.
    pub generation: Generation,
    /// When it was opened, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// Free text of the application.
    pub metadata: String,
    /// Who is in it.
    pub participants: BTreeMap<ParticipantId, Participant>,
    /// The same by identity.
    pub by_identity: HashMap<Identity, ParticipantId>,
    /// What is published.
    pub tracks: BTreeMap<TrackId, Track>,
    /// The track that each source's packets were last found to belong to: an index, checked before it is believed.
    pub by_source: HashMap<(Key, Mid), TrackId>,
    /// What the publishers of video tracks were asked for.
    pub wanted: BTreeMap<TrackId, Wanted>,
    /// Who speaks.
    pub speakers: Speakers,
    /// Whose microphones are forwarded.
    pub loudest: Loudest,
    /// Who left, and when, oldest first.
    pub departed: VecDeque<(Instant, Departed)>,
    /// Since when nobody is in it.
    pub empty_since: Option<Instant>,
    /// Whether [`Output::RoomEmpty`] was put out.
    pub is_reported_empty: bool,
    /// Until when those who come over from another node wait for each other; none: they do not.
    pub cut_over: Option<Instant>,
    /// Those who came over so are not all connected yet, and key frames are put off for them.
    pub is_quiet: bool,
}

impl Room {
    /// An empty room.
    pub fn new(
        key: usize,
        name: RoomName,
        id: String,
        generation: Generation,
        created_at_ms: u64,
        now: Instant,
        limits: &Limits,
    ) -> Self {
        Self {
            key,
            name,
            id,
            generation,
            created_at_ms,
            metadata: String::new(),
            participants: BTreeMap::new(),
            by_identity: HashMap::new(),
            tracks: BTreeMap::new(),
            by_source: HashMap::new(),
            wanted: BTreeMap::new(),
            speakers: Speakers::default(),
            loudest: Loudest::new(limits.loudest_audio),
            departed: VecDeque::new(),
            empty_since: Some(now),
            is_reported_empty: false,
            cut_over: None,
            is_quiet: false,
        }
    }

    /// How many are in it, but for those who have gone to another node.
    pub fn present(&self) -> usize {
        let present = self.participants.values();
        present.filter(|found| found.presence != Presence::Gone).count()
    }

    /// As its participants see it.
    pub fn info(&self) -> RoomInfo {
        let visible = self
            .participants
            .values()
            .filter(|participant| !participant.grants().hidden)
            .count();
        let publishers: std::collections::BTreeSet<_> = self.tracks.values().map(|track| &track.publisher).collect();
        RoomInfo {
            name: self.name.clone(),
            id: self.id.clone(),
            generation: self.generation,
            created_at_ms: self.created_at_ms,
            participants: visible as u32,
            publishers: publishers.len() as u32,
            metadata: self.metadata.clone(),
        }
    }

    /// A participant as the others see it, with its tracks.
    pub fn participant_info(&self, id: &ParticipantId) -> Option<ParticipantInfo> {
        let mut info = self.participants.get(id)?.info.clone();
        info.tracks = self
            .tracks
            .values()
            .filter(|track| track.publisher == *id)
            .map(|track| track.info.clone())
            .collect();
        Some(info)
    }

    /// All that a participant's events have told so far.
    pub fn snapshot(&self, id: &ParticipantId) -> Option<Snapshot> {
        let participant = self.participants.get(id)?;
        let others = self
            .participants
            .values()
            .filter(|other| other.info.id != *id && !other.grants().hidden)
            .filter_map(|other| self.participant_info(&other.info.id))
            .collect();
        Some(Snapshot {
            room: self.info(),
            participant: self.participant_info(id)?,
            others,
            speakers: self.speakers.active(),
            slots: participant.slots(|track| self.publisher_of(track)),
            qualities: self.qualities(id),
            media: None,
            srtp: participant.srtp.clone(),
            limits: participant.limits,
            resumption: self.resumption(id).map(Box::new),
            departed: self.departed.iter().map(|(_, departed)| departed.clone()).collect(),
        })
    }

    /// How well everyone's connection does whom a participant may know about.
    fn qualities(&self, id: &ParticipantId) -> Vec<ParticipantQuality> {
        self.participants
            .values()
            .filter(|other| other.info.id == *id || !other.grants().hidden)
            .filter_map(|other| {
                Some(ParticipantQuality {
                    participant: other.info.id.clone(),
                    quality: other.quality?,
                })
            })
            .collect()
    }

    /// Looks up which track the packets of an m-line belong to, for [`Room::by_source`]. False: none.
    pub fn find_source(&mut self, key: Key, mid: Mid) -> bool {
        let is_from = |track: &Track| track.encoding_on(key, mid).is_some();
        let indexed = self.by_source.get(&(key, mid)).and_then(|id| self.tracks.get(id));
        if indexed.is_some_and(is_from) {
            return true;
        }
        let found = self
            .tracks
            .values()
            .find(|track| is_from(track))
            .map(|track| track.id().clone());
        let is_found = found.is_some();
        if let Some(id) = found {
            self.by_source.insert((key, mid), id);
        }
        is_found
    }

    /// Whose track it is.
    pub fn publisher_of(&self, track: &TrackId) -> Option<ParticipantId> {
        self.tracks.get(track).map(|track| track.publisher.clone())
    }

    /// Tells everyone who may know about a participant, itself included.
    pub fn tell_about(&self, cx: &mut Context, about: &ParticipantId, event: Event) {
        let is_hidden = self
            .participants
            .get(about)
            .is_some_and(|participant| participant.grants().hidden);
        self.tell(cx, event, |id| !is_hidden || id == about);
    }

    /// Tells everyone but a participant who may know about it.
    pub fn tell_others(&self, cx: &mut Context, about: &ParticipantId, event: Event) {
        let is_hidden = self
            .participants
            .get(about)
            .is_some_and(|participant| participant.grants().hidden);
        if !is_hidden {
            self.tell(cx, event, |id| id != about);
        }
    }

    /// Tells everyone attached whom the filter lets through.
    pub fn tell(&self, cx: &mut Context, event: Event, filter: impl Fn(&ParticipantId) -> bool) {
        let to: Vec<ParticipantId> = self
            .participants
            .values()
            .filter(|participant| participant.is_attached && filter(&participant.info.id))
            .map(|participant| participant.info.id.clone())
            .collect();
        if !to.is_empty() {
            cx.outputs.push_back(Output::Event {
                to,
                event: Box::new(event),
            });
        }
    }

    /// Counts a change of what the others see of a participant, and returns it as it is now.
    pub fn changed(&mut self, id: &ParticipantId) -> Option<ParticipantInfo> {
        self.participants.get_mut(id)?.info.version += 1;
        self.participant_info(id)
    }

    /// Forgets who left too long ago.
    pub fn forget_departed(&mut self, now: Instant) {
        while self
            .departed
            .front()
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) > DEPARTURE_MEMORY)
        {
            self.departed.pop_front();
        }
    }

    /// Removes a participant and all that is its.
    pub fn remove(&mut self, cx: &mut Context, now: Instant, id: &ParticipantId, reason: CloseReason) {
        if !self.participants.contains_key(id) {
            return;
        }
        self.tell(cx, Event::Closed { reason }, |told| told == id);
        let tracks: Vec<TrackId> = self
            .tracks
            .values()
            .filter(|track| track.publisher == *id)
            .map(|track| track.id().clone())
            .collect();
        for track in &tracks {
            self.end_track(cx, now, track);
        }
        for track in self.tracks.values_mut() {
            track.unsubscribe(id);
        }
        self.speakers.remove(id);
        let Some(participant) = self.participants.remove(id) else {
            return;
        };
        for key in participant.connections() {
            cx.connections.close(key);
        }
        if self.by_identity.get(&participant.info.identity) == Some(id) {
            self.by_identity.remove(&participant.info.identity);
        }
        if !participant.grants().hidden {
            let mut info = participant.info;
            info.version += 1;
            while self.departed.len() >= MAX_DEPARTED {
                self.departed.pop_front();
            }
            let departed = Departed {
                identity: info.identity.clone(),
                participant: id.clone(),
            };
            self.departed.push_back((now, departed));
            self.tell(cx, Event::ParticipantLeft { participant: info }, |_| true);
        }
        if self.participants.is_empty() {
            self.empty_since = Some(now);
        }
    }
}
