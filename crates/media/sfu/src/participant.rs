//! One participant of a room: its connections, what it is about to publish, what it wants to receive and on which m-lines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use signalbox_protocol::control::{Agreed, ParticipantLimits, Preference, Transports, Wanted};
use signalbox_protocol::room::{
    ConnectionQuality, Grants, Kind, LayerInfo, ParticipantInfo, PublishTrack, Slot, SlotTrack, Source,
};
use signalbox_protocol::srtp::SrtpSession;
use signalbox_protocol::tunnel::Tunnel;
use signalbox_protocol::{ParticipantId, TrackId};

use crate::allocation::Receiver;
use crate::api::Limits;
use crate::codec::Codec;
use crate::connection::{Channel, SentStream};
use crate::connections::Key;
use crate::data::{self, Delivery};
use crate::packet::Mid;
use crate::policer::Policer;
use crate::rewrite::Rewriter;

/// Tracks that were announced and have no m-line yet.
pub const MAX_PENDING_TRACKS: usize = 32;

/// Data channels of a participant that are used; LiveKit's clients have four. Higher: a client that opens many costs more.
pub const MAX_CHANNELS: usize = 16;

/// A participant.
pub struct Participant {
    /// As the others see it, but for the tracks.
    pub info: ParticipantInfo,
    /// How it connects.
    pub transports: Transports,
    /// A gateway takes its events.
    pub is_attached: bool,
    /// Its client offers once, and can be moved to no other node.
    pub offers_once: bool,
    /// The connection that the client offers.
    pub publisher: Option<Key>,
    /// The last offer of a client that offers once, to be repeated with other ICE credentials. None: it is another client, or the
    /// connection began with the node's own offer.
    pub last_offer: Option<String>,
    /// The connection that the node offers.
    pub subscriber: Option<Key>,
    /// Announced tracks without an m-line.
    pub pending: Vec<(TrackId, PublishTrack)>,
    /// Receiving m-lines without an announcement.
    pub unclaimed: Vec<UnclaimedLine>,
    /// Subscribe to every track that [`Participant::wants`] does not name.
    pub auto_subscribe: bool,
    /// What it said about tracks.
    pub wants: BTreeMap<TrackId, Want>,
    /// The m-lines that it receives on.
    pub outlets: Vec<Outlet>,
    /// Tracks that it wants and can take in none of their codecs, as it was told.
    pub undecodable: BTreeSet<TrackId>,
    /// See [`Join::never_pause`](signalbox_protocol::control::Join::never_pause).
    pub never_pause: bool,
    /// What it may use.
    pub limits: ParticipantLimits,
    /// What it gets of its video tracks.
    pub receiver: Receiver,
    /// Keeps what it publishes below its cap.
    pub policer: Policer,
    /// Slots that were missing when it was last told.
    pub slots_wanted: (u32, u32),
    /// Its streams, if it has no peer connection, as it was told of them.
    pub srtp: Option<Box<SrtpSession>>,
    /// The node's offers.
    pub negotiation: Negotiation,
    /// It was taken up from another node.
    pub is_resumed: bool,
    /// Whether it is served here.
    pub presence: Presence,
    /// What is known of its connections at another node, until its client has offered here.
    pub kept: Kept,
    /// Open data channels, at most [`MAX_CHANNELS`].
    pub channels: Vec<OpenChannel>,
    /// Its data messages.
    pub data: data::Flow,
    /// How well its connection does, as everyone was told last.
    pub quality: Option<ConnectionQuality>,
    /// Since when it has neither signaling nor media.
    pub absent_since: Option<Instant>,
}

/// An open data channel.
pub struct OpenChannel {
    /// On which connection.
    pub connection: Key,
    /// Which.
    pub channel: Channel,
    /// What it is for.
    pub delivery: Delivery,
    /// Its SCTP stream.
    pub stream: u16,
}

/// Whether a participant is served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Here,
    /// Not yet: the room was lost with its node, and the participant's gateway has not taken it up here.
    Expected,
    /// No longer: it has gone to the node that the room moves to. It is shown to those who have yet to go there.
    Gone,
}

/// What a participant had at another node.
#[derive(Debug, Default)]
pub struct Kept {
    /// The way to the client on the connection that it offers.
    pub tunnel: Option<Tunnel>,
    /// Data channels of the connection that the client offers, by their SCTP streams.
    pub channels: Vec<(Delivery, u16)>,
    /// Streams that the client sends, by m-line.
    pub streams: Vec<(Mid, SentStream)>,
    /// What its slots carried.
    pub slots: Vec<(Mid, TrackId)>,
}

/// What a participant said about a track.
#[derive(Debug, Clone, Copy, Default)]
pub struct Want {
    /// Receive it, or not; none: as [`Participant::auto_subscribe`] says.
    pub subscribed: Option<bool>,
    /// How.
    pub preference: Preference,
}

/// An m-line on which the client sends, and nobody has said what.
#[derive(Debug, Clone)]
pub struct UnclaimedLine {
    /// The m-line.
    pub mid: Mid,
    /// Sound or picture.
    pub kind: Kind,
    /// The client's own id of the track.
    pub track_id: Option<String>,
    /// The simulcast layers that it offers, lowest first.
    pub layers: Vec<LayerInfo>,
}

/// An m-line on which a participant receives.
pub struct Outlet {
    /// The m-line.
    pub mid: Mid,
    /// Sound or picture.
    pub kind: Kind,
    /// What it carries.
    pub track: Option<TrackId>,
    /// The only codec that it can carry; none: what its connection has negotiated.
    pub codec: Option<Codec>,
    /// The numbers of its stream while it carries nothing.
    pub rewriter: Option<Rewriter>,
    /// Negotiated; false: it stands in an offer that is not answered yet.
    pub is_open: bool,
}

