//! Operands of matrix products in shared memory.
//!
//! A tile of 16-bit elements has rows of 16-byte pieces, exchanged within a row (`swizzled` in the prelude), padded with zeros to
//! multiples of 16 so that a product never needs a mask. Where a row has more than eight pieces, the tile is cut into
//! panels of eight, one behind the other: the form in which Hopper's matrix instructions read tiles themselves. An f32
//! tile has rows of odd length.

use linc_tile::{Elem, TileType, ValueId};

use crate::CodegenError;
use crate::assign::Place;
use crate::emit::{Def, Emitter};
use crate::memory::memory_type;
use crate::product::column_blocks;
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
            Elem::Bf16 | Elem::F16 => (extent[0].next_multiple_of(16), extent[1].next_multiple_of(16)),
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
            Elem::Bf16 | Elem::F16 => (self.cols / 8).div_ceil(self.pieces()) * self.panel(),
            Elem::F32 | Elem::I32 | Elem::Index | Elem::Bool => self.rows * self.cols * 4,
        };
        (bytes as u32).next_multiple_of(ALIGN)
    }

    /// Bytes that the tile starts at a multiple of. The exchange goes by bits of the address that eight rows use.
    pub(crate) fn align(&self) -> u32 {
        match self.elem {
            Elem::Bf16 | Elem::F16 => 8 * 16 * self.pieces() as u32,
            Elem::F32 | Elem::I32 | Elem::Index | Elem::Bool => ALIGN,
        }
    }

    /// Address of a 16-byte piece of a tile of 16-bit elements that starts at `at`, as C++.
    pub(crate) fn piece_of(&self, at: &str, row: &str, piece: &str) -> String {
        let pieces = self.pieces();
        if self.cols <= 8 * pieces {
            return format!("{at} + swizzled<{pieces}>({row}, {piece})");
        }
        format!("{at} + swizzled<{pieces}, {}>({row}, {piece})", self.rows)
    }

    /// Address of a 16-byte piece of a tile of 16-bit elements, as C++.
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
        self.note_operand(value, tile.range);
        self.state.tiles.insert(value, tile);
        Ok(())
    }

    /// Announces that products of warpgroups will read what is written of a value, or copied, if they will.
    pub(crate) fn note_operand(&mut self, value: ValueId, range: Range) {
        if self.assignment.described[value.0 as usize] {
            self.state.hazards.note_unfenced(range);
        }
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
        let pair = if tile.elem.is_narrow() { 2 } else { 1 };
        let slots = self.open_slots(place, pair);
        let (i, j) = (self.position(layout.rows, slots[0]), self.position(layout.cols, slots[1]));
        self.state.out.line(format!("const int i = {i}, j = {j};"));
        let mut elements = vec![self.element(value, slots)];
        if pair == 2 {
            elements.push(self.element(value, [slots[0], &format!("{} + 1", slots[1])]));
        }
        let mut guards = vec![];
        if tile.elem.is_narrow() {
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
            format!(
                "shared_store_pair({piece} + j % 8 * 2, pack_{}({}));",
                memory_type(tile.elem),
                elements.join(", ")
            )
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
        let ty = memory_type(tile.elem);
        self.state.out.line(format!("{name}[i * 2 + q % 2][n * 4 + q / 2 * 2] = low_{ty}(packed[q]);"));
        self.state.out.line(format!("{name}[i * 2 + q % 2][n * 4 + q / 2 * 2 + 1] = high_{ty}(packed[q]);"));
        self.state.out.close();
        self.state.out.close();
        self.state.out.close();
        self.define(value, Def::Array(name));
    }
}
