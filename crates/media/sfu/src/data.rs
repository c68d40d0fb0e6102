//! Data messages: who may receive one, and who it is from.
//!
//! A message on a data channel is one protobuf `DataPacket` of LiveKit's client protocol. Only its routing fields are read; the payload
//! passes through as it is, also when its kind is not known here. The sender's identity is stamped by appending the two
//! fields: of a protobuf scalar that occurs twice, the last one counts (Protocol Buffers encoding, "Last One Wins"), so what
//! a sender claims to be is overruled without decoding or copying the rest.
//!
//! **Back-pressure.** The stack takes what arrives, so a sender is not slowed down; what it sends beyond [`Limits`] is dropped.
//! Each receiver has a queue of its own for reliable messages that its connection has no room for, of [`MAX_BACKLOG_BYTES`]; lossy ones
//! never wait. So a slow receiver loses only its own messages. Whoever has lost reliable messages, as their sender or their receiver,
//! is told how many ([`Event::DataLost`](signalbox_protocol::control::Event::DataLost)): what is missing was dropped here, and will not come.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use signalbox_protocol::{Identity, ParticipantId};

use crate::api::Limits;
use crate::budget::Budget;

/// The longest message, in bytes. Higher: a slow receiver's queue fills sooner. LiveKit's clients send up to 64 kB.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Reliable messages that wait for a slow receiver, in bytes. Higher: more memory per slow receiver. Lower: it loses messages
/// sooner.
pub const MAX_BACKLOG_BYTES: usize = 1024 * 1024;

/// With how many bytes of lossy messages waiting in a connection more are dropped. Higher: they arrive later, and leave less of the
/// connection's buffer, of 128 KiB for all channels, to reliable ones. Lower: more are lost of a burst.
pub const MAX_LOSSY_BUFFER: usize = 32 * 1024;

/// How long a sender can save up what it may send. Higher: longer bursts. Lower: files that are sent at once are dropped sooner.
const SAVED: Duration = Duration::from_secs(2);

/// How a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// In order, resent until it arrives.
    Reliable,
    /// At most once, in any order.
    Lossy,
}

impl Delivery {
    /// The label of its data channel.
    pub fn label(self) -> &'static str {
        match self {
            Delivery::Reliable => "_reliable",
            Delivery::Lossy => "_lossy",
        }
    }

    /// The delivery of a channel by its label.
    pub fn from_label(label: &str) -> Option<Self> {
        [Delivery::Reliable, Delivery::Lossy]
            .into_iter()
            .find(|delivery| delivery.label() == label)
    }
}

/// The routing fields of a message.
#[derive(Clone, PartialEq, Message)]
pub struct Routing {
    /// Whom it is for, by identity; empty: everyone else in the room, unless the user packet says it.
    #[prost(string, repeated, tag = "5")]
    destination_identities: Vec<String>,
    #[prost(message, optional, tag = "2")]
    user: Option<UserRouting>,
}

/// The same of a `UserPacket`, where older clients say it.
#[derive(Clone, PartialEq, Message)]
struct UserRouting {
    #[prost(string, repeated, tag = "6")]
    destination_identities: Vec<String>,
}

impl Routing {
    /// Whether a message is for a participant.
    pub fn is_for(&self, identity: &Identity) -> bool {
        let user = self.user.as_ref().map(|user| &user.destination_identities);
        let named = match (self.destination_identities.is_empty(), user) {
            (true, Some(user)) => user,
            _ => &self.destination_identities,
        };
        named.is_empty() || named.iter().any(|name| name == identity.as_str())
    }
}

/// What one participant sends and what waits for it.
#[derive(Debug)]
pub struct Flow {
    /// Whether its connection has data channels, open or to be opened. Nothing waits for one that never has any.
    pub has_channels: bool,
    /// Reliable messages that were lost since it was told, of those that it sent.
    pub lost_sent: u64,
    /// The same of those that were for it.
    pub lost_received: u64,
    messages: Budget,
    bytes: Budget,
    waiting: VecDeque<Arc<[u8]>>,
    waiting_bytes: usize,
}

