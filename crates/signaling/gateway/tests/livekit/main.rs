//! The LiveKit dialect over real sockets, between a fake orchestrator and a fake media node.

mod client;
mod cluster;
mod connecting;
mod ending;
mod moving;
mod signaling;
