//! The rules as a file has them, and what is wrong with them.
//!
//! ```toml
//! regions = ["eu", "us"]
//! country_header = "CF-IPCountry"
//!
//! [[rule]]
//! name = "testers"
//! when = { cookie = { group = "canary" } }
//! then = { track = "canary" }
//!
//! [[rule]]
//! name = "german"
//! when = { path = "/v1/rooms/", language = "de" }
//! then = { region = "eu", labels = { disk = "ssd" }, policy = "packing" }
//!
//! [[rule]]
//! name = "retired"
//! when = { path = "/v0/" }
//! then = { respond = { status = 410, detail = "Version 0 of the API is no more; use /v1." } }
//! ```

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{HeaderName, StatusCode};
use serde::{Deserialize, Serialize};
use signalbox_protocol::placement::{MAX_LABELS, MAX_TEXT_BYTES, Policy, Track};

use super::pattern::Pattern;

/// How many rules there may be, as each may be looked at for each request.
const MAX_RULES: usize = 1_000;

/// All rules: the first that matches a request is the one that counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// The regions that rules may name; empty: any.
    #[serde(default)]
    pub regions: Vec<String>,
    /// The header in which a trusted proxy says the client's country, as two letters (ISO 3166-1).
    #[serde(default)]
    pub country_header: Option<String>,
    /// The rules.
    #[serde(default, rename = "rule")]
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Names it in explanations and in what is known of a room.
    pub name: String,
    /// Which requests it is for; all of it must hold, and nothing: for all.
    #[serde(default)]
    pub when: When,
    /// What becomes of them.
    pub then: Then,
}

/// Which requests a rule is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// The host that is asked for, without its port.
    #[serde(default)]
    pub host: Option<Pattern>,
    /// What the path begins with, as it was sent.
    #[serde(default)]
    pub path: Option<String>,
    /// Headers, by name.
    #[serde(default)]
    pub header: BTreeMap<String, Pattern>,
    /// Cookies, by name.
    #[serde(default)]
    pub cookie: BTreeMap<String, Pattern>,
    /// Parameters of the query, by name.
    #[serde(default)]
    pub query: BTreeMap<String, Pattern>,
    /// Claims of a token that holds, by name, or by names with dots between them: `attributes.plan`.
    #[serde(default)]
    pub claim: BTreeMap<String, Pattern>,
    /// The language that the client prefers (`Accept-Language`): itself or a kind of it, so that `de` is `de-AT` too.
    #[serde(default)]
    pub language: Option<String>,
    /// The countries that a trusted proxy says the client to be in.
    #[serde(default)]
    pub country: Vec<String>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Then {
    /// The region that its room is to be in, if it has to be placed.
    #[serde(default)]
    pub region: Option<String>,
    /// Labels that the room's node must have.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The group of nodes.
    #[serde(default)]
    pub track: Option<Track>,
    /// How the node is chosen.
    #[serde(default)]
    pub policy: Option<Policy>,
    /// It is answered so, and goes no further.
    #[serde(default)]
    pub respond: Option<Respond>,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// 400 to 599.
    pub status: u16,
    /// What the client can do, as a sentence.
    pub detail: String,
}

impl Rules {
    /// Reads and checks them.
    ///
    /// # Errors
    /// Everything that is wrong with them, a sentence without its full stop each.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let rules: Self = toml::from_str(text).map_err(|error| vec![error.to_string().trim_end().to_owned()])?;
        let wrong = rules.wrong();
        if wrong.is_empty() { Ok(rules) } else { Err(wrong) }
    }

    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.rules.len() > MAX_RULES {
            wrong.push(format!(
                "there are {} rules; at most {MAX_RULES} may be there",
                self.rules.len()
            ));
            return wrong;
        }
        if let Some(header) = &self.country_header
            && header.parse::<HeaderName>().is_err()
        {
            wrong.push(format!("country_header: `{header}` is no name of a header"));
        }
        let mut names = BTreeSet::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let mut say = |what: String| wrong.push(format!("rule {} (`{}`): {what}", index + 1, rule.name));
            if rule.name.is_empty() || rule.name.len() > MAX_TEXT_BYTES {
                say(format!("its name must have 1 to {MAX_TEXT_BYTES} bytes"));
            } else if !names.insert(&rule.name) {
                say("another rule has this name".into());
            }
            rule.when
                .wrong(self.country_header.is_some())
                .into_iter()
                .for_each(&mut say);
            rule.then.wrong(&self.regions).into_iter().for_each(&mut say);
            let earlier = self
                .rules
                .iter()
                .take(index)
                .find(|earlier| earlier.when.covers(&rule.when));
            if let Some(earlier) = earlier {
                say(format!(
                    "it is never reached, since `{}` matches whatever it matches and comes first; move it up or take it out",
                    earlier.name
                ));
            }
        }
        wrong
    }
}

