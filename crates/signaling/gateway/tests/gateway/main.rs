//! The gateway over real sockets, between a fake orchestrator and a fake media node.

mod cluster;
mod events;
mod fake_node;
mod fake_orchestrator;
mod http;
mod joins;
mod limits;
mod links;
mod orchestrators;
mod reports;
mod srtp;
