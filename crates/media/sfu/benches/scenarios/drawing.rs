//! A run as an SVG: capacity, what was sent, and the estimate; the layer below; freezes as stripes.

use std::fmt::Write;
use std::time::Duration;

use crate::sfu::scenario::{Point, Run};

const WIDTH: f64 = 900.0;
const RATES: f64 = 300.0;
const LAYERS: f64 = 80.0;
const MARGIN: f64 = 50.0;

/// What a line shows of a point, in bits per second.
type Figure = fn(&Point) -> Option<f64>;

/// Kilobits per second at the top.
const MOST_KBPS: f64 = 3_500.0;

/// The drawing; gaps longer than `freeze` are stripes.
pub fn draw(run: &Run, freeze: Duration) -> String {
    let length = run.curve.last().map_or(1.0, |point| point.at.as_secs_f64());
    let x = |at: Duration| MARGIN + at.as_secs_f64() / length * WIDTH;
    let y = |kbps: f64| MARGIN + RATES * (1.0 - (kbps / MOST_KBPS).min(1.0));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/><text x=\"{MARGIN}\" y=\"20\" font-size=\"15\">{}</text>\n",
        WIDTH + 2.0 * MARGIN,
        RATES + LAYERS + 3.0 * MARGIN,
        run.name
    );
    for (at, gap) in run.freezes(freeze) {
        let (from, to) = (x(at), x(at + gap));
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{MARGIN}\" width=\"{:.1}\" height=\"{}\" fill=\"#f4c7c3\"/>",
            to - from,
            RATES + MARGIN + LAYERS
        );
    }
    for kbps in (0..=3_500).step_by(500) {
        let at = y(f64::from(kbps));
        let _ = writeln!(
            svg,
            "<path d=\"M{MARGIN} {at:.1}h{WIDTH}\" stroke=\"#ddd\"/><text x=\"5\" y=\"{:.1}\">{kbps}</text>",
            at + 4.0
        );
    }
    let lines: [(&str, &str, Figure); 3] = [
        ("capacity", "#999", |point| point.capacity.map(|bps| bps as f64)),
        ("sent", "#1a73e8", |point| Some(point.sent_bps)),
        ("estimate", "#e37400", |point| point.estimate.map(|bps| bps as f64)),
    ];
    for (index, (name, colour, of)) in lines.into_iter().enumerate() {
        let points = run.curve.iter();
        let points =
            points.filter_map(|point| of(point).map(|bps| format!("{:.1},{:.1}", x(point.at), y(bps / 1_000.0))));
        let points: Vec<String> = points.collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{}\" y=\"40\" fill=\"{colour}\">{name}, kbps</text>",
            points.join(" "),
            MARGIN + 130.0 * index as f64
        );
    }
    for point in &run.curve {
        let Some((spatial, temporal)) = point.layer else {
            continue;
        };
        let height = LAYERS * (f64::from(spatial) * 3.0 + f64::from(temporal) + 1.0) / 9.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"#34a853\"/>",
            x(point.at.saturating_sub(crate::sfu::scenario::SAMPLE)),
            RATES + 2.0 * MARGIN + LAYERS - height,
            crate::sfu::scenario::SAMPLE.as_secs_f64() / length * WIDTH
        );
    }
    for second in (0..=length as u64).step_by(5) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\">{second} s</text>",
            x(Duration::from_secs(second)),
            RATES + LAYERS + 2.5 * MARGIN
        );
    }
    svg + "</svg>\n"
}
