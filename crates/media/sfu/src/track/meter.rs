//! What each layer of a stream costs: bits and frames per second of the last second, all that a receiver of the layer needs included.

use std::time::{Duration, Instant};

use crate::allocator::{Layer, Rung};
use crate::layers::dependency::Structure;
use crate::layers::{Frame, MAX_SPATIAL, MAX_TEMPORAL, Reader};

/// The time that is measured at once. Two of them make up what is told. Higher: calmer figures. Lower: they follow changes sooner.
const WINDOW: Duration = Duration::from_millis(500);

/// What each packet costs beyond its payload: headers of RTP with extensions, the tag of SRTP, UDP and IP.
const HEADERS: u32 = 60;

/// Without packets for so long, a layer is not there.
const TIMEOUT: Duration = Duration::from_millis(1_500);

/// A key picture is counted over so many windows: what comes with it is paid back by what follows, and a layer that costs what it does in
/// its first half second would not be given to whom it fits. Higher: a stream of many key pictures is taken for less than it costs. Lower:
/// one that has just begun is taken for more.
const KEY_WINDOWS: u32 = 8;

/// Layers without a structure; decode targets with one, which are 32 at most.
const CELLS: usize = MAX_SPATIAL * MAX_TEMPORAL;

/// Measures one stream.
pub struct Meter {
    cells: Box<[Cell; CELLS]>,
    /// Cells are decode targets.
    is_described: bool,
    /// The packets that come are those of a key picture.
    is_key: bool,
    window: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    now: Count,
    last: Count,
    before: Count,
    /// What has come of key pictures and was not counted yet.
    key_bytes: u32,
    /// What the last key picture had.
    last_key: u32,
    seen: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    bytes: u32,
    frames: u32,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            cells: Box::new([Cell::default(); CELLS]),
            is_described: false,
            is_key: false,
            window: None,
        }
    }
}

impl Meter {
    /// Counts a packet. Returns whether its layer was not there before.
    pub fn add(&mut self, now: Instant, frame: &Frame, bytes: usize) -> bool {
        let descriptor = frame.descriptor();
        if self.is_described != descriptor.is_some() {
            *self = Self {
                is_described: descriptor.is_some(),
                ..Self::default()
            };
        }
        self.roll(now);
        if frame.is_key || frame.starts_picture {
            self.is_key = frame.is_key;
        }
        if frame.is_key && frame.starts_picture {
            for cell in self.cells.iter_mut() {
                cell.last_key = 0;
            }
        }
        let bytes = bytes as u32 + HEADERS;
        match descriptor {
            None => {
                let index = usize::from(frame.spatial) * MAX_TEMPORAL + usize::from(frame.temporal);
                self.count(now, index, bytes, frame.starts_frame)
            }
            Some(descriptor) => {
                let mut is_new = false;
                // A picture is as many frames as there are layers, and is counted where its highest one is.
                for target in descriptor.targets() {
                    let layer = descriptor
                        .structure
                        .targets
                        .get(target)
                        .map(|target| target.layer.spatial);
                    let is_counted = descriptor.starts_frame && layer == Some(descriptor.spatial);
                    is_new |= self.count(now, target, bytes, is_counted);
                }
                is_new
            }
        }
    }

    fn count(&mut self, now: Instant, index: usize, bytes: u32, is_counted: bool) -> bool {
        let Some(cell) = self.cells.get_mut(index) else {
            return false;
        };
        if self.is_key {
            cell.key_bytes += bytes;
            cell.last_key += bytes;
        } else {
            cell.now.bytes += bytes;
        }
        cell.now.frames += u32::from(is_counted);
        let last = cell.seen.replace(now);
        last.is_none_or(|last| now.saturating_duration_since(last) >= TIMEOUT)
    }

