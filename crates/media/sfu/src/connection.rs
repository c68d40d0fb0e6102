//! One peer connection: ICE-lite, DTLS, SRTP, RTCP, SCTP. This file and those
//! below it are the only ones that name the WebRTC stack, str0m.
//!
//! The stack's contract is that every mutation is followed by a full drain, and that several writes may share one: so
//! [`Connection::write`] only queues, and [`Connection::poll`] must run until [`Polled::Idle`] before anything else is done with the
//! connection. A panic inside the stack is caught here and ends this connection alone.

mod dependency;
mod statistics;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use signalbox_protocol::room::Kind;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::format::{Codec as Str0mCodec, CodecConfig, PayloadParams};
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{
    Extension, ExtensionMap, ExtensionValues, RtpPacket, RtpWrite, Ssrc, VideoOrientation, Vp8Descriptor,
};
use str0m::{Candidate, Event, IceConnectionState, IceCreds, Input, Output, Rtc, RtcError};

use crate::codec::Codec;
use crate::data::Delivery;
use crate::packet::{MediaPacket, Mid, Rid};
use crate::quality::{self, Report};
use crate::rewrite::Rewritten;
use crate::sdp;

/// The stack is asked again at once when it is due at once, but not more often than this in a row: a timer that never moves must
/// not hold the shard.
const MAX_IMMEDIATE_TIMEOUTS: u32 = 16;

/// How a payload is encoded. Two connections may give the same format different payload types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadFormat(PayloadParams);

impl PayloadFormat {
    /// The usual format of a codec, for streams that were not negotiated by SDP. Of H.264 it is the constrained baseline profile in
    /// packetization mode 1, which browsers must decode (RFC 7742 section 6.2).
    pub fn of(codec: Codec) -> Self {
        let mut config = CodecConfig::empty();
        match codec {
            Codec::Opus => config.enable_opus(true, false),
            Codec::Vp8 => config.enable_vp8(true),
            Codec::H264 => config.add_h264(Pt::from(102), None, true, 0x0042_e01f),
            Codec::Vp9 => config.enable_vp9(true),
            Codec::Av1 => config.enable_av1(true),
        }
        #[expect(clippy::indexing_slicing, reason = "each of the calls adds one")]
        Self(config.params()[0])
    }

    /// Its codec.
    pub fn codec(&self) -> Option<Codec> {
        codec(&self.0)
    }
}

/// What all connections of a shard share.
pub struct Stack {
    crypto: Arc<CryptoProvider>,
    certificate: DtlsCert,
    public: SocketAddr,
}

impl Stack {
    /// A new certificate, for connections at this address.
    pub fn new(public: SocketAddr) -> Self {
        let crypto = Arc::new(str0m::crypto::from_feature_flags());
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
        }
    }
}

/// A connection that cannot go on, or input that it cannot take.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The SDP does not parse, or cannot be negotiated. The connection is as it was.
    #[error("{0}")]
    Sdp(String),
    /// The connection is over.
    #[error("the WebRTC stack failed: {0}")]
    Stack(#[from] RtcError),
    /// A bug in the stack, caught. The connection is over.
    #[error("the WebRTC stack panicked")]
    Panicked,
}

/// What a connection wants done, or tells.
pub enum Polled {
    /// Send this.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Something happened.
    Event(ConnectionEvent),
    /// Nothing until then.
    Idle(Instant),
}

/// What happened on a connection.
pub enum ConnectionEvent {
    /// ICE and DTLS are up.
    Connected,
    /// ICE has had no check for a long time. It may come back.
    Disconnected,
    /// The peer closed it.
    Closed,
    /// Media arrived.
    Packet(MediaPacket),
    /// The peer does not send, or does not receive, a stream any more.
    StreamEnded(Mid),
    /// The peer needs a key frame on an m-line that we send on.
    KeyFrameWanted(Mid),
    /// A data channel can be written to.
    ChannelOpen(Channel, Delivery),
    /// A data channel is gone.
    ChannelClosed(Channel),
    /// A data channel has room again.
    ChannelDrained,
    /// A message arrived.
    Message(Channel, Vec<u8>),
}

/// A data channel of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel(ChannelId);

/// An m-line to be added to our next offer, on which we send.
#[derive(Debug, Clone)]
pub struct NewLine {
    /// Sound or picture.
    pub kind: Kind,
    /// The first part of `a=msid`.
    pub stream_id: String,
    /// The second part of `a=msid`.
    pub track_id: String,
}

