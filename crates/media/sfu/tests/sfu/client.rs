//! A client of one peer connection: publishes synthetic media, and keeps what it receives.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::bwe::BweKind;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::config::DtlsVersion;
use str0m::format::Codec;
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid, Pt, Rid, Simulcast, SimulcastLayer};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{Extension, ExtensionValues, RtpWrite, Vp8Descriptor};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use crate::sfu::camera::Encoder;
use crate::sfu::scalable::{Descriptor, Scheme, Source, Whole, extensions};
use crate::sfu::screen::Screen;

/// A received packet's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub at: Duration,
    pub sequence: u64,
    pub timestamp: u32,
    pub picture_id: Option<u16>,
    /// Whether a decoder can begin with it.
    pub begins_key_frame: bool,
    /// The fourth payload byte from the end: which layer the publisher sent it as.
    pub layer: u8,
}

pub struct Client {
    pub rtc: Rtc,
    pub address: SocketAddr,
    pub received: BTreeMap<Mid, Vec<Received>>,
    pub is_connected: bool,
    /// The codec that its video claims to be in; none: the first that was negotiated.
    pub codec: Option<Codec>,
    /// How loud its sound claims to be, in dBov; none: it does not say.
    pub audio_level: Option<i8>,
    /// Bytes that each of its pictures' packets has more.
    pub padding: usize,
    /// What it was asked to send at most, in bits per second.
    pub asked_bps: Vec<u64>,
    /// Whether its offer has data channels.
    pub has_data: bool,
    /// Channels that it had open before, by label and SCTP stream; it opens none then.
    pub channels_kept: Vec<(String, u16)>,
    /// Its open data channels by label.
    pub channels: BTreeMap<String, ChannelId>,
    /// What arrived on data channels, with the label.
    pub messages: Vec<(String, Vec<u8>)>,
    /// What encodes each layer of its video; none: frames of three packets.
    pub encoders: Vec<Encoder>,
    /// Whether the video that it receives is decoded, into [`Client::screens`].
    pub is_watching: bool,
    pub screens: BTreeMap<Mid, Screen>,
    /// What its video carries in header extensions.
    pub video_values: ExtensionValues,
    /// Whether its sound is redundant audio data (RFC 2198), if that was negotiated: each packet repeats the one before.
    pub is_redundant: bool,
    /// The payload and the header extensions of the last packet that arrived on each m-line, and whether it was redundant audio data.
    pub last: BTreeMap<Mid, (Vec<u8>, ExtensionValues, bool)>,
    /// How its video is made; none: one layer, in frames of three packets, that looks like VP8.
    pub scheme: Option<Scheme>,
    /// What arrived of video, whole.
    pub whole: BTreeMap<Mid, Vec<Whole>>,
    /// Key-frame requests that arrived, by layer.
    pub key_frames_wanted: Vec<Option<Rid>>,
    /// Empty packets before the first one of a stream.
    pub lead_ins: usize,
    pending: Option<SdpPendingOffer>,
    senders: Vec<Sender>,
    pub started: Instant,
    pub due: Instant,
}

struct Sender {
    mid: Mid,
    kind: MediaKind,
    layers: Vec<Option<Rid>>,
    sequence: Vec<u64>,
    needs_key_frame: Vec<bool>,
    frame: u64,
    next: Instant,
    is_paused: Vec<bool>,
    /// None: [`Client::codec`].
    codec: Option<Codec>,
    /// Encoders, by layer, and how many there were.
    sources: BTreeMap<usize, Source>,
    incarnations: u8,
    /// What is added to its timestamps.
    clock: u32,
}

impl Client {
    pub fn new(now: Instant, address: SocketAddr) -> Self {
        Self::with_config(now, address, Rtc::builder())
    }

