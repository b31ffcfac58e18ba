//! Writing one value everywhere: constants, and the zeros around a padded tensor.

use super::{TILE, bound, grid_indices, number, tag};
use crate::builder::Builder;
use crate::ir::{Elem, Kernel, Mode};

/// `dst[offset + i*row_stride + j] = value` for every `(i, j)` of `[rows, cols]`.
#[derive(Clone, PartialEq, Debug)]
pub struct FillSpec {
    /// First dimension of the part that is filled.
    pub rows: usize,
    /// Second dimension, dense in memory.
    pub cols: usize,
    /// First element.
    pub offset: usize,
    /// Distance of rows, in elements.
    pub row_stride: usize,
    /// Element type: F32, Bf16, F16, or I32 (the value is then truncated to an integer).
    pub elem: Elem,
    /// Rounded to the element type.
    pub value: f64,
}

/// A kernel with the parameter `dst`.
pub fn fill(spec: &FillSpec) -> Kernel {
    let dense = spec.rows == 1 || spec.row_stride == spec.cols;
    let (rows, cols) = if dense { (1, spec.rows * spec.cols) } else { (spec.rows, spec.cols) };
    let tile_cols = cols.min(TILE);
    let tile_rows = (TILE / tile_cols).clamp(1, rows);
    let counts = [rows.div_ceil(tile_rows), cols.div_ceil(tile_cols)];
    let name = format!(
        "fill_{}x{}_o{}_s{}_{}_{}",
        spec.rows,
        spec.cols,
        spec.offset,
        spec.row_stride,
        tag(spec.elem),
        number(spec.value)
    );
    let mut b = Builder::new(name, [counts[0] * counts[1], 1, 1]);
    let dst = b.param("dst", spec.elem, Mode::Write);
    let at = grid_indices(&mut b, &counts);
    let row = b.scale_index(at[0], tile_rows);
    let col = b.scale_index(at[1], tile_cols);
    let row_bound = bound(&mut b, rows, row, tile_rows);
    let col_bound = bound(&mut b, cols, col, tile_cols);
    let value = if spec.elem == Elem::I32 { b.int(spec.value as i32) } else { b.float(spec.value) };
    let down = b.scale_index(row, spec.row_stride);
    let first = b.index(spec.offset);
    let offset = b.add(first, down);
    let offset = b.add(offset, col);
    if rows == 1 {
        let tile = b.splat(value, &[tile_cols]);
        b.store(dst, offset, tile, &[(1, col_bound)]);
    } else {
        let tile = b.splat(value, &[tile_rows, tile_cols]);
        b.store(dst, offset, tile, &[(spec.row_stride, row_bound), (1, col_bound)]);
    }
    b.finish()
}
