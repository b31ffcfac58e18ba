//! What the chunk-parallel kernels of linear attention share: one chunk of one key/value head, seen in blocks of
//! features so that no tile is larger than a matrix of 64 by 64 but those that have all value features, or all features
//! of a head of up to 128 where that is one block.
//!
//! The letters are those of [`super::linear_attention`]. Whether the products of `k̃` and `q̃` are exact is decided per
//! block, since the sums over features need no common reference. A block that is out of range is done key by key
//! with weights `exp(K_s − L_t)`, which never exceed 1; of a wide one, for the sake of a single feature. Kernels whose
//! results are subtracted from each other have the same blocks.

use super::attention::{
    HeadRows, HeadShape, HeadStrides, RowStatistics, exponential_rows, for_group, group_head, softmax_part,
    softmax_rows, temper, with_each_row,
};
use super::linear_attention_chunk::{
    Factors, SavedStates, existing, extend_prefix, load_keys, start_of_chunk,
};
use super::{bound, grid_indices};
use crate::builder::Builder;
use crate::ir::{Binary, Compare, Elem, ParamId, Unary, ValueId};

/// Most features of a block that is all of a program: a matrix of 64 by 64 costs 32 registers of each of 128 threads.
pub(crate) const WIDEST: usize = 64;
/// Most features of a block that is all of a head, in two bytes each: operands in four do not fit shared memory.
const WHOLE: usize = 128;
/// Most features of one of several blocks that a program does in turn, beside tiles with all value features.
const NARROW: usize = 32;

/// The largest width that divides `dim` into equal blocks, at most `most`.
fn feature_block(dim: usize, most: usize) -> usize {
    let mut widths = (1..=most.min(dim) / 8).rev().map(|eights| 8 * eights);
    widths.find(|width| dim.is_multiple_of(*width)).expect("head_dim is a multiple of 8")
}

/// What forward and backward specifications have in common.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// Element type of the tensors.
    pub elem: Elem,
    /// Sizes of the attention.
    pub shape: HeadShape,
    /// Tokens of a chunk, C.
    pub chunk: usize,
    /// Multiplier of q and k.
    pub temperature: f64,
    /// Features of a block, F; all blocks of a head are equal.
    pub width: usize,
}

impl Sizes {
    /// With blocks as wide as they can be.
    pub(crate) fn new(elem: Elem, shape: HeadShape, chunk: usize, temperature: f64) -> Self {
        Sizes { elem, shape, chunk, temperature, width: feature_block(shape.head_dim, WIDEST) }
    }

    /// For programs of all features: as one block where that fits the registers of a multiprocessor, since the key side of an
    /// only block serves all query heads. Else narrow ones.
    pub(crate) fn whole(self) -> Self {
        let dim = self.shape.head_dim;
        let fits = dim <= WIDEST || dim <= WHOLE && matches!(self.elem, Elem::Bf16 | Elem::F16);
        Sizes { width: if fits { dim } else { feature_block(dim, NARROW) }, ..self }
    }

    /// Blocks of a head.
    pub(crate) fn blocks(&self) -> usize {
        self.shape.head_dim / self.width
    }

    /// Number of chunks, S.
    pub(crate) fn chunks(&self) -> usize {
        self.shape.seq.div_ceil(self.chunk)
    }

    /// The grid of kernels with a program for each chunk and block: both on the first axis, then heads and sequences.
    pub(crate) fn block_grid(&self) -> [usize; 3] {
        [self.chunks() * self.blocks(), self.shape.kv_heads, self.shape.batch]
    }

    /// Runs `body` for the first feature (Index) of each block, carrying values.
    pub(crate) fn each_block(
        &self,
        b: &mut Builder,
        init: &[ValueId],
        body: impl FnOnce(&mut Builder, ValueId, &[ValueId]) -> Vec<ValueId>,
    ) -> Vec<ValueId> {
        let zero = b.index(0);
        if self.blocks() == 1 {
            return body(b, zero, init);
        }
        let end = b.index(self.shape.head_dim);
        b.for_loop(zero, end, self.width, init, body)
    }
}

