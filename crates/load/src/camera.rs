//! What one participant sends, packet by packet: clips cut up as an encoder's packetizer does it (RFC 7741), and begun anew when somebody wants a key
//! frame. It knows no connection.

use std::time::{Duration, Instant, SystemTime};

use crate::clip::{self, Size};
use crate::stamp;

/// The time between two pictures.
const PICTURE: Duration = Duration::from_nanos(1_000_000_000 / 30);

/// The time between two packets of sound.
const SOUND: Duration = Duration::from_millis(20);

/// Bytes of a picture in a packet.
const PAYLOAD: usize = 1_130;

/// A packet to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet {
    /// Which layer it is of; 0 if there is but one.
    pub layer: usize,
    /// Its number, extended past 16 bits.
    pub sequence: u64,
    /// Its RTP timestamp.
    pub timestamp: u32,
    /// It is its picture's last.
    pub marker: bool,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// One source of picture or sound.
#[derive(Debug)]
pub struct Source {
    /// When the next packets are due.
    pub due: Instant,
    begun: Instant,
    /// The picture's layers, ascending; none: it is sound.
    layers: Vec<Layer>,
    sound: Layer,
}

#[derive(Debug)]
struct Layer {
    size: Option<Size>,
    /// The next frame of the clip.
    place: usize,
    sequence: u64,
    timestamp: u32,
    picture: u16,
}

impl Layer {
    fn new(size: Option<Size>) -> Self {
        // As with real senders nothing begins at 0.
        Self {
            size,
            place: 0,
            sequence: rand::random_range(1..30_000),
            timestamp: rand::random(),
            picture: rand::random_range(0..1 << 15),
        }
    }
}

impl Source {
    /// A camera with these layers, ascending.
    pub fn camera(now: Instant, sizes: &[Size]) -> Self {
        // Cameras do not run in step.
        let begun = now + PICTURE.mul_f64(rand::random());
        Self {
            due: begun,
            begun,
            layers: sizes.iter().map(|size| Layer::new(Some(*size))).collect(),
            sound: Layer::new(None),
        }
    }

    /// A microphone.
    pub fn microphone(now: Instant) -> Self {
        let begun = now + SOUND.mul_f64(rand::random());
        Self {
            due: begun,
            begun,
            layers: Vec::new(),
            sound: Layer::new(None),
        }
    }

    /// Whether it is sound.
    pub fn is_sound(&self) -> bool {
        self.layers.is_empty()
    }

    /// Somebody wants a key frame of a layer, or of all.
    pub fn want_key_frame(&mut self, layer: Option<usize>) {
        for (place, of) in self.layers.iter_mut().enumerate() {
            if layer.is_none_or(|layer| layer == place) {
                of.place = 0;
            }
        }
    }

    /// What is due now; the next is due an interval later, whatever the time is.
    pub fn next(&mut self, now: Instant, clock: SystemTime, mut send: impl FnMut(Packet)) {
        let elapsed = now.saturating_duration_since(self.begun);
        if self.is_sound() {
            self.due += SOUND;
            send(self.sound.sound(elapsed, clock));
            return;
        }
        self.due += PICTURE;
        for (place, layer) in self.layers.iter_mut().enumerate() {
            layer.picture(place, elapsed, clock, &mut send);
        }
    }
}

impl Layer {
    fn sound(&mut self, elapsed: Duration, clock: SystemTime) -> Packet {
        let mut packets = clip::sound();
        let opus = packets.nth(self.place).unwrap_or_default();
        self.place = if packets.next().is_some() { self.place + 1 } else { 0 };
        let (head, frame) = opus.split_first().unwrap_or((&0, &[]));
        // One frame as before, now with its count and with padding behind it: code 3 (RFC 6716 section 3.2.5).
        let mut payload = vec![head | 3, 0b0100_0001, stamp::LENGTH as u8];
        payload.extend(frame);
        stamp::write(&mut payload, clock);
        self.sequence += 1;
        Packet {
            layer: 0,
            sequence: self.sequence,
            timestamp: self.timestamp.wrapping_add((elapsed.as_millis() * 48) as u32),
            marker: false,
            payload,
        }
    }

    fn picture(&mut self, layer: usize, elapsed: Duration, clock: SystemTime, send: &mut impl FnMut(Packet)) {
        let Some(size) = self.size else {
            return;
        };
        let mut frames = clip::frames(size);
        let frame = frames.nth(self.place).unwrap_or_default();
        self.place = if frames.next().is_some() { self.place + 1 } else { 0 };
        self.picture = (self.picture + 1) & 0x7fff;
        let timestamp = self.timestamp.wrapping_add((elapsed.as_micros() * 9 / 100) as u32);
        let last = frame.len().div_ceil(PAYLOAD).saturating_sub(1);
        for (place, part) in frame.chunks(PAYLOAD).enumerate() {
            // A descriptor with a picture id of 15 bits (RFC 7741 section 4.2).
            let begins = u8::from(place == 0) << 4;
            let mut payload = vec![
                0x80 | begins,
                0x80,
                0x80 | (self.picture >> 8) as u8,
                self.picture as u8,
            ];
            payload.extend(part);
            if place == last {
                stamp::write(&mut payload, clock);
            }
            self.sequence += 1;
            send(Packet {
                layer,
                sequence: self.sequence,
                timestamp,
                marker: place == last,
                payload,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn take(source: &mut Source) -> Vec<Packet> {
        let mut packets = Vec::new();
        let due = source.due;
        source.next(due, UNIX_EPOCH, |packet| packets.push(packet));
        packets
    }

    #[test]
    fn a_picture_is_cut_up_and_put_together_again() {
        let mut camera = Source::camera(Instant::now(), &[Size::P720]);
        for frame in clip::frames(Size::P720).chain(clip::frames(Size::P720).take(1)) {
            let packets = take(&mut camera);
            let mut whole: Vec<u8> = packets.iter().flat_map(|packet| packet.payload[4..].to_vec()).collect();
            whole.truncate(whole.len() - stamp::LENGTH);
            assert_eq!(whole, frame);
            let markers: Vec<usize> = (0..packets.len()).filter(|place| packets[*place].marker).collect();
            assert_eq!(markers, [packets.len() - 1]);
            assert!(packets.iter().all(|packet| packet.timestamp == packets[0].timestamp));
        }
    }

    #[test]
    fn a_layer_begins_anew_when_a_key_frame_is_wanted_of_it() {
        let mut camera = Source::camera(Instant::now(), &[Size::P180, Size::P360]);
        take(&mut camera);
        camera.want_key_frame(Some(1));
        let keys: Vec<usize> = take(&mut camera)
            .iter()
            .filter(|packet| packet.payload[0] & 0x10 != 0 && clip::is_key(&packet.payload[4..]))
            .map(|packet| packet.layer)
            .collect();
        assert_eq!(keys, [1]);
    }

    #[test]
    fn sound_has_the_time_in_its_padding() {
        let mut microphone = Source::microphone(Instant::now());
        for _ in 0..250 {
            let packets = take(&mut microphone);
            assert_eq!(packets.len(), 1);
            let payload = &packets[0].payload;
            assert_eq!(payload.len(), 80 + 2 + stamp::LENGTH);
            assert_eq!(stamp::age(payload, UNIX_EPOCH), Some(Duration::ZERO));
        }
    }
}
