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
