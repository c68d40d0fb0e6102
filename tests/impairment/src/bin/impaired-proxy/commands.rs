//! What can be asked of the proxy, one line of JSON each, and what it answers.
//!
//! - `{"set":{"ports":[5000],"up":{…},"down":{…}}}` impairs the clients of these ports, now and when they come; without `ports` all others.
//!   A direction that is not named stays as it is. The answer is `{"set":1}`: how many clients are there that it changes.
//! - `"stats"` is answered by `{"at_ms":…,"clients":[{"client":"IP:PORT","up":{…},"down":{…}}]}`, all since the start.
//! - What is not understood is answered by `{"error":"…"}`.

use std::time::Duration;

use impairment::{Burst, Counts, Impairment};
use serde::{Deserialize, Serialize};

/// A line of input.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Change what becomes of datagrams.
    Set(Box<Set>),
    /// Tell what has become of them.
    Stats,
}

/// Whom to impair, and how.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// The UDP ports of clients, or those that the upstream sees them at, which is what they learn from STUN; none: all clients that are
    /// not named by another command.
    pub ports: Option<Vec<u16>>,
    /// From the clients.
    pub up: Option<Settings>,
    /// To the clients.
    pub down: Option<Settings>,
}

/// An [`Impairment`]; what is left out is off.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    loss: f64,
    burst: Option<BurstSettings>,
    delay_ms: u64,
    jitter_ms: u64,
    capacity_bps: Option<u64>,
    queue_ms: Option<u64>,
    duplicate: f64,
    reorder: f64,
    hold_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct BurstSettings {
    share: f64,
    length: f64,
}

impl Settings {
    /// The same as the link wants it; an error: a share is none.
    pub fn impairment(self) -> Result<Impairment, String> {
        let share = |name: &str, value: f64, below: f64| match (0.0..=below).contains(&value) {
            true => Ok(value),
            false => Err(format!("{name} must be from 0 to {below}, not {value}")),
        };
        let burst = match self.burst {
            Some(BurstSettings { share: lost, length }) => Some(Burst {
                share: share("burst.share", lost, 0.95)?,
                length: length.max(1.0),
            }),
            None => None,
        };
        Ok(Impairment {
            loss: share("loss", self.loss, 1.0)?,
            burst,
            delay: Duration::from_millis(self.delay_ms),
            jitter: Duration::from_millis(self.jitter_ms),
            capacity: self.capacity_bps,
            queue: self.queue_ms.map_or(Impairment::NONE.queue, Duration::from_millis),
            duplicate: share("duplicate", self.duplicate, 1.0)?,
            reorder: share("reorder", self.reorder, 1.0)?,
            hold: self.hold_ms.map_or(Impairment::NONE.hold, Duration::from_millis),
        })
    }
}

/// The answer to [`Command::Stats`].
#[derive(Debug, Serialize)]
pub struct Statistics {
    /// Milliseconds since the start.
    pub at_ms: u64,
    /// In the order in which they came.
    pub clients: Vec<ClientStatistics>,
}

/// What has become of one client's datagrams.
#[derive(Debug, Serialize)]
pub struct ClientStatistics {
    /// Its address.
    pub client: String,
    /// The address that the upstream sees it at.
    pub outside: String,
    /// From it.
    pub up: Tally,
    /// To it.
    pub down: Tally,
}

/// [`Counts`], as they are told.
#[derive(Debug, Serialize)]
pub struct Tally {
    offered: u64,
    offered_bytes: u64,
    delivered: u64,
    delivered_bytes: u64,
    lost: u64,
    overflowed: u64,
}

impl From<Counts> for Tally {
    fn from(counts: Counts) -> Self {
        let Counts {
            offered,
            offered_bytes,
            delivered,
            delivered_bytes,
            lost,
            overflowed,
        } = counts;
        Self {
            offered,
            offered_bytes,
            delivered,
            delivered_bytes,
            lost,
            overflowed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_to_do() {
        let line =
            r#"{"set":{"ports":[5000],"down":{"capacity_bps":400000,"loss":0.05,"burst":{"share":0.2,"length":5}}}}"#;
        let Ok(Command::Set(set)) = serde_json::from_str(line) else {
            panic!("not understood");
        };
        assert_eq!((set.ports, set.up), (Some(vec![5_000]), None));
        let impairment = set.down.unwrap().impairment().unwrap();
        assert_eq!((impairment.capacity, impairment.loss), (Some(400_000), 0.05));
        assert_eq!(impairment.delay, Duration::ZERO);
        assert_eq!(serde_json::from_str::<Command>(r#""stats""#).unwrap(), Command::Stats);
    }

    #[test]
    fn a_wrong_word_or_share_is_refused() {
        assert!(serde_json::from_str::<Command>(r#"{"set":{"down":{"lost":0.05}}}"#).is_err());
        let settings = Settings {
            loss: 5.0,
            ..Settings::default()
        };
        assert_eq!(settings.impairment(), Err("loss must be from 0 to 1, not 5".to_owned()));
    }
}
