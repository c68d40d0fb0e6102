//! Sound across two nodes while a room moves from one to the other: clients take notice of a move one after the other, and whoever has come over would not hear
//! who has not, nor be heard.
//!
//! So each node passes on what it has decrypted of a client's sound, over the tunnel of the connection that it came on ([`signalbox_protocol::tunnel`]). The publisher's
//! own numbers stay, so that streams go on where they were. Pictures wait: they have to begin with a key frame in any case.

use std::time::{Duration, Instant};

use signalbox_protocol::TrackId;
use signalbox_protocol::tunnel::{Bridged, Token};
use signalbox_srtp::cipher::Cipher;
use signalbox_srtp::keys::MasterKey;
use signalbox_srtp::window::nearest;

use crate::codec::{Codec, PayloadFormat};
use crate::packet::{MediaPacket, Mid};

/// For how long at most. Higher: slow clients miss less, and a room that moves costs its nodes more.
const LONGEST: Duration = Duration::from_secs(5);

/// The number of a datagram, in the clear.
const NUMBER_BYTES: usize = 8;

/// What is of a packet before its track's id.
const FIXED_BYTES: usize = 13;

const MARKER: u8 = 1;
const RED: u8 = 2;
const LEVEL: u8 = 4;
const VOICE_KNOWN: u8 = 8;
const VOICE: u8 = 16;

/// Which of the two nodes this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// That the room is leaving.
    Former,
    /// That it is going to.
    Next,
}

/// One client's, at one of the two nodes.
pub struct Bridge {
    token: Token,
    own: Cipher,
    other: Cipher,
    sent: u64,
    until: Instant,
}

/// A packet of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sound {
    /// The track.
    pub track: TrackId,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    flags: u8,
    level: i8,
    payload: Vec<u8>,
}

impl Bridge {
    /// Of a tunnel, whose ICE password both nodes know, and besides them only the client, whose own sound it is.
    pub fn new(now: Instant, token: Token, password: &str, side: Side) -> Option<Self> {
        let keys = MasterKey::pair_of_secret(password.as_bytes(), token.as_bytes(), b"signalbox bridge").ok()?;
        let (own, other) = match side {
            Side::Former => keys,
            Side::Next => (keys.1, keys.0),
        };
        Some(Self {
            token,
            own: Cipher::new(&own).ok()?,
            other: Cipher::new(&other).ok()?,
            sent: 0,
            until: now + LONGEST,
        })
    }

    /// The datagram with a packet for the other node; none: it is over.
    pub fn seal(&mut self, now: Instant, track: &TrackId, packet: &MediaPacket) -> Option<Vec<u8>> {
        if now >= self.until {
            return None;
        }
        self.sent += 1;
        let track = track.as_str();
        let length = u8::try_from(track.len()).ok()?;
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let mut bytes = Vec::with_capacity(NUMBER_BYTES + FIXED_BYTES + track.len() + packet.payload.len() + 16);
        bytes.extend_from_slice(&self.sent.to_be_bytes());
        bytes.extend_from_slice(&packet.ssrc.to_be_bytes());
        bytes.extend_from_slice(&(packet.sequence as u16).to_be_bytes());
        bytes.extend_from_slice(&packet.timestamp.to_be_bytes());
        bytes.push(
            flag(packet.marker, MARKER)
                | flag(packet.is_red, RED)
                | flag(packet.audio_level.is_some(), LEVEL)
                | flag(packet.voice.is_some(), VOICE_KNOWN)
                | flag(packet.voice == Some(true), VOICE),
        );
        bytes.extend_from_slice(&packet.audio_level.unwrap_or_default().to_be_bytes());
        bytes.push(length);
        bytes.extend_from_slice(track.as_bytes());
        bytes.extend_from_slice(&packet.payload);
        self.own.seal_rtp(&mut bytes, NUMBER_BYTES, 0, self.sent).ok()?;
        let bridged = Bridged {
            token: self.token,
            sealed: &bytes,
        };
        Some(bridged.to_bytes())
    }

    /// A packet from the other node; none: it is not from there.
    pub fn open(&self, sealed: &[u8]) -> Option<Sound> {
        let number = u64::from_be_bytes(*sealed.first_chunk::<NUMBER_BYTES>()?);
        let mut bytes = Vec::new();
        let is_authentic = self.other.open_rtp(sealed, NUMBER_BYTES, 0, number, &mut bytes);
        is_authentic.then(|| Sound::read(&bytes)).flatten()
    }
}

