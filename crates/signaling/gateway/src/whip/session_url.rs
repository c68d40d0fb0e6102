//! The URL of a session: names its participant, and proves that a gateway of this cluster gave it out.
//!
//! Whoever knows the URL may change and end the session, and nobody can guess it (RFC 9725 section 5). No token is asked for: a stream
//! outlives its token, and must be ended all the same; and a client that was given `?access_token=` sends none here. Any gateway
//! serves any session, since all that it must know is in the URL.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use signalbox_protocol::{Identity, ParticipantId, RoomName};

use super::Protocol;
use crate::join::percent_encoded;
use crate::problem::ApiError;
use crate::state::State;

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SessionUrl {
    pub(super) protocol: Protocol,
    pub(super) room: RoomName,
    pub(super) participant: ParticipantId,
    pub(super) identity: Identity,
}

impl SessionUrl {
    /// The URL's path, signed with the cluster's current secret.
    pub(super) fn sign(&self, state: &State) -> Result<String, ApiError> {
        let (segment, room) = (self.protocol.segment(), percent_encoded(self.room.as_str()));
        let whose = URL_SAFE_NO_PAD.encode(format!("{}\n{}", self.participant, self.identity));
        let key = EncodingKey::from_secret(state.config().cluster_secret.current().expose().as_bytes());
        let signature = crypto::sign(&signed(self.protocol, &self.room, &whose), &key, Algorithm::HS256);
        let signature = signature.map_err(|error| {
            tracing::error!(%error, "cannot sign a session's URL");
            ApiError::Internal
        })?;
        Ok(format!("/v1/rooms/{room}/{segment}/{whose}.{signature}"))
    }

    /// The session of a URL; none: nobody gave it out.
    pub(super) fn verify(state: &State, protocol: Protocol, room: &str, session: &str) -> Option<Self> {
        let room: RoomName = room.parse().ok()?;
        let (whose, signature) = session.split_once('.')?;
        let message = signed(protocol, &room, whose);
        let is_genuine = state.config().cluster_secret.accepted().iter().any(|secret| {
            let key = DecodingKey::from_secret(secret.expose().as_bytes());
            crypto::verify(signature, &message, &key, Algorithm::HS256).unwrap_or(false)
        });
        if !is_genuine {
            return None;
        }
        let whose = String::from_utf8(URL_SAFE_NO_PAD.decode(whose).ok()?).ok()?;
        let (participant, identity) = whose.split_once('\n')?;
        Some(Self {
            protocol,
            room,
            participant: ParticipantId::new(participant),
            identity: identity.parse().ok()?,
        })
    }
}

/// What is signed. A line break, which no JWT has, keeps it apart from the tickets that the same secret signs.
fn signed(protocol: Protocol, room: &RoomName, whose: &str) -> Vec<u8> {
    format!("session\n{}\n{room}\n{whose}", protocol.segment()).into_bytes()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::Config;

    fn state(secrets: &str) -> State {
        let config = Config::try_parse_from([
            "signalbox-gateway",
            "--cluster-secret",
            secrets,
            "--keys",
            "a:0123456789abcdef",
        ]);
        State::new(config.unwrap(), CancellationToken::new()).unwrap()
    }

    #[tokio::test]
    async fn a_session_is_known_to_every_gateway_of_the_cluster_and_to_nobody_else() {
        let gateway = state("0123456789abcdef");
        let session = SessionUrl {
            protocol: Protocol::Whip,
            room: "a room/7".parse().unwrap(),
            participant: ParticipantId::new("PA_a"),
            identity: "Ånn/é".parse().unwrap(),
        };
        let url = session.sign(&gateway).unwrap();
        let id = url.strip_prefix("/v1/rooms/a%20room%2F7/whip/").unwrap();
        let verify = |state: &State, protocol, room, id: &str| SessionUrl::verify(state, protocol, room, id);
        let rotated = state("fedcba9876543210,0123456789abcdef");
        assert_eq!(verify(&rotated, Protocol::Whip, "a room/7", id), Some(session));
        assert_eq!(verify(&gateway, Protocol::Whep, "a room/7", id), None);
        assert_eq!(verify(&gateway, Protocol::Whip, "another", id), None);
        assert_eq!(verify(&state("fedcba9876543210"), Protocol::Whip, "a room/7", id), None);
        for wrong in ["", ".", "PA_a", &id[1..], &id[..id.len() - 1], &format!("{id}A")] {
            assert_eq!(verify(&gateway, Protocol::Whip, "a room/7", wrong), None, "{wrong}");
        }
    }
}
