//! Builds the node from its parts, runs it, and takes it down in an order that loses no event.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::serve::ListenerExt as _;
use signalbox_protocol::node::RegisterNode;
use signalbox_protocol::{Epoch, NodeId};
use signalbox_sfu::{Limits, ShardConfig};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::control::Control;
use crate::counters::Counters;
use crate::handle::Handle;
use crate::lease::{Boottime, Lease};
use crate::link_task::FLUSH;
use crate::node::Node;
use crate::orchestrators::Orchestrators;
use crate::rooms::Rooms;
use crate::shard_thread::{self, ShardSetup};
use crate::tenure::Promises;
use crate::tickets::Tickets;
use crate::{Config, Error, closing, drain, registration};

/// How long each step of an orderly end may take besides the links' [`FLUSH`].
const STEP: Duration = Duration::from_secs(1);

/// Runs a media node until it is told to stop, by a token or a [`Handle`]: `control` for the gateways, one shard for each socket of `media` (see
/// [`Config::bind_media`]).
///
/// Told to drain, it has its rooms moved to other nodes first, as far as that goes within the configured time, and then stops.
///
/// Then nobody is let in any more, every room is closed, the participants' gateways are told, and the orchestrator is told that the
/// rooms are free. That takes some milliseconds, and at most some seconds when the others do not answer.
///
/// # Errors
/// See [`Error`]. Once it runs, the control listener can fail, and the orchestrator can refuse the node; a panic in a shard's
/// thread ends the process.
pub async fn run(
    control: TcpListener,
    media: Vec<UdpSocket>,
    config: Config,
    handle: impl Into<Handle>,
) -> Result<(), Error> {
    // A failure ends the parts of the node, not what the caller runs besides.
    let Handle { drain, stop, epoch } = handle.into();
    let shutdown = stop.child_token();
    if media.is_empty() {
        return Err(Error::Config("a media node needs at least one media socket".to_owned()));
    }
    let id = config.node_id.unwrap_or_else(NodeId::random);
    let capacity = config.capacity(media.len());
    let public_control = config.public_control(control.local_addr().map_err(Error::Control)?)?;
    let orchestrators = Orchestrators::new(config.orchestrators()?, &config.cluster_secret)?;
    let rooms = Arc::new(Rooms::new(media.len(), capacity as usize));
    let lease = Arc::new(Lease::default());
    let counters = Arc::new(Counters::default());

    let end_shards = CancellationToken::new();
    // Also when this function fails or is dropped halfway.
    let end_shards_at_last = end_shards.clone().drop_guard();
    let mut shards = Vec::with_capacity(media.len());
    let mut threads = Vec::with_capacity(media.len());
    let mut addresses = Vec::with_capacity(media.len());
    let count = media.len();
    for (index, socket) in media.into_iter().enumerate() {
        let failed = |source| Error::StartShard { index, source };
        let local = socket.local_addr().map_err(failed)?;
        let (public, tunnel) = (config.public_media(index, local)?, config.tunnel(local)?);
        let setup = ShardSetup {
            index,
            shards: count,
            socket,
            config: ShardConfig {
                node: id,
                public,
                tunnel,
                unix_ms: unix_ms(),
                seed: rand::random(),
                limits: Limits {
                    // The node's capacity is checked before; no shard needs to refuse earlier.
                    participants: capacity as usize,
                    departure: Duration::from_secs(config.departure_seconds.into()),
                    srtp_idle: Duration::from_secs(config.srtp_idle_seconds.into()),
                    empty_room: Duration::from_secs(config.empty_room_seconds.into()),
                    tracks_per_participant: config.max_tracks.into(),
                    publish_bps: config.max_publish_bitrate,
                    packets_per_second: config.max_packets_per_second.into(),
                    loudest_audio: config.loudest_audio.into(),
                    ..Limits::default()
                },
            },
            rooms: Arc::clone(&rooms),
            lease: Arc::clone(&lease),
            counters: Arc::clone(&counters),
            stop: end_shards.clone(),
        };
        let (shard, thread) = shard_thread::spawn(setup).map_err(failed)?;
        shards.push(shard);
        threads.push(thread);
        addresses.push(public);
    }

    let announcement = RegisterNode {
        node: id,
        after: Epoch(0),
        control: public_control,
        media: addresses,
        region: config.region.clone(),
        zone: config.zone.clone(),
        labels: config.labels()?,
        track: config.track,
        capacity,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    tracing::info!(node = %id, control = announcement.control, shards = count, capacity, "media node runs");
    let node = Arc::new(Node {
        id,
        tickets: Tickets::new(&config.cluster_secret, id),
        secrets: config.cluster_secret,
        capacity,
        rooms,
        lease,
        orchestrators,
        shards,
        counters,
        told_epoch: epoch,
    });

    let end_links = CancellationToken::new();
    let end_listener = CancellationToken::new();
    let (drain_rate, grace) = (config.drain_rate, Duration::from_secs(config.drain_seconds.into()));
    let promises = if config.strict_leases {
        Promises::All
    } else {
        Promises::One
    };
    let mut registering = tokio::spawn(registration::run(
        Arc::clone(&node),
        announcement,
        promises,
        shutdown.clone(),
    ));
    let closing = tokio::spawn(closing::run(Arc::clone(&node), shutdown.clone()));
    let serving = Control::new(Arc::clone(&node), end_links.clone());
    let links = serving.links().clone();
    let mut server = tokio::spawn({
        // Small messages follow each other here; none is to wait until the one before it is acknowledged, which takes 40 ms.
        let control = control.tap_io(|stream| drop(stream.set_nodelay(true)));
        let serve = axum::serve(control, serving.router());
        let serve = serve.with_graceful_shutdown(end_listener.clone().cancelled_owned());
        async move { serve.await }
    });

    let drained = async {
        drain.cancelled().await;
        drain::run(&node, drain_rate, grace).await;
    };
    let ended = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        () = drained => Ok(()),
        ended = &mut registering => ended.unwrap_or_else(|error| Err(Error::Registration(error))),
        ended = &mut server => match ended {
            Ok(Err(error)) => Err(Error::Control(error)),
            Ok(Ok(())) => Err(Error::Control(std::io::ErrorKind::ConnectionAborted.into())),
            Err(error) => Err(Error::Control(std::io::Error::other(error))),
        },
    };

    tracing::info!(node = %id, "media node stops");
    shutdown.cancel();
    node.rooms.stop();
    // Both end with `shutdown`; a registration that is under way is given up.
    if !registering.is_finished() {
        let _ = timeout(STEP, registering).await;
    }
    let _ = timeout(STEP, closing).await;
    let _ = timeout(STEP, node.close_all()).await;
    let epoch = node.lease.epoch(Boottime::now());
    node.lease.revoke();
    end_listener.cancel();
    end_links.cancel();
    links.close();
    let farewell = async {
        if let Some(epoch) = epoch {
            registration::release(&node, epoch).await;
        }
    };
    let _ = tokio::join!(timeout(FLUSH + STEP, links.wait()), timeout(FLUSH + STEP, farewell));
    if !server.is_finished() {
        // Whoever still holds a connection to the listener is not waited for.
        let _ = timeout(STEP, &mut server).await;
    }
    server.abort();

    drop(end_shards_at_last);
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
    let _ = timeout(STEP, joined).await;
    ended
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
