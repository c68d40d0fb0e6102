//! What Firefox needs otherwise than others.

use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;

/// Whether a client is one: by what it says of itself, and else, as LiveKit's SDK for browsers says nothing of that, by what the browser does. Firefox
/// on iOS calls itself otherwise, and is none in what counts here.
pub(super) fn is(said: Option<&str>, headers: &HeaderMap) -> bool {
    match said {
        Some(browser) => browser.eq_ignore_ascii_case("firefox"),
        None => headers
            .get(USER_AGENT)
            .and_then(|agent| agent.to_str().ok())
            .is_some_and(|agent| agent.contains("Firefox/")),
    }
}

/// An offer in which the id of each stream names its track, as `PA_…|TR_…`.
///
/// The SDK knows a track by the id that the offer gives it. Firefox invents ids of its own for the tracks that it receives, so there it looks into
/// the second part of the stream's id, when that begins as a track's does. The streams' names are lost, by which sound and picture of one would
/// be played in step.
pub(super) fn tracks_named_by_streams(offer: &str) -> String {
    offer.split_inclusive('\n').map(line).collect()
}

/// `a=msid:STREAM TRACK` and `a=ssrc:SSRC msid:STREAM TRACK`; others are as they are.
fn line(line: &str) -> String {
    let named = || {
        let (before, msid) = line.split_once("msid:")?;
        let (stream, track) = msid.trim_end().split_once(' ')?;
        let (participant, _) = stream.split_once('|')?;
        Some(format!("{before}msid:{participant}|{track} {track}\r\n"))
    };
    named().unwrap_or_else(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_by_what_it_or_its_browser_says() {
        let agent = |text: &'static str| HeaderMap::from_iter([(USER_AGENT, text.parse().unwrap())]);
        let firefox = agent("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0");
        let chromium = agent(
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0.0.0 Safari/537.36",
        );
        assert!(is(None, &firefox));
        assert!(!is(None, &chromium));
        assert!(!is(None, &HeaderMap::new()));
        assert!(is(Some("Firefox"), &HeaderMap::new()));
        assert!(!is(Some("chrome"), &firefox));
    }

    #[test]
    fn streams_name_their_tracks_and_nothing_else_changes() {
        let offer = "v=0\r\na=msid-semantic:WMS PA_a|camera\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
                     a=msid:PA_a|camera TR_b\r\na=ssrc:1 cname:TR_b\r\na=ssrc:1 msid:PA_a|camera TR_b\r\na=msid:-\r\na=msid:PA_a TR_c\r\n";
        let wanted = "v=0\r\na=msid-semantic:WMS PA_a|camera\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
                      a=msid:PA_a|TR_b TR_b\r\na=ssrc:1 cname:TR_b\r\na=ssrc:1 msid:PA_a|TR_b TR_b\r\na=msid:-\r\na=msid:PA_a TR_c\r\n";
        assert_eq!(tracks_named_by_streams(offer), wanted);
    }
}
