//! `GET /metrics`: figures in the Prometheus text format 0.0.4. Without authentication, as at gateways and nodes: they name nobody.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, header};
use signalbox_protocol::canary::Tally;

use crate::Service;
use crate::store::Store;

const FORMAT: &str = "text/plain; version=0.0.4";

/// `GET /metrics`. What was seen last: the store is not asked.
pub async fn show<S: Store>(State(service): State<Arc<Service<S>>>) -> ([(HeaderName, &'static str); 1], String) {
    let state = service.canary.seen();
    let sight = service.sight.borrow().clone();
    let mut page = Page::default();
    page.family(
        "room_map_reachable",
        "gauge",
        "Whether the room map answered when it was last asked.",
    );
    page.value("room_map_reachable", "", f64::from(u8::from(sight.reachable)));
    page.family("orchestrators", "gauge", "Orchestrators that work on the room map.");
    page.value("orchestrators", "", sight.orchestrators as f64);
    page.family(
        "canary_share",
        "gauge",
        "The share of users whose new rooms go to canary nodes.",
    );
    page.value("canary_share", "", service.canary.of(&state));
    page.family(
        "canary_rollbacks_total",
        "counter",
        "How often this orchestrator has taken the canary share back.",
    );
    page.value("canary_rollbacks_total", "", service.canary.rollbacks() as f64);
    page.family(
        "canary_outcomes",
        "gauge",
        "Joins and connections of the window that is compared, by track and how they went.",
    );
    for (track, outcomes) in [("stable", state.stable), ("canary", state.canary)] {
        page.tally(track, "join", outcomes.joins);
        page.tally(track, "connection", outcomes.connections);
    }
    ([(header::CONTENT_TYPE, FORMAT)], page.text)
}

#[derive(Default)]
struct Page {
    text: String,
}

// Writing to a `String` cannot fail.
impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(
            self.text,
            "# HELP signalbox_orchestrator_{name} {help}\n# TYPE signalbox_orchestrator_{name} {kind}"
        );
    }

    fn value(&mut self, name: &str, labels: &str, value: f64) {
        let _ = writeln!(self.text, "signalbox_orchestrator_{name}{labels} {value}");
    }

    fn tally(&mut self, track: &str, of: &str, tally: Tally) {
        for (result, count) in [("ok", tally.ok), ("failed", tally.failed)] {
            let labels = format!("{{track=\"{track}\",of=\"{of}\",result=\"{result}\"}}");
            self.value("canary_outcomes", &labels, count as f64);
        }
    }
}
