//! The few things that are read from, or changed in, an SDP's text (RFC 8866); everything else is the WebRTC stack's.

pub mod ice;
pub mod resumed;

use std::net::SocketAddr;

use signalbox_protocol::room::Kind;

/// An audio or video m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaLine<'a> {
    /// Its id (`a=mid`, RFC 8843); empty if it has none.
    pub mid: &'a str,
    /// Sound or picture.
    pub kind: Kind,
    /// The sender's own id of the track (the second part of `a=msid`, RFC 8830).
    pub track_id: Option<&'a str>,
    /// The simulcast layers that it offers to send (`a=rid:… send`, RFC 8851), in its order.
    pub rids: Vec<&'a str>,
    /// Which way media goes, as its sender sees it.
    pub direction: Direction,
}

/// Which way media goes (RFC 8866 section 6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both.
    SendRecv,
    /// From whoever says it.
    SendOnly,
    /// To whoever says it.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    fn of(line: &str) -> Option<Self> {
        match line.trim_end() {
            "a=sendrecv" => Some(Self::SendRecv),
            "a=sendonly" => Some(Self::SendOnly),
            "a=recvonly" => Some(Self::RecvOnly),
            "a=inactive" => Some(Self::Inactive),
            _ => None,
        }
    }

    fn attribute(self) -> &'static str {
        match self {
            Self::SendRecv => "a=sendrecv",
            Self::SendOnly => "a=sendonly",
            Self::RecvOnly => "a=recvonly",
            Self::Inactive => "a=inactive",
        }
    }
}

/// How many m-lines there are, of any kind.
pub fn count_media_lines(sdp: &str) -> usize {
    sdp.lines().filter(|line| line.starts_with("m=")).count()
}

/// Whether there is an m-line for data channels (RFC 8841), which is not rejected.
pub fn has_data(sdp: &str) -> bool {
    sdp.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("m=application") && words.next().is_some_and(|port| port != "0")
    })
}

/// Every audio and video m-line, in order.
pub fn media_lines(sdp: &str) -> Vec<MediaLine<'_>> {
    let mut lines: Vec<MediaLine<'_>> = Vec::new();
    let mut in_media = false;
    // The session's direction is every m-line's that has none; without either it is both.
    let mut default = Direction::SendRecv;
    for line in sdp.lines() {
        if let Some(media) = line.strip_prefix("m=") {
            let kind = match media.split(' ').next() {
                Some("audio") => Some(Kind::Audio),
                Some("video") => Some(Kind::Video),
                _ => None,
            };
            in_media = kind.is_some();
            lines.extend(kind.map(|kind| MediaLine {
                rids: Vec::new(),
                mid: "",
                kind,
                track_id: None,
                direction: default,
            }));
        } else if let Some(current) = lines.last_mut().filter(|_| in_media) {
            if let Some(mid) = line.strip_prefix("a=mid:") {
                current.mid = mid.trim();
            } else if let Some(msid) = line.strip_prefix("a=msid:") {
                current.track_id = msid.split_whitespace().nth(1);
            } else if let Some(rid) = line.strip_prefix("a=rid:") {
                let mut words = rid.split_whitespace();
                if let (Some(rid), Some("send")) = (words.next(), words.next()) {
                    current.rids.push(rid);
                }
            } else if let Some(direction) = Direction::of(line) {
                current.direction = direction;
            }
        } else if let Some(direction) = Direction::of(line).filter(|_| lines.is_empty()) {
            default = direction;
        }
    }
    lines
}

/// A client's offer, so that the answer makes us the DTLS client.
///
/// The node is the DTLS client from the first handshake on: the role cannot change later, and a client that is moved to another node
/// runs its new handshake a hundred times faster as the server. The stack answers `actpass` as the server, so it is shown
/// `passive` (RFC 5763 section 5).
pub fn with_passive_client(offer: &str) -> String {
    offer.replace("a=setup:actpass", "a=setup:passive")
}

/// Whether the client insists on being the DTLS client (RFC 8842 section 5.3).
pub fn wants_dtls_client(offer: &str) -> bool {
    offer.lines().any(|line| line.trim_end() == "a=setup:active")
}

/// An offer with this direction on each audio and video m-line.
pub fn with_direction(offer: &str, direction: Direction) -> String {
    let mut changed = String::with_capacity(offer.len() + 64);
    for section in sections(offer) {
        let is_media = section.starts_with("m=audio ") || section.starts_with("m=video ");
        let kept = section
            .split_inclusive('\n')
            .filter(|line| !is_media || Direction::of(line).is_none());
        changed.extend(kept);
        if is_media {
            if !changed.ends_with('\n') {
                changed.push_str("\r\n");
            }
            changed.push_str(direction.attribute());
            changed.push_str("\r\n");
        }
    }
    changed
}

