//! Listeners that the process was started with (socket activation, `sd_listen_fds(3)`): they are open before it runs and while it restarts, and may be at ports
//! that it has no right to open itself.
//!
//! Named (`FileDescriptorName=`) `operators` and `redirect` they are for those; under any other name for clients.

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;

/// What there is of them.
#[derive(Debug, Default)]
pub struct Inherited {
    /// For clients.
    pub clients: Option<TcpListener>,
    /// For operators.
    pub operators: Option<TcpListener>,
    /// For clients without TLS.
    pub redirect: Option<TcpListener>,
}

impl Inherited {
    /// Takes them. To be called once, before anything else is opened.
    ///
    /// # Errors
    /// When one is no TCP listener, or two are for the same.
    pub fn take() -> io::Result<Self> {
        // They are gone from the environment afterwards.
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut given = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..given.len() {
            let name = names.next().unwrap_or_default();
            let place = match name {
                "operators" => &mut inherited.operators,
                "redirect" => &mut inherited.redirect,
                _ => &mut inherited.clients,
            };
            let listener = given.take_tcp_listener(index)?;
            if place.is_some() {
                let text = format!("two sockets were given for the same; {name} is one too many");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            *place = listener;
        }
        Ok(inherited)
    }
}
