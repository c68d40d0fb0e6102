//! A connection that goes on from another node's: the client keeps its peer connection, this node's side of it is made anew.
//!
//! The stack makes m-lines only by negotiating, and gives those that it adds itself ids of its own choice. So what the client has answered is shown to
//! it as if the client had offered it ([`sdp::resumed::as_offer`]): it answers with the same m-lines, and its next offer has them. ICE is restarted
//! by that offer, since a client gives new credentials to whoever comes with new ones. Data channels are there without being opened: the
//! client's side of them was never closed.

use signalbox_protocol::control::Agreed;
use str0m::channel::ChannelConfig;
use str0m::rtp::Ssrc;

use super::{Change, Connection, Fault, channel_config};
use crate::data::Delivery;
use crate::packet::{Mid, Rid};
use crate::sdp::resumed::{Origin, as_offer};

/// A stream that the peer is known to send: simulcast layer, SSRC, and the SSRC of what repairs it.
pub type SentStream = (Option<Rid>, u32, Option<u32>);

impl Connection {
    /// Takes up what was agreed on another node's last offer, with the data channels that are open; returns the offer that tells the client.
    ///
    /// # Errors
    /// [`Fault::Sdp`] when the two descriptions do not make sense.
    pub fn take_up(&mut self, agreed: &Agreed, channels: &[(Delivery, u16)]) -> Result<String, Fault> {
        self.accept_offer(&as_offer(&agreed.offer, &agreed.answer))?;
        self.adopt_channels(channels)?;
        self.origin = Origin::of(&agreed.offer);
        let change = Change {
            restart_ice: true,
            ..Change::default()
        };
        let offer = self.offer(change)?.map(|(offer, _)| offer);
        offer.ok_or_else(|| Fault::Sdp("There is nothing to offer.".to_owned()))
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
