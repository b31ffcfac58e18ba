//! Matrix products: operands in shared memory or, for the left one, in registers; bf16 and f16 on tensor cores, f32 by
//! multiply-adds.

use linc_tile::ValueId;

use super::allocator::Range;
use super::code::Code;
use super::fragments;
use super::values::Def;
use crate::decisions::layout::{RegisterLayout, ValueLayout};
use crate::hopper::wgmma;
use crate::text::spelling::memory_type;

/// A product `result = op(a)·op(b)`, added to an array of that name.
struct Product<'p> {
    result: ValueId,
    name: &'p str,
    layout: RegisterLayout,
    a: ValueId,
    trans_a: bool,
    b: ValueId,
    trans_b: bool,
    /// Inner positions.
    inner: usize,
}

/// `result = op(a)·op(b) + acc`
pub(crate) fn product(
    code: &mut Code<'_>,
    result: ValueId,
    (a, trans_a): (ValueId, bool),
    (b, trans_b): (ValueId, bool),
    acc: Option<ValueId>,
) {
    let decisions = code.decisions;
    let ValueLayout::Matrix(layout) = decisions.place(result) else {
        unreachable!("verified: a product is a matrix")
    };
    let by_warpgroups = decisions.operands.by_warpgroups(result);
    let name = accumulator(code, result, acc, !by_warpgroups);
    let mut shared = vec![b];
    if decisions.operands.is_staged(a) {
        shared.push(a);
    }
    let ranges: Vec<Range> = shared.iter().map(|value| code.shared.tiles[value].range).collect();
    code.shared.reads_all(&mut code.out, &ranges, by_warpgroups);
    let inner = decisions.ty(a).shape[usize::from(!trans_a)];
    let product = Product { result, name: &name, layout, a, trans_a, b, trans_b, inner };
    if by_warpgroups {
        warpgroups(code, &product, acc.is_some());
    } else if decisions.ty(a).elem.is_narrow() {
        tensor_cores(code, &product);
    } else {
        multiply_adds(code, &product);
    }
    code.start_fetch();
    code.values.define(result, Def::Array(name));
}

/// The array that the product is added to: that of `acc` if nothing else needs it. Without `acc`, it is `cleared`, or for
/// the product to overwrite.
fn accumulator(code: &mut Code<'_>, result: ValueId, acc: Option<ValueId>, cleared: bool) -> String {
    if let Some(acc) = acc {
        let root = code.decisions.root(acc);
        let alone = code.decisions.usage.uses[root.0 as usize] == 1 && code.values.is_at_home(root);
        if alone && let Def::Array(name) = code.values.def(acc) {
            return name.clone();
        }
    }
    let name = code.declare(result);
    if acc.is_none() && !cleared {
        return name;
    }
    let place = code.decisions.place(result);
    let slots = code.open_slots(place, 1);
    let from = acc.map_or_else(|| "0.0f".to_string(), |acc| code.values.element(acc, slots));
    code.out.line(format!("{name}[r][c] = {from};"));
    code.close_slots(place);
    name
}

/// By each warp for itself (`mma`).
fn tensor_cores(code: &mut Code<'_>, product: &Product<'_>) {
    let Product { name, layout, a, trans_a, b, trans_b, inner, .. } = *product;
    let strips = layout.rows.outer;
    let rounds = inner.div_ceil(16);
    if code.decisions.layouts.across == 1 {
        code.out.unrolled("k", rounds, 1);
    } else {
        // Registers are scarce, or the rows were not shared: fewer addresses alive at once. Both operands are in
        // shared memory, so that no array of registers is indexed by k.
        code.out.line("#pragma unroll 2");
        code.out.open(format!("for (int k = 0; k < {rounds}; ++k)"));
    }
    fragments::left(code, (a, trans_a), layout.rows, inner);
    code.out.unrolled("n", fragments::column_blocks(layout.cols), 1);
    fragments::right(code, (b, trans_b), layout.cols);
    code.out.unrolled("i", strips, 1);
    let ty = memory_type(code.decisions.ty(a).elem);
    for half in 0..2 {
        let at = |r: usize, c: usize| {
            let row = if r == 0 { "i * 2".to_string() } else { format!("i * 2 + {r}") };
            let col = if c == 0 { "n * 4".to_string() } else { format!("n * 4 + {c}") };
            format!("{name}[{row}][{col}]")
        };
        let c = 2 * half;
        code.out.line(format!(
            "mma_{ty}({}, {}, {}, {}, left[i], right[{c}], right[{}]);",
            at(0, c),
            at(0, c + 1),
            at(1, c),
            at(1, c + 1),
            c + 1
        ));
    }
    code.out.close();
    code.out.close();
    code.out.close();
}

/// By warpgroups (`wgmma`), added to what is there if `add`.
fn warpgroups(code: &mut Code<'_>, product: &Product<'_>, add: bool) {
    let Product { name, layout, a, trans_a, b, trans_b, inner, .. } = *product;
    let (strips, steps) = (layout.rows.outer, inner.div_ceil(16));
    code.out.open("");
    let left = code.shared.tiles.get(&a).cloned();
    let left =
        left.as_ref().map(|tile| wgmma::Operand { form: &tile.form, at: &tile.at, transposed: trans_a });
    if let Some(left) = left {
        code.out.line(left.left(layout));
    } else {
        code.out.line(format!("u32 left[{steps}][{strips}][4];"));
        code.out.unrolled("k", steps, 1);
        fragments::left_in_registers(code, a, layout.rows, inner, "left[k][i]");
        code.out.close();
        code.out.line("pin(left);");
    }
    let tile = code.shared.tiles[&b].clone();
    let right = wgmma::Operand { form: &tile.form, at: &tile.at, transposed: trans_b };
    code.out.line(right.right(layout));
    if add {
        code.out.line(format!("pin({name});"));
    }
    code.out.line("wgmma_fence();");
    code.out.unrolled("k", steps, 1);
    code.out.unrolled("i", strips, 1);
    code.out.line(wgmma::multiply(name, layout, left, right, add));
    code.out.close();
    code.out.close();
    code.out.line("wgmma_commit();");
    code.start_fetch();
    code.out.line("wgmma_wait<0>();");
    code.out.line(format!("pin({name});"));
    code.out.close();
}

/// By each thread for itself.
fn multiply_adds(code: &mut Code<'_>, product: &Product<'_>) {
    let Product { result, name, layout, a, trans_a, b, trans_b, inner } = *product;
    let place = code.decisions.place(result);
    code.out.line("#pragma unroll 4");
    code.out.open(format!("for (int k = 0; k < {inner}; ++k)"));
    for (side, axis, value, across) in
        [("left", layout.rows, a, trans_a), ("right", layout.cols, b, !trans_b)]
    {
        let tile = &code.shared.tiles[&value];
        code.out.line(format!("float {side}[{}];", axis.slots()));
        code.out.unrolled("s", axis.slots(), 1);
        let mut at = code.values.positions.at(axis, "s");
        if !axis.exact() {
            at = format!("int_min({at}, {})", axis.extent - 1);
        }
        // Stored with the inner axis along rows (`across`) or along columns.
        let cols = tile.form.cols;
        let index = if across { format!("k * {cols} + {at}") } else { format!("{at} * {cols} + k") };
        code.out.line(format!("{side}[s] = shared_load({} + ({index}) * 4);", tile.at));
        code.out.close();
    }
    code.open_slots(place, 1);
    code.out.line(format!("{name}[r][c] = fmaf(left[r], right[c], {name}[r][c]);"));
    code.close_slots(place);
    code.out.close();
}
