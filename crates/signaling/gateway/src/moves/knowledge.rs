//! What a gateway knows of its rooms and of its own participants, so that they survive their node.
//!
//! A participant's part is with its session ([`Kept`]); what all of a room's sessions see alike is kept once ([`RoomRecord`]). Both are filled from
//! snapshots and events as the sessions hand them out, so that what a client has been told is what the next node is told. The versions of
//! participants decide, since each session is at another place in its events.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use signalbox_protocol::control::{
    Agreed, Command, Event, Join, ParticipantLimits, Resume, Resumption, ResumptionChange, Snapshot, Target, Transports,
};
use signalbox_protocol::placement::Placement;
use signalbox_protocol::room::{ParticipantInfo, RoomInfo, Slot};
use signalbox_protocol::srtp::SrtpSession;
use signalbox_protocol::{Identity, ParticipantId, RoomName, TrackId};

use super::recovery::Place;
use super::streams;

/// How many departures are remembered, so that another session's older news do not undo them. Higher: more memory for each room. Lower: in a burst
/// of departures somebody is expected at the next node who has left.
const DEPARTURES: usize = 1024;

/// What takes one participant up at another node.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// As it was last.
    pub(crate) participant: ParticipantInfo,
    limits: ParticipantLimits,
    slots: Vec<Slot>,
    /// None: only its client can take it elsewhere.
    pub(crate) resumption: Option<Resumption>,
    /// Of a client without a peer connection: its streams.
    pub(crate) srtp: Option<SrtpSession>,
    /// The node's offer that the client has yet to answer.
    pub(crate) offered: Option<(u32, String)>,
}

impl Kept {
    /// As a snapshot has it.
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        Self {
            participant: snapshot.participant.clone(),
            limits: snapshot.limits,
            slots: snapshot.slots.clone(),
            resumption: snapshot.resumption.as_deref().cloned(),
            srtp: snapshot.srtp.as_deref().cloned(),
            offered: None,
        }
    }

    /// Takes in what the participant's session was told.
    pub(crate) fn observe(&mut self, event: &Event) {
        match event {
            Event::ParticipantUpdated { participant } | Event::TrackMuted { participant, .. } => self.put(participant),
            Event::TrackPublished { participant, track } => {
                self.put(participant);
                self.carried(track);
            }
            Event::TrackUnpublished { participant, track } => {
                self.put(participant);
                if let Some(resumption) = &mut self.resumption {
                    resumption.forget_track(track);
                }
            }
            Event::Resumable { change } => self.change(change),
            Event::Slots { slots } => {
                for slot in slots {
                    match self.slots.iter_mut().find(|known| known.mid == slot.mid) {
                        Some(known) => *known = slot.clone(),
                        None => self.slots.push(slot.clone()),
                    }
                }
            }
            Event::Offer { id, sdp } => self.offered = Some((*id, sdp.clone())),
            _ => {}
        }
    }

    /// Takes in what the participant's client asks for. An answer counts from here on, whether or not the node still hears it: the client's
    /// connection is as the answer says.
    pub(crate) fn asked(&mut self, command: &Command) {
        let Command::Answer { id, sdp } = command else {
            return;
        };
        let is_it = self.offered.as_ref().is_some_and(|(offered, _)| offered == id);
        if is_it
            && let Some((id, offer)) = self.offered.take()
            && let Some(resumption) = &mut self.resumption
        {
            let answer = sdp.clone();
            resumption.subscriber = Some(Agreed { id, offer, answer });
        }
    }

    /// Whether something takes it up elsewhere.
    pub(crate) fn is_resumable(&self) -> bool {
        self.resumption.is_some() || self.srtp.is_some()
    }

    /// Which connections it needs.
    pub(crate) fn connections(&self) -> Vec<Target> {
        let Some(resumption) = &self.resumption else {
            return Vec::new();
        };
        match resumption.transports {
            Transports::Single => vec![Target::Publisher],
            Transports::Srtp => Vec::new(),
            Transports::Dual => {
                let subscriber = resumption.subscriber.as_ref().map(|_| Target::Subscriber);
                let publisher = self.offers().then_some(Target::Publisher);
                subscriber.into_iter().chain(publisher).collect()
            }
        }
    }

    /// With [`Transports::Dual`]: whether the client has a connection of its own that it has to offer anew.
    pub(crate) fn offers(&self) -> bool {
        self.resumption.as_ref().is_some_and(|resumption| {
            let publishes = resumption.tracks.iter().any(|track| !track.mid.is_empty());
            let sends = |channel: &signalbox_protocol::control::ChannelInfo| channel.target == Target::Publisher;
            publishes || resumption.channels.iter().any(sends)
        })
    }

    /// The join that takes it up. None: nothing does.
    pub(crate) fn join(&self, room: &RoomName, ticket: &str) -> Option<Join> {
        let own = self.participant.clone();
        let resume = self.resumption.as_ref().map(|kept| {
            Box::new(Resume {
                participant: own.clone(),
                kept: kept.clone(),
                slots: self.slots.clone(),
                tunnels: Vec::new(),
            })
        });
        let (publish, srtp) = match &self.srtp {
            Some(session) => {
                let (publish, srtp) = streams::wanted(session, &own.tracks);
                (publish, Some(srtp))
            }
            None if resume.is_none() => return None,
            None => (Vec::new(), None),
        };
        let kept = self.resumption.as_ref();
        let receives = self.srtp.as_ref().is_some_and(|session| !session.receive.is_empty());
        Some(Join {
            ticket: ticket.to_owned(),
            room: room.clone(),
            identity: own.identity,
            name: own.name,
            metadata: own.metadata,
            attributes: own.attributes,
            grants: own.grants,
            limits: self.limits,
            transports: kept.map_or(Transports::Srtp, |kept| kept.transports),
            auto_subscribe: kept.map_or(receives, |kept| kept.auto_subscribe),
            never_pause: kept.is_some_and(|kept| kept.never_pause),
            attach: true,
            publish,
            offer: None,
            one_offer: None,
            srtp,
            dialect_info: own.dialect_info,
            resume,
        })
    }

    fn put(&mut self, participant: &ParticipantInfo) {
        if participant.id == self.participant.id && participant.version >= self.participant.version {
            self.participant = participant.clone();
        }
    }

    /// An announced track of the participant itself has an m-line now.
    fn carried(&mut self, track: &TrackId) {
        let mid = self.participant.tracks.iter().find(|info| info.id == *track);
        let said = self.resumption.as_mut().map(|kept| &mut kept.tracks);
        if let (Some(info), Some(tracks)) = (mid, said)
            && let Some(said) = tracks.iter_mut().find(|said| said.id == *track)
        {
            said.mid = info.mid.clone();
        }
    }

    fn change(&mut self, change: &ResumptionChange) {
        if let Some(resumption) = &mut self.resumption {
            resumption.apply(change.clone());
        }
    }
}