/// An offer with only these codecs, named by their media types, and what repairs them.
pub fn with_codecs_only(offer: &str, media_types: &[&str]) -> String {
    let mut changed = String::with_capacity(offer.len());
    for section in sections(offer) {
        let Some((head, kinds)) = section.lines().next().and_then(media_line) else {
            changed.push_str(section);
            continue;
        };
        let (kept, dropped): (Vec<&str>, Vec<&str>) = kinds.into_iter().partition(|kind| {
            let primary = repaired(section, kind).unwrap_or(kind);
            media_types
                .iter()
                .any(|media_type| is_codec(section, primary, media_type))
        });
        if kept.is_empty() {
            changed.push_str(section);
            continue;
        }
        changed.push_str(head);
        for kind in kept {
            changed.push(' ');
            changed.push_str(kind);
        }
        changed.push_str("\r\n");
        let lines = section.split_inclusive('\n').skip(1);
        changed.extend(lines.filter(|line| described(line).is_none_or(|kind| !dropped.contains(&kind))));
    }
    changed
}

/// Our offer, so that the client's answer leaves us the DTLS client; see [`with_passive_client`].
pub fn with_active_server(offer: &str) -> String {
    offer.replace("a=setup:actpass", "a=setup:active")
}

/// A description without one of the addresses that it names.
pub fn without_candidate(description: &str, address: SocketAddr) -> String {
    let is_it = |line: &str| {
        let mut words = line
            .strip_prefix("a=candidate:")
            .into_iter()
            .flat_map(str::split_whitespace)
            .skip(4);
        let (ip, port) = (words.next(), words.next());
        ip.and_then(|ip| ip.parse().ok()) == Some(address.ip())
            && port.and_then(|port| port.parse().ok()) == Some(address.port())
    };
    description.split_inclusive('\n').filter(|line| !is_it(line)).collect()
}

/// Our answer with each m-line's payload types in the offer's order, but with those of the preferred codec first, if `preferred`
/// names one for the m-line's mid by its media type. A client sends in the first one (RFC 8829 section 5.3.1).
pub fn with_codec_order(offer: &str, answer: &str, preferred: impl Fn(&str) -> Option<String>) -> String {
    let offered = sections(offer);
    let mut ordered = String::with_capacity(answer.len());
    for section in sections(answer) {
        let mid = value(section, "a=mid:").unwrap_or_default();
        let in_offer = offered.iter().find(|offered| value(offered, "a=mid:") == Some(mid));
        match (in_offer, section.lines().next().and_then(media_line)) {
            (Some(in_offer), Some((head, kinds))) => {
                let order = in_offer
                    .lines()
                    .next()
                    .and_then(media_line)
                    .map(|(_, kinds)| kinds)
                    .unwrap_or_default();
                let codec = preferred(mid).unwrap_or_default();
                let mut kinds = kinds;
                kinds.sort_by_key(|kind| {
                    let primary = repaired(section, kind).unwrap_or(kind);
                    let is_other = !is_codec(section, primary, &codec);
                    let place = order
                        .iter()
                        .position(|offered| *offered == primary)
                        .unwrap_or(usize::MAX);
                    (is_other, place, primary != *kind)
                });
                ordered.push_str(head);
                for kind in kinds {
                    ordered.push(' ');
                    ordered.push_str(kind);
                }
                ordered.push_str("\r\n");
                ordered.extend(section.split_inclusive('\n').skip(1));
            }
            _ => ordered.push_str(section),
        }
    }
    ordered
}

/// The session part and each m-line's part, with their line ends.
fn sections(sdp: &str) -> Vec<&str> {
    let mut starts: Vec<usize> = vec![0];
    starts.extend(sdp.match_indices("\nm=").map(|(index, _)| index + 1));
    let ends = starts.iter().skip(1).copied().chain([sdp.len()]);
    starts
        .iter()
        .zip(ends)
        .filter_map(|(start, end)| sdp.get(*start..end))
        .collect()
}

/// `m=<media> <port> <proto>` and the payload types that follow.
fn media_line(line: &str) -> Option<(&str, Vec<&str>)> {
    let line = line.strip_prefix("m=").map(|_| line.trim_end())?;
    let (end, _) = line.match_indices(' ').nth(2)?;
    Some((line.get(..end)?, line.get(end..)?.split_whitespace().collect()))
}

/// The payload type that a line of an m-line is about.
fn described(line: &str) -> Option<&str> {
    ["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:"]
        .iter()
        .find_map(|name| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
}

fn value<'a>(section: &'a str, name: &str) -> Option<&'a str> {
    section.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The payload type that a retransmission payload type repairs (RFC 4588 section 8.1).
fn repaired<'a>(section: &'a str, kind: &str) -> Option<&'a str> {
    let parameters = value(section, &format!("a=fmtp:{kind} "))?;
    parameters
        .split(';')
        .find_map(|parameter| parameter.trim().strip_prefix("apt="))
}

