//! The documents of a chunk of tokens: where some begin in it, its tokens do not all see the keys before it, and not all of
//! its keys are seen after it.
//!
//! Sums over the prefix become sums over the prefix within a document. They are made anew for each document, by a product
//! with a matrix of zeros and ones, and not as differences of sums over the whole prefix, which would cancel.

use crate::builder::Builder;
use crate::ir::{Binary, Compare, Elem, ValueId};
use crate::library::attention::common::{Documents, HeadRows, Triangle, compare_index, scale_rows};

use super::key_chunk::first_reference;
use super::state::Carried;

/// Which documents the tokens of a chunk are of.
#[derive(Clone, Copy)]
pub(crate) struct ChunkDocuments {
    documents: Documents,
    /// First token, Index.
    start: ValueId,
    rows: usize,
    bound: Option<ValueId>,
    /// First row of the last token's document, Index: negative if that begins before the chunk.
    tail: ValueId,
}

impl ChunkDocuments {
    /// Of `rows` tokens from `start` (Index) on, in sequences of `seq`.
    pub(crate) fn new(
        b: &mut Builder,
        documents: Documents,
        seq: usize,
        rows: usize,
        start: ValueId,
        bound: Option<ValueId>,
    ) -> Self {
        let (rows_index, seq, one, zero) = (b.index(rows), b.index(seq), b.index(1), b.index(0));
        let end = b.add(start, rows_index);
        let end = b.min(end, seq);
        let last = b.sub(end, one);
        // Of a chunk that does not exist, any token.
        let last = b.max(last, zero);
        let tail = documents.start(b, last);
        let tail = b.sub(tail, start);
        ChunkDocuments { documents, start, rows, bound, tail }
    }

    /// Bool scalar: a document begins with the first token, so that the chunk sees nothing before it.
    pub(crate) fn begins(&self, b: &mut Builder) -> ValueId {
        let position = self.documents.position(b, self.start);
        let zero = b.index(0);
        b.compare(Compare::Eq, position, zero)
    }

    /// What the keys `k` of the head begin with, where a document begins with the chunk: the reference of a first chunk, and no
    /// sum. What is carried in `t` is then seen by no token.
    pub(crate) fn begin(
        &self,
        b: &mut Builder,
        elem: Elem,
        k: &HeadRows,
        temperature: f64,
        before: Carried,
    ) -> Carried {
        let begins = self.begins(b);
        let shape = b.ty(before.z).shape;
        let pair = b.if_else(
            begins,
            |b| vec![first_reference(b, elem, k, self.start, temperature), b.full(0.0, &shape)],
            |_| vec![before.m, before.z],
        );
        Carried { m: pair[0], z: pair[1], t: before.t }
    }

    /// First token, Index.
    pub(crate) fn start(&self) -> ValueId {
        self.start
    }

    /// Bool scalar: the last token's document begins before the chunk, and so is that of all its tokens.
    fn goes_on(&self, b: &mut Builder) -> ValueId {
        let zero = b.index(0);
        b.compare(Compare::Lt, self.tail, zero)
    }

    /// A value of the keys before the chunk as it is behind it: itself, or `nothing` of its shape where the last token's
    /// document begins in the chunk.
    pub(crate) fn carried(&self, b: &mut Builder, value: ValueId, nothing: f64) -> ValueId {
        let goes_on = self.goes_on(b);
        let shape = b.ty(value).shape;
        b.if_else(goes_on, |_| vec![value], |b| vec![b.full(nothing, &shape)])[0]
    }

    /// The first row of each row's document, i32 `[C]`: negative where that begins before the chunk. Rows beyond the sequence
    /// see all of the chunk and what is before it, so that their sums are numbers.
    fn starts(&self, b: &mut Builder) -> ValueId {
        let starts = self.documents.starts(b, self.start, self.rows, self.bound, self.start);
        let Some(bound) = self.bound else { return starts };
        let exists = compare_index(b, &[self.rows], 0, Compare::Lt, bound);
        let before = b.int(-1);
        let before = b.splat(before, &[self.rows]);
        b.select(exists, starts, before)
    }

    /// The rows of `tile` `[C, ..]` whose documents begin before the chunk; the others 0.
    pub(crate) fn rows_of_past(&self, b: &mut Builder, tile: ValueId) -> ValueId {
        let starts = self.starts(b);
        let zero = b.int(0);
        let zero = b.splat(zero, &[self.rows]);
        let sees = b.compare(Compare::Lt, starts, zero);
        let weights = self.zero_or_one(b, sees);
        scale_rows(b, tile, weights)
    }

