//! Signs tickets. The media node checks them; nothing here does.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use signalbox_protocol::ticket::{AUDIENCE, LIFETIME_SECONDS, TicketClaims};
use signalbox_protocol::{ClusterId, Secret};

use crate::Error;
use crate::store::Assignment;

/// Signs with the cluster secret.
#[derive(Clone)]
pub struct Signer {
    key: EncodingKey,
}

impl Signer {
    /// A signer with this secret.
    pub fn new(secret: &Secret) -> Self {
        Self {
            key: EncodingKey::from_secret(secret.expose().as_bytes()),
        }
    }

    /// A ticket for the assignment in this cluster, good for [`LIFETIME_SECONDS`] from `now`.
    pub fn sign(&self, cluster: ClusterId, assignment: &Assignment, now: SystemTime) -> Result<String, Error> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = TicketClaims {
            aud: AUDIENCE.to_owned(),
            exp: now.saturating_add(LIFETIME_SECONDS),
            cluster,
            room: assignment.room.clone(),
            node: assignment.node,
            epoch: assignment.epoch,
            generation: assignment.generation,
        };
        Ok(jsonwebtoken::encode(
            &Header::new(Algorithm::HS256),
            &claims,
            &self.key,
        )?)
    }
}
