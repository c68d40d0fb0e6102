//! Rooms that are handed over: clients are served by the next node over the one that they are connected with, until they have found it.

use std::time::Duration;

use signalbox_protocol::control::{Command, Event, Join, Joined, Reply, Target};
use signalbox_protocol::room::Kind;
use signalbox_protocol::tunnel::{Tunnel, Tunneled};
use signalbox_protocol::{ParticipantId, TrackId};
use str0m::media::Mid;

use crate::sfu::client::Received;
use crate::sfu::dual::{self, Dual};
use crate::sfu::link::Impairment;
use crate::sfu::moves::{Known, kept, mid_of, news, resume};
use crate::sfu::world::{World, public, room, second};

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// Ann with microphone and camera, and Bob with a microphone, are about to go from the first node to the second.
struct Moving {
    world: World,
    duals: [Dual; 2],
    joins: [Join; 2],
    camera: TrackId,
}

impl Moving {
    fn new(seed: u64) -> Self {
        Self::in_world(World::new(seed, Impairment::NONE))
    }

    fn in_world(mut world: World) -> Self {
        let duals = [
            dual::join(&mut world, "ann", true, &["f"]),
            dual::join(&mut world, "bob", true, &[]),
        ];
        dual::answer_offers(&mut world);
        world.run_for(SECONDS(2));
        let known = Known::of(&mut world);
        let joins = duals.map(|dual| {
            let mut join = resume(&mut world, dual.publisher);
            kept(&mut join).tunnels = open(&mut world, dual.publisher);
            join
        });
        let mut tracks = known.participants.iter().flat_map(|participant| &participant.tracks);
        let camera = tracks.find(|track| track.kind == Kind::Video).unwrap().id.clone();
        world.events.clear();
        world.offers_answered.clear();
        world.add_node();
        known.expect(&mut world).unwrap();
        Self {
            world,
            duals,
            joins,
            camera,
        }
    }

    /// A participant is taken up, and its client offers, from where it was.
    fn come(&mut self, index: usize, as_it_knows: impl Fn(&str) -> String) -> Coming {
        let joined = self.world.admit(self.joins[index].clone()).unwrap();
        assert!(joined.keeps_ice);
        let (name, old) = (["ann", "bob"][index], self.duals[index]);
        let mut client = dual::same_client(&mut self.world, old.publisher);
        client.has_data = true;
        let offer = client.offer(true, if index == 0 { &["f"] } else { &[] }, (0, 0));
        let publisher = self.world.add(name, client, joined.clone());
        self.world.members[old.publisher].is_gone = true;
        let answer = dual::offer_on(&mut self.world, publisher, offer);
        self.world.members[publisher].client.answer(&as_it_knows(&answer));
        Coming {
            joined,
            publisher,
            answer,
        }
    }

    /// A participant is taken up, and its client offers, but takes no notice of what it is answered.
    fn offer_only(&mut self, index: usize) {
        let joined = self.world.admit(self.joins[index].clone()).unwrap();
        let mut client = dual::same_client(&mut self.world, self.duals[index].publisher);
        client.has_data = true;
        let offer = client.offer(true, if index == 0 { &["f"] } else { &[] }, (0, 0));
        let publisher = self.world.add(["ann", "bob"][index], client, joined);
        dual::offer_on(&mut self.world, publisher, offer);
        self.world.members[publisher].is_gone = true;
    }

    /// The client takes the offer that is for it.
    fn accept(&mut self, index: usize, coming: &Coming, as_it_knows: impl Fn(&str) -> String) -> Mid {
        let old = self.duals[index];
        let id = self.world.id(coming.publisher);
        let (offer, sdp) = dual::last_offer(&self.world, &id).unwrap();
        let mut client = dual::same_client(&mut self.world, old.subscriber);
        let answer = client.accept(&as_it_knows(&sdp));
        self.world.members[old.subscriber].is_gone = true;
        self.world.add(["ann", "bob"][index], client, coming.joined.clone());
        let answer = Command::Answer { id: offer, sdp: answer };
        self.world.command(coming.publisher, answer).unwrap();
        if index == 1 {
            mid_of(&sdp, &self.camera)
        } else {
            Mid::from("0")
        }
    }

