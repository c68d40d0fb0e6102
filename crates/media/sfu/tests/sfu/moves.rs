//! Rooms that go on at another node: nobody sees a leave or a join, and the connections are to their clients the ones that they have.

use std::time::Duration;

use signalbox_protocol::control::{
    CloseReason, Command, Event, Join, Refusal, RefusalReason, Reply, Resume, RoomCommand, Target,
};
use signalbox_protocol::room::{Kind, ParticipantInfo, RoomInfo};
use signalbox_protocol::{Generation, ParticipantId, TrackId};
use signalbox_sfu::Limits;
use str0m::media::Mid;

use crate::sfu::dual::{self, Dual};
use crate::sfu::link::Impairment;
use crate::sfu::world::{World, room};

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// What gateways know of a room when its node dies.
pub struct Known {
    pub room: RoomInfo,
    pub participants: Vec<ParticipantInfo>,
}

impl Known {
    pub fn of(world: &mut World) -> Self {
        let now = world.now;
        match world.shard.handle_room_command(now, &room(), RoomCommand::List) {
            Ok(Reply::Room { room, participants }) => Self { room, participants },
            other => panic!("{other:?}"),
        }
    }

    pub fn expect(&self, world: &mut World) -> Result<Reply, Refusal> {
        expect(world, self.room.clone(), self.participants.clone())
    }
}

pub fn expect(world: &mut World, room: RoomInfo, participants: Vec<ParticipantInfo>) -> Result<Reply, Refusal> {
    let now = world.now;
    let reply = world.shard.handle_expect(now, Generation(2), room, participants);
    world.drain();
    reply
}

/// The join that takes a member up again at the next node. Its gateway is asked before the node dies.
pub fn resume(world: &mut World, member: usize) -> Join {
    let Ok(Reply::Snapshot(snapshot)) = world.command(member, Command::Attach) else {
        panic!();
    };
    Join {
        resume: Some(Box::new(Resume {
            participant: snapshot.participant,
            kept: *snapshot.resumption.unwrap(),
            slots: snapshot.slots,
            tunnels: Vec::new(),
        })),
        ..World::request(&world.members[member].identity.clone())
    }
}

/// What the resumed one was.
pub fn kept(join: &mut Join) -> &mut Resume {
    join.resume.as_mut().unwrap()
}

/// The room's node is gone, with all that it knew; everyone's next datagrams go to another.
pub fn lose_node(world: &mut World, limits: Limits) {
    world.replace_shard(limits);
    for member in &mut world.members {
        member.is_gone = true;
    }
    for member in &mut world.srtp {
        member.is_gone = true;
    }
    world.events.clear();
    world.offers_answered.clear();
}

/// Ann with microphone and camera, Bob with a microphone, each on two connections, and what resumes them.
pub fn two(seed: u64) -> (World, [Dual; 2], Known, [Join; 2]) {
    let mut world = World::new(seed, Impairment::NONE);
    let ann = dual::join(&mut world, "ann", true, &["q", "h", "f"]);
    let bob = dual::join(&mut world, "bob", true, &[]);
    world.run_for(SECONDS(1));
    let now = world.now;
    let metadata = "agenda".to_owned();
    let set = RoomCommand::SetMetadata { metadata };
    world.shard.handle_room_command(now, &room(), set).unwrap();
    dual::answer_offers(&mut world);
    world.run_for(SECONDS(1));
    let known = Known::of(&mut world);
    let joins = [resume(&mut world, ann.publisher), resume(&mut world, bob.publisher)];
    lose_node(&mut world, Limits::default());
    (world, [ann, bob], known, joins)
}

/// The changes of who is there and what is published, of which nobody is to be told.
pub fn news(world: &World) -> Vec<&Event> {
    let is_news = |event: &&Event| {
        matches!(
            event,
            Event::ParticipantJoined { .. }
                | Event::ParticipantLeft { .. }
                | Event::ParticipantUpdated { .. }
                | Event::TrackPublished { .. }
                | Event::TrackUnpublished { .. }
                | Event::TrackMuted { .. }
                | Event::Closed { .. }
                | Event::RoomUpdated { .. }
        )
    };
    world.events.iter().map(|(_, event)| event).filter(is_news).collect()
}

