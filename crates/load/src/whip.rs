//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): one offer and one answer over HTTP. Nothing more is said until the session is deleted.

use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};

use crate::plan::{Member, Plan, Role};
use crate::signaling;

/// How often a room is asked for that has nothing to watch yet.
const TRIES: usize = 5;

/// How long is waited at most before it is asked again, whatever the server says.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A session.
pub struct Whip {
    client: Client,
    session: Url,
    token: String,
}

/// What everybody's requests go through: each has a connection of its own, as each is a client of its own.
pub fn client() -> anyhow::Result<Client> {
    let client = Client::builder().pool_max_idle_per_host(0).timeout(TIMEOUT);
    client.build().context("no HTTP client")
}

impl Whip {
    /// Begins a session. Returns the answer as well.
    pub async fn begin(client: &Client, plan: &Plan, member: &Member, offer: &str) -> anyhow::Result<(Self, String)> {
        let token = signaling::token(plan, member)?;
        let endpoint = endpoint(&plan.url, member)?;
        let mut tries = 0;
        let response = loop {
            tries += 1;
            let request = client.post(endpoint.clone()).bearer_auth(&token);
            let request = request.header(CONTENT_TYPE, "application/sdp").body(offer.to_owned());
            let response = request.send().await?;
            let pause = again_after(response.headers());
            match pause.filter(|_| response.status() == StatusCode::CONFLICT && tries < TRIES) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => break response,
            }
        };
        let status = response.status();
        let location = response.headers().get(LOCATION).and_then(|url| url.to_str().ok());
        let session = location.and_then(|url| response.url().join(url).ok());
        let body = response.text().await?;
        ensure!(status == StatusCode::CREATED, "refused: {status} {}", body.trim());
        let session = session.context("the answer does not say where the session is")?;
        let client = client.clone();
        Ok((Self { client, session, token }, body))
    }

    /// Ends it. Whoever is gone has left.
    pub async fn leave(&self) {
        let request = self.client.delete(self.session.clone()).bearer_auth(&self.token);
        let _ = request.send().await;
    }
}

/// Where a member's session begins.
fn endpoint(server: &str, member: &Member) -> anyhow::Result<Url> {
    let server = server.replacen("ws", "http", usize::from(server.starts_with("ws")));
    let mut url = Url::parse(&server).with_context(|| format!("{server} is no URL"))?;
    let kind = match member.role {
        Role::Publisher { .. } => "whip",
        Role::Subscriber => "whep",
    };
    url.path_segments_mut()
        .map_err(|()| anyhow::anyhow!("{server} cannot have a path"))?
        .pop_if_empty()
        .extend(["v1", "rooms", &member.room, kind]);
    Ok(url)
}

fn again_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_endpoint_below_the_servers_url() {
        let member = |role| Member {
            room: "load 1".to_owned(),
            identity: "someone".to_owned(),
            role,
        };
        let publisher = Role::Publisher {
            sound: true,
            picture: true,
        };
        let url = endpoint("http://127.0.0.1:7880", &member(publisher)).unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:7880/v1/rooms/load%201/whip");
        let url = endpoint("ws://calls.example/media/", &member(Role::Subscriber)).unwrap();
        assert_eq!(url.as_str(), "http://calls.example/media/v1/rooms/load%201/whep");
        assert!(endpoint("calls.example", &member(Role::Subscriber)).is_err());
    }
}
