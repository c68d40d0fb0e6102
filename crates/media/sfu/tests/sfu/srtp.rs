//! Clients without a peer connection, together with peers and with each other.

use std::time::Duration;

use signalbox_protocol::room::{Kind, ParticipantState};
use signalbox_protocol::srtp::{SrtpRequest, SrtpSuite, SrtpWanted};

use crate::sfu::link::Impairment;
use crate::sfu::world::World;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
const OPUS: &str = "audio/opus";
const VP8: &str = "video/VP8";
const SUITES: [SrtpSuite; 2] = [SrtpSuite::AesCm128HmacSha1_80, SrtpSuite::AeadAes128Gcm];

/// Everything that there is, in a suite.
fn everything(suite: SrtpSuite) -> SrtpRequest {
    SrtpRequest {
        suite,
        receive_present: true,
        ..nothing()
    }
}

fn nothing() -> SrtpRequest {
    SrtpRequest {
        suite: SrtpSuite::default(),
        ssrcs: Vec::new(),
        receive_present: false,
        receive: Vec::new(),
        resume: Vec::new(),
    }
}

fn wanted(kind: Kind, codec: Option<&str>) -> SrtpWanted {
    SrtpWanted {
        kind,
        codec: codec.map(str::to_owned),
    }
}

#[test]
fn a_peer_and_a_client_without_one_hear_and_see_each_other() {
    for suite in SUITES {
        let mut world = World::new(1, Impairment::NONE);
        let ann = world.join("ann", true, &["f"], (1, 1));
        let bob = world.join_srtp("bob", &[VP8, OPUS], everything(suite));
        world.run_for(SECONDS(5));
        let id = world.srtp[bob].id();
        for (kind, least) in [(Kind::Audio, 200), (Kind::Video, 400)] {
            let to_peer = world.received_of(ann, id.clone(), kind).to_vec();
            let to_srtp = world.srtp[bob].client.receiver(kind).received.clone();
            for packets in [to_peer, to_srtp] {
                assert!(packets.len() > least, "{} packets of {kind:?}", packets.len());
                assert!(
                    packets.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1),
                    "no gaps"
                );
                assert!(packets[0].begins_key_frame || kind == Kind::Audio);
            }
        }
        let pictures = &world.srtp[bob].client.receiver(Kind::Video).received;
        let is_continuous = |pair: &[crate::sfu::client::Received]| {
            let (before, after) = (pair[0].picture_id.unwrap(), pair[1].picture_id.unwrap());
            after == before || after == before + 1
        };
        assert!(pictures.windows(2).all(is_continuous));
        let told = world.events.iter().any(|(_, event)| {
            matches!(event, signalbox_protocol::control::Event::ParticipantUpdated { participant }
                if participant.id == id && participant.state == ParticipantState::Active)
        });
        assert!(told, "the others are told that bob is there");
        assert_eq!(world.astray, 0);
    }
}
