//! Joining without a peer connection: the SSRCs, keys and ports with which ffmpeg, GStreamer or any RTP sender is a participant.
//!
//! Owns what such a join says and how it is answered: as JSON, as an SDP file, or as a shell script. The media node makes the keys.
//!
//! | module | |
//! |---|---|
//! | `request` | the join's body |
//! | `answer` | the three forms of the answer |
//! | `session_description` | the SDP file, for receiving |
//! | `examples` | command lines |

mod answer;
mod examples;
mod request;
mod session_description;

pub(crate) use answer::{SrtpAdmission, answer};
pub(crate) use request::{SrtpJoin, spec};
