//! Which frames of a stream one receiver gets: pure, and the same for all codecs.
//!
//! A receiver's *cut* says what is sent. It changes only where a frame begins, and only in such a way that all that is sent can be decoded:
//! down as soon as what is left needs nothing else, up where the stream says that one can.

use crate::allocator::Layer;
use crate::layers::dependency::Descriptor;
use crate::layers::{Frame, Needs, Reader};

/// All layers of a stream.
pub const ALL: Layer = Layer {
    spatial: u8::MAX,
    temporal: u8::MAX,
};

/// No decode target: the stream has no descriptors, or its receiver began when it had none.
const NO_TARGET: u8 = u8::MAX;

/// For so many frames after a change a receiver is told which decode targets are sent, even if all are. Higher: some more bytes. Lower: a
/// receiver that loses a few packets goes on without those that it could have.
const ANNOUNCED_FRAMES: u8 = 16;

/// What of a stream is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Up to which layer.
    pub layer: Layer,
    /// Which decode target, in a stream that has descriptors.
    target: u8,
}

impl Cut {
    /// Everything.
    pub const WHOLE: Self = Self {
        layer: ALL,
        target: NO_TARGET,
    };

    /// Whether a frame is sent.
    pub fn includes(self, frame: &Frame) -> bool {
        match &frame.needs {
            Needs::Described(descriptor) if self.target != NO_TARGET => descriptor.is_in(self.target),
            _ => frame.spatial <= self.layer.spatial && frame.temporal <= self.layer.temporal,
        }
    }

    /// Whether a packet of a frame ends what is sent of its picture.
    pub fn ends_picture(self, frame: &Frame) -> bool {
        frame.ends_frame && frame.spatial == self.layer.spatial
    }
}

/// One receiver's selection of the frames of a stream.
#[derive(Debug, Clone)]
pub struct Selection {
    cut: Cut,
    /// The best decode target for what is wanted, and for what that was found.
    best: (Layer, u32, u8),
    /// The frames that were sent: bit n is the frame n before `newest`.
    sent: u128,
    newest: u16,
    /// Frames for which the receiver is still to be told what is sent.
    announced: u8,
}

impl Selection {
    /// One that begins with a key frame.
    pub fn new(frame: &Frame, wanted: Layer) -> Self {
        let mut selection = Self {
            cut: Cut {
                layer: wanted,
                target: NO_TARGET,
            },
            best: (wanted, 0, NO_TARGET),
            sent: 0,
            newest: 0,
            announced: 0,
        };
        if let Needs::Described(descriptor) = &frame.needs {
            selection.newest = descriptor.number;
            selection.choose(descriptor, wanted);
            selection.go_to(descriptor, selection.best.2);
        }
        selection
    }

    /// What is sent at present.
    pub fn cut(&self) -> Cut {
        self.cut
    }

    /// Looks at the newest packet of the stream, and changes what is sent if the packet allows it.
    pub fn advance(&mut self, frame: &Frame, wanted: Layer) {
        if !frame.starts_frame {
            return;
        }
        match &frame.needs {
            Needs::Described(descriptor) => self.advance_described(descriptor, wanted),
            Needs::Vp9 {
                is_predicted,
                is_switching_point,
            } => self.advance_vp9(frame, wanted, *is_predicted, *is_switching_point),
            Needs::Vp8 { is_synced } => self.advance_temporal(frame, wanted, *is_synced),
            Needs::Everything => self.advance_temporal(frame, wanted, false),
        }
    }

    fn advance_temporal(&mut self, frame: &Frame, wanted: Layer, is_synced: bool) {
        let layer = &mut self.cut.layer;
        if frame.is_key {
            *layer = wanted;
        } else if wanted.temporal < layer.temporal {
            layer.temporal = wanted.temporal;
        } else if is_synced && wanted.temporal > layer.temporal && frame.temporal == layer.temporal + 1 {
            // One at a time: frames of the layer after it may need some of this one.
            layer.temporal += 1;
        }
    }

    fn advance_vp9(&mut self, frame: &Frame, wanted: Layer, is_predicted: bool, is_switching_point: bool) {
        let layer = &mut self.cut.layer;
        if frame.is_key {
            *layer = wanted;
        } else if frame.starts_picture {
            layer.spatial = layer.spatial.min(wanted.spatial);
            layer.temporal = layer.temporal.min(wanted.temporal);
            if is_switching_point && frame.temporal <= layer.temporal {
                layer.temporal = wanted.temporal;
            }
        } else if !is_predicted
            && layer.spatial < wanted.spatial
            && frame.spatial == layer.spatial + 1
            && frame.temporal <= layer.temporal
        {
            // It needs nothing but the lower layers of its own picture, which are sent.
            layer.spatial += 1;
        }
    }