/// What a client must find again in the next offer: each m-line's place, id, payload types, extensions, direction and track. But for
/// redundant sound, which these clients have not accepted.
fn lines(sdp: &str) -> Vec<Vec<String>> {
    let sdp = sdp.replace(" 63 111", " 111");
    let is_red = |line: &&str| line.starts_with("a=fmtp:63 ") || line.starts_with("a=rtpmap:63 ");
    let is_kept = |line: &&str| {
        [
            "m=",
            "a=mid:",
            "a=rtpmap:",
            "a=fmtp:",
            "a=extmap:",
            "a=msid:",
            "a=send",
            "a=recv",
            "a=inactive",
            "a=setup:",
            "a=sctp-port:",
            "a=rtcp-fb:",
        ]
        .iter()
        .any(|start| line.starts_with(start))
    };
    let mut lines: Vec<Vec<String>> = Vec::new();
    for line in sdp.lines().filter(is_kept).filter(|line| !is_red(line)) {
        match lines.last_mut() {
            Some(media) if !line.starts_with("m=") => media.push(line.to_owned()),
            _ => lines.push(vec![line.to_owned()]),
        }
    }
    for media in &mut lines {
        media[1..].sort();
    }
    lines
}

fn value<'a>(sdp: &'a str, name: &str) -> &'a str {
    sdp.lines().find_map(|line| line.strip_prefix(name)).unwrap()
}

/// The m-line of a track in an offer.
pub fn mid_of(offer: &str, track: &TrackId) -> Mid {
    let lines = lines(offer);
    let line = lines.iter().find(|line| {
        line.iter()
            .any(|line| line.starts_with("a=msid:") && line.ends_with(track.as_str()))
    });
    let mid = line.unwrap().iter().find_map(|line| line.strip_prefix("a=mid:"));
    Mid::from(mid.unwrap())
}

#[test]
fn a_room_goes_on_at_another_node_and_nobody_is_told_that_anything_changed() {
    let (mut world, _, known, joins) = two(401);
    known.expect(&mut world).unwrap();
    let shown = Known::of(&mut world);
    assert_eq!(
        (&shown.room.id, shown.room.metadata.as_str()),
        (&known.room.id, "agenda")
    );
    assert_eq!(shown.room.created_at_ms, known.room.created_at_ms);
    assert_eq!((shown.room.participants, shown.room.publishers), (2, 2));
    assert_eq!(shown.participants, known.participants);
    let [of_ann, of_bob] = joins.clone().map(|join| world.admit(join).unwrap());
    assert_eq!(news(&world), Vec::<&Event>::new());
    for (joined, mut join) in [(&of_ann, joins[0].clone()), (&of_bob, joins[1].clone())] {
        let before = kept(&mut join).clone();
        assert_eq!(joined.snapshot.participant, before.participant);
        let again = joined.snapshot.resumption.as_deref().unwrap();
        assert_eq!(
            (&again.wants, &again.subscriber),
            (&before.kept.wants, &before.kept.subscriber)
        );
        let (mut tracks, mut said) = (again.tracks.clone(), before.kept.tracks.clone());
        tracks.sort_by(|one, other| one.id.cmp(&other.id));
        said.sort_by(|one, other| one.id.cmp(&other.id));
        assert_eq!(tracks, said);
        let id = &joined.snapshot.participant.id;
        let agreed = before.kept.subscriber.unwrap();
        let (offer, sdp) = dual::last_offer(&world, id).unwrap();
        assert_eq!(offer, agreed.id + 1);
        assert_eq!(lines(&sdp), lines(&agreed.offer));
        for name in ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:"] {
            assert_ne!(value(&sdp, name), value(&agreed.offer, name));
        }
        let origin = |sdp: &str| -> (String, u64) {
            let words: Vec<&str> = value(sdp, "o=").split(' ').collect();
            (words[1].to_owned(), words[2].parse().unwrap())
        };
        let (session, version) = origin(&agreed.offer);
        assert_eq!(origin(&sdp), (session, version + 1));
    }
    // Media flows again, of the same tracks on the same m-lines.
    let camera = known.participants[0].tracks.iter().chain(&known.participants[1].tracks);
    let camera = camera
        .into_iter()
        .find(|track| track.kind == Kind::Video)
        .unwrap()
        .id
        .clone();
    let (_, offer) = dual::last_offer(&world, &of_bob.snapshot.participant.id).unwrap();
    let ann = dual::enter(&mut world, "ann", of_ann, true, &["q", "h", "f"]);
    let bob = dual::enter(&mut world, "bob", of_bob, true, &[]);
    let on = mid_of(&offer, &camera);
    let picture = |world: &World| {
        world.members[bob.subscriber]
            .client
            .received
            .get(&on)
            .map_or(0, Vec::len)
    };
    world.run_until(SECONDS(5), "Bob sees Ann", |world| picture(world) > 100);
    assert_eq!(news(&world), Vec::<&Event>::new());
    for target in [Target::Publisher, Target::Subscriber] {
        for dual in [ann, bob] {
            let told = (vec![world.id(dual.publisher)], Event::Connected { target });
            assert!(world.events.contains(&told), "{target:?}");
        }
    }
    assert_eq!(world.shard.stats().participants, 2);
}

