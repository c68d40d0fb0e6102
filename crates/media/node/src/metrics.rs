//! The node's counters in Prometheus' text format (version 0.0.4). Room and participant names never appear: they are unbounded,
//! and people's.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use signalbox_sfu::ShardStats;

use crate::lease::Boottime;
use crate::link::REFUSALS;
use crate::node::Node;

/// The page.
pub fn render(node: &Node) -> String {
    let mut page = Page(String::with_capacity(8 * 1024));
    let total = node.total();
    let (core, socket, own) = (total.core, total.socket, &node.counters);
    let lease = node.lease.remaining(Boottime::now());

    page.gauge(
        "lease_seconds",
        "How long the lease still holds; 0 without one.",
        lease.as_secs_f64(),
    );
    page.gauge(
        "capacity_participants",
        "Participants that the node takes.",
        f64::from(node.capacity),
    );
    page.of_shards(node, "rooms", "Open rooms.", |core| core.rooms);
    page.of_shards(node, "participants", "Participants.", |core| core.participants);
    page.of_shards(
        node,
        "connections",
        "Entries by which connections are found: each one itself, its ICE user name, addresses, streams and tunnels.",
        |core| core.connections,
    );

    page.head(
        "inside_seconds",
        "histogram",
        "From when a datagram was read until all that came of it was handed to the kernel.",
    );
    for (bound, count) in total.latency.up_to() {
        let bound = bound.as_secs_f64().to_string();
        page.line("inside_seconds_bucket", &[("le", &bound)], count as f64);
    }
    page.line("inside_seconds_bucket", &[("le", "+Inf")], total.latency.count() as f64);
    page.line("inside_seconds_sum", &[], total.latency.sum().as_secs_f64());
    page.line("inside_seconds_count", &[], total.latency.count() as f64);

    page.counter("datagrams_received_total", "UDP datagrams read.", socket.received);
    page.counter(
        "received_bytes_total",
        "Bytes of the UDP datagrams read.",
        socket.received_bytes,
    );
    page.counter(
        "receive_calls_total",
        "System calls that read datagrams.",
        socket.receive_calls,
    );
    page.counter(
        "receive_errors_total",
        "Failed reads of a media socket.",
        socket.receive_errors,
    );
    page.counter("datagrams_sent_total", "UDP datagrams written.", socket.sent);
    page.counter(
        "sent_bytes_total",
        "Bytes of the UDP datagrams written.",
        socket.sent_bytes,
    );
    page.counter(
        "send_calls_total",
        "System calls that wrote datagrams.",
        socket.send_calls,
    );
    page.counter(
        "send_runs_refused_total",
        "Runs of datagrams that the kernel or the network card did not take as one, so that they were written one by one.",
        socket.runs_refused,
    );
    page.head(
        "send_dropped_total",
        "counter",
        "UDP datagrams that could not be written.",
    );
    page.line(
        "send_dropped_total",
        &[("reason", "buffer_full")],
        socket.send_dropped as f64,
    );
    page.line(
        "send_dropped_total",
        &[("reason", "refused")],
        socket.send_errors as f64,
    );
    page.line(
        "send_dropped_total",
        &[("reason", "no_lease")],
        socket.send_refused as f64,
    );
    page.counter(
        "datagrams_tunneled_total",
        "Datagrams passed on between clients and the nodes that their rooms have moved to.",
        core.tunneled,
    );
    page.counter(
        "packets_bridged_total",
        "Packets of sound passed on to the node that a room is leaving or going to.",
        core.bridged,
    );
    page.counter(
        "packets_forwarded_total",
        "RTP packets written to subscribers.",
        core.forwarded,
    );
    page.counter(
        "packets_resent_total",
        "RTP packets sent again since a peer missed them.",
        core.resent,
    );
    page.counter(
        "packets_asked_again_total",
        "RTP packets that publishers were asked for another time, since they had not sent them again as soon as usual.",
        core.asked_again,
    );
    page.counter(
        "padding_packets_total",
        "RTP packets sent only to measure a peer's network.",
        core.padding,
    );
    page.head(
        "packets_unsent_total",
        "counter",
        "RTP packets for peers that were not sent.",
    );
    for (reason, count) in [
        ("overdue", core.dropped_overdue),
        ("unsendable", core.dropped_unsendable),
    ] {
        page.line("packets_unsent_total", &[("reason", reason)], count as f64);
    }
    page.counter(
        "feedback_requests_refused_total",
        "Packets and key frames that peers asked for and did not get.",
        core.refused_requests,
    );
    page.counter(
        "feedback_bad_total",
        "Feedback of peers that cannot be true or read.",
        core.bad_feedback,
    );
    page.head(
        "datagrams_dropped_total",
        "counter",
        "UDP datagrams that were of no use.",
    );
    for (reason, count) in [
        ("garbage", core.dropped_garbage),
        ("oversize", core.dropped_oversize),
        ("stun", core.dropped_stun),
        ("unknown_source", core.dropped_unknown),
        ("unknown_ssrc", core.dropped_ssrc),
        ("unauthentic", core.dropped_unauthentic),
        ("rate_limited", core.dropped_limited),
        ("replayed", core.dropped_replayed),
        ("payload_type", core.dropped_payload_type),
        ("flood", core.dropped_flood),
    ] {
        page.line("datagrams_dropped_total", &[("reason", reason)], count as f64);
    }
    page.counter(
        "packets_over_bitrate_total",
        "RTP packets not forwarded since their publisher sends more than it may.",
        core.dropped_bitrate,
    );
    page.head(
        "data_messages_dropped_total",
        "counter",
        "Data messages that were dropped.",
    );
    for (reason, count) in [
        ("refused", core.dropped_data),
        ("rate_limited", core.dropped_data_rate),
        ("slow_receiver", core.dropped_data_slow),
    ] {
        page.line("data_messages_dropped_total", &[("reason", reason)], count as f64);
    }
    page.counter(
        "failed_connections_total",
        "Connections ended by an error in them.",
        core.failed_connections,
    );
    page.counter(
        "connections_up_total",
        "Connections whose ICE and DTLS came up; not those that came from another node.",
        core.connections_up,
    );
    page.counter(
        "connections_failed_total",
        "Connections whose ICE and DTLS did not come up in time, or that were lost while their client's signaling was there.",
        core.connections_failed,
    );

    let opened = own.links_opened.load(Ordering::Relaxed);
    let ended = own.links_ended.load(Ordering::Relaxed);
    page.gauge("links", "Gateways connected.", opened.saturating_sub(ended) as f64);
    page.counter("links_opened_total", "Control links opened.", opened);
    page.head("links_closed_total", "counter", "Control links that the node closed.");
    for (reason, count) in [("slow", &own.links_slow), ("garbage", &own.links_garbage)] {
        page.line(
            "links_closed_total",
            &[("reason", reason)],
            count.load(Ordering::Relaxed) as f64,
        );
    }
    for (name, help, count) in [
        (
            "unauthorized_links_total",
            "Links and questions refused for want of the cluster secret.",
            &own.unauthorized,
        ),
        ("requests_total", "Requests of gateways.", &own.requests),
        (
            "frames_dropped_total",
            "Frames for gateways that could not be delivered.",
            &own.frames_dropped,
        ),
        (
            "registrations_total",
            "Registrations with the orchestrator.",
            &own.registrations,
        ),
        (
            "heartbeats_failed_total",
            "Heartbeats without success.",
            &own.heartbeats_failed,
        ),
        (
            "heartbeats_promised_total",
            "Heartbeats answered only with promises, as the orchestrators' database was away.",
            &own.heartbeats_promised,
        ),
        (
            "fenced_total",
            "Times that all rooms were closed because the lease was lost.",
            &own.fenced,
        ),
        (
            "rooms_closed_total",
            "Rooms closed after they had become empty.",
            &own.rooms_closed,
        ),
        (
            "stale_rooms_closed_total",
            "Rooms closed because they are not this node's any more.",
            &own.rooms_stale,
        ),
        (
            "rooms_moved_total",
            "Rooms that have moved to another node.",
            &own.rooms_moved,
        ),
        (
            "left_behind_total",
            "Participants that were still in a room when the time for its move was over.",
            &own.left_behind,
        ),
    ] {
        page.counter(name, help, count.load(Ordering::Relaxed));
    }
    page.head(
        "refused_requests_total",
        "counter",
        "Requests of gateways that were refused.",
    );
    for ((_, reason), count) in REFUSALS.iter().zip(&own.refusals) {
        page.line(
            "refused_requests_total",
            &[("reason", reason)],
            count.load(Ordering::Relaxed) as f64,
        );
    }
    page.0
}

struct Page(String);

impl Page {
    // Writing to a `String` does not fail.

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(
            self.0,
            "# HELP signalbox_media_{name} {help}\n# TYPE signalbox_media_{name} {kind}"
        );
    }

    /// A gauge of each shard.
    fn of_shards(&mut self, node: &Node, name: &str, help: &str, value: impl Fn(&ShardStats) -> u64) {
        self.head(name, "gauge", help);
        for (index, shard) in node.shards.iter().enumerate() {
            self.line(
                name,
                &[("shard", &index.to_string())],
                value(&shard.report().core) as f64,
            );
        }
    }

    /// Label values must need no escaping.
    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.0, "signalbox_media_{name}");
        for (index, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        self.line(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.line(name, &[], value as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_text_formats_shape() {
        let mut page = Page(String::new());
        page.counter("a_total", "An a.", 3);
        page.line("b", &[("x", "1"), ("y", "2")], 0.5);
        assert_eq!(
            page.0,
            "# HELP signalbox_media_a_total An a.\n# TYPE signalbox_media_a_total counter\nsignalbox_media_a_total 3\nsignalbox_media_b{x=\"1\",y=\"2\"} 0.5\n"
        );
    }
}
