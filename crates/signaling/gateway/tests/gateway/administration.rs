//! The server API: somebody administers a room, and participants look after themselves.

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use signalbox_protocol::TrackId;
use signalbox_protocol::control::{Command, ParticipantUpdate, Request, RoomCommand};
use signalbox_protocol::room::GrantsUpdate;

use crate::cluster::{Cluster, KEY_SECRET, claims, problem, sign};
use crate::fake_node::participant;

const PARTICIPANTS: &str = "/v1/rooms/daily/participants";

/// A server's token: it administers, has no identity and does not join.
fn admin(room: &str) -> String {
    let mut claims = claims(room, "");
    claims.video.room_join = false;
    claims.video.room_admin = true;
    sign(&claims, KEY_SECRET)
}

async fn send(cluster: &Cluster, token: &str, method: Method, path: &str, body: Option<Value>) -> Response {
    let mut request = cluster
        .bare(method, &format!("{PARTICIPANTS}{path}"))
        .bearer_auth(token);
    if let Some(body) = body {
        request = request.json(&body);
    }
    request.send().await.unwrap()
}

fn ann() -> String {
    crate::cluster::token("daily", "ann")
}

/// A room with ann, bob, and a hidden one.
async fn hosting() -> Cluster {
    let cluster = Cluster::start().await;
    let mut hidden = participant("PA_3", "ghost", "");
    hidden.grants.hidden = true;
    cluster
        .node
        .host([participant("PA_1", "ann", ""), participant("PA_2", "bob", ""), hidden]);
    cluster
}

fn commands(cluster: &Cluster) -> Vec<RoomCommand> {
    let requests = cluster.node.requests().into_iter();
    requests
        .filter_map(|request| match request {
            Request::Administer { command, .. } => Some(command),
            _ => None,
        })
        .collect()
}