fn is_codec(section: &str, kind: &str, media_type: &str) -> bool {
    let name = media_type.split_once('/').map_or("", |(_, name)| name);
    let mapped = value(section, &format!("a=rtpmap:{kind} ")).and_then(|map| map.split('/').next());
    !name.is_empty() && mapped.is_some_and(|mapped| mapped.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_lines_are_read_with_their_ids() {
        let sdp = "v=0\r\na=inactive\r\na=mid:session\r\nm=audio 9 X 111\r\na=recvonly\r\na=mid:0\r\na=msid:stream mic\r\nm=application 9 X\r\na=mid:1\r\n\
                   m=video 9 X 96\r\na=msid:- cam\r\na=mid:v\r\na=rid:f send\r\na=rid:q send pt=96\r\na=rid:x recv\r\n";
        assert_eq!(
            media_lines(sdp),
            [
                MediaLine {
                    mid: "0",
                    kind: Kind::Audio,
                    track_id: Some("mic"),
                    rids: vec![],
                    direction: Direction::RecvOnly,
                },
                MediaLine {
                    mid: "v",
                    kind: Kind::Video,
                    track_id: Some("cam"),
                    rids: vec!["f", "q"],
                    direction: Direction::Inactive,
                },
            ]
        );
        assert_eq!(count_media_lines(sdp), 3);
        assert!(has_data(sdp));
        assert!(!has_data(&sdp.replace("m=application 9", "m=application 0")));
    }

    #[test]
    fn an_m_line_without_a_direction_goes_both_ways() {
        let lines = media_lines("v=0\r\nm=audio 9 X 0\r\na=mid:0\r\n");
        assert_eq!(lines[0].direction, Direction::SendRecv);
    }

    #[test]
    fn every_m_line_gets_one_direction() {
        let offer = "v=0\r\na=sendrecv\r\nm=audio 9 X 0\r\na=sendrecv\r\na=mid:0\r\nm=application 9 X y\r\na=mid:1\r\nm=video 9 X 0\r\na=mid:2";
        assert_eq!(
            with_direction(offer, Direction::SendOnly),
            "v=0\r\na=sendrecv\r\nm=audio 9 X 0\r\na=mid:0\r\na=sendonly\r\nm=application 9 X y\r\na=mid:1\r\nm=video 9 X 0\r\na=mid:2\r\na=sendonly\r\n"
        );
    }

    #[test]
    fn an_offer_is_cut_down_to_the_codecs_that_are_wanted() {
        let offer = "v=0\r\nm=audio 9 P 111\r\na=rtpmap:111 opus/48000/2\r\nm=video 9 P 96 97 98 99\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\n\
                     a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rtpmap:98 VP9/90000\r\na=rtcp-fb:98 nack\r\na=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\na=mid:1\r\n";
        assert_eq!(
            with_codecs_only(offer, &["audio/opus", "video/VP9"]),
            "v=0\r\nm=audio 9 P 111\r\na=rtpmap:111 opus/48000/2\r\nm=video 9 P 98 99\r\na=rtpmap:98 VP9/90000\r\na=rtcp-fb:98 nack\r\n\
             a=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\na=mid:1\r\n"
        );
        assert_eq!(with_codecs_only(offer, &[]), offer, "an m-line needs a codec");
    }

    #[test]
    fn garbage_has_no_media_lines() {
        assert!(media_lines("a=mid:0\nhello\nm=\na=mid:1").is_empty());
    }

    #[test]
    fn an_answer_follows_the_offers_order_and_the_tracks_codec() {
        let offer = "v=0\r\nm=audio 9 P 111\r\na=mid:0\r\nm=video 9 P 45 46 96 97 98 99\r\na=mid:1\r\n";
        let answer = "v=0\r\nm=audio 9 P 111\r\na=mid:0\r\nm=video 9 P 96 97 98 99 45 46\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\n\
                      a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rtpmap:98 VP9/90000\r\na=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\n\
                      a=rtpmap:45 AV1/90000\r\na=rtpmap:46 rtx/90000\r\na=fmtp:46 apt=45\r\n";
        let plain = with_codec_order(offer, answer, |_| None);
        assert_eq!(plain, answer.replace("96 97 98 99 45 46", "45 46 96 97 98 99"));
        let preferred = with_codec_order(offer, answer, |mid| (mid == "1").then(|| "video/vp9".to_owned()));
        assert_eq!(preferred, answer.replace("96 97 98 99 45 46", "98 99 45 46 96 97"));
    }

    #[test]
    fn redundant_sound_goes_first_where_it_is_wanted_and_known() {
        let sdp = "m=audio 9 X 111 63 0\r\na=mid:0\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=rtpmap:0 PCMU/8000\r\n";
        let red = |sdp: &str| with_codec_order(sdp, sdp, |_| Some("audio/red".to_owned()));
        assert_eq!(red(sdp), sdp.replace("111 63 0", "63 111 0"));
        let without = sdp.replace("red/48000/2", "other/48000");
        assert_eq!(red(&without), without);
    }
}
