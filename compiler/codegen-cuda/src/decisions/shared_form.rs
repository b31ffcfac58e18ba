//! The form of a tile in shared memory, as matrix instructions read it.
//!
//! A tile of 16-bit elements has rows of 16-byte pieces, swizzled within a row (`swizzled` in the prelude), padded with
//! zeros to multiples of 16 so that a product never needs a mask. Where a row has more than eight pieces, the tile is cut
//! into panels of eight, one behind the other: the form in which Hopper's matrix instructions read tiles themselves. An
//! f32 tile has rows of odd length.

use linc_tile::{Elem, TileType};

/// Bytes that everything in shared memory starts at a multiple of: all banks once.
pub(crate) const ALIGN: u32 = 128;

/// How a matrix lies in shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedForm {
    /// Size of the tile.
    pub extent: [usize; 2],
    /// Rows with padding.
    pub rows: usize,
    /// Columns with padding.
    pub cols: usize,
    /// Element type.
    pub elem: Elem,
}

impl SharedForm {
    /// The form of a matrix of that type.
    pub(crate) fn of(ty: &TileType) -> Self {
        let extent = [ty.shape[0], ty.shape[1]];
        let (rows, cols) = match ty.elem {
            Elem::Bf16 | Elem::F16 => (extent[0].next_multiple_of(16), extent[1].next_multiple_of(16)),
            Elem::F32 | Elem::I32 | Elem::Index | Elem::Bool => (extent[0], extent[1] | 1),
        };
        SharedForm { extent, rows, cols, elem: ty.elem }
    }

    /// Pieces of a row of a panel: 2, 4 or 8.
    pub(crate) fn pieces(&self) -> usize {
        (self.cols / 8).next_power_of_two().min(8)
    }

    /// Bytes of a panel.
    pub(crate) fn panel(&self) -> usize {
        self.rows * self.pieces() * 16
    }

    /// Bytes of the tile.
    pub(crate) fn bytes(&self) -> u32 {
        let bytes = match self.elem {
            Elem::Bf16 | Elem::F16 => (self.cols / 8).div_ceil(self.pieces()) * self.panel(),
            Elem::F32 | Elem::I32 | Elem::Index | Elem::Bool => self.rows * self.cols * 4,
        };
        (bytes as u32).next_multiple_of(ALIGN)
    }

    /// Bytes that the tile starts at a multiple of. The swizzle goes by bits of the address that eight rows use.
    pub(crate) fn align(&self) -> u32 {
        match self.elem {
            Elem::Bf16 | Elem::F16 => 8 * 16 * self.pieces() as u32,
            Elem::F32 | Elem::I32 | Elem::Index | Elem::Bool => ALIGN,
        }
    }
}
