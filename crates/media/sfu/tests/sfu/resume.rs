//! A room that goes on at another node, with those who were in it.

use signalbox_protocol::Generation;
use signalbox_protocol::control::{Event, Resume};

use crate::sfu::dual;
use crate::sfu::link::Impairment;
use crate::sfu::world::World;

/// The m-lines of a description: id, whether it is rejected, direction, what its track is called, payload types.
fn lines(sdp: &str) -> Vec<Vec<String>> {
    let sections = sdp.split("\nm=").skip(1);
    let told = sections.map(|section| {
        let kept = section.lines().enumerate().filter(|(index, line)| {
            let names = [
                "a=mid:",
                "a=msid:",
                "a=sendonly",
                "a=recvonly",
                "a=inactive",
                "a=sendrecv",
                "a=setup",
            ];
            *index == 0 || names.iter().any(|name| line.starts_with(name))
        });
        let mut kept: Vec<String> = kept.map(|(_, line)| line.trim().to_owned()).collect();
        kept[1..].sort();
        kept
    });
    told.collect()
}

#[test]
fn the_subscribers_next_offer_has_the_m_lines_of_the_last_one() {
    let mut old = World::new(401, Impairment::NONE);
    let ann = dual::join(&mut old, "ann", true, &["q", "h", "f"]);
    let bob = dual::join(&mut old, "bob", true, &["f"]);
    dual::answer_offers(&mut old);
    let (ann_id, bob_id) = (old.id(ann.publisher), old.id(bob.publisher));
    let (id, offer) = dual::last_offer(&old, &bob_id).unwrap();
    let snapshot = |world: &mut World, member: usize| {
        let reply = world
            .command(member, signalbox_protocol::control::Command::Attach)
            .unwrap();
        match reply {
            signalbox_protocol::control::Reply::Snapshot(snapshot) => *snapshot,
            other => panic!("{other:?}"),
        }
    };
    let known = [snapshot(&mut old, ann.publisher), snapshot(&mut old, bob.publisher)];
    let everyone = known.iter().map(|known| known.participant.clone()).collect();

    let mut new = World::new(402, Impairment::NONE);
    let now = new.now;
    new.shard
        .handle_expect(now, Generation(1), known[0].room.clone(), everyone)
        .unwrap();
    for snapshot in known {
        let mut join = dual::request(snapshot.participant.identity.as_str());
        join.resume = Some(Box::new(Resume {
            participant: snapshot.participant.clone(),
            kept: *snapshot.resumption.unwrap(),
            slots: Vec::new(),
            tunnels: Vec::new(),
        }));
        let joined = new.admit(join).unwrap();
        assert_eq!(joined.snapshot.participant.id, snapshot.participant.id);
        assert_eq!(joined.snapshot.participant.tracks, snapshot.participant.tracks);
        assert_eq!(joined.snapshot.others.len(), 1);
    }
    let (next, again) = dual::last_offer(&new, &bob_id).unwrap();
    assert_eq!(next, id + 1);
    let (mut before, mut after) = (lines(&offer), lines(&again));
    for (before, after) in before.iter_mut().zip(&mut after) {
        // What the client had not taken need not be offered again.
        let (before, after) = (before.remove(0), after.remove(0));
        assert!(
            after
                .split(' ')
                .all(|word| before.split(' ').any(|known| known == word)),
            "{after}"
        );
    }
    assert_eq!(after, before);
    let is_told = |event: &Event| matches!(event, Event::ParticipantJoined { .. } | Event::ParticipantLeft { .. });
    assert!(!new.events.iter().any(|(_, event)| is_told(event)));
    assert_ne!(ann_id, bob_id);
}
