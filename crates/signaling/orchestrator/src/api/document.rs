//! The routes and their OpenAPI 3.1 document, which cannot diverge: an operation is added together with its handler.
//!
//! The schemas and the document's form come from `protocol`, the problems from [`Kind`].

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use serde_json::Value;
use signalbox_protocol::openapi::{self, About, Operation, Operations};
use signalbox_protocol::{NodeId, RoomName};
use utoipa::openapi::HttpMethod;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::failure::Kind;

/// The name of the security scheme.
const SECRET: &str = "cluster_secret";

impl From<Kind> for openapi::Failure {
    fn from(kind: Kind) -> Self {
        let (status, name, _, detail) = kind.about();
        Self {
            status,
            name: name.to_owned(),
            detail: detail.to_owned(),
        }
    }
}

/// An operation with a stable id and a sentence. The parameters of the path are `{node}` and `{room}`.
pub fn operation(method: HttpMethod, path: &'static str, id: &str, summary: &str) -> Operation {
    let mut operation = Operation::new(method, path, id, summary);
    if path.contains("{node}") {
        operation = operation.path_parameter::<NodeId>("node", "The node's id.");
    }
    if path.contains("{room}") {
        operation = operation.path_parameter::<RoomName>("room", "The room's name, percent-encoded.");
    }
    operation
}

/// Routes and what is documented of them.
pub struct Routes<S> {
    router: Router<S>,
    operations: Operations,
    /// Whether the operations that are added need the cluster secret.
    guarded: bool,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// Routes that anybody may call.
    pub fn open() -> Self {
        Self {
            router: Router::new(),
            operations: Operations::default(),
            guarded: false,
        }
    }

    /// Routes that need the cluster secret, and the store.
    pub fn guarded() -> Self {
        Self {
            guarded: true,
            ..Self::open()
        }
    }

    /// Adds an operation and who carries it out.
    pub fn add<H: Handler<T, S>, T: 'static>(self, operation: Operation, handler: H) -> Self {
        let handler = on(filter(&operation.method()), handler);
        self.add_handler(operation, handler)
    }

    /// Adds an operation whose longest body, in bytes, is not that of all routes.
    pub fn add_with_body<H: Handler<T, S>, T: 'static>(
        self,
        operation: Operation,
        max_body: usize,
        handler: H,
    ) -> Self {
        let handler = on(filter(&operation.method()), handler).layer(DefaultBodyLimit::max(max_body));
        self.add_handler(operation, handler)
    }

    fn add_handler(mut self, mut operation: Operation, handler: MethodRouter<S>) -> Self {
        if operation.has_parameters() {
            operation = operation.fails([Kind::BadRequest]);
        }
        if operation.has_body() {
            operation = operation.fails([Kind::BadRequest, Kind::TooLarge, Kind::NotJson]);
        }
        if self.guarded {
            operation = operation.secured(&[SECRET]).fails([
                Kind::Unauthorized,
                Kind::Busy,
                Kind::MapUnavailable,
                Kind::Internal,
            ]);
        }
        self.router = self.router.route(operation.path(), handler);
        self.operations.add(operation);
        self
    }

    /// The routes.
    pub fn router(&self) -> Router<S> {
        self.router.clone()
    }
}

fn filter(method: &HttpMethod) -> MethodFilter {
    match method {
        HttpMethod::Post => MethodFilter::POST,
        HttpMethod::Put => MethodFilter::PUT,
        HttpMethod::Delete => MethodFilter::DELETE,
        HttpMethod::Patch => MethodFilter::PATCH,
        _ => MethodFilter::GET,
    }
}

/// The document of all these routes.
pub fn document<S>(routes: [&Routes<S>; 2]) -> Value {
    let mut operations = Operations::default();
    for routes in routes {
        operations.merge(routes.operations.clone());
    }
    let secret = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The cluster secret, which all processes of the cluster share."));
    let about = About {
        title: "Signalbox orchestrator",
        version: env!("CARGO_PKG_VERSION"),
        description: "The room map: which media node hosts which room, and which nodes hold a lease. Gateways, media nodes and operators call it.",
        license: env!("CARGO_PKG_LICENSE"),
        security: vec![(SECRET, SecurityScheme::Http(secret.build()))],
    };
    openapi::document(about, operations)
}