/// One chunk of one key/value head.
#[derive(Clone, Copy)]
pub(crate) struct ChunkHead {
    /// What it is a part of.
    pub sizes: Sizes,
    /// Number of the chunk, Index.
    pub index: ValueId,
    /// Its first token, Index.
    pub start: ValueId,
    /// Existing rows, if the chunk may be ragged.
    pub bound: Option<ValueId>,
    /// Tokens before the first chunk, Index, if there may be some.
    pub pos: Option<ValueId>,
    batch: ValueId,
    kv_head: ValueId,
}

impl ChunkHead {
    /// Chunk `index` of the head and sequence that the second and third grid axes say.
    pub(crate) fn new(b: &mut Builder, sizes: Sizes, index: ValueId) -> Self {
        let (kv_head, batch) = (b.program_id(1), b.program_id(2));
        let start = b.scale_index(index, sizes.chunk);
        b.name(start, "start");
        let bound = bound(b, sizes.shape.seq, start, sizes.chunk);
        ChunkHead { sizes, index, start, bound, pos: None, batch, kv_head }
    }

    /// The same chunk in other blocks of features.
    pub(crate) fn in_blocks(self, sizes: Sizes) -> Self {
        ChunkHead { sizes, ..self }
    }

    /// The same chunk, of a block of tokens at position `pos` (Index).
    pub(crate) fn after(self, pos: Option<ValueId>) -> Self {
        ChunkHead { pos, ..self }
    }

    /// The chunk of a program of [`Sizes::block_grid`], and the first feature of its block.
    pub(crate) fn with_block(b: &mut Builder, sizes: Sizes) -> (Self, ValueId) {
        let place = grid_indices(b, &[sizes.chunks(), sizes.blocks()]);
        let first = b.scale_index(place[1], sizes.width);
        (ChunkHead::new(b, sizes, place[0]), first)
    }

    /// Rows of the key/value head in a tensor `[B, N, G, D]`.
    pub(crate) fn rows(&self, b: &mut Builder, param: ParamId, strides: HeadStrides) -> HeadRows {
        HeadRows::new(b, param, strides, self.sizes.shape.head_dim, self.batch, self.kv_head)
    }

    /// Rows of the key/value head in a contiguous tensor `[B, N, G, D]`.
    pub(crate) fn part_rows(&self, b: &mut Builder, param: ParamId) -> HeadRows {
        let HeadShape { seq, kv_heads, head_dim, .. } = self.sizes.shape;
        self.rows(b, param, HeadStrides::contiguous(seq, kv_heads, head_dim))
    }

    /// Rows of query head `head` in a tensor `[B, N, H, D]`.
    pub(crate) fn query_rows(
        &self,
        b: &mut Builder,
        param: ParamId,
        strides: HeadStrides,
        head: ValueId,
    ) -> HeadRows {
        HeadRows::new(b, param, strides, self.sizes.shape.head_dim, self.batch, head)
    }

    /// Offset of the chunk's first token of query head `head` in a contiguous tensor `[B, H, N]`.
    pub(crate) fn row_offset(&self, b: &mut Builder, head: ValueId) -> ValueId {
        let line = b.scale_index(self.batch, self.sizes.shape.heads);
        let line = b.add(line, head);
        let line = b.scale_index(line, self.sizes.shape.seq);
        b.add(line, self.start)
    }

    /// The pairs `vector [B, G, S, D]`, `matrix [B, G, S, D, D]` of this head.
    pub(crate) fn states(&self, b: &mut Builder, vector: ParamId, matrix: ParamId) -> SavedStates {
        let count = self.sizes.chunks();
        SavedStates::new(b, vector, matrix, &self.sizes.shape, count, self.batch, self.kv_head)
    }

