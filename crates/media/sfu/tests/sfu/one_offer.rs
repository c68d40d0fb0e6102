//! Clients that offer once: publishing, watching, counter-offers, and ICE that is restarted alone.

use std::time::Duration;

use signalbox_protocol::control::{COUNTER_OFFER_ID, Command, OneOffer, RefusalReason, Reply};
use signalbox_protocol::room::{Kind, Source};
use signalbox_sfu::Limits;
use str0m::Rtc;
use str0m::media::Mid;

use crate::sfu::client::{Client, Received};
use crate::sfu::link::Impairment;
use crate::sfu::world::{World, public};

/// Publishes sound and a picture.
fn publish(world: &mut World, identity: &str, video: &[&str]) -> usize {
    let mut client = world.new_client();
    let offer = client.offer(true, video, (0, 0));
    let joined = world.try_join_once(identity, OneOffer::Publish, &offer).unwrap();
    client.answer(joined.answer.as_deref().unwrap());
    world.add(identity, client, joined)
}

/// Watches one of each kind.
fn watch(world: &mut World, identity: &str) -> usize {
    let mut client = world.new_client();
    let offer = client.offer(false, &[], (1, 1));
    let joined = world.try_join_once(identity, OneOffer::Receive, &offer).unwrap();
    client.answer(joined.answer.as_deref().unwrap());
    world.add(identity, client, joined)
}

/// What a viewer got so far on all its m-lines; each kind has one.
fn packets(world: &World, viewer: usize) -> Vec<usize> {
    let lines = world.members[viewer].client.received.values();
    lines.map(Vec::len).collect()
}

fn watches(world: &mut World, viewer: usize) {
    let before: Vec<usize> = packets(world, viewer);
    world.run_for(Duration::from_secs(2));
    let after = packets(world, viewer);
    assert_eq!(after.len(), 2, "sound and a picture");
    for (index, now) in after.iter().enumerate() {
        let more = now - before.get(index).copied().unwrap_or_default();
        assert!(more > 60, "{more} packets in two seconds");
    }
}

/// A media m-line that is good but for what a test changes.
fn offer(lines: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=fingerprint:sha-256 {}\r\na=ice-ufrag:abcd\r\n\
         a=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n\
         a=rtcp-mux\r\n{lines}",
        ["AB"; 32].join(":")
    )
}

const VP8: &str = "a=rtpmap:96 VP8/90000\r\n";

#[test]
fn viewers_share_a_stream_and_are_seen_by_nobody_else() {
    let mut world = World::new(1, Impairment::NONE);
    let ann = publish(&mut world, "ann", &["q", "h", "f"]);
    let viewers = [watch(&mut world, "one"), watch(&mut world, "two")];
    let carl = world.join("carl", false, &[], (1, 1));
    world.connect();
    for viewer in viewers {
        watches(&mut world, viewer);
    }
    watches(&mut world, carl);
    let video = world.received(carl, ann, Kind::Video);
    assert_eq!(video.last().unwrap().layer, 2, "the best of the simulcast layers");
    let tracks = &world.members[carl].joined.snapshot.others;
    let ann = tracks.iter().find(|other| other.identity.as_str() == "ann").unwrap();
    let sources: Vec<Source> = ann.tracks.iter().map(|track| track.source).collect();
    assert!(sources.contains(&Source::Microphone) && sources.contains(&Source::Camera));
}

#[test]
fn a_viewer_goes_on_with_the_next_publisher() {
    let mut world = World::new(2, Impairment::NONE);
    let ann = publish(&mut world, "ann", &["f"]);
    let viewer = watch(&mut world, "viewer");
    world.connect();
    watches(&mut world, viewer);
    world.command(ann, Command::Leave).unwrap();
    world.members[ann].is_gone = true;
    publish(&mut world, "ann", &["f"]);
    world.run_for(Duration::from_secs(2));
    watches(&mut world, viewer);
}

#[test]
fn nobody_watches_where_nothing_is_published() {
    let mut world = World::new(3, Impairment::NONE);
    world.join("bob", false, &[], (1, 1));
    let mut client = world.new_client();
    let offer = client.offer(false, &[], (1, 1));
    let refusal = world.try_join_once("viewer", OneOffer::Receive, &offer).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::NothingLive);
    assert_eq!(world.shard.stats().participants, 1);
}

