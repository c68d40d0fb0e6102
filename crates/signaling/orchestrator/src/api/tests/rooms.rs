//! What operators ask about rooms and nodes.

use signalbox_protocol::history::{RoomEvent, RoomPlacement};
use signalbox_protocol::placement::{RoomList, RoomState};

use super::*;

async fn get<T: DeserializeOwned>(app: &Router, path: &str) -> T {
    let response = send(app, request(Method::GET, path, "")).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    decode(response).await
}

#[tokio::test]
async fn rooms_are_listed_by_name_page_by_page() {
    let app = memory().await;
    let (node, _) = registered(&app).await;
    for n in 0..5 {
        post::<Placement>(&app, "/v1/placements", json!({"room": format!("room {n}")})).await;
    }
    let (mut path, mut names, mut pages) = ("/v1/rooms?limit=2".to_owned(), Vec::new(), 0);
    loop {
        let page: RoomList = get(&app, &path).await;
        assert!(
            page.rooms
                .iter()
                .all(|room| room.node == node && room.state == RoomState::Open)
        );
        names.extend(page.rooms.iter().map(|room| room.room.to_string()));
        pages += 1;
        let Some(next) = page.next else { break };
        path = format!("/v1/rooms?limit=2&after={}", next.as_str().replace(' ', "%20"));
    }
    assert_eq!((names, pages), ((0..5).map(|n| format!("room {n}")).collect(), 3));

    let exact: RoomList = get(&app, "/v1/rooms?limit=5").await;
    assert_eq!((exact.rooms.len(), exact.next), (5, None));
    let of_node: RoomList = get(&app, &format!("/v1/rooms?node={node}")).await;
    assert_eq!(of_node.rooms.len(), 5);
    let of_another: RoomList = get(&app, &format!("/v1/rooms?node={}", NodeId::random())).await;
    assert!(of_another.rooms.is_empty());
}

#[tokio::test]
async fn a_query_that_cannot_be_right_is_400() {
    let app = memory().await;
    for query in ["limit=0", "limit=1001", "limit=x", "node=7", "after=", "sort=name"] {
        let wrong = request(Method::GET, &format!("/v1/rooms?{query}"), "");
        fails(&app, wrong, 400, "bad-request").await;
    }
}

#[tokio::test]
async fn why_a_room_is_where_it_is_can_be_asked() {
    let app = memory().await;
    let (node, epoch) = registered(&app).await;
    fails(
        &app,
        request(Method::GET, "/v1/rooms/daily/placement", ""),
        404,
        "unknown-room",
    )
    .await;
    post::<Placement>(&app, "/v1/placements", json!({"room": "daily", "region": "eu"})).await;
    let owner = json!({"node": node, "epoch": epoch, "generation": 1});
    post::<RoomClosed>(&app, "/v1/rooms/daily/close", owner).await;

    let told: RoomPlacement = get(&app, "/v1/rooms/daily/placement").await;
    assert_eq!((told.now.node, told.now.state), (node, RoomState::Closed));
    let events: Vec<RoomEvent> = told.history.iter().map(|entry| entry.event).collect();
    assert_eq!(events, [RoomEvent::Closed, RoomEvent::Placed]);
    assert!(told.history.iter().all(|entry| entry.by == "a" && entry.node == node));
    let reasons = told.history[1].reasons.as_ref().unwrap();
    assert_eq!(
        (reasons.policy, reasons.region.as_deref()),
        (Policy::TwoChoices, Some("eu"))
    );
}

async fn set_state(app: &Router, node: NodeId, state: &str) -> Response<Body> {
    let path = format!("/v1/nodes/{node}/state");
    send(app, request(Method::PUT, &path, json!({"state": state}).to_string())).await
}

#[tokio::test]
async fn a_draining_node_gets_no_new_rooms_and_keeps_those_that_it_has() {
    let app = memory().await;
    let (node, epoch) = registered(&app).await;
    let before: Placement = post(&app, "/v1/placements", json!({"room": "daily"})).await;
    assert_eq!(set_state(&app, node, "draining").await.status(), StatusCode::NO_CONTENT);
    fails(
        &app,
        request(Method::POST, "/v1/placements", r#"{"room":"weekly"}"#),
        503,
        "no-node",
    )
    .await;
    let after: Placement = post(&app, "/v1/placements", json!({"room": "daily"})).await;
    assert_eq!((after.node, after.generation), (before.node, before.generation));
    assert_eq!(set_state(&app, node, "serving").await.status(), StatusCode::NO_CONTENT);
    post::<Placement>(&app, "/v1/placements", json!({"room": "weekly"})).await;

    let put = |node: NodeId, state: &str| {
        let path = format!("/v1/nodes/{node}/state");
        request(Method::PUT, &path, json!({"state": state}).to_string())
    };
    fails(&app, put(node, "lost"), 400, "bad-request").await;
    fails(&app, put(NodeId::random(), "serving"), 404, "unknown-node").await;
    let release = request(
        Method::POST,
        &format!("/v1/nodes/{node}/release"),
        json!({"epoch": epoch}).to_string(),
    );
    assert_eq!(send(&app, release).await.status(), StatusCode::NO_CONTENT);
    fails(&app, put(node, "serving"), 409, "node-lost").await;
}

#[tokio::test]
async fn a_room_that_is_only_looked_for_stays_nowhere() {
    let app = memory().await;
    registered(&app).await;
    let looked_for = || request(Method::POST, "/v1/placements", r#"{"room":"daily","find_only":true}"#);
    fails(&app, looked_for(), 404, "unknown-room").await;
    let response = send(&app, request(Method::GET, "/v1/rooms/daily/placement", "")).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let placed: Placement = post(&app, "/v1/placements", json!({"room": "daily"})).await;
    let found: Placement = decode(send(&app, looked_for()).await).await;
    assert_eq!((found.node, found.generation), (placed.node, placed.generation));
}
