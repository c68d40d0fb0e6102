//! Nominations that are lost. A client whose check was answered takes that path, and nominates it with its next check or two (RFC 8445 section 8.1.1). If those are
//! lost, libwebrtc says nothing more for 1.25 s, and until it does, nothing may be sent to it, not even the handshake.
//!
//! So a nomination that has been waited for long enough is taken as given, if all checks of the ICE session came on one path. Else the choice is the client's.

use std::time::{Duration, Instant};

use str0m::Input;
use str0m::crypto::Sha1HmacProvider;
use str0m::ice::StunMessage;
use str0m::net::{Protocol, Receive};

use super::path::Path;
use super::{Connection, Fault};
use crate::stun;
use crate::tunnels::Nomination;

/// How long a nomination is waited for after the last check. Higher: whoever's nomination is lost waits longer. Lower: a path is taken as given that the client has
/// not yet seen an answer on, and what is sent there is answered elsewhere; libwebrtc checks a new path every 50 to 130 ms until then.
const PATIENCE: Duration = Duration::from_millis(150);

/// The longest request that one is made of.
const MAX_REQUEST_BYTES: usize = 1_000;

/// What is known of the nomination of an ICE session.
#[derive(Debug, Default)]
pub struct Nominating {
    /// Our ufrag of the session.
    session: String,
    state: State,
    /// What was taken as the session's nomination.
    given: Option<Nomination>,
}

#[derive(Debug, Default)]
enum State {
    /// No check has come.
    #[default]
    Unchecked,
    /// Checks came on this path, of which none nominates.
    Waiting { path: Path, check: Vec<u8>, due: Instant },
    /// A path was nominated, or there are several to choose from.
    Settled,
}

impl Nominating {
    /// A STUN message of the client's came.
    pub fn stun(&mut self, now: Instant, path: Path, message: &[u8]) {
        // What is no request names nobody.
        let Some(session) = stun::local_ufrag(message) else {
            return;
        };
        if self.session != session {
            session.clone_into(&mut self.session);
            self.state = State::Unchecked;
            self.given = None;
        }
        let is_open = match &self.state {
            State::Unchecked => true,
            State::Waiting { path: before, .. } => *before == path,
            State::Settled => return,
        };
        self.state = match is_open && !stun::nominates(message) && message.len() <= MAX_REQUEST_BYTES {
            true => State::Waiting {
                path,
                check: message.to_vec(),
                due: now + PATIENCE,
            },
            false => State::Settled,
        };
    }

    /// When [`Nominating::take_due`] has something.
    pub fn next_due(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { due, .. } => Some(*due),
            State::Unchecked | State::Settled => None,
        }
    }

    /// The path that is to be taken as nominated, and the last check on it.
    fn take_due(&mut self, now: Instant) -> Option<(Path, Vec<u8>)> {
        self.next_due().filter(|due| *due <= now)?;
        match std::mem::replace(&mut self.state, State::Settled) {
            State::Waiting { path, check, .. } => Some((path, check)),
            State::Unchecked | State::Settled => None,
        }
    }
}

impl Connection {
    /// Takes a path as nominated whose nomination must have been lost.
    pub(super) fn nominate(&mut self, now: Instant) -> Result<(), Fault> {
        let Some((path, check)) = self.nominating.take_due(now) else {
            return Ok(());
        };
        let password = self.rtc.direct_api().local_ice_credentials().pass;
        let Some(nomination) = nomination(&check, password.as_bytes(), self.sha1_hmac) else {
            return Ok(());
        };
        let Ok(receive) = Receive::new(Protocol::Udp, path.to, path.by, &nomination) else {
            return Ok(());
        };
        self.guard(|rtc| rtc.handle_input(Input::Receive(now, receive)))?;
        self.nominating.given = Some(Nomination {
            client: path.to,
            check: nomination,
        });
        Ok(())
    }

    /// The nomination that was made for the client because its own was lost, if its ICE session is still the same.
    pub fn given_nomination(&mut self) -> Option<Nomination> {
        let session = self.ufrag();
        let given = self.nominating.given.as_ref();
        given.filter(|_| self.nominating.session == session).cloned()
    }
}