impl Flow {
    /// Nothing yet.
    pub fn new(limits: &Limits, has_channels: bool) -> Self {
        Self {
            has_channels,
            lost_sent: 0,
            lost_received: 0,
            messages: Budget::new(limits.data_messages_per_second, SAVED),
            bytes: Budget::new(limits.data_bytes_per_second, SAVED),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Whether the participant may send one more message, of so many bytes.
    pub fn may_send(&mut self, now: Instant, bytes: usize) -> bool {
        self.messages.take(now, 1) && self.bytes.take(now, bytes as u64)
    }

    /// Whether reliable messages wait.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Lets a reliable message wait; false: the queue is full.
    pub fn wait(&mut self, message: &Arc<[u8]>) -> bool {
        let fits = self.has_channels && self.waiting_bytes + message.len() <= MAX_BACKLOG_BYTES;
        if fits {
            self.waiting_bytes += message.len();
            self.waiting.push_back(Arc::clone(message));
        }
        fits
    }

    /// The message that waits longest.
    pub fn first(&self) -> Option<&Arc<[u8]>> {
        self.waiting.front()
    }

    /// It waits no longer.
    pub fn sent(&mut self) {
        if let Some(message) = self.waiting.pop_front() {
            self.waiting_bytes -= message.len();
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Stamp {
    #[prost(string, tag = "4")]
    participant_identity: String,
    #[prost(string, tag = "17")]
    participant_sid: String,
}

/// Reads a message's routing fields; `None` if it is not a protobuf message or is too long.
pub fn routing(message: &[u8]) -> Option<Routing> {
    (message.len() <= MAX_MESSAGE_BYTES)
        .then(|| Routing::decode(message).ok())
        .flatten()
}

/// The message with its sender stamped.
pub fn stamped(message: &[u8], identity: &Identity, participant: &ParticipantId) -> Arc<[u8]> {
    let stamp = Stamp {
        participant_identity: identity.as_str().to_owned(),
        participant_sid: participant.as_str().to_owned(),
    };
    let mut bytes = Vec::with_capacity(message.len() + stamp.encoded_len());
    bytes.extend_from_slice(message);
    bytes.extend_from_slice(&stamp.encode_to_vec());
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct User {
        #[prost(bytes = "vec", tag = "2")]
        payload: Vec<u8>,
        #[prost(string, repeated, tag = "6")]
        destination_identities: Vec<String>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Packet {
        #[prost(message, optional, tag = "2")]
        user: Option<User>,
        #[prost(uint32, tag = "16")]
        sequence: u32,
        #[prost(string, tag = "4")]
        participant_identity: String,
        #[prost(string, repeated, tag = "5")]
        destination_identities: Vec<String>,
        #[prost(string, tag = "17")]
        participant_sid: String,
    }

    #[test]
    fn a_false_sender_is_overruled_and_the_payload_kept() {
        let sent = Packet {
            user: Some(User {
                payload: vec![1, 2, 3],
                ..User::default()
            }),
            sequence: 7,
            participant_identity: "mallory".into(),
            destination_identities: vec!["bob".into()],
            participant_sid: "PA_mallory".into(),
        };
        let bytes = stamped(
            &sent.encode_to_vec(),
            &"ann".parse().unwrap(),
            &ParticipantId::new("PA_ann"),
        );
        let received = Packet::decode(&bytes[..]).unwrap();
        assert_eq!((received.user, received.sequence), (sent.user, 7));
        assert_eq!(received.participant_identity, "ann");
        assert_eq!(received.participant_sid, "PA_ann");
        let routing = routing(&bytes).unwrap();
        assert!(routing.is_for(&"bob".parse().unwrap()) && !routing.is_for(&"cleo".parse().unwrap()));
    }

    #[test]
    fn whom_a_message_is_for_stands_in_it_or_in_its_user_packet() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (outer, inner, is_for_bob, is_for_cleo) in [
            (&[][..], &[][..], true, true),
            (&["bob"], &[], true, false),
            (&[], &["bob"], true, false),
            (&["cleo"], &["bob"], false, true),
            (&["nobody"], &[], false, false),
        ] {
            let packet = Packet {
                user: Some(User {
                    payload: Vec::new(),
                    destination_identities: names(inner),
                }),
                destination_identities: names(outer),
                ..Packet::default()
            };
            let routing = routing(&packet.encode_to_vec()).unwrap();
            assert_eq!(
                routing.is_for(&"bob".parse().unwrap()),
                is_for_bob,
                "{outer:?} {inner:?}"
            );
            assert_eq!(
                routing.is_for(&"cleo".parse().unwrap()),
                is_for_cleo,
                "{outer:?} {inner:?}"
            );
        }
    }

    #[test]
    fn garbage_and_oversize_messages_are_refused() {
        assert_eq!(routing(&[0xff; 9]), None);
        assert_eq!(routing(&vec![0; MAX_MESSAGE_BYTES + 1]), None);
    }
}
