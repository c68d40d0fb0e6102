//! One peer connection over a UDP socket of its own: str0m in RTP mode, sans its events' meaning.

use std::cell::RefCell;
use std::io::{ErrorKind, IoSliceMut};
use std::iter::repeat_n;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use quinn_udp::{RecvMeta, UdpSocketState};
use str0m::change::{SdpAnswer, SdpApi, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::described::{self, Described};
use crate::handshake::{self, Handshake};
use crate::receiver::Receiver;

/// The largest datagram, as many as the kernel may hand over as one.
const BUFFER: usize = 65_536;

/// Datagrams of one kernel call, each perhaps a run of several.
const BATCH: usize = 8;

thread_local! {
    /// Everybody on this thread reads into the same memory.
    static BUFFERS: RefCell<Vec<Vec<u8>>> = RefCell::new(vec![vec![0; BUFFER]; BATCH]);
}

/// A peer connection.
pub struct Connection {
    /// The stack.
    pub rtc: Rtc,
    socket: UdpSocket,
    receiver: UdpSocketState,
    local: SocketAddr,
    pending: Option<SdpPendingOffer>,
    due: Instant,
    light: Option<Light>,
    /// What a negotiation has begun goes on with the next input, and there may be no other.
    is_negotiated: bool,
}

/// What media goes to instead of the stack.
#[derive(Default)]
struct Light {
    handshake: Handshake,
    receiver: Option<Receiver>,
    described: Described,
    /// Where media comes from, and reports of it go to.
    source: Option<SocketAddr>,
}

/// What has happened on a connection.
pub enum Happened<'a> {
    /// What the stack tells.
    Event(&'a mut Rtc, &'a Event),
    /// A light one has got a datagram of media.
    Media(&'a mut Receiver, &'a Described, &'a [u8]),
}

/// Whether a datagram is SRTP or SRTCP (RFC 7983).
fn is_media(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(128..=191))
}

