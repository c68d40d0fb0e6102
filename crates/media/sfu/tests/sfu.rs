//! The core under a seeded virtual network: no socket, no clock, the same run for the same seed.

mod sfu {
    pub mod camera;
    pub mod client;
    pub mod dual;
    pub mod link;
    pub mod networks;
    pub mod scalable;
    pub mod scenario;
    pub mod screen;
    pub mod srtp_client;
    pub mod srtp_streams;
    mod tunnels;
    pub mod world;

    mod administration;
    mod allocation;
    mod allocations;
    mod bad_media;
    mod courses;
    mod data;
    mod egress;
    mod encodings;
    mod expected;
    mod forwarding;
    mod input;
    mod layers;
    mod limits;
    mod loudest;
    mod membership;
    mod moves;
    mod narrow;
    mod one_offer;
    mod quality;
    mod resume;
    mod resumption;
    mod scenarios;
    mod simulcast;
    mod srtp;
    mod srtp_addresses;
    mod srtp_forgeries;
    mod srtp_joins;
    mod srtp_slots;
}