    /// Both clients come over; how Ann did, and on which m-line Bob sees her.
    fn come_over(&mut self, as_they_know: impl Fn(&str) -> String) -> (Coming, Mid) {
        let [ann, bob] = [0, 1].map(|index| self.come(index, &as_they_know));
        self.accept(0, &ann, &as_they_know);
        let on = self.accept(1, &bob, &as_they_know);
        (ann, on)
    }

    fn bob_sees_ann(&mut self, on: Mid) {
        self.world
            .run_until(SECONDS(5), "Bob sees Ann at the next node", |world| {
                let received = world.members.last().unwrap().client.received.get(&on);
                received.is_some_and(|packets| packets.len() > 100)
            });
    }

    /// Both have gone, as the first node is told.
    fn leave(&mut self) {
        self.world.switch();
        for dual in self.duals {
            self.world.command(dual.publisher, Command::Moved).unwrap();
        }
        self.world.switch();
    }

    /// Whether clients still use the way over the first node, and how many datagrams went there.
    fn way(&mut self) -> (bool, u64) {
        self.world.switch();
        let way = (
            self.world.shard.is_passed_through(&room()),
            self.world.shard.stats().tunneled,
        );
        self.world.switch();
        way
    }

    /// Pictures that Bob has received on an m-line.
    fn pictures(&self, on: Mid) -> usize {
        let last = self.world.members.last().unwrap();
        last.client.received.get(&on).map_or(0, Vec::len)
    }
}

struct Coming {
    joined: Joined,
    publisher: usize,
    answer: String,
}

fn open(world: &mut World, member: usize) -> Vec<Tunnel> {
    match world.command(member, Command::OpenTunnels).unwrap() {
        Reply::Tunnels { tunnels } => tunnels,
        other => panic!("{other:?}"),
    }
}

/// Descriptions as a client would have them that never finds the second node.
fn of_first(sdp: &str) -> String {
    assert!(sdp.contains(&second().ip().to_string()));
    sdp.replace(&second().ip().to_string(), &public().ip().to_string())
}

/// Descriptions as a client has them, which knows the first node's address from before.
fn of_both(sdp: &str) -> String {
    let both = |line: &str| match line.starts_with("a=candidate:") {
        true => format!("{line}{}", of_first(line).replace("udp 2", "udp 1")),
        false => line.to_owned(),
    };
    sdp.split_inclusive('\n').map(both).collect()
}

fn priority(sdp: &str) -> u32 {
    let candidate = sdp.lines().find(|line| line.starts_with("a=candidate:")).unwrap();
    candidate.split(' ').nth(3).unwrap().parse().unwrap()
}

fn has_offer(world: &World, id: &ParticipantId) -> bool {
    dual::last_offer(world, id).is_some()
}

#[test]
fn a_client_that_has_not_found_the_next_node_is_served_by_it_over_the_one_that_it_was_at() {
    let mut moving = Moving::new(501);
    let (ann, on) = moving.come_over(of_first);
    moving.bob_sees_ann(on);
    for target in [Target::Publisher, Target::Subscriber] {
        let told = (vec![moving.world.id(ann.publisher)], Event::Connected { target });
        assert!(moving.world.events.contains(&told), "{target:?}");
    }
    // The first node has let go of them, and their datagrams still come and go over it.
    moving.leave();
    moving.world.run_for(SECONDS(3));
    let (before, way) = (moving.pictures(on), moving.way());
    moving.world.run_for(SECONDS(3));
    assert!(way.0 && moving.way().1 > way.1 + 100);
    assert!(moving.pictures(on) > before + 100);
    assert_eq!(news(&moving.world), Vec::<&Event>::new());
    // Not for ever.
    moving.world.run_for(SECONDS(10));
    assert!(!moving.way().0);
}

