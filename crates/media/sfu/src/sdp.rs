//! The few things that are read from, or changed in, an SDP's text (RFC 8866); everything else is the WebRTC stack's.

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
}

/// How many m-lines there are, of any kind.
pub fn count_media_lines(sdp: &str) -> usize {
    sdp.lines().filter(|line| line.starts_with("m=")).count()
}

/// Every audio and video m-line, in order.
pub fn media_lines(sdp: &str) -> Vec<MediaLine<'_>> {
    let mut lines: Vec<MediaLine<'_>> = Vec::new();
    let mut in_media = false;
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
            }
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

/// Our offer, so that the client's answer leaves us the DTLS client; see [`with_passive_client`].
pub fn with_active_server(offer: &str) -> String {
    offer.replace("a=setup:actpass", "a=setup:active")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_lines_are_read_with_their_ids() {
        let sdp = "v=0\r\na=mid:session\r\nm=audio 9 X 111\r\na=mid:0\r\na=msid:stream mic\r\nm=application 9 X\r\na=mid:1\r\n\
                   m=video 9 X 96\r\na=msid:- cam\r\na=mid:v\r\na=rid:f send\r\na=rid:q send pt=96\r\na=rid:x recv\r\n";
        assert_eq!(
            media_lines(sdp),
            [
                MediaLine {
                    mid: "0",
                    kind: Kind::Audio,
                    track_id: Some("mic"),
                    rids: vec![]
                },
                MediaLine {
                    mid: "v",
                    kind: Kind::Video,
                    track_id: Some("cam"),
                    rids: vec!["f", "q"]
                },
            ]
        );
        assert_eq!(count_media_lines(sdp), 3);
    }

    #[test]
    fn garbage_has_no_media_lines() {
        assert!(media_lines("a=mid:0\nhello\nm=\na=mid:1").is_empty());
    }
}