    pub fn with_config(now: Instant, address: SocketAddr, config: RtcConfig) -> Self {
        let mut extensions = extensions();
        extensions.set(5, Extension::PlayoutDelay);
        extensions.set(7, Extension::AbsoluteCaptureTime);
        let config = config.set_rtp_mode(true).set_extension_map(extensions);
        // As browsers do.
        let mut rtc = config.set_dtls_version(DtlsVersion::Auto).build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        Self {
            rtc,
            address,
            received: BTreeMap::new(),
            is_connected: false,
            codec: None,
            scheme: None,
            whole: BTreeMap::new(),
            audio_level: None,
            padding: 0,
            asked_bps: Vec::new(),
            has_data: false,
            channels_kept: Vec::new(),
            channels: BTreeMap::new(),
            messages: Vec::new(),
            encoders: Vec::new(),
            is_watching: false,
            screens: BTreeMap::new(),
            video_values: ExtensionValues::default(),
            is_redundant: false,
            last: BTreeMap::new(),
            key_frames_wanted: Vec::new(),
            lead_ins: 0,
            pending: None,
            senders: Vec::new(),
            started: now,
            due: now,
        }
    }

    /// An offer that sends what is named and receives on so many audio and video m-lines more.
    pub fn offer(&mut self, audio: bool, video: &[&str], slots: (usize, usize)) -> String {
        let now = self.started;
        let mut api = self.rtc.sdp_api();
        for (label, stream) in &self.channels_kept {
            api.add_channel_with_config(kept_channel(label, *stream));
        }
        if self.has_data && self.channels_kept.is_empty() {
            api.add_channel("_reliable".to_owned());
            api.add_channel_with_config(ChannelConfig {
                label: "_lossy".to_owned(),
                ordered: false,
                reliability: Reliability::MaxRetransmits { retransmits: 0 },
                ..ChannelConfig::default()
            });
        }
        let mut new = Vec::new();
        if audio {
            new.push((
                api.add_media(MediaKind::Audio, Direction::SendOnly, None, Some("mic".into()), None),
                MediaKind::Audio,
                vec![None],
            ));
        }
        if !video.is_empty() {
            let rids: Vec<Option<Rid>> = if video.len() == 1 {
                vec![None]
            } else {
                video.iter().map(|rid| Some(Rid::from(*rid))).collect()
            };
            let simulcast = (video.len() > 1).then(|| Simulcast {
                send: video.iter().map(|rid| SimulcastLayer::new(rid)).collect(),
                recv: Vec::new(),
            });
            let mid = api.add_media(
                MediaKind::Video,
                Direction::SendOnly,
                None,
                Some("cam".into()),
                simulcast,
            );
            new.push((mid, MediaKind::Video, rids));
        }
        for _ in 0..slots.0 {
            api.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
        }
        for _ in 0..slots.1 {
            api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        }
        let (offer, pending): (SdpOffer, _) = api.apply().unwrap();
        self.pending = Some(pending);
        for (mid, kind, layers) in new {
            self.senders.push(Sender {
                mid,
                kind,
                sequence: vec![1000; layers.len()],
                needs_key_frame: vec![true; layers.len()],
                is_paused: vec![false; layers.len()],
                layers,
                frame: 0,
                next: now,
                codec: None,
                sources: BTreeMap::new(),
                incarnations: 0,
                clock: 0,
            });
        }
        offer.to_sdp_string()
    }

    /// An offer that sends one more picture, named `id`, in a codec.
    pub fn offer_another(&mut self, id: &str, codec: Codec) -> String {
        let mut api = self.rtc.sdp_api();
        let mid = api.add_media(MediaKind::Video, Direction::SendOnly, None, Some(id.into()), None);
        let (offer, pending): (SdpOffer, _) = api.apply().unwrap();
        self.pending = Some(pending);
        let next = self
            .senders
            .iter()
            .map(|sender| sender.next)
            .max()
            .unwrap_or(self.started);
        self.senders.push(Sender {
            mid,
            kind: MediaKind::Video,
            layers: vec![None],
            sequence: vec![1000],
            needs_key_frame: vec![true],
            frame: 0,
            next,
            is_paused: vec![false],
            codec: Some(codec),
            sources: BTreeMap::new(),
            incarnations: 0,
            clock: 0,
        });
        offer.to_sdp_string()
    }

