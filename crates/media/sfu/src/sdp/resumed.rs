//! What two peers have agreed on, as a third one needs it that takes the place of the first.

use super::{sections, value};

/// An answer of a client, as the offer with which it could have brought about the same: another node that answers it has the same m-lines,
/// the same payload types and extensions. What the offer that it answers calls the tracks (`a=msid`) is put in, since it is the answerer's
/// to repeat; where the client was reached is left out.
pub fn as_offer(offer: &str, answer: &str) -> String {
    let offered = sections(offer);
    let mut text = String::with_capacity(answer.len() + offered.len() * 64);
    for section in sections(answer) {
        let own = section.split_inclusive('\n').filter(|line| {
            !["a=msid:", "a=ssrc", "a=candidate:", "a=end-of-candidates"]
                .iter()
                .any(|left_out| line.starts_with(left_out))
        });
        text.extend(own);
        if !section.starts_with("m=") {
            continue;
        }
        if !text.ends_with('\n') {
            text.push_str("\r\n");
        }
        let same = value(section, "a=mid:").and_then(|mid| {
            let mut offered = offered.iter();
            offered.find(|offered| value(offered, "a=mid:") == Some(mid))
        });
        if let Some(msid) = same.and_then(|same| value(same, "a=msid:")) {
            text.push_str("a=msid:");
            text.push_str(msid);
            text.push_str("\r\n");
        }
    }
    text
}

/// Whose descriptions they are, and which one (`o=`, RFC 8866 section 5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    id: String,
    version: u64,
}

impl Origin {
    /// That of a description; none: it has none that could be counted on from.
    pub fn of(description: &str) -> Option<Self> {
        let mut words = description.lines().find_map(|line| line.strip_prefix("o="))?.split(' ');
        let (id, version) = (words.nth(1)?, words.next()?.parse().ok()?);
        Some(Self {
            id: id.to_owned(),
            version,
        })
    }

    /// A description that comes after the last one.
    pub fn next(&mut self, description: &str) -> String {
        self.version = self.version.saturating_add(1);
        let mut text = String::with_capacity(description.len() + 32);
        for line in description.split_inclusive('\n') {
            let mut words = line.splitn(4, ' ');
            let is_origin = line.starts_with("o=");
            match (words.next(), words.nth(2)) {
                (Some(user), Some(rest)) if is_origin => {
                    text.push_str(&format!("{user} {} {} {rest}", self.id, self.version));
                }
                _ => text.push_str(line),
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_an_offer_with_the_names_of_the_tracks() {
        let offer = "v=0\r\nm=video 9 X 96\r\na=mid:v\r\na=msid:PA|s TR_V\r\nm=audio 9 X 111\r\na=mid:a\r\na=msid:PA|s TR_A\r\n";
        let answer = "v=0\r\nm=video 9 X 96\r\na=mid:v\r\na=recvonly\r\na=candidate:1 1 udp 1 1.2.3.4 5 typ host\r\nm=audio 0 X 111\r\na=mid:a\r\na=msid:- x\r\n";
        let expected = "v=0\r\nm=video 9 X 96\r\na=mid:v\r\na=recvonly\r\na=msid:PA|s TR_V\r\nm=audio 0 X 111\r\na=mid:a\r\na=msid:PA|s TR_A\r\n";
        assert_eq!(as_offer(offer, answer), expected);
    }

    #[test]
    fn each_further_description_has_the_session_of_the_first_and_a_higher_version() {
        let mut origin = Origin::of("v=0\r\no=- 42 7 IN IP4 0.0.0.0\r\ns=-\r\n").unwrap();
        let other = "v=0\r\no=x 1 2 IN IP4 0.0.0.0\r\ns=-\r\n";
        for version in [8, 9] {
            let expected = format!("v=0\r\no=x 42 {version} IN IP4 0.0.0.0\r\ns=-\r\n");
            assert_eq!(origin.next(other), expected);
        }
        assert_eq!(Origin::of("v=0\r\no=- 42\r\n"), None);
    }
}
