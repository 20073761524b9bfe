//! Divides a rectangle in proportion to sizes, so that the pieces are as square as they can be (Bruls, Huizing and van Wijk,
//! "Squarified Treemaps", 2000).

/// A rectangle; the unit is the drawing's.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Area {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Gives each size its piece, in the order given, which should be largest first. Sizes of 0 are not expected.
pub(super) fn divide(sizes: &[u64], area: Area) -> Vec<Area> {
    let total: f64 = sizes.iter().map(|size| *size as f64).sum();
    if total <= 0.0 {
        return vec![Area::default(); sizes.len()];
    }
    let scale = area.width * area.height / total;
    let wanted: Vec<f64> = sizes.iter().map(|size| *size as f64 * scale).collect();
    let (mut pieces, mut left, mut rest) = (Vec::new(), area, wanted.as_slice());
    while !rest.is_empty() {
        let side = left.width.min(left.height);
        // As long as another one makes the row's worst piece no worse, it belongs to the row.
        let count = (2..=rest.len())
            .take_while(|count| worst(&rest[..*count], side) <= worst(&rest[..count - 1], side))
            .last()
            .unwrap_or(1);
        let (row, after) = rest.split_at(count);
        lay(row, &mut left, &mut pieces);
        rest = after;
    }
    pieces
}

/// How far from square the worst piece of a row is: its longer side by its shorter one.
fn worst(row: &[f64], side: f64) -> f64 {
    let thickness = row.iter().sum::<f64>() / side;
    let ratio = |piece: &f64| {
        let length = piece / thickness;
        (length / thickness).max(thickness / length)
    };
    row.iter().map(ratio).fold(0.0, f64::max)
}

/// Puts a row along the shorter side, and takes it from what is left.
fn lay(row: &[f64], left: &mut Area, pieces: &mut Vec<Area>) {
    let sum: f64 = row.iter().sum();
    let Area { mut x, mut y, width, height } = *left;
    if width >= height {
        let thickness = sum / height;
        for piece in row {
            let length = piece / thickness;
            pieces.push(Area { x, y, width: thickness, height: length });
            y += length;
        }
        *left = Area { x: left.x + thickness, width: width - thickness, ..*left };
    } else {
        let thickness = sum / width;
        for piece in row {
            let length = piece / thickness;
            pieces.push(Area { x, y, width: length, height: thickness });
            x += length;
        }
        *left = Area { y: left.y + thickness, height: height - thickness, ..*left };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Area = Area { x: 0.0, y: 0.0, width: 6.0, height: 4.0 };

    #[test]
    fn the_papers_example_comes_out() {
        let pieces = divide(&[6, 6, 4, 3, 2, 2, 1], WHOLE);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(pieces[0].width, 3.0) && close(pieces[0].height, 2.0), "{pieces:?}");
        assert!(close(pieces[2].x, 3.0) && close(pieces[2].height, 7.0 / 3.0), "{pieces:?}");
    }

    proptest::proptest! {
        /// Whatever the sizes: areas are in proportion, inside, and do not overlap.
        #[test]
        fn pieces_fill_the_area(mut sizes in proptest::collection::vec(1u64..1_000_000, 1..40)) {
            sizes.sort_by(|a, b| b.cmp(a));
            let total: u64 = sizes.iter().sum();
            let pieces = divide(&sizes, WHOLE);
            for (size, piece) in sizes.iter().zip(&pieces) {
                let expected = *size as f64 / total as f64 * 24.0;
                assert!((piece.width * piece.height - expected).abs() < 1e-6);
                assert!(piece.x > -1e-6 && piece.y > -1e-6);
                assert!(piece.x + piece.width < 6.0 + 1e-6 && piece.y + piece.height < 4.0 + 1e-6);
            }
            for (index, a) in pieces.iter().enumerate() {
                for b in &pieces[index + 1..] {
                    let apart = a.x + a.width <= b.x + 1e-6 || b.x + b.width <= a.x + 1e-6
                        || a.y + a.height <= b.y + 1e-6 || b.y + b.height <= a.y + 1e-6;
                    assert!(apart, "{a:?} {b:?}");
                }
            }
        }
    }
}
