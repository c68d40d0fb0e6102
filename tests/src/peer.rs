//! One peer connection: str0m in RTP mode over a UDP socket of its own, driven by a task.
//!
//! Requests reach the task as closures over the driver; what happens is published as a [`PeerState`] that tests wait on.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use anyhow::Context;
use str0m::change::{SdpAnswer, SdpApi, SdpOffer, SdpPendingOffer};
use str0m::channel::ChannelId;
use str0m::format::Codec;
use str0m::media::{KeyframeRequestKind, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionValues, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};

use crate::media::{Ledger, Source};
use crate::until;

/// What is known of a [`Peer`].
#[derive(Debug, Clone, Default)]
pub struct PeerState {
    /// ICE and DTLS are up.
    pub connected: bool,
    /// What arrived, by m-line.
    pub ledgers: BTreeMap<String, Ledger>,
    /// m-lines that the other side added, with their stream and track ids.
    pub remote_tracks: BTreeMap<String, (String, String)>,
    /// Open data channels by label.
    pub channels: BTreeMap<String, usize>,
    /// Messages of data channels, with the channel's label.
    pub messages: Vec<(String, Vec<u8>)>,
    /// Datagrams by who sent them, whatever they are.
    pub datagrams: BTreeMap<SocketAddr, u64>,
    /// Key-frame requests that the other side has sent.
    pub key_frame_requests: u64,
    /// Why it ended.
    pub ended: Option<String>,
}

impl PeerState {
    /// Packets of one sender on all m-lines of a kind.
    pub fn packets_from(&self, sender: u32) -> u64 {
        self.ledgers.values().map(|ledger| ledger.packets_from(sender)).sum()
    }

    /// Packets of one sender's layer on all m-lines.
    pub fn packets_of(&self, sender: u32, layer: u8) -> u64 {
        self.ledgers
            .values()
            .map(|ledger| ledger.packets_of(sender, layer))
            .sum()
    }

    /// The ledger of an m-line; empty when nothing arrived on it.
    pub fn ledger(&self, mid: &str) -> &Ledger {
        static NOTHING: Ledger = Ledger::new();
        self.ledgers.get(mid).unwrap_or(&NOTHING)
    }
}

type Request = Box<dyn FnOnce(&mut Driver) + Send>;

/// A peer connection. Dropping it silences it without a word, as a crashed client.
#[derive(Debug, Clone)]
pub struct Peer {
    requests: mpsc::Sender<Request>,
    state: watch::Receiver<PeerState>,
    local: SocketAddr,
}

