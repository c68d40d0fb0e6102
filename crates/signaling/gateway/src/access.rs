//! Who is asking: access tokens, and what they allow.
//!
//! Owns the API keys and the checks of a token's signature, times, identity and room. Knows no room and no node: whether a
//! participant may do something in a room is checked again by the media node, against the [`Grants`] made here.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Deserialize;
use signalbox_protocol::control::ParticipantLimits;
use signalbox_protocol::room::{Grants, Source};
use signalbox_protocol::token::{AccessClaims, VideoGrant};
use signalbox_protocol::{Identity, RoomName, Secret};

use crate::problem::ApiError;
use crate::state::State;

/// How far the clocks of whoever signs tokens may be off, in seconds. Higher: expired tokens live longer. Lower: fresh tokens
/// are refused as not yet valid.
const LEEWAY_SECONDS: u64 = 10;

/// The longest token, in bytes; metadata and attributes travel in it.
const MAX_TOKEN_BYTES: usize = 32 * 1024;

/// An API key: its public id and the secret that signs tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The `iss` of its tokens.
    pub id: String,
    /// What signs them.
    pub secret: Secret,
}

impl FromStr for ApiKey {
    type Err = String;

    /// From `id:secret`. The error never repeats the text, since it may hold the secret.
    fn from_str(text: &str) -> Result<Self, String> {
        let (id, secret) = text
            .split_once(':')
            .ok_or("each key must look like id:secret, several are separated by commas")?;
        if id.is_empty() {
            return Err("a key's id must not be empty".into());
        }
        let secret = secret.parse().map_err(|error| format!("of key {id}, {error}"))?;
        Ok(Self {
            id: id.to_owned(),
            secret,
        })
    }
}

/// All API keys, ready to check and to sign.
pub(crate) struct Keys {
    by_id: HashMap<String, DecodingKey>,
    first: (String, EncodingKey),
    validation: Validation,
}

impl Keys {
    /// None when there is no key, or when two have the same id.
    pub(crate) fn new(keys: &[ApiKey]) -> Option<Self> {
        let first = keys.first()?;
        let by_id: HashMap<_, _> = keys
            .iter()
            .map(|key| (key.id.clone(), DecodingKey::from_secret(key.secret.expose().as_bytes())))
            .collect();
        if by_id.len() != keys.len() {
            return None;
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        // Tokens of existing servers may carry an audience of their own; the key alone says whom they are for.
        validation.validate_aud = false;
        Some(Self {
            by_id,
            first: (
                first.id.clone(),
                EncodingKey::from_secret(first.secret.expose().as_bytes()),
            ),
            validation,
        })
    }

    /// Signs with the first key, whose id replaces `iss`.
    pub(crate) fn sign(&self, mut claims: AccessClaims) -> Result<String, ApiError> {
        claims.iss.clone_from(&self.first.0);
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.first.1).map_err(|error| {
            tracing::error!(%error, "cannot sign an access token");
            ApiError::Internal
        })
    }

    fn verify(&self, token: &str) -> Result<AccessClaims, ApiError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(ApiError::TokenInvalid("The access token is too long.".into()));
        }
        let issuer = unverified_issuer(token).ok_or_else(|| {
            ApiError::TokenInvalid("What was sent is not an access token (a JWT with an `iss`).".into())
        })?;
        let key = self.by_id.get(&issuer).ok_or_else(|| {
            ApiError::TokenInvalid("The access token names an API key that this gateway does not know.".into())
        })?;
        jsonwebtoken::decode::<AccessClaims>(token, key, &self.validation)
            .map(|data| data.claims)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => ApiError::TokenExpired,
                ErrorKind::InvalidSignature => ApiError::TokenInvalid(
                    "The access token's signature is wrong; sign it with the secret of the key that `iss` names."
                        .into(),
                ),
                ErrorKind::ImmatureSignature => {
                    ApiError::TokenInvalid("The access token does not hold yet; check the clock of its signer.".into())
                }
                ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
                    ApiError::TokenInvalid("Access tokens must be signed with HS256.".into())
                }
                ErrorKind::MissingRequiredClaim(claim) => {
                    ApiError::TokenInvalid(format!("The access token has no `{claim}` claim."))
                }
                // Its signer has to learn which claim it is.
                ErrorKind::Json(error) => {
                    ApiError::TokenInvalid(format!("The access token's claims cannot be read: {error}."))
                }
                _ => ApiError::TokenInvalid("The access token's claims cannot be read.".into()),
            })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.by_id.len()).finish()
    }
}

/// The `iss` by which the key is chosen. Nothing else of a token may be read before its signature is checked.
fn unverified_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    let mut parts = token.split('.');
    let (_, payload) = (parts.next()?, parts.next()?);
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<Issuer>(&payload).ok().map(|claims| claims.iss)
}

/// What a checked token says.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// Who it is.
    pub identity: Identity,
    /// A name to show; may be empty.
    pub name: String,
    /// Free text, shown to the other participants.
    pub metadata: String,
    /// Free key-value pairs, shown to the other participants.
    pub attributes: BTreeMap<String, String>,
    /// What it may do in its room.
    pub grants: Grants,
    /// What it may use there.
    pub limits: ParticipantLimits,
    /// All of it.
    pub claims: AccessClaims,
}