/// The node's offers to a participant, of which one at a time is unanswered.
#[derive(Debug, Default)]
pub struct Negotiation {
    /// The unanswered offer, kept to be sent again when signaling was lost meanwhile.
    pub in_flight: Option<(u32, String)>,
    /// The last offer's id.
    pub last_id: u32,
    /// With two connections, the last offer that was answered: the participant's next node goes on from there.
    pub agreed: Option<Box<Agreed>>,
    /// The next offer restarts ICE.
    pub restart_ice: bool,
}

impl Participant {
    /// A participant without connections, tracks or wishes.
    pub fn new(info: ParticipantInfo, transports: Transports, own: ParticipantLimits, node: &Limits) -> Self {
        let node_bps = Some(node.publish_bps).filter(|bps| *bps > 0);
        // In bits per second; 0: no limit.
        let publish_cap = node_bps.into_iter().chain(own.publish_bps).min().unwrap_or(0);
        Self {
            info,
            transports,
            is_attached: false,
            offers_once: false,
            publisher: None,
            last_offer: None,
            subscriber: None,
            pending: Vec::new(),
            unclaimed: Vec::new(),
            auto_subscribe: false,
            wants: BTreeMap::new(),
            outlets: Vec::new(),
            undecodable: BTreeSet::new(),
            never_pause: false,
            limits: own,
            receiver: Receiver::default(),
            policer: Policer::new(publish_cap),
            slots_wanted: (0, 0),
            srtp: None,
            negotiation: Negotiation::default(),
            is_resumed: false,
            presence: Presence::Here,
            kept: Kept::default(),
            channels: Vec::new(),
            data: data::Flow::new(node, transports == Transports::Dual),
            quality: None,
            absent_since: None,
        }
    }

    /// What it may do.
    pub fn grants(&self) -> &Grants {
        &self.info.grants
    }

    /// How many tracks it may publish, on a node with these limits.
    pub fn max_tracks(&self, limits: &Limits) -> usize {
        let own = self
            .limits
            .tracks
            .map(|tracks| usize::try_from(tracks).unwrap_or(usize::MAX));
        own.unwrap_or(usize::MAX).min(limits.tracks_per_participant)
    }

    /// The connection that media goes out on.
    pub fn outgoing(&self) -> Option<Key> {
        match self.transports {
            Transports::Single | Transports::Srtp => self.publisher,
            Transports::Dual => self.subscriber,
        }
    }

    /// Its connections.
    pub fn connections(&self) -> impl Iterator<Item = Key> + use<> {
        self.publisher.into_iter().chain(self.subscriber)
    }

    /// Whether it wants a track.
    pub fn wants(&self, track: &TrackId) -> bool {
        self.grants().subscribe
            && self
                .wants
                .get(track)
                .and_then(|want| want.subscribed)
                .unwrap_or(self.auto_subscribe)
    }

    /// How it wants a track.
    pub fn preference(&self, track: &TrackId) -> Preference {
        self.wants.get(track).map(|want| want.preference).unwrap_or_default()
    }

    /// What it has said about a track.
    pub fn wanted(&self, track: &TrackId) -> Option<Wanted> {
        self.wants.get(track).map(|want| Wanted {
            track: track.clone(),
            subscribed: want.subscribed,
            preference: want.preference,
        })
    }

    /// Whether it may publish from a source.
    pub fn may_publish(&self, source: Source) -> bool {
        self.grants().publish && (self.grants().sources.is_empty() || self.grants().sources.contains(&source))
    }

    /// Takes the announced track that an m-line carries: by the client's own id, by the m-line's id, or, when it is the only
    /// one of its kind, by its kind.
    pub fn claim_pending(&mut self, line: &UnclaimedLine) -> Option<(TrackId, PublishTrack)> {
        let named = self.pending.iter().position(|(_, track)| {
            track.kind == line.kind
                && (Some(track.cid.as_str()) == line.track_id.as_deref() || track.cid == line.mid.as_str())
        });
        let mut of_kind = self
            .pending
            .iter()
            .enumerate()
            .filter(|(_, (_, track))| track.kind == line.kind);
        let only = match (of_kind.next(), of_kind.next()) {
            (Some((index, _)), None) => Some(index),
            _ => None,
        };
        named.or(only).map(|index| self.pending.swap_remove(index))
    }

    /// Takes the m-line that an announced track is sent on; see [`Participant::claim_pending`].
    pub fn claim_line(&mut self, track: &PublishTrack) -> Option<UnclaimedLine> {
        let named = self.unclaimed.iter().position(|line| {
            track.kind == line.kind
                && (Some(track.cid.as_str()) == line.track_id.as_deref() || track.cid == line.mid.as_str())
        })?;
        Some(self.unclaimed.swap_remove(named))
    }

    /// Its slots. Only a single connection has any.
    pub fn slots(&self, publisher_of: impl Fn(&TrackId) -> Option<ParticipantId>) -> Vec<Slot> {
        match self.transports {
            Transports::Dual => Vec::new(),
            Transports::Single | Transports::Srtp => {
                self.outlets.iter().map(|outlet| outlet.slot(&publisher_of)).collect()
            }
        }
    }
}

impl Outlet {
    /// As its owner sees it.
    pub fn slot(&self, publisher_of: impl Fn(&TrackId) -> Option<ParticipantId>) -> Slot {
        let track = self.track.as_ref().and_then(|track| {
            publisher_of(track).map(|participant| SlotTrack {
                participant,
                track: track.clone(),
            })
        });
        Slot {
            mid: self.mid.as_str().to_owned(),
            kind: self.kind,
            track,
        }
    }
}
