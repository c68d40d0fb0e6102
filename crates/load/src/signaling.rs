//! What a participant says to the server, and hears from it, in either of two protocols.

use std::future::pending;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use jsonwebtoken::{EncodingKey, Header};
use livekit_protocol::signal_response::Message as Response;
use signalbox_protocol::token::{AccessClaims, VideoGrant};

use crate::livekit::LiveKit;
use crate::plan::{Member, Plan};
use crate::whip::Whip;

/// For how long tokens are good.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A participant's way to the server.
pub enum Signaling {
    /// LiveKit's, over a WebSocket.
    LiveKit(Box<LiveKit>),
    /// WHIP or WHEP: all has been said with the answer.
    Whip(Whip),
}

impl Signaling {
    /// The server's next message. Dropped half-way it loses nothing.
    pub async fn next(&mut self) -> anyhow::Result<Response> {
        match self {
            Self::LiveKit(livekit) => livekit.next().await,
            Self::Whip(_) => pending().await,
        }
    }

    /// The WebSocket, to answer what came on it.
    ///
    /// # Errors
    /// When there is none.
    pub fn livekit(&mut self) -> anyhow::Result<&mut LiveKit> {
        match self {
            Self::LiveKit(livekit) => Ok(livekit),
            Self::Whip(_) => bail!("there is no WebSocket"),
        }
    }

    /// Tells the server that the participant is there, where it wants to know.
    pub async fn ping(&mut self) -> anyhow::Result<()> {
        match self {
            Self::LiveKit(livekit) => livekit.ping().await,
            Self::Whip(_) => Ok(()),
        }
    }

    /// Leaves.
    pub async fn leave(&mut self) {
        match self {
            Self::LiveKit(livekit) => livekit.leave().await,
            Self::Whip(whip) => whip.leave().await,
        }
    }
}

/// A token to join with.
pub fn token(plan: &Plan, member: &Member) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = AccessClaims {
        iss: plan.key.clone(),
        sub: member.identity.clone(),
        exp: (now + LIFETIME).as_secs(),
        video: VideoGrant {
            room_join: true,
            room: member.room.clone(),
            ..VideoGrant::default()
        },
        ..AccessClaims::default()
    };
    let key = EncodingKey::from_secret(plan.secret.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).context("no token can be signed")
}
