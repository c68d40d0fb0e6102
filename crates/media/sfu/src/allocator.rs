//! Which simulcast layer a subscriber gets: a pure function of what there is and what is wanted.
//!
//! Bandwidth is not an input yet. When it is, this is where it enters: the caller already asks for all of a track's state at once
//! and applies the answer whenever a key frame of the chosen layer arrives.

use signalbox_protocol::control::{Preference, Quality};

/// A layer of a track: a resolution, and a share of its frames. Ordered by resolution first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layer {
    /// The place of a simulcast encoding, or of a spatial layer of a scalable stream, lowest first.
    pub spatial: u8,
    /// The highest temporal layer that is sent.
    pub temporal: u8,
}

/// What a layer is and costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// Which.
    pub layer: Layer,
    /// Width in pixels; 0: not known.
    pub width: u32,
    /// Height in pixels; 0: not known.
    pub height: u32,
    /// Frames per second as measured; 0: not known.
    pub fps: u32,
    /// Bits per second, headers included, of all that has to be sent for it: in a scalable stream the layers below as well.
    pub bps: u64,
    /// Whether its packets arrive at present.
    pub is_active: bool,
}

/// A layer as the allocator sees it, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerState {
    /// Width in pixels; 0: not known.
    pub width: u32,
    /// Height in pixels; 0: not known.
    pub height: u32,
    /// Whether packets of it arrive at present.
    pub active: bool,
}

/// The index of the layer to send; `None`: nothing.
///
/// It is the best active layer that is not more than what is of use: by [`Preference::quality`], or else the smallest that fills the
/// size that the track is shown at. When all that is active is more than that, the lowest active one.
pub fn choose(layers: &[LayerState], preference: &Preference) -> Option<usize> {
    if !preference.enabled {
        return None;
    }
    let cap = cap(layers, preference);
    let active = || {
        layers
            .iter()
            .enumerate()
            .filter(|(_, layer)| layer.active)
            .map(|(index, _)| index)
    };
    active().filter(|&index| index <= cap).max().or_else(|| active().min())
}

/// The highest layer that is of use.
fn cap(layers: &[LayerState], preference: &Preference) -> usize {
    let top = layers.len().saturating_sub(1);
    match preference.quality {
        Some(Quality::Low) => 0,
        Some(Quality::Medium) => top.min(1),
        Some(Quality::High) => top,
        None if preference.width == 0 && preference.height == 0 => top,
        None => layers
            .iter()
            .position(|layer| layer.width >= preference.width && layer.height >= preference.height)
            .unwrap_or(top),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(active: [bool; 3]) -> Vec<LayerState> {
        [(320, 180), (640, 360), (1280, 720)]
            .into_iter()
            .zip(active)
            .map(|((width, height), active)| LayerState { width, height, active })
            .collect()
    }

    fn quality(quality: Quality) -> Preference {
        Preference {
            quality: Some(quality),
            ..Preference::default()
        }
    }

    #[test]
    fn without_a_preference_the_best_active_layer_is_sent() {
        assert_eq!(choose(&layers([true, true, true]), &Preference::default()), Some(2));
        assert_eq!(choose(&layers([true, true, false]), &Preference::default()), Some(1));
        assert_eq!(choose(&layers([false; 3]), &Preference::default()), None);
        assert_eq!(choose(&[], &Preference::default()), None);
    }

    #[test]
    fn a_quality_caps_the_layer() {
        assert_eq!(choose(&layers([true; 3]), &quality(Quality::Low)), Some(0));
        assert_eq!(choose(&layers([true; 3]), &quality(Quality::Medium)), Some(1));
        assert_eq!(
            choose(&layers([false, false, true]), &quality(Quality::Low)),
            Some(2),
            "better than nothing"
        );
    }

    #[test]
    fn the_smallest_layer_that_fills_the_size_is_sent() {
        let shown = |width, height| Preference {
            width,
            height,
            ..Preference::default()
        };
        assert_eq!(choose(&layers([true; 3]), &shown(300, 150)), Some(0));
        assert_eq!(choose(&layers([true; 3]), &shown(321, 100)), Some(1));
        assert_eq!(choose(&layers([true; 3]), &shown(4000, 3000)), Some(2));
    }

    #[test]
    fn a_disabled_track_is_not_sent() {
        let disabled = Preference {
            enabled: false,
            ..Preference::default()
        };
        assert_eq!(choose(&layers([true; 3]), &disabled), None);
    }
}
