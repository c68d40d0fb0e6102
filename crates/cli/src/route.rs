//! `signalbox route`: which of a gateway's rules a request would meet, without asking it.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use signalbox_gateway::routing::rules::{Rule, Rules, Then};
use signalbox_gateway::routing::{DryRun, load};
use signalbox_protocol::placement::Track;

use crate::exit::Usage;
use crate::stdout::print;
use crate::table::{Align, render};

/// Say which rule of a gateway a request would meet, and why none before it.
///
/// The rules are those that the gateway uses at present, or those of a file that is about to be. Nothing is placed and nobody joins.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    signalbox route --path /v1/rooms/daily/join --header 'Accept-Language: de-AT,en;q=0.5'\n  \
    signalbox route --rules rules.toml --path /rtc --cookie group=canary\n  \
    signalbox route --path '/rtc?tier=gold' --claims '{\"sub\": \"ann\", \"attributes\": {\"plan\": \"gold\"}}' --json")]
pub struct Route {
    /// A file of rules, instead of those that a gateway uses.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// The gateway, by the address that it has for operators.
    #[arg(
        long,
        env = "SIGNALBOX_GATEWAY_ADMIN",
        default_value = "http://127.0.0.1:7882",
        value_name = "URL"
    )]
    gateway: reqwest::Url,
    /// The path that is asked for, with its query if it has one.
    #[arg(long, default_value = "/", value_name = "PATH")]
    path: String,
    /// The host that is asked for.
    #[arg(long, default_value = "localhost", value_name = "HOST")]
    host: String,
    /// A header of the request; may be given several times.
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// A cookie of the request; may be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    cookie: Vec<String>,
    /// What the request's access token says, as if it held.
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// It comes from a proxy that the gateway trusts.
    #[arg(long)]
    from_proxy: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Route {
    /// Prints the explanation.
    pub async fn run(self) -> anyhow::Result<()> {
        let rules = match &self.rules {
            Some(file) => load(file).map_err(Usage)?,
            None => self.in_use().await?,
        };
        let text = self.explain(&rules)?;
        print(&text)
    }

    async fn in_use(&self) -> anyhow::Result<Rules> {
        let url = self.gateway.join("/rules").context("--gateway is no base of a URL")?;
        let asked = async { reqwest::get(url).await?.error_for_status()?.text().await };
        let text = asked.await.map_err(|error| {
            let why = error.without_url();
            Usage(format!(
                "the gateway at {} did not say its rules ({why}); give its operators' address as --gateway, or a file as --rules",
                self.gateway
            ))
        })?;
        Rules::parse(&text)
            .map_err(|wrong| anyhow::anyhow!("the gateway's rules are of another version: {}", wrong.join("; ")))
    }

    fn explain(&self, rules: &Rules) -> anyhow::Result<String> {
        let claims = self.claims.as_deref().map(serde_json::from_str).transpose();
        let claims: Option<Value> = claims.map_err(|error| Usage(format!("--claims: {error}")))?;
        let mut headers = vec![("host".to_owned(), self.host.clone())];
        for header in &self.header {
            let (name, value) = header
                .split_once(':')
                .ok_or_else(|| Usage(format!("--header: `{header}` is not like `Name: value`")))?;
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        headers.extend(self.cookie.iter().map(|cookie| ("cookie".to_owned(), cookie.clone())));
        let request = DryRun {
            uri: self.path.clone(),
            headers,
            claims,
            is_from_proxy: self.from_proxy,
        };
        let request = request.prepare().map_err(Usage)?;
        let explanation = request.explain(rules);
        if self.json {
            let passed = explanation
                .passed
                .iter()
                .map(|(rule, why)| json!({"rule": rule, "why": why}));
            let found = explanation
                .found
                .map(|rule| json!({"rule": rule.name, "then": rule.then}));
            let all = json!({"found": found, "passed": passed.collect::<Vec<_>>()});
            return Ok(format!("{}\n", serde_json::to_string_pretty(&all)?));
        }
        let passed = explanation.passed.iter();
        let rows = passed.map(|(rule, why)| [(*rule).to_owned(), format!("no: {why}")]);
        let rows = rows.chain(explanation.found.map(|rule| [rule.name.clone(), "yes".to_owned()]));
        let table = render([("RULE", Align::Left), ("MATCHES", Align::Left)], rows);
        Ok(format!("{table}\n{}\n", outcome(explanation.found)))
    }
}

fn outcome(rule: Option<&Rule>) -> String {
    let Some(rule) = rule else {
        return "No rule is for it: its room is placed as the cluster is configured.".into();
    };
    let Then {
        region,
        labels,
        track,
        policy,
        respond,
    } = &rule.then;
    if let Some(respond) = respond {
        return format!("It is answered with {}: {}", respond.status, respond.detail);
    }
    let mut wishes = Vec::new();
    wishes.extend(region.as_ref().map(|region| format!("region {region}")));
    wishes.extend(labels.iter().map(|(key, value)| format!("label {key}={value}")));
    wishes.extend(track.map(|track| match track {
        Track::Stable => "track stable".to_owned(),
        Track::Canary => "track canary".to_owned(),
    }));
    wishes.extend(policy.map(|policy| format!("policy {policy}")));
    format!("Its room, if it has no node yet, is placed with {}.", wishes.join(", "))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const RULES: &str = "[[rule]]\nname='testers'\nwhen={cookie={group='canary'}}\nthen={track='canary'}\n\
        [[rule]]\nname='german'\nwhen={path='/v1/',language='de'}\nthen={region='eu',labels={disk='ssd'},policy='packing'}\n\
        [[rule]]\nname='old'\nwhen={path='/v0/'}\nthen={respond={status=410,detail='Use /v1.'}}\n";

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        route: Route,
    }

    fn explained(flags: &[&str]) -> anyhow::Result<String> {
        let line = Line::try_parse_from(["route"].iter().chain(flags)).unwrap();
        line.route.explain(&Rules::parse(RULES).unwrap())
    }

    #[test]
    fn the_rule_is_told_and_why_none_before_it() {
        let text = explained(&["--path=/v1/rooms/a/join", "--header=Accept-Language: de-AT"]).unwrap();
        let expected = "\
RULE     MATCHES
testers  no: the cookie `group` is not `canary`
german   yes

Its room, if it has no node yet, is placed with region eu, label disk=ssd, policy packing.
";
        assert_eq!(text, expected);
        let canary = explained(&["--path=/rtc", "--cookie=a=b", "--cookie=group=canary"]).unwrap();
        assert!(canary.ends_with("placed with track canary.\n"), "{canary}");
        let old = explained(&["--path=/v0/x"]).unwrap();
        assert!(old.ends_with("It is answered with 410: Use /v1.\n"), "{old}");
        let none = explained(&["--path=/rtc"]).unwrap();
        assert!(none.contains("No rule is for it"), "{none}");
    }

    #[test]
    fn the_same_as_json() {
        let text = explained(&["--path=/v0/x", "--json"]).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["found"]["rule"], "old");
        assert_eq!(json["found"]["then"]["respond"]["status"], 410);
        assert_eq!(json["passed"][1]["rule"], "german");
    }

    #[test]
    fn a_request_that_is_none_is_said_to_be() {
        for (flag, said) in [
            ("--header=X", "not like `Name: value`"),
            ("--header=a b: c", "a b"),
            ("--path=no path", "no path"),
            ("--claims={", "--claims"),
        ] {
            let error = explained(&[flag]).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
