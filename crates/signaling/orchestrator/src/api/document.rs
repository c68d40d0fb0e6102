//! The routes and their OpenAPI 3.1 document, which cannot diverge: an operation is added together with its handler.
//!
//! Owns the form of the document. The schemas come from `protocol`, the problems from [`Kind`].

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};
use serde_json::Value;
use signalbox_protocol::problem::{CONTENT_TYPE, Problem};
use signalbox_protocol::{NodeId, RoomName};
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, HeaderBuilder, HttpMethod, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Paths,
    Ref, RefOr, Required, ResponseBuilder, Schema,
};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::failure::Kind;

/// The name of the security scheme.
const SECRET: &str = "cluster_secret";

type Schemas = BTreeMap<String, RefOr<Schema>>;

/// What is documented of one operation.
pub struct Operation {
    method: HttpMethod,
    path: &'static str,
    built: OperationBuilder,
    schemas: Schemas,
    fails: BTreeSet<Kind>,
    max_body: Option<usize>,
}

impl Operation {
    /// An operation with a stable id and a sentence. The parameters of the path are `{node}` and `{room}`.
    pub fn new(method: HttpMethod, path: &'static str, id: &str, summary: &str) -> Self {
        let built = OperationBuilder::new().operation_id(Some(id)).summary(Some(summary));
        let mut operation = Self {
            method,
            path,
            built,
            schemas: Schemas::new(),
            fails: BTreeSet::new(),
            max_body: None,
        };
        if path.contains("{node}") {
            operation = operation.path_parameter::<NodeId>("node", "The node's id.");
        }
        if path.contains("{room}") {
            operation = operation.path_parameter::<RoomName>("room", "The room's name, percent-encoded.");
        }
        operation
    }

    fn path_parameter<T: ToSchema>(mut self, name: &str, description: &str) -> Self {
        let schema = self.refer::<T>();
        self.built = self.built.parameter(
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .description(Some(description))
                .schema(Some(schema)),
        );
        self.fails(&[Kind::BadRequest])
    }

    /// The parameters of its query.
    pub fn query<T: IntoParams>(mut self) -> Self {
        let parameters: Vec<Parameter> = T::into_params(|| Some(ParameterIn::Query));
        self.built = self.built.parameters(Some(parameters));
        self.fails(&[Kind::BadRequest])
    }

    /// Its JSON body.
    pub fn body<T: ToSchema>(mut self) -> Self {
        let content = Content::new(Some(self.refer::<T>()));
        let body = RequestBodyBuilder::new()
            .content("application/json", content)
            .required(Some(Required::True));
        self.built = self.built.request_body(Some(body.build()));
        self.fails(&[Kind::BadRequest, Kind::TooLarge, Kind::NotJson])
    }

    /// The longest body, in bytes, where it is not that of all routes.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = Some(bytes);
        self
    }

    /// A success with a JSON body: its status and what it means.
    pub fn answers<T: ToSchema>(mut self, status: u16, description: &str) -> Self {
        let content = Content::new(Some(self.refer::<T>()));
        let response = ResponseBuilder::new()
            .description(description)
            .content("application/json", content);
        self.built = self.built.response(status.to_string(), response.build());
        self
    }

    /// A success without a body.
    pub fn answers_nothing(mut self, status: u16, description: &str) -> Self {
        let response = ResponseBuilder::new().description(description);
        self.built = self.built.response(status.to_string(), response.build());
        self
    }

    /// What else can be wrong, besides what follows from the rest.
    pub fn fails(mut self, kinds: &[Kind]) -> Self {
        self.fails.extend(kinds);
        self
    }

    fn refer<T: ToSchema>(&mut self) -> RefOr<Schema> {
        let mut nested = Vec::new();
        T::schemas(&mut nested);
        self.schemas.extend(nested);
        self.schemas.insert(T::name().into_owned(), T::schema());
        Ref::from_schema_name(T::name()).into()
    }

    /// One response for each status, that names the problems which have it.
    fn build(mut self) -> (utoipa::openapi::path::Operation, Schemas) {
        let mut by_status = BTreeMap::<u16, Vec<Kind>>::new();
        for kind in std::mem::take(&mut self.fails) {
            by_status.entry(kind.about().0).or_default().push(kind);
        }
        for (status, kinds) in by_status {
            let described = kinds.iter().map(|kind| {
                let (_, name, _, detail) = kind.about();
                format!("`{name}`: {detail}")
            });
            let mut response = ResponseBuilder::new()
                .description(described.collect::<Vec<_>>().join("\n\n"))
                .content(CONTENT_TYPE, Content::new(Some(self.refer::<Problem>())));
            if status == 503 {
                let retry = HeaderBuilder::new()
                    .schema(Some(u32::schema()))
                    .description(Some("After how many seconds to try again."));
                response = response.header("Retry-After", retry.build());
            }
            self.built = self.built.response(status.to_string(), response.build());
        }
        (self.built.build(), self.schemas)
    }
}

/// Routes and what is documented of them.
pub struct Routes<S> {
    router: Router<S>,
    paths: Paths,
    schemas: Schemas,
    /// Whether the operations that are added need the cluster secret.
    guarded: bool,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// Routes that anybody may call.
    pub fn open() -> Self {
        Self {
            router: Router::new(),
            paths: Paths::new(),
            schemas: Schemas::new(),
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
    pub fn add<H: Handler<T, S>, T: 'static>(mut self, mut operation: Operation, handler: H) -> Self {
        if self.guarded {
            operation.built = operation.built.security(SecurityRequirement::new(SECRET, [""; 0]));
            operation = operation.fails(&[Kind::Unauthorized, Kind::Busy, Kind::MapUnavailable, Kind::Internal]);
        }
        let (filter, path) = (filter(&operation.method), operation.path);
        let mut handler = on(filter, handler);
        if let Some(bytes) = operation.max_body {
            handler = handler.layer(DefaultBodyLimit::max(bytes));
        }
        self.router = self.router.route(path, handler);
        let method = operation.method.clone();
        let (documented, schemas) = operation.build();
        self.schemas.extend(schemas);
        self.paths.add_path_operation(path, vec![method], documented);
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
    let mut paths = Paths::new();
    let mut components = ComponentsBuilder::new().security_scheme(
        SECRET,
        SecurityScheme::Http(
            HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some("The cluster secret, which all processes of the cluster share."))
                .build(),
        ),
    );
    for routes in routes {
        paths.merge(routes.paths.clone());
        components = components.schemas_from_iter(routes.schemas.clone());
    }
    let info = InfoBuilder::new()
        .title("Signalbox orchestrator")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "The room map: which media node hosts which room, and which nodes hold a lease. Gateways, media nodes and operators call it.",
        ))
        .license(Some(LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).identifier(Some(env!("CARGO_PKG_LICENSE"))).build()));
    let document: OpenApi = OpenApiBuilder::new()
        .info(info.build())
        .paths(paths)
        .components(Some(components.build()))
        .build();
    let mut document = serde_json::to_value(document).unwrap_or_default();
    unlink(&mut document);
    document
}

/// Descriptions are the types' documentation, whose links lead nowhere outside of it: only their text is kept.
fn unlink(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                match value {
                    Value::String(text) if key == "description" => {
                        *text = text.replace("[`", "`").replace("`]", "`");
                    }
                    _ => unlink(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(unlink),
        _ => {}
    }
}
