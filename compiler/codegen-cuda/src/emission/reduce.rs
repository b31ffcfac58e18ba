//! Reductions along an axis: within a thread, among the lanes of a warp, among warps.

use linc_tile::{Reduction, ValueId};

use super::code::Code;
use super::combine::{element_along, open_holders, split};
use super::values::Def;
use super::vectors;
use crate::decisions::layout::{Axis, ValueLayout};
use crate::text::spelling::digit;

/// Writes a reduction.
pub(crate) fn reduce(code: &mut Code<'_>, op: Reduction, axis: usize, value: ValueId, result: ValueId) {
    let (along, other) = split(code, value, axis);
    let (neutral, combine): (&str, fn(&str, &str) -> String) = match op {
        Reduction::Sum => ("0.0f", |a, b| format!("{a} + {b}")),
        Reduction::Max => ("-LINC_INFINITY", |a, b| format!("maximum({a}, {b})")),
    };
    let natural = code.values.name(result);
    let natural = if moves(code, result, other) { code.values.temporary(&natural) } else { natural };
    let count = other.map_or(1, |o| o.slots());
    let (declared, target) = match other {
        Some(_) => (format!("float {natural}[{count}];"), format!("{natural}[o]")),
        None => (format!("float {natural};"), natural.clone()),
    };
    code.out.line(declared);
    if other.is_some() {
        code.out.unrolled("o", count, 1);
    }
    code.out.line(format!("{target} = {neutral};"));
    code.out.unrolled("s", along.slots(), 1);
    let element = element_along(code, value, axis, along, neutral);
    code.out.line(format!("{target} = {};", combine(&target, &element)));
    code.out.close();
    for mask in along.lane_masks() {
        code.out.line(format!("{target} = {};", combine(&target, &format!("shuffle_xor({target}, {mask})"))));
    }
    if other.is_some() {
        code.out.close();
    }
    if along.warps > 1 {
        combine_warps(code, &natural, along, other, combine);
    }
    match other {
        None => code.values.define(result, Def::Scalar(natural)),
        Some(other) => define_moved(code, result, natural, other),
    }
}

/// Whether a vector that is made along an axis belongs along another.
fn moves(code: &Code<'_>, result: ValueId, made: Option<Axis>) -> bool {
    made.is_some_and(|made| code.decisions.place(result) != ValueLayout::Vector(made))
}

/// Defines a vector that was made along an axis, and moves it to where it belongs.
fn define_moved(code: &mut Code<'_>, result: ValueId, made: String, along: Axis) {
    code.values.define(result, Def::Array(made));
    let ValueLayout::Vector(own) = code.decisions.place(result) else {
        unreachable!("verified: a matrix is reduced to a vector")
    };
    if own != along {
        let moved = vectors::moved(code, result, along, own);
        code.values.define(result, Def::Array(moved));
    }
}

/// Combines what each warp has, in the order of the warps; afterwards all have all.
fn combine_warps(
    code: &mut Code<'_>,
    name: &str,
    along: Axis,
    other: Option<Axis>,
    combine: fn(&str, &str) -> String,
) {
    let width = other.map_or(1, |o| o.covered());
    let range = code.shared.scratch(along.warps * width);
    code.shared.writes(&mut code.out, range);
    let warp = digit("warp", along.warp_bit, along.warps);
    open_holders(code, along, other);
    let (element, at) = match other {
        Some(axis) => {
            code.out.unrolled("o", axis.slots(), 1);
            (format!("{name}[o]"), code.values.positions.at(axis, "o"))
        }
        None => (name.to_string(), "0".into()),
    };
    code.out.line(format!("shared_store({} + ({warp} * {width} + {at}) * 4, {element});", range.at));
    if other.is_some() {
        code.out.close();
    }
    code.out.close();
    code.shared.reads(&mut code.out, range);
    if let Some(axis) = other {
        code.out.unrolled("o", axis.slots(), 1);
    }
    code.out.line(format!("{element} = shared_load({} + {at} * 4);", range.at));
    code.out.line("#pragma unroll");
    let next = format!("shared_load({} + (w * {width} + {at}) * 4)", range.at);
    code.out.line(format!(
        "for (int w = 1; w < {}; ++w) {element} = {};",
        along.warps,
        combine(&element, &next)
    ));
    if other.is_some() {
        code.out.close();
    }
    code.shared.give(range);
}
