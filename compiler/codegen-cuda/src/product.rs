//! Matrix products: operands in shared memory or, for the left one, in registers; bf16 and f16 on tensor cores, f32 by
//! multiply-adds.

use linc_tile::ValueId;

use crate::CodegenError;
use crate::assign::Place;
use crate::emit::{Def, Emitter};
use crate::layout::Axis;
use crate::memory::memory_type;
use crate::reduce::digit;
use crate::shared::Range;

impl Emitter<'_> {
    /// Number of the 16 rows that this warp works on in round `i`; those without rows repeat the last.
    pub(crate) fn strip(&self, rows: Axis, padded: usize) -> String {
        Self::share(rows, "i", rows.warps, 1, padded)
    }

    /// Number of the 16 columns that this warp works on in round `n`; those without columns repeat the last.
    pub(crate) fn column_block(&self, cols: Axis, padded: usize) -> String {
        Self::share(cols, "n", 1, column_blocks(cols), padded)
    }

    /// `round * per_round + warp * per_warp`, where the axis has several of them.
    fn share(axis: Axis, round: &str, per_round: usize, per_warp: usize, padded: usize) -> String {
        let times = |digit: String, by: usize| if by == 1 { digit } else { format!("{digit} * {by}") };
        let mut parts = vec![];
        if axis.covered() > 16 * axis.warps {
            parts.push(times(round.to_string(), per_round));
        }
        if axis.warps > 1 {
            parts.push(times(digit("warp", axis.warp_bit, axis.warps), per_warp));
        }
        let number = match &parts[..] {
            [] => "0".into(),
            [one] if !one.contains(' ') => one.clone(),
            parts => format!("({})", parts.join(" + ")),
        };
        if axis.covered() > padded { format!("int_min({number}, {})", padded / 16 - 1) } else { number }
    }

    /// `result = op(a)·op(b) + acc`
    pub(crate) fn product(
        &mut self,
        result: ValueId,
        (a, trans_a): (ValueId, bool),
        (b, trans_b): (ValueId, bool),
        acc: Option<ValueId>,
    ) -> Result<(), CodegenError> {
        let together = self.assignment.wgmma[result.0 as usize];
        let name = self.accumulator(result, acc, !together);
        let mut shared = vec![b];
        if self.assignment.staged[a.0 as usize] {
            shared.push(a);
        }
        let ranges: Vec<Range> = shared.iter().map(|value| self.state.tiles[value].range).collect();
        self.reads_all(&ranges, together);
        let inner = self.kernel.ty(a).shape[usize::from(!trans_a)];
        if together {
            self.warpgroup_product(result, &name, (a, trans_a), (b, trans_b), inner, acc.is_some());
        } else if self.kernel.ty(a).elem.is_narrow() {
            self.tensor_core(result, &name, (a, trans_a), (b, trans_b), inner);
        } else {
            self.multiply_add(result, &name, (a, trans_a), (b, trans_b), inner);
        }
        self.start_fetch();
        self.define(result, Def::Array(name));
        self.stage_if_needed(result)
    }

    /// The array that the product is added to: that of `acc` if nothing else needs it. Without `acc`, it is `cleared`,
    /// or for the product to overwrite.
    fn accumulator(&mut self, result: ValueId, acc: Option<ValueId>, cleared: bool) -> String {
        if let Some(acc) = acc {
            let root = self.root(acc);
            let alone =
                self.usage.uses[root.0 as usize] == 1 && self.state.home.get(&root) == Some(&self.current());
            if alone && let Def::Array(name) = self.def(acc) {
                return name.clone();
            }
        }
        let name = self.name(result);
        let declaration = self.declare(result, &name);
        self.state.out.line(format!("{declaration};"));
        if acc.is_none() && !cleared {
            return name;
        }
        let place = self.assignment.place(result);
        let slots = self.open_slots(place, 1);
        let from = acc.map_or_else(|| "0.0f".to_string(), |acc| self.element(acc, slots));
        self.state.out.line(format!("{name}[r][c] = {from};"));
        self.close_slots(place);
        name
    }

    fn tensor_core(
        &mut self,
        result: ValueId,
        name: &str,
        (a, trans_a): (ValueId, bool),
        (b, trans_b): (ValueId, bool),
        inner: usize,
    ) {
        let Place::Matrix(layout) = self.assignment.place(result) else {
            unreachable!("verified: a product is a matrix")
        };
        let strips = layout.rows.outer;
        let rounds = inner.div_ceil(16);
        if self.assignment.across == 1 {
            self.state.out.unrolled("k", rounds, 1);
        } else {
            // Registers are scarce, or the rows were not shared: fewer addresses alive at once. Both operands are in
            // shared memory, so that no array of registers is indexed by k.
            self.state.out.line("#pragma unroll 2");
            self.state.out.open(format!("for (int k = 0; k < {rounds}; ++k)"));
        }
        self.left_fragments((a, trans_a), layout.rows, inner);
        self.state.out.unrolled("n", column_blocks(layout.cols), 1);
        self.right_fragments((b, trans_b), layout.cols);
        self.state.out.unrolled("i", strips, 1);
        let ty = memory_type(self.kernel.ty(a).elem);
        for half in 0..2 {
            let at = |r: usize, c: usize| {
                let row = if r == 0 { "i * 2".to_string() } else { format!("i * 2 + {r}") };
                let col = if c == 0 { "n * 4".to_string() } else { format!("n * 4 + {c}") };
                format!("{name}[{row}][{col}]")
            };
            let c = 2 * half;
            self.state.out.line(format!(
                "mma_{ty}({}, {}, {}, {}, left[i], right[{c}], right[{}]);",
                at(0, c),
                at(0, c + 1),
                at(1, c),
                at(1, c + 1),
                c + 1
            ));
        }
        self.state.out.close();
        self.state.out.close();
        self.state.out.close();
    }

    /// `left[i]`: what a thread holds of 16 inner positions from `16 k` on, of the rows of each strip `i`.
    fn left_fragments(&mut self, (a, trans_a): (ValueId, bool), rows: Axis, inner: usize) {
        self.state.out.line(format!("u32 left[{}][4];", rows.outer));
        let Some(tile) = self.state.tiles.get(&a).cloned() else {
            return self.left_in_registers(a, rows, inner, "left[i]");
        };
        self.state.out.unrolled("i", rows.outer, 1);
        let line = if trans_a {
            let piece = format!("{} * 2 + lane / 8 % 2", self.strip(rows, tile.cols));
            let piece = tile.piece("k * 16 + lane / 16 * 8 + lane % 8", &piece);
            format!("load_matrices_transposed(left[i], {piece});")
        } else {
            let row = format!("{} * 16 + lane % 16", self.strip(rows, tile.rows));
            format!("load_matrices(left[i], {});", tile.piece(&row, "k * 2 + lane / 16"))
        };
        self.state.out.line(line);
        self.state.out.close();
    }

    /// Packs fragments of a left operand that is in registers, for each strip `i`.
    pub(crate) fn left_in_registers(&mut self, a: ValueId, rows: Axis, inner: usize, fragment: &str) {
        let Place::Matrix(own) = self.assignment.place(a) else {
            unreachable!("verified: products are of matrices")
        };
        self.state.out.unrolled("i", rows.outer, 1);
        self.state.out.unrolled("q", 4, 1);
        self.state.out.line("const int r = i * 2 + q % 2, c = k * 4 + q / 2 * 2;");
        let mut elements = [self.element(a, ["r", "c"]), self.element(a, ["r", "c + 1"])];
        if own.cols.covered() > inner {
            for (e, element) in elements.iter_mut().enumerate() {
                let at = self.position(own.cols, if e == 0 { "c" } else { "c + 1" });
                *element = format!("{at} < {inner} ? {element} : 0.0f");
            }
        }
        self.state.out.line(format!(
            "{fragment}[q] = pack_{}({});",
            memory_type(self.kernel.ty(a).elem),
            elements.join(", ")
        ));
        self.state.out.close();
        self.state.out.close();
    }

    /// `right`: what a thread holds of 16 inner positions from `16 k` on, of the 16 columns of block `n`.
    fn right_fragments(&mut self, (b, trans_b): (ValueId, bool), cols: Axis) {
        self.state.out.line("u32 right[4];");
        let tile = self.state.tiles[&b].clone();
        let line = if trans_b {
            let row = format!("{} * 16 + lane / 16 * 8 + lane % 8", self.column_block(cols, tile.rows));
            format!("load_matrices(right, {});", tile.piece(&row, "k * 2 + lane / 8 % 2"))
        } else {
            let piece = format!("{} * 2 + lane / 16", self.column_block(cols, tile.cols));
            format!("load_matrices_transposed(right, {});", tile.piece("k * 16 + lane % 16", &piece))
        };
        self.state.out.line(line);
    }

    fn multiply_add(
        &mut self,
        result: ValueId,
        name: &str,
        (a, trans_a): (ValueId, bool),
        (b, trans_b): (ValueId, bool),
        inner: usize,
    ) {
        let place = self.assignment.place(result);
        let Place::Matrix(layout) = place else { unreachable!("verified: a product is a matrix") };
        self.state.out.line("#pragma unroll 4");
        self.state.out.open(format!("for (int k = 0; k < {inner}; ++k)"));
        for (side, axis, value, across) in
            [("left", layout.rows, a, trans_a), ("right", layout.cols, b, !trans_b)]
        {
            let tile = self.state.tiles[&value].clone();
            self.state.out.line(format!("float {side}[{}];", axis.slots()));
            self.state.out.unrolled("s", axis.slots(), 1);
            let mut at = self.position(axis, "s");
            if !axis.exact() {
                at = format!("int_min({at}, {})", axis.extent - 1);
            }
            // Stored with the inner axis along rows (`across`) or along columns.
            let index = if across {
                format!("k * {} + {at}", tile.cols)
            } else {
                format!("{at} * {} + k", tile.cols)
            };
            self.state.out.line(format!("{side}[s] = shared_load({} + ({index}) * 4);", tile.at));
            self.state.out.close();
        }
        self.open_slots(place, 1);
        self.state.out.line(format!("{name}[r][c] = fmaf(left[r], right[c], {name}[r][c]);"));
        self.close_slots(place);
        self.state.out.close();
    }
}

/// Blocks of 16 columns of a warp.
pub(crate) fn column_blocks(cols: Axis) -> usize {
    cols.mid / 2
}
