//! ICE alone, as text: the fragments by which a client that offers once changes it (RFC 8840, RFC 9725 section 4.3).
//!
//! Reads and writes attributes. Knows no connection; whose candidates count is not decided here.

/// The credentials of one side (RFC 8839 section 5.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// 4 to 256 characters.
    pub ufrag: &'a str,
    /// 22 to 256 characters.
    pub password: &'a str,
}

/// What a client says about ICE, and about nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Its credentials, if it names them.
    pub credentials: Option<Credentials<'a>>,
}

impl<'a> Fragment<'a> {
    /// Reads a fragment (RFC 8840 section 9.2).
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let (mut ufrag, mut password, mut is_empty) = (None, None, true);
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            if let Some(value) = line.strip_prefix("a=ice-ufrag:") {
                set(&mut ufrag, value, 4, "ice-ufrag")?;
            } else if let Some(value) = line.strip_prefix("a=ice-pwd:") {
                set(&mut password, value, 22, "ice-pwd")?;
            } else if let Some(value) = line.strip_prefix("a=candidate:") {
                check_candidate(value)?;
            } else if !line.starts_with("a=") && !line.starts_with("m=") {
                return Err(format!(
                    "The SDP fragment has a line that is neither an attribute nor an m-line: `{}`.",
                    start_of(line)
                ));
            }
            is_empty = false;
        }
        if is_empty {
            return Err("The SDP fragment is empty; send the candidates or the new ICE credentials.".to_owned());
        }
        let credentials = match (ufrag, password) {
            (Some(ufrag), Some(password)) => Some(Credentials { ufrag, password }),
            (None, None) => None,
            _ => return Err("The SDP fragment has one of a=ice-ufrag and a=ice-pwd; send both or neither.".to_owned()),
        };
        Ok(Self { credentials })
    }
}

/// The credentials of the first m-line that has them, or of the session.
pub fn credentials(sdp: &str) -> Option<Credentials<'_>> {
    let find = |name| sdp.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_end);
    Some(Credentials {
        ufrag: find("a=ice-ufrag:")?,
        password: find("a=ice-pwd:")?,
    })
}

/// An offer with other credentials, and without the candidates, which are the old ones'.
pub fn with_credentials(offer: &str, new: &Credentials<'_>) -> String {
    let mut changed = String::with_capacity(offer.len());
    for line in offer.lines().map(str::trim_end) {
        if line.starts_with("a=candidate:") || line == "a=end-of-candidates" {
            continue;
        }
        if line.starts_with("a=ice-ufrag:") {
            changed.push_str("a=ice-ufrag:");
            changed.push_str(new.ufrag);
        } else if line.starts_with("a=ice-pwd:") {
            changed.push_str("a=ice-pwd:");
            changed.push_str(new.password);
        } else {
            changed.push_str(line);
        }
        changed.push_str("\r\n");
    }
    changed
}

/// What an answer of ours says about ICE: of the session, and of the first m-line, in which a bundle has its candidates.
pub fn fragment_of(answer: &str) -> String {
    let mut fragment = String::new();
    let mut lines_seen = 0;
    for line in answer.lines().map(str::trim_end) {
        let is_media = line.starts_with("m=");
        lines_seen += usize::from(is_media);
        if lines_seen > 1 {
            break;
        }
        let is_ice = ["a=ice-", "a=candidate:", "a=group:BUNDLE", "a=mid:"]
            .iter()
            .any(|start| line.starts_with(start));
        if is_media || is_ice {
            fragment.push_str(line);
            fragment.push_str("\r\n");
        }
    }
    // An ICE-lite node has all its candidates from the start.
    fragment.push_str("a=end-of-candidates\r\n");
    fragment
}

