//! `signalbox canary`: how many users try a new version, and how it does.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Args;
use reqwest::Method;
use signalbox_protocol::canary::{Canary as View, CanaryChange, ChangedBy, Compared, Comparison, SetCanary, Tally};

use crate::orchestrators::Cluster;
use crate::stdout::print;
use crate::table::{Align, or_dash, render};
use crate::when::{short, since, utc};

/// Show or set the canary share: how many users' new rooms go to the nodes of the canary track.
///
/// The orchestrators compare how joins and connections fare on nodes of both tracks, and set the share to 0 when canary nodes do clearly worse.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    signalbox canary                                    the share, and how both tracks do\n  \
    signalbox canary --share 10% --why 'version 1.4.2'  every tenth user's new rooms go to canary nodes\n  \
    signalbox canary --share 0                          nobody's do")]
pub struct Canary {
    #[command(flatten)]
    cluster: Cluster,
    /// Set the share of users, such as 10% or 0.1.
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    share: Option<f64>,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", requires = "share", default_value = "")]
    why: String,
    /// Print the orchestrator's JSON.
    #[arg(long)]
    json: bool,
}

impl Canary {
    /// Sets it if it is to, and prints how it stands.
    pub async fn run(self) -> anyhow::Result<()> {
        let orchestrators = self.cluster.orchestrators()?;
        let (method, body) = match self.share {
            Some(share) => {
                let wanted = SetCanary { share, why: self.why };
                (Method::PUT, Some(serde_json::to_value(wanted)?))
            }
            None => (Method::GET, None),
        };
        let view: Option<View> = orchestrators.call(method, &["canary"], &[], body.as_ref()).await?;
        let view = view.context("the orchestrator knows no canary share; is it of this version?")?;
        if self.json {
            return print(&format!("{}\n", serde_json::to_string_pretty(&view)?));
        }
        print(&text(&view, SystemTime::now()))
    }
}

/// From 0 to 1, of a number or a percentage.
fn parse_share(text: &str) -> Result<f64, String> {
    let (number, whole) = match text.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    let share = number.trim().parse::<f64>().ok().map(|number| number / whole);
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "a share is a number from 0 to 1, or a percentage, such as 0.1 or 10%".to_owned())
}

fn text(view: &View, now: SystemTime) -> String {
    let mut text = format!("canary share {}, {}\n\n", percent(view.share), told(view, now));
    let columns = [
        ("TRACK", Align::Left),
        ("JOINS", Align::Right),
        ("FAILED", Align::Right),
        ("CONNECTIONS", Align::Right),
        ("FAILED", Align::Right),
    ];
    let rows = [("stable", view.stable), ("canary", view.canary)].map(|(track, outcomes)| {
        let (joins, connections) = (outcomes.joins, outcomes.connections);
        [
            track.to_owned(),
            joins.all().to_string(),
            failed(joins),
            connections.all().to_string(),
            failed(connections),
        ]
    });
    text.push_str(&render(columns, rows));
    let window = short(Duration::from_millis(view.window_ms));
    text.push_str(&format!(
        "\nof the last {window}, under this share; on canary nodes joins are {}, connections {}\n",
        word(view.verdict.joins),
        word(view.verdict.connections)
    ));
    if !view.history.is_empty() {
        let columns = [
            ("CHANGED", Align::Left),
            ("FROM", Align::Right),
            ("TO", Align::Right),
            ("BY", Align::Left),
            ("WHY", Align::Left),
        ];
        text.push('\n');
        text.push_str(&render(columns, view.history.iter().map(row)));
    }
    text
}

fn told(view: &View, now: SystemTime) -> String {
    let Some(since_ms) = view.since_ms else {
        return "as the orchestrator was started".to_owned();
    };
    let age = short(since(since_ms, now));
    match view.by {
        ChangedBy::Rollback => format!("taken back {age} ago"),
        ChangedBy::Operator | ChangedBy::Configuration => format!("set {age} ago"),
    }
}

fn row(change: &CanaryChange) -> [String; 5] {
    let by = match change.by {
        ChangedBy::Configuration => "configuration",
        ChangedBy::Operator => "operator",
        ChangedBy::Rollback => "rollback",
    };
    [
        utc(change.at_ms),
        percent(change.from),
        percent(change.to),
        by.to_owned(),
        or_dash(&change.why),
    ]
}

/// In hundredths of a percent, of which the share has no parts.
fn percent(share: f64) -> String {
    format!("{}%", (share * 10_000.0).round() / 100.0)
}

fn failed(tally: Tally) -> String {
    if tally.all() == 0 {
        return "-".to_owned();
    }
    let share = 100.0 * tally.failed as f64 / tally.all() as f64;
    format!("{} ({share:.1}%)", tally.failed)
}

fn word(comparison: Comparison) -> &'static str {
    match comparison.result {
        Compared::TooFew => "too few to tell",
        Compared::Alike => "no worse",
        Compared::Worse => "worse",
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use signalbox_protocol::canary::{CanaryVerdict, Outcomes};

    use super::*;

    #[test]
    fn a_share_is_a_number_or_a_percentage() {
        for (text, share) in [
            ("10%", 0.1),
            ("0.1", 0.1),
            ("0", 0.0),
            ("100%", 1.0),
            ("1", 1.0),
            ("2.5 %", 0.025),
        ] {
            let parsed = parse_share(text).unwrap();
            assert!((parsed - share).abs() < 1e-12, "{text}: {parsed}");
        }
        for text in ["10", "101%", "-1%", "-0.1", "", "%", "a", "nan", "inf"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rollback_is_told_with_its_figures() {
        let comparison = |result| Comparison { result, p: None };
        let view = View {
            share: 0.0,
            by: ChangedBy::Rollback,
            since_ms: Some(1_000),
            why: "joins fail".into(),
            window_ms: 600_000,
            stable: Outcomes {
                joins: Tally { ok: 99, failed: 1 },
                ..Outcomes::default()
            },
            canary: Outcomes::default(),
            verdict: CanaryVerdict {
                joins: comparison(Compared::TooFew),
                connections: comparison(Compared::Worse),
            },
            history: vec![CanaryChange {
                at_ms: 1_000,
                from: 0.125,
                to: 0.0,
                by: ChangedBy::Rollback,
                why: "joins fail".into(),
            }],
        };
        let text = text(&view, UNIX_EPOCH + Duration::from_secs(13));
        assert_eq!(
            text,
            "canary share 0%, taken back 12s ago\n\n\
             TRACK   JOINS    FAILED  CONNECTIONS  FAILED\n\
             stable    100  1 (1.0%)            0       -\n\
             canary      0         -            0       -\n\n\
             of the last 10m, under this share; on canary nodes joins are too few to tell, connections worse\n\n\
             CHANGED                   FROM  TO  BY        WHY\n\
             1970-01-01 00:00:01 UTC  12.5%  0%  rollback  joins fail\n"
        );
    }
}
