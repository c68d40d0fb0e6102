//! `/v1/rooms/{room}/participants/{id}/subscriptions/{track}`: other participants' tracks, as this one receives them.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::Deserialize;
use signalbox_protocol::control::{Command, Preference, Quality};
use utoipa::ToSchema;
use utoipa::openapi::HttpMethod;

use super::body::JsonBody;
use super::{Member, NamedTrack};
use crate::openapi::{Routes, operation};
use crate::problem::ApiError;
use crate::state::State;

/// How another participant's track is to be received. All but `subscribed` replaces what was said before as a whole.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SubscriptionUpdate {
    /// Receive it, or not.
    #[serde(default)]
    subscribed: Option<bool>,
    /// Send it; false pauses it without a negotiation.
    #[serde(default)]
    enabled: Option<bool>,
    /// The most that is of use.
    #[serde(default)]
    quality: Option<Quality>,
    /// The width in pixels that it is shown at.
    #[serde(default)]
    width: Option<u32>,
    /// The height in pixels that it is shown at.
    #[serde(default)]
    height: Option<u32>,
    /// The most pictures per second that are of use.
    #[serde(default)]
    fps: Option<u32>,
    /// Whose turn it is when not everything fits: 1 is served first; what has none comes last.
    #[serde(default)]
    #[schema(minimum = 1)]
    priority: Option<u32>,
}

pub(super) fn add(routes: Routes) -> Routes {
    routes.guarded(
        operation(
            HttpMethod::Patch,
            "/v1/rooms/{room}/participants/{participant}/subscriptions/{track}",
            "subscribe",
            "Receive a track or not, and how.",
        )
        .tag("tracks")
        .describe("A track that is not there (any more) is no error: it may just have ended.")
        .body::<SubscriptionUpdate>()
        .answers_nothing(204, "It is so."),
        update,
    )
}

impl SubscriptionUpdate {
    /// The preference replaces the one before as a whole; what is not named takes its default. None if nothing of it is named.
    fn preference(&self) -> Option<Preference> {
        let numbers = [self.width, self.height, self.fps, self.priority];
        let named = self.enabled.is_some() || self.quality.is_some() || numbers.iter().any(Option::is_some);
        let default = Preference::default();
        named.then(|| Preference {
            enabled: self.enabled.unwrap_or(default.enabled),
            quality: self.quality.or(default.quality),
            width: self.width.unwrap_or(default.width),
            height: self.height.unwrap_or(default.height),
            fps: self.fps.unwrap_or(default.fps),
            priority: self.priority.unwrap_or(default.priority),
        })
    }
}

async fn update(
    Shared(state): Shared<State>,
    member: Member,
    NamedTrack(track): NamedTrack,
    JsonBody(update): JsonBody<SubscriptionUpdate>,
) -> Result<StatusCode, ApiError> {
    let preference = update.preference();
    if preference.is_none() && update.subscribed.is_none() {
        return Err(ApiError::InvalidBody(
            "it names none of `subscribed`, `enabled`, `quality`, `width`, `height`, `fps`, `priority`".into(),
        ));
    }
    if let Some(subscribed) = update.subscribed {
        let tracks = vec![track.clone()];
        member
            .command(&state, Command::Subscribe { tracks, subscribed })
            .await?;
    }
    if let Some(preference) = preference {
        let tracks = vec![track];
        member.command(&state, Command::Prefer { tracks, preference }).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_takes_its_default() {
        let preference = |json: &str| serde_json::from_str::<SubscriptionUpdate>(json).unwrap().preference();
        assert_eq!(preference(r#"{"subscribed":true}"#), None);
        assert_eq!(
            preference(r#"{"quality":"low"}"#),
            Some(Preference {
                quality: Some(Quality::Low),
                ..Preference::default()
            })
        );
        assert_eq!(
            preference(r#"{"fps":15,"priority":1}"#),
            Some(Preference {
                fps: 15,
                priority: 1,
                ..Preference::default()
            })
        );
        assert!(!preference(r#"{"enabled":false}"#).unwrap().enabled);
    }
}
