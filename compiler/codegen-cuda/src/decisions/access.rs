//! Vectorised accesses: how many neighbours one instruction moves, and which accesses of a loop touch the same elements.

use linc_tile::{TileType, View};

use super::Decisions;
use super::layout::ValueLayout;
use crate::analysis::loops::{Loop, advance};
use crate::analysis::memory::{WIDE, element_bytes, in_pieces};
use crate::analysis::usage::gcd;

/// Neighbours along the last axis that one access moves.
pub(crate) fn per_access(decisions: &Decisions<'_>, place: ValueLayout, view: &View) -> usize {
    let size = element_bytes(decisions.kernel.param(view.param).elem);
    let (axis, outer) = match place {
        ValueLayout::Scalar => return 1,
        ValueLayout::Vector(axis) => (axis, 0),
        ValueLayout::Matrix(layout) => (layout.cols, view.axes[0].stride.unsigned_abs()),
    };
    if view.axes.last().is_none_or(|a| a.stride != 1) {
        return 1;
    }
    let aligned = aligned(decisions, view);
    let common = [aligned, decisions.usage.divisor(view.offset), outer, axis.extent as u64, WIDE / size];
    let common = common.into_iter().fold(axis.inner as u64, gcd);
    // A power of two divides the rest.
    1 << common.trailing_zeros().min(3)
}

/// Neighbours along the last axis that one store moves: where a bound cuts an access, elements go one by one.
pub(crate) fn per_store(decisions: &Decisions<'_>, place: ValueLayout, view: &View) -> usize {
    let width = per_access(decisions, place, view);
    match view.axes.last().and_then(|axis| axis.bound) {
        Some(bound) => gcd(width as u64, decisions.usage.divisor(bound)) as usize,
        None => width,
    }
}

/// Pairs of even and odd elements that one access moves; 0 if they are not aligned.
pub(crate) fn pairs_per_access(decisions: &Decisions<'_>, place: ValueLayout, view: &View) -> usize {
    let size = element_bytes(decisions.kernel.param(view.param).elem);
    let (axis, outer) = match place {
        ValueLayout::Scalar => return 0,
        ValueLayout::Vector(axis) => (axis, 0),
        ValueLayout::Matrix(layout) => (layout.cols, view.axes[0].stride.unsigned_abs()),
    };
    let aligned = aligned(decisions, view);
    let common = [aligned, decisions.usage.divisor(view.offset), outer, WIDE / size];
    let common = common.into_iter().fold(2 * gcd(axis.inner as u64, axis.extent as u64), gcd);
    (1 << common.trailing_zeros()) / 2
}

/// Elements that the pointer of a view's parameter is aligned to.
fn aligned(decisions: &Decisions<'_>, view: &View) -> u64 {
    let size = element_bytes(decisions.kernel.param(view.param).elem);
    (u64::from(decisions.options.alignment[view.param.0 as usize]) / size).max(1)
}

/// Whether a bound may cut an access of that many elements in the middle.
pub(crate) fn cut(decisions: &Decisions<'_>, view: &View, width: usize) -> bool {
    let bound = view.axes.last().and_then(|axis| axis.bound);
    bound.is_some_and(|bound| !decisions.usage.divisor(bound).is_multiple_of(width as u64))
}

/// Whether a store goes in pieces of 16 bytes by way of shared memory: in the layout of products, a lane holds only pairs
/// of neighbours.
pub(crate) fn stored_in_pieces(decisions: &Decisions<'_>, view: &View, ty: &TileType) -> bool {
    let Decisions { kernel, usage, options, layouts, .. } = decisions;
    layouts.products && in_pieces(kernel, usage, &options.alignment, view, ty)
}

/// Whether the elements of a view in a loop are those of one iteration only: the view moves on by more than it spans.
pub(crate) fn advances(decisions: &Decisions<'_>, around: Loop<'_>, place: ValueLayout, view: &View) -> bool {
    let reach = |(extent, stride): (usize, i64)| (extent as i64 - 1) * stride.abs();
    let last: i64 = place.extents().into_iter().zip(view.axes.iter().map(|a| a.stride)).map(reach).sum();
    advance(&decisions.definitions, around, view.offset).is_some_and(|moved| moved.abs() > last)
}
