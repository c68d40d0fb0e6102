//! SDP, and what it comes to for [`crate::egress`].
//!
//! The stack negotiates the streams that we send, and sends none of them: it has them only while it negotiates, since it would report on
//! streams on which it sends nothing, and look at each of them for each packet that arrives.

use signalbox_protocol::room::Kind;
use str0m::Rtc;
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::format::{Codec as Str0mCodec, CodecConfig, PayloadParams};
use str0m::media::{Direction, Media, MediaKind};
use str0m::rtp::{Extension, ExtensionMap, Ssrc};

use super::{Change, Connection, Fault, PayloadFormat, channel_config, dependency};
use crate::codec::Codec;
use crate::egress::header::Extensions;
use crate::egress::stream::Line;
use crate::egress::{Format, Formats};
use crate::packet::{Mid, OutgoingStream, PayloadType};
use crate::sdp;

/// The header extensions that are negotiated.
pub fn extensions() -> ExtensionMap {
    let mut extensions = ExtensionMap::standard();
    extensions.set(5, Extension::PlayoutDelay);
    extensions.set(6, dependency::extension());
    extensions.set(7, Extension::AbsoluteCaptureTime);
    extensions
}

impl Connection {
    /// Answers the peer's offer. New ICE credentials in it restart ICE.
    pub fn accept_offer(&mut self, offer: &str) -> Result<String, Fault> {
        self.remember_mids(offer);
        self.remember_client(offer);
        let offer = SdpOffer::from_sdp_string(&sdp::with_passive_client(offer))
            .map_err(|error| Fault::Sdp(format!("The SDP offer does not parse: {error}.")))?;
        self.negotiate(|rtc| rtc.sdp_api().accept_offer(offer))
            .map_err(not_negotiable)
            .map(|answer| self.own_candidates(answer.to_sdp_string()))
    }

