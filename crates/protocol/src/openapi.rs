//! The form of our HTTP APIs' OpenAPI 3.1 documents: operations, the schemas that they refer to, and the problems that they may answer.
//!
//! Owns no operation: each API adds its own, together with their handlers. Only with the feature `openapi`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, HeaderBuilder, HttpMethod, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Paths,
    Ref, RefOr, Required, ResponseBuilder, Schema,
};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::problem::{CONTENT_TYPE, Problem};

/// The media type of most bodies.
const JSON: &str = "application/json";

type Schemas = BTreeMap<String, RefOr<Schema>>;

/// A problem that an operation may answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// The HTTP status.
    pub status: u16,
    /// The last part of its type, such as `token-expired`.
    pub name: String,
    /// What to do.
    pub detail: String,
}

/// What is documented of one operation.
pub struct Operation {
    method: HttpMethod,
    path: &'static str,
    built: OperationBuilder,
    schemas: Schemas,
    responses: BTreeMap<u16, ResponseBuilder>,
    failures: BTreeSet<Failure>,
    has_parameters: bool,
    has_body: bool,
    has_json_body: bool,
}

impl Operation {
    /// An operation with a stable id and a sentence. Each `{name}` of the path needs an [`Operation::path_parameter`].
    pub fn new(method: HttpMethod, path: &'static str, id: &str, summary: &str) -> Self {
        Self {
            method,
            path,
            built: OperationBuilder::new().operation_id(Some(id)).summary(Some(summary)),
            schemas: Schemas::new(),
            responses: BTreeMap::new(),
            failures: BTreeSet::new(),
            has_parameters: false,
            has_body: false,
            has_json_body: false,
        }
    }

    /// Its method.
    pub fn method(&self) -> HttpMethod {
        self.method.clone()
    }

    /// Its path, with `{name}`s.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// Whether something in its path or query can be wrong.
    pub fn has_parameters(&self) -> bool {
        self.has_parameters
    }

    /// Whether it takes a body, that can be wrong.
    pub fn has_body(&self) -> bool {
        self.has_body
    }

    /// Whether that body has to be JSON.
    pub fn has_json_body(&self) -> bool {
        self.has_json_body
    }

    /// The chapter of the document that it belongs to.
    pub fn tag(mut self, tag: &str) -> Self {
        self.built = self.built.tag(tag);
        self
    }

    /// More than a sentence, in Markdown.
    pub fn describe(mut self, text: &str) -> Self {
        self.built = self.built.description(Some(text));
        self
    }

    /// A part of its path.
    pub fn path_parameter<T: ToSchema>(self, name: &str, description: &str) -> Self {
        self.parameter::<T>(ParameterIn::Path, name, description)
    }

    /// A header that may be sent.
    pub fn header<T: ToSchema>(self, name: &str, description: &str) -> Self {
        self.parameter::<T>(ParameterIn::Header, name, description)
    }

    /// The parameters of its query.
    pub fn query<T: IntoParams>(mut self) -> Self {
        let parameters: Vec<Parameter> = T::into_params(|| Some(ParameterIn::Query));
        self.built = self.built.parameters(Some(parameters));
        self.has_parameters = true;
        self
    }

    /// Its JSON body.
    pub fn body<T: ToSchema>(self) -> Self {
        self.body_as::<T>(JSON, true)
    }

    /// Its body of a media type; not required: an empty one will do.
    pub fn body_as<T: ToSchema>(mut self, media_type: &str, required: bool) -> Self {
        let content = Content::new(Some(self.refer::<T>()));
        let body = RequestBodyBuilder::new()
            .content(media_type, content)
            .required(Some(if required { Required::True } else { Required::False }));
        self.built = self.built.request_body(Some(body.build()));
        self.has_body = true;
        self.has_json_body = media_type == JSON;
        self
    }

    /// A success with a JSON body: its status and what it means.
    pub fn answers<T: ToSchema>(self, status: u16, description: &str) -> Self {
        self.answers_as::<T>(status, description, JSON)
    }

    /// A success with a body of a media type.
    pub fn answers_as<T: ToSchema>(mut self, status: u16, description: &str, media_type: &str) -> Self {
        let content = Content::new(Some(self.refer::<T>()));
        self.respond(status, |response| {
            response.description(description).content(media_type, content)
        });
        self
    }

    /// A success without a body.
    pub fn answers_nothing(mut self, status: u16, description: &str) -> Self {
        self.respond(status, |response| response.description(description));
        self
    }

