//! Matrix products: operands in shared memory or, for the left one, in registers; bf16 on tensor cores, f32 by
//! multiply-adds.
//!
//! A bf16 tile in shared memory has rows of 16-byte pieces, exchanged within a row (`swizzled` in the prelude), padded
//! with zeros to multiples of 16 so that a product never needs a mask. Where a row has more than eight pieces, the tile
//! is cut into panels of eight, one behind the other: the form in which Hopper's matrix instructions read tiles
//! themselves. An f32 tile has rows of odd length.

use linc_tile::{Elem, TileType, ValueId};

use crate::CodegenError;
use crate::assign::Place;
use crate::emit::{Def, Emitter};
use crate::layout::Axis;
use crate::reduce::digit;
use crate::shared::{ALIGN, Range};

/// A tile in shared memory.
#[derive(Clone, Debug)]
pub(crate) struct SharedTile {
    /// Its bytes; both places of a tile that is loaded ahead.
    pub range: Range,
    /// Byte offset of the first element, as C++.
    pub at: String,
    /// Size of the tile.
    pub extent: [usize; 2],
    /// Rows with padding.
    pub rows: usize,
    /// Columns with padding.
    pub cols: usize,
    /// Element type.
    pub elem: Elem,
    /// The body that defines it; 0 for one that is loaded ahead.
    pub body: usize,
    /// The range goes back to the allocator at the end.
    pub owned: bool,
}

impl SharedTile {
    /// A matrix of that type, not yet anywhere.
    pub(crate) fn of(ty: &TileType, body: usize) -> Self {
        let extent = [ty.shape[0], ty.shape[1]];
        let (rows, cols) = match ty.elem {
            Elem::Bf16 => (extent[0].next_multiple_of(16), extent[1].next_multiple_of(16)),
            Elem::F32 | Elem::I32 | Elem::Index | Elem::Bool => (extent[0], extent[1] | 1),
        };
        let range = Range { at: 0, bytes: 0 };
        SharedTile { range, at: String::new(), extent, rows, cols, elem: ty.elem, body, owned: true }
    }

    /// Pieces of a row of a panel: 2, 4 or 8.
    pub(crate) fn pieces(&self) -> usize {
        (self.cols / 8).next_power_of_two().min(8)
    }

    /// Bytes of a panel.
    pub(crate) fn panel(&self) -> usize {
        self.rows * self.pieces() * 16
    }

    pub(crate) fn bytes(&self) -> u32 {
        let bytes = match self.elem {
            Elem::Bf16 => (self.cols / 8).div_ceil(self.pieces()) * self.panel(),
            Elem::F32 | Elem::I32 | Elem::Index | Elem::Bool => self.rows * self.cols * 4,
        };
        (bytes as u32).next_multiple_of(128)
    }

    /// Bytes that the tile starts at a multiple of. The exchange goes by bits of the address that eight rows use.
    pub(crate) fn align(&self) -> u32 {
        match self.elem {
            Elem::Bf16 => 8 * 16 * self.pieces() as u32,
            Elem::F32 | Elem::I32 | Elem::Index | Elem::Bool => ALIGN,
        }
    }

    /// Address of a 16-byte piece of a bf16 tile that starts at `at`, as C++.
    pub(crate) fn piece_of(&self, at: &str, row: &str, piece: &str) -> String {
        let pieces = self.pieces();
        if self.cols <= 8 * pieces {
            return format!("{at} + swizzled<{pieces}>({row}, {piece})");
        }
        format!("{at} + swizzled<{pieces}, {}>({row}, {piece})", self.rows)
    }

    /// Address of a 16-byte piece of a bf16 tile, as C++.
    pub(crate) fn piece(&self, row: &str, piece: &str) -> String {
        self.piece_of(&self.at, row, piece)
    }
}

