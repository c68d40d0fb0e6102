//! The gateway over real sockets, between a fake orchestrator and a fake media node.

mod administration;
mod cluster;
mod cors;
mod events;
mod fake_node;
mod fake_orchestrator;
mod figures;
mod front;
mod http;
mod joins;
mod limits;
mod links;
mod moves;
mod openapi;
mod orchestrators;
mod reports;
mod resuming;
mod rules;
mod signals;
mod srtp;
mod tls_client;
mod token_limits;
mod traces;
mod whep;
mod whip;
