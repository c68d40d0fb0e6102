//! Everything that crosses a wire between Signalbox's processes, and the ids.
//!
//! The two tiers, signaling and media, never import each other: they meet only in the types of this crate. Each wire type is
//! declared once, here, and its JSON is pinned by a test beside it. The crate holds data and the checks that make it valid; it
//! opens no socket, reads no clock and signs nothing.
//!
//! | module | wire |
//! |---|---|
//! | [`control`] | gateway ↔ media node: one WebSocket per pair, JSON frames |
//! | [`placement`] | gateway → orchestrator: where rooms are; HTTP, JSON |
//! | [`node`] | media node → orchestrator: leases and load; HTTP, JSON |
//! | [`canary`] | gateway → orchestrator, and operators: the canary share, and how both tracks do; HTTP, JSON |
//! | [`history`] | why a room is where it is, for operators |
//! | [`ticket`] | what the orchestrator signs and the media node checks |
//! | [`token`] | what an application signs and the gateway checks |
//! | [`problem`] | every HTTP error (RFC 9457) |
//! | [`tunnel`] | media node ↔ media node: datagrams of clients whose room moves; UDP. Its [`tunnel::Tunnel`] is part of `control` |
//! | [`srtp`] | part of `control`: the streams of clients without a peer connection |
//! | [`trace`] | all of the above between our processes: which trace a request belongs to |
//! | `openapi` | how the HTTP ones are described to programs (a feature) |
//! | [`secret`] | none: what signs the above |
//! | [`room`] | rooms, participants, tracks: the one domain model that all of the above share |

pub mod canary;
pub mod control;
pub mod history;
pub mod id;
pub mod node;
#[cfg(feature = "openapi")]
pub mod openapi;
pub mod placement;
pub mod problem;
pub mod room;
pub mod secret;
pub mod srtp;
pub mod ticket;
pub mod token;
pub mod trace;
pub mod tunnel;

pub use id::{ClusterId, Epoch, Generation, Identity, NodeId, ParticipantId, RoomName, TrackId};
pub use secret::{Secret, Secrets};
