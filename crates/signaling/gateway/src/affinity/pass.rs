//! What a gateway says when it brings a client to another: signed, and naming both.
//!
//! Nobody else can say whom a request is from, and a request that was brought is never brought on.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use signalbox_protocol::Secrets;

use crate::signed::Signatures;

/// Where it stands.
pub(super) const HEADER: HeaderName = HeaderName::from_static("signalbox-brought");

/// How long one is good for. Higher: one that was seen on the way can be used for longer. Lower: clocks have to agree better.
const LIFETIME: Duration = Duration::from_secs(30);

/// How far clocks may be apart, in seconds.
const LEEWAY_SECONDS: u64 = 30;

#[derive(Serialize, Deserialize)]
struct Said {
    /// Whom the request is from.
    client: IpAddr,
}

/// Writes passes and takes them.
#[derive(Debug)]
pub(super) struct Passes {
    signatures: Signatures,
    audience: String,
}

impl Passes {
    /// Of the gateway of this name.
    pub(super) fn new(own: &str, secrets: &Secrets) -> Self {
        Self {
            signatures: Signatures::new(secrets),
            audience: audience(own),
        }
    }

    /// For the gateway of this name, to bring it a client. None if it cannot be signed.
    pub(super) fn write(&self, to: &str, client: IpAddr) -> Option<HeaderValue> {
        let signed = self.signatures.sign(audience(to), LIFETIME, Said { client })?;
        HeaderValue::try_from(signed).ok()
    }

    /// For the gateway of this name, to ask it something of our own.
    pub(super) fn probe(&self, to: &str) -> Option<HeaderValue> {
        self.write(to, Ipv4Addr::UNSPECIFIED.into())
    }

    /// Takes it from a request: whom that is from. None if it has none for us.
    pub(super) fn take(&self, headers: &mut HeaderMap) -> Option<IpAddr> {
        let signed = headers.remove(HEADER)?;
        let said: Said = self
            .signatures
            .read(&self.audience, LEEWAY_SECONDS, signed.to_str().ok()?)?;
        Some(said.client)
    }
}

fn audience(gateway: &str) -> String {
    format!("signalbox-gateway:{gateway}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_knows_the_secret_says_whom_a_request_is_from() {
        let passes = |own, secret: &str| Passes::new(own, &secret.parse().unwrap());
        let (a, b) = (passes("a", "0123456789abcdef"), passes("b", "0123456789abcdef"));
        let foreign = passes("a", "another cluster's");
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let read = |at: &Passes, pass: HeaderValue| {
            let mut headers = HeaderMap::from_iter([(HEADER, pass)]);
            let read = at.take(&mut headers);
            assert!(headers.is_empty());
            read
        };
        assert_eq!(read(&b, a.write("b", client).unwrap()), Some(client));
        assert_eq!(read(&a, a.write("b", client).unwrap()), None, "it is for another");
        assert_eq!(read(&b, foreign.write("b", client).unwrap()), None);
        assert_eq!(read(&b, HeaderValue::from_static("192.0.2.1")), None);
        assert_eq!(b.take(&mut HeaderMap::new()), None);
    }
}
