//! A panic in the stack, and whom it costs.
#![expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]

use signalbox_protocol::control::{CloseReason, Event as RoomEvent, Join, Reply, Transports};
use signalbox_protocol::room::Grants;
use signalbox_protocol::{Generation, NodeId, ParticipantId};

use str0m::media::{Direction, MediaKind};

use super::*;
use crate::{Limits, Output as ShardOutput, Shard, ShardConfig};

fn public() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 50_000))
}

#[test]
fn what_panicked_is_not_used_again() {
    let now = Instant::now();
    let session = Session {
        ufrag: "ufrag".into(),
        password: "a-password-of-28-characters!".into(),
        from: None,
    };
    let mut connection = Connection::new(&Stack::new((public(), None), Clock::new(now, 0)), now, session).unwrap();
    connection.panic_now();
    assert!(matches!(connection.poll(now), Err(Fault::Panicked)));
}

fn join(shard: &mut Shard, now: Instant, identity: &str) -> ParticipantId {
    let mut client = Rtc::new(now);
    let mut api = client.sdp_api();
    api.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
    let (offer, _) = api.apply().unwrap();
    let join = Join {
        limits: Default::default(),
        ticket: String::new(),
        room: "daily".parse().unwrap(),
        identity: identity.parse().unwrap(),
        name: String::new(),
        metadata: String::new(),
        attributes: Default::default(),
        grants: Grants::default(),
        transports: Transports::Single,
        auto_subscribe: true,
        never_pause: false,
        attach: true,
        publish: Vec::new(),
        offer: Some(offer.to_sdp_string()),
        one_offer: None,
        srtp: None,
        dialect_info: None,
        resume: None,
    };
    match shard.handle_join(now, Generation(1), join).unwrap() {
        Reply::Joined(joined) => joined.snapshot.participant.id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panic_in_one_connection_costs_its_participant_and_nobody_else() {
    let now = Instant::now();
    let config = ShardConfig {
        node: NodeId::random(),
        public: public(),
        tunnel: None,
        unix_ms: 0,
        seed: [1; 32],
        limits: Limits::default(),
    };
    let mut shard = Shard::new(config, now);
    let (ann, bob) = (join(&mut shard, now, "ann"), join(&mut shard, now, "bob"));
    shard.panic_in(&ann);
    let mut events = Vec::new();
    while let Some(output) = shard.poll_output(now) {
        if let ShardOutput::Event { to, event } = output {
            events.push((to, *event));
        }
    }
    assert!(events.contains(&(
        vec![ann],
        RoomEvent::Closed {
            reason: CloseReason::Failed
        }
    )));
    assert!(
        matches!(events.last(), Some((to, RoomEvent::ParticipantLeft { .. })) if *to == [bob]),
        "the other one is told, and still there"
    );
    assert_eq!(shard.stats().participants, 1);
    assert_eq!(shard.stats().failed_connections, 1);
}