impl Sound {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (ssrc, rest) = bytes.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<2>()?;
        let (timestamp, rest) = rest.split_first_chunk::<4>()?;
        let ([flags, level, length], rest) = rest.split_first_chunk::<3>()?;
        let (track, payload) = rest.split_at_checked(usize::from(*length))?;
        Some(Self {
            track: TrackId::new(std::str::from_utf8(track).ok()?),
            ssrc: u32::from_be_bytes(*ssrc),
            sequence: u16::from_be_bytes(*sequence),
            timestamp: u32::from_be_bytes(*timestamp),
            flags: *flags,
            level: i8::from_be_bytes([*level]),
            payload: payload.to_vec(),
        })
    }

    /// As if it had arrived here on this m-line, on a stream whose highest number so far is this.
    pub fn into_packet(self, now: Instant, mid: Mid, highest: Option<u64>) -> MediaPacket {
        let has = |flag| self.flags & flag != 0;
        let codec = Codec::Opus;
        MediaPacket {
            arrived: now,
            ssrc: self.ssrc,
            sequence: highest.map_or(u64::from(self.sequence), |highest| nearest(highest, self.sequence)),
            timestamp: self.timestamp,
            marker: has(MARKER),
            codec,
            format: PayloadFormat::of(codec),
            is_red: has(RED),
            clock_rate: codec.clock_rate(),
            rid: None,
            mid,
            audio_level: has(LEVEL).then_some(self.level),
            voice: has(VOICE_KNOWN).then_some(has(VOICE)),
            rotation: None,
            playout_delay: None,
            capture_time: None,
            dependency: None,
            payload: self.payload.into(),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    const PASSWORD: &str = "the node's password of it";

    fn token(byte: u8) -> Token {
        Token::new([byte; 16])
    }

    fn bridge(now: Instant, token: Token, side: Side) -> Bridge {
        Bridge::new(now, token, PASSWORD, side).unwrap()
    }

    fn packet(now: Instant) -> MediaPacket {
        let sound = Sound {
            track: TrackId::new("TR_1"),
            ssrc: 77,
            sequence: 0xfffe,
            timestamp: 4_800,
            flags: MARKER | LEVEL | VOICE_KNOWN,
            level: -30,
            payload: b"opus".to_vec(),
        };
        sound.into_packet(now, Mid::from("0"), Some(0x1_0003))
    }

    #[test]
    fn a_packet_arrives_at_the_other_node_as_it_was() {
        let now = Instant::now();
        let mut former = bridge(now, token(1), Side::Former);
        let next = bridge(now, token(1), Side::Next);
        let sent = packet(now);
        assert_eq!(sent.sequence, 0xfffe, "before the numbers began anew");
        for _ in 0..2 {
            let datagram = former.seal(now, &TrackId::new("TR_1"), &sent).unwrap();
            let bridged = Bridged::parse(&datagram).unwrap();
            assert_eq!(bridged.token, token(1));
            assert!(!datagram.windows(4).any(|window| window == b"opus"));
            let came = next.open(bridged.sealed).unwrap();
            assert_eq!(came.track, TrackId::new("TR_1"));
            let came = came.into_packet(now, Mid::from("0"), Some(0x1_0003));
            let of = |packet: &MediaPacket| {
                let numbers = (
                    packet.ssrc,
                    packet.sequence,
                    packet.timestamp,
                    packet.marker,
                    packet.mid,
                );
                (
                    numbers,
                    packet.audio_level,
                    packet.voice,
                    packet.payload.to_vec(),
                    packet.is_red,
                )
            };
            assert_eq!(of(&came), of(&sent));
        }
        assert!(former.seal(now + LONGEST, &TrackId::new("TR_1"), &sent).is_none());
    }

    #[test]
    fn nobody_else_can_say_something_nor_either_node_in_the_others_name() {
        let now = Instant::now();
        let mut former = bridge(now, token(1), Side::Former);
        let mut other = bridge(now, token(2), Side::Former);
        let next = bridge(now, token(1), Side::Next);
        let sealed =
            |bridge: &mut Bridge| bridge.seal(now, &TrackId::new("TR_1"), &packet(now)).unwrap()[18..].to_vec();
        let good = sealed(&mut former);
        assert!(next.open(&good).is_some());
        assert!(former.open(&good).is_none(), "its own, sent back");
        assert!(next.open(&sealed(&mut other)).is_none());
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            assert!(next.open(&bad).is_none(), "{index}");
            assert!(next.open(&good[..index]).is_none(), "{index}");
        }
    }
}