/// What our next offer changes.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// m-lines to add.
    pub add: Vec<NewLine>,
    /// m-lines to stop sending on.
    pub stop: Vec<Mid>,
    /// New ICE credentials.
    pub restart_ice: bool,
    /// Data channels to add.
    pub channels: Vec<Delivery>,
}

/// An outgoing stream: a number that only its transport understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutgoingStream(pub u32);

/// An RTP payload type of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadType(pub u8);

/// One peer connection.
pub struct Connection {
    rtc: Rtc,
    public: SocketAddr,
    pending: Option<SdpPendingOffer>,
    statistics: statistics::Statistics,
    immediate_timeouts: u32,
    is_over: bool,
}

impl Connection {
    /// A connection with these ICE credentials (RFC 8445 section 5.3: a ufrag of at least 4, a password of at least 22 characters).
    pub fn new(stack: &Stack, now: Instant, ufrag: String, password: String) -> Result<Self, Fault> {
        let mut extensions = ExtensionMap::standard();
        extensions.set(5, Extension::PlayoutDelay);
        extensions.set(6, dependency::extension());
        let mut rtc = Rtc::builder()
            .set_rtp_mode(true)
            .set_ice_lite(true)
            .set_crypto_provider(stack.crypto.clone())
            .set_dtls_cert(stack.certificate.clone())
            .set_local_ice_credentials(IceCreds { ufrag, pass: password })
            .set_extension_map(extensions)
            .set_stats_interval(Some(quality::INTERVAL))
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .enable_h264(true)
            .enable_vp9(true)
            .enable_av1(true)
            .build(now);
        let candidate = Candidate::host(stack.public, "udp").map_err(RtcError::Ice)?;
        rtc.add_local_candidate(candidate);
        Ok(Self {
            rtc,
            public: stack.public,
            pending: None,
            statistics: statistics::Statistics::default(),
            immediate_timeouts: 0,
            is_over: false,
        })
    }