    /// An offer in which nothing is sent on an m-line any more.
    pub fn offer_less(&mut self, mid: Mid) -> String {
        let mut api = self.rtc.sdp_api();
        api.set_direction(mid, Direction::Inactive);
        let (offer, pending): (SdpOffer, _) = api.apply().unwrap();
        self.pending = Some(pending);
        self.senders.retain(|sender| sender.mid != mid);
        offer.to_sdp_string()
    }

    /// The m-lines that it sends on, oldest first.
    pub fn sending(&self) -> Vec<Mid> {
        self.senders.iter().map(|sender| sender.mid).collect()
    }

    /// Offers new ICE credentials, which must be completed with [`Client::answer`].
    pub fn restart_ice(&mut self) -> String {
        let mut api = self.rtc.sdp_api();
        api.ice_restart(true);
        let (offer, pending): (SdpOffer, _) = api.apply().unwrap();
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    /// Answers an offer of the node.
    pub fn accept(&mut self, offer: &str) -> String {
        assert!(offer.contains("a=setup:active"), "the node is the DTLS client");
        let offer = SdpOffer::from_sdp_string(offer).unwrap();
        let answer = self.rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string();
        for (label, stream) in std::mem::take(&mut self.channels_kept) {
            self.rtc.direct_api().create_data_channel(kept_channel(&label, stream));
        }
        answer
    }

    pub fn answer(&mut self, answer: &str) {
        assert!(answer.contains("a=setup:active"), "the node is the DTLS client");
        let answer = SdpAnswer::from_sdp_string(answer).unwrap();
        self.rtc
            .sdp_api()
            .accept_answer(self.pending.take().unwrap(), answer)
            .unwrap();
    }

    /// Stops or resumes a simulcast layer.
    pub fn pause_layer(&mut self, rid: &str, is_paused: bool) {
        for sender in &mut self.senders {
            if let Some(index) = sender.layers.iter().position(|layer| *layer == Some(Rid::from(rid))) {
                sender.is_paused[index] = is_paused;
            }
        }
    }

    /// The m-line that its video is sent on.
    pub fn video_mid(&self) -> Mid {
        let mut senders = self.senders.iter();
        senders.find(|sender| sender.kind == MediaKind::Video).unwrap().mid
    }

    /// Moves the clock of its video.
    pub fn set_clock(&mut self, ticks: u32) {
        for sender in self.senders.iter_mut().filter(|sender| sender.kind == MediaKind::Video) {
            sender.clock = sender.clock.wrapping_add(ticks);
        }
    }

    /// Gives its video this SSRC.
    pub fn set_video_ssrc(&mut self, ssrc: u32) {
        let mid = self.video_mid();
        let mut api = self.rtc.direct_api();
        api.reset_stream_tx(mid, None, ssrc.into(), Some((ssrc + 1).into()));
    }

    /// Sends a packet as one of its video, in this payload type, or in the one that it uses.
    pub fn send_raw(&mut self, now: Instant, payload_type: Option<u8>, payload: Vec<u8>, descriptor: Option<Vec<u8>>) {
        let codec = self.codec;
        let sender = self
            .senders
            .iter_mut()
            .find(|sender| sender.kind == MediaKind::Video)
            .unwrap();
        let (mid, sequence) = (sender.mid, sender.sequence[0]);
        sender.sequence[0] += 1;
        let timestamp = (sender.frame as u32).wrapping_mul(2_970).wrapping_add(sender.clock);
        let accepted = self.rtc.media(mid).unwrap().remote_pts().to_vec();
        let mut configured = self.rtc.codec_config().params().iter();
        let usual = configured.find(|config| Some(config.spec().codec) == codec && accepted.contains(&config.pt()));
        let usual = usual.map_or(accepted[0], |config| config.pt());
        let mut values = ExtensionValues::default();
        if let Some(descriptor) = descriptor {
            values.user_values.set(Descriptor(descriptor.into()));
        }
        let write = RtpWrite::new(
            payload_type.map_or(usual, Pt::from),
            sequence.into(),
            timestamp,
            now,
            payload,
        )
        .ext_vals(values);
        self.rtc
            .direct_api()
            .stream_tx_by_mid(mid, None)
            .unwrap()
            .write_rtp(write);
    }

    /// Starts the encoders of its video anew, with other SSRCs and numbers, and a clock that is so far from where it was.
    pub fn restart_encoders(&mut self, clock: u32) {
        for sender in self.senders.iter_mut().filter(|sender| sender.kind == MediaKind::Video) {
            sender.clock = sender.clock.wrapping_add(clock);
            sender.sources.clear();
            for (layer, rid) in sender.layers.iter().enumerate() {
                sender.sequence[layer] = sender.sequence[layer] * 7 % 30_000;
                sender.needs_key_frame[layer] = true;
                let ssrc = 1_000_000 + u32::from(sender.incarnations) * 10 + layer as u32 * 2;
                let mut api = self.rtc.direct_api();
                api.reset_stream_tx(sender.mid, *rid, ssrc.into(), Some((ssrc + 1).into()));
            }
        }
    }

    pub fn receive(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) {
        let receive = Receive::new(Protocol::Udp, source, self.address, datagram).unwrap();
        self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
    }

    /// Sends a message on an open data channel. False: there is no room for it now.
    pub fn send(&mut self, label: &str, message: &[u8]) -> bool {
        let id = self.channels[label];
        self.rtc.channel(id).unwrap().write(true, message).unwrap()
    }

    /// Asks for a key frame of what arrives on an m-line.
    pub fn want_key_frame(&mut self, mid: Mid) {
        self.rtc
            .direct_api()
            .stream_rx_by_mid(mid, None)
            .unwrap()
            .request_keyframe(KeyframeRequestKind::Pli);
    }

    /// Sends what is due, and returns what is to be put on the network.
    pub fn poll(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut out = Vec::new();
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        let mut blind = Vec::new();
        for (mid, screen) in &mut self.screens {
            screen.show(now);
            blind.extend(screen.wants_key_frame(now).then_some(*mid));
        }
        for mid in blind {
            self.want_key_frame(mid);
        }
        if self.is_connected {
            for index in 0..self.senders.len() {
                while self.senders[index].next <= now {
                    self.send_frame(now, index);
                }
            }
        }
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Transmit(transmit) => out.push((transmit.destination, transmit.contents.to_vec())),
                Output::Event(event) => self.event(now, event),
                Output::Timeout(due) if due <= now => self.rtc.handle_input(Input::Timeout(now)).unwrap(),
                Output::Timeout(due) => {
                    let frames = self
                        .senders
                        .iter()
                        .map(|sender| sender.next)
                        .filter(|_| self.is_connected);
                    let screens = self.screens.values().filter_map(|screen| screen.due(now));
                    self.due = frames.chain(screens).chain([due]).min().unwrap();
                    return out;
                }
            }
        }
    }

    fn event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Connected => {
                self.is_connected = true;
                for sender in &mut self.senders {
                    sender.next = now;
                }
            }
            Event::KeyframeRequest(request) => {
                self.key_frames_wanted.push(request.rid);
                for sender in self.senders.iter_mut().filter(|sender| sender.mid == request.mid) {
                    if let Some(index) = sender.layers.iter().position(|layer| *layer == request.rid) {
                        sender.needs_key_frame[index] = true;
                    }
                }
            }
            Event::EgressBitrateEstimate(BweKind::Remb { estimate, .. }) => self.asked_bps.push(estimate.as_u64()),
            Event::ChannelOpen(id, label) => {
                self.channels.insert(label, id);
            }
            Event::ChannelData(data) => {
                let label = self.channels.iter().find(|(_, id)| **id == data.id);
                self.messages.push((label.unwrap().0.clone(), data.data));
            }
            Event::RtpPacket(packet) => {
                let mut api = self.rtc.direct_api();
                let mid = api.stream_rx(&packet.header.ssrc).unwrap().mid();
                let mut configured = self.rtc.codec_config().params().iter();
                let is_redundant = configured.any(|params| params.red() == Some(packet.header.payload_type));
                let last = (packet.payload.to_vec(), packet.header.ext_vals.clone(), is_redundant);
                self.last.insert(mid, last);
                let is_video = packet
                    .payload
                    .first()
                    .is_some_and(|byte| *byte == 0x90 || *byte == 0x80);
                let picture_id = is_video
                    .then(|| Vp8Descriptor::parse(&packet.payload).ok()?.picture_id())
                    .flatten();
                if self.is_watching
                    && self
                        .rtc
                        .media(mid)
                        .is_some_and(|media| media.kind() == MediaKind::Video)
                {
                    let (sequence, time) = (*packet.seq_no, packet.header.timestamp);
                    let screen = self.screens.entry(mid).or_default();
                    screen.receive(now, sequence, time, packet.header.marker, &packet.payload);
                }
                if packet.payload.len() > 100 {
                    let dependency = packet.header.ext_vals.user_values.get::<Descriptor>();
                    self.whole.entry(mid).or_default().push(Whole {
                        sequence: *packet.seq_no,
                        timestamp: packet.header.timestamp,
                        marker: packet.header.marker,
                        payload: packet.payload.to_vec(),
                        dependency: dependency.map(|descriptor| descriptor.0.clone()),
                    });
                }
                // What comes before the first one says only where the stream begins.
                let received = self.received.entry(mid).or_default();
                if received.is_empty() && packet.payload.is_empty() {
                    self.lead_ins += 1;
                    return;
                }
                received.push(Received {
                    at: now.duration_since(self.started),
                    sequence: *packet.seq_no,
                    timestamp: packet.header.timestamp,
                    picture_id,
                    begins_key_frame: packet.payload.first() == Some(&0x90) && packet.payload.get(6) == Some(&0),
                    layer: packet.payload.iter().rev().nth(3).copied().unwrap_or_default(),
                });
            }
            _ => {}
        }
    }

    /// One Opus packet every 20 ms, or one VP8 frame of three packets every 33 ms in each layer.
    fn send_frame(&mut self, now: Instant, index: usize) {
        let sender = &mut self.senders[index];
        let frame = sender.frame;
        sender.frame += 1;
        let (interval, ticks) = match sender.kind {
            MediaKind::Audio => (Duration::from_millis(20), 960),
            MediaKind::Video => (Duration::from_millis(33), 2_970),
        };
        sender.next += interval;
        let timestamp = (frame as u32).wrapping_mul(ticks).wrapping_add(sender.clock);
        let (mid, kind, codec) = (sender.mid, sender.kind, sender.codec.or(self.codec));
        let params: Vec<_> = self.rtc.media(mid).unwrap().remote_pts().to_vec();
        let mut configured = self.rtc.codec_config().params().iter();
        let wanted = configured.find(|config| {
            kind == MediaKind::Video && Some(config.spec().codec) == codec && params.contains(&config.pt())
        });
        let pt = wanted.map_or(params[0], |config| config.pt());
        let mut configured = self.rtc.codec_config().params().iter();
        let is_h264 = configured.any(|config| config.pt() == pt && config.spec().codec == Codec::H264);
        let mut configured = self.rtc.codec_config().params().iter();
        let red = configured
            .find(|config| config.pt() == pt)
            .and_then(|config| config.red())
            .filter(|_| self.is_redundant);
        for layer in 0..sender.layers.len() {
            if sender.is_paused[layer] {
                continue;
            }
            let is_key = std::mem::take(&mut sender.needs_key_frame[layer]);
            if let Some(scheme) = self.scheme.filter(|_| kind == MediaKind::Video) {
                let source = sender.sources.entry(layer).or_insert_with(|| {
                    sender.incarnations += 1;
                    Source::new(scheme, sender.incarnations)
                });
                source.padding = self.padding;
                for made in source.picture(is_key) {
                    let sequence = sender.sequence[layer];
                    sender.sequence[layer] += 1;
                    let mut values = ExtensionValues::default();
                    if let Some(descriptor) = made.dependency {
                        values.user_values.set(Descriptor(descriptor.into()));
                    }
                    let write = RtpWrite::new(pt, sequence.into(), timestamp, now, made.payload)
                        .marker(made.marker)
                        .nackable(true)
                        .ext_vals(values);
                    let rid = sender.layers[layer];
                    let mut api = self.rtc.direct_api();
                    api.stream_tx_by_mid(mid, rid).unwrap().write_rtp(write);
                }
                continue;
            }
            let encoder = self.encoders.get_mut(layer).filter(|_| kind == MediaKind::Video);
            let encoded = encoder.map(|encoder| encoder.frame(is_key)).unwrap_or_default();
            let packets = match kind {
                MediaKind::Audio => 1,
                MediaKind::Video if encoded.is_empty() => 3,
                MediaKind::Video => encoded.len(),
            };
            for part in 0..packets {
                let sequence = sender.sequence[layer];
                sender.sequence[layer] += 1;
                let payload = match kind {
                    MediaKind::Video if !encoded.is_empty() => encoded[part].clone(),
                    MediaKind::Audio if red.is_some() => {
                        let mut payload = vec![0x80 | *pt, 0x0f, 0x00, 0x02, *pt];
                        payload.extend([0xfc, 1, 0xfc, layer as u8, 0, 0, 0]);
                        payload
                    }
                    MediaKind::Audio => vec![0xfc, layer as u8, 0, 0, 0],
                    // A network abstraction layer unit: of an IDR picture, or of another.
                    MediaKind::Video if is_h264 => {
                        vec![if is_key { 0x65 } else { 0x61 }, 0, 0, 0, layer as u8, 0, 0, 0]
                    }
                    // Picture id of 15 bits, TL0PICIDX and TID; then the frame header, whose lowest bit is 0 in a key frame.
                    MediaKind::Video => {
                        let picture = (frame as u16).wrapping_add(1000 * layer as u16) & 0x7fff;
                        let mut payload = vec![if part == 0 { 0x90 } else { 0x80 }, 0xe0];
                        payload.extend((0x8000 | picture).to_be_bytes());
                        payload.extend([frame as u8, 0x20, u8::from(!is_key)]);
                        payload.extend([0; 200]);
                        payload.resize(payload.len() + self.padding, 0);
                        payload.extend([layer as u8, 0, 0, 0]);
                        payload
                    }
                };
                let level = self.audio_level.filter(|_| kind == MediaKind::Audio);
                let values = ExtensionValues {
                    audio_level: level,
                    voice_activity: level.map(|level| level > -50),
                    ..match kind {
                        MediaKind::Video => self.video_values.clone(),
                        MediaKind::Audio => ExtensionValues::default(),
                    }
                };
                let write = RtpWrite::new(red.unwrap_or(pt), sequence.into(), timestamp, now, payload)
                    .marker(part + 1 == packets)
                    .ext_vals(values)
                    .nackable(kind == MediaKind::Video);
                let rid = sender.layers[layer];
                let mut api = self.rtc.direct_api();
                api.stream_tx_by_mid(mid, rid).unwrap().write_rtp(write);
            }
        }
    }
}

fn kept_channel(label: &str, stream: u16) -> ChannelConfig {
    ChannelConfig {
        label: label.to_owned(),
        negotiated: Some(stream),
        ..ChannelConfig::default()
    }
}