    /// Runs `body` for each query head (Index) of the group, carrying values.
    pub(crate) fn each_query_head(
        &self,
        b: &mut Builder,
        init: &[ValueId],
        body: impl FnOnce(&mut Builder, ValueId, &[ValueId]) -> Vec<ValueId>,
    ) -> Vec<ValueId> {
        let group = self.sizes.shape.group();
        for_group(b, group, init, |b, member, carried| {
            let head = group_head(b, self.kv_head, group, member);
            body(b, head, carried)
        })
    }

    /// Runs `body` for each token of the chunk, with its row (Index), carrying values.
    pub(crate) fn each_token(
        &self,
        b: &mut Builder,
        init: &[ValueId],
        body: impl FnOnce(&mut Builder, ValueId, &[ValueId]) -> Vec<ValueId>,
    ) -> Vec<ValueId> {
        let (zero, count) = (b.index(0), existing(b, self.sizes.chunk, self.bound));
        b.for_loop(zero, count, 1, init, body)
    }

    /// The chunk's rows of `rows`, in the element type of the tensor.
    pub(crate) fn load(&self, b: &mut Builder, rows: &HeadRows) -> ValueId {
        rows.load(b, self.start, self.sizes.chunk, self.bound)
    }

    /// The chunk's rows of `rows`, f32.
    pub(crate) fn load_f32(&self, b: &mut Builder, rows: &HeadRows) -> ValueId {
        rows.load_f32(b, self.start, self.sizes.chunk, self.bound)
    }

    /// Writes the chunk's rows.
    pub(crate) fn store(&self, b: &mut Builder, rows: &HeadRows, value: ValueId) {
        rows.store(b, self.start, value, self.bound);
    }

    /// The chunk's keys times temperature, -inf beyond the sequence.
    pub(crate) fn keys(&self, b: &mut Builder, k: &HeadRows) -> ValueId {
        load_keys(b, k, self.sizes.chunk, self.sizes.temperature, self.start, self.bound)
    }
}

/// P of one query head, block by block.
pub(crate) enum QuerySoftmax {
    /// The only block, computed where it is asked for.
    Whole(HeadRows),
    /// Each block is loaded again.
    Parts(HeadRows, RowStatistics),
}

impl QuerySoftmax {
    /// Of the chunk's rows of q.
    pub(crate) fn new(b: &mut Builder, chunk: &ChunkHead, q: HeadRows) -> Self {
        let temperature = chunk.sizes.temperature;
        if chunk.sizes.blocks() == 1 {
            return QuerySoftmax::Whole(q);
        }
        // Block by block, so that no tile has all features.
        let rows = [chunk.sizes.chunk];
        let init = [b.full(f64::NEG_INFINITY, &rows), b.full(0.0, &rows)];
        let done = chunk.sizes.each_block(b, &init, |b, first, carried| {
            let q = q.features(b, first, chunk.sizes.width);
            let x = chunk.load_f32(b, &q);
            let (fresh, max) = exponential_rows(b, x, temperature, Some(carried[0]));
            let decay = b.sub(carried[0], max);
            let decay = b.exp(decay);
            let fresh = b.sum(1, fresh);
            vec![max, b.fma(carried[1], decay, fresh)]
        });
        let statistics = RowStatistics { max: done[0], inverse: b.unary(Unary::Recip, done[1]) };
        QuerySoftmax::Parts(q, statistics)
    }

    /// `P` `[C, F]` of the block that starts at feature `first`.
    pub(crate) fn block(&self, b: &mut Builder, chunk: &ChunkHead, first: ValueId) -> ValueId {
        match self {
            QuerySoftmax::Whole(q) => {
                let x = chunk.load_f32(b, q);
                softmax_rows(b, x, chunk.sizes.temperature)
            }
            QuerySoftmax::Parts(q, statistics) => {
                let q = q.features(b, first, chunk.sizes.width);
                let x = chunk.load_f32(b, &q);
                softmax_part(b, x, chunk.sizes.temperature, *statistics)
            }
        }
    }
}