    /// The ICE ufrag that the peer's checks must name at present.
    pub fn ufrag(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    /// Answers the peer's offer. New ICE credentials in it restart ICE.
    pub fn accept_offer(&mut self, offer: &str) -> Result<String, Fault> {
        let offer = SdpOffer::from_sdp_string(&sdp::with_passive_client(offer))
            .map_err(|error| Fault::Sdp(format!("The SDP offer does not parse: {error}.")))?;
        self.guard(|rtc| rtc.sdp_api().accept_offer(offer))
            .map_err(not_negotiable)
            .map(|answer| answer.to_sdp_string())
    }

    /// Makes an offer, and the mids of the added m-lines. An offer that is still unanswered is void. `None`: there is nothing to
    /// offer.
    pub fn offer(&mut self, change: Change) -> Result<Option<(String, Vec<Mid>)>, Fault> {
        let mut mids = Vec::new();
        let made = self.guard(|rtc| {
            let mut api = rtc.sdp_api();
            for delivery in change.channels {
                api.add_channel_with_config(channel_config(delivery));
            }
            for line in change.add {
                let mid = api.add_media(
                    media_kind(line.kind),
                    Direction::SendOnly,
                    Some(line.stream_id),
                    Some(line.track_id),
                    None,
                );
                mids.push(Mid::from(&*mid));
            }
            for mid in change.stop {
                api.stop_media(mid.as_str().into());
            }
            if change.restart_ice {
                api.ice_restart(true);
            }
            Ok(api.apply())
        })?;
        Ok(made.map(|(offer, pending)| {
            self.pending = Some(pending);
            (sdp::with_active_server(&offer.to_sdp_string()), mids)
        }))
    }

    /// Takes the peer's answer to the last [`Connection::offer`].
    pub fn accept_answer(&mut self, answer: &str) -> Result<(), Fault> {
        let answer = SdpAnswer::from_sdp_string(answer)
            .map_err(|error| Fault::Sdp(format!("The SDP answer does not parse: {error}.")))?;
        let Some(pending) = self.pending.take() else {
            return Err(Fault::Sdp("There is no offer to answer.".to_owned()));
        };
        self.guard(|rtc| rtc.sdp_api().accept_answer(pending, answer))
            .map_err(not_negotiable)
    }

    /// Whether the peer sends on an m-line.
    pub fn receives_on(&self, mid: Mid) -> bool {
        self.rtc
            .media(mid.as_str().into())
            .is_some_and(|media| media.direction().is_receiving())
    }

    /// Whether the peer takes media on an m-line.
    pub fn sends_on(&self, mid: Mid) -> bool {
        self.rtc
            .media(mid.as_str().into())
            .is_some_and(|media| media.direction().is_sending())
    }

    /// The codec that the peer prefers to send on an m-line.
    pub fn preferred_codec(&self, mid: Mid) -> Option<Codec> {
        let first = *self.rtc.media(mid.as_str().into())?.remote_pts().first()?;
        codec(self.rtc.codec_config().find(|params| params.pt() == first)?)
    }

    /// Whether the peer can take a codec on an m-line. None: one that is not known yet, which it may.
    pub fn can_take(&self, mid: Mid, wanted: Option<Codec>) -> bool {
        let Some(media) = self.rtc.media(mid.as_str().into()) else {
            return false;
        };
        let accepted = media.remote_pts();
        let mut params = self.rtc.codec_config().params().iter();
        wanted.is_none() || params.any(|params| accepted.contains(&params.pt()) && codec(params) == wanted)
    }

    /// The stream that we send on an m-line.
    pub fn outgoing(&mut self, mid: Mid) -> Option<OutgoingStream> {
        self.rtc
            .direct_api()
            .stream_tx_by_mid(mid.as_str().into(), None)
            .map(|stream| OutgoingStream(*stream.ssrc()))
    }

    /// The payload type of a format on an m-line, if the peer can take it.
    pub fn payload_type(&self, mid: Mid, format: PayloadFormat) -> Option<PayloadType> {
        let accepted = self.rtc.media(mid.as_str().into())?.remote_pts();
        let params = self
            .rtc
            .codec_config()
            .params()
            .iter()
            .filter(|params| accepted.contains(&params.pt()))
            .copied();
        CodecConfig::new_from_payload_params(params.collect())
            .match_params(format.0)
            .map(|params| PayloadType(*params.pt()))
    }

    /// Whether a datagram is from this connection's peer. STUN is checked against the ICE password.
    pub fn accepts(&self, now: Instant, source: SocketAddr, datagram: &[u8]) -> bool {
        let Ok(receive) = Receive::new(Protocol::Udp, source, self.public, datagram) else {
            return false;
        };
        self.rtc.accepts(&Input::Receive(now, receive))
    }

    /// Takes a datagram. `Ok(false)`: it is none that a connection can take.
    pub fn handle_datagram(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) -> Result<bool, Fault> {
        let Ok(receive) = Receive::new(Protocol::Udp, source, self.public, datagram) else {
            return Ok(false);
        };
        self.guard(|rtc| rtc.handle_input(Input::Receive(now, receive)))?;
        Ok(true)
    }

    /// Queues a packet on an outgoing stream. It leaves with the next [`Connection::poll`]s.
    pub fn write(
        &mut self,
        stream: OutgoingStream,
        kind: PayloadType,
        packet: &MediaPacket,
        rewritten: &Rewritten,
    ) -> bool {
        let patch = rewritten.vp8.and_then(|fields| {
            let mut patch = Vp8Descriptor::parse(&packet.payload).ok()?.patch();
            if let Some(picture_id) = fields.picture_id {
                patch = patch.picture_id(picture_id);
            }
            if let Some(tl0_pic_idx) = fields.tl0_pic_idx {
                patch = patch.tl0_pic_idx(tl0_pic_idx);
            }
            patch.build().ok()
        });
        let mut write = RtpWrite::new(
            Pt::from(kind.0),
            rewritten.sequence.into(),
            rewritten.timestamp,
            packet.arrived,
            packet.payload.clone(),
        )
        .marker(rewritten.marker)
        .nackable(packet.codec != Codec::Opus)
        .ext_vals(extension_values(packet, rewritten));
        if let Some(patch) = patch {
            write = write.vp8_patch(patch);
        }
        self.rtc
            .direct_api()
            .stream_tx(&Ssrc::from(stream.0))
            .map(|stream| stream.write_rtp(write))
            .is_some()
    }

    /// Asks the peer for a key frame of a layer (RFC 4585 section 6.3.1).
    pub fn request_key_frame(&mut self, mid: Mid, rid: Option<Rid>) {
        let rid = rid.map(|rid| rid.as_str().into());
        if let Some(stream) = self.rtc.direct_api().stream_rx_by_mid(mid.as_str().into(), rid) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
    }

    /// Queues a message. `Ok(false)`: the channel's buffer is full, or the channel is closed.
    pub fn send(&mut self, channel: Channel, message: &[u8]) -> Result<bool, Fault> {
        self.guard(|rtc| match rtc.channel(channel.0) {
            Some(mut open) => {
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
        loop {
            match self.guard(Rtc::poll_output)? {
                Output::Transmit(transmit) => {
                    return Ok(Polled::Datagram {
                        to: transmit.destination,
                        bytes: transmit.contents.into(),
                    });
                }
                Output::Event(event) => {
                    self.statistics.observe(&event);
                    if let Some(event) = self.event(now, event) {
                        return Ok(Polled::Event(event));
                    }
                }
                Output::Timeout(due) if due <= now && self.immediate_timeouts < MAX_IMMEDIATE_TIMEOUTS => {
                    self.immediate_timeouts += 1;
                    self.guard(|rtc| rtc.handle_input(Input::Timeout(now)))?;
                }
                Output::Timeout(due) => {
                    self.immediate_timeouts = 0;
                    return Ok(Polled::Idle(due.max(now + Duration::from_millis(1))));
                }
            }
        }
    }

    fn event(&mut self, now: Instant, event: Event) -> Option<ConnectionEvent> {
        match event {
            Event::Connected => Some(ConnectionEvent::Connected),
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => Some(ConnectionEvent::Disconnected),
            Event::Closed => Some(ConnectionEvent::Closed),
            Event::RtpPacket(packet) => self.media_packet(now, packet).map(ConnectionEvent::Packet),
            Event::KeyframeRequest(request) => Some(ConnectionEvent::KeyFrameWanted(Mid::from(&*request.mid))),
            Event::ChannelOpen(id, label) => {
                Delivery::from_label(&label).map(|delivery| ConnectionEvent::ChannelOpen(Channel(id), delivery))
            }
            Event::ChannelClose(id) => Some(ConnectionEvent::ChannelClosed(Channel(id))),
            Event::ChannelBufferedAmountLow(_) => Some(ConnectionEvent::ChannelDrained),
            Event::ChannelData(data) => Some(ConnectionEvent::Message(Channel(data.id), data.data)),
            _ => None,
        }
    }

    fn media_packet(&mut self, now: Instant, packet: RtpPacket) -> Option<MediaPacket> {
        let (mid, rid) = {
            let mut api = self.rtc.direct_api();
            let stream = api.stream_rx(&packet.header.ssrc)?;
            (stream.mid(), stream.rid())
        };
        let params = *self
            .rtc
            .codec_config()
            .find(|params| params.pt() == packet.header.payload_type)?;
        let codec = codec(&params)?;
        let values = &packet.header.ext_vals;
        Some(MediaPacket {
            arrived: now,
            sequence: *packet.seq_no,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            codec,
            format: PayloadFormat(params),
            clock_rate: params.spec().clock_rate.get(),
            rid: rid.map(|rid| Rid::from(&*rid)),
            mid: Mid::from(&*mid),
            audio_level: values.audio_level,
            voice: values.voice_activity,
            rotation: values.video_orientation.map(|turn| turn as u8),
            // Other codecs carry what a receiver needs in their payloads, where switches between layers are made good.
            dependency: (codec == Codec::Av1).then(|| dependency::of(values)).flatten(),
            payload: packet.payload,
        })
    }

    /// Runs the stack; a panic in it, or after it, is a fault of this connection.
    fn guard<T>(&mut self, run: impl FnOnce(&mut Rtc) -> Result<T, RtcError>) -> Result<T, Fault> {
        if self.is_over {
            return Err(Fault::Panicked);
        }
        match catch_unwind(AssertUnwindSafe(|| run(&mut self.rtc))) {
            Ok(result) => Ok(result?),
            Err(_) => {
                self.is_over = true;
                Err(Fault::Panicked)
            }
        }
    }
}

fn not_negotiable(fault: Fault) -> Fault {
    match fault {
        Fault::Stack(error) => Fault::Sdp(format!("The SDP cannot be used: {error}.")),
        other => other,
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

fn media_kind(kind: Kind) -> MediaKind {
    match kind {
        Kind::Audio => MediaKind::Audio,
        Kind::Video => MediaKind::Video,
    }
}

fn codec(params: &PayloadParams) -> Option<Codec> {
    match params.spec().codec {
        Str0mCodec::Opus => Some(Codec::Opus),
        Str0mCodec::Vp8 => Some(Codec::Vp8),
        Str0mCodec::H264 => Some(Codec::H264),
        Str0mCodec::Vp9 => Some(Codec::Vp9),
        Str0mCodec::Av1 => Some(Codec::Av1),
        _ => None,
    }
}

fn extension_values(packet: &MediaPacket, rewritten: &Rewritten) -> ExtensionValues {
    let mut values = ExtensionValues {
        audio_level: packet.audio_level,
        voice_activity: packet.voice,
        video_orientation: packet.rotation.map(VideoOrientation::from),
        ..ExtensionValues::default()
    };
    if let Some(descriptor) = &rewritten.dependency {
        dependency::set(&mut values, descriptor);
    }
    values
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
