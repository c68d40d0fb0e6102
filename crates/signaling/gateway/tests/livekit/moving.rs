//! Clients whose node is lost, or hands their room over.

use std::time::Duration;

use livekit_protocol as lk;
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use signalbox_protocol::TrackId;
use signalbox_protocol::control::{
    Agreed, ChannelInfo, Command, Event, RefusalReason, Resumption, ResumptionChange, SaidTrack, Target, Transports,
};
use signalbox_protocol::room::{Kind, PublishTrack, Source};
use tokio::time::timeout;

use crate::client::Client;
use crate::cluster::{Cluster, Node, bob, token, tunnel};

fn resumption() -> Resumption {
    Resumption {
        transports: Transports::Dual,
        auto_subscribe: true,
        never_pause: false,
        tracks: Vec::new(),
        wants: Vec::new(),
        subscriber: None,
        channels: Vec::new(),
    }
}

fn offer(sdp: &str) -> lk::SessionDescription {
    lk::SessionDescription {
        r#type: "offer".into(),
        sdp: sdp.into(),
        ..lk::SessionDescription::default()
    }
}

async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.node.keep(resumption());
    cluster
}

async fn next_node(cluster: &Cluster) -> Node {
    let node = cluster.next_node().await;
    node.keep(resumption());
    node
}

async fn joined(cluster: &mut Cluster, query: &str) -> Client {
    let mut client = Client::connect(cluster.address, &token("ann"), query).await;
    assert!(matches!(client.next().await, Response::Join(_)));
    assert_eq!(cluster.node.joined().await.0.identity.as_str(), "ann");
    client
}

/// The client publishes a camera from now on.
fn publishes(cluster: &Cluster) {
    let track = Box::new(SaidTrack {
        id: TrackId::new("TR_cam"),
        said: PublishTrack::new("cam", Kind::Video, Source::Camera),
        mid: "1".into(),
        streams: Vec::new(),
    });
    let change = ResumptionChange::Track { track };
    cluster.node.tell("PA_ann", Event::Resumable { change });
}

/// The client's subscriber connection has come to this.
async fn agrees(cluster: &mut Cluster, client: &mut Client) -> Agreed {
    let (id, sdp) = (3, "the node's offer".to_owned());
    cluster.node.tell("PA_ann", Event::Offer { id, sdp });
    assert!(matches!(client.next().await, Response::Offer(_)));
    let answer = lk::SessionDescription {
        r#type: "answer".into(),
        sdp: "the client's answer".into(),
        id,
        ..lk::SessionDescription::default()
    };
    client.send(Request::Answer(answer)).await;
    assert!(matches!(cluster.node.asked().await, Command::Answer { id: 3, .. }));
    Agreed {
        id,
        offer: "the node's offer".into(),
        answer: "the client's answer".into(),
    }
}

/// The client is told how all is, and of nobody that he is gone.
async fn refreshed(client: &mut Client) {
    let Response::Update(update) = client.next().await else {
        panic!("the participants are not told anew");
    };
    let gone = lk::participant_info::State::Disconnected;
    assert!(update.participants.iter().all(|one| one.state() != gone), "{update:?}");
    assert!(matches!(client.next().await, Response::RoomUpdate(_)));
}

async fn asked_to_offer(client: &mut Client) {
    let wanted = lk::MediaSectionsRequirement::default();
    assert_eq!(client.next().await, Response::MediaSectionsRequirement(wanted));
}

async fn told_to_leave(client: &mut Client) -> Action {
    match client.next().await {
        Response::Leave(leave) => leave.action(),
        message => panic!("{message:?} is no leave"),
    }
}

