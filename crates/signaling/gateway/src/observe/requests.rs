//! How many requests there were of each route, how they ended, and how long they took: a histogram for each.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;

/// The upper bounds of the histograms' buckets, in seconds.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// How many methods and routes are told apart; routes are ours, but methods are the clients'.
const MAX_ROUTES: usize = 500;

/// All requests that were answered.
#[derive(Debug, Default)]
pub struct Requests(Mutex<BTreeMap<(String, String), Answered>>);

#[derive(Debug, Default)]
struct Answered {
    /// By the first digit of their status, 1 to 5.
    by_class: [u64; 5],
    /// In each bucket, and over all.
    in_bucket: [u64; BUCKETS.len() + 1],
    seconds: f64,
}

impl Requests {
    /// One was answered.
    pub(crate) fn count(&self, method: &str, route: &str, status: StatusCode, took: Duration) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (method.to_owned(), route.to_owned());
        if all.len() >= MAX_ROUTES && !all.contains_key(&key) {
            key = ("other".into(), "other".into());
        }
        let answered = all.entry(key).or_default();
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(count) = answered.by_class.get_mut(class) {
            *count += 1;
        }
        let took = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| took <= *bound).unwrap_or(BUCKETS.len());
        if let Some(count) = answered.in_bucket.get_mut(bucket) {
            *count += 1;
        }
        answered.seconds += took;
    }

    /// The Prometheus text.
    pub(crate) fn render(&self, text: &mut String) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a `String` cannot fail.
        text.push_str("# HELP signalbox_gateway_requests_total Requests by method, route and class of status.\n# TYPE signalbox_gateway_requests_total counter\n");
        for ((method, route), answered) in all.iter() {
            for (class, count) in (1..).zip(answered.by_class).filter(|(_, count)| *count > 0) {
                let _ = writeln!(
                    text,
                    "signalbox_gateway_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{class}xx\"}} {count}"
                );
            }
        }
        text.push_str("# HELP signalbox_gateway_request_seconds From a request's head to its answer's.\n# TYPE signalbox_gateway_request_seconds histogram\n");
        for ((method, route), answered) in all.iter() {
            let labels = format!("method=\"{method}\",route=\"{route}\"");
            let mut sum = 0;
            let bounds = BUCKETS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            for (bound, count) in bounds.zip(answered.in_bucket) {
                sum += count;
                let _ = writeln!(
                    text,
                    "signalbox_gateway_request_seconds_bucket{{{labels},le=\"{bound}\"}} {sum}"
                );
            }
            let _ = writeln!(
                text,
                "signalbox_gateway_request_seconds_sum{{{labels}}} {}",
                answered.seconds
            );
            let _ = writeln!(text, "signalbox_gateway_request_seconds_count{{{labels}}} {sum}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(requests: &Requests) -> String {
        let mut text = String::new();
        requests.render(&mut text);
        text
    }

    #[test]
    fn each_route_has_its_counts_and_its_histogram() {
        let requests = Requests::default();
        for (milliseconds, status) in [(2, 201), (30, 201), (9_000, 503)] {
            let status = StatusCode::from_u16(status).unwrap();
            requests.count("POST", "/v1/x", status, Duration::from_millis(milliseconds));
        }
        let text = rendered(&requests);
        for line in [
            "requests_total{method=\"POST\",route=\"/v1/x\",status=\"2xx\"} 2",
            "requests_total{method=\"POST\",route=\"/v1/x\",status=\"5xx\"} 1",
            "request_seconds_bucket{method=\"POST\",route=\"/v1/x\",le=\"0.001\"} 0",
            "request_seconds_bucket{method=\"POST\",route=\"/v1/x\",le=\"0.0025\"} 1",
            "request_seconds_bucket{method=\"POST\",route=\"/v1/x\",le=\"5\"} 2",
            "request_seconds_bucket{method=\"POST\",route=\"/v1/x\",le=\"+Inf\"} 3",
            "request_seconds_count{method=\"POST\",route=\"/v1/x\"} 3",
        ] {
            assert!(text.contains(&format!("signalbox_gateway_{line}\n")), "{line}\n{text}");
        }
    }

    #[test]
    fn methods_that_clients_invent_are_not_told_apart_for_ever() {
        let requests = Requests::default();
        for number in 0..2 * MAX_ROUTES {
            requests.count(&format!("X{number}"), "none", StatusCode::NOT_FOUND, Duration::ZERO);
        }
        assert_eq!(requests.0.lock().unwrap().len(), MAX_ROUTES + 1);
        assert!(rendered(&requests).contains("{method=\"other\",route=\"other\",status=\"4xx\"} 500\n"));
    }
}
