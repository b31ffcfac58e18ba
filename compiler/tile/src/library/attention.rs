//! What the attention kernels share: shapes, strides, and tiles of the rows of one head.
//!
//! Letters: `B` batch, `N` sequence, `H` query heads, `G` key/value heads, `D` features of a head, `C` chunk,
//! `S` saved states (`ceil(N/C)` if causal, else 1), `F` features of a block. Tensors `[B, N, heads, D]` come with strides (in elements) of
//! batch, sequence and head and have adjacent features, so they may be slices of one packed qkv buffer.
//! `lse`, `delta` `[B, H, N]`, `ell`, `rho` `[B, G, S, D]`, `state`, `d` `[B, G, S, D, D]`, `dk_part` `[B, N, G, D]`
//! are contiguous f32;
//! `pos` is one i32 in memory. Everything else has the element type of the spec. Sums accumulate in f32.
//!
//! | kernel | grid | parameters in launch order (`=` written, `~` updated in place) |
//! |---|---|---|
//! | `softmax_attention_forward` | ceil(N/block_q), H, B | q, k, v, =out, =lse |
//! | `softmax_attention_delta` | ceil(N/block_q), H, B | out, dout, =delta |
//! | `softmax_attention_dq` | ceil(N/block_q), H, B | q, k, v, dout, lse, delta, =dq |
//! | `softmax_attention_dkdv` | ceil(N/block_k), G, B | q, k, v, dout, lse, delta, =dk, =dv |
//! | `linear_attention_forward` | G, B, 1 | q, k, v, =out, =ell, =state |
//! | `linear_attention_backward` | G, B, 1 | q, k, v, ell, state, dout, =dq, =dk, =dv |
//! | `linear_attention_chunk_states` | S·D/F, G, B | k, v, =ell, =state |
//! | `linear_attention_prefix` | D/4, G, B | ~ell, ~state |
//! | `linear_attention_out` | S, G, B | q, k, v, ell, state, =out |
//! | `linear_attention_delta` | S, G, B | q, k, v, ell, state, dout, =delta |
//! | `linear_attention_chunk_grads` | S·D/F, G, B | q, k, v, ell, state, dout, \[delta,\] =dq, =d, =rho, ~dk_part |
//! | `linear_attention_suffix` | D/4, G, B | ell, ~d, ~rho |
//! | `linear_attention_grads` | S, G, B | q, k, v, ell, dout, d, rho, dk_part, =dk, =dv |
//! | `bidirectional_attention_state` | G, B, 1 | k, v, =ell, =state |
//! | `bidirectional_attention_out` | ceil(N/chunk), H, B | q, state, =out |
//! | `bidirectional_attention_backward` | G, B, 1 | q, k, v, ell, state, dout, =dq, =dk, =dv |
//! | `append_to_cache` | ceil(N/block_k), G, B | k, v, =kcache, =vcache, pos |
//! | `softmax_prefill` | ceil(N/block_q), H, B | q, kcache, vcache, pos, =out |
//! | `linear_prefill` | G, B, 1 | q, k, v, ~m, ~z, ~t, pos, =out |
//! | `linear_prefill_prefix` | D/4, G, B | ~ell, ~state, ~m, ~z, ~t, pos |
//! | `linear_prefill_out` | S, G, B | q, k, v, ell, state, pos, =out |
//! | `softmax_decode` | G, B, 1 | q, k, v, ~kcache, ~vcache, pos, =out |
//! | `softmax_decode_parts` | P, G, B | q, kcache, vcache, pos, =top, =sum, =acc |
//! | `softmax_decode_merge` | H, B, 1 | q, k, v, top, sum, acc, pos, =kcache, =vcache, =out |
//! | `linear_decode` | G, B, 1 | q, k, v, ~m, ~z, ~t, pos, =out |

use super::hash;
use crate::builder::Builder;
use crate::ir::{Binary, Compare, Elem, ParamId, Unary, ValueId};

/// Sizes of one attention.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HeadShape {
    /// Sequences, B.
    pub batch: usize,
    /// Tokens of a sequence, N.
    pub seq: usize,
    /// Query heads, H; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads, G.
    pub kv_heads: usize,
    /// Features of a head, D; a multiple of 8.
    pub head_dim: usize,
}

impl HeadShape {
    /// Query heads that share one key/value head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Number of a key/value head (Index) of a sequence (Index) among those of all.
    pub(crate) fn kv_line(&self, b: &mut Builder, batch: ValueId, kv_head: ValueId) -> ValueId {
        let line = b.scale_index(batch, self.kv_heads);
        b.add(line, kv_head)
    }