    /// Makes an offer, and the mids of the added m-lines. An offer that is still unanswered is void. `None`: there is nothing to
    /// offer.
    pub fn offer(&mut self, change: Change) -> Result<Option<(String, Vec<Mid>)>, Fault> {
        let mut mids = Vec::new();
        let made = self.negotiate(|rtc| {
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
            let offer = sdp::with_active_server(&self.own_candidates(offer.to_sdp_string()));
            let offer = match &mut self.origin {
                Some(origin) => origin.next(&offer),
                None => offer,
            };
            self.remember_mids(&offer);
            (offer, mids)
        }))
    }

    /// Takes the peer's answer to the last [`Connection::offer`].
    pub fn accept_answer(&mut self, answer: &str) -> Result<(), Fault> {
        if let Some(taken) = self.accept_first_answer(answer) {
            return taken;
        }
        let description = answer;
        let answer = SdpAnswer::from_sdp_string(answer)
            .map_err(|error| Fault::Sdp(format!("The SDP answer does not parse: {error}.")))?;
        let Some(pending) = self.pending.take() else {
            return Err(Fault::Sdp("There is no offer to answer.".to_owned()));
        };
        self.remember_client(description);
        self.negotiate(|rtc| rtc.sdp_api().accept_answer(pending, answer))
            .map_err(not_negotiable)
    }

    /// The stack does not tell the client's credentials.
    fn remember_client(&mut self, description: &str) {
        if let Some(credentials) = sdp::ice::credentials(description) {
            self.client_ufrag = Some(credentials.ufrag.to_owned());
        }
    }

    /// The stack does not list its m-lines.
    fn remember_mids(&mut self, description: &str) {
        for mid in description.lines().filter_map(|line| line.strip_prefix("a=mid:")) {
            let mid = Mid::from(mid.trim_end());
            if !self.mids.contains(&mid) {
                self.mids.push(mid);
            }
        }
    }

    /// Negotiates, with the streams that we send in the stack, and takes them out again.
    fn negotiate<T>(&mut self, run: impl FnOnce(&mut Rtc) -> Result<T, str0m::RtcError>) -> Result<T, Fault> {
        let before: Vec<Line> = self.egress.lines().copied().collect();
        let done = self.guard(|rtc| {
            for line in before {
                declare(rtc, &line);
            }
            Ok(run(rtc))
        })?;
        // Whether or not that has worked, the stack is as it says.
        let mids = self.mids.clone();
        let (lines, formats) = self.guard(|rtc| Ok((withdraw(rtc, &mids), formats(rtc.codec_config()))))?;
        self.egress.set_formats(formats);
        for line in lines {
            self.egress.set_line(line);
        }
        Ok(done?)
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
    pub fn outgoing(&self, mid: Mid) -> Option<OutgoingStream> {
        self.egress.stream_of(mid)
    }

    /// The SSRC of the stream that we send on an m-line.
    pub fn ssrc(&self, mid: Mid) -> Option<u32> {
        self.egress.lines().find(|line| line.mid == mid).map(|line| line.ssrc)
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
}

/// Puts a stream into the stack, if its m-line is still there.
fn declare(rtc: &mut Rtc, line: &Line) {
    let mid = line.mid.as_str().into();
    if rtc.media(mid).is_some_and(|media| !media.stopped()) {
        let repair = line.repair_ssrc.map(Ssrc::from);
        rtc.direct_api()
            .declare_stream_tx(Ssrc::from(line.ssrc), repair, mid, None);
    }
}

/// Takes all streams out of the stack.
fn withdraw(rtc: &mut Rtc, mids: &[Mid]) -> Vec<Line> {
    let one = |mid: &Mid| {
        let name = mid.as_str().into();
        let mut api = rtc.direct_api();
        let stream = api.stream_tx_by_mid(name, None)?;
        let (ssrc, repair_ssrc) = (stream.ssrc(), stream.rtx());
        api.remove_stream_tx(ssrc);
        let media = rtc.media(name)?;
        Some(Line {
            mid: *mid,
            ssrc: *ssrc,
            repair_ssrc: repair_ssrc.map(|ssrc| *ssrc),
            is_audio: media.kind().is_audio(),
            extensions: extension_ids(media),
        })
    };
    mids.iter().filter_map(one).collect()
}

fn extension_ids(media: &Media) -> Extensions {
    let id = |extension| media.remote_extmap().id_of(extension);
    Extensions {
        mid: id(Extension::RtpMid),
        transport_sequence: id(Extension::TransportSequenceNumber),
        send_time: id(Extension::AbsoluteSendTime),
        audio_level: id(Extension::AudioLevel),
        rotation: id(Extension::VideoOrientation),
        playout_delay: id(Extension::PlayoutDelay),
        capture_time: id(Extension::AbsoluteCaptureTime),
        dependency: id(dependency::extension()),
    }
}

fn formats(config: &CodecConfig) -> Formats {
    let mut formats = Formats::default();
    for params in config.params() {
        formats.set(
            *params.pt(),
            Format {
                repair: params.resend().map(|pt| *pt),
                red: params.red().map(|pt| *pt),
                has_nack: params.fb_nack(),
                clock_rate: params.spec().clock_rate.get(),
            },
        );
    }
    formats
}

fn not_negotiable(fault: Fault) -> Fault {
    match fault {
        Fault::Stack(error) => Fault::Sdp(format!("The SDP cannot be used: {error}.")),
        other => other,
    }
}

fn media_kind(kind: Kind) -> MediaKind {
    match kind {
        Kind::Audio => MediaKind::Audio,
        Kind::Video => MediaKind::Video,
    }
}

/// The codec of a payload type.
pub fn codec(params: &PayloadParams) -> Option<Codec> {
    match params.spec().codec {
        Str0mCodec::Opus => Some(Codec::Opus),
        Str0mCodec::Vp8 => Some(Codec::Vp8),
        Str0mCodec::H264 => Some(Codec::H264),
        Str0mCodec::Vp9 => Some(Codec::Vp9),
        Str0mCodec::Av1 => Some(Codec::Av1),
        _ => None,
    }
}
