//! One peer connection: ICE-lite, DTLS, SRTP, RTCP, SCTP. This file and those
//! below it are the only ones that name the WebRTC stack, str0m.
//!
//! The stack's contract is that every mutation is followed by a full drain, and that several writes may share one: so
//! [`Connection::write`] only queues, and [`Connection::poll`] must run until [`Polled::Idle`] before anything else is done with the
//! connection. A panic inside the stack is caught here and ends this connection alone.

mod asking;
mod dependency;
mod format;
mod handshake;
mod ingress;
mod negotiation;
mod nomination;
mod path;
mod resumed;
mod statistics;
mod words;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::bwe::Bitrate;
use str0m::change::SdpPendingOffer;
use str0m::channel::{ChannelConfig, Reliability};
use str0m::config::{CryptoProvider, DtlsCert, DtlsVersion};
use str0m::crypto::Sha1HmacProvider;
use str0m::media::KeyframeRequestKind;
use str0m::net::{Protocol, Receive};
use str0m::{Event, IceConnectionState, IceCreds, Input, Output, Rtc, RtcError};

use crate::api::ShardStats;
use crate::clock::Clock;
use crate::data::Delivery;
use crate::egress::feedback::Handled;
use crate::egress::{Egress, Told};
use crate::packet::{MediaPacket, Mid, OutgoingStream, PayloadType, Rid};
use crate::quality::{self, Report};
use crate::rewrite::Rewritten;
use crate::rtp;
use crate::sdp::resumed::Origin;
use crate::stun;

pub use format::PayloadFormat;
use handshake::Handshake;
pub use path::{Former, Session};
use path::{Path, candidate};
pub use resumed::SentStream;
pub use words::{Change, Channel, ConnectionEvent, Fault, NewLine, Polled};

/// The stack is asked again at once when it is due at once, but not more often than this in a row: a timer that never moves must
/// not hold the shard.
const MAX_IMMEDIATE_TIMEOUTS: u32 = 16;

/// What all connections of a shard share.
pub struct Stack {
    crypto: Arc<CryptoProvider>,
    certificate: DtlsCert,
    public: SocketAddr,
    /// The address that other nodes reach these connections at, if it is another one.
    pub tunnel: Option<SocketAddr>,
    clock: Clock,
}

impl Stack {
    /// The address that clients send to.
    pub fn public(&self) -> SocketAddr {
        self.public
    }

    /// A new certificate, for connections at these addresses, for clients and for other nodes, that tell this time of day.
    pub fn new((public, tunnel): (SocketAddr, Option<SocketAddr>), clock: Clock) -> Self {
        let crypto = Arc::new(handshake::crypto_provider());
        #[expect(
            clippy::expect_used,
            reason = "the compiled-in provider makes certificates; without one nothing can work"
        )]
        let certificate = crypto
            .dtls_provider
            .generate_certificate()
            .expect("a crypto provider that makes certificates");
        Self {
            crypto,
            certificate,
            public,
            tunnel,
            clock,
        }
    }
}

/// One peer connection.
pub struct Connection {
    rtc: Rtc,
    public: SocketAddr,
    pending: Option<SdpPendingOffer>,
    /// What our offers say that they come from, when they go on from another node's.
    origin: Option<Origin>,
    /// The offer that goes on from another node's, as long as it is not answered.
    taken_up: Option<String>,
    /// The m-lines that there are, or were.
    mids: Vec<Mid>,
    egress: Egress,
    handshake: Handshake,
    /// Of how many handshakes the keys were used.
    handshakes: u32,
    /// The address of the node over which the client is reached until it has found this one.
    via: Option<SocketAddr>,
    /// How many nodes its ICE session has had before this one.
    moves: u8,
    /// As its last description said.
    client_ufrag: Option<String>,
    /// Where the stack sends to, and by which address.
    path: Option<Path>,
    nominating: nomination::Nominating,
    sha1_hmac: &'static dyn Sha1HmacProvider,
    /// When the stack has something to do; none: it was changed.
    stack_due: Option<Instant>,
    statistics: statistics::Statistics,
    asking: asking::Asking,
    /// The SSRC of the datagram that is being taken.
    carrier: Option<u32>,
    immediate_timeouts: u32,
    is_over: bool,
}