#[tokio::test]
async fn a_client_whose_node_is_lost_is_taken_up_at_the_next_and_offers_on_the_same_websocket() {
    let mut cluster = cluster().await;
    let mut ann = joined(&mut cluster, "").await;
    cluster
        .node
        .tell("PA_ann", Event::ParticipantJoined { participant: bob() });
    assert!(matches!(ann.next().await, Response::Update(_)));
    publishes(&cluster);
    let agreed = agrees(&mut cluster, &mut ann).await;

    let mut next = next_node(&cluster).await;
    cluster.node.hang_up();
    refreshed(&mut ann).await;
    asked_to_offer(&mut ann).await;
    let (join, expected) = next.joined().await;
    let mut ids: Vec<_> = expected.iter().map(|one| one.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["PA_ann", "PA_bob"]);
    let resume = join.resume.unwrap();
    assert_eq!(resume.participant.id.as_str(), "PA_ann");
    assert_eq!(resume.kept.subscriber, Some(agreed));
    assert_eq!(resume.kept.tracks[0].mid, "1");
    assert_eq!(join.transports, Transports::Dual);

    next.tell(
        "PA_ann",
        Event::Offer {
            id: 4,
            sdp: "the next node's offer".into(),
        },
    );
    assert!(matches!(ann.next().await, Response::Offer(offer) if offer.id == 4));
    ann.send(Request::Offer(offer("anew"))).await;
    assert_eq!(next.asked().await, Command::Offer { sdp: "anew".into() });
    assert!(matches!(ann.next().await, Response::Answer(answer) if answer.sdp == "answer to anew"));
}

#[tokio::test]
async fn a_client_that_only_receives_is_not_asked_to_offer() {
    let mut cluster = cluster().await;
    let mut ann = joined(&mut cluster, "").await;
    agrees(&mut cluster, &mut ann).await;
    let _next = next_node(&cluster).await;
    cluster.node.hang_up();
    refreshed(&mut ann).await;
    ann.send(Request::PingReq(lk::Ping::default())).await;
    assert!(matches!(ann.next().await, Response::PongResp(_)));
}

#[tokio::test]
async fn a_client_with_data_channels_of_its_own_is_asked_to_offer() {
    let mut cluster = cluster().await;
    let mut ann = joined(&mut cluster, "").await;
    let channels = vec![ChannelInfo {
        target: Target::Publisher,
        label: "_reliable".into(),
        id: 0,
    }];
    let change = ResumptionChange::Channels { channels };
    cluster.node.tell("PA_ann", Event::Resumable { change });
    agrees(&mut cluster, &mut ann).await;
    let _next = next_node(&cluster).await;
    cluster.node.hang_up();
    refreshed(&mut ann).await;
    asked_to_offer(&mut ann).await;
}

#[tokio::test]
async fn a_client_that_does_not_offer_is_told_to_resume() {
    let mut cluster = cluster().await;
    let mut ann = joined(&mut cluster, "").await;
    publishes(&cluster);
    agrees(&mut cluster, &mut ann).await;
    let mut next = next_node(&cluster).await;
    cluster.node.hang_up();
    refreshed(&mut ann).await;
    asked_to_offer(&mut ann).await;
    assert_eq!(told_to_leave(&mut ann).await, Action::Resume);
    // Its participant waits for it there.
    next.joined().await;
    assert_eq!(next.asked().await, Command::Detach);
    let mut again = Client::connect(cluster.address, &token("ann"), "&reconnect=1&sid=PA_ann").await;
    assert!(matches!(again.next().await, Response::Reconnect(_)));
}

#[tokio::test]
async fn a_client_whose_offer_does_not_bring_its_connection_up_is_told_to_resume() {
    for is_up in [false, true] {
        let mut cluster = cluster().await;
        let mut ann = joined(&mut cluster, "").await;
        publishes(&cluster);
        agrees(&mut cluster, &mut ann).await;
        let mut next = next_node(&cluster).await;
        cluster.node.hang_up();
        refreshed(&mut ann).await;
        asked_to_offer(&mut ann).await;
        next.joined().await;
        ann.send(Request::Offer(offer("anew"))).await;
        assert_eq!(next.asked().await, Command::Offer { sdp: "anew".into() });
        assert!(matches!(ann.next().await, Response::Answer(_)));
        if is_up {
            let target = Target::Publisher;
            next.tell("PA_ann", Event::Connected { target });
            assert!(timeout(Duration::from_secs(2), ann.next()).await.is_err());
        } else {
            assert_eq!(told_to_leave(&mut ann).await, Action::Resume);
        }
    }
}

