//! What a client is told: the messages of an event stream, and how the domain's events become them. Pure.

use serde::Serialize;
use signalbox_protocol::control::{CloseReason, CodecWanted, Event, Snapshot, StreamState, SubscriptionFault};
use signalbox_protocol::room::{MediaAddress, ParticipantInfo, ParticipantQuality, RoomInfo, Slot, Speaker};
use signalbox_protocol::srtp::SrtpStream;
use signalbox_protocol::{ParticipantId, TrackId};
use utoipa::ToSchema;

/// A message of an event stream, but for its `id`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "turned into text at once, never stored")]
pub(super) enum Told {
    /// How all is: whatever was told before is void. It comes first, and after any gap.
    Snapshot {
        /// The room.
        room: RoomInfo,
        /// The participant itself.
        participant: ParticipantInfo,
        /// Everyone else.
        participants: Vec<ParticipantInfo>,
        /// Who is speaking.
        speakers: Vec<Speaker>,
        /// What each receiving m-line carries.
        slots: Vec<Slot>,
        /// How well connections do, as far as it is known.
        qualities: Vec<ParticipantQuality>,
        /// Where the participant's media goes.
        #[serde(skip_serializing_if = "Option::is_none")]
        media: Option<MediaAddress>,
    },
    /// Somebody else joined.
    Joined {
        /// Who.
        participant: ParticipantInfo,
    },
    /// Somebody, perhaps oneself, changed.
    Updated {
        /// As it is now.
        participant: ParticipantInfo,
    },
    /// Somebody else left.
    Left {
        /// As it was last, without tracks.
        participant: ParticipantInfo,
    },
    /// A track can be received; to its publisher: it has been negotiated.
    Published {
        /// Whose, as it is now.
        participant: ParticipantInfo,
        /// Which.
        track: TrackId,
    },
    /// A track is gone.
    Unpublished {
        /// Whose, as it is now.
        participant: ParticipantInfo,
        /// Which.
        track: TrackId,
    },
    /// A track was muted or unmuted.
    Muted {
        /// Whose, as it is now.
        participant: ParticipantInfo,
        /// Which.
        track: TrackId,
        /// The new state.
        muted: bool,
    },
    /// Who speaks, as far as it changed.
    Speakers {
        /// The changed ones.
        speakers: Vec<Speaker>,
    },
    /// Receiving m-lines carry something else than before.
    Slots {
        /// The changed ones.
        slots: Vec<Slot>,
    },
    /// There are more tracks than receiving m-lines: offer with so many more to receive them.
    SlotsWanted {
        /// Audio m-lines that are missing.
        audio: u32,
        /// Video m-lines that are missing.
        video: u32,
    },
    /// To a publisher: exactly which layers of its track to send; what nobody receives need not be sent. A layer in between may be among
    /// those. Until it comes, all are wanted in the first codec, and nothing in another one.
    EncodingsWanted {
        /// Which track.
        track: TrackId,
        /// Each codec that it is published in.
        codecs: Vec<CodecWanted>,
    },
    /// Tracks are paused because there is no room for them on the connection, or go on. Until it comes for a track, it is not paused.
    StreamStates {
        /// The changed ones.
        streams: Vec<StreamState>,
    },
    /// A track that is wanted cannot be received.
    SubscriptionFailed {
        /// Whose.
        participant: ParticipantId,
        /// Which.
        track: TrackId,
        /// Why.
        reason: SubscriptionFault,
    },
    /// How well connections do, as far as it changed; at most every two seconds.
    Quality {
        /// The changed ones.
        participants: Vec<ParticipantQuality>,
    },
    /// The participant publishes more than it may, and some of its layers or tracks are not forwarded. At most once a minute.
    PublishLimited {
        /// Bits per second that it may publish, all its tracks together.
        limit_bps: u64,
    },
    /// Reliable data messages were dropped by the node since this was last told; they will not arrive.
    DataLost {
        /// Of those that the participant sent: it sends too much, or what nobody can take.
        sent: u64,
        /// Of those that were for it: it takes them too slowly.
        received: u64,
    },
    /// The room itself has changed: its metadata.
    Room {
        /// As it is now.
        room: RoomInfo,
    },
    /// The room has moved: media goes to another address from now on. The `snapshot` before it says how all is there; nobody has left. A client
    /// with a peer connection keeps it, and at once posts another offer to the participant's `/offer`, with an ICE restart unless
    /// `keeps_ice` is set; where the browser makes no new DTLS handshake on it (Firefox), it joins anew, which takes the place of its former stay. Of a client without a peer
    /// connection, its streams are there already. If `closed` follows, the client has to join there anew.
    Moved {
        /// There.
        media: MediaAddress,
        /// The participant's address from now on, whose `/events` this stream is.
        #[serde(skip_serializing_if = "Option::is_none")]
        location: Option<String>,
        /// The ICE session goes on: the client is reached where it is until it has found the other address, and misses less. One that has been at
        /// that address before finds it only with an ICE restart, for which it has 15 seconds from when it is connected.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        keeps_ice: bool,
        /// What it sends: with the same SSRCs and keys as before, so that it only has to send elsewhere.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        publish: Vec<SrtpStream>,
        /// What it receives, with new SSRCs, keys and proofs.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        receive: Vec<SrtpStream>,
    },
    /// The participant is no longer in the room; the last message.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// A message with its id, as a client gets it.
#[derive(Serialize, ToSchema)]
#[schema(as = EventMessage)]
pub(super) struct Message<'a> {
    /// To be named when the stream is opened again, so that it goes on after this message.
    id: &'a str,
    #[serde(flatten)]
    told: &'a Told,
}

