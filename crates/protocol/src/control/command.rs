//! What a gateway asks for an admitted participant.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::TrackId;
use crate::room::PublishTrack;

/// Which peer connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The one that the client offers. With [`Transports::Single`](super::Transports::Single) the only one.
    Publisher,
    /// The one that the node offers.
    Subscriber,
}

/// What a gateway asks for an admitted participant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Command {
    /// Send its events over this link from the reply on. Answered with [`Reply::Snapshot`](super::Reply::Snapshot).
    Attach,
    /// Its client's signaling connection is gone. It stays for a while if its media flows, or until it is attached again.
    Detach,
    /// The client offers on [`Target::Publisher`]; answered with [`Reply::Answer`](super::Reply::Answer). New ICE credentials restart ICE.
    Offer {
        /// The SDP.
        sdp: String,
    },
    /// The client's answer to [`Event::Offer`](super::Event::Offer) or [`Joined::counter_offer`](super::Joined::counter_offer).
    Answer {
        /// [`Event::Offer`](super::Event::Offer)'s id; [`COUNTER_OFFER_ID`](super::COUNTER_OFFER_ID) for the other.
        id: u32,
        /// The SDP.
        sdp: String,
    },
    /// Restart ICE on [`Target::Subscriber`]: an [`Event::Offer`](super::Event::Offer) with new credentials follows.
    RestartIce,
    /// A candidate of the client (RFC 8839 `candidate:…`). The node is ICE-lite and learns addresses from checks; this is a hint.
    Candidate {
        /// For which connection.
        target: Target,
        /// The attribute's value.
        candidate: String,
    },
    /// Of a client that offers once ([`Join::one_offer`](super::Join::one_offer)): candidates, or new ICE credentials (RFC 8840). Answered with [`Reply::Done`](super::Reply::Done) to
    /// candidates, with [`Reply::IceRestarted`](super::Reply::IceRestarted) to new credentials; those that are current already restart nothing. Refused
    /// with [`RefusalReason::StaleIce`](super::RefusalReason::StaleIce) when it is for another ICE session, with [`RefusalReason::Unsupported`](super::RefusalReason::Unsupported) when ICE cannot be restarted.
    PatchIce {
        /// The ICE sessions ([`Joined::ice_session`](super::Joined::ice_session)) that it is for; empty: any, and a restart is wanted.
        sessions: Vec<String>,
        /// An SDP fragment.
        fragment: String,
    },
    /// A track is about to be published. Answered with [`Reply::Published`](super::Reply::Published); again with the same `cid`: the same track.
    Publish(Box<PublishTrack>),
    /// End a track.
    Unpublish {
        /// Which.
        track: TrackId,
    },
    /// Mute or unmute an own track: nothing of a muted track is forwarded.
    Mute {
        /// Which.
        track: TrackId,
        /// The new state.
        muted: bool,
    },
    /// Receive these tracks, or stop to.
    Subscribe {
        /// Which; unknown ones are ignored.
        tracks: Vec<TrackId>,
        /// Receive, or stop to.
        subscribed: bool,
    },
    /// How these tracks are to be received.
    Prefer {
        /// Which; unknown ones are ignored.
        tracks: Vec<TrackId>,
        /// How.
        preference: Preference,
    },
    /// Change what the others see. Refused without the grant.
    Update {
        /// The new name; none: as it is.
        #[serde(default)]
        name: Option<String>,
        /// The new metadata; none: as it is.
        #[serde(default)]
        metadata: Option<String>,
        /// These attributes are set; an empty value removes one.
        #[serde(default)]
        attributes: BTreeMap<String, String>,
    },
    /// Leave the room.
    Leave,
    /// It is about to be taken up at another node ([`Event::Moving`](super::Event::Moving)): its connections go on to be served here, and whoever has their tunnels
    /// gets what comes from the client as well. Answered with [`Reply::Tunnels`](super::Reply::Tunnels).
    OpenTunnels,
    /// It has been taken up at another node ([`Event::Moving`](super::Event::Moving)): forget it here, and tell nobody.
    Moved,
}

/// How a subscriber wants a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preference {
    /// Send it at all; false pauses it without renegotiation.
    pub enabled: bool,
    /// The most that is of use; none: the best.
    pub quality: Option<Quality>,
    /// The width in pixels that it is shown at; 0: not said. Used when `quality` is none.
    pub width: u32,
    /// The height in pixels that it is shown at; 0: not said. Used when `quality` is none.
    pub height: u32,
    /// The most pictures per second that are of use; 0: not said.
    #[serde(default)]
    pub fps: u32,
    /// Whose turn it is when not everything fits: 1 is served first; 0: not said, which is after all that is.
    #[serde(default)]
    pub priority: u32,
}

impl Default for Preference {
    fn default() -> Self {
        Self {
            enabled: true,
            quality: None,
            width: 0,
            height: 0,
            fps: 0,
            priority: 0,
        }
    }
}

/// A rung of a simulcast ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Quality {
    /// The lowest layer.
    Low,
    /// The middle layer.
    Medium,
    /// The highest layer.
    High,
}
