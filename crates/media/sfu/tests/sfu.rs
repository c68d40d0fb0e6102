//! The core under a seeded virtual network: no socket, no clock, the same run for the same seed.

mod sfu {
    pub mod client;
    pub mod link;
    pub mod srtp_client;
    pub mod world;

    mod forwarding;
    mod input;
    mod membership;
    mod simulcast;
    mod srtp;
}
