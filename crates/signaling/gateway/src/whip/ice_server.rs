//! STUN and TURN servers that clients are told of in `Link` headers (RFC 9725 section 4.6).

use std::fmt;
use std::str::FromStr;

/// A STUN server, or a TURN server with its credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct IceServer {
    url: String,
    account: Option<(String, String)>,
}

impl IceServer {
    /// The value of its `Link` header (RFC 8288).
    pub(super) fn link(&self) -> String {
        let mut link = format!("<{}>; rel=\"ice-server\"", self.url);
        if let Some((username, credential)) = &self.account {
            link.push_str(&format!(
                "; username=\"{username}\"; credential=\"{credential}\"; credential-type=\"password\""
            ));
        }
        link
    }
}

impl FromStr for IceServer {
    type Err = String;

    /// From `stun:host:port` or `turn:host:port?transport=udp;username=name;credential=secret` (RFC 7064, RFC 7065). The error never
    /// repeats the text, which may hold the credential.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(';');
        let url = parts.next().unwrap_or_default();
        let (scheme, host) = url.split_once(':').unwrap_or_default();
        let needs_account = match scheme {
            "stun" | "stuns" => false,
            "turn" | "turns" => true,
            _ => return Err("an ICE server must begin with stun:, stuns:, turn: or turns:".into()),
        };
        // What goes into a header between `<>` or quotes must not end them.
        let is_safe = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\'))
        };
        if host.is_empty() || !is_safe(text) {
            return Err("an ICE server must have a host, and neither spaces nor any of \" < > \\".into());
        }
        let (mut username, mut credential) = (None, None);
        for part in parts {
            match part.split_once('=') {
                Some(("username", value)) => username = Some(value.to_owned()),
                Some(("credential", value)) => credential = Some(value.to_owned()),
                _ => return Err("after an ICE server's URL only ;username= and ;credential= may follow".into()),
            }
        }
        let account = username.zip(credential);
        if account.is_some() != needs_account {
            return Err("a turn: server needs ;username= and ;credential=, a stun: server neither".into());
        }
        Ok(Self {
            url: url.to_owned(),
            account,
        })
    }
}

impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IceServer").field(&self.url).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_becomes_a_link() {
        let link = |text: &str| text.parse::<IceServer>().map(|server| server.link());
        assert_eq!(
            link("stun:stun.example.org:3478").unwrap(),
            "<stun:stun.example.org:3478>; rel=\"ice-server\""
        );
        assert_eq!(
            link("turn:turn.example.org?transport=udp;username=ann;credential=s3cret=").unwrap(),
            "<turn:turn.example.org?transport=udp>; rel=\"ice-server\"; username=\"ann\"; credential=\"s3cret=\"; \
             credential-type=\"password\""
        );
    }

    #[test]
    fn a_server_that_makes_no_link_is_refused_and_not_repeated() {
        for bad in [
            "",
            "http://hunter2",
            "stun:",
            "stun:a;username=hunter2;credential=b",
            "turn:a",
            "turn:a;username=hunter2",
            "turn:a;username=hunter2;credential=\"",
            "turn:a;username=hunter2;credential=b;x=y",
            "stun:a hunter2",
        ] {
            let error = bad.parse::<IceServer>().unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let server: IceServer = "turn:a;username=b;credential=hunter2".parse().unwrap();
        assert!(!format!("{server:?}").contains("hunter2"));
    }
}
