//! Fragments: what a thread holds of the operands of one `mma` instruction.

use linc_tile::ValueId;

use super::code::Code;
use crate::decisions::layout::{Axis, ValueLayout};
use crate::text::spelling::{digit, memory_type};

/// Blocks of 16 columns of a warp.
pub(crate) fn column_blocks(cols: Axis) -> usize {
    cols.mid / 2
}

/// Number of the 16 rows that this warp works on in iteration `i`; those without rows repeat the last.
pub(crate) fn strip(rows: Axis, padded: usize) -> String {
    share(rows, "i", rows.warps, 1, padded)
}

/// Number of the 16 columns that this warp works on in iteration `n`; those without columns repeat the last.
pub(crate) fn column_block(cols: Axis, padded: usize) -> String {
    share(cols, "n", 1, column_blocks(cols), padded)
}

/// `round * per_round + warp * per_warp`, where the axis has several of them.
fn share(axis: Axis, round: &str, per_round: usize, per_warp: usize, padded: usize) -> String {
    let times = |digit: String, by: usize| if by == 1 { digit } else { format!("{digit} * {by}") };
    let mut parts = vec![];
    if axis.covered() > 16 * axis.warps {
        parts.push(times(round.to_string(), per_round));
    }
    if axis.warps > 1 {
        parts.push(times(digit("warp", axis.warp_bit, axis.warps), per_warp));
    }
    let number = match &parts[..] {
        [] => "0".into(),
        [one] if !one.contains(' ') => one.clone(),
        parts => format!("({})", parts.join(" + ")),
    };
    if axis.covered() > padded { format!("int_min({number}, {})", padded / 16 - 1) } else { number }
}

/// `left[i]`: what a thread holds of 16 inner positions from `16 k` on, of the rows of each strip `i`.
pub(crate) fn left(code: &mut Code<'_>, (a, trans_a): (ValueId, bool), rows: Axis, inner: usize) {
    code.out.line(format!("u32 left[{}][4];", rows.outer));
    let Some(tile) = code.shared.tiles.get(&a) else {
        return left_in_registers(code, a, rows, inner, "left[i]");
    };
    let line = if trans_a {
        let piece = format!("{} * 2 + lane / 8 % 2", strip(rows, tile.form.cols));
        let piece = tile.piece("k * 16 + lane / 16 * 8 + lane % 8", &piece);
        format!("load_matrices_transposed(left[i], {piece});")
    } else {
        let row = format!("{} * 16 + lane % 16", strip(rows, tile.form.rows));
        format!("load_matrices(left[i], {});", tile.piece(&row, "k * 2 + lane / 16"))
    };
    code.out.unrolled("i", rows.outer, 1);
    code.out.line(line);
    code.out.close();
}

/// Packs fragments of a left operand that is in registers, for each strip `i`.
pub(crate) fn left_in_registers(code: &mut Code<'_>, a: ValueId, rows: Axis, inner: usize, fragment: &str) {
    let ValueLayout::Matrix(own) = code.decisions.place(a) else {
        unreachable!("verified: products are of matrices")
    };
    code.out.unrolled("i", rows.outer, 1);
    code.out.unrolled("q", 4, 1);
    code.out.line("const int r = i * 2 + q % 2, c = k * 4 + q / 2 * 2;");
    let mut elements = [code.values.element(a, ["r", "c"]), code.values.element(a, ["r", "c + 1"])];
    if own.cols.covered() > inner {
        for (e, element) in elements.iter_mut().enumerate() {
            let at = code.values.positions.at(own.cols, if e == 0 { "c" } else { "c + 1" });
            *element = format!("{at} < {inner} ? {element} : 0.0f");
        }
    }
    let ty = memory_type(code.decisions.ty(a).elem);
    code.out.line(format!("{fragment}[q] = pack_{ty}({});", elements.join(", ")));
    code.out.close();
    code.out.close();
}

/// `right`: what a thread holds of 16 inner positions from `16 k` on, of the 16 columns of block `n`.
pub(crate) fn right(code: &mut Code<'_>, (b, trans_b): (ValueId, bool), cols: Axis) {
    code.out.line("u32 right[4];");
    let tile = &code.shared.tiles[&b];
    let line = if trans_b {
        let row = format!("{} * 16 + lane / 16 * 8 + lane % 8", column_block(cols, tile.form.rows));
        format!("load_matrices(right, {});", tile.piece(&row, "k * 2 + lane / 8 % 2"))
    } else {
        let piece = format!("{} * 2 + lane / 16", column_block(cols, tile.form.cols));
        format!("load_matrices_transposed(right, {});", tile.piece("k * 16 + lane % 16", &piece))
    };
    code.out.line(line);
}