/// What is known of a room at this gateway.
#[derive(Debug)]
pub(crate) struct RoomRecord {
    /// As it was last.
    pub(crate) room: RoomInfo,
    /// Where it is, as the newest session has it.
    pub(crate) placement: Arc<Placement>,
    /// Where it was opened last, while no session is there yet.
    pub(crate) next: Option<Arc<Placement>>,
    /// Everyone, and how many sessions of theirs this gateway serves.
    participants: HashMap<ParticipantId, Known>,
    departed: VecDeque<ParticipantId>,
}

#[derive(Debug)]
struct Known {
    info: ParticipantInfo,
    sessions: usize,
}

impl RoomRecord {
    /// A room that nobody here was in yet.
    pub(crate) fn new(room: &RoomInfo, placement: Arc<Placement>) -> Self {
        Self {
            room: room.clone(),
            placement,
            next: None,
            participants: HashMap::new(),
            departed: VecDeque::new(),
        }
    }

    /// A session begins with this snapshot.
    pub(crate) fn enter(&mut self, snapshot: &Snapshot, placement: &Arc<Placement>) {
        if placement.generation >= self.placement.generation {
            self.placement = Arc::clone(placement);
            self.room = snapshot.room.clone();
        }
        for other in &snapshot.others {
            self.put(other);
        }
        for gone in &snapshot.departed {
            self.remove(&gone.participant);
        }
        let me = &snapshot.participant;
        self.departed.retain(|gone| *gone != me.id);
        self.put(me);
        if let Some(known) = self.participants.get_mut(&me.id) {
            known.sessions += 1;
        }
    }

    /// A session of a participant ends.
    pub(crate) fn leave(&mut self, participant: &ParticipantId) {
        if let Some(known) = self.participants.get_mut(participant) {
            known.sessions = known.sessions.saturating_sub(1);
        }
    }

