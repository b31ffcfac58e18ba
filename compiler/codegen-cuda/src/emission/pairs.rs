//! Even and odd elements that are loaded or stored together.

use linc_tile::ValueId;

use super::addresses::{Access, before_load, before_store, open_view};
use super::code::Code;
use super::memory::neighbour;
use super::values::Def;
use crate::decisions::layout::ValueLayout;
use crate::decisions::pairs::Pair;
use crate::text::spelling::register_type;

/// Writes both loads.
pub(crate) fn load(code: &mut Code<'_>, pair: &Pair<'_>) {
    let Pair { values, view, width, .. } = *pair;
    let place = code.decisions.place(values[0]);
    before_load(code, place, view);
    let names = values.map(|value| code.declare(value));
    code.out.open("");
    let access = open_view(code, view, place, width, true);
    let from = &access.address;
    let elem = register_type(code.decisions.ty(values[0]).elem);
    let count = 2 * width;
    code.out.line(format!("{elem} both[{count}];"));
    match access.inside() {
        None => code.out.line(format!("load<{count}>(both, {from});")),
        Some(inside) => {
            code.out.line(format!("if ({inside}) load<{count}>(both, {from});"));
            code.out.line(format!("else clear<{count}>(both);"));
        }
    }
    for e in 0..width {
        for (odd, name) in names.iter().enumerate() {
            code.out.line(format!("{name}{} = both[{}];", index(&access, e), 2 * e + odd));
        }
    }
    code.close_slots(place);
    code.out.close();
    for (value, name) in values.into_iter().zip(names) {
        code.values.define(value, Def::Array(name));
    }
}

/// The index of the element `e` slots further along the last axis, in a loop over all slots.
fn index(access: &Access, e: usize) -> String {
    let last = if e == 0 { String::new() } else { format!(" + {e}") };
    if access.at.len() == 2 { format!("[r][c{last}]") } else { format!("[r{last}]") }
}

/// Writes both stores.
pub(crate) fn store(code: &mut Code<'_>, pair: &Pair<'_>) {
    let Pair { values, view, width, .. } = *pair;
    let place = code.decisions.place(values[0]);
    before_store(code, place, view);
    let elem = register_type(code.decisions.ty(values[0]).elem);
    match place {
        ValueLayout::Vector(axis) => code.open_writers(axis),
        ValueLayout::Scalar | ValueLayout::Matrix(_) => code.out.open(""),
    }
    let access = open_view(code, view, place, width, false);
    let last = view.axes.len() - 1;
    let all: Vec<(usize, ValueId)> = (0..width).flat_map(|e| values.map(|value| (e, value))).collect();
    let elements: Vec<String> = all.into_iter().map(|(e, value)| neighbour(code, value, last, e)).collect();
    let count = 2 * width;
    code.out.line(format!("const {elem} stored[{count}] = {{{}}};", elements.join(", ")));
    let (to, guard) = (&access.address, access.guard());
    code.out.line(format!("{guard}store<{count}>({to}, stored);"));
    code.close_slots(place);
    code.out.close();
}
