//! From a room's name to its assignment: reads the map, and places the room if it is nowhere.
//!
//! Owns the order of the steps and this orchestrator's memory of its recent placements. It must not know HTTP or SQL.

mod map;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use signalbox_protocol::history::{Drained, Reasons};
use signalbox_protocol::placement::{CloseRoom, PlaceRoom, Track};
use signalbox_protocol::{NodeId, RoomName};
use tokio::time::Instant;

use crate::Error;
use crate::candidates::Candidates;
use crate::placement::{Choice, Chooser, Settings, Situation, Wish, track};
use crate::store::{Assignment, Placed, Proposal, Store, Wanted};

/// How often a placement is tried. Each try reads the map anew, so a second one is only needed when a node was lost, or
/// the room changed hands, during the first. Higher: more work for one request while nodes come and go.
const TRIES: usize = 4;

/// Finds and places rooms.
#[derive(Debug)]
pub struct Placer {
    name: String,
    margin: Duration,
    started: Instant,
    candidates: Candidates,
    chooser: Mutex<(Chooser, StdRng)>,
}

impl Placer {
    /// A placer that gives rooms only to nodes whose lease holds for longer than `margin`. `name` is this orchestrator's,
    /// for the history; `rng` is all of its randomness.
    pub fn new(name: String, settings: Settings, margin: Duration, rng: StdRng) -> Self {
        Self {
            name,
            margin,
            started: Instant::now(),
            candidates: Candidates::default(),
            chooser: Mutex::new((Chooser::new(settings), rng)),
        }
    }

    /// Where the room is, after placing it if need be; none if no node can take it, or if it is nowhere and must not be placed.
    /// `orchestrators` is how many place rooms on the same map, this one among them.
    ///
    /// For a room that has a place this is one read of the map.
    pub async fn place<S: Store>(
        &self,
        store: &S,
        request: &PlaceRoom,
        orchestrators: usize,
    ) -> Result<Option<Assignment>, Error> {
        let mut read_anew = false;
        for _ in 0..TRIES {
            if let Some(existing) = map::find(store, &request.room).await? {
                return Ok(Some(existing));
            }
            if request.find_only {
                return Ok(None);
            }
            let candidates = self.candidates.get(store, self.margin).await?;
            let occupied = occupied(store, request).await?;
            let situation = |candidates| Situation {
                candidates,
                occupied: &occupied,
                bucket: track::known(request),
                orchestrators,
                now: self.started.elapsed(),
            };
            let others = request.lost.map(|lost| {
                let others = candidates.nodes.iter().filter(|other| other.node != lost);
                others.cloned().collect::<Vec<_>>()
            });
            let mut choice = match &others {
                Some(others) => self.choose(request, &situation(others)),
                None => self.choose(request, &situation(&candidates.nodes)),
            };
            if choice.node.is_none() && others.is_some() {
                choice = self.choose(request, &situation(&candidates.nodes));
            }
            let Some(candidate) = choice.node else {
                if read_anew {
                    return Ok(None);
                }
                // A node may have come since the copy was made.
                self.candidates.invalidate(&candidates);
                read_anew = true;
                continue;
            };
            let proposal = Proposal {
                room: request.room.clone(),
                candidate,
                group: request.group.clone(),
                avoid: request.avoid.clone(),
                wish: Wish::of(request),
                by: self.name.clone(),
                reasons: choice.reasons,
            };
            match map::place(store, proposal, self.margin).await? {
                Placed::New(assignment) => {
                    self.note(assignment.node);
                    return Ok(Some(assignment));
                }
                Placed::Existing(assignment) => return Ok(Some(assignment)),
                Placed::Refused => self.candidates.invalidate(&candidates),
            }
        }
        Ok(None)
    }

    /// Hands a room on to another node than its owner, whose drain goes into the room's history: one that could have got it when it was placed,
    /// by what it asked for then. None: no node can take it, or it is the owner's no more.
    pub async fn hand_off<S: Store>(
        &self,
        store: &S,
        room: &RoomName,
        owner: &CloseRoom,
        drained: Drained,
        orchestrators: usize,
    ) -> Result<Option<Assignment>, Error> {
        let Some(Wanted { group, avoid, wish }) = store.wanted(room, owner).await? else {
            return Ok(None);
        };
        let bucket = wish.bucket;
        let request = wish.request(room.clone(), group, avoid);
        for _ in 0..TRIES {
            let candidates = self.candidates.get(store, self.margin).await?;
            let others = candidates.nodes.iter().filter(|other| other.node != owner.node);
            let others: Vec<_> = others.cloned().collect();
            let occupied = occupied(store, &request).await?;
            let choice = self.choose(
                &request,
                &Situation {
                    candidates: &others,
                    occupied: &occupied,
                    bucket,
                    orchestrators,
                    now: self.started.elapsed(),
                },
            );
            let Some(candidate) = choice.node else {
                self.candidates.invalidate(&candidates);
                return Ok(None);
            };
            let proposal = Proposal {
                room: room.clone(),
                candidate,
                // The map keeps what it has.
                group: None,
                avoid: Vec::new(),
                wish: Wish::default(),
                by: self.name.clone(),
                reasons: Reasons {
                    drained: Some(drained),
                    ..choice.reasons
                },
            };
            if let Some(assignment) = store.hand_off(owner, proposal, self.margin).await? {
                self.note(assignment.node);
                return Ok(Some(assignment));
            }
            self.candidates.invalidate(&candidates);
        }
        Ok(None)
    }