    /// Takes in what a session of `me` was told.
    pub(crate) fn observe(&mut self, me: &ParticipantId, event: &Event) {
        match event {
            Event::ParticipantJoined { participant }
            | Event::ParticipantUpdated { participant }
            | Event::TrackPublished { participant, .. }
            | Event::TrackUnpublished { participant, .. }
            | Event::TrackMuted { participant, .. } => self.put(participant),
            Event::ParticipantLeft { participant } => self.remove(&participant.id),
            Event::RoomUpdated { room } if room.generation >= self.room.generation => self.room = room.clone(),
            Event::Closed { reason } if *reason != signalbox_protocol::control::CloseReason::NodeGone => {
                self.remove(me)
            }
            _ => {}
        }
    }

    /// Somebody left.
    pub(crate) fn remove(&mut self, participant: &ParticipantId) {
        self.participants.remove(participant);
        if !self.departed.contains(participant) {
            if self.departed.len() >= DEPARTURES {
                self.departed.pop_front();
            }
            self.departed.push_back(participant.clone());
        }
    }

    /// Everyone.
    pub(crate) fn participants(&self) -> Vec<ParticipantInfo> {
        self.participants.values().map(|known| known.info.clone()).collect()
    }

    /// Its placement at a place where it was said to be.
    pub(crate) fn placement_at(&self, place: Place) -> Option<Arc<Placement>> {
        let known = self.next.iter().chain([&self.placement]);
        known.into_iter().find(|known| Place::of(known) == place).cloned()
    }

    /// Anybody in it.
    pub(crate) fn anybody(&self) -> Option<Identity> {
        self.participants
            .values()
            .next()
            .map(|known| known.info.identity.clone())
    }

    /// How many participants this gateway serves.
    pub(crate) fn served(&self) -> usize {
        self.participants.values().filter(|known| known.sessions > 0).count()
    }