/// The check with the attribute that nominates; none: it is not authentic, or no check.
fn nomination(check: &[u8], password: &[u8], sha1_hmac: &dyn Sha1HmacProvider) -> Option<Vec<u8>> {
    let sign = |key: &[u8], parts: &[&[u8]]| sha1_hmac.sha1_hmac(key, parts);
    let message = StunMessage::parse(check).ok()?;
    if !message.is_binding_request() || !message.verify(password, sign) {
        return None;
    }
    let (username, tie_breaker) = (message.username()?, message.ice_controlling()?);
    let request = StunMessage::binding_request(username, message.trans_id(), true, tie_breaker, message.prio()?, true);
    let mut bytes = vec![0; MAX_REQUEST_BYTES];
    let length = request.to_bytes(Some(password), &mut bytes, sign).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use std::net::SocketAddr;

    use str0m::ice::TransId;

    use super::*;

    const PASSWORD: &[u8] = b"the node's password of it";

    fn path(port: u16) -> Path {
        let by: SocketAddr = ([192, 0, 2, 1], 7_000).into();
        Path {
            by,
            to: ([198, 51, 100, 7], port).into(),
        }
    }

    fn sha1_hmac() -> &'static dyn Sha1HmacProvider {
        str0m::crypto::from_feature_flags().sha1_hmac_provider
    }

    fn check(session: &str, nominates: bool) -> Vec<u8> {
        let username = format!("{session}:client");
        let request = StunMessage::binding_request(&username, TransId::new(), true, 77, 1_853_824_767, nominates);
        let mut bytes = vec![0; MAX_REQUEST_BYTES];
        let sign = |key: &[u8], parts: &[&[u8]]| sha1_hmac().sha1_hmac(key, parts);
        let length = request.to_bytes(Some(PASSWORD), &mut bytes, sign).unwrap();
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn a_path_that_is_checked_and_not_nominated_is_taken_after_a_while() {
        let (now, mut nominating) = (Instant::now(), Nominating::default());
        let last = check("node", false);
        nominating.stun(now, path(1), &check("node", false));
        nominating.stun(now + PATIENCE / 2, path(1), &last);
        assert_eq!(nominating.take_due(now + PATIENCE), None, "it has just checked again");
        let due = nominating.next_due().unwrap();
        assert_eq!(due, now + PATIENCE / 2 + PATIENCE);
        assert_eq!(nominating.take_due(due), Some((path(1), last)));
        assert_eq!(nominating.take_due(due + PATIENCE), None, "once");
        nominating.stun(due, path(1), &check("node", false));
        assert_eq!(nominating.next_due(), None);
    }

    #[test]
    fn what_the_client_nominates_or_has_to_choose_from_is_left_to_it() {
        let now = Instant::now();
        for (port, nominates) in [(1, true), (2, false)] {
            let mut nominating = Nominating::default();
            nominating.stun(now, path(1), &check("node", false));
            nominating.stun(now, path(port), &check("node", nominates));
            nominating.stun(now, path(1), &check("node", false));
            assert_eq!(nominating.next_due(), None);
            // Another session is another choice.
            nominating.stun(now, path(1), &check("restarted", false));
            assert!(nominating.next_due().is_some());
        }
    }

    #[test]
    fn only_an_authentic_check_is_made_a_nomination() {
        let plain = check("node", false);
        let made = nomination(&plain, PASSWORD, sha1_hmac()).unwrap();
        assert!(stun::nominates(&made) && !stun::nominates(&plain));
        assert_eq!(stun::local_ufrag(&made), Some("node"));
        let message = StunMessage::parse(&made).unwrap();
        assert!(message.verify(PASSWORD, |key, parts| sha1_hmac().sha1_hmac(key, parts)));
        assert_eq!(message.prio(), Some(1_853_824_767));
        assert_eq!(nomination(&plain, b"another password", sha1_hmac()), None);
        assert_eq!(nomination(&plain[..plain.len() - 1], PASSWORD, sha1_hmac()), None);
    }
}
