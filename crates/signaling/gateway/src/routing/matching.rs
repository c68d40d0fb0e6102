//! Whether a request is what a rule is for, and if not, why not.

use axum::http::header::{ACCEPT_LANGUAGE, COOKIE, HOST};
use axum::http::{HeaderMap, Uri};
use serde_json::Value;

use super::language;
use super::pattern::Pattern;
use super::rules::{Rule, Rules, When};

/// What rules look at.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    host: Option<&'a str>,
    path: &'a str,
    query: &'a str,
    headers: &'a HeaderMap,
    claims: Option<&'a Value>,
    is_from_proxy: bool,
}

/// How a request's rule was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation<'r> {
    /// The rules that were passed over, in their order, and what did not hold.
    pub passed: Vec<(&'r str, String)>,
    /// The one that counts; none: no rule is for it.
    pub found: Option<&'r Rule>,
}

impl<'a> Facts<'a> {
    /// Of a request: with the claims of its token, if it has one that holds, and whether it comes from a trusted proxy.
    pub fn of(uri: &'a Uri, headers: &'a HeaderMap, claims: Option<&'a Value>, is_from_proxy: bool) -> Self {
        let of_header = || headers.get(HOST)?.to_str().ok();
        Self {
            // HTTP/2 says it in the address.
            host: uri.host().or_else(of_header).map(without_port),
            path: uri.path(),
            query: uri.query().unwrap_or_default(),
            headers,
            claims,
            is_from_proxy,
        }
    }

