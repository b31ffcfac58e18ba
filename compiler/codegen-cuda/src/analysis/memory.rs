//! Facts about accesses to memory: what their views say, whatever the layout in registers.

use linc_tile::{Binary, Elem, Kernel, Mode, Op, TileType, View};

use super::definitions::Definitions;
use super::usage::Usage;

/// Bytes of the widest access.
pub(crate) const WIDE: u64 = 16;

/// Bytes of an element in memory.
pub(crate) fn element_bytes(elem: Elem) -> u64 {
    if elem.is_narrow() { 2 } else { 4 }
}

/// Whether a matrix of 16-bit elements lies in memory as aligned pieces of 16 bytes, all there or all not.
pub(crate) fn in_pieces(
    kernel: &Kernel,
    usage: &Usage,
    alignment: &[u32],
    view: &View,
    ty: &TileType,
) -> bool {
    let ([rows, cols], true) = (&view.axes[..], ty.elem.is_narrow()) else { return false };
    let piece = WIDE / 2;
    let whole = |n: u64| n.is_multiple_of(piece);
    let read_only = kernel.param(view.param).mode != Mode::ReadWrite;
    read_only
        && cols.stride == 1
        && whole(ty.shape[1] as u64)
        && whole(rows.stride.unsigned_abs())
        && whole(usage.divisor(view.offset))
        && cols.bound.is_none_or(|bound| whole(usage.divisor(bound)))
        && u64::from(alignment[view.param.0 as usize]) >= WIDE
}

/// Whether the views are the even and the odd elements of one range.
pub(crate) fn are_neighbours(definitions: &Definitions<'_>, usage: &Usage, even: &View, odd: &View) -> bool {
    if even.param != odd.param || even.axes != odd.axes || even.axes.last().is_none_or(|a| a.stride != 2) {
        return false;
    }
    match definitions.of(odd.offset) {
        Some(Op::Binary(Binary::Add, a, b)) => {
            let is_even = |v| usage.root(v) == usage.root(even.offset);
            let is_one = |v| matches!(definitions.of(v), Some(Op::ConstI(1)));
            (is_even(*a) && is_one(*b)) || (is_even(*b) && is_one(*a))
        }
        _ => false,
    }
}