/// The keys of one block of features. What is little work to load again is not kept: a vector of features costs 16
/// registers.
pub(crate) struct KeyBlock {
    /// First feature, Index.
    pub first: ValueId,
    /// Bool scalar: products of `k̃` and `q̃` are exact.
    pub ok: ValueId,
    /// `k̃` in the element type of the tensors, `[C, F]`.
    pub small: ValueId,
    /// `1 / Z`, `[C, F]`.
    pub inverse: ValueId,
    k: HeadRows,
    saved: SavedStates,
}

impl KeyBlock {
    /// The features from `first` on of the rows `k`; `saved` has the states before the chunks.
    pub(crate) fn new(
        b: &mut Builder,
        chunk: &ChunkHead,
        k: &HeadRows,
        saved: &SavedStates,
        first: ValueId,
    ) -> Self {
        let Sizes { elem, temperature, .. } = chunk.sizes;
        let width = chunk.sizes.width;
        let k = k.features(b, first, width);
        let saved = saved.features(first, width);
        let (reference, z) = start_of_chunk(b, elem, &k, &saved, temperature, chunk.index, chunk.pos);
        let keys = chunk.keys(b, &k);
        let factors = Factors::new(b, elem, keys, reference, z);
        let ok = factors.in_range(b);
        let small = b.cast(factors.k, elem);
        let inverse = b.unary(Unary::Recip, factors.z);
        KeyBlock { first, ok, small, inverse, k, saved }
    }

    /// Reference and sum of weights of the keys before the chunk.
    fn start(&self, b: &mut Builder, chunk: &ChunkHead) -> (ValueId, ValueId) {
        let Sizes { elem, temperature, .. } = chunk.sizes;
        start_of_chunk(b, elem, &self.k, &self.saved, temperature, chunk.index, chunk.pos)
    }

    /// `k̃` in f32.
    pub(crate) fn k_tilde(&self, b: &mut Builder, chunk: &ChunkHead) -> ValueId {
        let (reference, _) = self.start(b, chunk);
        let keys = chunk.keys(b, &self.k);
        let k = with_each_row(b, Binary::Sub, keys, reference);
        b.exp(k)
    }

    /// `q̃`, here P relative to the start of the chunk, and `a` `[C, C]` plus what this block adds to the attention
    /// matrix. Above the diagonal `a` means nothing, but it is finite.
    pub(crate) fn scores(&self, b: &mut Builder, chunk: &ChunkHead, p: ValueId, a: ValueId) -> [ValueId; 2] {
        let fast = |b: &mut Builder| self.scores_fast(b, chunk, p, a).to_vec();
        let slow = |b: &mut Builder| self.scores_slow(b, chunk, p, a).to_vec();
        let done = b.if_else(self.ok, fast, slow);
        [done[0], done[1]]
    }

    /// [`KeyBlock::scores`] by matrix products, where they are exact.
    pub(crate) fn scores_fast(
        &self,
        b: &mut Builder,
        chunk: &ChunkHead,
        p: ValueId,
        a: ValueId,
    ) -> [ValueId; 2] {
        let q = b.mul(p, self.inverse);
        b.name(q, "q_tilde");
        let small = b.cast(q, chunk.sizes.elem);
        [q, b.dot(small, false, self.small, true, Some(a))]
    }

    /// [`KeyBlock::scores`] key by key, for any keys.
    pub(crate) fn scores_slow(
        &self,
        b: &mut Builder,
        chunk: &ChunkHead,
        p: ValueId,
        a: ValueId,
    ) -> [ValueId; 2] {
        // With M = L − ln P, `P exp(K − L) = exp(K − M)`: one tile instead of two.
        let log = b.unary(Unary::Log, p);
        let log = b.scale(log, -1.0);
        let ends = self.prefixes(b, chunk, log);
        let done = chunk.each_token(b, &[a], |b, row, carried| {
            let weights = self.weights_of(b, chunk, ends, row);
            let column = b.sum(1, weights);
            vec![add_at(b, carried[0], 1, row, column)]
        });
        [self.weights_of_start(b, chunk, ends), done[0]]
    }