impl Connection {
    /// A connection with this ICE session.
    pub fn new(stack: &Stack, now: Instant, session: Session) -> Result<Self, Fault> {
        let Session { ufrag, password, from } = session;
        let moves = from.map_or(0, |former| former.moves);
        handshake::make_next(from.is_some());
        let mut rtc = Rtc::builder()
            .set_rtp_mode(true)
            .set_ice_lite(true)
            .set_crypto_provider(stack.crypto.clone())
            .set_dtls_cert(stack.certificate.clone())
            // 1.3 takes one round trip less, and the peer may lose one flight instead of two.
            .set_dtls_version(DtlsVersion::Auto)
            .set_local_ice_credentials(IceCreds { ufrag, pass: password })
            .set_extension_map(negotiation::extensions())
            .set_stats_interval(Some(quality::INTERVAL))
            .clear_codecs()
            .enable_opus(true, true)
            .enable_vp8(true)
            .enable_h264(true)
            .enable_vp9(true)
            .enable_av1(true)
            .build(now);
        rtc.add_local_candidate(candidate(stack.public, moves)?);
        let via = from.map(|former| former.via).filter(|via| *via != stack.public);
        if let Some(via) = via {
            rtc.add_local_candidate(candidate(via, moves.saturating_sub(1))?);
        }
        let ssrc = *rtc.direct_api().new_ssrc();
        let known_bps = from.and_then(|former| former.estimate_bps);
        Ok(Self {
            rtc,
            public: stack.public,
            pending: None,
            origin: None,
            taken_up: None,
            mids: Vec::new(),
            egress: Egress::new(now, stack.clock, ssrc, known_bps),
            handshake: Handshake::of_last_made().unwrap_or_default(),
            handshakes: 0,
            via,
            moves,
            client_ufrag: None,
            path: None,
            nominating: nomination::Nominating::default(),
            sha1_hmac: stack.crypto.sha1_hmac_provider,
            stack_due: None,
            statistics: statistics::Statistics::default(),
            asking: asking::Asking::default(),
            carrier: None,
            immediate_timeouts: 0,
            is_over: false,
        })
    }

    /// The ICE ufrag that the peer's checks must name at present.
    pub fn ufrag(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    /// Whether a datagram is from this connection's peer; it came to the shard's address or `by` another. STUN is checked against the ICE password.
    pub fn accepts(&mut self, now: Instant, by: Option<SocketAddr>, source: SocketAddr, datagram: &[u8]) -> bool {
        self.expect_checks(datagram);
        let Ok(receive) = Receive::new(Protocol::Udp, source, by.unwrap_or(self.public), datagram) else {
            return false;
        };
        self.rtc.accepts(&Input::Receive(now, receive))
    }

    /// Takes a datagram that came to the shard's address or `by` another. `Ok(false)`: it is none that a connection can take.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        by: Option<SocketAddr>,
        source: SocketAddr,
        datagram: &[u8],
    ) -> Result<bool, Fault> {
        let by = by.unwrap_or(self.public);
        let protocol = stun::classify(datagram);
        if protocol == stun::Protocol::Rtp && rtp::is_rtcp(datagram) {
            match self.egress.handle_rtcp(now, datagram) {
                Handled::Whole => return Ok(true),
                Handled::Refused if self.egress.is_ready() => return Ok(true),
                Handled::Refused | Handled::InPart => {}
            }
        }
        let Ok(receive) = Receive::new(Protocol::Udp, source, by, datagram) else {
            return Ok(false);
        };
        self.carrier = (protocol == stun::Protocol::Rtp)
            .then(|| rtp::sender(datagram))
            .flatten();
        self.guard(|rtc| rtc.handle_input(Input::Receive(now, receive)))?;
        if protocol == stun::Protocol::Stun {
            let path = Path { by, to: source };
            self.nominating.stun(now, path, datagram);
            if self.path.is_some_and(|before| before != path) {
                self.ask_for_path()?;
            }
        }
        Ok(true)
    }

    /// The stack does not tell where it sends to, and a check from elsewhere may have changed it: it is made to send something, of which
    /// the peer takes no notice (RFC 4585 section 6.4: what an application does not know it ignores).
    fn ask_for_path(&mut self) -> Result<(), Fault> {
        self.guard(|rtc| {
            let mut api = rtc.direct_api();
            let ssrc = api.new_ssrc();
            api.send_app_specific_feedback(ssrc, ssrc, *b"path");
            Ok(())
        })
    }

