//! How much may be asked: by one user, from one address, and of the gateway as a whole.
//!
//! A user's rate is the one that means something; that of an address is loose, since many people may share one. Both answer 429. When more is asked than can be done,
//! what is over is answered with 503 at once rather than left to wait: joins first, since those who are in a call already matter more.

pub mod config;

mod rates;
mod shedding;

use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use signalbox_protocol::token::AccessClaims;

use self::config::LimitsConfig;
use self::rates::Rates;
use self::shedding::{Lane, Turn};
use crate::front::client::ClientAddress;
use crate::metrics::Metrics;
use crate::problem::ApiError;
use crate::state::State;

/// How often may be asked.
#[derive(Debug)]
pub(crate) struct Limits {
    users: Rates<(String, String)>,
    addresses: Rates<ClientAddress>,
    metrics: Arc<Metrics>,
}

impl Limits {
    pub(crate) fn new(config: &LimitsConfig, metrics: Arc<Metrics>) -> Self {
        Self {
            users: Rates::new(config.requests_per_user, config.burst_per_user),
            addresses: Rates::new(config.requests_per_address, config.burst_per_address),
            metrics,
        }
    }

    /// Whether the user of a token that holds may ask once more.
    ///
    /// # Errors
    /// [`ApiError::TooOften`].
    pub(crate) fn user(&self, claims: &AccessClaims) -> Result<(), ApiError> {
        let key = (claims.iss.clone(), claims.sub.clone());
        self.count(self.users.take(key), "You ask too often; wait before you ask again.")
    }

    fn address(&self, address: ClientAddress) -> Result<(), ApiError> {
        let sentence = "Too much is asked from your network; wait before you ask again.";
        self.count(self.addresses.take(address), sentence)
    }

    fn count(&self, taken: Result<(), u64>, sentence: &str) -> Result<(), ApiError> {
        taken.map_err(|retry_after| {
            self.metrics.limited.increment();
            ApiError::TooOften {
                detail: sentence.to_owned(),
                retry_after,
            }
        })
    }
}

/// Refuses what comes from an address that asks too often.
pub(crate) async fn enforce(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match state.limits().address(ClientAddress::of(&state, &parts)) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(error) => error.into_response(),
    }
}

/// How much is asked of orchestrators and nodes at once. A turn is taken when all of a request is here, so that those who send slowly hold none.
#[derive(Debug)]
pub(crate) struct Lanes {
    joins: Lane,
    others: Lane,
    metrics: Arc<Metrics>,
}

impl Lanes {
    pub(crate) fn new(config: &LimitsConfig, metrics: Arc<Metrics>) -> Self {
        Self {
            joins: Lane::new(config.joins_at_once),
            // Twice as many, so that joins alone never take what those need who are there already.
            others: Lane::new(config.joins_at_once.saturating_mul(2)),
            metrics,
        }
    }

    /// A turn of somebody who wants to get into a room, or of anybody else.
    ///
    /// # Errors
    /// [`ApiError::Overloaded`].
    pub(crate) async fn turn(&self, is_join: bool) -> Result<Turn, ApiError> {
        let lane = if is_join { &self.joins } else { &self.others };
        lane.turn().await.ok_or_else(|| {
            self.metrics.shed.increment();
            ApiError::Overloaded("The gateway is busy; try again shortly.".into())
        })
    }
}
