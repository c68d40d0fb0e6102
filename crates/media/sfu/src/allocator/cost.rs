//! What a layer costs that has not been measured, because it is not sent at present or has only begun.

use signalbox_protocol::room::{LayerInfo, TrackInfo};

use super::Rung;

/// Bits of a picture point, times a thousand: 720p with 30 pictures per second is 1.9 Mbps. Higher: layers are tried later. Lower: they
/// are tried when there is no room for them.
const MILLIBITS_PER_PIXEL: u64 = 70;

/// The most that the lowest rung is taken for, in bits per second, until it is measured. Higher: a network that is narrow, or not yet
/// known, shows nothing of it. Lower: it is begun and then paused.
const MAX_FIRST_BPS: u64 = 150_000;

/// The size of a picture that nobody has said the size of, as the top layer, in pixels.
const USUAL_PIXELS: u64 = 1280 * 720;

/// Pictures per second of a stream that nobody has measured.
const USUAL_FPS: u64 = 30;

/// What a temporal layer leaves out of those above it: its stream costs about this percentage of the next one's.
const TEMPORAL_PERCENT: u64 = 65;

/// Gives rungs that have no cost the cost that their publisher said, or that is usual for their size.
pub fn fill_costs(rungs: &mut [Rung], info: &TrackInfo) {
    let top = rungs.iter().map(|rung| rung.layer.spatial).max().unwrap_or(0);
    let known = rungs.to_vec();
    for rung in rungs.iter_mut().filter(|rung| rung.bps == 0) {
        let beside = || known.iter().filter(|other| other.layer.spatial == rung.layer.spatial);
        let above = beside()
            .filter(|other| other.layer.temporal > rung.layer.temporal)
            .count() as u32;
        let said = info
            .layers
            .get(usize::from(rung.layer.spatial))
            .map(|layer: &LayerInfo| layer.bitrate);
        let full = match said {
            Some(said) if said > 0 => u64::from(said),
            _ => usual(rung, top),
        };
        let is_lowest = known.first().is_some_and(|lowest| lowest.layer == rung.layer);
        let full = if is_lowest { full.min(MAX_FIRST_BPS) } else { full };
        let mut bps = (0..above).fold(full, |bps, _| bps * TEMPORAL_PERCENT / 100);
        // Never less than what is measured of a part of it.
        for part in beside().filter(|other| other.layer.temporal < rung.layer.temporal) {
            bps = bps.max(part.bps + 1);
        }
        rung.bps = bps.max(1);
    }
}

fn usual(rung: &Rung, top: u8) -> u64 {
    let pixels = match u64::from(rung.width) * u64::from(rung.height) {
        0 => USUAL_PIXELS >> (2 * u32::from(top.saturating_sub(rung.layer.spatial))).min(16),
        said => said,
    };
    pixels * USUAL_FPS * MILLIBITS_PER_PIXEL / 1000
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::TrackId;
    use signalbox_protocol::room::{Kind, Source};

    use super::*;
    use crate::allocator::Layer;

    /// A track whose publisher said so many bits per second of each layer.
    fn info(said: &[u32]) -> TrackInfo {
        let layer = |bitrate: &u32| LayerInfo {
            rid: String::new(),
            width: 0,
            height: 0,
            bitrate: *bitrate,
        };
        TrackInfo {
            id: TrackId::new("TR_a"),
            kind: Kind::Video,
            source: Source::Camera,
            name: String::new(),
            muted: false,
            mime_type: String::new(),
            width: 0,
            height: 0,
            layers: said.iter().map(layer).collect(),
            mid: String::new(),
            stream: String::new(),
            dialect_info: None,
        }
    }

    /// Rungs of these spatial and temporal layers, widths, heights and bits per second.
    fn filled(rungs: &[(u8, u8, u32, u32, u64)], said: &[u32]) -> Vec<u64> {
        let mut rungs: Vec<Rung> = rungs
            .iter()
            .map(|&(spatial, temporal, width, height, bps)| Rung {
                layer: Layer { spatial, temporal },
                width,
                height,
                fps: 0,
                bps,
                key_bytes: 0,
                is_active: bps > 0,
            })
            .collect();
        fill_costs(&mut rungs, &info(said));
        rungs.iter().map(|rung| rung.bps).collect()
    }

    #[test]
    fn what_is_measured_stays_and_what_is_said_counts_for_the_rest() {
        let rungs = [(0, 0, 320, 180, 90_000), (1, 0, 640, 360, 0), (2, 0, 1280, 720, 0)];
        assert_eq!(filled(&rungs, &[150_000, 500_000, 0]), [90_000, 500_000, 1_935_360]);
    }

    #[test]
    fn without_any_word_a_layer_has_a_quarter_of_the_points_of_the_next() {
        let rungs = [(0, 0, 0, 0, 0), (1, 0, 0, 0, 0), (2, 0, 0, 0, 0)];
        assert_eq!(filled(&rungs, &[]), [120_960, 483_840, 1_935_360]);
    }

    #[test]
    fn what_nobody_has_measured_is_worth_a_try() {
        assert_eq!(filled(&[(0, 0, 1280, 720, 0)], &[1_700_000]), [150_000]);
        assert_eq!(
            filled(&[(0, 0, 1280, 720, 0), (0, 1, 1280, 720, 0)], &[1_000_000]),
            [97_500, 1_000_000]
        );
    }

    #[test]
    fn fewer_pictures_cost_less_but_no_part_costs_more_than_the_whole() {
        let rungs = [(0, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 2, 0, 0, 0)];
        assert_eq!(filled(&rungs, &[100_000]), [42_250, 65_000, 100_000]);
        let rungs = [(0, 0, 0, 0, 900_000), (0, 1, 0, 0, 0)];
        assert_eq!(filled(&rungs, &[500_000]), [900_000, 900_001]);
    }
}