    fn put(&mut self, participant: &ParticipantInfo) {
        match self.participants.get_mut(&participant.id) {
            Some(known) if known.info.version <= participant.version => known.info = participant.clone(),
            Some(_) => {}
            None if self.departed.contains(&participant.id) => {}
            None => {
                let info = participant.clone();
                self.participants
                    .insert(participant.id.clone(), Known { info, sessions: 0 });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use signalbox_protocol::control::{ChannelInfo, CloseReason, SaidTrack};
    use signalbox_protocol::room::{Grants, Kind, ParticipantState, PublishTrack, Source};
    use signalbox_protocol::{Epoch, Generation, NodeId};

    use super::*;

    fn participant(id: &str, version: u32) -> ParticipantInfo {
        ParticipantInfo {
            id: ParticipantId::new(id),
            identity: id.parse().unwrap(),
            name: String::new(),
            metadata: String::new(),
            attributes: BTreeMap::new(),
            state: ParticipantState::Joined,
            tracks: Vec::new(),
            joined_at_ms: 0,
            version,
            grants: Grants::default(),
            dialect_info: None,
        }
    }

    fn snapshot(me: &str, others: &[&str]) -> Snapshot {
        Snapshot {
            room: RoomInfo {
                name: "daily".parse().unwrap(),
                id: "RM_a".into(),
                generation: Generation(1),
                created_at_ms: 0,
                participants: 0,
                publishers: 0,
                metadata: String::new(),
            },
            participant: participant(me, 1),
            others: others.iter().map(|id| participant(id, 1)).collect(),
            speakers: Vec::new(),
            slots: Vec::new(),
            qualities: Vec::new(),
            media: None,
            srtp: None,
            limits: ParticipantLimits::default(),
            resumption: Some(Box::new(Resumption {
                transports: Transports::Dual,
                auto_subscribe: true,
                never_pause: true,
                tracks: Vec::new(),
                wants: Vec::new(),
                subscriber: None,
                channels: Vec::new(),
            })),
            departed: Vec::new(),
        }
    }

    fn placement() -> Arc<Placement> {
        Arc::new(Placement {
            room: "daily".parse().unwrap(),
            node: NodeId(Default::default()),
            control: "ws://192.0.2.1:7900".into(),
            epoch: Epoch(1),
            generation: Generation(1),
            ticket: "t".into(),
            ticket_seconds: 30,
            by_canary_share: false,
        })
    }

    fn record(snapshots: &[Snapshot]) -> RoomRecord {
        let mut record = RoomRecord::new(&snapshots[0].room, placement());
        for snapshot in snapshots {
            record.enter(snapshot, &placement());
        }
        record
    }

    fn versions(record: &RoomRecord) -> BTreeMap<String, u32> {
        let known = record.participants().into_iter();
        known.map(|one| (one.id.to_string(), one.version)).collect()
    }

    #[test]
    fn own_participants_are_known_though_nobody_is_shown_them() {
        let mut hidden = snapshot("spy", &["ann"]);
        hidden.participant.grants.hidden = true;
        let record = record(&[hidden, snapshot("ann", &[])]);
        assert_eq!(versions(&record).into_keys().collect::<Vec<_>>(), ["ann", "spy"]);
        assert_eq!(record.served(), 2);
    }

    #[test]
    fn older_news_of_a_slower_session_undo_nothing() {
        let mut record = record(&[snapshot("ann", &["bob", "cat"])]);
        let me = ParticipantId::new("ann");
        let updated = |id: &str, version| Event::ParticipantUpdated {
            participant: participant(id, version),
        };
        record.observe(&me, &updated("bob", 3));
        record.observe(&me, &updated("bob", 2));
        record.observe(
            &me,
            &Event::ParticipantLeft {
                participant: participant("cat", 2),
            },
        );
        record.observe(&me, &updated("cat", 1));
        let expected = [("ann", 1), ("bob", 3)].map(|(id, version)| (id.to_owned(), version));
        assert_eq!(versions(&record), BTreeMap::from(expected));
    }

    #[test]
    fn who_is_closed_is_gone_but_not_if_its_node_is() {
        let me = ParticipantId::new("ann");
        for (reason, left) in [(CloseReason::NodeGone, 1), (CloseReason::Removed, 0)] {
            let mut record = record(&[snapshot("ann", &[])]);
            record.observe(&me, &Event::Closed { reason });
            assert_eq!(record.participants().len(), left, "{reason:?}");
        }
    }

    #[test]
    fn a_connection_goes_on_from_the_last_answer_to_the_last_offer() {
        let mut kept = Kept::new(&snapshot("ann", &[]));
        let answer = |id| Command::Answer { id, sdp: "a".into() };
        kept.observe(&Event::Offer { id: 2, sdp: "o".into() });
        kept.asked(&answer(1));
        assert!(kept.offered.is_some(), "it is to an older offer");
        kept.asked(&answer(2));
        let agreed = kept.resumption.unwrap().subscriber.unwrap();
        assert_eq!(
            (agreed.id, agreed.offer.as_str(), agreed.answer.as_str()),
            (2, "o", "a")
        );
    }

    #[test]
    fn what_has_to_be_connected_is_what_was() {
        let mut kept = Kept::new(&snapshot("ann", &[]));
        assert_eq!(kept.connections(), []);
        kept.observe(&Event::Offer { id: 1, sdp: "o".into() });
        kept.asked(&Command::Answer { id: 1, sdp: "a".into() });
        assert_eq!(kept.connections(), [Target::Subscriber]);
        let channel = |target| ChannelInfo {
            target,
            label: "_lossy".into(),
            id: 0,
        };
        for (target, count) in [(Target::Subscriber, 1), (Target::Publisher, 2)] {
            let channels = vec![channel(target)];
            let change = ResumptionChange::Channels { channels };
            kept.observe(&Event::Resumable { change });
            assert_eq!(kept.connections().len(), count, "{target:?}");
        }
    }

    #[test]
    fn the_join_repeats_what_the_first_one_said_and_what_has_become_of_it() {
        let mut kept = Kept::new(&snapshot("ann", &[]));
        let mut now = participant("ann", 2);
        now.name = "Ann".into();
        kept.observe(&Event::ParticipantUpdated { participant: now });
        kept.observe(&Event::ParticipantUpdated {
            participant: participant("bob", 9),
        });
        let track = Box::new(SaidTrack {
            id: TrackId::new("TR_a"),
            said: PublishTrack::new("cid", Kind::Video, Source::Camera),
            mid: "0".into(),
            streams: Vec::new(),
        });
        let change = ResumptionChange::Track { track };
        kept.observe(&Event::Resumable { change });
        let join = kept.join(&"daily".parse().unwrap(), "the ticket").unwrap();
        assert_eq!((join.name.as_str(), join.ticket.as_str()), ("Ann", "the ticket"));
        assert!(join.attach && join.auto_subscribe && join.never_pause);
        assert_eq!(join.resume.unwrap().kept.tracks.len(), 1);
        kept.resumption = None;
        assert!(kept.join(&"daily".parse().unwrap(), "t").is_none());
    }
}