    fn advance_described(&mut self, descriptor: &Descriptor, wanted: Layer) {
        self.announced = self.announced.saturating_sub(1);
        if self.cut.target == NO_TARGET && !descriptor.is_key() {
            // Its receiver does not know the structure yet.
            return;
        }
        self.choose(descriptor, wanted);
        let best = self.best.2;
        if descriptor.is_key() {
            self.go_to(descriptor, best);
            return;
        }
        let present = self.cut.target;
        if best == present {
            return;
        }
        let contains = |target: u8| {
            let present = descriptor.structure.get(present);
            present.is_some_and(|present| present.contains >> target & 1 == 1)
        };
        let needs_only_sent = || descriptor.references.are_in(self.before(descriptor.number));
        if contains(best) || (descriptor.is_switch_to(best) && needs_only_sent()) {
            self.go_to(descriptor, best);
            return;
        }
        // A lower spatial layer whose frames were not sent, since those above do without them, has to wait for a key frame. Until then,
        // fewer frames cost less.
        let layer = |target| descriptor.structure.get(target).map(|target| target.layer);
        if let (Some(best), Some(present)) = (layer(best), layer(present))
            && best.spatial < present.spatial
        {
            let slower = Layer {
                spatial: present.spatial,
                temporal: 0,
            };
            let slower = descriptor.structure.target(slower, descriptor.active);
            if let Some(slower) = slower.filter(|slower| contains(*slower)) {
                self.go_to(descriptor, slower);
            }
        }
    }

    fn choose(&mut self, descriptor: &Descriptor, wanted: Layer) {
        if (wanted, descriptor.active) != (self.best.0, self.best.1) || descriptor.is_key() {
            let best = descriptor.structure.target(wanted, descriptor.active);
            self.best = (wanted, descriptor.active, best.unwrap_or(NO_TARGET));
        }
    }

    fn go_to(&mut self, descriptor: &Descriptor, target: u8) {
        let Some(found) = descriptor.structure.get(target) else {
            return;
        };
        if self.cut.target != target {
            self.announced = ANNOUNCED_FRAMES;
        }
        self.cut = Cut {
            layer: found.layer,
            target,
        };
    }

    /// The frames that were sent before a frame: bit n is the frame n + 1 before it.
    fn before(&self, number: u16) -> u128 {
        match number.wrapping_sub(self.newest) {
            0 => self.sent >> 1,
            distance @ 1..=128 => self.sent.checked_shl(u32::from(distance) - 1).unwrap_or(0),
            _ => 0,
        }
    }

    /// A packet of a frame was sent.
    pub fn sent(&mut self, frame: &Frame) {
        let Needs::Described(descriptor) = &frame.needs else {
            return;
        };
        let ahead = descriptor.number.wrapping_sub(self.newest);
        if ahead < 0x8000 {
            self.sent = self.sent.checked_shl(u32::from(ahead)).unwrap_or(0) | 1;
            self.newest = descriptor.number;
        } else {
            let behind = u32::from(self.newest.wrapping_sub(descriptor.number));
            self.sent |= 1_u128.checked_shl(behind).unwrap_or(0);
        }
    }

    /// Whether the receiver knows the structure of the stream's descriptors.
    pub fn is_described(&self) -> bool {
        self.cut.target != NO_TARGET
    }

    /// The decode targets that a packet has to name as sent; none: it may say what it says.
    pub fn active(&self, descriptor: &Descriptor) -> Option<u32> {
        let target = descriptor.structure.get(self.cut.target)?;
        let active = target.contains & descriptor.active;
        let is_said = match descriptor.said_active {
            Some(said) => said == active,
            None => active == descriptor.structure.all() && self.announced == 0,
        };
        (!is_said).then_some(active)
    }

    /// The layer that it should come to, of those up to `top` that arrive, and the one that it is at.
    pub fn goal(&self, reader: &Reader, wanted: Layer, top: Layer) -> (Layer, Layer) {
        let below = |one: Layer, other: Layer| Layer {
            spatial: one.spatial.min(other.spatial),
            temporal: one.temporal.min(other.temporal),
        };
        match reader.structure() {
            Some(structure) if self.cut.target != NO_TARGET => {
                let best = structure.target(wanted, reader.active());
                let best = best.and_then(|best| structure.get(best));
                (best.map_or(self.cut.layer, |best| best.layer), self.cut.layer)
            }
            _ => (below(wanted, top), below(self.cut.layer, top)),
        }
    }
}

#[cfg(test)]
pub mod tests;
