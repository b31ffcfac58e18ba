//! Products of whole warpgroups on Hopper: four warps together multiply 64 rows, and read operands from shared memory
//! themselves, through descriptors (PTX ISA, `wgmma.mma_async`). The registers of the result, and of a left operand that
//! is in registers, are those of `mma.m16n8k16` in every warp, so that everything around a product stays as it is.
//!
//! A descriptor counts in pieces of 16 bytes. It says where an operand starts and how far apart its groups of eight rows
//! and its panels are; along the inner axis, products step by adding to it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use linc_tile::{Kernel, ValueId};

use crate::assign::{Assignment, Place};
use crate::emit::Emitter;
use crate::layout::Layout;
use crate::memory::memory_type;
use crate::operand::SharedTile;

/// Columns of the widest instruction.
const WIDEST: usize = 256;
/// Rows of a warpgroup.
const ROWS: usize = 64;
/// Warps of a warpgroup.
pub(crate) const WARPS: usize = 4;

/// Whether warpgroups can do a product of two bf16 or f16 tiles: each has 64 rows of the result and a range of its columns, no
/// more and no less than there are, that starts and ends at the border of a panel.
pub(crate) fn suits(kernel: &Kernel, assignment: &Assignment, result: ValueId, b: (ValueId, bool)) -> bool {
    let (Place::Matrix(Layout { rows, cols }), true) =
        (assignment.place(result), kernel.ty(b.0).elem.is_narrow())
    else {
        return false;
    };
    let tile = SharedTile::of(kernel.ty(b.0), 0);
    let share = cols.covered() / cols.warps;
    let (padded, whole) = match b.1 {
        true => (tile.rows, 8),
        false => (tile.cols, 8 * tile.pieces()),
    };
    rows.exact()
        && rows.warps.is_multiple_of(WARPS)
        && cols.covered() == padded
        && share.is_multiple_of(whole)
        && share <= WIDEST
}

impl Emitter<'_> {
    /// `name = op(a)·op(b)`, added to what is there if `add`.
    pub(crate) fn warpgroup_product(
        &mut self,
        result: ValueId,
        name: &str,
        (a, trans_a): (ValueId, bool),
        (b, trans_b): (ValueId, bool),
        inner: usize,
        add: bool,
    ) {
        let Place::Matrix(layout) = self.assignment.place(result) else {
            unreachable!("verified: a product is a matrix")
        };
        let (strips, steps) = (layout.rows.outer, inner.div_ceil(16));
        self.state.out.open("");
        let shared = self.state.tiles.get(&a).cloned();
        if let Some(tile) = &shared {
            self.descriptor("left", tile, trans_a, self.row_group(tile, layout, trans_a));
        } else {
            self.state.out.line(format!("u32 left[{steps}][{strips}][4];"));
            self.state.out.unrolled("k", steps, 1);
            self.left_in_registers(a, layout.rows, inner, "left[k][i]");
            self.state.out.close();
            self.state.out.line("pin(left);");
        }
        let right = self.state.tiles[&b].clone();
        self.descriptor("right", &right, !trans_b, column_range(&right, layout, trans_b));
        if add {
            self.state.out.line(format!("pin({name});"));
        }
        self.state.out.line("wgmma_fence();");
        self.state.out.unrolled("k", steps, 1);
        self.state.out.unrolled("i", strips, 1);
        let left = match &shared {
            None => "left[k][i]".to_string(),
            Some(tile) => {
                let (step, strip) = (inner_step(tile, trans_a), self.strip_step(tile, layout, trans_a));
                let strip = if strips > 1 { format!(" + i * {strip}") } else { String::new() };
                format!("left + {step}{strip}")
            }
        };
        let transposed = match &shared {
            None => u8::from(!trans_b).to_string(),
            Some(_) => format!("{}, {}", u8::from(trans_a), u8::from(!trans_b)),
        };
        self.state.out.line(format!(
            "wgmma_{}<{transposed}>({name}[i * 2], {name}[i * 2 + 1], {left}, right + {}, {});",
            memory_type(right.elem),
            inner_step(&right, !trans_b),
            if add { "true" } else { "k > 0" }
        ));
        self.state.out.close();
        self.state.out.close();
        self.state.out.line("wgmma_commit();");
        self.start_fetch();
        self.state.out.line("wgmma_wait<0>();");
        self.state.out.line(format!("pin({name});"));
        self.state.out.close();
    }

    /// Declares the descriptor of an operand that starts `offset` pieces into its tile; `across` if its inner axis goes
    /// down the rows of the tile.
    fn descriptor(&mut self, name: &str, tile: &SharedTile, across: bool, offset: Option<String>) {
        let pieces = tile.pieces();
        // Where the inner axis goes along the rows, one step stays in one panel.
        let panel = if across { tile.panel() / 16 } else { 1 };
        let offset = offset.map_or(String::new(), |offset| format!(" + {offset}"));
        self.state
            .out
            .line(format!("const u64 {name} = matrix_descriptor<{pieces}>({}, {panel}){offset};", tile.at));
    }

    /// Pieces from the start of a left operand to the first row of a warpgroup, if there are several.
    fn row_group(&self, tile: &SharedTile, layout: Layout, trans_a: bool) -> Option<String> {
        let groups = layout.rows.warps / WARPS;
        (groups > 1).then(|| format!("warp / {WARPS} % {groups} * {}", group_step(tile, trans_a)))
    }

    /// Pieces between the rows of a warpgroup and its next ones.
    fn strip_step(&self, tile: &SharedTile, layout: Layout, trans_a: bool) -> usize {
        layout.rows.warps / WARPS * group_step(tile, trans_a)
    }
}

