//! Whether a ticket is genuine, still good, and for this node, this epoch and this room.
//!
//! It owns the key. Whether the room's generation may still be entered is for [`crate::rooms`] to say.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use signalbox_protocol::control::{Refusal, RefusalReason};
use signalbox_protocol::ticket::{AUDIENCE, TicketClaims};
use signalbox_protocol::{Epoch, NodeId, RoomName, Secret};

/// How far the clocks of orchestrator and node may differ, in seconds. Higher: a ticket lives that much longer. Lower: fresh tickets
/// look expired.
pub const LEEWAY_SECONDS: u64 = 5;

/// Checks tickets.
pub struct Tickets {
    key: DecodingKey,
    validation: Validation,
    node: NodeId,
}

impl Tickets {
    /// For a node, with the cluster secret.
    pub fn new(secret: &Secret, node: NodeId) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_SECONDS;
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud"]);
        Self {
            key: DecodingKey::from_secret(secret.expose().as_bytes()),
            validation,
            node,
        }
    }

    /// The claims of a ticket that is good for this room, while the node holds this epoch.
    ///
    /// # Errors
    /// [`RefusalReason::Ticket`], with what does not match.
    pub fn check(&self, ticket: &str, room: &RoomName, epoch: Option<Epoch>) -> Result<TicketClaims, Refusal> {
        let refuse = |what: &str| Refusal::new(RefusalReason::Ticket, format!("{what}; ask the orchestrator anew."));
        let claims = decode::<TicketClaims>(ticket, &self.key, &self.validation)
            .map_err(|_| refuse("The ticket is forged, expired or not a ticket"))?
            .claims;
        if claims.node != self.node {
            return Err(refuse("The ticket is for another node"));
        }
        if claims.room != *room {
            return Err(refuse("The ticket is for another room"));
        }
        match epoch {
            None => Err(refuse("The node holds no lease at present")),
            Some(epoch) if epoch != claims.epoch => Err(refuse("The ticket is for another epoch of the node")),
            Some(_) => Ok(claims),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use jsonwebtoken::{EncodingKey, Header, encode};
    use signalbox_protocol::Generation;

    use super::*;

    const SECRET: &str = "a cluster secret for tests";

    fn claims(node: NodeId) -> TicketClaims {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        TicketClaims {
            aud: AUDIENCE.into(),
            exp: now + 30,
            room: "daily".parse().unwrap(),
            node,
            epoch: Epoch(4),
            generation: Generation(2),
        }
    }

    fn sign(claims: &TicketClaims, secret: &str, algorithm: Algorithm) -> String {
        encode(
            &Header::new(algorithm),
            claims,
            &EncodingKey::from_secret(secret.as_bytes()),
        )
        .unwrap()
    }

    #[test]
    fn only_a_genuine_ticket_for_this_node_epoch_and_room_is_good() {
        let node = NodeId::random();
        let tickets = Tickets::new(&SECRET.parse().unwrap(), node);
        let room: RoomName = "daily".parse().unwrap();
        let good = claims(node);
        let check =
            |claims: &TicketClaims| tickets.check(&sign(claims, SECRET, Algorithm::HS256), &room, Some(Epoch(4)));
        assert_eq!(check(&good), Ok(good.clone()));

        let bad = [
            TicketClaims {
                exp: good.exp - 60,
                ..good.clone()
            },
            TicketClaims {
                aud: "signalbox-access".into(),
                ..good.clone()
            },
            TicketClaims {
                node: NodeId::random(),
                ..good.clone()
            },
            TicketClaims {
                room: "weekly".parse().unwrap(),
                ..good.clone()
            },
            TicketClaims {
                epoch: Epoch(3),
                ..good.clone()
            },
            TicketClaims {
                epoch: Epoch(5),
                ..good.clone()
            },
        ];
        for claims in bad {
            assert_eq!(check(&claims).unwrap_err().reason, RefusalReason::Ticket, "{claims:?}");
        }
    }

    #[test]
    fn a_ticket_signed_otherwise_is_refused() {
        let node = NodeId::random();
        let tickets = Tickets::new(&SECRET.parse().unwrap(), node);
        let room: RoomName = "daily".parse().unwrap();
        let good = claims(node);
        let unsigned = "eyJhbGciOiJub25lIn0.e30.";
        for ticket in [
            sign(&good, "another secret of the same kind", Algorithm::HS256),
            sign(&good, SECRET, Algorithm::HS512),
            unsigned.to_owned(),
            String::new(),
            "…".to_owned(),
        ] {
            let refusal = tickets.check(&ticket, &room, Some(Epoch(4))).unwrap_err();
            assert_eq!(refusal.reason, RefusalReason::Ticket);
        }
    }

    #[test]
    fn without_a_lease_no_ticket_is_good() {
        let node = NodeId::random();
        let tickets = Tickets::new(&SECRET.parse().unwrap(), node);
        let good = claims(node);
        let ticket = sign(&good, SECRET, Algorithm::HS256);
        assert!(tickets.check(&ticket, &good.room, None).is_err());
    }
}
