//! The steps of a join: where the room is by the map, or, while that is away, where it was of late.
//!
//! Owns when the memory of [`crate::known_rooms`] is asked. It must not know HTTP.

use std::time::Duration;

use signalbox_protocol::placement::PlaceRoom;
use tokio::time::timeout;

use crate::store::{Assignment, Store};
use crate::{Error, Service};

/// How long the map's answer is waited for when it is known where the room was. Higher: a slow database is waited for.
/// Lower: while it hangs, joins of known rooms are quicker.
pub const PATIENCE: Duration = Duration::from_millis(500);

impl<S: Store> Service<S> {
    /// Where the room is, after placing it if need be; none if no node can take it, or if it is nowhere and must not be placed. While the map is
    /// away, where the room was of late: its node refuses whoever comes for a room that is no longer there.
    pub async fn place(&self, request: &PlaceRoom) -> Result<Option<Assignment>, Error> {
        let asked = self.uptime();
        let known = self.known_rooms().find(&request.room, asked).cloned();
        let orchestrators = self.sight.borrow().orchestrators;
        let placing = self.placer.place(&self.store, request, orchestrators);
        let placed = match &known {
            Some(_) => timeout(PATIENCE, placing).await.unwrap_or(Err(Error::Unanswered)),
            None => placing.await,
        };
        match placed {
            Ok(placed) => {
                if let Some(placed) = &placed {
                    self.known_rooms().insert(placed.clone(), asked);
                }
                Ok(placed)
            }
            Err(error) if error.is_outage() && known.is_some() => {
                tracing::debug!(room = %request.room, %error, "a room is where it was of late");
                Ok(known)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::placement::CloseRoom;
    use signalbox_protocol::{Epoch, NodeId};
    use tokio::time::Instant;

    use super::*;
    use crate::harness::{Orchestrator, heartbeat, node, orchestrator, register, start};
    use crate::known_rooms::MAX_AGE;
    use crate::leases::Beat;

    fn request(room: &str) -> PlaceRoom {
        PlaceRoom::new(room.parse().unwrap())
    }

    /// An orchestrator with a node that hosts a room.
    async fn hosting() -> (Orchestrator, NodeId, Epoch, Assignment) {
        let (service, answers) = orchestrator(&[]);
        start(&service).await;
        let epoch = register(&service, node(1)).await;
        answers.set(node(1), Some(epoch));
        let placed = service.place(&request("daily")).await.unwrap().unwrap();
        (service, node(1), epoch, placed)
    }

    #[tokio::test(start_paused = true)]
    async fn in_an_outage_a_known_room_stays_where_it_was_and_a_new_one_is_refused() {
        let (service, _, _, placed) = hosting().await;
        service.store().outage(true);
        assert_eq!(service.place(&request("daily")).await.unwrap(), Some(placed));
        assert!(service.place(&request("weekly")).await.unwrap_err().is_outage());
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_hangs_delays_joins_of_known_rooms_only_a_little() {
        let (service, _, _, placed) = hosting().await;
        service.store().delay(Duration::from_secs(60));
        let asked = Instant::now();
        assert_eq!(service.place(&request("daily")).await.unwrap(), Some(placed));
        assert!(asked.elapsed() <= PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn as_long_as_the_map_answers_it_alone_counts() {
        let (service, node, epoch, placed) = hosting().await;
        let owner = CloseRoom {
            node,
            epoch,
            generation: placed.generation,
        };
        // By another orchestrator, so that this one does not know.
        assert!(service.store().close(&placed.room, &owner, "b").await.unwrap());
        service.store().release(node, epoch).await.unwrap();
        assert_eq!(service.place(&request("daily")).await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_whose_node_lost_its_epoch_is_no_longer_known() {
        let (service, node, epoch, _) = hosting().await;
        service.store().release(node, epoch).await.unwrap();
        let over = service.beat(node, &heartbeat(epoch, 1, None)).await.unwrap();
        assert_eq!(over, Beat::Over);
        service.store().outage(true);
        assert!(service.place(&request("daily")).await.unwrap_err().is_outage());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_node_says_that_it_hosts_stays_known_through_a_long_outage() {
        let (service, node, epoch, placed) = hosting().await;
        service.store().outage(true);
        let (mut beat, mut wanted) = (0, false);
        let began = Instant::now();
        while began.elapsed() < MAX_AGE * 2 {
            beat += 1;
            let rooms = wanted.then(|| {
                vec![signalbox_protocol::node::RoomDigest {
                    room: placed.room.clone(),
                    generation: placed.generation,
                }]
            });
            let answer = service.beat(node, &heartbeat(epoch, beat, rooms)).await.unwrap();
            let Beat::Renewed(renewed) = answer else {
                panic!("{answer:?}")
            };
            wanted = renewed.rooms_wanted;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(service.place(&request("daily")).await.unwrap(), Some(placed));
    }
}
