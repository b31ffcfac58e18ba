//! What reductions and running sums have in common. Along an axis, elements are combined digit by digit of its layout:
//! within a thread, between lanes by shuffles, between warps through shared memory. The order is fixed, so results are the
//! same in every run.

use linc_tile::ValueId;

use super::code::Code;
use crate::decisions::layout::{Axis, ValueLayout};
use crate::text::spelling::digit;

/// The axis that is combined, the other one if there is one.
pub(crate) fn split(code: &Code<'_>, value: ValueId, axis: usize) -> (Axis, Option<Axis>) {
    match code.decisions.place(value) {
        ValueLayout::Matrix(l) => {
            if axis == 0 {
                (l.rows, Some(l.cols))
            } else {
                (l.cols, Some(l.rows))
            }
        }
        ValueLayout::Vector(along) => (along, None),
        ValueLayout::Scalar => unreachable!("verified: a scalar has no axis"),
    }
}

/// The element at slot `s` along the combined axis and `o` along the other one; `neutral` beyond the end.
pub(crate) fn element_along(
    code: &mut Code<'_>,
    value: ValueId,
    axis: usize,
    along: Axis,
    neutral: &str,
) -> String {
    let slots = match code.decisions.place(value) {
        ValueLayout::Matrix(_) if axis == 1 => ["o", "s"],
        ValueLayout::Matrix(_) => ["s", "o"],
        ValueLayout::Vector(_) | ValueLayout::Scalar => ["s", ""],
    };
    let element = code.values.element(value, slots);
    if along.exact() {
        return element;
    }
    let at = code.values.positions.at(along, "s");
    format!("({at} < {} ? {element} : {neutral})", along.extent)
}

/// Opens a block for one lane of those that hold the same totals: the first along the axis, and of a vector, which
/// all other lanes and warps hold alike, the first of all.
pub(crate) fn open_holders(code: &mut Code<'_>, along: Axis, other: Option<Axis>) {
    let single = Axis { lanes: 1, ..along };
    match other {
        Some(_) => code.out.open(format!("if ({} == 0)", digit("lane", along.lane_bit, along.lanes))),
        None => code.open_writers(single),
    }
}
