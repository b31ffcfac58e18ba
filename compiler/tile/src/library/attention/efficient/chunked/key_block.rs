//! The two sides of a block of features: the softmax of the queries, and the factors of the keys.

use super::{ChunkHead, Sizes};
use crate::builder::Builder;
use crate::ir::{Binary, Compare, Unary, ValueId};
use crate::library::attention::common::{HeadRows, compare_index, with_each_row};
use crate::library::attention::efficient::feature_softmax::{
    RowStatistics, exponential_rows, softmax_part, softmax_rows, temper,
};
use crate::library::attention::efficient::key_chunk::{Factors, extend_prefix, start_of_chunk};
use crate::library::attention::efficient::state::SavedStates;

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
        let (reference, z) = start_of_chunk(b, elem, &k, &saved, temperature, chunk.index, chunk.past);
        let keys = chunk.keys(b, &k);
        let factors = Factors::new(b, elem, keys, reference, z, chunk.documents());
        let ok = factors.in_range(b);
        let small = b.cast(factors.k, elem);
        let inverse = b.unary(Unary::Recip, factors.z);
        KeyBlock { first, ok, small, inverse, k, saved }
    }

    /// Reference and sum of weights of the keys before the chunk.
    fn start(&self, b: &mut Builder, chunk: &ChunkHead) -> (ValueId, ValueId) {
        let Sizes { elem, temperature, .. } = chunk.sizes;
        start_of_chunk(b, elem, &self.k, &self.saved, temperature, chunk.index, chunk.past)
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
            let mut before = [carried[0], carried[1]];
            if let Some(documents) = chunk.documents() {
                let token = b.add(chunk.start, row);
                before = documents.restart(b, token, before);
            }
            let key = self.key(b, chunk, row);
            let (m, z) = extend_prefix(b, key, before[0], before[1]);
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

/// A tile with 0 in the rows of tokens that do not see the key in row `row` (Index).
pub(crate) fn rows_that_see(b: &mut Builder, chunk: &ChunkHead, tile: ValueId, row: ValueId) -> ValueId {
    if let Some(documents) = chunk.documents() {
        return documents.rows_that_see(b, tile, row);
    }
    let shape = b.ty(tile).shape;
    let keep = compare_index(b, &shape, 0, Compare::Ge, row);
    let zero = b.full(0.0, &shape);
    b.select(keep, tile, zero)
}
