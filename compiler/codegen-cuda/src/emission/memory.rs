//! Loads and stores: registers to and from global memory in accesses as wide as alignment allows.

use linc_tile::{ValueId, View};

use super::addresses::{
    Access, before_load, before_store, before_store_in_pieces, declare_limit, note_store, open_view, param,
    pointer,
};
use super::code::Code;
use super::multistage;
use super::tiles;
use super::values::Def;
use crate::decisions::access::{cut, per_access, per_store, stored_in_pieces};
use crate::decisions::layout::ValueLayout;
use crate::text::spelling::register_type;

// ---- loads ----

/// Writes a load.
pub(crate) fn load(code: &mut Code<'_>, result: ValueId, view: &View) {
    let decisions = code.decisions;
    let place = decisions.place(result);
    if place == ValueLayout::Scalar {
        return load_scalar(code, result, view);
    }
    if decisions.operands.is_copied(result) {
        if !code.shared.tiles.contains_key(&result) {
            before_load(code, place, view);
            tiles::stage_load(code, result, view);
        }
        if decisions.operands.is_unpacked(result) {
            tiles::unpack(code, result);
        } else {
            code.values.define(result, Def::SharedOnly);
        }
        return;
    }
    match code.copied_ahead.get(&result).cloned() {
        Some(at) => multistage::load_own(code, result, &at),
        None => load_registers(code, result, view, place),
    }
}

fn load_scalar(code: &mut Code<'_>, result: ValueId, view: &View) {
    before_load(code, ValueLayout::Scalar, view);
    let (param, offset) = (param(code, view).to_string(), code.values.scalar(view.offset));
    let name = code.declare(result);
    code.out.line(format!("load<1>(&{name}, {param} + {offset});"));
    code.values.define(result, Def::Scalar(name));
}

fn load_registers(code: &mut Code<'_>, result: ValueId, view: &View, place: ValueLayout) {
    before_load(code, place, view);
    let name = code.declare(result);
    let width = per_access(code.decisions, place, view);
    code.out.open("");
    let access = open_view(code, view, place, width, true);
    let Access { address: from, at, limits } = &access;
    let index: String = ["[r]", "[c]"][..at.len()].concat();
    let to = format!("&{name}{index}");
    let last = at.len() - 1;
    let cut = cut(code.decisions, view, width);
    let line = match (&limits[last], access.inside(), access.condition(last)) {
        (Some(limit), _, outer) if cut && width > 1 => {
            let left = format!("{limit} - {}", at[last]);
            let count = outer.map_or(left.clone(), |outer| format!("{outer} ? {left} : 0"));
            format!("load_some<{width}>({to}, {from}, {count});")
        }
        (_, None, _) => format!("load<{width}>({to}, {from});"),
        (_, Some(inside), _) => {
            code.out.line(format!("if ({inside}) load<{width}>({to}, {from});"));
            format!("else clear<{width}>({to});")
        }
    };
    code.out.line(line);
    code.close_slots(place);
    code.out.close();
    code.values.define(result, Def::Array(name));
}

// ---- stores ----

/// Writes a store.
pub(crate) fn store(code: &mut Code<'_>, value: ValueId, view: &View) {
    let decisions = code.decisions;
    let (place, ty) = (decisions.place(value), decisions.ty(value));
    if stored_in_pieces(decisions, view, ty) {
        return store_pieces(code, value, view, place);
    }
    before_store(code, place, view);
    let elem = register_type(ty.elem);
    if place == ValueLayout::Scalar {
        let (param, offset) = (param(code, view).to_string(), code.values.scalar(view.offset));
        let text = code.values.scalar(value);
        code.out.open("if (thread == 0)");
        code.out.line(format!("const {elem} stored[1] = {{{text}}};"));
        code.out.line(format!("store<1>({param} + {offset}, stored);"));
        code.out.close();
        return;
    }
    let width = per_store(decisions, place, view);
    match place {
        ValueLayout::Vector(axis) => code.open_writers(axis),
        ValueLayout::Scalar | ValueLayout::Matrix(_) => code.out.open(""),
    }
    let access = open_view(code, view, place, width, false);
    let last = access.at.len() - 1;
    let elements: Vec<String> = (0..width).map(|e| neighbour(code, value, last, e)).collect();
    code.out.line(format!("const {elem} stored[{width}] = {{{}}};", elements.join(", ")));
    let (to, guard) = (&access.address, access.guard());
    code.out.line(format!("{guard}store<{width}>({to}, stored);"));
    code.close_slots(place);
    code.out.close();
}

/// The element `e` slots further along the last axis, in a loop over all slots.
pub(crate) fn neighbour(code: &mut Code<'_>, value: ValueId, last: usize, e: usize) -> String {
    let mut slots = ["r".to_string(), "c".to_string()];
    if e > 0 {
        slots[last] = format!("{} + {e}", slots[last]);
    }
    code.values.element(value, [&slots[0], &slots[1]])
}

/// Writes a scatter, each element from the thread that holds it. Where it goes is not known: whatever else touches the
/// parameter waits.
pub(crate) fn scatter(code: &mut Code<'_>, to: &View, places: ValueId, value: ValueId) {
    let place = code.decisions.place(value);
    let ValueLayout::Vector(axis) = place else { unreachable!("verified: scatter takes a vector") };
    let map = code.values.temporary("scatter");
    note_store(code, to, &map);
    code.open_writers(axis);
    let pointer = pointer(code, to, false);
    let [slot, _] = code.open_slots(place, 1);
    let (at, text) = (code.values.element(places, [slot, ""]), code.values.element(value, [slot, ""]));
    let mut conditions = vec![format!("{at} >= 0")];
    if !axis.exact() {
        conditions.push(format!("{} < {}", code.values.positions.at(axis, slot), axis.extent));
    }
    let elem = register_type(code.decisions.ty(value).elem);
    code.out.line(format!("const {elem} stored[1] = {{{text}}};"));
    code.out.line(format!("if ({}) store<1>({pointer} + {at}, stored);", conditions.join(" && ")));
    code.close_slots(place);
    code.out.close();
}

/// A matrix of 16-bit elements in the layout of products, by way of shared memory.
fn store_pieces(code: &mut Code<'_>, value: ValueId, view: &View, place: ValueLayout) {
    let tile = tiles::new_tile(code, value);
    tiles::write(code, value, &tile);
    code.shared.reads(&mut code.out, tile.range);
    before_store_in_pieces(code, place, view);
    // The wait may have been a barrier, which ends what was noted before.
    code.shared.hazards.note_read(tile.range);
    code.out.open("");
    let pointer = pointer(code, view, false);
    let mut conditions = vec![];
    for (name, scale, axis) in [("i", "", 0), ("j", " * 8", 1)] {
        if let Some(bound) = view.axes[axis].bound {
            let limit = declare_limit(code, bound, tile.form.extent[axis]);
            conditions.push(format!("{name}{scale} < {limit}"));
        }
    }
    tiles::open_pieces(code, tile.form.extent[0], tile.form.extent[1] / 8);
    let guard =
        if conditions.is_empty() { String::new() } else { format!("if ({}) ", conditions.join(" && ")) };
    code.out.line(format!(
        "{guard}shared_to_global16({pointer} + ((index)i * {} + j * 8), {});",
        view.axes[0].stride,
        tile.piece("i", "j")
    ));
    code.out.close();
    code.out.close();
    code.shared.give(tile.range);
}