impl Connection {
    /// A new one, at this address of the machine. If it is a light one, media is not the stack's business.
    pub async fn new(address: IpAddr, is_light: bool) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((address, 0)).await.context("no UDP socket")?;
        let local = socket.local_addr()?;
        let receiver = UdpSocketState::new((&socket).into())?;
        let now = Instant::now();
        let mut rtc = Rtc::builder()
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .set_rtp_mode(true)
            .set_crypto_provider(Arc::new(handshake::crypto_provider()))
            .build(now);
        let light = is_light.then(|| Light {
            handshake: Handshake::of_last_made().unwrap_or_default(),
            ..Light::default()
        });
        rtc.add_local_candidate(Candidate::host(local, "udp")?);
        Ok(Self {
            rtc,
            socket,
            receiver,
            local,
            pending: None,
            due: now,
            light,
            is_negotiated: false,
        })
    }

    /// Makes changes and an offer of them.
    pub fn offer<T>(&mut self, change: impl FnOnce(&mut SdpApi<'_>) -> T) -> anyhow::Result<(String, T)> {
        let mut api = self.rtc.sdp_api();
        let made = change(&mut api);
        let (offer, pending) = api.apply().context("there is nothing to offer")?;
        self.pending = Some(pending);
        Ok((offer.to_sdp_string(), made))
    }

    /// Offers to receive so many streams of sound and of picture.
    pub fn offer_to_receive(&mut self, sounds: usize, pictures: usize) -> anyhow::Result<String> {
        let kinds = repeat_n(MediaKind::Audio, sounds).chain(repeat_n(MediaKind::Video, pictures));
        let (offer, ()) = self.offer(|api| {
            for kind in kinds {
                api.add_media(kind, Direction::RecvOnly, None, None, None);
            }
        })?;
        Ok(offer)
    }

    /// Takes the answer to the last offer.
    pub fn accept_answer(&mut self, sdp: &str) -> anyhow::Result<()> {
        let pending = self.pending.take().context("an answer without an offer")?;
        if let Some(light) = &mut self.light {
            light.described = described::read(sdp);
        }
        let answer = SdpAnswer::from_sdp_string(sdp).context("an answer that cannot be read")?;
        self.rtc.sdp_api().accept_answer(pending, answer)?;
        self.is_negotiated = true;
        Ok(())
    }

    /// Answers an offer.
    pub fn accept_offer(&mut self, sdp: &str) -> anyhow::Result<String> {
        if let Some(light) = &mut self.light {
            light.described = described::read(sdp);
        }
        let offer = SdpOffer::from_sdp_string(sdp).context("an offer that cannot be read")?;
        let answer = self.rtc.sdp_api().accept_offer(offer)?.to_sdp_string();
        self.is_negotiated = true;
        Ok(answer)
    }

    /// When [`Connection::handle_timeout`] has something to do.
    pub fn due(&self) -> Instant {
        let light = self.light.as_ref().filter(|light| light.source.is_some());
        let media = light.and_then(|light| light.receiver.as_ref()).map(Receiver::due);
        media.map_or(self.due, |media| media.min(self.due))
    }

    /// Waits until something can be received.
    pub async fn readable(&self) {
        // What is wrong with the socket shows when it is read.
        let _ = self.socket.readable().await;
    }

    /// Takes in what has arrived, a few datagrams at most, so that others have their turn.
    pub fn receive(&mut self, mut handle: impl FnMut(Happened<'_>)) -> anyhow::Result<()> {
        let now = Instant::now();
        BUFFERS.with_borrow_mut(|buffers| {
            let mut metas = [RecvMeta::default(); BATCH];
            let received = {
                let mut slices: Vec<IoSliceMut<'_>> =
                    buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
                self.socket.try_io(Interest::READABLE, || {
                    self.receiver.recv((&self.socket).into(), &mut slices, &mut metas)
                })
            };
            let count = match received {
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => 0,
                Err(error) => return Err(error.into()),
            };
            for (meta, buffer) in metas.iter().zip(buffers.iter()).take(count) {
                for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    if let Some(light) = self.light.as_mut().filter(|_| is_media(datagram)) {
                        light.source = Some(meta.addr);
                        if let Some(receiver) = &mut light.receiver {
                            handle(Happened::Media(receiver, &light.described, datagram));
                        }
                        continue;
                    }
                    // What is not for WebRTC is not worth an error.
                    if let Ok(receive) = Receive::new(Protocol::Udp, meta.addr, self.local, datagram) {
                        self.rtc.handle_input(Input::Receive(now, receive))?;
                    }
                    // Each datagram's events before the next, so that nothing piles up inside.
                    self.drain_into(&mut handle)?;
                }
            }
            Ok(())
        })
    }

    /// Does what is due, and what a negotiation has begun.
    pub fn handle_timeout(&mut self, now: Instant, mut handle: impl FnMut(Happened<'_>)) -> anyhow::Result<()> {
        self.drain_into(&mut handle)?;
        if self.due <= now || std::mem::take(&mut self.is_negotiated) {
            self.rtc.handle_input(Input::Timeout(now))?;
            self.drain_into(&mut handle)?;
        }
        if let Some(light) = &mut self.light
            && let (Some(receiver), Some(source)) = (&mut light.receiver, light.source)
        {
            for datagram in receiver.handle_timeout(now) {
                let _ = self.socket.try_send_to(&datagram, source);
            }
        }
        anyhow::ensure!(self.rtc.is_alive(), "the peer connection ended");
        Ok(())
    }

    /// Sends what is to be sent, and hands over what has happened.
    pub fn drain(&mut self, mut handle: impl FnMut(Happened<'_>)) -> anyhow::Result<()> {
        self.drain_into(&mut handle)
    }

    fn drain_into(&mut self, handle: &mut impl FnMut(Happened<'_>)) -> anyhow::Result<()> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.due = at;
                    self.take_keys();
                    return Ok(());
                }
                Output::Transmit(datagram) => {
                    // What the socket does not take is lost, as on any network.
                    let _ = self.socket.try_send_to(&datagram.contents, datagram.destination);
                }
                Output::Event(event) => handle(Happened::Event(&mut self.rtc, &event)),
            }
        }
    }

    /// The handshake may be over.
    fn take_keys(&mut self) {
        if let Some(light) = self.light.as_mut().filter(|light| light.receiver.is_none())
            && let Some(keys) = light.handshake.take()
        {
            light.receiver = Receiver::new(Instant::now(), &keys, rand::random());
        }
    }
}
