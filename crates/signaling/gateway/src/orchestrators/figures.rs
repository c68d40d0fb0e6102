//! The orchestrators' figures as Prometheus text.

use std::fmt::Write;

use crate::upstreams::{BreakerState, UpstreamView};

/// Text format 0.0.4. The names are hosts with ports, without credentials.
pub(super) fn render<'a>(upstreams: impl Iterator<Item = (&'a str, UpstreamView)>, budget_exhausted: u64) -> String {
    let upstreams: Vec<(&str, UpstreamView)> = upstreams.collect();
    let mut text = String::with_capacity(2048);
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&UpstreamView) -> u64| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "# HELP signalbox_gateway_{name} {help}\n# TYPE signalbox_gateway_{name} {kind}"
        );
        for (orchestrator, view) in &upstreams {
            let _ = writeln!(
                text,
                "signalbox_gateway_{name}{{orchestrator=\"{orchestrator}\"}} {}",
                value(view)
            );
        }
    };
    family(
        "orchestrator_requests_total",
        "counter",
        "Requests to the orchestrator, retries among them.",
        &|view| view.requests,
    );
    family(
        "orchestrator_failures_total",
        "counter",
        "Requests that the orchestrator failed.",
        &|view| view.failures,
    );
    family(
        "orchestrator_retries_total",
        "counter",
        "Requests to the orchestrator after another one had failed.",
        &|view| view.retries,
    );
    family(
        "orchestrator_in_flight",
        "gauge",
        "Requests to the orchestrator under way.",
        &|view| u64::from(view.in_flight),
    );
    family(
        "orchestrator_breaker",
        "gauge",
        "The circuit breaker: 0 closed, 1 half-open, 2 open.",
        &|view| match view.breaker {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        },
    );
    let _ = writeln!(
        text,
        "# HELP signalbox_gateway_retry_budget_exhausted_total Requests that were not sent again because too many others were.\n\
         # TYPE signalbox_gateway_retry_budget_exhausted_total counter\n\
         signalbox_gateway_retry_budget_exhausted_total {budget_exhausted}"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_orchestrator_has_its_line_in_each_family() {
        let view = UpstreamView {
            breaker: BreakerState::Open,
            in_flight: 1,
            requests: 9,
            failures: 5,
            retries: 2,
        };
        let text = render([("a:1", view), ("b:1", view)].into_iter(), 3);
        for line in [
            r#"signalbox_gateway_orchestrator_requests_total{orchestrator="a:1"} 9"#,
            r#"signalbox_gateway_orchestrator_failures_total{orchestrator="b:1"} 5"#,
            r#"signalbox_gateway_orchestrator_retries_total{orchestrator="b:1"} 2"#,
            r#"signalbox_gateway_orchestrator_in_flight{orchestrator="b:1"} 1"#,
            r#"signalbox_gateway_orchestrator_breaker{orchestrator="b:1"} 2"#,
            "signalbox_gateway_retry_budget_exhausted_total 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        assert_eq!(text.matches("# TYPE").count(), 6);
    }
}
