//! Transposition of a tile, by way of shared memory.

use linc_tile::ValueId;

use super::code::Code;
use super::values::Def;
use crate::decisions::layout::ValueLayout;
use crate::text::spelling::{from_float, to_float};

/// Through shared memory, with rows of odd length.
pub(crate) fn transpose(code: &mut Code<'_>, value: ValueId, result: ValueId) {
    let (place, turned) = (code.decisions.place(value), code.decisions.place(result));
    let (ValueLayout::Matrix(from), ValueLayout::Matrix(to)) = (place, turned) else {
        unreachable!("verified: a matrix is transposed")
    };
    let pitch = from.cols.extent | 1;
    let range = code.shared.scratch(from.rows.extent * pitch);
    code.shared.writes(&mut code.out, range);
    let slots = code.open_slots(place, 1);
    let (i, j) =
        (code.values.positions.at(from.rows, slots[0]), code.values.positions.at(from.cols, slots[1]));
    let element = code.values.element(value, slots);
    let guard = if from.rows.exact() && from.cols.exact() {
        String::new()
    } else {
        format!("if ({i} < {} && {j} < {}) ", from.rows.extent, from.cols.extent)
    };
    let elem = code.decisions.ty(value).elem;
    let element = to_float(elem, &element);
    code.out.line(format!("{guard}shared_store({} + ({i} * {pitch} + {j}) * 4, {element});", range.at));
    code.close_slots(place);
    code.shared.reads(&mut code.out, range);
    let name = code.declare(result);
    let slots = code.open_slots(turned, 1);
    let mut at = [code.values.positions.at(to.rows, slots[0]), code.values.positions.at(to.cols, slots[1])];
    for (at, axis) in at.iter_mut().zip([to.rows, to.cols]) {
        if !axis.exact() {
            *at = format!("int_min({at}, {})", axis.extent - 1);
        }
    }
    let read = format!("shared_load({} + ({} * {pitch} + {}) * 4)", range.at, at[1], at[0]);
    code.out.line(format!("{name}[r][c] = {};", from_float(elem, &read)));
    code.close_slots(turned);
    code.shared.give(range);
    code.values.define(result, Def::Array(name));
}