#[test]
fn a_clients_next_offer_of_the_same_m_lines_goes_on_with_the_same_tracks() {
    let (mut world, [ann, _], known, joins) = two(402);
    known.expect(&mut world).unwrap();
    for join in joins {
        world.admit(join).unwrap();
    }
    // The client that was at the other node offers as one that is established: its m-lines keep their ids.
    let offer = world.members[ann.publisher].client.restart_ice();
    let answer = dual::offer_on(&mut world, ann.publisher, offer.clone());
    assert!(answer.contains("a=setup:active"));
    let mids = |sdp: &str| -> Vec<String> {
        let mids = lines(sdp).into_iter().flatten();
        mids.filter(|line| line.starts_with("a=mid:")).collect()
    };
    assert_eq!(mids(&answer), mids(&offer));
    assert_eq!(news(&world), Vec::<&Event>::new());
    assert_eq!(world.members[ann.publisher].client.sending().len(), 2);
    let tracks = Known::of(&mut world)
        .participants
        .into_iter()
        .map(|one| one.tracks.len());
    assert_eq!(tracks.sum::<usize>(), 3);
}

#[test]
fn a_track_that_the_client_offers_no_more_ends_and_the_others_are_found_by_name() {
    let (mut world, [ann, _], known, joins) = two(403);
    known.expect(&mut world).unwrap();
    let [mut of_ann, _] = joins.clone();
    for join in joins {
        world.admit(join).unwrap();
    }
    let mut tracks = kept(&mut of_ann).participant.tracks.clone().into_iter();
    let camera = tracks.find(|track| track.kind == Kind::Video).unwrap().id;
    let mut less = world.new_client();
    let offer = less.offer(true, &[], (0, 0));
    dual::offer_on(&mut world, ann.publisher, offer);
    let ended = news(&world);
    assert!(
        !ended.is_empty()
            && ended
                .iter()
                .all(|event| matches!(event, Event::TrackUnpublished { track, .. } if *track == camera)),
        "{ended:?}"
    );
}