#[tokio::test]
async fn a_client_that_is_sent_to_an_address_where_it_was_lately_is_told_to_resume() {
    let mut cluster = cluster().await;
    let mut ann = joined(&mut cluster, "").await;
    publishes(&cluster);
    agrees(&mut cluster, &mut ann).await;
    let next = next_node(&cluster).await;
    next.takes_the_place_of(&cluster.node);
    cluster.node.hang_up();
    refreshed(&mut ann).await;
    assert_eq!(told_to_leave(&mut ann).await, Action::Resume);
}

#[tokio::test]
async fn a_client_that_does_not_begin_dtls_anew_is_told_to_reconnect() {
    let mut cluster = cluster().await;
    let mut ann = joined(&mut cluster, "").await;
    agrees(&mut cluster, &mut ann).await;
    let next = next_node(&cluster).await;
    cluster.node.hang_up();
    refreshed(&mut ann).await;
    let target = Target::Subscriber;
    next.tell("PA_ann", Event::MoveStalled { target });
    assert_eq!(told_to_leave(&mut ann).await, Action::Reconnect);
}

#[tokio::test]
async fn firefox_is_told_to_reconnect_when_its_room_is_elsewhere() {
    let mut cluster = cluster().await;
    let mut ann = joined(&mut cluster, "&browser=Firefox").await;
    agrees(&mut cluster, &mut ann).await;
    let mut next = next_node(&cluster).await;
    cluster.node.hang_up();
    assert_eq!(told_to_leave(&mut ann).await, Action::Reconnect);
    assert!(matches!(
        next.request().await,
        signalbox_protocol::control::Request::Expect { .. }
    ));
    assert!(next.is_idle(), "nobody takes its participant up but itself");
}

#[tokio::test]
async fn an_offer_that_the_lost_node_did_not_answer_is_asked_again_and_no_other_is_wanted() {
    let mut cluster = cluster().await;
    let mut ann = joined(&mut cluster, "").await;
    publishes(&cluster);
    agrees(&mut cluster, &mut ann).await;
    cluster.node.fall_mute();
    let mute = Request::Mute(lk::MuteTrackRequest {
        sid: "TR_cam".into(),
        muted: true,
    });
    ann.send(mute).await;
    ann.send(Request::Offer(offer("under way"))).await;
    assert!(matches!(cluster.node.asked().await, Command::Mute { .. }));
    assert!(matches!(cluster.node.asked().await, Command::Offer { .. }));
    let mut next = next_node(&cluster).await;
    cluster.node.hang_up();
    refreshed(&mut ann).await;
    assert!(matches!(ann.next().await, Response::Answer(answer) if answer.sdp == "answer to under way"));
    assert!(matches!(next.asked().await, Command::Mute { .. }), "in their order");
    assert!(matches!(next.asked().await, Command::Offer { .. }));
}

#[tokio::test]
async fn an_answer_that_comes_while_the_node_is_lost_is_what_the_next_node_goes_on_from() {
    let mut cluster = cluster().await;
    let mut ann = joined(&mut cluster, "").await;
    agrees(&mut cluster, &mut ann).await;
    let sdp = "the node's last offer".to_owned();
    cluster.node.tell("PA_ann", Event::Offer { id: 4, sdp });
    assert!(matches!(ann.next().await, Response::Offer(_)));
    let mut next = next_node(&cluster).await;
    cluster.node.hang_up();
    let answer = lk::SessionDescription {
        r#type: "answer".into(),
        sdp: "the client's last answer".into(),
        id: 4,
        ..lk::SessionDescription::default()
    };
    ann.send(Request::Answer(answer)).await;
    refreshed(&mut ann).await;
    let (join, _) = next.joined().await;
    let agreed = join.resume.unwrap().kept.subscriber.unwrap();
    assert_eq!((agreed.id, agreed.answer.as_str()), (4, "the client's last answer"));
    ann.send(Request::PingReq(lk::Ping::default())).await;
    assert!(matches!(ann.next().await, Response::PongResp(_)));
    assert!(next.is_idle(), "the answer is to another node's offer");
}

