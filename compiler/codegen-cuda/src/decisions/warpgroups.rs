//! Which products warpgroups do on Hopper.

use linc_tile::TileType;

use super::layout::{Axis, RegisterLayout, ValueLayout};
use super::shared_form::SharedForm;

/// Columns of the widest instruction.
const WIDEST: usize = 256;
/// Warps of a warpgroup.
pub(crate) const WARPS: usize = 4;

/// Columns of the result that one warpgroup has.
pub(crate) fn columns(cols: &Axis) -> usize {
    cols.covered() / cols.warps
}

/// Whether warpgroups can do a product of two bf16 or f16 tiles with such a result and right operand: each has 64 rows
/// of the result and a range of its columns, no more and no less than there are, that starts and ends at the border of a
/// panel.
pub(crate) fn suit(result: ValueLayout, b: &TileType, trans_b: bool) -> bool {
    let (ValueLayout::Matrix(RegisterLayout { rows, cols }), true) = (result, b.elem.is_narrow()) else {
        return false;
    };
    let form = SharedForm::of(b);
    let share = columns(&cols);
    let (padded, whole) = match trans_b {
        true => (form.rows, 8),
        false => (form.cols, 8 * form.pieces()),
    };
    rows.exact()
        && rows.warps.is_multiple_of(WARPS)
        && cols.covered() == padded
        && share.is_multiple_of(whole)
        && share <= WIDEST
}