#[test]
fn an_offer_is_taken_as_a_whole_or_not_at_all() {
    let mut world = World::new(4, Impairment::NONE);
    let good = offer(&format!("{VP8}a=sendonly\r\n"));
    for (bad, why) in [
        (offer(&format!("{VP8}a=recvonly\r\n")), "a=sendonly"),
        (offer(&format!("{VP8}a=inactive\r\n")), "a=sendonly"),
        (offer("a=rtpmap:96 JPEG2000/90000\r\na=sendonly\r\n"), "VP8"),
        (good.replace("setup:actpass", "setup:active"), "DTLS client"),
        (good.replace("m=video", "m=application"), ""),
        (good.replace("a=fingerprint", "a=x"), "fingerprint"),
    ] {
        let refusal = world.try_join_once("ann", OneOffer::Publish, &bad).unwrap_err();
        assert_eq!(refusal.reason, RefusalReason::Sdp, "{bad}");
        assert!(refusal.detail.contains(why), "{}", refusal.detail);
    }
    assert_eq!(world.shard.stats().participants, 0);
    world.try_join_once("ann", OneOffer::Publish, &good).unwrap();
    let bad = offer(&format!("{VP8}a=sendonly\r\n"));
    let refusal = world.try_join_once("viewer", OneOffer::Receive, &bad).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Sdp, "a viewer that sends");
    assert_eq!(world.shard.stats().participants, 1);
}

#[test]
fn what_goes_both_ways_is_answered_one_way() {
    let mut world = World::new(5, Impairment::NONE);
    for direction in ["a=sendrecv\r\n", ""] {
        let both = offer(&format!("{VP8}{direction}"));
        let joined = world.try_join_once("ann", OneOffer::Publish, &both).unwrap();
        assert!(joined.answer.unwrap().contains("a=recvonly"));
        assert!(joined.snapshot.slots.is_empty());
        let joined = world.try_join_once("viewer", OneOffer::Receive, &both).unwrap();
        assert!(joined.answer.unwrap().contains("a=sendonly"));
        assert_eq!(joined.snapshot.participant.tracks, []);
    }
}

#[test]
fn two_pictures_are_two_tracks() {
    let mut world = World::new(6, Impairment::NONE);
    let two = offer(&format!("{VP8}a=sendonly\r\n")).replace("BUNDLE 0", "BUNDLE 0 1")
        + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\na=sendonly\r\n";
    let joined = world.try_join_once("ann", OneOffer::Publish, &two).unwrap();
    let tracks = joined.snapshot.participant.tracks;
    assert_eq!(tracks.len(), 2);
    assert_ne!(tracks[0].mid, tracks[1].mid);
}

#[test]
fn a_source_that_the_token_does_not_name_is_refused() {
    let mut world = World::new(7, Impairment::NONE);
    let mut join = World::request("ann");
    join.offer = Some(offer(&format!("{VP8}a=sendonly\r\n")));
    join.one_offer = Some(OneOffer::Publish);
    join.grants.sources = vec![Source::Microphone];
    assert_eq!(world.admit(join).unwrap_err().reason, RefusalReason::NotPermitted);
    assert_eq!(world.shard.stats().participants, 0);
}

/// Sends an ICE fragment.
fn patch(world: &mut World, member: usize, sessions: &[&str], fragment: &str) -> Result<Reply, RefusalReason> {
    let command = Command::PatchIce {
        sessions: sessions.iter().map(|session| (*session).to_owned()).collect(),
        fragment: fragment.to_owned(),
    };
    world.command(member, command).map_err(|refusal| refusal.reason)
}

/// The lines of an SDP that name ICE credentials.
fn credentials(sdp: &str) -> String {
    let mut lines: Vec<&str> = sdp
        .lines()
        .filter(|line| line.starts_with("a=ice-ufrag") || line.starts_with("a=ice-pwd"))
        .collect();
    lines.truncate(2);
    lines.join("\r\n") + "\r\n"
}

/// An answer with the credentials of a fragment.
fn with_credentials(answer: &str, fragment: &str) -> String {
    let (old, new) = (credentials(answer), credentials(fragment));
    let mut answer = answer.to_owned();
    for (old, new) in old.lines().zip(new.lines()) {
        // Wherever they are: the candidates name the ufrag too.
        answer = answer.replace(old.split_once(':').unwrap().1, new.split_once(':').unwrap().1);
    }
    answer
}