#[tokio::test]
async fn a_room_that_is_handed_over_keeps_its_old_node_until_all_connections_are_up_at_the_new_one() {
    let mut cluster = cluster().await;
    let mut ann = joined(&mut cluster, "").await;
    publishes(&cluster);
    agrees(&mut cluster, &mut ann).await;
    let mut next = next_node(&cluster).await;
    let to = Box::new(cluster.placement());
    let within_ms = 60_000;
    cluster.node.tell("PA_ann", Event::Moving { to, within_ms });
    assert_eq!(cluster.node.asked().await, Command::OpenTunnels);
    refreshed(&mut ann).await;
    asked_to_offer(&mut ann).await;
    let (join, _) = next.joined().await;
    assert_eq!(join.resume.unwrap().tunnels, [tunnel()]);
    ann.send(Request::Offer(offer("anew"))).await;
    assert!(matches!(next.asked().await, Command::Offer { .. }));
    assert!(matches!(ann.next().await, Response::Answer(_)));
    for target in [Target::Publisher, Target::Subscriber] {
        assert!(cluster.node.is_idle(), "it is still needed");
        next.tell("PA_ann", Event::Connected { target });
    }
    assert_eq!(cluster.node.asked().await, Command::Moved);
    // What the old node says in the end is not told.
    let reason = signalbox_protocol::control::CloseReason::NodeGone;
    cluster.node.tell("PA_ann", Event::Closed { reason });
    ann.send(Request::PingReq(lk::Ping::default())).await;
    assert!(matches!(ann.next().await, Response::PongResp(_)));
}

#[tokio::test]
async fn what_a_client_wants_while_it_is_taken_up_is_asked_of_the_new_node() {
    let mut cluster = cluster().await;
    let mut ann = joined(&mut cluster, "").await;
    agrees(&mut cluster, &mut ann).await;
    let target = next_node(&cluster).await;
    let to = Box::new(cluster.placement());
    // The new node dies while it takes the room.
    target.fall_mute();
    cluster.node.tell("PA_ann", Event::Moving { to, within_ms: 60_000 });
    let mut target = target;
    assert!(matches!(
        target.request().await,
        signalbox_protocol::control::Request::Expect { .. }
    ));
    ann.send(Request::Offer(offer("meanwhile"))).await;
    let mut last = next_node(&cluster).await;
    target.hang_up();
    refreshed(&mut ann).await;
    last.joined().await;
    assert_eq!(
        last.asked().await,
        Command::Offer {
            sdp: "meanwhile".into()
        }
    );
    assert!(matches!(ann.next().await, Response::Answer(_)));
}

#[tokio::test]
async fn a_participant_that_the_next_node_does_not_take_joins_anew() {
    let mut cluster = cluster().await;
    let mut ann = joined(&mut cluster, "").await;
    agrees(&mut cluster, &mut ann).await;
    let next = next_node(&cluster).await;
    next.refuse_joins(RefusalReason::Invalid);
    cluster.node.hang_up();
    assert_eq!(told_to_leave(&mut ann).await, Action::Reconnect);
}

#[tokio::test]
async fn firefox_is_told_to_reconnect_when_its_room_is_handed_over() {
    let mut cluster = cluster().await;
    let mut ann = joined(&mut cluster, "&browser=firefox").await;
    let _next = next_node(&cluster).await;
    let to = Box::new(cluster.placement());
    cluster.node.tell("PA_ann", Event::Moving { to, within_ms: 60_000 });
    assert_eq!(told_to_leave(&mut ann).await, Action::Reconnect);
    assert_eq!(cluster.node.asked().await, Command::Moved);
}

#[tokio::test]
async fn the_old_nodes_offers_are_not_told_once_it_hands_the_room_over() {
    let mut cluster = cluster().await;
    let mut ann = joined(&mut cluster, "").await;
    agrees(&mut cluster, &mut ann).await;
    let mut next = next_node(&cluster).await;
    let to = Box::new(cluster.placement());
    cluster.node.tell("PA_ann", Event::Moving { to, within_ms: 60_000 });
    let sdp = "too late".to_owned();
    cluster.node.tell("PA_ann", Event::Offer { id: 4, sdp });
    refreshed(&mut ann).await;
    let (join, _) = next.joined().await;
    assert_eq!(join.resume.unwrap().kept.subscriber.unwrap().id, 3);
    let sdp = "the next node's".to_owned();
    next.tell("PA_ann", Event::Offer { id: 4, sdp });
    assert!(matches!(ann.next().await, Response::Offer(offer) if offer.sdp == "the next node's"));
}
