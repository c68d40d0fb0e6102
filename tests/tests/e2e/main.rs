//! The whole system, through its public surfaces: HTTP, WebSocket and UDP.

mod calls;
mod evictions;
mod hostile;
mod http_only;
mod livekit;
mod placement;
mod processes;
mod simulcast;
mod tickets;
