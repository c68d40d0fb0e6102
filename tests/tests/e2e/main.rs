//! The whole system, through its public surfaces: HTTP, WebSocket and UDP.

mod administration;
mod calls;
mod canary;
mod event_streams;
mod evictions;
mod failover;
mod fencing;
mod first_joins;
mod hostile;
mod http_only;
mod livekit;
mod load_tool;
mod operators;
mod orchestrators;
mod outage;
mod outage_and_loss;
mod placement;
mod processes;
mod rotation;
mod simulcast;
mod srtp_moves;
mod tickets;
mod traces;
mod unreachable;
mod whip;
