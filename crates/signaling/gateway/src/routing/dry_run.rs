//! A request that was never sent, to be asked about.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde_json::Value;

use super::matching::{Explanation, Facts};
use super::rules::Rules;

/// A request, as texts.
#[derive(Debug, Clone, Default)]
pub struct DryRun {
    /// Its path, with its query if it has one.
    pub uri: String,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// What its token says, if it has one that holds.
    pub claims: Option<Value>,
    /// Whether it comes from a trusted proxy.
    pub is_from_proxy: bool,
}

/// The same, read.
#[derive(Debug)]
pub struct Prepared {
    uri: Uri,
    headers: HeaderMap,
    claims: Option<Value>,
    is_from_proxy: bool,
}

impl DryRun {
    /// Reads it.
    ///
    /// # Errors
    /// What of it no request can have.
    pub fn prepare(self) -> Result<Prepared, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            let parsed = name.parse::<HeaderName>().ok().zip(HeaderValue::try_from(value).ok());
            let (name, value) = parsed.ok_or_else(|| format!("`{name}` cannot be a header with this value"))?;
            headers.append(name, value);
        }
        let uri = self
            .uri
            .parse()
            .map_err(|error| format!("`{}` cannot be asked for: {error}", self.uri))?;
        Ok(Prepared {
            uri,
            headers,
            claims: self.claims,
            is_from_proxy: self.is_from_proxy,
        })
    }
}

impl Prepared {
    /// Which rule it would meet, and why none before it.
    pub fn explain<'r>(&self, rules: &'r Rules) -> Explanation<'r> {
        rules.explain(&Facts::of(
            &self.uri,
            &self.headers,
            self.claims.as_ref(),
            self.is_from_proxy,
        ))
    }
}