#[test]
fn ice_is_restarted_by_a_fragment_and_media_goes_on() {
    let mut world = World::new(8, Impairment::NONE);
    let ann = publish(&mut world, "ann", &["f"]);
    let viewer = watch(&mut world, "viewer");
    world.connect();
    watches(&mut world, viewer);
    for member in [ann, viewer] {
        let joined = world.members[member].joined.clone();
        let (first, answer) = (joined.ice_session.unwrap(), joined.answer.unwrap());
        let offer = world.members[member].client.restart_ice();
        let Ok(Reply::IceRestarted { session, fragment }) = patch(&mut world, member, &[], &credentials(&offer)) else {
            panic!("ICE was not restarted");
        };
        assert_ne!(session, first);
        assert!(fragment.contains(&format!("a=ice-ufrag:{session}\r\n")), "{fragment}");
        assert!(
            fragment.contains("a=candidate:") && fragment.contains("a=ice-lite"),
            "{fragment}"
        );
        assert!(fragment.contains(&public().port().to_string()));

        // Whoever did not hear the answer may ask again.
        let again = patch(&mut world, member, &[], &credentials(&offer));
        assert!(matches!(again, Ok(Reply::IceRestarted { session: same, .. }) if same == session));
        assert_eq!(
            patch(&mut world, member, &[&first], "a=mid:0"),
            Err(RefusalReason::StaleIce)
        );
        assert_eq!(patch(&mut world, member, &["x", &session], "a=mid:0"), Ok(Reply::Done));

        let answer = with_credentials(&answer, &fragment);
        world.members[member].client.answer(&answer);
        assert!(!world.members[member].client.rtc.is_connected());
        world.run_until(Duration::from_secs(5), "ICE is up again", |world| {
            world.members[member].client.rtc.is_connected()
        });
        watches(&mut world, viewer);
    }
}

#[test]
fn a_restart_that_fails_keeps_the_old_session() {
    let mut world = World::new(9, Impairment::NONE);
    let ann = publish(&mut world, "ann", &["f"]);
    let viewer = watch(&mut world, "viewer");
    world.connect();
    let session = world.members[ann].joined.ice_session.clone().unwrap();
    for bad in [
        "",
        "hello",
        "a=ice-ufrag:abcd\r\n",
        "a=ice-ufrag:abcd\r\na=ice-pwd:short\r\n",
        "a=mid:0\r\n",
    ] {
        assert_eq!(patch(&mut world, ann, &[], bad), Err(RefusalReason::Sdp), "{bad}");
    }
    let candidate = "a=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
    assert_eq!(
        patch(&mut world, ann, &[&session], candidate),
        Ok(Reply::Done),
        "the session is the same"
    );
    watches(&mut world, viewer);
    assert_eq!(world.astray, 0, "a candidate is a claim, and nothing is sent to it");
}

#[test]
fn candidates_may_come_with_the_credentials_that_they_belong_to() {
    let mut world = World::new(10, Impairment::NONE);
    let mut client = world.new_client();
    let offer = client.offer(true, &["f"], (0, 0));
    let joined = world.try_join_once("ann", OneOffer::Publish, &offer).unwrap();
    client.answer(joined.answer.as_deref().unwrap());
    let session = joined.ice_session.clone().unwrap();
    let ann = world.add("ann", client, joined);
    assert_eq!(
        patch(&mut world, ann, &[&session], &credentials(&offer)),
        Ok(Reply::Done)
    );
    assert_eq!(
        patch(&mut world, ann, &[&session], "a=mid:0"),
        Ok(Reply::Done),
        "nothing was restarted"
    );
}

/// A client that knows no other codec for pictures.
pub fn only_h264(world: &World) -> Client {
    let mut client = world.new_client();
    let mut rtc = Rtc::builder()
        .set_rtp_mode(true)
        .clear_codecs()
        .enable_h264(true)
        .build(world.now);
    rtc.add_local_candidate(str0m::Candidate::host(client.address, "udp").unwrap());
    client.rtc = rtc;
    client
}

