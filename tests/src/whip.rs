//! A client of WHIP and WHEP: one POST, and a session that changes ICE and ends.

use std::time::Instant;

use anyhow::{Context, bail};
use reqwest::header::{CONTENT_TYPE, ETAG, IF_MATCH, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use str0m::change::SdpApi;
use str0m::media::{Direction, MediaKind, Mid, Simulcast, SimulcastLayer};

use crate::media::Source;
use crate::peer::Peer;

/// The media type of offers and answers.
pub const SDP: &str = "application/sdp";
/// The media type of what changes ICE alone.
pub const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// A session.
#[derive(Debug)]
pub struct Session {
    /// The peer connection.
    pub peer: Peer,
    /// The number that the packets of what it publishes carry.
    pub sender: u32,
    /// Where the session is.
    pub url: Url,
    /// The entity-tag of its ICE session.
    pub tag: String,
    answer: String,
    http: reqwest::Client,
}

impl Session {
    /// Publishes sound and a picture of these simulcast layers; none of them: a single encoding.
    ///
    /// # Errors
    /// When it does not succeed.
    pub async fn publish(
        gateway: &str,
        room: &str,
        token: &str,
        rids: &'static [&'static str],
    ) -> anyhow::Result<Self> {
        let peer = Peer::new().await?;
        let (offer, (audio, video)) = peer.offer(|api| add_publishing_lines(api, rids)).await?;
        let session = Self::post(peer, &format!("{gateway}/v1/rooms/{room}/whip"), token, offer).await?;
        let now = Instant::now();
        session.peer.send(Source::audio(audio, session.sender, now)).await?;
        session
            .peer
            .send(Source::video(video, session.sender, rids, now))
            .await?;
        Ok(session)
    }

    /// Watches one of each kind.
    ///
    /// # Errors
    /// When it does not succeed.
    pub async fn watch(gateway: &str, room: &str, token: &str) -> anyhow::Result<Self> {
        let (peer, offer) = Self::offer_to_watch().await?;
        Self::post(peer, &format!("{gateway}/v1/rooms/{room}/whep"), token, offer).await
    }

    /// A peer connection with an offer to watch one of each kind.
    ///
    /// # Errors
    /// When there is no socket for it.
    pub async fn offer_to_watch() -> anyhow::Result<(Peer, String)> {
        let peer = Peer::new().await?;
        let add = |api: &mut SdpApi<'_>| {
            for kind in [MediaKind::Audio, MediaKind::Video] {
                api.add_media(kind, Direction::RecvOnly, None, None, None);
            }
        };
        let (offer, ()) = peer.offer(add).await?;
        Ok((peer, offer))
    }

    async fn post(peer: Peer, endpoint: &str, token: &str, offer: String) -> anyhow::Result<Self> {
        let http = reqwest::Client::new();
        let response = post(&http, endpoint, token, offer).await?;
        let headers = response.headers().clone();
        let header = |name| headers.get(&name).and_then(|value| value.to_str().ok());
        let url = response.url().join(header(LOCATION).unwrap_or_default())?;
        let status = response.status();
        let answer = response.text().await?;
        if status != StatusCode::CREATED {
            bail!("{endpoint} answered {status}: {answer}");
        }
        peer.accept_answer(answer.clone()).await?;
        Ok(Self {
            peer,
            sender: rand::random(),
            url,
            tag: header(ETAG).context("no ETag")?.to_owned(),
            answer,
            http,
        })
    }

    /// Asks for the session's URL from now on at another gateway.
    ///
    /// # Errors
    /// When that is none.
    pub fn go_to(&mut self, gateway: &str) -> anyhow::Result<()> {
        self.url = Url::parse(gateway)?.join(self.url.path())?;
        Ok(())
    }

    /// Sends an ICE fragment; the status.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn patch(&self, if_match: &str, fragment: &str) -> anyhow::Result<StatusCode> {
        Ok(self.send_fragment(if_match, fragment.to_owned()).await?.status())
    }

    /// Restarts ICE by a fragment alone, and takes the node's new credentials into the answer that it had.
    ///
    /// # Errors
    /// When it does not succeed.
    pub async fn restart_ice(&mut self) -> anyhow::Result<()> {
        let (offer, _) = self.peer.offer(|api| api.ice_restart(true)).await?;
        let response = self.send_fragment("*", credentials(&offer)).await?;
        let status = response.status();
        let tag = response
            .headers()
            .get(ETAG)
            .and_then(|tag| tag.to_str().ok())
            .map(str::to_owned);
        let fragment = response.text().await?;
        if status != StatusCode::OK {
            bail!("a restart of ICE was answered with {status}: {fragment}");
        }
        self.tag = tag.context("no ETag")?;
        for (old, new) in credentials(&self.answer).lines().zip(credentials(&fragment).lines()) {
            // Wherever they are: the candidates name the ufrag too.
            let (Some((_, old)), Some((_, new))) = (old.split_once(':'), new.split_once(':')) else {
                bail!("no credentials in {fragment}");
            };
            self.answer = self.answer.replace(old, new);
        }
        self.peer.accept_answer(self.answer.clone()).await
    }

    async fn send_fragment(&self, if_match: &str, fragment: String) -> anyhow::Result<Response> {
        let request = self.http.request(Method::PATCH, self.url.clone());
        let request = request.header(CONTENT_TYPE, FRAGMENT).header(IF_MATCH, if_match);
        Ok(request.body(fragment).send().await?)
    }

    /// Ends the session; the status.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn delete(&self) -> anyhow::Result<StatusCode> {
        Ok(self.http.delete(self.url.clone()).send().await?.status())
    }
}

/// Posts an offer.
///
/// # Errors
/// When there is no answer.
pub async fn post(http: &reqwest::Client, endpoint: &str, token: &str, offer: String) -> anyhow::Result<Response> {
    let request = http.post(endpoint).bearer_auth(token).header(CONTENT_TYPE, SDP);
    Ok(request.body(offer).send().await?)
}

fn add_publishing_lines(api: &mut SdpApi<'_>, rids: &[&str]) -> (Mid, Mid) {
    let simulcast = (!rids.is_empty()).then(|| Simulcast {
        send: rids.iter().map(|rid| SimulcastLayer::new(rid)).collect(),
        recv: Vec::new(),
    });
    (
        api.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None),
        api.add_media(MediaKind::Video, Direction::SendOnly, None, None, simulcast),
    )
}

/// The lines of the first ICE credentials.
fn credentials(sdp: &str) -> String {
    let lines = ["a=ice-ufrag:", "a=ice-pwd:"]
        .into_iter()
        .filter_map(|name| sdp.lines().find(|line| line.starts_with(name)));
    lines.map(|line| format!("{line}\r\n")).collect()
}