    fn roll(&mut self, now: Instant) {
        let Some(window) = self.window else {
            self.window = Some(now);
            return;
        };
        let passed = now.saturating_duration_since(window);
        if passed < WINDOW {
            return;
        }
        // After a pause, what was measured before it is the best guess, and what is counted now is of a part of a window.
        let is_pause = passed >= WINDOW * 2;
        self.window = Some(if is_pause { now } else { window + WINDOW });
        for cell in self.cells.iter_mut() {
            let mut now = std::mem::take(&mut cell.now);
            // A stream of nothing but key pictures has nothing that would pay for them.
            let is_all_key = now.bytes == 0 && now.frames > 0;
            let part = cell.key_bytes.div_ceil(if is_all_key { 1 } else { KEY_WINDOWS });
            cell.key_bytes = if is_pause { 0 } else { cell.key_bytes - part };
            now.bytes += part;
            if !is_pause {
                cell.before = std::mem::replace(&mut cell.last, now);
            }
        }
    }

    /// The layers of the stream, ascending: sizes are 0 if the stream does not say them. There is always one.
    pub fn rungs(&self, now: Instant, reader: &Reader) -> Vec<Rung> {
        let mut rungs = match reader.structure().filter(|_| self.is_described) {
            Some(structure) => self.described(now, structure, reader.active()),
            None => self.observed(now),
        };
        rungs.sort_by_key(|rung| rung.layer);
        if rungs.is_empty() {
            rungs.push(Rung {
                layer: Layer {
                    spatial: 0,
                    temporal: 0,
                },
                width: 0,
                height: 0,
                fps: 0,
                bps: 0,
                key_bytes: 0,
                is_active: true,
            });
        }
        for rung in &mut rungs {
            if let Some((width, height)) = reader.sizes().get(usize::from(rung.layer.spatial)) {
                (rung.width, rung.height) = (u32::from(*width), u32::from(*height));
            }
        }
        rungs
    }

    fn described(&self, now: Instant, structure: &Structure, active: u32) -> Vec<Rung> {
        let targets = structure.targets.iter().zip(self.cells.iter()).enumerate();
        targets
            .map(|(index, (target, cell))| {
                let is_active = active >> index & 1 == 1 && cell.is_seen(now);
                rung(target.layer, cell.rate(), cell.last_key, is_active)
            })
            .collect()
    }

    fn observed(&self, now: Instant) -> Vec<Rung> {
        let layer = |index: usize| Layer {
            spatial: (index / MAX_TEMPORAL) as u8,
            temporal: (index % MAX_TEMPORAL) as u8,
        };
        let cells = || self.cells.iter().enumerate().map(|(index, cell)| (layer(index), cell));
        let there = cells().filter(|(_, cell)| cell.seen.is_some());
        there
            .map(|(top, cell)| {
                let below = cells().filter(|(other, _)| other.spatial <= top.spatial && other.temporal <= top.temporal);
                let (mut bytes, mut frames, mut key_bytes) = (0, 0, 0);
                for (other, cell) in below {
                    let count = cell.rate();
                    bytes += count.bytes;
                    key_bytes += cell.last_key;
                    frames += if other.spatial == top.spatial { count.frames } else { 0 };
                }
                rung(top, Count { bytes, frames }, key_bytes, cell.is_seen(now))
            })
            .collect()
    }
}

fn rung(layer: Layer, per_second: Count, key_bytes: u32, is_active: bool) -> Rung {
    Rung {
        layer,
        width: 0,
        height: 0,
        fps: per_second.frames,
        bps: u64::from(per_second.bytes) * 8,
        key_bytes: key_bytes.into(),
        is_active,
    }
}

impl Cell {
    /// Of a second.
    fn rate(&self) -> Count {
        let (last, before) = (self.last, self.before);
        if before.bytes == 0 {
            return Count {
                bytes: last.bytes * 2,
                frames: last.frames * 2,
            };
        }
        Count {
            bytes: last.bytes + before.bytes,
            frames: last.frames + before.frames,
        }
    }

    fn is_seen(&self, now: Instant) -> bool {
        self.seen
            .is_some_and(|seen| now.saturating_duration_since(seen) < TIMEOUT)
    }
}
