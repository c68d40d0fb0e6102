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

/// The most secrets that are accepted at the same time.
pub const MAX_SECRETS: usize = 4;

/// The cluster's secret, and those that it replaces or will be replaced by: separated by commas, the first one is used and all are
/// accepted. To change it without an interruption restart the processes three times: with `old,new`, with `new,old`, with `new`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets(Vec<Secret>);

impl Secrets {
    /// The one to sign and to authenticate with.
    pub fn current(&self) -> &Secret {
        // Never empty: see `FromStr` and `From`.
        &self.0[0]
    }

    /// Those to accept, the current one first.
    pub fn accepted(&self) -> &[Secret] {
        &self.0
    }
}

impl From<Secret> for Secrets {
    fn from(secret: Secret) -> Self {
        Self(vec![secret])
    }
}

impl FromStr for Secrets {
    type Err = InvalidSecrets;
    fn from_str(text: &str) -> Result<Self, InvalidSecrets> {
        let secrets = text
            .split(',')
            .map(str::parse)
            .collect::<Result<Vec<Secret>, _>>()
            .map_err(InvalidSecrets::TooShort)?;
        if secrets.len() > MAX_SECRETS {
            return Err(InvalidSecrets::TooMany);
        }
        Ok(Self(secrets))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Why [`Secrets`] were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidSecrets {
    /// One of them.
    TooShort(TooShort),
    /// More than [`MAX_SECRETS`].
    TooMany,
}

impl fmt::Display for InvalidSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(error) => write!(f, "{error}; commas separate several secrets"),
            Self::TooMany => write!(f, "at most {MAX_SECRETS} secrets can be accepted at the same time"),
        }
    }
}

impl std::error::Error for InvalidSecrets {}

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

    #[test]
    fn the_first_of_several_secrets_is_used_and_all_are_accepted() {
        let secrets: Secrets = "0123456789abcdef,fedcba9876543210".parse().unwrap();
        assert_eq!(secrets.current().expose(), "0123456789abcdef");
        assert_eq!(secrets.accepted().len(), 2);
        assert_eq!(format!("{secrets:?}"), "…");
        assert_eq!(
            "0123456789abcdef,".parse::<Secrets>(),
            Err(InvalidSecrets::TooShort(TooShort))
        );
        assert_eq!(
            ["0123456789abcdef"; 5].join(",").parse::<Secrets>(),
            Err(InvalidSecrets::TooMany)
        );
    }
}
