//! What a room asks of its node, kept with the room: who moves it has no request, and must not put it where it could not have been placed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use signalbox_protocol::RoomName;
use signalbox_protocol::placement::{PlaceRoom, Policy, Track};

use super::track;

/// What of a [`PlaceRoom`] says which node may have the room, but for its groups, which the map itself looks at. The JSON of what is not asked
/// for is left out: most rooms ask for little, and there are many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wish {
    /// See [`PlaceRoom::region`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// See [`PlaceRoom::labels`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// See [`PlaceRoom::track`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track: Option<Track>,
    /// See [`PlaceRoom::prefer`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefer: Option<Track>,
    /// Where among the users its user fell, for the canary share, which may have changed since; the name itself is nobody's business here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<u16>,
    /// See [`PlaceRoom::min_version`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<String>,
    /// See [`PlaceRoom::policy`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

impl Wish {
    /// What the request asks for.
    pub fn of(request: &PlaceRoom) -> Self {
        Self {
            region: request.region.clone(),
            labels: request.labels.clone(),
            track: request.track,
            prefer: request.prefer,
            bucket: track::known(request).or_else(|| request.user.as_deref().map(track::bucket)),
            min_version: request.min_version.clone(),
            policy: request.policy,
        }
    }

    /// Whether any node would do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A request that asks for the same, but for [`Wish::bucket`], which goes into the [`super::Situation`].
    pub fn request(self, room: RoomName, group: Option<String>, avoid: Vec<String>) -> PlaceRoom {
        PlaceRoom {
            region: self.region,
            labels: self.labels,
            track: self.track,
            prefer: self.prefer,
            min_version: self.min_version,
            policy: self.policy,
            group,
            avoid,
            ..PlaceRoom::new(room)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_asks_for_the_same_and_names_no_user() {
        let asked = PlaceRoom {
            region: Some("eu".into()),
            labels: BTreeMap::from([("disk".into(), "fast".into())]),
            track: Some(Track::Canary),
            prefer: Some(Track::Stable),
            user: Some("ann".into()),
            min_version: Some("1.4".into()),
            group: Some("studio".into()),
            avoid: vec!["studio".into()],
            policy: Some(Policy::Packing),
            ..PlaceRoom::new("daily".parse().unwrap())
        };
        let wish = Wish::of(&asked);
        let json = serde_json::to_string(&wish).unwrap();
        assert!(!json.contains("ann"), "{json}");
        let kept: Wish = serde_json::from_str(&json).unwrap();
        assert_eq!(kept, wish);
        let again = kept.request(asked.room.clone(), asked.group.clone(), asked.avoid.clone());
        assert_eq!(again, PlaceRoom { user: None, ..asked });
    }

    #[test]
    fn a_room_that_asks_for_nothing_keeps_nothing() {
        let wish = Wish::of(&PlaceRoom::new("daily".parse().unwrap()));
        assert!(wish.is_empty());
        assert_eq!(serde_json::to_string(&wish).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<Wish>("{}").unwrap(), wish);
    }
}