fn set<'a>(slot: &mut Option<&'a str>, value: &'a str, shortest: usize, name: &str) -> Result<(), String> {
    let is_ice_char = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    if !(shortest..=256).contains(&value.len()) || !value.bytes().all(is_ice_char) {
        return Err(format!(
            "The SDP fragment's a={name} must have {shortest} to 256 letters, digits, `+` or `/`."
        ));
    }
    match slot {
        Some(other) if *other != value => Err(format!(
            "The SDP fragment has two different a={name}; all m-lines share one transport, so send one."
        )),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

/// RFC 8839 section 5.1: foundation, component, transport, priority, address, port, `typ` and a type, at least.
fn check_candidate(value: &str) -> Result<(), String> {
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    let is_one = matches!(words.as_slice(), [_, component, _, priority, _, port, "typ", _, ..]
        if component.parse::<u16>().is_ok() && priority.parse::<u32>().is_ok() && port.parse::<u16>().is_ok());
    if is_one {
        Ok(())
    } else {
        Err(format!(
            "The SDP fragment has a candidate that is none: `{}`.",
            start_of(value)
        ))
    }
}

/// Enough of a line to find it again.
fn start_of(line: &str) -> String {
    line.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UFRAG: &str = "a=ice-ufrag:ysXw\r\n";
    const PASSWORD: &str = "a=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\r\n";

    #[test]
    fn a_fragment_names_credentials_or_candidates_alone() {
        let text = format!(
            "a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n{UFRAG}{PASSWORD}\
             a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag ysXw\r\na=end-of-candidates\r\n"
        );
        let expected = Credentials {
            ufrag: "ysXw",
            password: "vw5LmwG4y/e6dPP/zAP9Gp5k",
        };
        assert_eq!(Fragment::parse(&text).unwrap().credentials, Some(expected));
        let candidates = "m=audio 9 RTP/AVP 0\na=mid:0\na=candidate:1 1 tcp 1 a.local 9 typ host tcptype active\n";
        assert_eq!(Fragment::parse(candidates).unwrap().credentials, None);
    }

    #[test]
    fn a_bad_fragment_is_refused_with_a_sentence() {
        let long = format!("a=ice-ufrag:{}\r\n{PASSWORD}", "x".repeat(257));
        for bad in [
            "",
            "\r\n\r\n",
            "hello",
            "{\"candidate\":\"\"}",
            UFRAG,
            PASSWORD,
            "a=ice-ufrag:abc\r\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k",
            "a=ice-ufrag:ysXw\r\na=ice-pwd:short",
            "a=ice-ufrag:ys w\r\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k",
            &long,
            &format!("{UFRAG}{PASSWORD}a=ice-ufrag:other\r\n"),
            "a=candidate:1 1 udp 1 192.0.2.1 99999 typ host",
            "a=candidate:",
        ] {
            let error = Fragment::parse(bad).unwrap_err();
            assert!(error.ends_with('.'), "{bad:?}: {error}");
        }
    }

    #[test]
    fn an_offer_is_repeated_with_other_credentials() {
        let offer = "v=0\r\na=ice-ufrag:s\r\nm=audio 9 P 0\r\na=ice-ufrag:a\r\na=ice-pwd:b\r\na=candidate:1 1 udp 1 h 9 typ host\r\n\
                     a=end-of-candidates\r\na=mid:0\r\nm=video 9 P 1\r\na=ice-ufrag:a\r\na=ice-pwd:b\r\n";
        let new = Credentials {
            ufrag: "new",
            password: "secret",
        };
        let changed = with_credentials(offer, &new);
        assert_eq!(
            changed,
            "v=0\r\na=ice-ufrag:new\r\nm=audio 9 P 0\r\na=ice-ufrag:new\r\na=ice-pwd:secret\r\na=mid:0\r\nm=video 9 P 1\r\n\
             a=ice-ufrag:new\r\na=ice-pwd:secret\r\n"
        );
        assert_eq!(credentials(&changed), Some(new));
        assert_eq!(credentials("v=0\r\n"), None);
    }

    #[test]
    fn a_fragment_of_an_answer_has_what_is_about_ice() {
        let answer = "v=0\r\ns=-\r\na=group:BUNDLE 0 1\r\na=ice-lite\r\nm=audio 9 P 0\r\na=candidate:1 1 udp 1 h 9 typ host\r\n\
                      a=ice-ufrag:u\r\na=ice-pwd:p\r\na=ice-options:trickle\r\na=fingerprint:x\r\na=mid:0\r\nm=video 9 P 1\r\na=mid:1\r\n";
        assert_eq!(
            fragment_of(answer),
            "a=group:BUNDLE 0 1\r\na=ice-lite\r\nm=audio 9 P 0\r\na=candidate:1 1 udp 1 h 9 typ host\r\na=ice-ufrag:u\r\n\
             a=ice-pwd:p\r\na=ice-options:trickle\r\na=mid:0\r\na=end-of-candidates\r\n"
        );
    }
}
