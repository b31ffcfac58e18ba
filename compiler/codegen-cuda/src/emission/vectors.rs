//! Vectors that move from one layout to another, and stand for the rows or columns of a matrix.

use linc_tile::ValueId;

use super::code::Code;
use super::values::Def;
use crate::decisions::layout::{Axis, ValueLayout};
use crate::text::spelling::{from_float, register_type, to_float};

/// The axis that a vector is spread along.
fn own_axis(code: &Code<'_>, vector: ValueId) -> Axis {
    match code.decisions.place(vector) {
        ValueLayout::Vector(axis) => axis,
        ValueLayout::Scalar | ValueLayout::Matrix(_) => unreachable!("verified: a vector"),
    }
}

/// Whether a vector has to be moved to be spread along an axis.
pub(crate) fn has_to_move(code: &Code<'_>, vector: ValueId, along: Axis) -> bool {
    own_axis(code, vector) != along && code.values.moved(vector, along).is_none()
}

/// The name of an array with the vector spread along an axis.
pub(crate) fn spread(code: &mut Code<'_>, vector: ValueId, along: Axis) -> String {
    let own = own_axis(code, vector);
    if own == along {
        return match code.values.def(vector) {
            Def::Array(name) => name.clone(),
            Def::Scalar(_) | Def::Splat(_) | Def::Expand(..) | Def::Iota(_) | Def::SharedOnly => {
                materialised(code, vector)
            }
        };
    }
    if let Some(name) = code.values.moved(vector, along) {
        return name;
    }
    let name = moved(code, vector, own, along);
    code.values.note_moved(vector, along, &name);
    name
}

/// An array with the elements of a vector that has none.
fn materialised(code: &mut Code<'_>, vector: ValueId) -> String {
    let name = code.values.temporary("vector");
    code.declare_as(vector, &name);
    let place = code.decisions.place(vector);
    let slots = code.open_slots(place, 1);
    let element = code.values.element(vector, slots);
    code.out.line(format!("{name}[r] = {element};"));
    code.close_slots(place);
    name
}

/// Moves a vector from one spread to another through shared memory; returns the new array.
pub(crate) fn moved(code: &mut Code<'_>, vector: ValueId, from: Axis, to: Axis) -> String {
    let elem = code.decisions.ty(vector).elem;
    let range = code.shared.scratch(from.extent);
    let name = code.values.temporary("moved");
    code.shared.writes(&mut code.out, range);
    code.open_writers(from);
    let at = code.values.positions.at(from, "r");
    let element = code.values.element(vector, ["r", ""]);
    code.out.unrolled("r", from.slots(), 1);
    let guard = if from.exact() { String::new() } else { format!("if ({at} < {}) ", from.extent) };
    let element = to_float(elem, &element);
    code.out.line(format!("{guard}shared_store({} + {at} * 4, {element});", range.at));
    code.out.close();
    code.out.close();
    code.shared.reads(&mut code.out, range);
    code.out.line(format!("{} {name}[{}];", register_type(elem), to.slots()));
    code.out.unrolled("r", to.slots(), 1);
    let at = code.values.positions.at(to, "r");
    // Slots beyond the end hold the last element: whatever is there must not be read uninitialised.
    let at = if to.exact() { at } else { format!("int_min({at}, {})", to.extent - 1) };
    let read = format!("shared_load({} + (u32){at} * 4)", range.at);
    code.out.line(format!("{name}[r] = {};", from_float(elem, &read)));
    code.out.close();
    code.shared.give(range);
    name
}