    /// Takes the keys of a handshake that was done since the last call.
    fn take_keys(&mut self) {
        let handshakes = self.handshake.count();
        if handshakes == self.handshakes {
            return;
        }
        // We are always the client of the handshake.
        if let Some(keys) = self.handshake.take() {
            self.handshakes = handshakes;
            self.egress.set_keys(&keys.client, &keys.server);
        }
    }

    /// Queues a packet on an outgoing stream. It leaves with the next [`Connection::poll`]s.
    pub fn write(
        &mut self,
        now: Instant,
        stream: OutgoingStream,
        kind: PayloadType,
        packet: &Arc<MediaPacket>,
        rewritten: &Rewritten,
    ) -> bool {
        self.egress.write(now, stream, kind, packet, rewritten)
    }

    /// Queues an empty packet of this number, so that the receiver does not wait for it.
    pub fn write_empty(&mut self, stream: OutgoingStream, kind: PayloadType, sequence: u64, timestamp: u32) {
        self.egress.write_empty(stream, kind, sequence, timestamp);
    }

    /// Lets go of what was queued or sent on a stream.
    pub fn forget(&mut self, stream: OutgoingStream) {
        self.egress.forget(stream);
    }

    /// What may be sent to the peer in all, in bits per second; none: it gives nothing to tell by.
    pub fn estimate(&self) -> Option<u64> {
        self.egress.estimate()
    }

    /// How much would be of use at most, in bits per second. Nothing beyond it is probed for.
    pub fn set_wanted(&mut self, now: Instant, bps: u64) {
        self.egress.set_wanted(now, bps);
    }

    /// Bits per second of sound and of repair that were sent lately.
    pub fn overhead(&self, now: Instant) -> u64 {
        self.egress.overhead(now)
    }

    /// Adds what became of what was to be sent since the last call.
    pub fn count(&mut self, stats: &mut ShardStats) {
        self.egress.take_counters().add_to(stats);
    }

