//! The node as its parts see each other: shards, rooms, lease, and how a request gets to a shard.

use std::sync::Arc;
use std::time::{Duration, Instant};

use signalbox_protocol::control::{Refusal, RefusalReason, Request, RequestFrame};
use signalbox_protocol::{Epoch, Generation, NodeId, Secrets};
use signalbox_sfu::ShardStats;
use signalbox_telemetry::Span;
use tokio::sync::{oneshot, watch};

use crate::counters::Counters;
use crate::lease::{Boottime, Lease};
use crate::link::{Link, overloaded};
use crate::media_socket::SocketStats;
use crate::orchestrators::Orchestrators;
use crate::rooms::Rooms;
use crate::shard_command::{AdmittedRequest, ShardCommand, Work};
use crate::shard_thread::{ShardHandle, ShardReport};
use crate::tickets::Tickets;

/// A running node.
pub struct Node {
    pub id: NodeId,
    pub secrets: Secrets,
    pub capacity: u32,
    pub rooms: Arc<Rooms>,
    pub lease: Arc<Lease>,
    pub tickets: Tickets,
    pub orchestrators: Orchestrators,
    pub shards: Vec<ShardHandle>,
    pub counters: Arc<Counters>,
    /// Whoever runs the node is told its epoch.
    pub told_epoch: watch::Sender<Option<Epoch>>,
}

impl Node {
    /// Brings a request to its shard, or refuses it. Never waits.
    pub fn dispatch(&self, link: &Link, frame: RequestFrame) {
        Counters::add(&self.counters.requests);
        let span = Span::carry_on(frame.request.span(), frame.trace.as_ref());
        span.note("signalbox.room", frame.request.room());
        span.note("signalbox.node", self.id);
        let Some(answer) = link.begin(frame.id, span) else {
            return;
        };
        let start_by = Instant::now() + Duration::from_millis(frame.deadline_ms.into());
        let room = frame.request.room().clone();
        let ticket = match &frame.request {
            Request::Open { ticket, .. } | Request::Expect { ticket, .. } => Some((ticket, false)),
            Request::Join(join) => Some((&join.ticket, true)),
            Request::Participant { .. } | Request::Administer { .. } => None,
        };
        let Some((ticket, joins)) = ticket else {
            let Some(shard) = self.rooms.shard_of(&room).and_then(|index| self.shards.get(index)) else {
                let reason = match frame.request {
                    Request::Administer { .. } => RefusalReason::NoRoom,
                    _ => RefusalReason::NoParticipant,
                };
                return answer.send(Err(Refusal::new(
                    reason,
                    "The room is not here (any more); join again.",
                )));
            };
            // When the queue is full, the dropped request answers for itself.
            let _ = shard.give(ShardCommand::Request(Box::new(AdmittedRequest {
                answer,
                start_by,
                epoch: None,
                work: Work::new(frame.request, Generation(0)),
            })));
            return;
        };

        let claims = match self.tickets.check(ticket, &room, self.lease.held(Boottime::now())) {
            Ok(claims) => claims,
            Err(refusal) => return answer.send(Err(refusal)),
        };
        // As of the shards' last turns: some joins that are under way at this moment may exceed it.
        if joins && self.total().core.participants >= u64::from(self.capacity) {
            return answer.send(Err(Refusal::new(
                RefusalReason::Full,
                "The node has as many participants as it takes; ask the orchestrator anew.",
            )));
        }
        let load = |index: usize| {
            self.shards
                .get(index)
                .map_or(u64::MAX, |shard| shard.report().core.participants)
        };
        let mut request = Some(AdmittedRequest {
            answer,
            start_by,
            epoch: Some(claims.epoch),
            work: Work::new(frame.request, claims.generation),
        });
        let entered = self
            .rooms
            .enter(&room, claims.generation, Instant::now(), load, |index| {
                match (self.shards.get(index), request.take()) {
                    (Some(shard), Some(taken)) => shard.give(ShardCommand::Request(Box::new(taken))),
                    _ => Err(overloaded("The room has no shard")),
                }
            });
        // What was handed over answers for itself, also when it was dropped on the way.
        if let (Err(refusal), Some(request)) = (entered, request) {
            request.answer.send(Err(refusal));
        }
    }

