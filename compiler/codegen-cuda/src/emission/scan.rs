//! Prefix sums along an axis (scans): within a thread, among the lanes of a warp, among warps.

use linc_tile::ValueId;

use super::code::Code;
use super::combine::{element_along, open_holders, split};
use super::values::Def;
use crate::decisions::layout::Axis;
use crate::text::spelling::digit;

/// Running sums: first within the digits of a warp, then what the warps and iterations before add.
pub(crate) fn scan(code: &mut Code<'_>, axis: usize, reverse: bool, value: ValueId, result: ValueId) {
    let (along, other) = split(code, value, axis);
    let name = code.declare(result);
    let totals = code.values.temporary("total");
    let count = other.map_or(1, |o| o.slots());
    code.out.line(format!("float {totals}[{}][{count}];", along.outer));
    let at = |s: &str| match (other, axis) {
        (None, _) => format!("{name}[{s}]"),
        (Some(_), 0) => format!("{name}[{s}][o]"),
        (Some(_), _) => format!("{name}[o][{s}]"),
    };
    let order = |n: usize| -> Vec<usize> { if reverse { (0..n).rev().collect() } else { (0..n).collect() } };
    code.out.unrolled("o", count, 1);
    // Slots are numbered outer, mid, inner; each group of `inner` neighbours is summed, then lanes, then `mid`.
    code.out.unrolled("b", along.outer, 1);
    code.out.line("float carry = 0.0f;");
    for mid in order(along.mid) {
        code.out.open("");
        code.out.line("float sum = 0.0f;");
        let slot = |e: usize| format!("b * {} + {}", along.mid * along.inner, mid * along.inner + e);
        for e in order(along.inner) {
            code.out.open("");
            code.out.line(format!("const int s = {};", slot(e)));
            let element = element_along(code, value, axis, along, "0.0f");
            code.out.line(format!("sum += {element};"));
            code.out.line(format!("{} = sum;", at("s")));
            code.out.close();
        }
        let (lanes, bit) = (along.lanes, along.lane_bit);
        code.out.line(format!("const float upto = scan_lanes<{lanes}, {bit}, {reverse}>(sum, lane);"));
        // The lanes before are added, not subtracted from what they all have: that would cancel.
        code.out.line(format!(
            "const float before = carry + lane_before<{lanes}, {bit}, {reverse}>(upto, lane);"
        ));
        for e in order(along.inner) {
            code.out.line(format!("{} += before;", at(&slot(e))));
        }
        code.out.line(format!("carry += last_lane<{lanes}, {bit}, {reverse}>(upto, lane);"));
        code.out.close();
    }
    code.out.line(format!("{totals}[b][o] = carry;"));
    code.out.close();
    code.out.close();
    if along.warps > 1 || along.outer > 1 {
        add_before(code, &totals, along, other, reverse, &at);
    }
    code.values.define(result, Def::Array(name));
}

/// Adds the totals of the warps and iterations before to every element.
fn add_before(
    code: &mut Code<'_>,
    totals: &str,
    along: Axis,
    other: Option<Axis>,
    reverse: bool,
    at: &dyn Fn(&str) -> String,
) {
    let width = other.map_or(1, |o| o.covered());
    let count = other.map_or(1, |o| o.slots());
    let parts = along.outer * along.warps;
    let range = code.shared.scratch(parts * width);
    code.shared.writes(&mut code.out, range);
    let warp = digit("warp", along.warp_bit, along.warps);
    let place = match other {
        Some(axis) => code.values.positions.at(axis, "o"),
        None => "0".into(),
    };
    open_holders(code, along, other);
    code.out.unrolled("o", count, 1);
    code.out.unrolled("b", along.outer, 1);
    code.out.line(format!(
        "shared_store({} + ((b * {} + {warp}) * {width} + {place}) * 4, {totals}[b][o]);",
        range.at, along.warps
    ));
    code.out.close();
    code.out.close();
    code.out.close();
    code.shared.reads(&mut code.out, range);
    code.out.unrolled("o", count, 1);
    code.out.line("float before = 0.0f;");
    code.out.line("#pragma unroll");
    let step =
        if reverse { format!("const int part = {} - p;", parts - 1) } else { "const int part = p;".into() };
    code.out.open(format!("for (int p = 0; p < {parts}; ++p)"));
    code.out.line(step);
    code.out.open(format!("if (part % {} == {warp})", along.warps));
    let per = along.mid * along.inner;
    code.out.unrolled("e", per, 1);
    code.out.line(format!("{} += before;", at(&format!("part / {} * {per} + e", along.warps))));
    code.out.close();
    code.out.close();
    code.out.line(format!("before += shared_load({} + (part * {width} + {place}) * 4);", range.at));
    code.out.close();
    code.out.close();
    code.shared.give(range);
}