impl From<Snapshot> for Told {
    fn from(snapshot: Snapshot) -> Self {
        Self::Snapshot {
            room: snapshot.room,
            participant: snapshot.participant,
            participants: snapshot.others,
            speakers: snapshot.speakers,
            slots: snapshot.slots,
            qualities: snapshot.qualities,
            media: snapshot.media,
        }
    }
}

impl Told {
    /// Media goes there from now on, and nothing else has changed.
    pub(super) fn moved(media: MediaAddress) -> Self {
        Self::Moved {
            media,
            location: None,
            keeps_ice: false,
            publish: Vec::new(),
            receive: Vec::new(),
        }
    }

    /// None for what another dialect is told.
    pub(super) fn from_event(event: Event) -> Option<Self> {
        Some(match event {
            Event::ParticipantJoined { participant } => Self::Joined { participant },
            Event::ParticipantUpdated { participant } => Self::Updated { participant },
            Event::ParticipantLeft { participant } => Self::Left { participant },
            Event::TrackPublished { participant, track } => Self::Published { participant, track },
            Event::TrackUnpublished { participant, track } => Self::Unpublished { participant, track },
            Event::TrackMuted {
                participant,
                track,
                muted,
            } => Self::Muted {
                participant,
                track,
                muted,
            },
            Event::Speakers { speakers } => Self::Speakers { speakers },
            Event::Slots { slots } => Self::Slots { slots },
            Event::SlotsWanted { audio, video } => Self::SlotsWanted { audio, video },
            Event::Quality { participants } => Self::Quality { participants },
            Event::PublishLimited { limit_bps } => Self::PublishLimited { limit_bps },
            Event::DataLost { sent, received } => Self::DataLost { sent, received },
            Event::Closed { reason } => Self::Closed { reason },
            Event::EncodingsWanted { track, codecs } => Self::EncodingsWanted { track, codecs },
            Event::StreamStates { streams } => Self::StreamStates { streams },
            Event::SubscriptionFailed {
                participant,
                track,
                reason,
            } => Self::SubscriptionFailed {
                participant,
                track,
                reason,
            },
            Event::RoomUpdated { room } => Self::Room { room },
            Event::Offer { .. }
            | Event::MutedRemotely { .. }
            | Event::AttachedElsewhere
            | Event::Resumable { .. }
            | Event::Connected { .. }
            | Event::MoveStalled { .. }
            | Event::Moving { .. } => return None,
        })
    }

