//! The OpenAPI document: valid, complete, and true.

use std::collections::BTreeSet;

use super::*;

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH];

async fn document(app: &Router) -> Value {
    let response = send(app, Request::get("/openapi.json").body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    decode(response).await
}

fn operation<'a>(document: &'a Value, method: &Method, path: &str) -> Option<&'a Value> {
    document["paths"].get(path)?.get(method.as_str().to_lowercase())
}

/// Whether a path is one of this template.
fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template
            .iter()
            .zip(&path)
            .all(|(template, part)| template.starts_with('{') || template == part)
}

/// That the document says that this request can fail like this, if it knows the request at all.
pub async fn assert_documented(app: &Router, method: &Method, path: &str, status: u16, kind: &str) {
    let document = document(app).await;
    let paths = document["paths"].as_object().unwrap();
    let Some(template) = paths.keys().find(|template| matches(template, path)) else {
        return;
    };
    let Some(operation) = operation(&document, method, template) else {
        return;
    };
    let described = operation["responses"][status.to_string()]["description"]
        .as_str()
        .unwrap_or_default();
    assert!(
        described.contains(&format!("`{kind}`")),
        "{method} {template} {status} {kind}: {described}"
    );
}

#[tokio::test]
async fn it_has_every_route_and_no_other() {
    let app = memory().await;
    let document = document(&app).await;
    // The tables of the protocol's documentation, and the probes.
    let expected = [
        "DELETE /v1/nodes/{node}/drain",
        "GET /livez",
        "GET /metrics",
        "GET /openapi.json",
        "GET /readyz",
        "GET /v1/canary",
        "GET /v1/nodes",
        "GET /v1/nodes/{node}/drain",
        "GET /v1/rooms",
        "GET /v1/rooms/{room}/placement",
        "POST /v1/nodes",
        "POST /v1/nodes/{node}/heartbeat",
        "POST /v1/nodes/{node}/release",
        "POST /v1/nodes/{node}/reports",
        "POST /v1/outcomes",
        "POST /v1/placements",
        "POST /v1/rooms/{room}/close",
        "PUT /v1/canary",
        "PUT /v1/nodes/{node}/drain",
        "PUT /v1/nodes/{node}/state",
    ];
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            documented.insert(format!("{} {path}", method.to_uppercase()));
        }
        // What is documented is routed, and what is not is not.
        let path_of_one = path
            .replace("{node}", &NodeId::random().to_string())
            .replace("{room}", "daily");
        for method in METHODS {
            let response = send(&app, request(method.clone(), &path_of_one, "")).await;
            let is_routed = response.status() != StatusCode::METHOD_NOT_ALLOWED;
            let is_documented = operation(&document, &method, path).is_some();
            assert_eq!(is_routed, is_documented, "{method} {path}");
            assert!(!is_routed || !is_unrouted(response).await, "{method} {path}");
        }
    }
    assert_eq!(documented, expected.map(str::to_owned).into());
}

async fn is_unrouted(response: Response<Body>) -> bool {
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    serde_json::from_slice(&bytes).is_ok_and(|problem: Problem| problem.kind == "urn:signalbox:problem:not-found")
}

#[tokio::test]
async fn it_is_valid() {
    let document = document(&memory().await).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let mut references = Vec::new();
    collect(&document, "$ref", &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.as_str().and_then(|text| text.strip_prefix('#')).unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
                "{path}: not unique"
            );
            assert!(operation["summary"].is_string(), "{path}");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let in_path: BTreeSet<&str> = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            let in_template = path
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            assert_eq!(in_path, in_template.collect(), "{path}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{path}");
            assert!(
                responses.values().all(|response| response["description"].is_string()),
                "{path}"
            );
            // All but the probes and the document itself need the secret.
            assert_eq!(operation["security"].is_array(), path.starts_with("/v1/"), "{path}");
        }
    }
    let mut descriptions = Vec::new();
    collect(&document, "description", &mut descriptions);
    assert!(
        descriptions
            .iter()
            .all(|text| !text.as_str().is_some_and(|text| text.contains("[`")))
    );
}

fn collect<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(entries) => {
            found.extend(entries.get(key).filter(|value| value.is_string()));
            entries.values().for_each(|value| collect(value, key, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, key, found)),
        _ => {}
    }
}

#[tokio::test]
async fn schemas_say_what_is_required_and_what_a_text_may_be() {
    let document = document(&memory().await).await;
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["PlaceRoom"]["required"], json!(["room"]));
    assert_eq!(schemas["RoomName"]["maxLength"], 256);
    assert_eq!(schemas["NodeId"]["format"], "uuid");
    let policies = schemas["Policy"]["enum"].as_array().map(Vec::len);
    assert_eq!(policies, Some(Policy::ALL.len()), "{}", schemas["Policy"]);
    assert_eq!(schemas["Problem"]["properties"]["type"]["type"], "string");
}