impl Peer {
    /// A new one, on a port of its own on loopback.
    pub async fn new() -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let local = socket.local_addr()?;
        let mut rtc = Rtc::builder()
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .enable_h264(true)
            .set_rtp_mode(true)
            .build(Instant::now());
        rtc.add_local_candidate(Candidate::host(local, "udp")?);
        let (state, watched) = watch::channel(PeerState::default());
        let (requests, inbox) = mpsc::channel(64);
        let driver = Driver {
            rtc,
            local,
            sources: Vec::new(),
            pending: None,
            raw: Vec::new(),
            labels: Vec::new(),
            state,
        };
        tokio::spawn(driver.run(socket, inbox));
        Ok(Self {
            requests,
            state: watched,
            local,
        })
    }

    /// Its UDP address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// What is known now.
    pub fn state(&self) -> PeerState {
        self.state.borrow().clone()
    }

    /// Waits for a condition; see [`until`].
    pub async fn until(&self, what: &str, condition: impl FnMut(&PeerState) -> bool) {
        until(&mut self.state.clone(), what, condition).await;
    }

    /// Waits until ICE and DTLS are up.
    pub async fn connected(&self) {
        self.until("connected", |state| state.connected).await;
    }

    /// Waits until `more` packets more of a sender have arrived than now.
    pub async fn receives(&self, sender: u32, more: u64) {
        let before = self.state().packets_from(sender);
        let what = format!("{more} packets of sender {sender} after the first {before}");
        self.until(&what, |state| state.packets_from(sender) >= before + more)
            .await;
    }

    /// Waits until `more` packets more have arrived on an m-line than now.
    pub async fn receives_on(&self, mid: &str, more: u64) {
        let before = self.state().ledger(mid).packets;
        let what = format!("{more} packets on {mid} after the first {before}");
        self.until(&what, |state| state.ledger(mid).packets >= before + more)
            .await;
    }

    async fn request<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Driver) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (reply, answer) = oneshot::channel();
        let request: Request = Box::new(move |driver| {
            // Whoever asked may have been dropped with its test.
            let _ = reply.send(run(driver));
        });
        if self.requests.send(request).await.is_err() {
            anyhow::bail!("the peer connection has ended: {:?}", self.state().ended);
        }
        answer.await.context("the peer connection has ended")?
    }

    /// Makes changes and an offer of them, to be completed with [`Peer::accept_answer`].
    pub async fn offer<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut SdpApi<'_>) -> T + Send + 'static,
    ) -> anyhow::Result<(String, T)> {
        self.request(|driver| {
            let mut api = driver.rtc.sdp_api();
            let made = change(&mut api);
            let (offer, pending) = api.apply().context("nothing to offer")?;
            driver.pending = Some(pending);
            Ok((offer.to_sdp_string(), made))
        })
        .await
    }

    /// Takes the answer to the last offer.
    pub async fn accept_answer(&self, sdp: String) -> anyhow::Result<()> {
        self.request(move |driver| {
            let pending = driver.pending.take().context("no offer is pending")?;
            let answer = SdpAnswer::from_sdp_string(&sdp).with_context(|| format!("answer {sdp}"))?;
            driver
                .rtc
                .sdp_api()
                .accept_answer(pending, answer)
                .with_context(|| format!("answer {sdp}"))
        })
        .await
    }

    /// Answers an offer.
    pub async fn accept_offer(&self, sdp: String) -> anyhow::Result<String> {
        self.request(move |driver| {
            let offer = SdpOffer::from_sdp_string(&sdp).with_context(|| format!("offer {sdp}"))?;
            let answer = driver
                .rtc
                .sdp_api()
                .accept_offer(offer)
                .with_context(|| format!("offer {sdp}"))?;
            Ok(answer.to_sdp_string())
        })
        .await
    }

    /// Sends sound or picture from now on.
    pub async fn send(&self, source: Source) -> anyhow::Result<()> {
        self.request(|driver| {
            driver.sources.push(source);
            Ok(())
        })
        .await
    }

    /// Sends nothing of an m-line any more.
    pub async fn stop(&self, mid: Mid) -> anyhow::Result<()> {
        self.request(move |driver| {
            driver.sources.retain(|source| source.mid != mid);
            Ok(())
        })
        .await
    }

    /// Asks the sender of an m-line for a key frame.
    pub async fn request_key_frame(&self, mid: String) -> anyhow::Result<()> {
        self.request(move |driver| {
            let mut direct = driver.rtc.direct_api();
            let stream = direct
                .stream_rx_by_mid(Mid::from(mid.as_str()), None)
                .context("nothing arrived on it yet")?;
            stream.request_keyframe(KeyframeRequestKind::Pli);
            Ok(())
        })
        .await
    }

    /// Sends a message on an open data channel.
    pub async fn send_data(&self, label: &str, message: Vec<u8>) -> anyhow::Result<()> {
        let label = label.to_owned();
        self.request(move |driver| {
            let id = driver.labels.iter().find(|(_, open)| *open == label).map(|(id, _)| *id);
            let id = id.with_context(|| format!("data channel {label} is not open"))?;
            let mut channel = driver.rtc.channel(id).context("the channel is closed")?;
            channel.write(true, &message)?;
            Ok(())
        })
        .await
    }

    /// Sends a datagram from the connection's own address, past the connection.
    pub async fn send_raw(&self, to: SocketAddr, datagram: Vec<u8>) -> anyhow::Result<()> {
        self.request(move |driver| {
            driver.raw.push((to, datagram));
            Ok(())
        })
        .await
    }
}

