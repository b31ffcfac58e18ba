//! Operations on tiles of scores: vectors along an axis, masks.

use crate::builder::Builder;
use crate::ir::{Binary, Compare, Elem, ValueId};

/// `tile[i, j] * vector[i]`
pub(crate) fn scale_rows(b: &mut Builder, tile: ValueId, vector: ValueId) -> ValueId {
    let cols = b.ty(tile).shape[1];
    let vector = b.expand_cols(vector, cols);
    b.mul(tile, vector)
}

/// `op(tile[i, j], vector[j])`
pub(crate) fn with_each_row(b: &mut Builder, op: Binary, tile: ValueId, vector: ValueId) -> ValueId {
    let rows = b.ty(tile).shape[0];
    let vector = b.expand_rows(vector, rows);
    b.binary(op, tile, vector)
}

/// A triangular mask.
pub(crate) struct Triangle {
    /// What the masked elements become.
    pub fill: f64,
    /// Keep `column <= row` (true) or `row <= column` (false).
    pub lower: bool,
}

impl Triangle {
    /// Masks `tile`, whose element (i, j) belongs to row `row0 + i` and column `col0 + j`; `origin` is
    /// `(row0, col0)` (Index scalars), both 0 if nothing is given.
    pub(crate) fn apply(
        &self,
        b: &mut Builder,
        tile: ValueId,
        origin: Option<(ValueId, ValueId)>,
    ) -> ValueId {
        let shape = b.ty(tile).shape;
        let mut rows = b.iota(0, &shape);
        let cols = b.iota(1, &shape);
        if let Some((row0, col0)) = origin {
            let shift = b.sub(row0, col0);
            let shift = b.cast(shift, Elem::I32);
            let shift = b.splat(shift, &shape);
            rows = b.add(rows, shift);
        }
        let keep =
            if self.lower { b.compare(Compare::Le, cols, rows) } else { b.compare(Compare::Le, rows, cols) };
        let fill = b.full(self.fill, &shape);
        b.select(keep, tile, fill)
    }
}

/// Fills the elements of `tile` whose index along `axis` is not below `limit` (Index).
pub(crate) fn mask_from(b: &mut Builder, tile: ValueId, axis: usize, limit: ValueId, fill: f64) -> ValueId {
    keep_where(b, tile, axis, Compare::Lt, limit, fill)
}

/// Fills the elements of `tile` whose index along `axis` is below `limit` (Index).
pub(crate) fn mask_before(b: &mut Builder, tile: ValueId, axis: usize, limit: ValueId, fill: f64) -> ValueId {
    keep_where(b, tile, axis, Compare::Ge, limit, fill)
}

fn keep_where(
    b: &mut Builder,
    tile: ValueId,
    axis: usize,
    op: Compare,
    limit: ValueId,
    fill: f64,
) -> ValueId {
    let shape = b.ty(tile).shape;
    let keep = compare_index(b, &shape, axis, op, limit);
    let fill = b.full(fill, &shape);
    b.select(keep, tile, fill)
}

/// Compares the index along an axis with a number (Index).
pub(crate) fn compare_index(
    b: &mut Builder,
    shape: &[usize],
    axis: usize,
    op: Compare,
    at: ValueId,
) -> ValueId {
    let index = b.iota(axis, shape);
    let at = b.cast(at, Elem::I32);
    let at = b.splat(at, shape);
    b.compare(op, index, at)
}