    /// From now on this share of users' rooms go to canary nodes.
    pub fn set_canary_share(&self, share: f64) {
        let mut chooser = self.chooser.lock().unwrap_or_else(PoisonError::into_inner);
        chooser.0.set_canary_share(share);
    }

    /// Whether the node is of the canary track, as far as is known, and a request for a place there fell to that track because of the share.
    pub fn is_by_canary_share(&self, request: &PlaceRoom, node: NodeId) -> bool {
        if request.find_only || request.track.or(request.prefer).is_some() {
            return false;
        }
        let share = {
            let chooser = self.chooser.lock().unwrap_or_else(PoisonError::into_inner);
            chooser.0.canary_share()
        };
        track::wanted(request, track::known(request), share) == Track::Canary
            && self.candidates.track_of(node) == Some(Track::Canary)
    }

    fn choose(&self, request: &PlaceRoom, situation: &Situation<'_>) -> Choice {
        let mut chooser = self.chooser.lock().unwrap_or_else(PoisonError::into_inner);
        let (chooser, rng) = &mut *chooser;
        chooser.choose(request, situation, rng)
    }

    fn note(&self, node: NodeId) {
        let mut chooser = self.chooser.lock().unwrap_or_else(PoisonError::into_inner);
        chooser.0.placed(node, self.started.elapsed());
    }
}

