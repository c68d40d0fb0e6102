//! The HTTP API that gateways, media nodes and operators call; its tables are in [`signalbox_protocol::placement`] and
//! [`signalbox_protocol::node`], and `GET /openapi.json` describes it to programs.
//!
//! Owns routes, authentication, limits and the form of errors. It must not know SQL, nor choose nodes. One file for
//! each noun of the paths.

mod canary;
mod check;
mod document;
mod drains;
mod extract;
mod failure;
mod guard;
mod metrics;
mod nodes;
mod placements;
mod probes;
mod rooms;
mod traced;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, header};
use axum::{Extension, Router, middleware};
use signalbox_protocol::canary::{Canary, ReportOutcomes, SetCanary};
use signalbox_protocol::history::RoomPlacement;
use signalbox_protocol::node::{
    Drain, DrainNode, Heartbeat, NodeList, RegisterNode, Registered, Release, Renewed, ReportNode, SetNodeState,
    Verdict,
};
use signalbox_protocol::placement::{CloseRoom, PlaceRoom, Placement, RoomClosed, RoomList};
use utoipa::openapi::HttpMethod::{Delete, Get, Post, Put};

use crate::Service;
use crate::store::Store;

use document::{Routes, operation};
use failure::{Failure, Kind};
pub use guard::{Guard, MAX_REQUESTS};

/// The longest body, in bytes, except for heartbeats.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// The longest heartbeat, in bytes: it names every room of the node. About 10,000 rooms with names of the longest kind.
pub const MAX_HEARTBEAT_BYTES: usize = 4 * 1024 * 1024;

/// All routes. Everything but the probes and the document needs the cluster secret.
pub fn router<S: Store>(service: Arc<Service<S>>, guard: Arc<Guard>) -> Router {
    let guarded = guarded::<S>();
    let open = open::<S>();
    let mut document = document::document([&guarded, &open]).to_string();
    document.push('\n');
    // It describes itself too, so it is made before its own handler knows it.
    let described = Extension(Document(document.into()));

    let api = guarded
        .router()
        .fallback(async || Failure::from(Kind::NotFound))
        .method_not_allowed_fallback(async || Failure::from(Kind::MethodNotAllowed))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        // Behind the guard: a trace is a matter among ourselves.
        .layer(middleware::from_fn(traced::carry_on))
        .layer(middleware::from_fn_with_state(guard, guard::check));
    let open = open
        .router()
        .method_not_allowed_fallback(async || Failure::from(Kind::MethodNotAllowed))
        .layer(described);
    open.merge(api).with_state(service)
}

#[derive(Clone)]
struct Document(Arc<str>);

/// `GET /openapi.json`: what any reader of the source knows, so it needs no secret.
async fn openapi(Extension(Document(document)): Extension<Document>) -> ([(HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "application/json")], document.to_string())
}

fn open<S: Store>() -> Routes<Arc<Service<S>>> {
    let op = operation;
    Routes::open()
        .add(
            op(Get, "/livez", "isAlive", "Whether the process answers.").answers_nothing(200, "It does."),
            probes::live,
        )
        .add(
            op(
                Get,
                "/readyz",
                "isReady",
                "Whether the room map answered when it was last asked.",
            )
            .answers_nothing(200, "It did.")
            .fails([Kind::MapUnavailable]),
            probes::ready::<S>,
        )
        .add(
            op(Get, "/metrics", "showMetrics", "Figures of this orchestrator.").answers_as::<String>(
                200,
                "In the Prometheus text format 0.0.4.",
                "text/plain",
            ),
            metrics::show::<S>,
        )
        .add(
            op(Get, "/openapi.json", "describe", "This document.").answers::<serde_json::Value>(200, "OpenAPI 3.1."),
            openapi,
        )
}

