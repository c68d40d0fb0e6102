//! A secret that does not show itself.

use std::fmt;
use std::str::FromStr;

/// The fewest bytes that a secret may have: HS256 wants a key as long as its hash for full strength (RFC 7518 section 3.2), and
/// half of it is what existing deployments use.
pub const MIN_SECRET_BYTES: usize = 16;

/// A shared secret: the cluster's, or an API key's. `Debug` and `Display` print `…`, so that no log holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, to sign or to check with.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = TooShort;
    fn from_str(text: &str) -> Result<Self, TooShort> {
        if text.len() < MIN_SECRET_BYTES {
            return Err(TooShort);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The secret has fewer than [`MIN_SECRET_BYTES`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooShort;

impl fmt::Display for TooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a secret must have at least {MIN_SECRET_BYTES} bytes; `openssl rand -base64 32` makes a good one"
        )
    }
}

impl std::error::Error for TooShort {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let secret: Secret = "0123456789abcdef".parse().unwrap();
        assert_eq!(format!("{secret} {secret:?}"), "… …");
        assert_eq!("short".parse::<Secret>(), Err(TooShort));
    }
}