    fn header(&self, name: &str) -> Vec<&'a str> {
        let values = self.headers.get_all(name).into_iter();
        values.filter_map(|value| value.to_str().ok()).collect()
    }

    fn cookie(&self, name: &str) -> Vec<&'a str> {
        let lines = self
            .headers
            .get_all(COOKIE)
            .into_iter()
            .filter_map(|value| value.to_str().ok());
        let pairs = lines
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        pairs
            .filter(|(other, _)| *other == name)
            .map(|(_, value)| value)
            .collect()
    }

    fn query(&self, name: &str) -> Vec<String> {
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(self.query).unwrap_or_default();
        pairs
            .into_iter()
            .filter(|(other, _)| other == name)
            .map(|(_, value)| value)
            .collect()
    }

    /// A claim's text; of a number or a truth value what JSON writes.
    fn claim(&self, path: &str) -> Option<String> {
        let found = path.split('.').try_fold(self.claims?, |value, name| value.get(name))?;
        match found {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(found.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

impl Rules {
    /// Whether any rule looks at claims, so that tokens have to be checked for them.
    pub fn look_at_claims(&self) -> bool {
        self.rules.iter().any(|rule| !rule.when.claim.is_empty())
    }

    /// The first rule that is for a request.
    pub fn find(&self, facts: &Facts<'_>) -> Option<&Rule> {
        let mut rules = self.rules.iter();
        rules.find(|rule| self.mismatch(&rule.when, facts).is_none())
    }

    /// The same, and why those before it are not.
    pub fn explain(&self, facts: &Facts<'_>) -> Explanation<'_> {
        let mut passed = Vec::new();
        for rule in &self.rules {
            match self.mismatch(&rule.when, facts) {
                None => {
                    return Explanation {
                        passed,
                        found: Some(rule),
                    };
                }
                Some(why) => passed.push((rule.name.as_str(), why)),
            }
        }
        Explanation { passed, found: None }
    }

    /// The first that does not hold.
    fn mismatch(&self, when: &When, facts: &Facts<'_>) -> Option<String> {
        if let Some(path) = &when.path
            && !facts.path.starts_with(path)
        {
            return Some(format!("the path does not begin with `{path}`"));
        }
        if let Some(host) = &when.host
            && !facts.host.is_some_and(|name| host.matches(name))
        {
            return Some(format!("the host is not `{host}`"));
        }
        let absent =
            |kind: &str, name: &str, pattern: &Pattern| Some(format!("the {kind} `{name}` is not `{pattern}`"));
        for (name, pattern) in &when.header {
            if !facts.header(name).iter().any(|value| pattern.matches(value)) {
                return absent("header", name, pattern);
            }
        }
        for (name, pattern) in &when.cookie {
            if !facts.cookie(name).iter().any(|value| pattern.matches(value)) {
                return absent("cookie", name, pattern);
            }
        }
        for (name, pattern) in &when.query {
            if !facts.query(name).iter().any(|value| pattern.matches(value)) {
                return absent("parameter", name, pattern);
            }
        }
        if let Some(wanted) = &when.language {
            let languages = facts.header(ACCEPT_LANGUAGE.as_str());
            let preferred = languages.first().and_then(|header| language::preferred(header));
            if !preferred.is_some_and(|language| language::is_kind_of(language, wanted)) {
                return Some(format!("the preferred language is not `{wanted}`"));
            }
        }
        if !when.country.is_empty() {
            if !facts.is_from_proxy {
                return Some("no trusted proxy says a country".into());
            }
            let said = self
                .country_header
                .as_ref()
                .map(|name| facts.header(name))
                .unwrap_or_default();
            // One that the client had sent would stand before the proxy's.
            let country = said.last().map(|country| country.trim());
            if !country.is_some_and(|country| when.country.iter().any(|wanted| wanted.eq_ignore_ascii_case(country))) {
                return Some(format!("the country is not {}", when.country.join(" or ")));
            }
        }
        for (name, pattern) in &when.claim {
            if !facts.claim(name).is_some_and(|value| pattern.matches(&value)) {
                return absent("claim", name, pattern);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(when: &str) -> Rules {
        let text = format!("country_header='X-Country'\n[[rule]]\nname='it'\nwhen={when}\nthen={{region='eu'}}");
        Rules::parse(&text).unwrap()
    }

    fn matches(when: &str, uri: &str, headers: &[(&'static str, &str)]) -> bool {
        let (uri, claims) = (
            uri.parse().unwrap(),
            json!({"sub": "ann", "attributes": {"plan": "Gold"}, "video": {"roomJoin": true}}),
        );
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        rules(when).find(&Facts::of(&uri, &map, Some(&claims), true)).is_some()
    }

    #[test]
    fn everything_that_a_rule_names_must_hold() {
        let join = "/v1/rooms/daily/join?tier=gold&tier=";
        for (when, headers, expected) in [
            ("{}", [("host", "a.example:443")].as_slice(), true),
            ("{ host = 'a.example' }", &[("host", "A.example:443")], true),
            ("{ host = '*.example' }", &[("host", "a.example.org")], false),
            ("{ path = '/v1/rooms/' }", &[], true),
            ("{ path = '/v1/rooms/daily/', host = 'b' }", &[("host", "a")], false),
            (
                "{ header = { User-Agent = '*Firefox*' } }",
                &[("user-agent", "Mozilla/5.0 Firefox/140.0")],
                true,
            ),
            ("{ header = { User-Agent = '*Firefox*' } }", &[], false),
            ("{ header = { X = 'b' } }", &[("x", "a"), ("x", "b")], true),
            (
                "{ cookie = { group = 'canary' } }",
                &[("cookie", "a=b; group=canary")],
                true,
            ),
            (
                "{ cookie = { group = 'canary' } }",
                &[("cookie", "xgroup=canary; a=group=canary")],
                false,
            ),
            ("{ query = { tier = 'gold' } }", &[], true),
            ("{ query = { tier = 'silver' } }", &[], false),
            ("{ claim = { sub = 'ann' } }", &[], true),
            (
                "{ claim = { 'attributes.plan' = 'gold', 'video.roomJoin' = 'true' } }",
                &[],
                true,
            ),
            ("{ claim = { 'attributes.size' = '*' } }", &[], false),
            ("{ claim = { video = '*' } }", &[], false),
            ("{ language = 'de' }", &[("accept-language", "de-AT,en;q=0.5")], true),
            ("{ language = 'de' }", &[("accept-language", "en,de;q=0.5")], false),
            ("{ country = ['DE'] }", &[("x-country", "de")], true),
            (
                "{ country = ['DE'] }",
                &[("x-country", "DE"), ("x-country", "FR")],
                false,
            ),
        ] {
            assert_eq!(matches(when, join, headers), expected, "{when} {headers:?}");
        }
        assert!(matches(
            "{ host = 'a.example' }",
            "https://a.example/",
            &[("host", "b.example")]
        ));
    }

    #[test]
    fn what_is_not_known_for_sure_does_not_hold() {
        let (uri, mut headers) = ("/".parse().unwrap(), HeaderMap::new());
        headers.insert("x-country", "DE".parse().unwrap());
        let facts = Facts::of(&uri, &headers, None, false);
        assert!(
            rules("{ country = ['DE'] }").find(&facts).is_none(),
            "nobody trusted says so"
        );
        assert!(
            rules("{ claim = { sub = '*' } }").find(&facts).is_none(),
            "no token that holds"
        );
    }

    #[test]
    fn an_explanation_says_why_the_others_were_passed_over() {
        let text = "[[rule]]\nname='a'\nwhen={path='/rtc'}\nthen={region='eu'}\n\
                    [[rule]]\nname='b'\nwhen={header={X='y'}}\nthen={region='us'}\n\
                    [[rule]]\nname='c'\nthen={track='stable'}";
        let (rules, uri, headers) = (Rules::parse(text).unwrap(), "/v1".parse().unwrap(), HeaderMap::new());
        let explained = rules.explain(&Facts::of(&uri, &headers, None, false));
        let passed: Vec<_> = explained
            .passed
            .iter()
            .map(|(rule, why)| (*rule, why.as_str()))
            .collect();
        assert_eq!(
            passed,
            [
                ("a", "the path does not begin with `/rtc`"),
                ("b", "the header `X` is not `y`")
            ]
        );
        assert_eq!(explained.found.map(|rule| rule.name.as_str()), Some("c"));
        let facts = Facts::of(&uri, &headers, None, false);
        assert_eq!(rules.find(&facts), explained.found);
    }
}