#[test]
fn a_client_that_reaches_the_node_and_does_not_get_on_is_reported_once_and_one_that_is_silent_is_not() {
    let (mut world, _, known, joins) = two(404);
    known.expect(&mut world).unwrap();
    let [of_ann, of_bob] = joins.map(|join| world.admit(join).unwrap());
    let stalled = |world: &World| -> Vec<(Vec<ParticipantId>, Target)> {
        let told = world.events.iter().filter_map(|(to, event)| match event {
            Event::MoveStalled { target } => Some((to.clone(), *target)),
            _ => None,
        });
        told.collect()
    };
    world.run_for(SECONDS(3));
    assert_eq!(stalled(&world), []);
    let client = dual::new_client(&world);
    let bob = world.add("bob", client, of_bob);
    world.members[bob].only_checks = true;
    dual::answer_offers(&mut world);
    world.run_for(Duration::from_millis(900));
    assert_eq!(stalled(&world), []);
    world.run_for(SECONDS(5));
    assert_eq!(stalled(&world), [(vec![world.id(bob)], Target::Subscriber)]);
    // One that gets on is not.
    dual::enter(&mut world, "ann", of_ann, true, &[]);
    world.run_for(SECONDS(3));
    assert_eq!(stalled(&world).len(), 1);
}

#[test]
fn open_data_channels_go_on_both_ways_without_being_opened() {
    let (mut world, _, known, mut joins) = two(405);
    known.expect(&mut world).unwrap();
    let channels = |join: &mut Join, target: Target| -> Vec<(String, u16)> {
        let channels = kept(join).kept.channels.clone().into_iter();
        let of = channels.filter(|channel| channel.target == target);
        of.map(|channel| (channel.label, channel.id)).collect()
    };
    let mut duals = Vec::new();
    for (index, name) in ["ann", "bob"].into_iter().enumerate() {
        let join = &mut joins[index];
        let (publisher, subscriber) = (channels(join, Target::Publisher), channels(join, Target::Subscriber));
        assert_eq!((publisher.len(), subscriber.len()), (2, 2));
        let joined = world.admit(join.clone()).unwrap();
        let mut client = dual::new_client(&world);
        client.channels_kept = publisher;
        let offer = client.offer(true, &[], (0, 0));
        let member = world.add(name, client, joined.clone());
        let answer = dual::offer_on(&mut world, member, offer);
        world.members[member].client.answer(&answer);
        let mut client = dual::new_client(&world);
        client.channels_kept = subscriber;
        let receiver = world.add(name, client, joined);
        dual::answer_offers(&mut world);
        duals.push((member, receiver));
    }
    world.run_until(SECONDS(10), "the channels are open", |world| {
        duals
            .iter()
            .flat_map(|(sender, receiver)| [sender, receiver])
            .all(|member| world.members[*member].client.channels.len() == 2)
    });
    for (from, to) in [(0, 1), (1, 0)] {
        let (sender, receiver) = (duals[from].0, duals[to].1);
        // An empty message of LiveKit's, of kind 0.
        assert!(world.members[sender].client.send("_reliable", &[8, 0]));
        world.run_until(SECONDS(5), "the message arrives", |world| {
            world.members[receiver].client.messages.len() == 1
        });
        assert_eq!(world.members[receiver].client.messages[0].0, "_reliable");
    }
}