/// The nodes that host what the room must not be with. The map refuses them in any case; who knows them chooses another one.
async fn occupied<S: Store>(store: &S, request: &PlaceRoom) -> Result<BTreeSet<NodeId>, Error> {
    if request.group.is_none() && request.avoid.is_empty() {
        return Ok(BTreeSet::new());
    }
    store.occupied(request.group.as_deref(), &request.avoid).await
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use signalbox_protocol::node::{Asker, NodeState, RegisterNode};
    use signalbox_protocol::placement::Track;
    use signalbox_protocol::{Epoch, NodeId};
    use uuid::Uuid;

    use super::*;
    use crate::faulty::FaultyStore;
    use crate::harness::register_with;

    const LEASE: Duration = Duration::from_secs(2);

    fn placer() -> Placer {
        Placer::new("a".into(), Settings::default(), LEASE / 4, StdRng::seed_from_u64(1))
    }

    async fn register(store: &FaultyStore, n: u128) -> (NodeId, Epoch) {
        let node = about(n);
        (node.node, register_with(store, &node, LEASE).await.unwrap())
    }

    fn about(n: u128) -> RegisterNode {
        RegisterNode {
            node: NodeId(Uuid::from_u128(n)),
            after: Epoch(0),
            control: "ws://127.0.0.1:7900".into(),
            media: Vec::new(),
            region: String::new(),
            zone: String::new(),
            labels: Default::default(),
            track: Default::default(),
            capacity: 100,
            version: "1.0.0".into(),
        }
    }

    /// Hands a room on, as a drain does.
    async fn hand_off(placer: &Placer, store: &FaultyStore, from: &Assignment) -> Option<Assignment> {
        let owner = CloseRoom {
            node: from.node,
            epoch: from.epoch,
            generation: from.generation,
        };
        let drained = Drained {
            node: from.node,
            asked_by: Asker::Operator,
            began_at_ms: 0,
        };
        placer.hand_off(store, &from.room, &owner, drained, 1).await.unwrap()
    }

    fn request(room: &str) -> PlaceRoom {
        PlaceRoom::new(room.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_that_has_a_place_costs_one_read() {
        let (store, placer) = (FaultyStore::default(), placer());
        register(&store, 1).await;
        let placed = placer.place(&store, &request("daily"), 1).await.unwrap();
        let before = (store.calls("find"), store.all_calls());
        assert_eq!(placer.place(&store, &request("daily"), 1).await.unwrap(), placed);
        assert_eq!((store.calls("find"), store.all_calls()), (before.0 + 1, before.1 + 1));
        assert_eq!(store.calls("occupied"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_that_is_only_looked_for_is_not_placed() {
        let (store, placer) = (FaultyStore::default(), placer());
        register(&store, 1).await;
        let looked_for = PlaceRoom {
            find_only: true,
            ..request("daily")
        };
        assert_eq!(placer.place(&store, &looked_for, 1).await.unwrap(), None);
        assert_eq!(store.calls("place"), 0);
        let placed = placer.place(&store, &request("daily"), 1).await.unwrap();
        assert!(placed.is_some());
        assert_eq!(placer.place(&store, &looked_for, 1).await.unwrap(), placed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_room_returns_to_the_node_that_lost_it_only_if_there_is_no_other() {
        let (store, placer) = (FaultyStore::default(), placer());
        let (lost, _) = register(&store, 1).await;
        let anew = |room: &str| PlaceRoom {
            lost: Some(lost),
            ..request(room)
        };
        let only = placer.place(&store, &anew("only"), 1).await.unwrap().unwrap();
        assert_eq!(only.node, lost);
        let (other, _) = register(&store, 2).await;
        tokio::time::advance(crate::candidates::FRESH).await;
        for room in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let placed = placer.place(&store, &anew(room), 1).await.unwrap().unwrap();
            assert_eq!(placed.node, other);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_came_since_the_copy_was_made_is_found() {
        let (store, placer) = (FaultyStore::default(), placer());
        assert_eq!(placer.place(&store, &request("daily"), 1).await.unwrap(), None);
        let (node, epoch) = register(&store, 1).await;
        let placed = placer.place(&store, &request("daily"), 1).await.unwrap().unwrap();
        assert_eq!((placed.node, placed.epoch), (node, epoch));
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_copy_names_a_node_that_has_gone_another_one_is_chosen() {
        let (store, placer) = (FaultyStore::default(), placer());
        let (first, epoch) = register(&store, 1).await;
        placer.place(&store, &request("daily"), 1).await.unwrap();
        let (second, _) = register(&store, 2).await;
        store.release(first, epoch).await.unwrap();
        assert_eq!(store.nodes().await.unwrap()[0].state, NodeState::Lost);
        let placed = placer.place(&store, &request("weekly"), 1).await.unwrap().unwrap();
        assert_eq!(placed.node, second);
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_that_is_handed_over_goes_only_where_it_could_have_been_placed() {
        let (store, placer) = (FaultyStore::default(), placer());
        let right = |n| RegisterNode {
            region: "eu".into(),
            labels: [("disk".to_owned(), "fast".to_owned())].into(),
            track: Track::Canary,
            version: "1.4.2".into(),
            ..about(n)
        };
        register_with(&store, &right(1), LEASE).await.unwrap();
        let mut placed = Vec::new();
        for room in ["a", "b", "c", "d", "e", "f"] {
            let asked = PlaceRoom {
                region: Some("eu".into()),
                labels: right(1).labels,
                track: Some(Track::Canary),
                min_version: Some("1.4".into()),
                ..request(room)
            };
            placed.push(placer.place(&store, &asked, 1).await.unwrap().unwrap());
        }
        let wrong = [
            RegisterNode {
                labels: Default::default(),
                ..right(2)
            },
            RegisterNode {
                track: Track::Stable,
                ..right(3)
            },
            RegisterNode {
                version: "1.3.9".into(),
                ..right(4)
            },
        ];
        for about in &wrong {
            register_with(&store, about, LEASE).await.unwrap();
        }
        tokio::time::advance(crate::candidates::FRESH).await;
        assert_eq!(hand_off(&placer, &store, &placed[0]).await, None);
        // The region is only preferred.
        let elsewhere = RegisterNode {
            region: "us".into(),
            ..right(5)
        };
        register_with(&store, &elsewhere, LEASE).await.unwrap();
        let handed = hand_off(&placer, &store, &placed[0]).await.unwrap();
        assert_eq!(handed.node, elsewhere.node);
        register_with(&store, &right(6), LEASE).await.unwrap();
        tokio::time::advance(crate::candidates::FRESH).await;
        for placed in &placed[1..] {
            let handed = hand_off(&placer, &store, placed).await.unwrap();
            assert_eq!(handed.node, right(6).node);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_that_is_handed_over_is_not_proposed_to_a_node_that_hosts_what_it_avoids() {
        let (store, placer) = (FaultyStore::default(), placer());
        for n in 1..=8 {
            register(&store, n).await;
        }
        let mut placed = Vec::new();
        for n in 0..7 {
            let asked = PlaceRoom {
                group: Some("studio".into()),
                avoid: vec!["studio".into()],
                ..request(&format!("room {n}"))
            };
            placed.push(placer.place(&store, &asked, 1).await.unwrap().unwrap());
        }
        let handed = hand_off(&placer, &store, &placed[0]).await.unwrap();
        assert!(placed.iter().all(|other| other.node != handed.node));
        assert_eq!(store.calls("hand_off"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn rooms_of_a_group_that_avoids_itself_are_spread() {
        let (store, placer) = (FaultyStore::default(), placer());
        register(&store, 1).await;
        register(&store, 2).await;
        let mut nodes = BTreeSet::new();
        for room in ["a", "b"] {
            let mut request = request(room);
            request.group = Some("studio".into());
            request.avoid = vec!["studio".into()];
            nodes.insert(placer.place(&store, &request, 1).await.unwrap().unwrap().node);
        }
        assert_eq!(nodes.len(), 2);
        assert!(store.calls("occupied") >= 2);
    }
}
