//! A media node with a fake orchestrator and fake gateways, over real sockets.

mod cluster;
mod control;
mod drains;
mod events;
mod lease;
mod moves;
mod orchestrator;
mod rooms;
mod supervisor;
mod udp;
