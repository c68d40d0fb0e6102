//! The OpenAPI document: valid, complete, and true.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::fake_node::participant;

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH];

async fn document(cluster: &Cluster) -> Value {
    let response = cluster.bare(Method::GET, "/openapi.json").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    response.json().await.unwrap()
}

fn collect<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(entries) => {
            found.extend(entries.get(key).and_then(Value::as_str));
            entries.values().for_each(|value| collect(value, key, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, key, found)),
        _ => {}
    }
}

#[tokio::test]
async fn what_is_documented_is_routed_and_what_is_not_is_not() {
    let cluster = Cluster::start_with(&["--guests"]).await;
    cluster.node.host([participant("PA_1", "ann", "")]);
    let document = document(&cluster).await;
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let one = path
            .replace("{room}", "daily")
            .replace("{participant}", "PA_1")
            .replace("{track}", "TR_1");
        for method in METHODS {
            let name = method.as_str().to_lowercase();
            // Without a token, so that nothing happens.
            let response = cluster.bare(method.clone(), &one).send().await.unwrap();
            let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
            assert_eq!(status != 405, item.get(&name).is_some(), "{method} {path}: {status}");
            assert!(!text.contains("problem:not-found"), "{method} {path}");
            if let Some(operation) = item.get(&name) {
                documented.insert(format!("{method} {path}"));
                assert!(
                    operation["responses"].get(status.to_string()).is_some(),
                    "{method} {path}: {status}"
                );
            }
        }
    }
    // The table of the dialect's own documentation.
    for expected in [
        "DELETE /v1/rooms/{room}/participants/{participant}",
        "DELETE /v1/rooms/{room}/participants/{participant}/tracks/{track}",
        "GET /livez",
        "GET /openapi.json",
        "GET /readyz",
        "GET /v1/rooms/{room}/participants",
        "GET /v1/rooms/{room}/participants/{participant}",
        "GET /v1/rooms/{room}/participants/{participant}/events",
        "PATCH /v1/rooms/{room}",
        "PATCH /v1/rooms/{room}/participants/{participant}",
        "PATCH /v1/rooms/{room}/participants/{participant}/subscriptions/{track}",
        "PATCH /v1/rooms/{room}/participants/{participant}/tracks/{track}",
        "POST /v1/guest-tokens",
        "DELETE /v1/rooms/{room}/whip/{session}",
        "PATCH /v1/rooms/{room}/whep/{session}",
        "POST /v1/rooms/{room}/join",
        "POST /v1/rooms/{room}/whep",
        "POST /v1/rooms/{room}/whip",
        "POST /v1/rooms/{room}/participants/{participant}/offer",
    ] {
        assert!(
            documented.contains(expected),
            "{expected} is not documented: {documented:?}"
        );
    }
}

#[tokio::test]
async fn it_is_valid() {
    let cluster = Cluster::start().await;
    let document = document(&cluster).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut references = Vec::new();
    collect(&document, "$ref", &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let mut ids = Vec::new();
    collect(&document["paths"], "operationId", &mut ids);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let in_path: BTreeSet<&str> = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            let segments = path.split('/');
            let in_template = segments.filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            assert_eq!(in_path, in_template.collect(), "{path}");
            assert!(
                operation["summary"].is_string() && operation["tags"].is_array(),
                "{path}"
            );
            // A session's URL is what opens it, and an endpoint shows nothing.
            let is_whip = path.contains("/whip") || path.contains("/whep");
            let is_guarded = path.starts_with("/v1/rooms/") && (!is_whip || method == "post");
            assert_eq!(operation["security"].is_array(), is_guarded, "{path}");
        }
    }
    let mut descriptions = Vec::new();
    collect(&document, "description", &mut descriptions);
    assert!(
        descriptions.iter().all(|text| !text.contains("[`")),
        "a link that leads nowhere"
    );
}

#[tokio::test]
async fn schemas_say_what_is_required() {
    let cluster = Cluster::start().await;
    let document = document(&cluster).await;
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["TrackUpdate"]["required"], serde_json::json!(["muted"]));
    assert_eq!(schemas["RoomName"]["maxLength"], 256);
    assert!(
        schemas["JoinRequest"]["required"].is_null(),
        "{}",
        schemas["JoinRequest"]
    );
    // What other dialects say of a track would be refused.
    let track = schemas["PublishTrack"]["properties"].as_object().unwrap();
    for other in ["backup_codec", "encoding_of", "dialect_info"] {
        assert!(!track.contains_key(other), "{other}");
    }
    let told = schemas["Told"]["oneOf"].as_array().unwrap();
    assert_eq!(told.len(), 19, "the kinds of messages");
}

#[tokio::test]
async fn it_is_shown_to_people() {
    let cluster = Cluster::start().await;
    for (path, media_type) in [
        ("/docs", "text/html; charset=utf-8"),
        ("/docs.js", "text/javascript; charset=utf-8"),
        ("/docs.css", "text/css; charset=utf-8"),
    ] {
        let response = cluster.bare(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], media_type);
        let text = response.text().await.unwrap();
        assert!(
            !text.contains("https://") && !text.contains("http://"),
            "{path} loads something from elsewhere"
        );
    }
}