/// libwebrtc nominates again only after seconds.
#[test]
fn there_is_a_way_to_a_client_whose_nomination_was_lost() {
    let mut world = World::new(517, Impairment::NONE);
    let ann = world.join("ann", true, &[], (0, 0));
    world.members[ann].loses_nominations = true;
    assert_eq!(open(&mut world, ann), [], "it is not known where she is");
    world.run_until(SECONDS(2), "Ann is connected", |world| {
        world.members[ann].client.is_connected
    });
    assert_eq!(open(&mut world, ann).len(), 1);
}

#[test]
fn a_client_that_has_found_the_next_node_needs_the_one_that_it_was_at_no_longer() {
    let mut moving = Moving::new(502);
    let (_, on) = moving.come_over(of_both);
    moving.world.run_for(SECONDS(3));
    moving.leave();
    moving.world.run_for(SECONDS(2));
    assert!(!moving.way().0, "nobody uses it");
    let (before, (_, tunneled)) = (moving.pictures(on), moving.way());
    moving.world.run_for(SECONDS(3));
    assert_eq!(moving.way().1, tunneled);
    assert!(moving.pictures(on) > before + 100);
}

#[test]
fn nodes_with_a_network_of_their_own_use_that_one() {
    let mut moving = Moving::in_world(World::with_network_between_nodes(516));
    let (_, on) = moving.come_over(of_first);
    moving.bob_sees_ann(on);
    moving.leave();
    moving.world.run_for(SECONDS(3));
    let (before, way) = (moving.pictures(on), moving.way());
    moving.world.run_for(SECONDS(3));
    assert!(way.0 && moving.way().1 > way.1 + 100);
    assert!(moving.pictures(on) > before + 100);
    assert_eq!(moving.world.astray, 0);
}

#[test]
fn nodes_that_do_not_reach_each_other_only_take_longer() {
    let mut moving = Moving::new(509);
    moving.world.is_parted = true;
    let (_, on) = moving.come_over(of_both);
    moving.bob_sees_ann(on);
}

#[test]
fn a_node_that_is_not_heard_shows_itself_again() {
    for (to, count) in [(public(), 10), (second(), 4)] {
        let mut moving = Moving::new(511);
        moving.world.lost_between = (to, count, 0);
        let (ann, _) = moving.come_over(of_first);
        moving
            .world
            .run_until(Duration::from_millis(150), "she comes over", |world| {
                world.members[ann.publisher].client.is_connected
            });
        assert_eq!(moving.world.lost_between.1, 0);
    }
}

/// Only with a check of the client's can it be reached.
#[test]
fn a_node_that_has_got_something_else_from_its_client_shows_itself_again() {
    let mut moving = Moving::new(513);
    // The answers for both of Ann's connections.
    moving.world.lost_between = (second(), 2, 0);
    let ann = moving.come(0, of_first).publisher;
    moving.world.members[ann].is_gone = true;
    moving.world.run_for(Duration::from_millis(1));
    assert_eq!(moving.world.lost_between.1, 0);
    moving.world.lost_between = (second(), 100, 0);
    moving.world.switch();
    for client in [moving.duals[0].publisher, moving.duals[0].subscriber]
        .map(|member| moving.world.members[member].client.address)
    {
        moving.world.inject(client, b"\x15\xfe\xfd\0\x01\0\0\0\0\0\0\0\0");
    }
    moving.world.switch();
    let before = knocks(&moving.world);
    moving.world.run_for(Duration::from_millis(50));
    assert_eq!(knocks(&moving.world), before + 4);
}

/// How often one node has shown itself to the other.
fn knocks(world: &World) -> usize {
    let tunneled = world.between.iter().filter_map(|(_, bytes)| Tunneled::parse(bytes));
    tunneled.filter(|tunneled| tunneled.datagram.is_empty()).count()
}

