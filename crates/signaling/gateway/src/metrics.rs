//! What the gateway counts, and its Prometheus text.
//!
//! Plain atomics: a count is exact, but two counts read together may be from slightly different moments.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;

use crate::observe::joins::JoinRequests;
use crate::observe::requests::Requests;
use crate::observe::sockets::Sockets;

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are at present.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// `n` more, or fewer when it is negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// So many from now on.
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counts of one gateway.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Bytes read from clients, all protocols.
    pub bytes_received: Counter,
    /// Bytes written to clients, all protocols.
    pub bytes_sent: Counter,
    /// Connections of clients.
    pub connections: Gauge,
    /// Connections accepted since the start.
    pub connections_accepted: Counter,
    /// Connections turned away because there were too many.
    pub connections_refused: Counter,
    /// Handshakes of TLS that succeeded, with version 1.2 and with 1.3.
    pub handshakes: [Counter; 2],
    /// Handshakes of TLS that failed, before any version was agreed on or after it.
    pub handshakes_failed: Counter,
    /// When the first certificate expires, in seconds since 1970; 0: there is none.
    pub certificate_expires: Gauge,
    /// How often certificates were read again.
    pub certificate_reloads: Counter,
    /// How often they could not be used, and stayed as they were.
    pub certificate_reload_failures: Counter,
    /// How often the rules were read again.
    pub rule_reloads: Counter,
    /// How often they could not be used, and stayed as they were.
    pub rule_reload_failures: Counter,
    /// WebSockets and event streams of clients.
    pub sockets: Sockets,
    /// Other gateways that take clients.
    pub peers_up: Gauge,
    /// Clients that were brought to another gateway, which is their own.
    pub clients_brought: Counter,
    /// Clients that are served here because their own gateway is gone.
    pub sessions_taken_over: Counter,
    /// Responses by the first digit of their status, 1 to 5.
    responses: [Counter; 5],
    /// Requests by route.
    pub requests: Requests,
    /// Lines of the access log that were lost because the disk was slower than they came.
    pub access_log_lost: Counter,
    /// How often the access log was opened anew.
    pub access_log_reopened: Counter,
    /// How often it could not be.
    pub access_log_reopen_failures: Counter,
    /// Requests to join by dialect.
    pub join_requests: JoinRequests,
    /// Participants admitted.
    pub joins: Counter,
    /// Joins that failed for whatever reason.
    pub joins_failed: Counter,
    /// Requests answered with 429: more often than one may.
    pub limited: Counter,
    /// Requests answered with 503 because there was too much to do.
    pub shed: Counter,
    /// Placements asked of the orchestrator.
    pub placements_asked: Counter,
    /// Placements answered by the cache.
    pub placements_cached: Counter,
    /// Requests that a node refused with a reason to ask for a new placement.
    pub placements_refused: Counter,
    /// Complaints about nodes that were sent to the orchestrators.
    pub node_reports: Counter,
    /// Complaints about nodes that were not sent because too many were under way.
    pub node_reports_dropped: Counter,
    /// Links to media nodes that broke.
    pub node_links_lost: Counter,
    /// Events that came for nobody, or for a session that was too slow.
    pub events_dropped: Counter,
    /// Sessions cut off because they did not take their events in time.
    pub sessions_overflowed: Counter,
    /// Participants whose room went to another node, by why and by what became of them.
    moves: [[Counter; 4]; 2],
    /// Participants that were taken up elsewhere after their node was lost, and how long that took, in microseconds in all.
    recoveries: Counter,
    recovery_micros: Counter,
}

/// Why a participant's room went to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveKind {
    /// The node was lost.
    Crash,
    /// The node handed it over.
    Planned,
}

/// What became of a participant whose room went to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveOutcome {
    /// Its connections go on there.
    InPlace,
    /// Its client had to open its signaling anew first.
    Resumed,
    /// Its client had to join anew.
    Rejoined,
    /// It could not be said what to do.
    Failed,
}

impl Metrics {
    /// Counts a response.
    pub fn response(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.responses.get(class) {
            counter.increment();
        }
    }

    /// Counts a handshake of TLS that succeeded.
    pub(crate) fn shook_hands(&self, version: Option<rustls::ProtocolVersion>) {
        let [of_1_2, of_1_3] = &self.handshakes;
        match version {
            Some(rustls::ProtocolVersion::TLSv1_3) => of_1_3.increment(),
            _ => of_1_2.increment(),
        }
    }

    /// Counts what became of a participant whose room went to another node.
    pub fn moved(&self, kind: MoveKind, outcome: MoveOutcome) {
        let counter = self.moves.get(kind as usize).and_then(|of| of.get(outcome as usize));
        if let Some(counter) = counter {
            counter.increment();
        }
    }