    /// The message's `type`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Snapshot { .. } => "snapshot",
            Self::Joined { .. } => "joined",
            Self::Updated { .. } => "updated",
            Self::Left { .. } => "left",
            Self::Published { .. } => "published",
            Self::Unpublished { .. } => "unpublished",
            Self::Muted { .. } => "muted",
            Self::Speakers { .. } => "speakers",
            Self::Slots { .. } => "slots",
            Self::SlotsWanted { .. } => "slots_wanted",
            Self::EncodingsWanted { .. } => "encodings_wanted",
            Self::StreamStates { .. } => "stream_states",
            Self::SubscriptionFailed { .. } => "subscription_failed",
            Self::Quality { .. } => "quality",
            Self::PublishLimited { .. } => "publish_limited",
            Self::DataLost { .. } => "data_lost",
            Self::Room { .. } => "room",
            Self::Moved { .. } => "moved",
            Self::Closed { .. } => "closed",
        }
    }

    /// The message as a client gets it.
    pub(super) fn to_json(&self, id: &str) -> String {
        let message = Message { id, told: self };
        serde_json::to_string(&message).unwrap_or_else(|error| {
            tracing::error!(%error, "an event cannot be written as JSON");
            // Not worth a panic; a client ignores what it does not know.
            format!(r#"{{"id":"{id}","type":"unknown"}}"#)
        })
    }
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::control::Quality;
    use signalbox_protocol::room::ConnectionQuality;
    use signalbox_protocol::{Generation, NodeId};

    use super::*;

    #[test]
    fn messages_keep_their_json() {
        let json = |told: Told| {
            let json = told.to_json("x-7");
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(value["type"], told.kind());
            json
        };
        assert_eq!(
            json(Told::from_event(Event::SlotsWanted { audio: 0, video: 2 }).unwrap()),
            r#"{"id":"x-7","type":"slots_wanted","audio":0,"video":2}"#
        );
        assert_eq!(
            json(
                Told::from_event(Event::Closed {
                    reason: CloseReason::DuplicateIdentity
                })
                .unwrap()
            ),
            r#"{"id":"x-7","type":"closed","reason":"duplicate_identity"}"#
        );
        let participants = vec![ParticipantQuality {
            participant: ParticipantId::new("PA_a"),
            quality: ConnectionQuality::Good,
        }];
        assert_eq!(
            json(Told::from_event(Event::Quality { participants }).unwrap()),
            r#"{"id":"x-7","type":"quality","participants":[{"participant":"PA_a","quality":"good"}]}"#
        );
        let wanted = |mime_type: &str, layers| CodecWanted {
            mime_type: mime_type.into(),
            layers,
        };
        let event = Event::EncodingsWanted {
            track: TrackId::new("TR_a"),
            codecs: vec![
                wanted("video/VP9", vec![Quality::Low, Quality::High]),
                wanted("video/VP8", Vec::new()),
            ],
        };
        assert_eq!(
            json(Told::from_event(event).unwrap()),
            r#"{"id":"x-7","type":"encodings_wanted","track":"TR_a","codecs":[{"mime_type":"video/VP9","layers":["low","high"]},{"mime_type":"video/VP8","layers":[]}]}"#
        );
        let (participant, track) = (ParticipantId::new("PA_a"), TrackId::new("TR_a"));
        let streams = vec![StreamState {
            participant: participant.clone(),
            track: track.clone(),
            paused: true,
        }];
        assert_eq!(
            json(Told::from_event(Event::StreamStates { streams }).unwrap()),
            r#"{"id":"x-7","type":"stream_states","streams":[{"participant":"PA_a","track":"TR_a","paused":true}]}"#
        );
        let reason = SubscriptionFault::Codec;
        let event = Event::SubscriptionFailed {
            participant,
            track,
            reason,
        };
        assert_eq!(
            json(Told::from_event(event).unwrap()),
            r#"{"id":"x-7","type":"subscription_failed","participant":"PA_a","track":"TR_a","reason":"codec"}"#
        );
        let media = MediaAddress {
            ip: "192.0.2.1".parse().unwrap(),
            port: 50_000,
            node: NodeId(Default::default()),
            generation: Generation(2),
        };
        assert_eq!(
            json(Told::moved(media)),
            r#"{"id":"x-7","type":"moved","media":{"ip":"192.0.2.1","port":50000,"node":"00000000-0000-0000-0000-000000000000","generation":2}}"#
        );
    }
}
