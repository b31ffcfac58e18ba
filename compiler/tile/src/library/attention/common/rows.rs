//! Where the tokens of a head lie, and which of them a program has.

use super::{HeadShape, HeadStrides};
use crate::builder::Builder;
use crate::ir::{Elem, ParamId, ValueId};
use crate::library::bound;

/// The rows (tokens) of one head in memory: row `i` starts at `base + i * stride`.
#[derive(Clone, Copy)]
pub(crate) struct HeadRows {
    param: ParamId,
    base: ValueId,
    stride: usize,
    dim: usize,
}

impl HeadRows {
    /// Rows of head `head` of sequence `batch`, both Index scalars.
    pub(crate) fn new(
        b: &mut Builder,
        param: ParamId,
        strides: HeadStrides,
        dim: usize,
        batch: ValueId,
        head: ValueId,
    ) -> Self {
        let batch = b.scale_index(batch, strides.batch);
        let head = b.scale_index(head, strides.head);
        let base = b.add(batch, head);
        b.name_after(base, param, "_head");
        HeadRows { param, base, stride: strides.seq, dim }
    }

    /// `width` features of the same rows, from feature `first` (Index) on.
    pub(crate) fn features(&self, b: &mut Builder, first: ValueId, width: usize) -> HeadRows {
        HeadRows { base: b.add(self.base, first), dim: width, ..*self }
    }

    fn at(&self, b: &mut Builder, start: ValueId) -> ValueId {
        let rows = b.scale_index(start, self.stride);
        b.add(self.base, rows)
    }

    /// `[rows, D]` from row `start` on, in the parameter's element type; rows from `bound` on are 0.
    pub(crate) fn load(
        &self,
        b: &mut Builder,
        start: ValueId,
        rows: usize,
        bound: Option<ValueId>,
    ) -> ValueId {
        let offset = self.at(b, start);
        let tile = b.load(self.param, offset, &[rows, self.dim], &[(self.stride, bound), (1, None)]);
        b.name_after(tile, self.param, "_tile")
    }

    /// [`HeadRows::load`], cast to f32.
    pub(crate) fn load_f32(
        &self,
        b: &mut Builder,
        start: ValueId,
        rows: usize,
        bound: Option<ValueId>,
    ) -> ValueId {
        let tile = self.load(b, start, rows, bound);
        b.cast(tile, Elem::F32)
    }

    /// Writes `[rows, D]` from row `start` on, but for rows from `bound` on.
    pub(crate) fn store(&self, b: &mut Builder, start: ValueId, value: ValueId, bound: Option<ValueId>) {
        let offset = self.at(b, start);
        b.store(self.param, offset, value, &[(self.stride, bound), (1, None)]);
    }

    /// Row `row` as an f32 vector `[D]`.
    pub(crate) fn load_row(&self, b: &mut Builder, row: ValueId) -> ValueId {
        let offset = self.at(b, row);
        b.load_f32(self.param, offset, &[self.dim], &[(1, None)])
    }

    /// Writes the vector `[D]` to row `row`.
    pub(crate) fn store_row(&self, b: &mut Builder, row: ValueId, value: ValueId) {
        let offset = self.at(b, row);
        b.store(self.param, offset, value, &[(1, None)]);
    }
}

/// The query rows that a program of grid `(blocks, heads, batch)` owns.
pub(crate) struct QueryBlock {
    /// First row, Index.
    pub start: ValueId,
    /// Query head, Index.
    pub head: ValueId,
    /// Its key/value head, Index.
    pub kv_head: ValueId,
    /// Sequence, Index.
    pub batch: ValueId,
    /// Existing rows, if the block may be ragged.
    pub bound: Option<ValueId>,
}

impl QueryBlock {
    /// The rows of this program; `last_first` starts the long rows of a causal launch first, which balances its end.
    pub(crate) fn new(b: &mut Builder, shape: &HeadShape, rows: usize, last_first: bool) -> Self {
        let mut block = b.program_id(0);
        let (head, batch) = (b.program_id(1), b.program_id(2));
        if last_first {
            let last = b.index(shape.seq.div_ceil(rows) - 1);
            block = b.sub(last, block);
        }
        let start = b.scale_index(block, rows);
        b.name(start, "q_start");
        let group = b.index(shape.group());
        let kv_head = b.div(head, group);
        let bound = bound(b, shape.seq, start, rows);
        QueryBlock { start, head, kv_head, batch, bound }
    }

    /// Offset of the block's first row in a contiguous `[B, H, N]` tensor.
    pub(crate) fn row_offset(&self, b: &mut Builder, shape: &HeadShape) -> ValueId {
        let line = b.scale_index(self.batch, shape.heads);
        let line = b.add(line, self.head);
        let line = b.scale_index(line, shape.seq);
        b.add(line, self.start)
    }
}

/// The query heads of a group as the rows of one tile.
pub(crate) struct GroupTile {
    rows: usize,
    dim: usize,
    first: ValueId,
    batch: ValueId,
    /// The heads, if the tile has more rows.
    pub bound: Option<ValueId>,
}

impl GroupTile {
    /// The heads of `kv_head` (Index) of sequence `batch` (Index), in at least as many rows.
    pub(crate) fn new(
        b: &mut Builder,
        shape: &HeadShape,
        rows: usize,
        batch: ValueId,
        kv_head: ValueId,
    ) -> Self {
        let group = shape.group();
        assert!(rows >= group, "a query tile of {rows} rows for {group} heads");
        let first = b.scale_index(kv_head, group);
        let bound = (rows > group).then(|| b.index(group));
        GroupTile { rows, dim: shape.head_dim, first, batch, bound }
    }

    fn offset(&self, b: &mut Builder, strides: HeadStrides) -> ValueId {
        let batch = b.scale_index(self.batch, strides.batch);
        let head = b.scale_index(self.first, strides.head);
        b.add(batch, head)
    }

    /// `[rows, D]` of the only token of a tensor `[B, 1, H, D]`.
    pub(crate) fn load(&self, b: &mut Builder, param: ParamId, strides: HeadStrides) -> ValueId {
        let offset = self.offset(b, strides);
        b.load(param, offset, &[self.rows, self.dim], &[(strides.head, self.bound), (1, None)])
    }

    /// Writes such a tile.
    pub(crate) fn store(&self, b: &mut Builder, param: ParamId, strides: HeadStrides, value: ValueId) {
        let zero = b.index(0);
        self.store_features(b, param, strides, zero, value);
    }

    /// Writes features from `first` (Index) on, as many as `value` has.
    pub(crate) fn store_features(
        &self,
        b: &mut Builder,
        param: ParamId,
        strides: HeadStrides,
        first: ValueId,
        value: ValueId,
    ) {
        let offset = self.offset(b, strides);
        let offset = b.add(offset, first);
        b.store(param, offset, value, &[(strides.head, self.bound), (1, None)]);
    }
}

/// Query head number `member` (Index) of the group of key/value head `kv_head` (Index).
pub(crate) fn group_head(b: &mut Builder, kv_head: ValueId, group: usize, member: ValueId) -> ValueId {
    let first = b.scale_index(kv_head, group);
    b.add(first, member)
}

/// Runs `body` for each member (Index) of a group of heads, carrying values.
pub(crate) fn for_group(
    b: &mut Builder,
    group: usize,
    init: &[ValueId],
    body: impl FnOnce(&mut Builder, ValueId, &[ValueId]) -> Vec<ValueId>,
) -> Vec<ValueId> {
    let (zero, end) = (b.index(0), b.index(group));
    b.for_loop(zero, end, 1, init, body)
}