    /// A header of the answer with a status.
    pub fn answer_header(mut self, status: u16, name: &str, description: &str) -> Self {
        let header = HeaderBuilder::new()
            .schema(Some(String::schema()))
            .description(Some(description));
        self.respond(status, |response| response.header(name, header.build()));
        self
    }

    /// Who may call it: one of these schemes.
    pub fn secured(mut self, schemes: &[&str]) -> Self {
        for scheme in schemes {
            self.built = self.built.security(SecurityRequirement::new(*scheme, [""; 0]));
        }
        self
    }

    /// What can be wrong.
    pub fn fails<F: Into<Failure>>(mut self, failures: impl IntoIterator<Item = F>) -> Self {
        self.failures.extend(failures.into_iter().map(Into::into));
        self
    }

    fn parameter<T: ToSchema>(mut self, location: ParameterIn, name: &str, description: &str) -> Self {
        let required = match location {
            ParameterIn::Path => Required::True,
            _ => Required::False,
        };
        self.has_parameters |= location == ParameterIn::Path;
        let schema = self.refer::<T>();
        self.built = self.built.parameter(
            ParameterBuilder::new()
                .name(name)
                .parameter_in(location)
                .required(required)
                .description(Some(description))
                .schema(Some(schema)),
        );
        self
    }

    fn respond(&mut self, status: u16, change: impl FnOnce(ResponseBuilder) -> ResponseBuilder) {
        let response = self.responses.remove(&status).unwrap_or_default();
        self.responses.insert(status, change(response));
    }

    fn refer<T: ToSchema>(&mut self) -> RefOr<Schema> {
        let mut nested = Vec::new();
        T::schemas(&mut nested);
        self.schemas.extend(nested);
        let name = T::name();
        // A plain text or number has no name worth a reference.
        if matches!(&*name, "String" | "u32" | "u64" | "bool") {
            return T::schema();
        }
        self.schemas.insert(name.clone().into_owned(), T::schema());
        Ref::from_schema_name(name).into()
    }

    /// One response for each status, that names the problems which have it.
    fn build(mut self) -> (utoipa::openapi::path::Operation, Schemas) {
        let mut by_status = BTreeMap::<u16, Vec<Failure>>::new();
        for failure in std::mem::take(&mut self.failures) {
            by_status.entry(failure.status).or_default().push(failure);
        }
        for (status, failures) in by_status {
            let described = failures
                .iter()
                .map(|failure| format!("`{}`: {}", failure.name, failure.detail));
            let described = described.collect::<Vec<_>>().join("\n\n");
            let content = Content::new(Some(self.refer::<Problem>()));
            self.respond(status, |response| {
                response.description(described).content(CONTENT_TYPE, content)
            });
            if status == 503 {
                let retry = HeaderBuilder::new()
                    .schema(Some(u32::schema()))
                    .description(Some("After how many seconds to try again."));
                self.respond(status, |response| response.header("Retry-After", retry.build()));
            }
        }
        for (status, response) in self.responses {
            self.built = self.built.response(status.to_string(), response.build());
        }
        (self.built.build(), self.schemas)
    }
}

/// Operations that are to be described together.
#[derive(Clone, Default)]
pub struct Operations {
    paths: Paths,
    schemas: Schemas,
}

impl Operations {
    /// Adds one.
    pub fn add(&mut self, operation: Operation) {
        let (path, method) = (operation.path, operation.method());
        let (documented, schemas) = operation.build();
        self.schemas.extend(schemas);
        self.paths.add_path_operation(path, vec![method], documented);
    }

    /// Adds others.
    pub fn merge(&mut self, others: Self) {
        self.paths.merge(others.paths);
        self.schemas.extend(others.schemas);
    }
}

/// What an API's document says of the whole.
pub struct About {
    /// The API.
    pub title: &'static str,
    /// The software's version.
    pub version: &'static str,
    /// What it is for, in Markdown.
    pub description: &'static str,
    /// Its licence (SPDX).
    pub license: &'static str,
    /// Who may call it: the schemes that operations name in [`Operation::secured`].
    pub security: Vec<(&'static str, SecurityScheme)>,
}

/// The document of these operations.
pub fn document(about: About, operations: Operations) -> Value {
    let mut components = ComponentsBuilder::new().schemas_from_iter(operations.schemas);
    for (name, scheme) in about.security {
        components = components.security_scheme(name, scheme);
    }
    let license = LicenseBuilder::new()
        .name(about.license)
        .identifier(Some(about.license));
    let info = InfoBuilder::new()
        .title(about.title)
        .version(about.version)
        .description(Some(about.description))
        .license(Some(license.build()));
    let document: OpenApi = OpenApiBuilder::new()
        .info(info.build())
        .paths(operations.paths)
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