    /// Panics if no kernel can be written for the shape: a bug of the caller.
    pub(crate) fn check(&self, kernel: &str) {
        assert!(self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads), "{kernel}: heads of {self:?}");
        assert!(self.head_dim > 0 && self.head_dim.is_multiple_of(8), "{kernel}: head_dim of {self:?}");
        assert!(self.batch > 0 && self.seq > 0, "{kernel}: empty {self:?}");
    }

    /// The shape as a part of a kernel name.
    pub(crate) fn tag(&self) -> String {
        format!("b{}_n{}_h{}_g{}_d{}", self.batch, self.seq, self.heads, self.kv_heads, self.head_dim)
    }
}

/// Distances in elements between neighbours of a `[B, N, heads, D]` tensor; features are adjacent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HeadStrides {
    /// Between sequences.
    pub batch: usize,
    /// Between tokens.
    pub seq: usize,
    /// Between heads.
    pub head: usize,
}

impl HeadStrides {
    /// Strides of a contiguous `[B, seq, heads, head_dim]` tensor.
    pub fn contiguous(seq: usize, heads: usize, head_dim: usize) -> Self {
        HeadStrides { batch: seq * heads * head_dim, seq: heads * head_dim, head: head_dim }
    }
}

/// Strides as a part of a kernel name: a hash, since those of eight tensors would not fit a file name.
pub(crate) fn strides_tag(strides: &[HeadStrides]) -> String {
    let parts: Vec<String> = strides.iter().map(|s| format!("{}x{}x{}", s.batch, s.seq, s.head)).collect();
    format!("{:016x}", hash(&parts.join(",")))
}

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

/// Softmax of each row of `x * temperature`, f32.
pub(crate) fn softmax_rows(b: &mut Builder, x: ValueId, temperature: f64) -> ValueId {
    let (e, _) = exponential_rows(b, x, temperature, None);
    let sum = b.sum(1, e);
    let inverse = b.unary(Unary::Recip, sum);
    scale_rows(b, e, inverse)
}

/// What the softmax of a part of a row needs of the whole row.
#[derive(Clone, Copy)]
pub(crate) struct RowStatistics {
    /// Largest element after the temperature, `[rows]`.
    pub max: ValueId,
    /// 1 / the sum of `exp(x − max)`, `[rows]`.
    pub inverse: ValueId,
}

/// `exp(x * temperature − max)` of each row, f32, and `max`: the largest element of the row, or `at_least` that.
pub(crate) fn exponential_rows(
    b: &mut Builder,
    x: ValueId,
    temperature: f64,
    at_least: Option<ValueId>,
) -> (ValueId, ValueId) {
    let cols = b.ty(x).shape[1];
    let x = temper(b, x, temperature);
    let max = b.reduce_max(1, x);
    let max = at_least.map_or(max, |least| b.max(least, max));
    let highest = b.expand_cols(max, cols);
    let shifted = b.sub(x, highest);
    (b.exp(shifted), max)
}

/// The part `x` of rows that have these statistics, after the softmax of the whole rows.
pub(crate) fn softmax_part(
    b: &mut Builder,
    x: ValueId,
    temperature: f64,
    statistics: RowStatistics,
) -> ValueId {
    let cols = b.ty(x).shape[1];
    let x = temper(b, x, temperature);
    let max = b.expand_cols(statistics.max, cols);
    let shifted = b.sub(x, max);
    let e = b.exp(shifted);
    scale_rows(b, e, statistics.inverse)
}

/// Softmax of the vector `x * temperature`, f32.
pub(crate) fn softmax_vector(b: &mut Builder, x: ValueId, temperature: f64) -> ValueId {
    let shape = b.ty(x).shape;
    let x = temper(b, x, temperature);
    let max = b.reduce_max(0, x);
    let max = b.splat(max, &shape);
    let shifted = b.sub(x, max);
    let e = b.exp(shifted);
    let sum = b.sum(0, e);
    let sum = b.splat(sum, &shape);
    b.div(e, sum)
}

/// `x * temperature`; nothing is emitted for 1.
pub(crate) fn temper(b: &mut Builder, x: ValueId, temperature: f64) -> ValueId {
    if temperature == 1.0 { x } else { b.scale(x, temperature) }
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
    let shape = b.ty(tile).shape;
    let index = b.iota(axis, &shape);
    let limit = b.cast(limit, Elem::I32);
    let limit = b.splat(limit, &shape);
    let keep = b.compare(Compare::Lt, index, limit);
    let fill = b.full(fill, &shape);
    b.select(keep, tile, fill)
}
