//! Data messages: who may receive one, and who it is from.
//!
//! A message on a data channel is one protobuf `DataPacket` of LiveKit's client protocol. Only its routing fields are read; the payload
//! passes through as it is, also when its kind is not known here. The sender's identity is stamped by appending the two
//! fields: of a protobuf scalar that occurs twice, the last one counts (Protocol Buffers encoding, "Last One Wins"), so what
//! a sender claims to be is overruled without decoding or copying the rest.

use prost::Message;
use signalbox_protocol::{Identity, ParticipantId};

/// The longest message, in bytes. Higher: a slow receiver's queue fills sooner. LiveKit's clients send up to 64 kB.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

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
    /// Whom it is for, by identity; empty: everyone else in the room.
    #[prost(string, repeated, tag = "5")]
    pub destination_identities: Vec<String>,
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
pub fn stamped(message: &[u8], identity: &Identity, participant: &ParticipantId) -> Vec<u8> {
    let stamp = Stamp {
        participant_identity: identity.as_str().to_owned(),
        participant_sid: participant.as_str().to_owned(),
    };
    let mut bytes = Vec::with_capacity(message.len() + stamp.encoded_len());
    bytes.extend_from_slice(message);
    bytes.extend_from_slice(&stamp.encode_to_vec());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Packet {
        #[prost(bytes = "vec", tag = "2")]
        payload: Vec<u8>,
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
            payload: vec![1, 2, 3],
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
        assert_eq!(received.payload, sent.payload);
        assert_eq!(received.participant_identity, "ann");
        assert_eq!(received.participant_sid, "PA_ann");
        assert_eq!(routing(&bytes).unwrap().destination_identities, ["bob"]);
    }

    #[test]
    fn garbage_and_oversize_messages_are_refused() {
        assert_eq!(routing(&[0xff; 9]), None);
        assert_eq!(routing(&vec![0; MAX_MESSAGE_BYTES + 1]), None);
    }
}
