//! What a client costs that is in a room and says nothing: the gateway's memory for each WebSocket of the LiveKit dialect, over TLS.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use e2e::cluster::token;
use futures_util::StreamExt;
use livekit_protocol::SignalResponse;
use livekit_protocol::signal_response::Message as Response;
use prost::Message as _;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::clients::{Clients, source};
use super::findings::Findings;
use super::system::System;

/// How many are there before anything is measured: what the first ones cost is not each one's.
const BEFORE: usize = 200;

/// How many are measured.
const COUNT: usize = 5_000;

/// How many are in a room.
const IN_A_ROOM: usize = 4;

/// How many join at once.
const AT_ONCE: usize = 32;

/// The most that one may cost, in KiB.
const MOST: f64 = 20.0;

/// For how long they then are idle. Higher: more pings have gone to and fro.
const IDLE: Duration = Duration::from_secs(20);

pub async fn measure() -> anyhow::Result<Findings> {
    let system = System::start(&[]).await?;
    let mut sockets = JoinSet::new();
    join(&system.clients, 0..BEFORE, &mut sockets).await?;
    tokio::time::sleep(IDLE / 4).await;
    let before = system.memory_kib()?;
    join(&system.clients, BEFORE..BEFORE + COUNT, &mut sockets).await?;
    let joined = system.memory_kib()?;
    tokio::time::sleep(IDLE).await;
    let after = system.memory_kib()?;
    let mut closed = 0;
    while let Some(ended) = sockets.try_join_next() {
        closed += 1;
        eprintln!("a socket ended: {:?}", ended?);
    }
    let each = |kib: u64| (kib as f64 - before as f64) / COUNT as f64;
    let mut found = Findings::default();
    found.tell(format!("memory with {BEFORE} sockets"), format!("{before} KiB"));
    found.tell(
        format!("each of {COUNT} more, just joined"),
        format!("{:.1} KiB", each(joined)),
    );
    let bar = format!("≤ {MOST} KiB");
    found.check(
        "each, idle",
        format!("{:.1} KiB", each(after)),
        bar,
        each(after) <= MOST,
    );
    let open = system.metric("sockets").await?;
    let all = (BEFORE + COUNT) as u64;
    found.check("sockets that stay", open, format!("{all}"), open == all && closed == 0);
    Ok(found)
}

/// Has these join, a few at a time.
async fn join(
    clients: &Clients,
    numbers: std::ops::Range<usize>,
    sockets: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let joining = futures_util::stream::iter(numbers).map(|number| open(clients, number));
    let mut joining = std::pin::pin!(joining.buffer_unordered(AT_ONCE));
    while let Some(socket) = joining.next().await {
        let mut socket = socket?;
        sockets.spawn(async move {
            // Reading is what answers pings.
            while let Some(message) = socket.next().await {
                message?;
            }
            Ok(())
        });
    }
    Ok(())
}

type Socket = tokio_tungstenite::WebSocketStream<super::clients::Connection>;

async fn open(clients: &Clients, number: usize) -> anyhow::Result<Socket> {
    let token = token(&format!("room-{}", number / IN_A_ROOM), &format!("guest-{number}"));
    let connection = clients.connect(source(number)).await.context("connect")?;
    let url = format!("wss://localhost/rtc?access_token={token}&protocol=15&sdk=rust&version=1&auto_subscribe=1");
    let (mut socket, _) = tokio_tungstenite::client_async(url, connection).await?;
    let Some(Message::Binary(bytes)) = socket.next().await.transpose()? else {
        bail!("no first message");
    };
    let first = SignalResponse::decode(bytes)?.message;
    ensure!(
        matches!(first, Some(Response::Join(_))),
        "the first message is {first:?}"
    );
    Ok(socket)
}