fn identities(view: &Value) -> Vec<&str> {
    let participants = view["participants"].as_array().unwrap();
    participants
        .iter()
        .map(|one| one["identity"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn an_administrator_sees_everyone_and_a_participant_who_is_not_hidden() {
    let cluster = hosting().await;
    let view: Value = send(&cluster, &admin("daily"), Method::GET, "", None)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(identities(&view), ["ann", "bob", "ghost"]);
    assert_eq!(view["room"]["name"], "daily");
    let view: Value = send(&cluster, &ann(), Method::GET, "", None)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(identities(&view), ["ann", "bob"]);
    for name in ["PA_2", "bob"] {
        for token in [admin("daily"), ann()] {
            let response = send(&cluster, &token, Method::GET, &format!("/{name}"), None).await;
            assert_eq!(response.json::<Value>().await.unwrap()["id"], "PA_2");
        }
    }
    assert_eq!(
        send(&cluster, &admin("daily"), Method::GET, "/ghost", None)
            .await
            .status(),
        200
    );
    assert_eq!(
        problem(send(&cluster, &ann(), Method::GET, "/ghost", None).await)
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn who_is_not_in_the_room_and_does_not_administer_it_sees_nothing() {
    let cluster = hosting().await;
    let eve = crate::cluster::token("daily", "eve");
    for (token, path) in [
        (&eve, ""),
        (&eve, "/ann"),
        (&admin("weekly"), ""),
        (&admin("weekly"), "/ann"),
    ] {
        assert_eq!(
            problem(send(&cluster, token, Method::GET, path, None).await).await.0,
            403,
            "{path}"
        );
    }
    let mut neither = claims("daily", "ann");
    neither.video.room_join = false;
    let neither = sign(&neither, KEY_SECRET);
    assert_eq!(
        problem(send(&cluster, &neither, Method::GET, "", None).await).await.0,
        403
    );
    assert_eq!(
        problem(send(&cluster, &neither, Method::DELETE, "/bob", None).await)
            .await
            .0,
        403
    );
}

#[tokio::test]
async fn a_room_that_does_not_exist_is_404_and_not_placed() {
    let cluster = Cluster::start().await;
    cluster.orchestrator.know_nothing();
    for (method, path, body) in [
        (Method::GET, "", None),
        (Method::GET, "/ann", None),
        (Method::PATCH, "/ann", Some(json!({"name": "Ann"}))),
        (Method::DELETE, "/ann", None),
        (Method::PATCH, "/ann/tracks/TR_a", Some(json!({"muted": true}))),
        (Method::DELETE, "/ann/tracks/TR_a", None),
    ] {
        let response = send(&cluster, &admin("daily"), method.clone(), path, body).await;
        let (status, kind, _) = problem(response).await;
        assert_eq!((status, kind.as_str()), (404, "room-not-found"), "{method} {path}");
    }
    let patch = cluster
        .bare(Method::PATCH, "/v1/rooms/daily")
        .bearer_auth(admin("daily"));
    let response = patch.json(&json!({"metadata": "x"})).send().await.unwrap();
    assert_eq!(problem(response).await.1, "room-not-found");
    // Nor is it for a participant's own commands.
    let leave = send(&cluster, &ann(), Method::DELETE, "/PA_1", None).await;
    assert_eq!(problem(leave).await.1, "participant-not-found");
    assert!(cluster.orchestrator.requests().iter().all(|request| request.find_only));
    assert!(cluster.node.requests().is_empty());
    // Who joins is not answered by what was found before.
    cluster.join().await;
}

#[tokio::test]
async fn a_room_that_the_node_does_not_have_is_404() {
    let cluster = Cluster::start().await;
    let (status, kind, _) = problem(send(&cluster, &admin("daily"), Method::GET, "", None).await).await;
    assert_eq!((status, kind.as_str()), (404, "room-not-found"));
}

#[tokio::test]
async fn an_administrator_changes_mutes_and_removes_others() {
    let cluster = hosting().await;
    let admin = admin("daily");
    let body = json!({"name": "Bob", "attributes": {"hand": "up"}, "grants": {"publish": false}});
    let response = send(&cluster, &admin, Method::PATCH, "/bob", Some(body)).await;
    assert_eq!(response.json::<Value>().await.unwrap()["name"], "Bob");
    let mute = Some(json!({"muted": true}));
    let response = send(&cluster, &admin, Method::PATCH, "/PA_2/tracks/TR_a", mute).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let response = send(&cluster, &admin, Method::DELETE, "/PA_2/tracks/TR_a", None).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let response = send(&cluster, &admin, Method::DELETE, "/bob", None).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let update = ParticipantUpdate {
        name: Some("Bob".into()),
        metadata: None,
        attributes: [("hand".to_owned(), "up".to_owned())].into(),
        grants: Some(GrantsUpdate {
            publish: Some(false),
            ..GrantsUpdate::default()
        }),
    };
    let (id, bob, track) = (|| "PA_2".to_owned(), || "bob".to_owned(), TrackId::new("TR_a"));
    let expected = [
        RoomCommand::Update {
            participant: bob(),
            update: Box::new(update),
        },
        RoomCommand::Mute {
            participant: id(),
            track: track.clone(),
            muted: true,
        },
        RoomCommand::Unpublish {
            participant: id(),
            track,
        },
        RoomCommand::Remove { participant: bob() },
    ];
    assert_eq!(commands(&cluster), expected);
    assert_eq!(
        problem(send(&cluster, &admin, Method::DELETE, "/nobody", None).await)
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn an_administrator_sets_the_rooms_metadata_and_a_participant_does_not() {
    let cluster = hosting().await;
    let patch = async |token: &str, body: Value| {
        let request = cluster.bare(Method::PATCH, "/v1/rooms/daily").bearer_auth(token);
        request.json(&body).send().await.unwrap()
    };
    for text in ["topic", ""] {
        let response = patch(&admin("daily"), json!({ "metadata": text })).await;
        assert_eq!(response.status(), StatusCode::OK);
        let room: Value = response.json().await.unwrap();
        assert_eq!((&room["name"], &room["metadata"]), (&json!("daily"), &json!(text)));
    }
    let metadata = |text: &str| RoomCommand::SetMetadata { metadata: text.into() };
    assert_eq!(commands(&cluster), [metadata("topic"), metadata("")]);
    for token in [ann(), admin("weekly")] {
        assert_eq!(problem(patch(&token, json!({"metadata": "x"})).await).await.0, 403);
    }
    for body in [json!({}), json!({"metadata": 1}), json!({"metadata": "x", "name": "y"})] {
        let (status, kind, _) = problem(patch(&admin("daily"), body.clone()).await).await;
        assert_eq!((status, kind.as_str()), (400, "invalid-body"), "{body}");
    }
    let long = json!({"metadata": "x".repeat(64 * 1024)});
    assert_eq!(problem(patch(&admin("daily"), long).await).await.0, 413);
    assert_eq!(commands(&cluster).len(), 2);
}

#[tokio::test]
async fn nobody_unmutes_another() {
    let cluster = hosting().await;
    let mut both = claims("daily", "ann");
    both.video.room_admin = true;
    let both = sign(&both, KEY_SECRET);
    let unmute = || Some(json!({"muted": false}));
    for (token, path) in [(&admin("daily"), "/PA_1/tracks/TR_a"), (&both, "/bob/tracks/TR_a")] {
        assert_eq!(
            problem(send(&cluster, token, Method::PATCH, path, unmute()).await)
                .await
                .0,
            403
        );
    }
    let response = send(&cluster, &both, Method::PATCH, "/ann/tracks/TR_a", unmute()).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let track = TrackId::new("TR_a");
    cluster
        .node
        .saw_command("PA_1", Command::Mute { track, muted: false })
        .await;
}

#[tokio::test]
async fn a_participant_changes_and_leaves_by_its_id_or_its_identity() {
    let cluster = hosting().await;
    let name = Some("Ann".to_owned());
    for path in ["/PA_1", "/ann"] {
        let response = send(&cluster, &ann(), Method::PATCH, path, Some(json!({"name": "Ann"}))).await;
        assert_eq!(response.json::<Value>().await.unwrap()["identity"], "ann");
    }
    let update = Command::Update {
        name,
        metadata: None,
        attributes: Default::default(),
    };
    cluster.node.saw_command("PA_1", update).await;
    let grants = Some(json!({"grants": {"publish": true}}));
    assert_eq!(
        problem(send(&cluster, &ann(), Method::PATCH, "/ann", grants).await)
            .await
            .0,
        403
    );
    let response = send(&cluster, &ann(), Method::DELETE, "/ann", None).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    cluster.node.saw_command("PA_1", Command::Leave).await;
}

#[tokio::test]
async fn an_update_that_says_nothing_or_nonsense_is_refused() {
    let cluster = hosting().await;
    for body in [
        json!({}),
        json!({"nmae": "x"}),
        json!({"grants": {"fly": true}}),
        json!({"name": "a\nb"}),
        json!({"name": "x".repeat(257)}),
    ] {
        let response = send(&cluster, &admin("daily"), Method::PATCH, "/ann", Some(body.clone())).await;
        assert_eq!(problem(response).await.0, 400, "{body}");
    }
}
