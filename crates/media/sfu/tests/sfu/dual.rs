//! A client of two peer connections, as LiveKit's are: it offers on one, the node on the other.

use std::sync::LazyLock;
use std::time::Duration;

use signalbox_protocol::ParticipantId;
use signalbox_protocol::control::{Command, Event, Join, Joined, Reply, Resumption, Transports};
use signalbox_protocol::room::{Kind, PublishTrack, Source};

use str0m::config::DtlsCert;
use str0m::{Rtc, RtcConfig};

use crate::sfu::client::Client;
use crate::sfu::world::{Member, World};

/// Its two connections, as members of the world.
#[derive(Debug, Clone, Copy)]
pub struct Dual {
    pub publisher: usize,
    pub subscriber: usize,
}

/// What its join says.
pub fn request(identity: &str) -> Join {
    Join {
        transports: Transports::Dual,
        ..World::request(identity)
    }
}

/// A client with the certificate that all have: a browser that is moved to another node keeps its own.
pub fn new_client(world: &World) -> Client {
    Client::with_config(world.now, world.new_client().address, with_certificate())
}

/// The client of a connection that goes on at another node, at the same address and in the same ICE session.
pub fn same_client(world: &mut World, member: usize) -> Client {
    let now = world.now;
    let client = &mut world.members[member].client;
    let credentials = client.rtc.direct_api().local_ice_credentials();
    let config = with_certificate().set_local_ice_credentials(credentials);
    Client::with_config(now, client.address, config)
}

fn with_certificate() -> RtcConfig {
    static CERTIFICATE: LazyLock<DtlsCert> = LazyLock::new(|| {
        let provider = str0m::crypto::from_feature_flags().dtls_provider;
        provider.generate_certificate().unwrap()
    });
    Rtc::builder().set_dtls_cert(CERTIFICATE.clone())
}

/// Joins with a microphone and a camera of these layers, as far as they are wanted, and connects.
pub fn join(world: &mut World, identity: &str, audio: bool, video: &[&str]) -> Dual {
    let mut request = request(identity);
    if audio {
        request
            .publish
            .push(PublishTrack::new("mic", Kind::Audio, Source::Microphone));
    }
    if !video.is_empty() {
        request
            .publish
            .push(PublishTrack::new("cam", Kind::Video, Source::Camera));
    }
    let joined = world.admit(request).unwrap();
    let dual = enter(world, identity, joined, audio, video);
    world.run_until(Duration::from_secs(10), "the channels are open", |world| {
        world.members[dual.subscriber].client.channels.len() == 2
    });
    dual
}

/// The client of a join that was made: offers, and answers what it is offered.
pub fn enter(world: &mut World, identity: &str, joined: Joined, audio: bool, video: &[&str]) -> Dual {
    let mut client = new_client(world);
    client.has_data = true;
    let offer = client.offer(audio, video, (0, 0));
    let publisher = world.add(identity, client, joined.clone());
    let answer = offer_on(world, publisher, offer);
    world.members[publisher].client.answer(&answer);
    let client = new_client(world);
    let subscriber = world.add(identity, client, joined);
    let dual = Dual { publisher, subscriber };
    answer_offers(world);
    dual
}

/// Offers on a member's publishing connection; the answer.
pub fn offer_on(world: &mut World, publisher: usize, sdp: String) -> String {
    match world.command(publisher, Command::Offer { sdp }) {
        Ok(Reply::Answer { sdp }) => sdp,
        other => panic!("{other:?}"),
    }
}

/// The last offer to a participant, with its id.
pub fn last_offer(world: &World, to: &ParticipantId) -> Option<(u32, String)> {
    world.events.iter().rev().find_map(|(told, event)| match event {
        Event::Offer { id, sdp } if told.contains(to) => Some((*id, sdp.clone())),
        _ => None,
    })
}

/// Answers every offer of the node that has not been, until there are no more. Of a participant's members, the last is the one that is
/// offered to, and answers if it is there.
pub fn answer_offers(world: &mut World) {
    let mut index = 0;
    while let Some((to, event)) = world.events.get(index).cloned() {
        index += 1;
        let Event::Offer { id, sdp } = event else {
            continue;
        };
        let is_told = |member: &Member| to.contains(&member.joined.snapshot.participant.id);
        let member = world.members.iter().rposition(is_told).unwrap();
        let offer = (to[0].clone(), id);
        if world.members[member].is_gone || world.offers_answered.contains(&offer) {
            continue;
        }
        world.offers_answered.push(offer);
        let sdp = world.members[member].client.accept(&sdp);
        world.command(member, Command::Answer { id, sdp }).unwrap();
    }
}

/// What a gateway would have kept of a participant: the snapshot of its join, and what events told since.
pub fn kept(world: &mut World, member: usize) -> Resumption {
    let id = world.id(member);
    let mut kept = *world.members[member].joined.snapshot.resumption.clone().unwrap();
    for (_, event) in world.events.iter().filter(|(to, _)| to.contains(&id)) {
        match event {
            Event::Resumable { change } => kept.apply(change.clone()),
            Event::TrackUnpublished { track, .. } => kept.forget_track(track),
            _ => {}
        }
    }
    kept
}