/// Pieces of 64 rows of a left operand.
fn group_step(tile: &SharedTile, trans_a: bool) -> usize {
    if trans_a { tile.panel() / 16 } else { ROWS * tile.pieces() }
}

/// Pieces from the start of a right operand to the first column of a warpgroup, if several divide the columns.
fn column_range(tile: &SharedTile, layout: Layout, trans_b: bool) -> Option<String> {
    let cols = layout.cols;
    let (share, pieces) = (cols.covered() / cols.warps, tile.pieces());
    let step = if trans_b { share * pieces } else { share / (8 * pieces) * (tile.panel() / 16) };
    (cols.warps > 1).then(|| format!("(warp >> {}) * {step}", cols.warp_bit))
}

/// Pieces from the start of an operand to inner position `16 k`, as C++.
fn inner_step(tile: &SharedTile, across: bool) -> String {
    let pieces = tile.pieces();
    if across {
        return format!("k * {}", 16 * pieces);
    }
    // Two pieces of a row each.
    let per_panel = pieces / 2;
    match tile.cols <= 8 * pieces {
        true => "k * 2".into(),
        false => format!("(k / {per_panel} * {} + k % {per_panel} * 2)", tile.panel() / 16),
    }
}

/// The device functions for products of such elements with so many columns in a warpgroup.
pub(crate) fn instructions(products: &BTreeSet<(&'static str, usize)>) -> String {
    products.iter().map(|(elem, columns)| instruction(elem, *columns)).collect()
}

/// Register `i` of the accumulators of a thread: eight columns after each other, in each two of the upper row and two of
/// the lower one.
fn accumulator(i: usize) -> String {
    let row = if i % 4 < 2 { "upper" } else { "lower" };
    format!("\"+f\"({row}[{}])", i / 4 * 2 + i % 2)
}

fn instruction(elem: &str, n: usize) -> String {
    let (per_row, registers) = (n / 4, n / 2);
    let place = |i: usize| format!("%{i}");
    let list = |from: usize, count: usize| (from..from + count).map(place).collect::<Vec<_>>().join(", ");
    let outputs = (0..registers).map(accumulator).collect::<Vec<_>>().join(", ");
    let name = format!("wgmma.mma_async.sync.aligned.m64n{n}k16.f32.{elem}.{elem}");
    let mut text = String::new();
    for in_registers in [true, false] {
        let (flags, param, left, inputs) = if in_registers {
            let left = format!("{{{}}}", list(registers, 4));
            let inputs = (0..4).map(|i| format!("\"r\"(a[{i}])")).collect::<Vec<_>>().join(", ");
            ("int TRANS_B", "const u32 (&a)[4]", left, inputs)
        } else {
            ("int TRANS_A, int TRANS_B", "u64 a", place(registers), "\"l\"(a)".to_string())
        };
        let mut next = registers + if in_registers { 4 } else { 1 };
        let mut operand = || {
            next += 1;
            place(next - 1)
        };
        let (right, add) = (operand(), operand());
        let (trans, immediates) = if in_registers {
            (operand(), "\"n\"(TRANS_B)")
        } else {
            (format!("{}, {}", operand(), operand()), "\"n\"(TRANS_A), \"n\"(TRANS_B)")
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "template <{flags}>\nLINC_INLINE void wgmma_{elem}(float (&upper)[{per_row}], float (&lower)[{per_row}], {param}, u64 b, bool add) {{\n  \
             asm volatile(\"{{.reg .pred add; setp.ne.b32 add, {add}, 0; \"\n               \
             \"{name} {{{}}}, \"\n               \"{left}, {right}, add, 1, 1, {trans};}}\"\n               \
             : {outputs}\n               : {inputs}, \"l\"(b), \"r\"((int)add), {immediates});\n}}",
            list(0, registers)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_names_its_operands_in_order() {
        let text = instruction("bf16", 16);
        let instruction =
            "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7}, ";
        assert_eq!(text.matches(instruction).count(), 2);
        assert_eq!(text.matches("(float (&upper)[4], float (&lower)[4], ").count(), 2);
        for part in [
            "setp.ne.b32 add, %13, 0;",
            "{%8, %9, %10, %11}, %12, add, 1, 1, %14;}",
            "setp.ne.b32 add, %10, 0;",
            "%8, %9, add, 1, 1, %11, %12;}",
            // Two columns of a row, two of the one eight below, then the next eight columns.
            "\"+f\"(upper[0]), \"+f\"(upper[1]), \"+f\"(lower[0]), \"+f\"(lower[1]), \"+f\"(upper[2]), ",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
