//! From a room's name to its assignment: reads the map, and places the room if it is nowhere.
//!
//! Owns the order of the steps and this orchestrator's memory of its recent placements. It must not know HTTP or SQL.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use signalbox_protocol::placement::PlaceRoom;
use tokio::time::Instant;

use crate::Error;
use crate::placement::{self, InFlight};
use crate::store::{Assignment, Placed, Store};

/// How often a placement is tried. Each try reads the map anew, so a second one is only needed when a node was lost, or
/// the room changed hands, during the first. Higher: more work for one request while nodes come and go.
const TRIES: usize = 4;

/// Finds and places rooms.
#[derive(Debug)]
pub struct Placer {
    margin: Duration,
    started: Instant,
    in_flight: Mutex<InFlight>,
}

impl Placer {
    /// A placer that gives rooms only to nodes whose lease holds for longer than `margin`.
    pub fn new(margin: Duration) -> Self {
        Self {
            margin,
            started: Instant::now(),
            in_flight: Mutex::default(),
        }
    }

    /// Where the room is, after placing it if need be; none if no node can take it.
    pub async fn place<S: Store>(&self, store: &S, request: &PlaceRoom) -> Result<Option<Assignment>, Error> {
        for _ in 0..TRIES {
            if let Some(existing) = store.find(&request.room).await? {
                return Ok(Some(existing));
            }
            let candidates = store.candidates(self.margin).await?;
            let chosen = {
                let in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
                let region = request.region.as_deref();
                placement::choose(
                    &candidates,
                    region,
                    &in_flight,
                    self.started.elapsed(),
                    &mut rand::rng(),
                )
            };
            let Some(chosen) = chosen else { return Ok(None) };
            match store.place(&request.room, chosen, self.margin).await? {
                Placed::New(assignment) => {
                    self.in_flight
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .note(assignment.node, self.started.elapsed());
                    tracing::info!(
                        room = %assignment.room,
                        node = %assignment.node,
                        epoch = %assignment.epoch,
                        generation = %assignment.generation,
                        "room placed"
                    );
                    return Ok(Some(assignment));
                }
                Placed::Existing(assignment) => return Ok(Some(assignment)),
                Placed::Refused => {}
            }
        }
        Ok(None)
    }
}