impl Access {
    /// Whether it may join this room.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`] without the `roomJoin` grant or with another room.
    pub fn for_room(&self, room: &RoomName) -> Result<(), ApiError> {
        if !self.claims.video.room_join {
            return Err(ApiError::Forbidden(
                "The access token does not allow joining; it needs the grant `roomJoin`.".into(),
            ));
        }
        if self.claims.video.room != room.as_str() {
            return Err(ApiError::Forbidden("The access token is for another room.".into()));
        }
        Ok(())
    }
}

impl State {
    /// Checks an access token as [`State::authenticate`] does, but for the identity, which a server's token need not have.
    ///
    /// # Errors
    /// [`ApiError::TokenInvalid`] or [`ApiError::TokenExpired`] (401).
    pub fn claims(&self, token: &str) -> Result<AccessClaims, ApiError> {
        self.keys().verify(token)
    }

    /// Checks an access token: HS256, signed by the key that `iss` names, with an `exp`, and in its time.
    ///
    /// # Errors
    /// [`ApiError::TokenInvalid`] or [`ApiError::TokenExpired`] (401), [`ApiError::TooOften`] (429), or [`ApiError::InvalidName`] (400) for
    /// an identity that breaks the rules.
    pub fn authenticate(&self, token: &str) -> Result<Access, ApiError> {
        let claims = self.claims(token)?;
        self.limits().user(&claims)?;
        let identity = claims.sub.parse().map_err(|reason| ApiError::InvalidName {
            what: "identity (the access token's `sub`)",
            reason,
        })?;
        Ok(Access {
            identity,
            name: claims.name.clone(),
            metadata: claims.metadata.clone(),
            attributes: claims.attributes.clone(),
            grants: grants(&claims.video),
            limits: (&claims.limits).into(),
            claims,
        })
    }
}

fn grants(video: &VideoGrant) -> Grants {
    let sources: Vec<Source> = video
        .can_publish_sources
        .iter()
        .filter_map(|name| source(name))
        .collect();
    // A list that names only sources unknown here must not turn into the empty list, which allows all of them.
    let only_unknown = sources.is_empty() && !video.can_publish_sources.is_empty();
    let publish = video.can_publish.unwrap_or(true);
    Grants {
        publish: publish && !only_unknown,
        subscribe: video.can_subscribe.unwrap_or(true),
        publish_data: video.can_publish_data.unwrap_or(publish),
        sources,
        update_own_metadata: video.can_update_own_metadata.unwrap_or(false),
        hidden: video.hidden,
    }
}

fn source(name: &str) -> Option<Source> {
    match name.to_ascii_lowercase().as_str() {
        "camera" => Some(Source::Camera),
        "microphone" => Some(Source::Microphone),
        "screen_share" => Some(Source::ScreenShare),
        "screen_share_audio" => Some(Source::ScreenShareAudio),
        _ => None,
    }
}

/// The token of a request: the `Authorization: Bearer` header, or else the query's `access_token`, which browsers need for
/// WebSockets.
///
/// # Errors
/// [`ApiError::TokenMissing`].
pub fn token(parts: &Parts) -> Result<String, ApiError> {
    if let Some(header) = parts.headers.get(AUTHORIZATION) {
        let (scheme, token) = header
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .ok_or(ApiError::TokenMissing)?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
            .then(|| token.to_owned())
            .ok_or(ApiError::TokenMissing);
    }
    // A JWT has no character that a query would have to escape, so that the pair can be taken as it stands.
    let query = parts.uri.query().unwrap_or_default();
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix("access_token="))
        .filter(|token| !token.is_empty())
        .map(str::to_owned)
        .ok_or(ApiError::TokenMissing)
}

impl FromRequestParts<State> for Access {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        state.authenticate(&token(parts)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_id_and_secret() {
        let key: ApiKey = "devkey:0123456789abcdef".parse().unwrap();
        assert_eq!(key.id, "devkey");
        assert_eq!(key.secret.expose(), "0123456789abcdef");
        assert!("devkey".parse::<ApiKey>().is_err());
        assert!(":0123456789abcdef".parse::<ApiKey>().is_err());
        let error = "devkey:hunter2".parse::<ApiKey>().unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn what_a_token_does_not_mention_is_allowed() {
        assert_eq!(grants(&VideoGrant::default()), Grants::default());
    }

    #[test]
    fn unknown_sources_do_not_allow_all_sources() {
        let video = VideoGrant {
            can_publish_sources: vec!["hologram".into()],
            ..VideoGrant::default()
        };
        assert!(!grants(&video).publish);
    }

    #[test]
    fn data_follows_publish_when_not_mentioned() {
        let video = VideoGrant {
            can_publish: Some(false),
            ..VideoGrant::default()
        };
        assert!(!grants(&video).publish_data);
    }

    #[test]
    fn a_token_comes_in_the_header_or_in_the_query() {
        let parts = |uri: &str, header: Option<&str>| {
            let mut request = axum::http::Request::builder().uri(uri);
            if let Some(value) = header {
                request = request.header(AUTHORIZATION, value);
            }
            request.body(()).unwrap().into_parts().0
        };
        assert_eq!(token(&parts("/x", Some("bearer a.b.c"))).unwrap(), "a.b.c");
        assert_eq!(token(&parts("/x?y=1&access_token=a.b.c", None)).unwrap(), "a.b.c");
        assert_eq!(token(&parts("/x", None)), Err(ApiError::TokenMissing));
        assert_eq!(token(&parts("/x?access_token=", None)), Err(ApiError::TokenMissing));
        assert_eq!(token(&parts("/x", Some("Basic YTpi"))), Err(ApiError::TokenMissing));
    }
}
