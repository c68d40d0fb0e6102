//! What a gateway asks of a room on behalf of somebody who administers it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::TrackId;
use crate::room::GrantsUpdate;

/// What a gateway asks of a room on behalf of somebody who administers it. `participant` is a participant's id or, if there is no such
/// id, its identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RoomCommand {
    /// Tell the room and everyone in it, the hidden ones too. Answered with [`Reply::Room`](super::Reply::Room).
    List,
    /// Change what everyone is told of the room itself. Answered with [`Reply::Room`](super::Reply::Room).
    SetMetadata {
        /// Free text of the application.
        metadata: String,
    },
    /// Tell one participant. Answered with [`Reply::Participant`](super::Reply::Participant).
    Find {
        /// Which.
        participant: String,
    },
    /// Change a participant. Answered with [`Reply::Participant`](super::Reply::Participant).
    Update {
        /// Which.
        participant: String,
        /// How.
        update: Box<ParticipantUpdate>,
    },
    /// Mute or unmute a participant's track.
    Mute {
        /// Whose.
        participant: String,
        /// Which.
        track: TrackId,
        /// The new state.
        muted: bool,
    },
    /// End a participant's track.
    Unpublish {
        /// Whose.
        participant: String,
        /// Which.
        track: TrackId,
    },
    /// Close a participant with [`CloseReason::Removed`](super::CloseReason::Removed).
    Remove {
        /// Which.
        participant: String,
    },
}

/// What is to change of a participant; what is not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ParticipantUpdate {
    /// The new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The new metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    /// These attributes are set; an empty value removes one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// What it may do from now on. What is taken away takes effect: its tracks end, it receives no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<GrantsUpdate>,
}
