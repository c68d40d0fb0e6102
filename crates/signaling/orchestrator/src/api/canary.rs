//! `/v1/canary` and `/v1/outcomes`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use signalbox_protocol::canary::{Canary, ChangedBy, ReportOutcomes, SetCanary};

use super::check;
use super::extract::Body;
use super::failure::Failure;
use crate::Service;
use crate::canary::{WINDOW, comparison};
use crate::leases::millis;
use crate::store::Store;
use crate::store::canary::CanaryState;

/// How many changes are told.
const TOLD_CHANGES: usize = 20;

/// `GET /v1/canary`.
pub async fn look<S: Store>(State(service): State<Arc<Service<S>>>) -> Result<Json<Canary>, Failure> {
    let state = service.look_at_canary().await?;
    told(&service, state).await
}

/// `PUT /v1/canary`.
pub async fn set<S: Store>(
    State(service): State<Arc<Service<S>>>,
    Body(wanted): Body<SetCanary>,
) -> Result<Json<Canary>, Failure> {
    check::canary(&wanted)?;
    let state = service.set_canary_share(wanted.share, &wanted.why).await?;
    told(&service, state).await
}

/// `POST /v1/outcomes`.
pub async fn report<S: Store>(
    State(service): State<Arc<Service<S>>>,
    Body(report): Body<ReportOutcomes>,
) -> Result<StatusCode, Failure> {
    check::outcomes(&report)?;
    let mut tallies = service.canary.tallies();
    for told in &report.nodes {
        tallies.joins(told.node, told.joins);
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn told<S: Store>(service: &Service<S>, state: CanaryState) -> Result<Json<Canary>, Failure> {
    let history = service.store.canary_history(TOLD_CHANGES).await?;
    let share = service.canary.of(&state);
    let CanaryState {
        last, stable, canary, ..
    } = state;
    Ok(Json(Canary {
        share,
        by: last.as_ref().map_or(ChangedBy::Configuration, |last| last.by),
        since_ms: last.as_ref().map(|last| last.at_ms),
        why: last.map(|last| last.why).unwrap_or_default(),
        window_ms: millis(WINDOW),
        verdict: comparison::verdict(&stable, &canary),
        stable,
        canary,
        history,
    }))
}