    /// A participant was taken up elsewhere, so long after its node was lost.
    pub fn recovered(&self, after: Duration) {
        self.recoveries.increment();
        self.recovery_micros
            .add(u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
    }

    /// The Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(4096);
        let mut single = |name: &str, kind: &str, help: &str, value: i128| {
            // Writing to a `String` cannot fail.
            let _ = writeln!(
                text,
                "# HELP signalbox_gateway_{name} {help}\n# TYPE signalbox_gateway_{name} {kind}\nsignalbox_gateway_{name} {value}"
            );
        };
        let mut counter =
            |name: &str, help: &str, counter: &Counter| single(name, "counter", help, counter.get().into());
        counter(
            "bytes_received_total",
            "Bytes read from clients, all protocols.",
            &self.bytes_received,
        );
        counter(
            "bytes_sent_total",
            "Bytes written to clients, all protocols.",
            &self.bytes_sent,
        );
        counter(
            "connections_accepted_total",
            "Client connections accepted.",
            &self.connections_accepted,
        );
        counter(
            "connections_refused_total",
            "Client connections turned away because there were too many.",
            &self.connections_refused,
        );
        counter(
            "handshakes_failed_total",
            "Handshakes of TLS that failed.",
            &self.handshakes_failed,
        );
        counter(
            "certificate_reloads_total",
            "How often certificates were read again.",
            &self.certificate_reloads,
        );
        counter(
            "certificate_reload_failures_total",
            "How often certificates could not be used, and stayed as they were.",
            &self.certificate_reload_failures,
        );
        counter(
            "rule_reloads_total",
            "How often the rules were read again.",
            &self.rule_reloads,
        );
        counter(
            "rule_reload_failures_total",
            "How often the rules could not be used, and stayed as they were.",
            &self.rule_reload_failures,
        );
        counter(
            "access_log_lost_total",
            "Lines of the access log that were lost.",
            &self.access_log_lost,
        );
        counter(
            "access_log_reopened_total",
            "How often the access log was opened anew.",
            &self.access_log_reopened,
        );
        counter(
            "access_log_reopen_failures_total",
            "How often the access log could not be opened anew.",
            &self.access_log_reopen_failures,
        );
        counter("joins_total", "Participants admitted.", &self.joins);
        counter("joins_failed_total", "Joins that failed.", &self.joins_failed);
        counter(
            "limited_total",
            "Requests refused because somebody asked more often than one may.",
            &self.limited,
        );
        counter(
            "shed_total",
            "Requests refused because there was too much to do.",
            &self.shed,
        );
        counter(
            "placements_asked_total",
            "Placements asked of the orchestrator.",
            &self.placements_asked,
        );
        counter(
            "placements_cached_total",
            "Placements answered by the cache.",
            &self.placements_cached,
        );
        counter(
            "placements_refused_total",
            "Placements that a media node refused.",
            &self.placements_refused,
        );
        counter(
            "node_reports_total",
            "Complaints about media nodes that were sent to the orchestrators.",
            &self.node_reports,
        );
        counter(
            "node_reports_dropped_total",
            "Complaints about media nodes that were not sent because too many were under way.",
            &self.node_reports_dropped,
        );
        counter(
            "node_links_lost_total",
            "Links to media nodes that broke.",
            &self.node_links_lost,
        );
        counter(
            "events_dropped_total",
            "Events that nobody could take.",
            &self.events_dropped,
        );
        counter(
            "sessions_overflowed_total",
            "Sessions cut off because they were too slow for their events.",
            &self.sessions_overflowed,
        );
        counter(
            "clients_brought_total",
            "Clients that were brought to the gateway that is their own.",
            &self.clients_brought,
        );
        counter(
            "sessions_taken_over_total",
            "Clients that are served here because the gateway that is their own is gone.",
            &self.sessions_taken_over,
        );
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| single(name, "gauge", help, gauge.get().into());
        gauge("connections", "Client connections open.", &self.connections);
        gauge(
            "certificate_expires_seconds",
            "When the first certificate expires, in seconds since 1970; 0 without TLS.",
            &self.certificate_expires,
        );
        gauge("peers_up", "Other gateways that take clients.", &self.peers_up);
        text.push_str("# HELP signalbox_gateway_handshakes_total Handshakes of TLS that succeeded, by version.\n");
        text.push_str("# TYPE signalbox_gateway_handshakes_total counter\n");
        for (version, counter) in ["1.2", "1.3"].iter().zip(&self.handshakes) {
            let _ = writeln!(
                text,
                "signalbox_gateway_handshakes_total{{version=\"{version}\"}} {}",
                counter.get()
            );
        }
        self.sockets.render(&mut text);
        text.push_str(
            "# HELP signalbox_gateway_moves_total Participants whose room went to another node, and what became of them.\n# TYPE signalbox_gateway_moves_total counter\n",
        );
        for (kind, of) in ["crash", "planned"].iter().zip(&self.moves) {
            for (outcome, counter) in ["in_place", "resumed", "rejoined", "failed"].iter().zip(of) {
                let _ = writeln!(
                    text,
                    "signalbox_gateway_moves_total{{kind=\"{kind}\",outcome=\"{outcome}\"}} {}",
                    counter.get()
                );
            }
        }
        let micros = self.recovery_micros.get();
        let _ = write!(
            text,
            "# HELP signalbox_gateway_recovery_seconds From when a lost node was noticed until a participant was taken up elsewhere.\n\
             # TYPE signalbox_gateway_recovery_seconds summary\n\
             signalbox_gateway_recovery_seconds_sum {}.{:06}\n\
             signalbox_gateway_recovery_seconds_count {}\n",
            micros / 1_000_000,
            micros % 1_000_000,
            self.recoveries.get()
        );
        text.push_str("# HELP signalbox_gateway_responses_total Responses by class of status.\n");
        text.push_str("# TYPE signalbox_gateway_responses_total counter\n");
        for (class, counter) in (1..).zip(&self.responses) {
            let _ = writeln!(
                text,
                "signalbox_gateway_responses_total{{status=\"{class}xx\"}} {}",
                counter.get()
            );
        }
        self.join_requests.render(&mut text);
        self.requests.render(&mut text);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_appear_in_the_text() {
        let metrics = Metrics::default();
        metrics.bytes_sent.add(7);
        metrics.response(StatusCode::NOT_FOUND);
        let text = metrics.render();
        assert!(text.contains("\nsignalbox_gateway_bytes_sent_total 7\n"), "{text}");
        assert!(
            text.contains("signalbox_gateway_responses_total{status=\"4xx\"} 1\n"),
            "{text}"
        );
    }
}