#[test]
fn what_a_clients_network_takes_is_known_at_the_next_node() {
    let mut moving = Moving::new(514);
    let known = |join: &mut Join| {
        let tunnels = &kept(join).tunnels;
        let of_viewer = tunnels.iter().find(|tunnel| tunnel.target == Target::Subscriber);
        of_viewer.and_then(|tunnel| tunnel.estimate_bps).unwrap()
    };
    // As it was told, and as no estimate would begin.
    let measured = known(&mut moving.joins[1]);
    assert!(measured > 1_500_000, "{measured}");
    let (_, on) = moving.come_over(of_both);
    let bob = moving.world.id(moving.world.members.len() - 1);
    let estimate = |world: &World| world.shard.estimate(&room(), &bob);
    moving
        .world
        .run_until(SECONDS(1), "it is measured again", |world| estimate(world).is_some());
    for _ in 0..30 {
        let estimate = estimate(&moving.world).unwrap();
        assert!(estimate > measured * 3 / 4, "{estimate} after {measured}");
        moving.world.run_for(Duration::from_millis(100));
    }
    assert!(moving.pictures(on) > 50);
}

/// Of the handshakes only the flight with the node's certificate is so long. One client's may be lost twice.
#[test]
fn a_part_of_a_handshake_that_is_lost_is_sent_again_soon() {
    let connected_after = |lost| {
        let mut moving = Moving::new(515);
        let (ann, _) = moving.come_over(of_first);
        moving.world.lost_between = (public(), lost, 400);
        let begun = moving.world.now;
        moving.world.run_until(SECONDS(1), "she comes over", |world| {
            world.members[ann.publisher].client.is_connected
        });
        assert_eq!(moving.world.lost_between.1, 0);
        moving.world.now - begun
    };
    assert!(connected_after(4) <= connected_after(0) + Duration::from_millis(90));
}

