//! How connections end, and what ends only one.

use livekit_protocol as lk;
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use signalbox_protocol::control::{CloseReason, Command, Event, RefusalReason};
use tokio_tungstenite::tungstenite::Message;

use crate::client::Client;
use crate::cluster::{Cluster, token};

async fn joined(cluster: &Cluster, identity: &str) -> Client {
    let mut client = Client::connect(cluster.address, &token(identity), "").await;
    assert!(matches!(client.next().await, Response::Join(_)));
    client
}

async fn is_alive(client: &mut Client) {
    client.send(Request::PingReq(lk::Ping::default())).await;
    assert!(matches!(client.next().await, Response::PongResp(_)));
}

async fn told_to_leave(client: &mut Client) -> (lk::DisconnectReason, Action) {
    match client.next().await {
        Response::Leave(leave) => (leave.reason(), leave.action()),
        message => panic!("{message:?} is no leave"),
    }
}

#[tokio::test]
async fn garbage_closes_only_the_connection_that_it_came_on() {
    let mut cluster = Cluster::start().await;
    let mut bob = joined(&cluster, "bob").await;
    for garbage in [Message::binary(vec![0xff; 64]), Message::text("{nonsense")] {
        let mut ann = joined(&cluster, "ann").await;
        ann.send_raw(garbage).await;
        assert_eq!(ann.closed().await, 1007);
        assert_eq!(cluster.node.asked().await, Command::Detach);
    }
    is_alive(&mut bob).await;
}

#[tokio::test]
async fn an_overlong_message_closes_only_its_connection() {
    let mut cluster = Cluster::start().await;
    let mut bob = joined(&cluster, "bob").await;
    let ann = joined(&cluster, "ann").await;
    let message = Message::binary(vec![0; 2 * 1024 * 1024 + 1]);
    assert_eq!(ann.closed_while_sending(message).await, 1009);
    assert_eq!(cluster.node.asked().await, Command::Detach);
    is_alive(&mut bob).await;
}

#[tokio::test]
async fn a_client_that_leaves_leaves_the_room() {
    let mut cluster = Cluster::start().await;
    let mut ann = joined(&cluster, "ann").await;
    ann.send(Request::Leave(lk::LeaveRequest::default())).await;
    assert_eq!(cluster.node.asked().await, Command::Leave);
    assert_eq!(ann.closed().await, 1000);
}

#[tokio::test]
async fn a_closed_participant_is_told_what_to_do() {
    use lk::DisconnectReason as Reason;
    let cluster = Cluster::start().await;
    for (reason, told, action) in [
        (
            CloseReason::DuplicateIdentity,
            Reason::DuplicateIdentity,
            Action::Disconnect,
        ),
        (CloseReason::RoomClosed, Reason::RoomDeleted, Action::Disconnect),
        (CloseReason::NodeGone, Reason::ServerShutdown, Action::Reconnect),
    ] {
        let mut ann = joined(&cluster, "ann").await;
        cluster.node.tell("PA_ann", Event::Closed { reason });
        assert_eq!(told_to_leave(&mut ann).await, (told, action));
        assert_eq!(ann.closed().await, 1000);
    }
}

#[tokio::test]
async fn a_gateway_that_stops_sends_its_clients_elsewhere() {
    let mut cluster = Cluster::start().await;
    let mut ann = joined(&cluster, "ann").await;
    cluster.shutdown.cancel();
    assert_eq!(told_to_leave(&mut ann).await.1, Action::Resume);
    assert_eq!(ann.closed().await, 1012);
    assert_eq!(cluster.node.asked().await, Command::Detach);
    let path = format!("/rtc?access_token={}", token("bob"));
    assert!(matches!(
        Client::try_connect(cluster.address, &path).await,
        Err((503, _))
    ));
}

#[tokio::test]
async fn a_broken_link_is_mended_without_the_client_losing_more_than_events() {
    let mut cluster = Cluster::start().await;
    let mut ann = joined(&cluster, "ann").await;
    cluster.node.tell(
        "PA_ann",
        Event::ParticipantJoined {
            participant: crate::cluster::bob(),
        },
    );
    assert!(matches!(ann.next().await, Response::Update(_)));
    cluster.node.hang_up();
    let Response::Update(update) = ann.next().await else {
        panic!("the participants are not told anew");
    };
    let mut told: Vec<_> = update
        .participants
        .iter()
        .map(|p| (p.identity.as_str(), p.state()))
        .collect();
    told.sort_by_key(|(identity, _)| *identity);
    use lk::participant_info::State;
    assert_eq!(told, [("ann", State::Joined), ("bob", State::Disconnected)]);
    assert!(matches!(ann.next().await, Response::RoomUpdate(_)));
    assert_eq!(cluster.node.asked().await, Command::RestartIce);
    is_alive(&mut ann).await;
}

#[tokio::test]
async fn a_participant_that_a_broken_link_took_along_joins_anew() {
    let cluster = Cluster::start().await;
    let mut ann = joined(&cluster, "ann").await;
    cluster.node.forget("PA_ann");
    cluster.node.hang_up();
    assert_eq!(
        told_to_leave(&mut ann).await,
        (lk::DisconnectReason::StateMismatch, Action::Reconnect)
    );
    assert_eq!(ann.closed().await, 1000);
}

#[tokio::test]
async fn an_offer_that_the_node_cannot_use_leads_to_new_peer_connections() {
    let cluster = Cluster::start().await;
    let mut ann = joined(&cluster, "ann").await;
    cluster.node.refuse(RefusalReason::Sdp);
    ann.send(Request::Offer(lk::SessionDescription::default())).await;
    assert_eq!(told_to_leave(&mut ann).await.1, Action::Reconnect);
}

#[tokio::test]
async fn a_client_that_resumes_twice_is_served_on_its_newest_connection() {
    let cluster = Cluster::start().await;
    let mut old = joined(&cluster, "ann").await;
    let mut new = Client::connect(cluster.address, &token("ann"), "&reconnect=1&sid=PA_ann").await;
    assert!(matches!(new.next().await, Response::Reconnect(_)));
    assert_eq!(old.closed().await, 1000);
    assert!(matches!(new.next().await, Response::Update(_)));
    assert!(matches!(new.next().await, Response::RoomUpdate(_)));
    is_alive(&mut new).await;
}
