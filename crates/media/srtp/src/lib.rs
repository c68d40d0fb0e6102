//! Single packets of SRTP and SRTCP (RFC 3711, RFC 7714), for whoever sends or receives them: keys, encryption, headers, RTCP, and which indices have
//! come. It knows no connection, no clock and no socket.

pub mod cipher;
pub mod keys;
pub mod reporter;
pub mod rtcp;
pub mod rtp;
pub mod window;