impl When {
    fn wrong(&self, says_countries: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(path) = &self.path
            && !path.starts_with('/')
        {
            wrong.push(format!("path: `{path}` does not begin with `/`"));
        }
        for name in self.header.keys() {
            if name.parse::<HeaderName>().is_err() {
                wrong.push(format!("header: `{name}` is no name of a header"));
            }
        }
        if !self.country.is_empty() && !says_countries {
            wrong.push("country: say in `country_header` which header tells it".into());
        }
        for country in &self.country {
            if country.len() != 2 || !country.bytes().all(|byte| byte.is_ascii_uppercase()) {
                wrong.push(format!("country: `{country}` is not two capital letters"));
            }
        }
        if let Some(language) = &self.language
            && (language.is_empty()
                || !language
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
        {
            wrong.push(format!(
                "language: `{language}` is no name of a language, such as `de` or `pt-BR`"
            ));
        }
        wrong
    }

    /// Whether every request that the other one is for this one is for too.
    fn covers(&self, other: &Self) -> bool {
        let pattern = |own: &Option<Pattern>, other: &Option<Pattern>| match (own, other) {
            (None, _) => true,
            (Some(own), Some(other)) => own.covers(other),
            (Some(_), None) => false,
        };
        let path = self
            .path
            .as_ref()
            .is_none_or(|own| other.path.as_ref().is_some_and(|other| other.starts_with(own)));
        let language = self.language.as_ref().is_none_or(|own| {
            let other = other.language.as_ref();
            other.is_some_and(|other| super::language::is_kind_of(other, own))
        });
        let is_within = |country| self.country.contains(country);
        let country = self.country.is_empty() || !other.country.is_empty() && other.country.iter().all(is_within);
        pattern(&self.host, &other.host)
            && path
            && all_cover(&self.header, &other.header, |one, other| {
                one.eq_ignore_ascii_case(other)
            })
            && all_cover(&self.cookie, &other.cookie, |one, other| one == other)
            && all_cover(&self.query, &other.query, |one, other| one == other)
            && all_cover(&self.claim, &other.claim, |one, other| one == other)
            && language
            && country
    }
}

fn all_cover(
    own: &BTreeMap<String, Pattern>,
    others: &BTreeMap<String, Pattern>,
    is_same: impl Fn(&str, &str) -> bool,
) -> bool {
    own.iter().all(|(name, pattern)| {
        let mut others = others.iter();
        others.any(|(other_name, other)| is_same(name, other_name) && pattern.covers(other))
    })
}

impl Then {
    fn wrong(&self, regions: &[String]) -> Vec<String> {
        let mut wrong = Vec::new();
        if *self == Self::default() {
            wrong.push("then: it says nothing; give a region, labels, a track, a policy, or respond".into());
        }
        if let Some(region) = &self.region
            && !regions.is_empty()
            && !regions.contains(region)
        {
            wrong.push(format!("region: there is no `{region}` among `regions`"));
        }
        let texts = self
            .labels
            .iter()
            .flat_map(|(key, value)| [key, value])
            .chain(&self.region);
        if self.labels.len() > MAX_LABELS || texts.into_iter().any(|text| text.len() > MAX_TEXT_BYTES) {
            wrong.push(format!(
                "at most {MAX_LABELS} labels, and texts of at most {MAX_TEXT_BYTES} bytes"
            ));
        }
        if let Some(respond) = &self.respond {
            let status = StatusCode::from_u16(respond.status).ok();
            if !status.is_some_and(|status| status.is_client_error() || status.is_server_error()) {
                wrong.push(format!("respond: {} is no status of 400 to 599", respond.status));
            }
            let places = Self {
                respond: None,
                ..self.clone()
            };
            if places != Self::default() {
                wrong.push("respond: what is answered at once is not placed; take out the rest".into());
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        Rules::parse(text).unwrap_err().join("\n")
    }

    #[test]
    fn what_the_documentation_shows_can_be_read() {
        let text: String = include_str!("rules.rs")
            .lines()
            .map_while(|line| line.strip_prefix("//!"))
            .skip_while(|line| !line.contains("```toml"))
            .skip(1)
            .take_while(|line| !line.contains("```"))
            .flat_map(|line| [line.trim_start(), "\n"])
            .collect();
        let rules = Rules::parse(&text).unwrap();
        assert_eq!(rules.rules.len(), 3);
        assert_eq!(rules.rules[1].then.policy, Some(Policy::Packing));
        assert_eq!(Rules::parse("").unwrap(), Rules::default());
    }

    #[test]
    fn whatever_is_wrong_is_said_with_the_rule_it_is_in() {
        let rule = |when: &str, then: &str| format!("regions=['eu']\n[[rule]]\nname='x'\nwhen={when}\nthen={then}");
        for (when, then, expected) in [
            ("{ path = 'v1' }", "{ region = 'eu' }", "`v1` does not begin"),
            ("{}", "{ region = 'mars' }", "no `mars` among"),
            ("{}", "{}", "says nothing"),
            ("{ header = { 'a b' = 'x' } }", "{ region = 'eu' }", "`a b` is no name"),
            (
                "{ header = { a = 'x*y' } }",
                "{ region = 'eu' }",
                "only at its beginning",
            ),
            ("{ country = ['DE'] }", "{ region = 'eu' }", "country_header"),
            ("{ language = 'de,en' }", "{ region = 'eu' }", "no name of a language"),
            ("{}", "{ respond = { status = 200, detail = 'x' } }", "200 is no status"),
            (
                "{}",
                "{ region = 'eu', respond = { status = 410, detail = 'x' } }",
                "not placed",
            ),
            ("{}", "{ track = 'beta' }", "canary"),
            ("{}", "{ policy = 'best' }", "two-choices"),
            ("{ pth = '/' }", "{ region = 'eu' }", "pth"),
        ] {
            let said = wrong(&rule(when, then));
            assert!(said.contains(expected), "{said}");
        }
        let twice = format!(
            "{}\n[[rule]]\nname='x'\nwhen={{path='/'}}\nthen={{region='eu'}}",
            rule("{ path = '/v1' }", "{ region = 'eu' }")
        );
        assert!(
            wrong(&twice).starts_with("rule 2 (`x`): another rule"),
            "{}",
            wrong(&twice)
        );
        assert!(wrong("[[rule]").contains("line 1"));
        let many = "[[rule]]\nname='x'\nthen={region='eu'}\n".repeat(MAX_RULES + 1);
        assert!(wrong(&many).contains("at most 1000"));
    }

    #[test]
    fn a_rule_that_is_never_reached_is_wrong() {
        let both = |first: &str, second: &str| {
            let rule = |name: &str, when: &str| format!("[[rule]]\nname='{name}'\nwhen={when}\nthen={{region='eu'}}\n");
            Rules::parse(&format!(
                "country_header='c'\n{}{}",
                rule("first", first),
                rule("second", second)
            ))
        };
        for (first, second) in [
            ("{}", "{ path = '/v1/' }"),
            ("{ path = '/v1' }", "{ path = '/v1/rooms' }"),
            ("{ header = { A = 'x*' } }", "{ header = { a = 'xy' }, path = '/' }"),
            ("{ language = 'de' }", "{ language = 'de-AT' }"),
            ("{ country = ['DE', 'AT'] }", "{ country = ['AT'] }"),
            ("{ cookie = { group = '*' } }", "{ cookie = { group = 'canary' } }"),
        ] {
            let said = both(first, second).unwrap_err().join("\n");
            assert!(
                said.contains("rule 2 (`second`): it is never reached, since `first`"),
                "{said}"
            );
            assert!(both(second, first).is_ok(), "{first} {second}");
        }
        assert!(both("{ query = { a = 'x' } }", "{ cookie = { a = 'x' } }").is_ok());
    }
}
