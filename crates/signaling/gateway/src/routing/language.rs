//! `Accept-Language` (RFC 9110 section 12.5.4): which language a client prefers.

/// How many of the languages that a client names are looked at.
const MAX_LANGUAGES: usize = 32;

/// The first of those with the highest weight; none: it has none that counts, or takes any.
pub(super) fn preferred(header: &str) -> Option<&str> {
    let mut best: Option<(&str, f32)> = None;
    for element in header.split(',').take(MAX_LANGUAGES) {
        let mut parts = element.split(';').map(str::trim);
        let language = parts.next().filter(|language| !language.is_empty())?;
        let weight = parts
            .find_map(|part| part.strip_prefix("q="))
            .map_or(Some(1.0), |weight| weight.parse().ok());
        let Some(weight) = weight.filter(|weight| *weight > 0.0) else {
            continue;
        };
        if best.is_none_or(|(_, best)| weight > best) {
            best = Some((language, weight));
        }
    }
    best.map(|(language, _)| language).filter(|language| *language != "*")
}

/// Whether a language is another one or a kind of it (RFC 4647 section 3.3.1).
pub(super) fn is_kind_of(language: &str, of: &str) -> bool {
    let (language, of) = (language.as_bytes(), of.as_bytes());
    language.len() >= of.len()
        && language
            .iter()
            .zip(of)
            .all(|(one, other)| one.eq_ignore_ascii_case(other))
        && language.get(of.len()).is_none_or(|next| *next == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_weight_wins_and_the_first_of_equals() {
        assert_eq!(preferred("de-AT,de;q=0.9,en;q=0.8"), Some("de-AT"));
        assert_eq!(preferred("en;q=0.8, fr;q=0.9, de;q=0.9"), Some("fr"));
        assert_eq!(preferred("de;q=0, en;q=0.1"), Some("en"));
        for none in ["", "*", "de;q=0", "de;q=x", ",de"] {
            assert_eq!(preferred(none), None, "{none}");
        }
    }

    #[test]
    fn a_dialect_is_a_kind_of_its_language_and_not_the_other_way_round() {
        assert!(is_kind_of("de-AT", "de") && is_kind_of("DE", "de"));
        assert!(!is_kind_of("de", "de-AT") && !is_kind_of("den", "de"));
    }
}