/// Whoever is at the other end repeats it late, and everybody waits for it.
#[test]
fn what_is_of_a_handshake_is_passed_on_twice() {
    let mut moving = Moving::new(512);
    let (_, on) = moving.come_over(of_first);
    moving.bob_sees_ann(on);
    let to_second = moving.world.between.iter().filter(|(to, _)| *to == second());
    let inner = to_second.filter_map(|(_, bytes)| Some(Tunneled::parse(bytes)?.datagram.to_vec()));
    let (handshake, others): (Vec<_>, Vec<_>) =
        inner.partition(|datagram| matches!(datagram.first(), Some(20..=22 | 26 | 32..=63)));
    // Two flights of each of four clients.
    assert!(handshake.len() >= 16, "{}", handshake.len());
    for pair in handshake.chunks(2) {
        assert_eq!(pair[0], pair[1]);
    }
    let others: Vec<_> = others.iter().filter(|datagram| datagram.len() > 100).collect();
    assert!(others.len() > 100 && others.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn the_ice_session_goes_on_and_the_next_nodes_address_looks_better() {
    let mut moving = Moving::new(503);
    let tunnels = kept(&mut moving.joins[0]).tunnels.clone();
    let of = |target| tunnels.iter().find(|tunnel| tunnel.target == target).unwrap();
    let ann = moving.come(0, of_first);
    moving.come(1, of_first);
    let (_, offer) = dual::last_offer(&moving.world, &moving.world.id(ann.publisher)).unwrap();
    for (target, sdp) in [(Target::Publisher, &ann.answer), (Target::Subscriber, &offer)] {
        let tunnel = of(target);
        assert!(sdp.contains(&format!("a=ice-ufrag:{}\r\n", tunnel.ufrag)));
        assert!(sdp.contains(&format!("a=ice-pwd:{}\r\n", tunnel.password)));
        assert!(!sdp.contains(&public().ip().to_string()), "the client knows it");
        let before = kept(&mut moving.joins[0]).kept.subscriber.clone().unwrap().offer;
        assert!(priority(sdp) > priority(&before));
        assert_eq!((tunnel.via, tunnel.moves), (public(), 1));
    }
}

#[test]
fn nobody_is_told_to_come_over_before_all_have_offered() {
    let mut moving = Moving::new(504);
    let ann = moving.come(0, of_first);
    let id = moving.world.id(ann.publisher);
    moving.world.run_for(Duration::from_millis(100));
    assert!(!has_offer(&moving.world, &id) && moving.world.shard.is_held(&room(), &id));
    assert!(!moving.world.members[ann.publisher].client.is_connected);
    let bob = moving.come(1, of_first);
    for coming in [&ann, &bob] {
        let id = moving.world.id(coming.publisher);
        assert!(has_offer(&moving.world, &id) && !moving.world.shard.is_held(&room(), &id));
    }
    moving.world.run_until(SECONDS(1), "they come over", |world| {
        [&ann, &bob]
            .iter()
            .all(|coming| world.members[coming.publisher].client.is_connected)
    });
}

/// Clients take notice one after the other, and nobody is to miss what is said meanwhile.
#[test]
fn those_who_have_come_over_and_those_who_have_not_hear_each_other() {
    let mut moving = Moving::new(518);
    let ann = moving.come(0, of_first);
    moving.offer_only(1);
    moving.accept(0, &ann, of_first);
    let hers = moving.world.members.len() - 1;
    moving.world.run_until(SECONDS(1), "she comes over", |world| {
        [ann.publisher, hers]
            .iter()
            .all(|member| world.members[*member].client.is_connected)
    });
    moving.world.run_for(Duration::from_millis(200));
    let listeners = [hers, moving.duals[1].subscriber];
    let heard = |world: &World| {
        listeners.map(|member| {
            // 20 ms each (RFC 7587 section 4.2).
            let is_sound = |packets: &&Vec<Received>| {
                packets
                    .windows(2)
                    .any(|two| two[1].timestamp.wrapping_sub(two[0].timestamp) == 960)
            };
            let received = &world.members[member].client.received;
            received.values().find(is_sound).map_or(0, Vec::len)
        })
    };
    let before = heard(&moving.world);
    moving.world.run_for(SECONDS(1));
    let after = heard(&moving.world);
    for (before, after) in before.into_iter().zip(after) {
        assert!((48..=52).contains(&(after - before)), "{before} {after}");
    }
    // What she has said is known to be hers also when the first node has let go of her.
    moving.world.switch();
    moving.world.command(moving.duals[0].publisher, Command::Moved).unwrap();
    moving.world.switch();
    let before = heard(&moving.world)[1];
    moving.world.run_for(SECONDS(1));
    let after = heard(&moving.world)[1];
    assert!((48..=52).contains(&(after - before)), "{before} {after}");
    assert!(moving.world.shard.stats().bridged > 100);
}

/// So that its listener has to begin no stream anew.
#[test]
fn sound_goes_on_with_the_numbers_that_it_has() {
    let mut moving = Moving::new(519);
    // Ann hears Bob, and nothing else.
    let before = sounds(&moving.world, moving.duals[0].subscriber);
    let (stream, last) = (kept(&mut moving.joins[0]).tunnels.clone(), *before.last().unwrap());
    let stream = stream.into_iter().flat_map(|tunnel| tunnel.sounds).next().unwrap();
    let ann = moving.come(0, of_first);
    moving.offer_only(1);
    moving.accept(0, &ann, of_first);
    let (_, offer) = dual::last_offer(&moving.world, &moving.world.id(ann.publisher)).unwrap();
    assert!(offer.contains(&format!("a=ssrc:{} ", stream.ssrc)), "{offer}");
    moving.world.run_for(SECONDS(1));
    let after = sounds(&moving.world, moving.world.members.len() - 1);
    let first = after.first().unwrap();
    let (numbers, ticks) = (first.sequence - last.sequence, first.timestamp - last.timestamp);
    assert!(
        (1..50).contains(&numbers) && u64::from(ticks) == numbers * 960,
        "{last:?} {first:?}"
    );
}

/// The sound that a member has received, of whoever was the first.
fn sounds(world: &World, member: usize) -> Vec<Received> {
    // 20 ms each (RFC 7587 section 4.2).
    let is_sound = |packets: &&Vec<Received>| {
        let mut pairs = packets.windows(2);
        pairs.any(|two| two[1].timestamp.wrapping_sub(two[0].timestamp) == 960)
    };
    let received = &world.members[member].client.received;
    received.values().find(is_sound).cloned().unwrap_or_default()
}

#[test]
fn who_does_not_come_holds_up_the_others_for_a_moment_only() {
    let mut moving = Moving::new(505);
    let ann = moving.come(0, of_first);
    let id = moving.world.id(ann.publisher);
    moving.world.run_for(Duration::from_millis(600));
    assert!(has_offer(&moving.world, &id) && !moving.world.shard.is_held(&room(), &id));
    moving.world.run_until(SECONDS(1), "she comes over", |world| {
        world.members[ann.publisher].client.is_connected
    });
}

#[test]
fn who_offers_when_the_others_have_waited_long_enough_comes_over_at_once() {
    let mut moving = Moving::new(510);
    let known = moving.joins[0].clone();
    moving.world.admit(known).unwrap();
    moving.world.run_for(Duration::from_millis(700));
    let ann = moving.come(0, of_first);
    moving.world.run_until(SECONDS(1), "she comes over", |world| {
        world.members[ann.publisher].client.is_connected
    });
}

#[test]
fn a_client_that_begins_ice_anew_is_not_looked_for_where_it_was() {
    let mut moving = Moving::new(506);
    let joined = moving.world.admit(moving.joins[0].clone()).unwrap();
    let mut client = dual::new_client(&moving.world);
    let offer = client.offer(true, &["f"], (0, 0));
    let member = moving.world.add("ann", client, joined);
    let answer = dual::offer_on(&mut moving.world, member, offer);
    for tunnel in kept(&mut moving.joins[0]).tunnels.clone() {
        assert!(!answer.contains(&tunnel.ufrag));
    }
    moving.world.members[member].client.answer(&answer);
    moving.world.run_until(SECONDS(2), "it is connected", |world| {
        world.members[member].client.is_connected
    });
}

#[test]
fn what_does_not_come_from_the_node_that_a_tunnel_leads_to_is_dropped() {
    let mut moving = Moving::new(507);
    let tunnel = kept(&mut moving.joins[0]).tunnels[0].clone();
    let ann = moving.come(0, of_first);
    moving.world.run_for(Duration::from_millis(50));
    let client = moving.world.members[ann.publisher].client.address;
    let before = moving.world.shard.stats().dropped_unknown;
    let stranger = "10.9.9.9:9".parse().unwrap();
    for (source, token, datagram) in [
        (stranger, tunnel.token, b"\x16\xfe\xfd\0\0\0\0\0\0\0\0\0\0".as_slice()),
        (public(), signalbox_protocol::tunnel::Token::new([0; 16]), b"guess"),
    ] {
        let tunneled = Tunneled {
            token,
            client,
            datagram,
        };
        moving.world.inject(source, &tunneled.to_bytes());
    }
    assert_eq!(moving.world.shard.stats().dropped_unknown, before + 2);
}

#[test]
fn the_old_node_asks_who_leaves_it_for_no_more_key_frames() {
    let mut world = World::new(508, Impairment::NONE);
    let ann = dual::join(&mut world, "ann", true, &["f"]);
    dual::join(&mut world, "bob", true, &[]);
    dual::answer_offers(&mut world);
    world.run_for(SECONDS(3));
    open(&mut world, ann.publisher);
    let wanted = |world: &World| world.members[ann.publisher].client.key_frames_wanted.len();
    let before = wanted(&world);
    // Somebody else would need one.
    dual::join(&mut world, "cleo", false, &[]);
    dual::answer_offers(&mut world);
    world.run_for(Duration::from_millis(300));
    assert_eq!(wanted(&world), before);
    // She does not go after all.
    world.run_for(SECONDS(2));
    assert!(wanted(&world) > before);
}