impl Emitter<'_> {
    /// Copies a value that a product reads from shared memory there.
    pub(crate) fn stage_if_needed(&mut self, value: ValueId) -> Result<(), CodegenError> {
        if !self.assignment.staged[value.0 as usize] || self.state.tiles.contains_key(&value) {
            return Ok(());
        }
        self.flush();
        let tile = self.new_tile(value);
        self.write_tile(value, &tile);
        self.state.tiles.insert(value, tile);
        Ok(())
    }

    /// Shared memory for a matrix.
    pub(crate) fn new_tile(&mut self, value: ValueId) -> SharedTile {
        let mut tile = SharedTile::of(self.kernel.ty(value), self.current());
        tile.range = self.shared.take(tile.bytes(), tile.align());
        tile.at = tile.range.at.to_string();
        tile
    }

    /// Writes a matrix from registers into a tile, with its padding.
    pub(crate) fn write_tile(&mut self, value: ValueId, tile: &SharedTile) {
        self.writes(tile.range);
        let place = self.assignment.place(value);
        let Place::Matrix(layout) = place else { unreachable!("verified: products are of matrices") };
        let pair = if tile.elem == Elem::Bf16 { 2 } else { 1 };
        let slots = self.open_slots(place, pair);
        let (i, j) = (self.position(layout.rows, slots[0]), self.position(layout.cols, slots[1]));
        self.state.out.line(format!("const int i = {i}, j = {j};"));
        let mut elements = vec![self.element(value, slots)];
        if pair == 2 {
            elements.push(self.element(value, [slots[0], &format!("{} + 1", slots[1])]));
        }
        let mut guards = vec![];
        if tile.elem == Elem::Bf16 {
            // What the layout holds beyond the tile becomes the zeros of the padding.
            let mut real = vec![];
            if layout.rows.covered() > tile.extent[0] {
                real.push(format!("i < {}", tile.extent[0]));
            }
            let cut = layout.cols.covered() > tile.extent[1];
            for (e, element) in elements.iter_mut().enumerate() {
                let mut real = real.clone();
                if cut {
                    real.push(if e == 0 {
                        format!("j < {}", tile.extent[1])
                    } else {
                        format!("j + {e} < {}", tile.extent[1])
                    });
                }
                if !real.is_empty() {
                    *element = format!("{} ? {element} : 0.0f", real.join(" && "));
                }
            }
        }
        let (rows, cols) = if pair == 2 { (tile.rows, tile.cols) } else { (tile.extent[0], tile.extent[1]) };
        if layout.rows.covered() > rows {
            guards.push(format!("i < {rows}"));
        }
        if layout.cols.covered() > cols {
            guards.push(format!("j < {cols}"));
        }
        let guard = if guards.is_empty() { String::new() } else { format!("if ({}) ", guards.join(" && ")) };
        let text = if pair == 2 {
            let piece = tile.piece("i", "j / 8");
            format!("shared_store_bf16x2({piece} + j % 8 * 2, pack_bf16({}));", elements.join(", "))
        } else {
            format!("shared_store({} + (i * {} + j) * 4, {});", tile.at, tile.cols, elements[0])
        };
        self.state.out.line(format!("{guard}{text}"));
        self.close_slots(place);
    }

    /// Reads a tile that came by background copy into registers.
    pub(crate) fn unpack(&mut self, value: ValueId) {
        let tile = self.state.tiles[&value].clone();
        let Place::Matrix(layout) = self.assignment.place(value) else {
            unreachable!("only matrices are copied")
        };
        self.reads(tile.range);
        let name = self.name(value);
        let declaration = self.declare(value, &name);
        self.state.out.line(format!("{declaration};"));
        self.state.out.unrolled("i", layout.rows.outer, 1);
        self.state.out.unrolled("n", column_blocks(layout.cols), 1);
        self.state.out.line("u32 packed[4];");
        let strip = self.strip(layout.rows, tile.rows);
        let block = self.column_block(layout.cols, tile.cols);
        let piece = tile.piece(&format!("{strip} * 16 + lane % 16"), &format!("{block} * 2 + lane / 16"));
        self.state.out.line(format!("load_matrices(packed, {piece});"));
        self.state.out.unrolled("q", 4, 1);
        self.state.out.line(format!("{name}[i * 2 + q % 2][n * 4 + q / 2 * 2] = low_bf16(packed[q]);"));
        self.state.out.line(format!("{name}[i * 2 + q % 2][n * 4 + q / 2 * 2 + 1] = high_bf16(packed[q]);"));
        self.state.out.close();
        self.state.out.close();
        self.state.out.close();
        self.define(value, Def::Array(name));
    }

    /// Number of the 16 rows that this warp works on in round `i`; those without rows repeat the last.
    fn strip(&self, rows: Axis, padded: usize) -> String {
        Self::share(rows, "i", rows.warps, 1, padded)
    }

    /// Number of the 16 columns that this warp works on in round `n`; those without columns repeat the last.
    fn column_block(&self, cols: Axis, padded: usize) -> String {
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
        let name = self.accumulator(result, acc);
        let mut shared = vec![b];
        if self.assignment.staged[a.0 as usize] {
            shared.push(a);
        }
        let ranges: Vec<Range> = shared.iter().map(|value| self.state.tiles[value].range).collect();
        self.reads_all(&ranges);
        let inner = self.kernel.ty(a).shape[usize::from(!trans_a)];
        if self.kernel.ty(a).elem == Elem::Bf16 {
            self.tensor_core(result, &name, (a, trans_a), (b, trans_b), inner);
        } else {
            self.multiply_add(result, &name, (a, trans_a), (b, trans_b), inner);
        }
        self.define(result, Def::Array(name));
        self.stage_if_needed(result)
    }

    /// The array that the product is added to: that of `acc` if nothing else needs it.
    fn accumulator(&mut self, result: ValueId, acc: Option<ValueId>) -> String {
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
        for half in 0..2 {
            let at = |r: usize, c: usize| {
                let row = if r == 0 { "i * 2".to_string() } else { format!("i * 2 + {r}") };
                let col = if c == 0 { "n * 4".to_string() } else { format!("n * 4 + {c}") };
                format!("{name}[{row}][{col}]")
            };
            let c = 2 * half;
            self.state.out.line(format!(
                "mma_bf16({}, {}, {}, {}, left[i], right[{c}], right[{}]);",
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
        self.state.out.unrolled("i", rows.outer, 1);
        if let Some(tile) = self.state.tiles.get(&a).cloned() {
            let line = if trans_a {
                let piece = format!("{} * 2 + lane / 8 % 2", self.strip(rows, tile.cols));
                let piece = tile.piece("k * 16 + lane / 16 * 8 + lane % 8", &piece);
                format!("load_matrices_transposed(left[i], {piece});")
            } else {
                let row = format!("{} * 16 + lane % 16", self.strip(rows, tile.rows));
                format!("load_matrices(left[i], {});", tile.piece(&row, "k * 2 + lane / 16"))
            };
            self.state.out.line(line);
        } else {
            let Place::Matrix(own) = self.assignment.place(a) else {
                unreachable!("verified: products are of matrices")
            };
            self.state.out.unrolled("q", 4, 1);
            self.state.out.line("const int r = i * 2 + q % 2, c = k * 4 + q / 2 * 2;");
            let mut elements = [self.element(a, ["r", "c"]), self.element(a, ["r", "c + 1"])];
            if own.cols.covered() > inner {
                for (e, element) in elements.iter_mut().enumerate() {
                    let at = self.position(own.cols, if e == 0 { "c" } else { "c + 1" });
                    *element = format!("{at} < {inner} ? {element} : 0.0f");
                }
            }
            self.state.out.line(format!("left[i][q] = pack_bf16({});", elements.join(", ")));
            self.state.out.close();
        }
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
fn column_blocks(cols: Axis) -> usize {
    cols.mid / 2
}