    /// Gives up the epoch and every room in it.
    pub async fn fence(&self) {
        self.lease.revoke();
        self.told_epoch.send_replace(None);
        self.rooms.fence();
        self.close_all().await;
    }

    /// Closes every room; their last events are in the links' queues when this returns.
    pub async fn close_all(&self) {
        let mut pending = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let (done, closed) = oneshot::channel();
            if shard.send(ShardCommand::CloseAll { done }).await {
                pending.push(closed);
            }
        }
        for closed in pending {
            // An error means that the thread has ended, and its rooms with it.
            let _ = closed.await;
        }
    }

    /// All shards' counters, summed.
    pub fn total(&self) -> ShardReport {
        let mut total = ShardReport::default();
        for shard in &self.shards {
            add(&mut total, &shard.report());
        }
        total
    }
}

fn add(total: &mut ShardReport, one: &ShardReport) {
    let ShardStats {
        rooms,
        participants,
        connections,
        datagrams_in,
        bytes_in,
        datagrams_out,
        bytes_out,
        tunneled,
        bridged,
        forwarded,
        resent,
        asked_again,
        padding,
        dropped_overdue,
        dropped_unsendable,
        refused_requests,
        bad_feedback,
        dropped_garbage,
        dropped_oversize,
        dropped_stun,
        dropped_unknown,
        dropped_ssrc,
        dropped_unauthentic,
        dropped_limited,
        dropped_replayed,
        dropped_payload_type,
        dropped_flood,
        dropped_bitrate,
        dropped_data,
        dropped_data_rate,
        dropped_data_slow,
        failed_connections,
        connections_up,
        connections_failed,
    } = one.core;
    total.latency.merge(&one.latency);
    let core = &mut total.core;
    core.rooms += rooms;
    core.participants += participants;
    core.connections += connections;
    core.datagrams_in += datagrams_in;
    core.bytes_in += bytes_in;
    core.datagrams_out += datagrams_out;
    core.bytes_out += bytes_out;
    core.tunneled += tunneled;
    core.bridged += bridged;
    core.forwarded += forwarded;
    core.resent += resent;
    core.asked_again += asked_again;
    core.padding += padding;
    core.dropped_overdue += dropped_overdue;
    core.dropped_unsendable += dropped_unsendable;
    core.refused_requests += refused_requests;
    core.bad_feedback += bad_feedback;
    core.dropped_garbage += dropped_garbage;
    core.dropped_oversize += dropped_oversize;
    core.dropped_stun += dropped_stun;
    core.dropped_unknown += dropped_unknown;
    core.dropped_ssrc += dropped_ssrc;
    core.dropped_unauthentic += dropped_unauthentic;
    core.dropped_limited += dropped_limited;
    core.dropped_replayed += dropped_replayed;
    core.dropped_payload_type += dropped_payload_type;
    core.dropped_flood += dropped_flood;
    core.dropped_bitrate += dropped_bitrate;
    core.dropped_data += dropped_data;
    core.dropped_data_rate += dropped_data_rate;
    core.dropped_data_slow += dropped_data_slow;
    core.failed_connections += failed_connections;
    core.connections_up += connections_up;
    core.connections_failed += connections_failed;
    let SocketStats {
        received,
        received_bytes,
        receive_calls,
        receive_errors,
        sent,
        sent_bytes,
        send_calls,
        runs_refused,
        send_dropped,
        send_refused,
        send_errors,
    } = one.socket;
    let socket = &mut total.socket;
    socket.received += received;
    socket.received_bytes += received_bytes;
    socket.receive_calls += receive_calls;
    socket.receive_errors += receive_errors;
    socket.sent += sent;
    socket.sent_bytes += sent_bytes;
    socket.send_calls += send_calls;
    socket.runs_refused += runs_refused;
    socket.send_dropped += send_dropped;
    socket.send_refused += send_refused;
    socket.send_errors += send_errors;
}