    /// Asks the peer for a key frame of a layer (RFC 4585 section 6.3.1).
    pub fn request_key_frame(&mut self, mid: Mid, rid: Option<Rid>) {
        let rid = rid.map(|rid| rid.as_str().into());
        if let Some(stream) = self.rtc.direct_api().stream_rx_by_mid(mid.as_str().into(), rid) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
            self.stack_due = None;
        }
    }

    /// Asks the peer to send no more than so many bits per second in all, in the name of one of its layers.
    pub fn limit_incoming(&mut self, mid: Mid, rid: Option<Rid>, bps: u64) {
        let rid = rid.map(|rid| rid.as_str().into());
        if let Some(stream) = self.rtc.direct_api().stream_rx_by_mid(mid.as_str().into(), rid) {
            stream.request_remb(Bitrate::bps(bps));
        }
    }

    /// Queues a message, unless more than so many bytes wait on the channel. `Ok(false)`: it has, or the connection's buffer is full, or
    /// the channel is closed.
    pub fn send(&mut self, channel: Channel, message: &[u8], at_most: usize) -> Result<bool, Fault> {
        self.guard(|rtc| match rtc.channel(channel.0) {
            Some(mut open) => {
                if open.buffered_amount() > at_most {
                    return Ok(false);
                }
                let is_queued = open.write(true, message)?;
                if !is_queued {
                    open.set_buffered_amount_low_threshold(32 * 1024);
                }
                Ok(is_queued)
            }
            None => Ok(false),
        })
    }

    /// What the stack has reported last.
    pub fn report(&self) -> Report {
        self.statistics.report()
    }

    /// The next thing to do. Must be called until [`Polled::Idle`] after anything else.
    pub fn poll(&mut self, now: Instant) -> Result<Polled, Fault> {
        if self.nominating.next_due().is_some_and(|due| due <= now) {
            self.nominate(now)?;
        }
        loop {
            if self.stack_due.is_none_or(|due| due <= now) {
                if let Some(polled) = self.poll_stack(now)? {
                    return Ok(polled);
                }
                self.take_keys();
                continue;
            }
            while let Some((ssrc, missing)) = self.asking.next(now) {
                self.egress.ask(ssrc, &missing);
            }
            if self.egress.next_due().is_some_and(|due| due <= now) {
                self.egress.handle_timeout(now);
            }
            if let Some(told) = self.egress.poll_told() {
                return Ok(Polled::Event(match told {
                    Told::KeyFrameWanted(mid) => ConnectionEvent::KeyFrameWanted(mid),
                    Told::Estimate => ConnectionEvent::Estimate,
                }));
            }
            while let Some(bytes) = self.egress.poll() {
                // Before there is a path, there is nobody to send to.
                if let Some(path) = self.path {
                    return Ok(self.datagram(path, bytes));
                }
            }
            let due = self.stack_due.into_iter().chain(self.egress.next_due());
            let due = due
                .chain(self.asking.next_due())
                .chain(self.nominating.next_due())
                .min();
            return Ok(Polled::Idle(due.unwrap_or(now).max(now + Duration::from_millis(1))));
        }
    }

    /// What the stack wants done; none: nothing at present.
    fn poll_stack(&mut self, now: Instant) -> Result<Option<Polled>, Fault> {
        match self.guard(Rtc::poll_output)? {
            Output::Transmit(transmit) => {
                let path = Path {
                    by: transmit.source,
                    to: transmit.destination,
                };
                if stun::classify(&transmit.contents) != stun::Protocol::Stun {
                    self.path = Some(path);
                }
                return Ok(Some(self.datagram(path, Vec::from(transmit.contents).into())));
            }
            Output::Event(event) => {
                if self.statistics.observe(&event) {
                    self.statistics.sent(self.egress.rate(now));
                }
                return Ok(self.event(now, event).map(Polled::Event));
            }
            Output::Timeout(due) if due <= now && self.immediate_timeouts < MAX_IMMEDIATE_TIMEOUTS => {
                self.immediate_timeouts += 1;
                self.guard(|rtc| rtc.handle_input(Input::Timeout(now)))?;
            }
            Output::Timeout(due) => {
                self.immediate_timeouts = 0;
                self.stack_due = Some(due.max(now + Duration::from_millis(1)));
            }
        }
        Ok(None)
    }

    fn event(&mut self, now: Instant, event: Event) -> Option<ConnectionEvent> {
        match event {
            Event::Connected => Some(ConnectionEvent::Connected),
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => Some(ConnectionEvent::Disconnected),
            Event::Closed => Some(ConnectionEvent::Closed),
            Event::RtpPacket(packet) => {
                self.handshake.confirm();
                self.media_packet(now, packet).map(ConnectionEvent::Packet)
            }
            Event::ChannelOpen(id, label) => {
                let delivery = Delivery::from_label(&label)?;
                let stream = self.rtc.direct_api().sctp_stream_id_by_channel_id(id)?;
                Some(ConnectionEvent::ChannelOpen(Channel(id), delivery, stream))
            }
            Event::ChannelClose(id) => Some(ConnectionEvent::ChannelClosed(Channel(id))),
            Event::ChannelBufferedAmountLow(_) => Some(ConnectionEvent::ChannelDrained),
            Event::ChannelData(data) => Some(ConnectionEvent::Message(Channel(data.id), data.data)),
            _ => None,
        }
    }

    /// Runs the stack; a panic in it, or after it, is a fault of this connection.
    fn guard<T>(&mut self, run: impl FnOnce(&mut Rtc) -> Result<T, RtcError>) -> Result<T, Fault> {
        if self.is_over {
            return Err(Fault::Panicked);
        }
        self.stack_due = None;
        match catch_unwind(AssertUnwindSafe(|| run(&mut self.rtc))) {
            Ok(result) => Ok(result?),
            Err(_) => {
                self.is_over = true;
                Err(Fault::Panicked)
            }
        }
    }
}

fn channel_config(delivery: Delivery) -> ChannelConfig {
    ChannelConfig {
        label: delivery.label().to_owned(),
        ordered: delivery == Delivery::Reliable,
        reliability: match delivery {
            Delivery::Reliable => Reliability::Reliable,
            Delivery::Lossy => Reliability::MaxRetransmits { retransmits: 0 },
        },
        ..ChannelConfig::default()
    }
}

#[cfg(test)]
impl Connection {
    /// Makes the stack panic.
    pub fn panic_now(&mut self) {
        let outcome = self.guard(|_| -> Result<(), RtcError> { panic!("on purpose") });
        assert!(matches!(outcome, Err(Fault::Panicked)));
    }
}

#[cfg(test)]
mod tests;
