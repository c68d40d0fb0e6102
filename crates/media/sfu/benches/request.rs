//! What all joins of benchmarks have in common.

use signalbox_protocol::control::{Join, Transports};
use signalbox_protocol::room::Grants;

/// A join that brings nothing and subscribes to nothing.
pub fn request(identity: &str) -> Join {
    Join {
        limits: Default::default(),
        ticket: String::new(),
        room: "measured".parse().unwrap(),
        identity: identity.parse().unwrap(),
        name: String::new(),
        metadata: String::new(),
        attributes: Default::default(),
        grants: Grants::default(),
        transports: Transports::Single,
        auto_subscribe: false,
        never_pause: false,
        attach: true,
        publish: Vec::new(),
        offer: None,
        one_offer: None,
        srtp: None,
        dialect_info: None,
        resume: None,
    }
}