    /// The rows of `tile` `[C, ..]` of the last token's document; the others 0.
    pub(crate) fn rows_of_tail(&self, b: &mut Builder, tile: ValueId) -> ValueId {
        let is_tail = self.is_tail(b, &[self.rows]);
        let weights = self.zero_or_one(b, is_tail);
        scale_rows(b, tile, weights)
    }

    /// Keys `[C, F]`, -inf but for those of the last token's document.
    pub(crate) fn keys_of_tail(&self, b: &mut Builder, keys: ValueId) -> ValueId {
        let shape = b.ty(keys).shape;
        let is_tail = self.is_tail(b, &shape);
        let hidden = b.full(f64::NEG_INFINITY, &shape);
        b.select(is_tail, keys, hidden)
    }

    fn is_tail(&self, b: &mut Builder, shape: &[usize]) -> ValueId {
        let row = b.iota(0, shape);
        let tail = b.cast(self.tail, Elem::I32);
        let tail = b.splat(tail, shape);
        b.compare(Compare::Le, tail, row)
    }

    fn zero_or_one(&self, b: &mut Builder, condition: ValueId) -> ValueId {
        let (one, zero) = (b.full(1.0, &[self.rows]), b.full(0.0, &[self.rows]));
        b.select(condition, one, zero)
    }

    /// Keeps of `tile` `[queries, keys]` what queries see of the keys of the chunk, the rest 0; of `[keys, queries]` where
    /// `transposed`.
    pub(crate) fn hide(&self, b: &mut Builder, tile: ValueId, transposed: bool) -> ValueId {
        let shape = b.ty(tile).shape;
        let tile = Triangle { fill: 0.0, lower: !transposed }.apply(b, tile, None);
        let starts = self.starts(b);
        let (key, starts) = if transposed {
            (b.iota(0, &shape), b.expand_rows(starts, self.rows))
        } else {
            (b.iota(1, &shape), b.expand_cols(starts, self.rows))
        };
        let sees = b.compare(Compare::Le, starts, key);
        let zero = b.full(0.0, &shape);
        b.select(sees, tile, zero)
    }

    /// For each token, the sum of the rows of `x` `[C, F]` that it sees; or for each key, of those that see it.
    pub(crate) fn running_sum(&self, b: &mut Builder, x: ValueId, seen_by: bool) -> ValueId {
        let zero = b.index(0);
        let begin_inside = b.compare(Compare::Gt, self.tail, zero);
        let sum = b.if_else(
            begin_inside,
            |b| {
                let ones = b.full(1.0, &[self.rows, self.rows]);
                let seen = self.hide(b, ones, seen_by);
                vec![b.dot(seen, false, x, false, None)]
            },
            |b| vec![b.scan(0, seen_by, x)],
        );
        sum[0]
    }

    /// Largest key and sum of a prefix before token `token` (Index), of which nothing is left if a document begins with that.
    pub(crate) fn restart(&self, b: &mut Builder, token: ValueId, prefix: [ValueId; 2]) -> [ValueId; 2] {
        let position = self.documents.position(b, token);
        let zero = b.index(0);
        let is_first = b.compare(Compare::Eq, position, zero);
        let shape = b.ty(prefix[0]).shape;
        let pair = b.if_else(
            is_first,
            |b| vec![b.full(f64::NEG_INFINITY, &shape), b.full(0.0, &shape)],
            |_| prefix.to_vec(),
        );
        [pair[0], pair[1]]
    }

    /// The first row of the document of token `token`, which is row `row`; both Index, and the result too.
    pub(crate) fn first_row(&self, b: &mut Builder, token: ValueId, row: ValueId) -> ValueId {
        let position = self.documents.position(b, token);
        b.sub(row, position)
    }

    /// A tile `[C, ..]` with 0 in the rows of tokens that do not see the key in row `row` (Index).
    pub(crate) fn rows_that_see(&self, b: &mut Builder, tile: ValueId, row: ValueId) -> ValueId {
        let key = b.cast(row, Elem::I32);
        let key = b.splat(key, &[self.rows]);
        let own = b.iota(0, &[self.rows]);
        let starts = self.starts(b);
        let (behind, of_document) = (b.compare(Compare::Le, key, own), b.compare(Compare::Le, starts, key));
        let sees = b.binary(Binary::And, behind, of_document);
        let weights = self.zero_or_one(b, sees);
        scale_rows(b, tile, weights)
    }
}
