//! What clients speak, as it is told apart in metrics and traces.

use axum::http::Method;
use axum::http::request::Parts;

use crate::livekit;

/// A client dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// LiveKit's signaling protocol.
    Livekit,
    /// Our own HTTP API.
    Http,
    /// WHIP.
    Whip,
    /// WHEP.
    Whep,
}

impl Dialect {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Livekit, Self::Http, Self::Whip, Self::Whep];

    /// The name, as a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Livekit => "livekit",
            Self::Http => "http",
            Self::Whip => "whip",
            Self::Whep => "whep",
        }
    }

    /// Which one a route's pattern belongs to; none: it is no dialect's, such as the page.
    pub fn of_route(route: &str) -> Option<Self> {
        let mut segments = route.split('/').skip(1);
        match (segments.next()?, segments.nth(2)) {
            ("rtc", _) => Some(Self::Livekit),
            ("v1", Some("whip")) => Some(Self::Whip),
            ("v1", Some("whep")) => Some(Self::Whep),
            ("v1", _) => Some(Self::Http),
            _ => None,
        }
    }

    /// Which one's request to join a request is; none: it is something else, such as a LiveKit client that comes back.
    pub(crate) fn of_join(parts: &Parts, route: &str) -> Option<Self> {
        let method = &parts.method;
        let asks = match route {
            livekit::PATH => method == Method::GET && !livekit::is_resume(parts),
            "/v1/rooms/{room}/join" | "/v1/rooms/{room}/whip" | "/v1/rooms/{room}/whep" => method == Method::POST,
            _ => false,
        };
        asks.then(|| Self::of_route(route)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_tells_the_dialect() {
        for (route, dialect) in [
            ("/rtc", Some(Dialect::Livekit)),
            ("/rtc/validate", Some(Dialect::Livekit)),
            ("/v1/rooms/{room}/join", Some(Dialect::Http)),
            ("/v1/guest-tokens", Some(Dialect::Http)),
            (
                "/v1/rooms/{room}/participants/{participant}/events",
                Some(Dialect::Http),
            ),
            ("/v1/rooms/{room}/whip", Some(Dialect::Whip)),
            ("/v1/rooms/{room}/whep/{session}/events", Some(Dialect::Whep)),
            ("/", None),
            ("/livez", None),
            ("none", None),
        ] {
            assert_eq!(Dialect::of_route(route), dialect, "{route}");
        }
    }

    #[test]
    fn only_requests_to_join_are_such() {
        let of = |method: Method, route: &str, query: Option<&str>| {
            let uri = format!("/?{}", query.unwrap_or_default());
            let request = axum::http::Request::builder().method(method).uri(uri).body(()).unwrap();
            Dialect::of_join(&request.into_parts().0, route)
        };
        assert_eq!(of(Method::GET, "/rtc", None), Some(Dialect::Livekit));
        assert_eq!(of(Method::GET, "/rtc", Some("a=1&reconnect=0")), Some(Dialect::Livekit));
        assert_eq!(of(Method::GET, "/rtc", Some("a=1&reconnect=1")), None);
        assert_eq!(of(Method::POST, "/v1/rooms/{room}/join", None), Some(Dialect::Http));
        assert_eq!(of(Method::POST, "/v1/rooms/{room}/whep", None), Some(Dialect::Whep));
        assert_eq!(of(Method::GET, "/v1/rooms/{room}/whep", None), None);
        assert_eq!(of(Method::OPTIONS, "/v1/rooms/{room}/join", None), None);
        assert_eq!(of(Method::GET, "/rtc/validate", None), None);
    }
}
