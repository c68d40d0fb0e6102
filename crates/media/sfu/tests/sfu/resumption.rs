//! What a gateway is told of a participant for the case that the room goes on at another node.

use signalbox_protocol::TrackId;
use signalbox_protocol::control::{Command, OneOffer, Preference, Reply, Resumption, Target, Transports};
use signalbox_protocol::room::{Kind, PublishTrack, Source};

use crate::sfu::client::Client;
use crate::sfu::dual::{self, Dual};
use crate::sfu::link::Impairment;
use crate::sfu::srtp::everything;
use crate::sfu::world::World;

/// As a gateway that attaches now is told it.
fn in_snapshot(world: &mut World, member: usize) -> Option<Resumption> {
    match world.command(member, Command::Attach).unwrap() {
        Reply::Snapshot(snapshot) => snapshot.resumption.map(|kept| *kept),
        other => panic!("{other:?}"),
    }
}

/// The same whichever way it was told, but for what a gateway keeps up itself.
fn assert_told(world: &mut World, Dual { publisher, .. }: Dual) -> Resumption {
    let whole = in_snapshot(world, publisher).unwrap();
    let mut kept = dual::kept(world, publisher);
    kept.subscriber.clone_from(&whole.subscriber);
    let ids = |kept: &Resumption| {
        let mut ids: Vec<TrackId> = kept.tracks.iter().map(|track| track.id.clone()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&kept), ids(&whole));
    for track in &whole.tracks {
        assert!(kept.tracks.contains(track), "{track:?} of {:?}", kept.tracks);
    }
    assert_eq!((&kept.wants, kept.channels.len()), (&whole.wants, whole.channels.len()));
    assert!(whole.channels.iter().all(|channel| kept.channels.contains(channel)));
    whole
}

#[test]
fn a_gateway_that_was_told_of_every_change_knows_what_one_knows_that_attaches() {
    let mut world = World::new(301, Impairment::NONE);
    let ann = dual::join(&mut world, "ann", true, &["q", "h", "f"]);
    let bob = dual::join(&mut world, "bob", true, &[]);
    dual::answer_offers(&mut world);
    let of_ann = assert_told(&mut world, ann);
    assert_eq!((of_ann.transports, of_ann.auto_subscribe), (Transports::Dual, true));
    let camera = of_ann.tracks.iter().find(|track| track.said.cid == "cam").unwrap();
    let video = world.members[ann.publisher].client.video_mid();
    assert_eq!(camera.mid, video.to_string());
    assert_eq!(camera.said.layers.len(), 3, "as its offer said");
    let agreed = of_ann.subscriber.unwrap();
    let (id, offer) = dual::last_offer(&world, &world.id(ann.publisher)).unwrap();
    assert_eq!((agreed.id, &agreed.offer), (id, &offer));
    assert!(agreed.answer.starts_with("v=0"));
    let mut channels: Vec<_> = of_ann
        .channels
        .iter()
        .map(|channel| (channel.target, channel.label.clone()))
        .collect();
    channels.sort_by_key(|(target, label)| (*target == Target::Subscriber, label.clone()));
    assert_eq!(
        channels,
        [
            (Target::Publisher, "_lossy".to_owned()),
            (Target::Publisher, "_reliable".to_owned()),
            (Target::Subscriber, "_lossy".to_owned()),
            (Target::Subscriber, "_reliable".to_owned()),
        ]
    );

    // An announcement, which is muted; wishes; a track that ends.
    let screen = PublishTrack::new("screen", Kind::Video, Source::ScreenShare);
    let Reply::Published { track: screen } = world
        .command(ann.publisher, Command::Publish(Box::new(screen)))
        .unwrap()
    else {
        panic!();
    };
    let (track, muted) = (screen.id.clone(), true);
    world.command(ann.publisher, Command::Mute { track, muted }).unwrap();
    let preference = Preference {
        width: 320,
        height: 180,
        ..Preference::default()
    };
    let tracks = vec![camera.id.clone()];
    let prefer = Command::Prefer {
        tracks: tracks.clone(),
        preference,
    };
    world.command(bob.publisher, prefer).unwrap();
    let subscribed = false;
    world
        .command(bob.publisher, Command::Subscribe { tracks, subscribed })
        .unwrap();
    let of_ann = assert_told(&mut world, ann);
    let announced = of_ann.tracks.iter().find(|track| track.id == screen.id).unwrap();
    assert_eq!((announced.said.muted, announced.mid.as_str()), (true, ""));
    let of_bob = assert_told(&mut world, bob);
    let wanted = &of_bob.wants[0];
    assert_eq!((&wanted.track, wanted.subscribed), (&camera.id, Some(false)));
    assert_eq!(wanted.preference, preference);
    let track = camera.id.clone();
    world.command(ann.publisher, Command::Unpublish { track }).unwrap();
    assert_eq!(assert_told(&mut world, ann).tracks.len(), 2);
    assert!(assert_told(&mut world, bob).wants.is_empty());
}

#[test]
fn streams_without_a_connection_and_slots_are_resumable_and_a_client_that_offers_once_is_not() {
    let mut world = World::new(302, Impairment::NONE);
    let ann = world.join("ann", true, &["f"], (1, 1));
    let kept = in_snapshot(&mut world, ann).unwrap();
    assert_eq!(kept.transports, Transports::Single);
    let said = |kept: &Resumption| -> Vec<(String, String)> {
        let said = kept
            .tracks
            .iter()
            .map(|track| (track.said.cid.clone(), track.mid.clone()));
        said.collect()
    };
    assert_eq!(said(&kept).len(), 2, "announced by nothing but the offer");
    let camera = world.join_srtp("camera", &["video/VP8"], everything());
    let reply = world.command_srtp(camera, Command::Attach).unwrap();
    let Reply::Snapshot(snapshot) = reply else { panic!() };
    let kept = snapshot.resumption.unwrap();
    assert_eq!(kept.transports, Transports::Srtp);
    assert_eq!(said(&kept), [("track-0".to_owned(), "0".to_owned())]);
    let mut client: Client = world.new_client();
    let offer = client.offer(true, &[], (0, 0));
    let joined = world.try_join_once("whip", OneOffer::Publish, &offer).unwrap();
    assert_eq!(joined.snapshot.resumption, None);
}