fn guarded<S: Store>() -> Routes<Arc<Service<S>>> {
    let op = operation;
    Routes::guarded()
        .add(
            op(
                Post,
                "/v1/placements",
                "placeRoom",
                "Where is this room? If nowhere, place it.",
            )
            .body::<PlaceRoom>()
            .answers::<Placement>(200, "There, with a ticket for it.")
            .fails([Kind::NoNode, Kind::UnknownRoom]),
            placements::place::<S>,
        )
        .add(
            op(Get, "/v1/rooms", "listRooms", "Rooms by name, a page of them.")
                .query::<rooms::Page>()
                .answers::<RoomList>(200, "The page."),
            rooms::list::<S>,
        )
        .add(
            op(
                Get,
                "/v1/rooms/{room}/placement",
                "explainRoom",
                "Where is this room, and how did it come there?",
            )
            .answers::<RoomPlacement>(200, "What the orchestrators wrote down.")
            .fails([Kind::UnknownRoom]),
            rooms::explain::<S>,
        )
        .add(
            op(
                Post,
                "/v1/rooms/{room}/close",
                "closeRoom",
                "A node closes a room that is empty.",
            )
            .body::<CloseRoom>()
            .answers::<RoomClosed>(200, "Whether this request closed it."),
            rooms::close::<S>,
        )
        .add(
            op(Get, "/v1/nodes", "listNodes", "All media nodes.").answers::<NodeList>(200, "The nodes, by id."),
            nodes::list::<S>,
        )
        .add(
            op(Post, "/v1/nodes", "registerNode", "A media node announces itself.")
                .body::<RegisterNode>()
                .answers::<Registered>(200, "Its lease, in a new epoch.")
                .fails([Kind::PrivateMediaAddress, Kind::EpochMoved]),
            nodes::register::<S>,
        )
        .add_with_body(
            op(
                Post,
                "/v1/nodes/{node}/heartbeat",
                "renewLease",
                "A node renews its lease.",
            )
            .body::<Heartbeat>()
            .answers::<Renewed>(200, "The lease is renewed, or a promise stands in for it.")
            .fails([Kind::HeartbeatFromThePast, Kind::EpochOver]),
            MAX_HEARTBEAT_BYTES,
            nodes::heartbeat::<S>,
        )
        .add(
            op(
                Post,
                "/v1/nodes/{node}/release",
                "releaseLease",
                "A node goes; its rooms are free at once.",
            )
            .body::<Release>()
            .answers_nothing(204, "The epoch is over, by this request or before it."),
            nodes::release::<S>,
        )
        .add(
            op(
                Post,
                "/v1/nodes/{node}/reports",
                "reportNode",
                "A gateway complains about a node.",
            )
            .body::<ReportNode>()
            .answers::<Verdict>(200, "What the orchestrator found when it looked for itself.")
            .fails([Kind::UnknownNode]),
            nodes::report::<S>,
        )
        .add(
            op(
                Put,
                "/v1/nodes/{node}/state",
                "setNodeState",
                "Whether a node is to take rooms.",
            )
            .body::<SetNodeState>()
            .answers_nothing(204, "It is so.")
            .fails([Kind::UnknownNode, Kind::NodeLost]),
            nodes::set_state::<S>,
        )
        .add(
            op(
                Put,
                "/v1/nodes/{node}/drain",
                "drainNode",
                "Empty a node: its rooms are moved to others.",
            )
            .body::<DrainNode>()
            .answers::<Drain>(200, "It goes on like this.")
            .fails([Kind::UnknownNode, Kind::NodeLost]),
            drains::begin::<S>,
        )
        .add(
            op(
                Get,
                "/v1/nodes/{node}/drain",
                "lookAtDrain",
                "How far the emptying of a node has come.",
            )
            .answers::<Drain>(200, "The last one.")
            .fails([Kind::NoDrain]),
            drains::look::<S>,
        )
        .add(
            op(
                Delete,
                "/v1/nodes/{node}/drain",
                "cancelDrain",
                "Empty a node no further; it takes rooms again.",
            )
            .answers::<Drain>(200, "As it stands now. Rooms that have moved stay where they are.")
            .fails([Kind::NoDrain]),
            drains::cancel::<S>,
        )
        .add(
            op(
                Get,
                "/v1/canary",
                "lookAtCanary",
                "The canary share, and how nodes of both tracks do.",
            )
            .answers::<Canary>(200, "As the room map has it."),
            canary::look::<S>,
        )
        .add(
            op(Put, "/v1/canary", "setCanary", "Set the canary share.")
                .body::<SetCanary>()
                .answers::<Canary>(200, "It counts here, and at the other orchestrators within a second."),
            canary::set::<S>,
        )
        .add(
            op(
                Post,
                "/v1/outcomes",
                "reportOutcomes",
                "A gateway tells what came of joins.",
            )
            .body::<ReportOutcomes>()
            .answers_nothing(204, "They are counted."),
            canary::report::<S>,
        )
}
