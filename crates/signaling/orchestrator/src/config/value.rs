//! The values of flags that need more than the standard parsers.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};
use signalbox_protocol::Secrets;
use signalbox_protocol::placement::MAX_TEXT_BYTES;

/// The longest name of an orchestrator, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// A database's URL. It may hold a password, so `Debug` prints `…`.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The URL itself, to connect with.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatabaseUrl {
    type Err = std::convert::Infallible;
    /// Takes any text: whoever refuses it later does so without repeating it, which the command line's parser would
    /// not.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The regions that the rooms of one region go to when it is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    /// The region.
    pub region: String,
    /// The others, nearest first.
    pub others: Vec<String>,
}

impl FromStr for Near {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (region, others) = text
            .split_once('=')
            .ok_or("write a region, =, and the others nearest first, such as eu=us,ap")?;
        let mut names = vec![region];
        for name in others.split(',') {
            if names.contains(&name) {
                return Err("it names a region twice");
            }
            names.push(name);
        }
        if names.iter().any(|name| name.is_empty() || name.len() > MAX_TEXT_BYTES) {
            return Err("the name of a region has 1 to 256 bytes");
        }
        Ok(Self {
            region: region.to_owned(),
            others: names.into_iter().skip(1).map(str::to_owned).collect(),
        })
    }
}

/// Parses the cluster's secrets. What clap says of a value that it refuses repeats the value; this does not.
#[derive(Debug, Clone)]
pub struct SecretsParser;

impl TypedValueParser for SecretsParser {
    type Value = Secrets;

    fn parse_ref(&self, cmd: &Command, _: Option<&Arg>, value: &OsStr) -> Result<Secrets, clap::Error> {
        let refuse = |why: &dyn fmt::Display| {
            clap::Error::raw(ErrorKind::ValueValidation, format!("--cluster-secret: {why}\n")).with_cmd(cmd)
        };
        let text = value.to_str().ok_or_else(|| refuse(&"it must be UTF-8"))?;
        text.parse().map_err(|error| refuse(&error))
    }
}

/// The name of an orchestrator.
pub fn name(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() || text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control) {
        return Err("a name has 1 to 128 bytes, all of them printable");
    }
    Ok(text.to_owned())
}

/// A share of a whole.
pub fn share(text: &str) -> Result<f64, &'static str> {
    within(text, 0.0..=1.0, "a share is a number from 0 to 1")
}

/// A share that may exceed the whole.
pub fn slack(text: &str) -> Result<f64, &'static str> {
    within(text, 0.0..=10.0, "slack is a number from 0 to 10")
}

/// How many participants are expected.
pub fn participants(text: &str) -> Result<f64, &'static str> {
    within(text, 0.1..=100_000.0, "it must be a number from 0.1 to 100000")
}

fn within(text: &str, range: std::ops::RangeInclusive<f64>, or: &'static str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|value| range.contains(value)).ok_or(or)
}
