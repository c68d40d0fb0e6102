//! An encoder that keeps to a bit rate: VP8 with three temporal layers, as browsers send it, with nothing in its pictures.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The time from frame to frame, in seconds.
const FRAME_SECONDS: f64 = 0.033;

/// A key frame is so many times as large as the average.
const KEY_FRAME_SIZE: f64 = 5.0;

/// The share of a frame by which the frames after a key frame pay for it.
const PAID_BACK: f64 = 0.2;

/// Bytes of payload in a packet at most.
const MAX_PAYLOAD_BYTES: usize = 1_100;

/// Temporal layer, share of the average size, and whether it refers to nothing but the base layer, by the place in the pattern.
const PATTERN: [(u8, f64, bool); 4] = [(0, 1.6, false), (2, 0.8, true), (1, 0.8, true), (2, 0.8, false)];

/// One simulcast layer's encoder.
pub struct Encoder {
    layer: u8,
    bps: f64,
    rng: StdRng,
    place: usize,
    picture_id: u16,
    tl0_pic_idx: u8,
    debt_bytes: f64,
}

impl Encoder {
    pub fn new(layer: u8, bps: u64) -> Self {
        Self {
            layer,
            bps: bps as f64,
            rng: StdRng::seed_from_u64(u64::from(layer)),
            place: 0,
            picture_id: 1_000 * u16::from(layer),
            tl0_pic_idx: 50 * layer,
            debt_bytes: 0.0,
        }
    }

    /// The payloads of the next frame's packets. Each ends in the layer and three zeros.
    pub fn frame(&mut self, is_key: bool) -> Vec<Vec<u8>> {
        if is_key {
            self.place = 0;
        }
        let (temporal, size, is_sync) = PATTERN[self.place];
        self.place = (self.place + 1) % PATTERN.len();
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        if temporal == 0 {
            self.tl0_pic_idx = self.tl0_pic_idx.wrapping_add(1);
        }
        let average = self.bps * FRAME_SECONDS / 8.0;
        let mut bytes = average * size * self.rng.random_range(0.8..1.2);
        if is_key {
            bytes = average * KEY_FRAME_SIZE;
            self.debt_bytes += bytes - average;
        } else {
            let paid = self.debt_bytes.min(bytes * PAID_BACK);
            self.debt_bytes -= paid;
            bytes -= paid;
        }
        let packets = (bytes as usize).div_ceil(MAX_PAYLOAD_BYTES).max(1);
        let share = (bytes as usize / packets).max(12);
        let descriptor = [
            0xe0,
            0x80 | (self.picture_id >> 8) as u8,
            self.picture_id as u8,
            self.tl0_pic_idx,
            temporal << 6 | u8::from(is_sync) << 5,
        ];
        (0..packets)
            .map(|part| {
                let mut payload = vec![if part == 0 { 0x90 } else { 0x80 }];
                payload.extend(descriptor);
                payload.push(u8::from(!is_key));
                payload.resize(share - 4, 0);
                payload.extend([self.layer, 0, 0, 0]);
                payload
            })
            .collect()
    }
}