#[test]
fn layers_are_told_apart_though_the_client_does_not_name_them_again() {
    let (mut world, [ann, _], known, [mut of_ann, of_bob]) = two(406);
    let mut client = dual::new_client(&world);
    let offer = client.offer(true, &["q", "h", "f"], (0, 0));
    // As if the client's streams had been these from the beginning.
    let pairs: Vec<(u32, u32)> = offer
        .lines()
        .filter_map(|line| line.strip_prefix("a=ssrc-group:FID "))
        .map(|pair| {
            let (main, repair) = pair.split_once(' ').unwrap();
            (main.parse().unwrap(), repair.trim().parse().unwrap())
        })
        .collect();
    assert_eq!(pairs.len(), 3);
    let (mid, before) = (
        client.sending()[1].to_string(),
        kept(&mut of_ann).participant.tracks.clone(),
    );
    let camera = before
        .iter()
        .find(|track| track.kind == Kind::Video)
        .unwrap()
        .id
        .clone();
    for track in kept(&mut of_ann)
        .participant
        .tracks
        .iter_mut()
        .filter(|track| track.id == camera)
    {
        track.mid.clone_from(&mid);
    }
    for track in kept(&mut of_ann)
        .kept
        .tracks
        .iter_mut()
        .filter(|track| track.id == camera)
    {
        track.mid.clone_from(&mid);
        assert_eq!(track.streams.len(), 3);
        for stream in &mut track.streams {
            let place = ["q", "h", "f"].iter().position(|rid| stream.rid == *rid).unwrap();
            (stream.ssrc, stream.repair_ssrc) = (pairs[place].0, Some(pairs[place].1));
        }
    }
    known.expect(&mut world).unwrap();
    let joined = world.admit(of_ann).unwrap();
    let of_bob = world.admit(of_bob).unwrap();
    let member = world.add("ann", client, joined.clone());
    let receiver = dual::new_client(&world);
    world.add("ann", receiver, joined);
    let answer = dual::offer_on(&mut world, member, offer);
    let unnamed = |line: &&str| !line.contains("rtp-stream-id") && !line.contains("sdes:mid");
    let answer: String = answer.split_inclusive('\n').filter(unnamed).collect();
    world.members[member].client.answer(&answer);
    let (_, offer) = dual::last_offer(&world, &of_bob.snapshot.participant.id).unwrap();
    let bob = dual::enter(&mut world, "bob", of_bob, true, &[]);
    let on = mid_of(&offer, &camera);
    let highest = |world: &World| {
        let received = world.members[bob.subscriber].client.received.get(&on);
        received.and_then(|packets| packets.last().map(|packet| packet.layer))
    };
    world.run_until(SECONDS(10), "Bob sees the highest layer", |world| {
        highest(world) == Some(2)
    });
    assert_ne!(member, ann.publisher);
}

#[test]
fn who_has_gone_to_the_next_node_is_missed_by_nobody_and_the_last_one_leaves_nothing() {
    let mut world = World::new(407, Impairment::NONE);
    let ann = dual::join(&mut world, "ann", true, &["f"]);
    let bob = dual::join(&mut world, "bob", true, &[]);
    dual::answer_offers(&mut world);
    world.run_for(SECONDS(2));
    let (before, events) = (Known::of(&mut world), world.events.len());
    world.command(ann.publisher, Command::Moved).unwrap();
    // Longer than anyone may be absent.
    world.run_for(SECONDS(30));
    assert_eq!(world.shard.participants(&room()), 1);
    let after = Known::of(&mut world);
    assert_eq!(
        (&after.participants, after.room.participants),
        (&before.participants, 2)
    );
    let told: Vec<&Event> = world.events[events..].iter().map(|(_, event)| event).collect();
    let is_harmless = |event: &&Event| matches!(event, Event::Quality { .. } | Event::Speakers { .. });
    assert!(told.iter().all(is_harmless), "{told:?}");
    let refusal = world.command(ann.publisher, Command::Attach).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::NoParticipant);
    world.command(bob.publisher, Command::Moved).unwrap();
    assert_eq!(
        (world.shard.participants(&room()), world.shard.stats().participants),
        (0, 0)
    );
    world.shard.close_room(world.now, &room(), CloseReason::RoomClosed);
    let events = world.events.len();
    world.drain();
    assert_eq!(world.events.len(), events);
}

#[test]
fn a_client_gets_through_before_its_answer_has_come_back() {
    let (mut world, _, known, [_, of_bob]) = two(408);
    known.expect(&mut world).unwrap();
    let joined = world.admit(of_bob).unwrap();
    let (id, offer) = dual::last_offer(&world, &joined.snapshot.participant.id).unwrap();
    let mut client = dual::new_client(&world);
    let sdp = client.accept(&offer);
    let bob = world.add("bob", client, joined);
    world.run_until(SECONDS(2), "it is connected", |world| {
        world.members[bob].client.is_connected
    });
    world.command(bob, Command::Answer { id, sdp: sdp.clone() }).unwrap();
    world.run_for(SECONDS(2));
    // Its ICE goes on.
    let refusal = world.command(bob, Command::Answer { id, sdp }).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Invalid, "it is answered");
    world.command(bob, Command::RestartIce).unwrap();
    assert_eq!(dual::last_offer(&world, &world.id(bob)).unwrap().0, id + 1);
}