#[test]
fn an_offer_that_can_receive_nothing_is_countered_with_what_is_published() {
    let mut world = World::new(11, Impairment::NONE);
    publish(&mut world, "ann", &["f"]);
    let without_codec = only_h264(&world).offer(false, &[], (0, 1));
    let joined = world
        .try_join_once("viewer", OneOffer::Receive, &without_codec)
        .unwrap();
    assert_eq!(joined.answer, None);
    let counter = joined.counter_offer.clone().unwrap();
    assert_eq!(u64::from(counter.valid_seconds), Limits::default().departure.as_secs());
    assert!(counter.sdp.contains("a=setup:active") && counter.sdp.contains("VP8/90000"));
    assert!(!counter.sdp.contains("H264") && !counter.sdp.contains("webrtc-datachannel"));
    assert_eq!(counter.sdp.matches("a=sendonly").count(), 2, "{}", counter.sdp);

    let mut client = world.new_client();
    let answer = client.accept(&counter.sdp);
    let viewer = world.add("viewer", client, joined);
    let answered = |world: &mut World, sdp: String| {
        let command = Command::Answer {
            id: COUNTER_OFFER_ID,
            sdp,
        };
        world.command(viewer, command).map_err(|refusal| refusal.reason)
    };
    assert_eq!(answered(&mut world, answer.clone()), Ok(Reply::Done));
    assert_eq!(
        answered(&mut world, answer),
        Err(RefusalReason::Invalid),
        "an offer is answered once"
    );
    world.connect();
    watches(&mut world, viewer);

    let session = world.members[viewer].joined.ice_session.clone().unwrap();
    assert_eq!(patch(&mut world, viewer, &[&session], "a=mid:0"), Ok(Reply::Done));
    let new = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n";
    assert_eq!(patch(&mut world, viewer, &[], new), Err(RefusalReason::Unsupported));
}

#[test]
fn an_offer_without_an_m_line_for_what_is_published_is_countered() {
    let mut world = World::new(12, Impairment::NONE);
    let mut client = world.new_client();
    let video_only = client.offer(false, &["f"], (0, 0));
    let joined = world.try_join_once("ann", OneOffer::Publish, &video_only).unwrap();
    client.answer(joined.answer.as_deref().unwrap());
    world.add("ann", client, joined);
    let audio_only = world.new_client().offer(false, &[], (1, 0));
    let joined = world.try_join_once("viewer", OneOffer::Receive, &audio_only).unwrap();
    let counter = joined.counter_offer.unwrap().sdp;
    assert!(counter.contains("m=video") && !counter.contains("m=audio"), "{counter}");
}

#[test]
fn who_does_not_answer_a_counter_offer_is_gone() {
    let mut world = World::new(13, Impairment::NONE);
    publish(&mut world, "ann", &["f"]);
    let offer = only_h264(&world).offer(false, &[], (0, 1));
    world.try_join_once("viewer", OneOffer::Receive, &offer).unwrap();
    assert_eq!(world.shard.stats().participants, 2);
    world.run_for(Limits::default().departure + Duration::from_secs(1));
    assert_eq!(world.shard.stats().participants, 1);
}

#[test]
fn a_slot_carries_only_what_its_viewer_can_decode() {
    let mut world = World::new(14, Impairment::NONE);
    publish(&mut world, "ann", &["f"]);
    let h264 = offer(
        "a=rtpmap:96 H264/90000\r\na=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\na=sendonly\r\n",
    );
    let joined = world.try_join_once("bob", OneOffer::Publish, &h264).unwrap();
    let bob = joined.snapshot.participant.id;
    // Whichever of the two tracks comes first, a viewer of H.264 is given bob's.
    let offer = only_h264(&world).offer(false, &[], (0, 1));
    let joined = world.try_join_once("viewer", OneOffer::Receive, &offer).unwrap();
    let carried: Vec<_> = joined
        .snapshot
        .slots
        .iter()
        .filter_map(|slot| slot.track.clone())
        .collect();
    assert_eq!(carried.len(), 1);
    assert_eq!(carried[0].participant, bob);
}

/// A picture id that jumps would show as a broken picture.
#[test]
fn a_stream_is_whole_to_its_viewer() {
    let mut world = World::new(15, Impairment::NONE);
    publish(&mut world, "ann", &["f"]);
    let viewer = watch(&mut world, "viewer");
    world.connect();
    watches(&mut world, viewer);
    let lines = &world.members[viewer].client.received;
    let video = |line: &(&Mid, &Vec<Received>)| line.1.iter().any(|packet| packet.picture_id.is_some());
    let (_, video) = lines.iter().find(video).unwrap();
    assert!(video[0].begins_key_frame);
    for pair in video.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence + 1);
    }
}