/// The task's side of a [`Peer`].
struct Driver {
    rtc: Rtc,
    local: SocketAddr,
    sources: Vec<Source>,
    pending: Option<SdpPendingOffer>,
    raw: Vec<(SocketAddr, Vec<u8>)>,
    labels: Vec<(ChannelId, String)>,
    state: watch::Sender<PeerState>,
}

impl Driver {
    async fn run(mut self, socket: UdpSocket, mut inbox: mpsc::Receiver<Request>) {
        if let Err(error) = self.drive(&socket, &mut inbox).await {
            // The test may be waiting on somebody else.
            tracing::error!(error = format!("{error:#}"), local = %self.local, "a peer connection ended");
            self.state.send_modify(|state| state.ended = Some(format!("{error:#}")));
        }
    }

    async fn drive(&mut self, socket: &UdpSocket, inbox: &mut mpsc::Receiver<Request>) -> anyhow::Result<()> {
        let mut buffer = vec![0; 2_048];
        loop {
            let timeout = self.drain(socket).await?;
            if !self.rtc.is_alive() {
                anyhow::bail!("closed");
            }
            let due = self.sources.iter().map(|source| source.due).min().unwrap_or(timeout);
            let wake = if self.rtc.is_connected() {
                timeout.min(due)
            } else {
                timeout
            };
            tokio::select! {
                request = inbox.recv() => match request {
                    Some(request) => {
                        request(self);
                        self.drain(socket).await?;
                        // What a negotiation has started begins with the next input, and there may be nothing else to wake it.
                        self.rtc.handle_input(Input::Timeout(Instant::now()))?;
                    }
                    None => return Ok(()),
                },
                received = socket.recv_from(&mut buffer) => {
                    let (length, source) = received?;
                    self.state.send_modify(|state| *state.datagrams.entry(source).or_default() += 1);
                    // What is not for WebRTC is not worth an error.
                    if let Ok(receive) = Receive::new(Protocol::Udp, source, self.local, &buffer[..length]) {
                        self.rtc.handle_input(Input::Receive(Instant::now(), receive))?;
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {
                    self.rtc.handle_input(Input::Timeout(Instant::now()))?;
                    self.drain(socket).await?;
                    self.write_due(Instant::now());
                }
            }
        }
    }

    async fn drain(&mut self, socket: &UdpSocket) -> anyhow::Result<Instant> {
        for (to, datagram) in std::mem::take(&mut self.raw) {
            socket.send_to(&datagram, to).await?;
        }
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => return Ok(at),
                Output::Transmit(datagram) => {
                    // A port that nobody listens on any more is loss, not a failure of the client.
                    let _ = socket.send_to(&datagram.contents, datagram.destination).await;
                }
                Output::Event(event) => self.handle(event),
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Connected => self.state.send_modify(|state| state.connected = true),
            Event::MediaAdded(added) => {
                if let Some(media) = self.rtc.media(added.mid) {
                    let ids = (media.stream_id().to_owned(), media.track_id().to_owned());
                    self.state.send_modify(|state| {
                        state.remote_tracks.insert(added.mid.to_string(), ids);
                    });
                }
            }
            Event::RtpPacket(packet) => {
                let ssrc = packet.header.ssrc;
                let mid = self.rtc.direct_api().stream_rx(&ssrc).map(|stream| stream.mid());
                let Some(mid) = mid.or(packet.header.ext_vals.mid) else {
                    return;
                };
                // Padding probes have no payload.
                if packet.payload.is_empty() {
                    return;
                }
                let audio = self
                    .rtc
                    .media(mid)
                    .is_some_and(|media| media.kind() == MediaKind::Audio);
                self.state.send_modify(|state| {
                    let ledger = state.ledgers.entry(mid.to_string()).or_default();
                    ledger.enter(*packet.seq_no, packet.time.numer(), *ssrc, audio, &packet.payload);
                });
            }
            Event::KeyframeRequest(request) => {
                for source in self.sources.iter_mut().filter(|source| source.mid == request.mid) {
                    source.want_key_frame(request.rid);
                }
                self.state.send_modify(|state| state.key_frame_requests += 1);
            }
            Event::ChannelOpen(id, label) => {
                self.labels.push((id, label.clone()));
                self.state
                    .send_modify(|state| *state.channels.entry(label).or_default() += 1);
            }
            Event::ChannelData(data) => {
                let label = self
                    .labels
                    .iter()
                    .find(|(id, _)| *id == data.id)
                    .map(|(_, label)| label.clone());
                self.state
                    .send_modify(|state| state.messages.push((label.unwrap_or_default(), data.data)));
            }
            _ => {}
        }
    }

    fn write_due(&mut self, now: Instant) {
        if !self.rtc.is_connected() {
            return;
        }
        let mut sources = std::mem::take(&mut self.sources);
        for source in sources.iter_mut().filter(|source| source.due <= now) {
            let Some(pt) = self.payload_type(source.mid, source.audio) else {
                continue;
            };
            for (rid, packets) in source.next_frame(now) {
                let mut direct = self.rtc.direct_api();
                let Some(stream) = direct.stream_tx_by_mid(source.mid, rid) else {
                    continue;
                };
                for packet in packets {
                    let ext_vals = ExtensionValues {
                        audio_level: packet.level,
                        voice_activity: packet.level.map(|_| true),
                        ..ExtensionValues::default()
                    };
                    stream.write_rtp(
                        RtpWrite::new(pt, packet.sequence.into(), packet.timestamp, now, packet.payload)
                            .marker(packet.marker)
                            .nackable(!source.audio)
                            .ext_vals(ext_vals),
                    );
                }
            }
        }
        self.sources = sources;
    }

    fn payload_type(&self, mid: Mid, audio: bool) -> Option<Pt> {
        let wanted = if audio { Codec::Opus } else { Codec::Vp8 };
        let negotiated = self.rtc.media(mid)?.remote_pts();
        let params = self.rtc.codec_config().params().iter();
        params
            .filter(|params| params.spec().codec == wanted)
            .map(|params| params.pt())
            .find(|pt| negotiated.contains(pt))
    }
}

#[cfg(test)]
mod tests {
    use str0m::media::{Direction, MediaKind};

