//! What only this cluster can have written: JWTs (RFC 7519, HS256), signed with its secret.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use signalbox_protocol::Secrets;

/// Signs, and checks what was signed.
pub(crate) struct Signatures {
    signing: EncodingKey,
    accepted: Vec<DecodingKey>,
}

#[derive(Serialize, Deserialize)]
struct Claims<T> {
    aud: String,
    exp: u64,
    #[serde(flatten)]
    said: T,
}

impl Signatures {
    /// With the cluster's secret; those that it replaces are accepted as well.
    pub(crate) fn new(secrets: &Secrets) -> Self {
        Self {
            signing: EncodingKey::from_secret(secrets.current().expose().as_bytes()),
            accepted: secrets
                .accepted()
                .iter()
                .map(|secret| DecodingKey::from_secret(secret.expose().as_bytes()))
                .collect(),
        }
    }

    /// For this audience alone, and for so long. None if it cannot be signed.
    pub(crate) fn sign(&self, audience: String, lifetime: Duration, said: impl Serialize) -> Option<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let claims = Claims {
            aud: audience,
            exp: (now + lifetime).as_secs(),
            said,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing).ok()
    }

    /// What was said to this audience, if the cluster signed it and it holds still, or did so many seconds ago.
    pub(crate) fn read<T: DeserializeOwned>(&self, audience: &str, leeway: u64, signed: &str) -> Option<T> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[audience]);
        validation.leeway = leeway;
        let decode = |key| jsonwebtoken::decode::<Claims<T>>(signed, key, &validation).ok();
        Some(self.accepted.iter().find_map(decode)?.claims.said)
    }
}

impl fmt::Debug for Signatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signatures").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Said {
        word: String,
    }

    fn said() -> Said {
        Said { word: "yes".to_owned() }
    }

    fn signatures(secrets: &str) -> Signatures {
        Signatures::new(&secrets.parse().unwrap())
    }

    #[test]
    fn what_is_forged_foreign_expired_or_for_others_is_nothing() {
        let ours = signatures("0123456789abcdef");
        let read = |signed: &str| ours.read::<Said>("a", 0, signed);
        let good = ours.sign("a".to_owned(), HOUR, said()).unwrap();
        assert_eq!(read(&good), Some(said()));
        let foreign = signatures("another cluster's")
            .sign("a".to_owned(), HOUR, said())
            .unwrap();
        let other = ours.sign("b".to_owned(), HOUR, said()).unwrap();
        // {"alg":"none"} and {"aud":"a","exp":4102444800,"word":"yes"}.
        let unsigned = "eyJhbGciOiJub25lIn0.eyJhdWQiOiJhIiwiZXhwIjo0MTAyNDQ0ODAwLCJ3b3JkIjoieWVzIn0.";
        let [head, body, signature] = good.split('.').collect::<Vec<_>>()[..] else {
            panic!("{good}");
        };
        let swapped = format!("{head}.{}.{signature}", other.split('.').nth(1).unwrap());
        let cut = format!("{head}.{body}.");
        for bad in [&foreign, &other, unsigned, &swapped, &cut, "", "yes"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let claims = Claims {
            aud: "a".to_owned(),
            exp: (now - Duration::from_secs(10)).as_secs(),
            said: said(),
        };
        let expired = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &ours.signing).unwrap();
        assert_eq!(read(&expired), None);
        assert_eq!(ours.read("a", 60, &expired), Some(said()));
    }

    #[test]
    fn while_the_secret_changes_both_are_accepted() {
        let old = signatures("0123456789abcdef")
            .sign("a".to_owned(), HOUR, said())
            .unwrap();
        let both = signatures("fedcba9876543210,0123456789abcdef");
        assert_eq!(both.read("a", 0, &old), Some(said()));
        let new = both.sign("a".to_owned(), HOUR, said()).unwrap();
        assert_eq!(signatures("fedcba9876543210").read("a", 0, &new), Some(said()));
    }
}
