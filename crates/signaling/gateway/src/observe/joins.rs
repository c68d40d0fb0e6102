//! Requests to join by what came of them, also those that were refused before a node or an orchestrator was asked.

use std::fmt::Write;

use axum::http::StatusCode;
use axum::response::Response;

use crate::dialect::Dialect;
use crate::metrics::Counter;
use crate::problem::ApiError;

/// What came of a request to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The participant is in the room.
    Ok,
    /// The token is missing, does not hold, or does not allow it.
    Token,
    /// The request cannot be used.
    Invalid,
    /// A rule of the operator's says no.
    Ruled,
    /// More often than one may.
    Limited,
    /// Too much was under way, here or at the node.
    Shed,
    /// Nobody publishes what a player wants to see.
    NothingLive,
    /// No node can take the room, or the participant.
    NoNode,
    /// This gateway is going away.
    Leaving,
    /// A fault of ours, or somebody who was asked is away.
    Failed,
}

impl Outcome {
    /// All, in the order of their numbers.
    const ALL: [Self; 10] = [
        Self::Ok,
        Self::Token,
        Self::Invalid,
        Self::Ruled,
        Self::Limited,
        Self::Shed,
        Self::NothingLive,
        Self::NoNode,
        Self::Leaving,
        Self::Failed,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Token => "token",
            Self::Invalid => "invalid",
            Self::Ruled => "ruled",
            Self::Limited => "limited",
            Self::Shed => "shed",
            Self::NothingLive => "nothing_live",
            Self::NoNode => "no_node",
            Self::Leaving => "leaving",
            Self::Failed => "failed",
        }
    }

    /// None: nobody was to join after all, as without an offer, or another gateway is to be asked.
    fn of(response: &Response) -> Option<Self> {
        let status = response.status();
        match response.extensions().get::<ApiError>() {
            Some(ApiError::Ruled(..)) => Some(Self::Ruled),
            Some(ApiError::Overloaded(_)) => Some(Self::Shed),
            Some(ApiError::NothingLive(_)) => Some(Self::NothingLive),
            Some(ApiError::NoNode { .. }) => Some(Self::NoNode),
            Some(ApiError::ShuttingDown) => Some(Self::Leaving),
            Some(_) => Some(match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Token,
                StatusCode::TOO_MANY_REQUESTS => Self::Limited,
                _ if status.is_client_error() => Self::Invalid,
                _ => Self::Failed,
            }),
            // With the node's own offer a player is in the room too.
            None => matches!(
                status,
                StatusCode::CREATED | StatusCode::SWITCHING_PROTOCOLS | StatusCode::NOT_ACCEPTABLE
            )
            .then_some(Self::Ok),
        }
    }
}

/// All requests to join that were answered.
#[derive(Debug, Default)]
pub struct JoinRequests([[Counter; Outcome::ALL.len()]; Dialect::ALL.len()]);

impl JoinRequests {
    /// One was answered.
    pub(crate) fn count(&self, dialect: Dialect, response: &Response) {
        let outcome = Outcome::of(response);
        let counter = outcome.and_then(|outcome| self.0.get(dialect as usize)?.get(outcome as usize));
        if let Some(counter) = counter {
            counter.increment();
        }
    }

    /// The Prometheus text.
    pub(crate) fn render(&self, text: &mut String) {
        text.push_str("# HELP signalbox_gateway_join_requests_total Requests to join, by dialect and by what came of them.\n# TYPE signalbox_gateway_join_requests_total counter\n");
        for (dialect, outcomes) in Dialect::ALL.iter().zip(&self.0) {
            for (outcome, counter) in Outcome::ALL.iter().zip(outcomes) {
                // Writing to a `String` cannot fail.
                let _ = writeln!(
                    text,
                    "signalbox_gateway_join_requests_total{{dialect=\"{}\",result=\"{}\"}} {}",
                    dialect.name(),
                    outcome.name(),
                    counter.get()
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn each_answer_is_counted_as_what_it_means() {
        for (response, outcome) in [
            (StatusCode::CREATED.into_response(), Some(Outcome::Ok)),
            (StatusCode::SWITCHING_PROTOCOLS.into_response(), Some(Outcome::Ok)),
            (StatusCode::NOT_ACCEPTABLE.into_response(), Some(Outcome::Ok)),
            (StatusCode::OK.into_response(), None),
            (StatusCode::TEMPORARY_REDIRECT.into_response(), None),
            (ApiError::TokenExpired.into_response(), Some(Outcome::Token)),
            (ApiError::Forbidden(String::new()).into_response(), Some(Outcome::Token)),
            (ApiError::BodyTooLarge.into_response(), Some(Outcome::Invalid)),
            (
                ApiError::Ruled(503, String::new()).into_response(),
                Some(Outcome::Ruled),
            ),
            (ApiError::Overloaded(String::new()).into_response(), Some(Outcome::Shed)),
            (ApiError::ShuttingDown.into_response(), Some(Outcome::Leaving)),
            (ApiError::NodeUnavailable.into_response(), Some(Outcome::Failed)),
            (ApiError::Internal.into_response(), Some(Outcome::Failed)),
        ] {
            assert_eq!(Outcome::of(&response), outcome, "{response:?}");
        }
    }

    #[test]
    fn there_is_a_line_for_each_dialect_and_outcome() {
        let joins = JoinRequests::default();
        joins.count(Dialect::Whep, &ApiError::Internal.into_response());
        let mut text = String::new();
        joins.render(&mut text);
        assert!(
            text.contains("join_requests_total{dialect=\"whep\",result=\"failed\"} 1\n"),
            "{text}"
        );
        assert_eq!(text.lines().filter(|line| line.ends_with(" 0")).count(), 39);
    }
}