    use super::*;

    #[tokio::test]
    async fn two_peers_reach_each_other() {
        let (left, right) = (Peer::new().await.unwrap(), Peer::new().await.unwrap());
        let (offer, (audio, video)) = left
            .offer(|api| {
                let audio = api.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
                let video = api.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
                api.add_channel("_reliable".to_owned());
                (audio, video)
            })
            .await
            .unwrap();
        let answer = right.accept_offer(offer).await.unwrap();
        left.accept_answer(answer).await.unwrap();
        left.connected().await;
        right.connected().await;
        left.send(Source::audio(audio, 1, Instant::now())).await.unwrap();
        left.send(Source::video(video, 2, &[], Instant::now())).await.unwrap();
        right.receives(1, 20).await;
        right.receives(2, 40).await;
        let state = right.state();
        let ledger = state.ledger(&video);
        assert_eq!(
            (ledger.gaps(), ledger.key_frames, ledger.picture_id_jumps().len()),
            (0, 1, 0)
        );
        right.request_key_frame(video.to_string()).await.unwrap();
        right
            .until("a second key frame", |state| state.ledger(&video).key_frames == 2)
            .await;
        left.until("the channel", |state| state.channels.contains_key("_reliable"))
            .await;
        left.send_data("_reliable", b"hello".to_vec()).await.unwrap();
        right
            .until("the message", |state| {
                state.messages == [("_reliable".to_owned(), b"hello".to_vec())]
            })
            .await;
    }
}
