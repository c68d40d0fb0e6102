//! Entity-tags (RFC 9110 section 8.8.3) that name ICE sessions, and the preconditions that use them.

use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;

/// What `If-Match` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Precondition {
    /// `*`.
    Any,
    /// The contents of these strong tags. Weak ones match nothing here and are left out (RFC 9110 section 13.1.1).
    OneOf(Vec<String>),
}

impl Precondition {
    /// None without the header.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut tags = Vec::new();
        let mut is_there = false;
        for value in headers.get_all(IF_MATCH) {
            is_there = true;
            let value = value.to_str().unwrap_or_default().trim();
            // The quotes are in an example of RFC 9725, and clients copy them.
            if matches!(value, "*" | "\"*\"") {
                return Some(Self::Any);
            }
            tags.extend(value.split(',').filter_map(strong).map(str::to_owned));
        }
        is_there.then_some(Self::OneOf(tags))
    }
}

/// The strong tag of an ICE session.
pub(super) fn of(ice_session: &str) -> String {
    format!("\"{ice_session}\"")
}

fn strong(tag: &str) -> Option<&str> {
    tag.trim().strip_prefix('"')?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn precondition(values: &[&'static str]) -> Option<Precondition> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IF_MATCH, HeaderValue::from_static(value));
        }
        Precondition::of(&headers)
    }

    #[test]
    fn a_precondition_is_a_star_or_strong_tags() {
        let tags = |tags: &[&str]| Some(Precondition::OneOf(tags.iter().map(|tag| (*tag).to_owned()).collect()));
        assert_eq!(precondition(&[]), None);
        assert_eq!(precondition(&["*"]), Some(Precondition::Any));
        assert_eq!(precondition(&["\"*\""]), Some(Precondition::Any));
        assert_eq!(precondition(&["\"a\""]), tags(&["a"]));
        assert_eq!(precondition(&["\"a\", W/\"b\"", "\"c\""]), tags(&["a", "c"]));
        assert_eq!(precondition(&["unquoted"]), tags(&[]));
        assert_eq!(precondition(&["\""]), tags(&[]));
    }
}
