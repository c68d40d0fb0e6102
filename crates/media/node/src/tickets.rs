//! Whether a ticket is genuine, still good, and for this cluster, this node, its epoch and this room.
//!
//! It owns the keys. Whether the room's generation may still be entered is for [`crate::rooms`] to say.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use signalbox_protocol::control::{Refusal, RefusalReason};
use signalbox_protocol::ticket::{AUDIENCE, TicketClaims};
use signalbox_protocol::{NodeId, RoomName, Secrets};

use crate::lease::Held;

/// How far the clocks of orchestrator and node may differ, in seconds. Higher: a ticket lives that much longer. Lower: fresh tickets
/// look expired.
pub const LEEWAY_SECONDS: u64 = 5;

/// Checks tickets.
pub struct Tickets {
    keys: Vec<DecodingKey>,
    validation: Validation,
    node: NodeId,
}

impl Tickets {
    /// For a node. A ticket may be signed with any of the secrets.
    pub fn new(secrets: &Secrets, node: NodeId) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_SECONDS;
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "aud"]);
        Self {
            keys: secrets
                .accepted()
                .iter()
                .map(|secret| DecodingKey::from_secret(secret.expose().as_bytes()))
                .collect(),
            validation,
            node,
        }
    }

    /// The claims of a ticket that is good for this room, while the node holds this epoch of this cluster.
    ///
    /// # Errors
    /// [`RefusalReason::Ticket`], with what does not match.
    pub fn check(&self, ticket: &str, room: &RoomName, held: Option<Held>) -> Result<TicketClaims, Refusal> {
        let refuse = |what: &str| Refusal::new(RefusalReason::Ticket, format!("{what}; ask the orchestrator anew."));
        // A signature is an HMAC, which is compared in constant time.
        let claims = self
            .keys
            .iter()
            .find_map(|key| decode::<TicketClaims>(ticket, key, &self.validation).ok())
            .ok_or_else(|| refuse("The ticket is forged, expired or not a ticket"))?
            .claims;
        let held = held.ok_or_else(|| refuse("The node holds no lease at present"))?;
        if claims.cluster != held.cluster {
            return Err(refuse("The ticket is for another cluster"));
        }
        if claims.node != self.node {
            return Err(refuse("The ticket is for another node"));
        }
        if claims.room != *room {
            return Err(refuse("The ticket is for another room"));
        }
        if claims.epoch != held.epoch {
            return Err(refuse("The ticket is for another epoch of the node"));
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use jsonwebtoken::{EncodingKey, Header, encode};
    use signalbox_protocol::{ClusterId, Epoch, Generation};

    use super::*;

    const SECRET: &str = "a cluster secret for tests";
    const NEXT_SECRET: &str = "the one that replaces it";

    fn claims() -> TicketClaims {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        TicketClaims {
            aud: AUDIENCE.into(),
            exp: now + 30,
            cluster: ClusterId::random(),
            room: "daily".parse().unwrap(),
            node: NodeId::random(),
            epoch: Epoch(4),
            generation: Generation(2),
        }
    }

    fn held(good: &TicketClaims) -> Option<Held> {
        Some(Held {
            epoch: good.epoch,
            cluster: good.cluster,
        })
    }

    fn sign(claims: &TicketClaims, secret: &str, algorithm: Algorithm) -> String {
        encode(
            &Header::new(algorithm),
            claims,
            &EncodingKey::from_secret(secret.as_bytes()),
        )
        .unwrap()
    }

    fn tickets(secrets: &str, good: &TicketClaims) -> Tickets {
        Tickets::new(&secrets.parse().unwrap(), good.node)
    }

    #[test]
    fn only_a_genuine_ticket_for_this_cluster_node_epoch_and_room_is_good() {
        let good = claims();
        let tickets = tickets(SECRET, &good);
        let check =
            |claims: &TicketClaims| tickets.check(&sign(claims, SECRET, Algorithm::HS256), &good.room, held(&good));
        assert_eq!(check(&good), Ok(good.clone()));

        let changed = |change: &dyn Fn(&mut TicketClaims)| {
            let mut claims = good.clone();
            change(&mut claims);
            claims
        };
        for (bad, why) in [
            (changed(&|claims| claims.exp -= 60), "expired"),
            (
                changed(&|claims| claims.aud = "signalbox-access".into()),
                "not a ticket",
            ),
            (
                changed(&|claims| claims.cluster = ClusterId::random()),
                "another cluster",
            ),
            (changed(&|claims| claims.node = NodeId::random()), "another node"),
            (
                changed(&|claims| claims.room = "weekly".parse().unwrap()),
                "another room",
            ),
            (changed(&|claims| claims.epoch = Epoch(3)), "another epoch"),
            (changed(&|claims| claims.epoch = Epoch(5)), "another epoch"),
        ] {
            let refusal = check(&bad).unwrap_err();
            assert_eq!(refusal.reason, RefusalReason::Ticket, "{bad:?}");
            assert!(refusal.detail.contains(why), "{why}: {}", refusal.detail);
        }
    }

    #[test]
    fn a_ticket_signed_otherwise_is_refused() {
        let good = claims();
        let tickets = tickets(SECRET, &good);
        let unsigned = "eyJhbGciOiJub25lIn0.e30.";
        for ticket in [
            sign(&good, "another secret of the same kind", Algorithm::HS256),
            sign(&good, SECRET, Algorithm::HS512),
            unsigned.to_owned(),
            String::new(),
            "…".to_owned(),
        ] {
            let refusal = tickets.check(&ticket, &good.room, held(&good)).unwrap_err();
            assert_eq!(refusal.reason, RefusalReason::Ticket);
        }
    }

    #[test]
    fn while_secrets_are_changed_tickets_of_each_are_good() {
        let good = claims();
        let tickets = tickets(&format!("{SECRET},{NEXT_SECRET}"), &good);
        let check = |secret| tickets.check(&sign(&good, secret, Algorithm::HS256), &good.room, held(&good));
        check(SECRET).unwrap();
        check(NEXT_SECRET).unwrap();
        assert!(check("another secret of the same kind").is_err());
    }

    #[test]
    fn without_a_lease_no_ticket_is_good() {
        let good = claims();
        let ticket = sign(&good, SECRET, Algorithm::HS256);
        assert!(tickets(SECRET, &good).check(&ticket, &good.room, None).is_err());
    }
}
