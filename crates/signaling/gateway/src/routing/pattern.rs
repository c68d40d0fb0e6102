//! What a rule compares texts with: `text`, `begins*`, `*ends`, `*contains*`, or `*`, whatever the case of letters.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// A pattern. A `*` means whatever there is, but not nothing at all: an absent header matches no pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// In lower case.
    text: String,
    is_open_before: bool,
    is_open_behind: bool,
}

impl Pattern {
    /// From its text.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence without its full stop.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "*" {
            return Ok(Self {
                text: String::new(),
                is_open_before: true,
                is_open_behind: true,
            });
        }
        let (before, rest) = text.strip_prefix('*').map_or((false, text), |rest| (true, rest));
        let (behind, rest) = rest.strip_suffix('*').map_or((false, rest), |rest| (true, rest));
        if rest.contains('*') {
            return Err("a pattern may have a `*` only at its beginning and its end");
        }
        if rest.is_empty() {
            return Err("a pattern must not be empty; `*` matches whatever there is");
        }
        Ok(Self {
            text: rest.to_lowercase(),
            is_open_before: before,
            is_open_behind: behind,
        })
    }

    /// Whether a text is of this kind.
    pub fn matches(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        match (self.is_open_before, self.is_open_behind) {
            (false, false) => text == self.text,
            (false, true) => text.starts_with(&self.text),
            (true, false) => text.ends_with(&self.text),
            (true, true) => text.contains(&self.text),
        }
    }

    /// Whether every text that matches the other one matches this one too.
    pub fn covers(&self, other: &Self) -> bool {
        let is_wide_enough = |open: bool, other_open: bool| open || !other_open;
        // `a*` covers `ab` and `abc*`, but not `*abc`, whose matches may begin otherwise.
        is_wide_enough(self.is_open_before, other.is_open_before)
            && is_wide_enough(self.is_open_behind, other.is_open_behind)
            && self.matches(&other.text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = |is_open| if is_open { "*" } else { "" };
        let (before, behind) = (
            star(self.is_open_before),
            star(self.is_open_behind && !self.text.is_empty()),
        );
        write!(f, "{before}{}{behind}", self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|why| serde::de::Error::custom(format!("`{text}`: {why}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn stars_are_open_ends() {
        for (text, matching, others) in [
            ("de", ["de", "DE"].as_slice(), ["de-AT", "", "ode"].as_slice()),
            ("de*", &["de", "de-AT"], &["ode", "d"]),
            ("*.example", &["a.example", ".EXAMPLE"], &["a.example.org", "example"]),
            ("*Firefox*", &["Mozilla/5.0 firefox/140"], &["Chrome"]),
            ("*", &["", "x"], &[]),
        ] {
            assert!(matching.iter().all(|other| pattern(text).matches(other)), "{text}");
            assert!(!others.iter().any(|other| pattern(text).matches(other)), "{text}");
        }
        for text in ["", "**", "a*b", "***"] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wider_pattern_covers_a_narrower_one() {
        for (wide, narrow) in [
            ("*", "a"),
            ("*", "*a*"),
            ("a*", "ab"),
            ("a*", "ab*"),
            ("*b", "ab"),
            ("*b*", "ab*"),
            ("a", "A"),
        ] {
            assert!(pattern(wide).covers(&pattern(narrow)), "{wide} {narrow}");
        }
        for (one, other) in [
            ("a", "a*"),
            ("a*", "*a"),
            ("a*", "*ab*"),
            ("ab", "a"),
            ("*b", "b*"),
            ("a", "*"),
        ] {
            assert!(!pattern(one).covers(&pattern(other)), "{one} {other}");
        }
    }

    proptest! {
        #[test]
        fn whatever_matches_what_is_covered_matches_what_covers_it(
            one in "\\*?[ab]{1,2}\\*?", other in "\\*?[ab]{1,3}\\*?", text in "[ab]{0,5}"
        ) {
            let (one, other) = (pattern(&one), pattern(&other));
            prop_assert!(!one.covers(&other) || !other.matches(&text) || one.matches(&text));
            prop_assert_eq!(pattern(&one.to_string()), one);
        }
    }
}
