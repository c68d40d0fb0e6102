//! A connection that goes on from another node's: the client keeps its peer connection, this node's side of it is made anew.
//!
//! The stack makes m-lines only by negotiating, and gives those that it adds itself ids of its own choice. So what the client has answered is shown to
//! it as if the client had offered it ([`as_offer`]), and what it answers is what we offer: to a client that receives, both are the same text
//! but for the session's name. The client's real answer is once more shown to it as an offer. An ICE restart of the stack's own would do as well, but
//! then our credentials would count only from when the client's answer is here, and its first checks would be lost. Data channels are there
//! without being opened: the client's side of them was never closed.

use signalbox_protocol::control::Agreed;
use signalbox_protocol::tunnel::SoundStream;
use str0m::IceCreds;
use str0m::channel::ChannelConfig;
use str0m::rtp::Ssrc;

use super::{Connection, Fault, channel_config};
use crate::data::Delivery;
use crate::packet::{Mid, Rid};
use crate::sdp::ice;
use crate::sdp::resumed::{Origin, as_offer};
use crate::stun;

/// A stream that the peer is known to send: simulcast layer, SSRC, and the SSRC of what repairs it.
pub type SentStream = (Option<Rid>, u32, Option<u32>);

impl Connection {
    /// Takes up what was agreed on another node's last offer, with the data channels that are open and the sound that is under way; returns the offer that tells the
    /// client.
    ///
    /// # Errors
    /// [`Fault::Sdp`] when the two descriptions do not make sense.
    pub fn take_up(
        &mut self,
        agreed: &Agreed,
        channels: &[(Delivery, u16)],
        sounds: &[SoundStream],
    ) -> Result<String, Fault> {
        let Some(mut origin) = Origin::of(&agreed.offer) else {
            return Err(Fault::Sdp(
                "The offer to go on from does not say its session.".to_owned(),
            ));
        };
        self.hold_if_moved();
        let answered = self.accept_offer(&as_offer(&agreed.offer, &agreed.answer))?;
        self.adopt_channels(channels)?;
        let mut offer = origin.next(&answered);
        for sound in sounds {
            if let Some(own) = self.egress.rename(Mid::from(sound.mid.as_str()), sound.ssrc) {
                offer = offer.replace(&format!("a=ssrc:{own} "), &format!("a=ssrc:{} ", sound.ssrc));
            }
        }
        self.origin = Some(origin);
        self.taken_up = Some(offer.clone());
        Ok(offer)
    }

    /// Until the client is told of this node it has DTLS with the former one, and takes no notice of ours: that does not begin before
    /// [`Connection::release`].
    pub fn hold_if_moved(&mut self) {
        if self.via.is_some() {
            self.handshake.hold();
        }
    }

    /// The client is told now.
    pub fn release(&mut self) {
        self.handshake.release();
        self.stack_due = None;
    }

    /// Whether DTLS has yet to begin.
    pub fn is_held(&self) -> bool {
        self.handshake.is_held()
    }

    /// Takes the answer to the offer of [`Connection::take_up`]; none: that is answered.
    pub(super) fn accept_first_answer(&mut self, answer: &str) -> Option<Result<(), Fault>> {
        let offer = self.taken_up.take()?;
        let Some(credentials) = ice::credentials(answer) else {
            return Some(Err(Fault::Sdp("The SDP answer has no ICE credentials.".to_owned())));
        };
        let credentials = IceCreds {
            ufrag: credentials.ufrag.to_owned(),
            pass: credentials.password.to_owned(),
        };
        self.release();
        // To the client this was an ICE restart, unless its ICE session goes on. To the stack it is none, or it would change our credentials once more.
        let set = self.guard(|rtc| {
            rtc.direct_api().set_remote_ice_credentials(credentials);
            Ok(())
        });
        Some(set.and_then(|()| self.accept_offer(&as_offer(&offer, answer)).map(|_| ())))
    }

    /// The client checks as soon as it has our offer, with new credentials that we learn by its answer. Until that is here its ufrag is taken from
    /// its checks; what proves them is our own password.
    pub(super) fn expect_checks(&mut self, datagram: &[u8]) {
        if self.taken_up.is_none() || self.via.is_some() {
            return;
        }
        if let Some(ufrag) = stun::remote_ufrag(datagram) {
            self.rtc.direct_api().set_remote_ice_credentials(IceCreds {
                ufrag: ufrag.to_owned(),
                pass: String::new(),
            });
        }
    }

    /// Takes up data channels that the client has open, by their SCTP streams.
    pub fn adopt_channels(&mut self, channels: &[(Delivery, u16)]) -> Result<(), Fault> {
        let mut seen: Vec<u16> = Vec::new();
        for &(delivery, stream) in channels {
            if seen.contains(&stream) {
                continue;
            }
            seen.push(stream);
            self.guard(|rtc| {
                rtc.direct_api().create_data_channel(ChannelConfig {
                    negotiated: Some(stream),
                    ..channel_config(delivery)
                });
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Expects streams on an m-line, if it is one: the client does not say again what they are.
    pub fn expect_streams(&mut self, mid: Mid, streams: &[SentStream]) -> Result<(), Fault> {
        self.guard(|rtc| {
            let name = mid.as_str().into();
            if rtc.media(name).is_none() {
                return Ok(());
            }
            let mut api = rtc.direct_api();
            for (rid, ssrc, repair) in streams {
                let rid = rid.map(|rid| rid.as_str().into());
                api.expect_stream_rx(Ssrc::from(*ssrc), repair.map(Ssrc::from), name, rid);
            }
            Ok(())
        })
    }

    /// The streams that have arrived of an m-line's layers, as far as they are known.
    pub fn sent_streams(&mut self, mid: Mid, layers: impl IntoIterator<Item = Option<Rid>>) -> Vec<SentStream> {
        let mut api = self.rtc.direct_api();
        let streams = layers.into_iter().filter_map(|rid| {
            let stream = api.stream_rx_by_mid(mid.as_str().into(), rid.map(|rid| rid.as_str().into()))?;
            Some((rid, *stream.ssrc(), stream.rtx().map(|ssrc| *ssrc)))
        });
        streams.collect()
    }
}
