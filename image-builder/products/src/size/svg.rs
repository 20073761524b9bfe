//! The picture: a treemap as SVG, readable where it is light and where it is dark.

use super::squarify::{Area, divide};
use super::{Part, Weight};
use crate::svg::{self, escaped};
use store::progress::bytes;

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 720.0;
const TITLE: f64 = 34.0;
/// Room for the name of a part that has parts.
const HEADER: f64 = 18.0;
const GAP: f64 = 2.0;
/// Least size of a piece that gets a name, and of one that is divided further.
const NAMED: (f64, f64) = (44.0, 16.0);
const DIVIDED: (f64, f64) = (60.0, 44.0);
/// About how wide a letter is at the size that names have.
const LETTER: f64 = 6.6;
/// Hues of the parts of the whole, in order of size; the parts of a part are lighter.
const HUES: [u32; 8] = [210, 28, 150, 340, 262, 48, 186, 0];

/// Draws `weight` under a title.
pub fn draw(title: &str, weight: &Weight) -> String {
    let title = format!("{title} · {}", bytes(weight.total()));
    let mut svg = svg::begun((WIDTH, HEIGHT), 12, (8.0, 23.0), &title);
    let area = Area { x: 4.0, y: TITLE, width: WIDTH - 8.0, height: HEIGHT - TITLE - 4.0 };
    let parts = weight.by_size();
    let sizes: Vec<u64> = parts.iter().map(|part| part.bytes).collect();
    for (index, (part, piece)) in parts.iter().zip(divide(&sizes, area)).enumerate() {
        piece_of(&mut svg, part.name, part, piece, HUES[index % HUES.len()], 0);
    }
    svg.push_str("</svg>\n");
    svg
}

fn piece_of(svg: &mut String, path: &str, part: &Part<'_>, area: Area, hue: u32, level: u32) {
    let name = part.name;
    let area = Area {
        x: area.x + GAP / 2.0,
        y: area.y + GAP / 2.0,
        width: area.width - GAP,
        height: area.height - GAP,
    };
    if area.width < 0.5 || area.height < 0.5 {
        return;
    }
    let Area { x, y, width, height } = area;
    let light = (58 + 10 * level).min(88);
    let size = bytes(part.bytes);
    *svg += &format!(
        "<g><title>{} {size}</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
         fill=\"hsl({hue},52%,{light}%)\" stroke=\"hsl({hue},40%,38%)\" stroke-width=\"0.6\"/>",
        escaped(path)
    );
    if width >= NAMED.0 && height >= NAMED.1 {
        let room = ((width - 8.0) / LETTER) as usize;
        let whole = format!("{name} {size}");
        let text = if whole.chars().count() <= room { whole } else { shortened(name, room) };
        *svg += &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#101010\">{}</text>",
            x + 4.0,
            y + 13.0,
            escaped(&text)
        );
    }
    *svg += "</g>\n";
    let parts = part.weight.map(Weight::by_size).unwrap_or_default();
    if parts.is_empty() || width < DIVIDED.0 || height < DIVIDED.1 {
        return;
    }
    let inside = Area { x: x + 2.0, y: y + HEADER, width: width - 4.0, height: height - HEADER - 2.0 };
    let sizes: Vec<u64> = parts.iter().map(|part| part.bytes).collect();
    for (part, piece) in parts.iter().zip(divide(&sizes, inside)) {
        piece_of(svg, &format!("{path}/{}", part.name), part, piece, hue, level + 1);
    }
}

fn shortened(name: &str, room: usize) -> String {
    if name.chars().count() <= room {
        return name.to_owned();
    }
    let start: String = name.chars().take(room.saturating_sub(1)).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_there_once_and_names_are_text() {
        let mut weight = Weight::default();
        weight.add(["bin", "a<b>&\"c\u{7}"], 500);
        weight.add(["bin", "d"], 300);
        weight.add(["etc"], 200);
        let svg = draw("a & b", &weight);
        assert_eq!(svg, draw("a & b", &weight));
        assert_eq!(svg.matches("<rect").count(), 1 + 4);
        assert!(svg.contains("<title>bin/a&lt;b&gt;&amp;&quot;c\u{fffd} 500 B</title>"), "{svg}");
        assert!(svg.contains("a &amp; b · 1.0 kB"));
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
    }

    #[test]
    fn names_that_do_not_fit_are_cut() {
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(shortened("abc", 4), "abc");
    }
}
