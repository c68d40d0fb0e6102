//! Cookies that only this cluster can have made. One that somebody wrote, or that is from another cluster, counts as none.

use std::time::Duration;

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use signalbox_protocol::Secrets;

use crate::signed::Signatures;

/// How many cookies of one name are looked at. Higher: one that is really ours is found among more that are not. Lower: less work for each request.
const MAX_LOOKED_AT: usize = 4;

/// Makes cookies and reads them.
#[derive(Debug)]
pub(crate) struct Cookies(Signatures);

#[derive(Serialize, Deserialize)]
struct Said {
    value: String,
}

impl Cookies {
    /// Signed with the cluster's secret.
    pub(crate) fn new(secrets: &Secrets) -> Self {
        Self(Signatures::new(secrets))
    }

    /// The value of the request's cookie of this name, if we made it and it has not expired.
    pub(crate) fn get(&self, headers: &HeaderMap, name: &str) -> Option<String> {
        let lines = headers
            .get_all(COOKIE)
            .into_iter()
            .filter_map(|line| line.to_str().ok());
        let pairs = lines
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        let mut named = pairs.filter(|(other, _)| *other == name).take(MAX_LOOKED_AT);
        let said: Said = named.find_map(|(_, signed)| self.0.read(&audience(name), 0, signed))?;
        Some(said.value)
    }

    /// What sets a cookie (`Set-Cookie`, RFC 6265), for browsers to send to this site alone, over TLS alone, and to show to no script. None if it cannot be
    /// signed.
    pub(crate) fn set(&self, name: &str, value: &str, max_age: Duration) -> Option<HeaderValue> {
        let said = Said {
            value: value.to_owned(),
        };
        let signed = self.0.sign(audience(name), max_age, said)?;
        let seconds = max_age.as_secs();
        let cookie = format!("{name}={signed}; Path=/; Max-Age={seconds}; HttpOnly; Secure; SameSite=Lax");
        HeaderValue::try_from(cookie).ok()
    }
}

/// So that no cookie passes for another, nor anything else that is signed for one.
fn audience(name: &str) -> String {
    format!("signalbox-cookie:{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn cookies(secret: &str) -> Cookies {
        Cookies::new(&secret.parse().unwrap())
    }

    fn sent(lines: &[&str]) -> HeaderMap {
        let line = |line: &&str| (COOKIE, HeaderValue::from_str(line).unwrap());
        lines.iter().map(line).collect()
    }

    /// The pair of what is set.
    fn pair(set: &HeaderValue) -> String {
        set.to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    #[test]
    fn what_is_set_is_read_again_among_others() {
        let ours = cookies("0123456789abcdef");
        let set = ours.set("a", "one", HOUR).unwrap();
        let attributes = "; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax";
        assert!(set.to_str().unwrap().ends_with(attributes), "{set:?}");
        let headers = sent(&["x=y; a=forged", &format!("b=; {}", pair(&set))]);
        assert_eq!(ours.get(&headers, "a").as_deref(), Some("one"));
        assert_eq!(ours.get(&headers, "b"), None);
        assert_eq!(ours.get(&HeaderMap::new(), "a"), None);
    }

    #[test]
    fn what_is_forged_or_of_another_cluster_or_name_is_none() {
        let ours = cookies("0123456789abcdef");
        let good = pair(&ours.set("a", "one", HOUR).unwrap());
        let foreign = pair(&cookies("another cluster's").set("a", "one", HOUR).unwrap());
        for bad in [&foreign, &format!("{good}x"), "a=", "a=one", "a"] {
            assert_eq!(ours.get(&sent(&[bad]), "a"), None, "{bad}");
        }
        assert_eq!(ours.get(&sent(&[&good.replacen("a=", "b=", 1)]), "b"), None);
        let flood = ["a=x; a=x; a=x; a=x", &good].join("; ");
        assert_eq!(ours.get(&sent(&[&flood]), "a"), None, "bounded");
    }
}