    /// `tile` `[C, F]` with the logsumexp L_t of the keys up to and including each token added to its row.
    pub(crate) fn prefixes(&self, b: &mut Builder, chunk: &ChunkHead, tile: ValueId) -> ValueId {
        let (reference, z) = self.start(b, chunk);
        let done = chunk.each_token(b, &[reference, z, tile], |b, row, carried| {
            let key = self.key(b, chunk, row);
            let (m, z) = extend_prefix(b, key, carried[0], carried[1]);
            let log = b.unary(Unary::Log, z);
            let end = b.add(m, log);
            vec![m, z, add_at(b, carried[2], 0, row, end)]
        });
        done[2]
    }

    /// `exp(reference − L_t)`, `[C, F]`.
    pub(crate) fn weights_of_start(&self, b: &mut Builder, chunk: &ChunkHead, ends: ValueId) -> ValueId {
        let (reference, _) = self.start(b, chunk);
        weights_at(b, reference, ends)
    }

    /// `exp(K_s − L_t)` for the key in row s, `[C, F]`; 1 at most even for t < s, where it means nothing.
    pub(crate) fn weights_of(
        &self,
        b: &mut Builder,
        chunk: &ChunkHead,
        ends: ValueId,
        row: ValueId,
    ) -> ValueId {
        let key = self.key(b, chunk, row);
        weights_at(b, key, ends)
    }

    fn key(&self, b: &mut Builder, chunk: &ChunkHead, row: ValueId) -> ValueId {
        let token = b.add(chunk.start, row);
        let key = self.k.load_row(b, token);
        temper(b, key, chunk.sizes.temperature)
    }
}

/// `exp(vector − tile)`, where positive exponents are rounding or mean nothing.
fn weights_at(b: &mut Builder, vector: ValueId, tile: ValueId) -> ValueId {
    let shape = b.ty(tile).shape;
    let vector = b.expand_rows(vector, shape[0]);
    let exponent = b.sub(vector, tile);
    let zero = b.full(0.0, &shape);
    let exponent = b.min(exponent, zero);
    b.exp(exponent)
}

/// `tile` with `vector` added at position `at` (Index) of `axis`.
fn add_at(b: &mut Builder, tile: ValueId, axis: usize, at: ValueId, vector: ValueId) -> ValueId {
    let shape = b.ty(tile).shape;
    let here = compare_index(b, &shape, axis, Compare::Eq, at);
    let vector = if axis == 0 { b.expand_rows(vector, shape[0]) } else { b.expand_cols(vector, shape[1]) };
    let more = b.add(tile, vector);
    b.select(here, more, tile)
}

/// Column `at` (Index) of a tile.
pub(crate) fn column(b: &mut Builder, tile: ValueId, at: ValueId) -> ValueId {
    let shape = b.ty(tile).shape;
    let here = compare_index(b, &shape, 1, Compare::Eq, at);
    let zero = b.full(0.0, &shape);
    let only = b.select(here, tile, zero);
    b.sum(1, only)
}

/// A tile with 0 in the rows before `row` (Index).
pub(crate) fn from_row(b: &mut Builder, tile: ValueId, row: ValueId) -> ValueId {
    let shape = b.ty(tile).shape;
    let keep = compare_index(b, &shape, 0, Compare::Ge, row);
    let zero = b.full(0.0, &shape);
    b.select(keep, tile, zero)
}

/// Compares the index along an axis with a number (Index).
fn compare_index(b: &mut Builder, shape: &[usize], axis: usize, op: Compare, at: ValueId) -> ValueId {
    let index = b.iota(axis, shape);
    let at = b.cast(at, Elem::I32);
    let at = b.splat(at, shape);
    b.compare(op, index, at)
}
