//! The picture: one row for each piece of time that can be seen, all over one axis.

use super::{Chart, Span, Who};
use crate::svg::{self, escaped};

const WIDTH: f64 = 1200.0;
const LEFT: f64 = 16.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 78.0;
const ROW: f64 = 17.0;
/// About how wide a letter is at the size that names have.
const LETTER: f64 = 6.2;
/// Shorter pieces are drawn as one row of marks.
const SEEN: u64 = 2_000;

const KINDS: [(Who, &str, &str); 5] = [
    (Who::Machine, "VMM and firmware", "#8a8f98"),
    (Who::Kernel, "kernel", "#c9d7ea"),
    (Who::Initcall, "initcalls of the kernel", "#4f83c4"),
    (Who::Init, "steps of /init", "#e2a13b"),
    (Who::Agent, "steps of the agent", "#3f9c74"),
];

/// Draws a boot under a title.
pub fn draw(title: &str, chart: &Chart) -> String {
    let whole = chart
        .spans
        .iter()
        .map(|span| span.start_us + span.length_us)
        .max()
        .unwrap_or(1)
        .max(chart.ready_us)
        .max(1);
    let scale = (WIDTH - LEFT - RIGHT) / whole as f64;
    let at = |us: u64| LEFT + us as f64 * scale;
    let (long, short): (Vec<&Span>, Vec<&Span>) = chart
        .spans
        .iter()
        .partition(|span| span.length_us >= SEEN || matches!(span.who, Who::Machine | Who::Kernel));
    let height = TOP + (long.len() + 1) as f64 * ROW + 40.0;
    let title = format!("{title}: ready after {:.0} ms ({})", chart.ready_us as f64 / 1e3, chart.accel);
    let mut svg = svg::begun((WIDTH, height), 11, (LEFT, 24.0), &title);
    let mut x = LEFT;
    for (_, name, colour) in KINDS {
        svg += &format!(
            "<rect x=\"{x:.0}\" y=\"36\" width=\"11\" height=\"11\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"46\" fill=\"#1a1a1a\">{name}</text>\n",
            x + 16.0
        );
        x += 40.0 + name.len() as f64 * LETTER;
    }
    let bottom = TOP + (long.len() + 1) as f64 * ROW + 8.0;
    for tick in (0..=whole).step_by(usize::try_from(tick_length(whole)).unwrap_or(1)) {
        let x = at(tick);
        svg += &format!(
            "<path d=\"M{x:.1} {:.1}V{bottom:.1}\" stroke=\"#d5d5d5\" stroke-width=\"0.7\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#555\" text-anchor=\"middle\">{} ms</text>\n",
            TOP - 8.0,
            // Beside the edge it would be cut off.
            x.clamp(24.0, WIDTH - 26.0),
            TOP - 12.0,
            tick / 1000
        );
    }
    for (row, span) in long.iter().enumerate() {
        svg += &bar(span, TOP + row as f64 * ROW, at(span.start_us), span.length_us as f64 * scale);
    }
    let y = TOP + long.len() as f64 * ROW;
    for span in &short {
        let colour = colour(span.who);
        svg += &format!(
            "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.2}\" height=\"{:.1}\" fill=\"{colour}\"><title>{} {:.2} ms</title></rect>\n",
            at(span.start_us),
            (span.length_us as f64 * scale).max(0.3),
            ROW - 4.0,
            escaped(&span.name),
            span.length_us as f64 / 1e3
        );
    }
    let x = at(chart.ready_us);
    svg += &format!(
        "<path d=\"M{x:.1} {:.1}V{bottom:.1}\" stroke=\"#b02a37\" stroke-width=\"1.2\"/>\
         <text x=\"{x:.1}\" y=\"{:.1}\" fill=\"#b02a37\" text-anchor=\"end\">ready</text>\n\
         <text x=\"{LEFT}\" y=\"{:.1}\" fill=\"#555\">The last row has the {} pieces shorter than {} ms. Reporting takes time itself: initcall_debug and the debug log are on.</text>\n</svg>\n",
        TOP - 8.0,
        bottom + 12.0,
        bottom + 26.0,
        short.len(),
        SEEN / 1000
    );
    svg
}

fn colour(who: Who) -> &'static str {
    KINDS.iter().find(|(known, ..)| *known == who).map_or("#000000", |(_, _, colour)| colour)
}

/// A bar with its name: beside it where there is room, else before it.
fn bar(span: &Span, y: f64, x: f64, width: f64) -> String {
    let text = format!("{} {:.1} ms", span.name, span.length_us as f64 / 1e3);
    let room = text.chars().count() as f64 * LETTER;
    let (text_x, anchor) = match () {
        () if room + 8.0 < width => (x + 4.0, "start"),
        () if x + width + room + 8.0 < WIDTH => (x + width + 4.0, "start"),
        () => (x - 4.0, "end"),
    };
    format!(
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.2}\" height=\"{:.1}\" fill=\"{}\"/>\
         <text x=\"{text_x:.1}\" y=\"{:.1}\" fill=\"#1a1a1a\" text-anchor=\"{anchor}\">{}</text>\n",
        width.max(0.5),
        ROW - 4.0,
        colour(span.who),
        y + 10.0,
        escaped(&text)
    )
}

/// A round length that gives about ten ticks.
fn tick_length(whole: u64) -> u64 {
    let wanted = whole / 10;
    let steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 60_000];
    steps.into_iter().map(|ms| ms * 1000).find(|step| *step >= wanted).unwrap_or(60_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_drawn_and_names_are_text() {
        let span =
            |who, name: &str, start_us, length_us| Span { who, name: name.into(), start_us, length_us };
        let chart = Chart {
            accel: "tcg".into(),
            ready_us: 900_000,
            spans: vec![
                span(Who::Machine, "VMM", 0, 100_000),
                span(Who::Kernel, "kernel", 100_000, 600_000),
                span(Who::Initcall, "a<b", 200_000, 5_000),
                span(Who::Initcall, "short", 210_000, 10),
                span(Who::Agent, "listen", 890_000, 9_000),
            ],
        };
        let svg = draw("a & b", &chart);
        assert_eq!(svg.matches("<rect").count(), 1 + KINDS.len() + chart.spans.len());
        assert!(svg.contains("a &amp; b: ready after 900 ms (tcg)"), "{svg}");
        assert!(svg.contains("a&lt;b 5.0 ms") && svg.contains("<title>short 0.01 ms</title>"), "{svg}");
        assert!(svg.contains("the 1 pieces shorter"), "{svg}");
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(tick_length(900_000), 100_000);
        assert_eq!(tick_length(3_948_000), 500_000);
        assert_eq!(tick_length(1), 1000);
    }
}
