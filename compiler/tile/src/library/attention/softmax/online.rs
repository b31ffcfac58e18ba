//! The online softmax: a walk over blocks of keys with a running maximum `m`, sum `l` and unnormalised output.
//!
//! Scores are scaled where they are exponentiated: with `c = scale·log2(e)`, a positive number,
//! `exp(scale·(s - m)) = 2^(c·s - c·m)` is one multiply-add and one power of two. Blocks of keys above the diagonal are
//! skipped, the mask is applied only to blocks on the diagonal and to the ragged last block, in code of their own after the
//! main loop. Where documents are kept apart, blocks before the first query's document are skipped too, and blocks that some
//! query of a later document does not see all of come before the main loop.

use std::f64::consts::LOG2_E;

use super::scores::Kept;
use crate::builder::Builder;
use crate::ir::{Elem, Unary, ValueId};
use crate::library::attention::common::{Documents, HeadRows, scale_rows};
use crate::library::bound;

/// Less than any score, and a number.
const LEAST_TOP: f64 = -1e30;

/// `exp(scale·s)` with a shift of the exponent, which is to base 2: `2^(scale·log2(e)·s + shift)`.
pub(crate) fn scaled_exp(b: &mut Builder, s: ValueId, scale: f64, shift: ValueId) -> ValueId {
    let shape = b.ty(s).shape.clone();
    let factor = b.float(scale * LOG2_E);
    b.name(factor, "scale_log2e");
    let factor = b.splat(factor, &shape);
    let exponent = b.fma(s, factor, shift);
    b.exp2(exponent)
}

/// The blocks of keys that a block of queries sees.
pub(crate) struct KeyWalk {
    /// Number of keys that there is memory for, N.
    pub seq: usize,
    /// Number of keys that exist, Index; N if nothing is given. Of causal walks only.
    pub end: Option<ValueId>,
    /// Query rows.
    pub rows: usize,
    /// Keys of an iteration.
    pub cols: usize,
    /// Only keys at or before each query.
    pub causal: bool,
    /// And only keys of its own document. Of causal walks only.
    pub documents: Option<Documents>,
    /// First query row, Index.
    pub start: ValueId,
    /// Which way round the scores are; the queries are kept.
    pub kept: Kept,
}

/// Rows of softmax attention.
pub(crate) struct AttendedRows {
    /// Largest score before its scale, `[rows]`.
    pub m: ValueId,
    /// Sum of the exponentials relative to it, `[rows]`.
    pub l: ValueId,
    /// The output, f32 `[rows, D]`.
    pub result: ValueId,
}

impl KeyWalk {
    /// Attends with the queries `[rows, D]` to the keys that they see; weights are rounded to `elem`.
    pub(crate) fn attend(
        &self,
        b: &mut Builder,
        elem: Elem,
        scale: f64,
        queries: ValueId,
        k: &HeadRows,
        v: &HeadRows,
    ) -> AttendedRows {
        let (rows, cols) = (self.rows, self.cols);
        let m = b.full(f64::NEG_INFINITY, &[rows]);
        let l = b.full(0.0, &[rows]);
        let acc = b.full(0.0, &b.ty(queries).shape);
        for (value, name) in [(m, "max_before"), (l, "sum_before"), (acc, "acc")] {
            b.name(value, name);
        }
        let done = self.run(b, &[m, l, acc], |b, start, mask, carried| {
            let bound = mask.and_then(|_| match self.end {
                Some(end) => Some(b.sub(end, start)),
                None => bound(b, self.seq, start, cols),
            });
            let k_tile = k.load(b, start, cols, bound);
            let v_tile = v.load(b, start, cols, bound);
            let s = self.kept.product(b, queries, k_tile);
            let s = mask.map_or(s, |mask| mask.hide(b, s, start));
            b.name(s, "scores");
            let (m, l, acc) = (carried[0], carried[1], carried[2]);
            let top = b.reduce_max(self.kept.walked_axis(), s);
            let top = b.max(m, top);
            b.name(top, "row_max");
            let carried_top = top;
            // A query that has seen no key yet has no largest score, from which nothing can be subtracted.
            let top = match self.documents {
                Some(_) => {
                    let least = b.full(LEAST_TOP, &[rows]);
                    b.max(top, least)
                }
                None => top,
            };
            let shift = b.scale(top, -scale * LOG2_E);
            let shift = self.kept.expand_kept(b, shift, cols);
            let p = scaled_exp(b, s, scale, shift);
            b.name(p, "weights");
            let alpha = b.sub(m, top);
            let alpha = b.scale(alpha, scale * LOG2_E);
            let alpha = b.exp2(alpha);
            b.name(alpha, "correction");
            let fresh = b.sum(self.kept.walked_axis(), p);
            let l = b.fma(l, alpha, fresh);
            b.name(l, "row_sum");
            let acc = scale_rows(b, acc, alpha);
            let p = b.cast(p, elem);
            let acc = self.kept.weigh(b, p, v_tile, acc);
            vec![carried_top, l, acc]
        });
        let (m, l, acc) = (done[0], done[1], done[2]);
        let inverse = b.unary(Unary::Recip, l);
        AttendedRows { m, l, result: scale_rows(b, acc, inverse) }
    }

    /// Carries values over the visible blocks: `step(builder, first key, mask if one is needed, carried)`.
    /// The mask of a causal block covers the ragged end too, since a query is before it.
    pub(crate) fn run(
        &self,
        b: &mut Builder,
        init: &[ValueId],
        step: impl Fn(&mut Builder, ValueId, Option<KeyMask>, &[ValueId]) -> Vec<ValueId>,
    ) -> Vec<ValueId> {
        let mask = KeyMask {
            causal: self.causal,
            documents: self.documents,
            seq: self.seq,
            rows: self.rows,
            start: self.start,
            kept: self.kept,
        };
        let step = |b: &mut Builder, start: ValueId, mask: Option<KeyMask>, carried: &[ValueId]| {
            b.name(start, "k_start");
            step(b, start, mask, carried)
        };
        let zero = b.index(0);
        if !self.causal {
            let full = b.index(self.seq / self.cols * self.cols);
            let carried =
                b.for_loop(zero, full, self.cols, init, |b, start, carried| step(b, start, None, carried));
            if self.seq.is_multiple_of(self.cols) {
                return carried;
            }
            return step(b, full, Some(mask), &carried);
        }
        // Every key of a block is visible to every row if the last key is at or before the first row.
        let one = b.index(1);
        let cols = b.index(self.cols);
        let full = b.add(self.start, one);
        let full = b.div(full, cols);
        let full = b.scale_index(full, self.cols);
        let rows = b.index(self.rows);
        let end = b.add(self.start, rows);
        let keys = self.end.unwrap_or_else(|| b.index(self.seq));
        let end = b.min(end, keys);
        let Some(documents) = self.documents else {
            let carried =
                b.for_loop(zero, full, self.cols, init, |b, start, carried| step(b, start, None, carried));
            return b.for_loop(full, end, self.cols, &carried, |b, start, carried| {
                step(b, start, Some(mask), carried)
            });
        };
        // From the block that has the start of the first query's document, and that of the last one's start on.
        let last = b.sub(end, one);
        let [first, all] = [self.start, last].map(|query| documents.start(b, query));
        let first = b.div(first, cols);
        let first = b.scale_index(first, self.cols);
        let up = b.index(self.cols - 1);
        let all = b.add(all, up);
        let all = b.div(all, cols);
        let all = b.scale_index(all, self.cols);
        let all = b.min(all, full);
        let carried =
            b.for_loop(first, all, self.cols, init, |b, start, carried| step(b, start, Some(mask), carried));
        let carried =
            b.for_loop(all, full, self.cols, &carried, |b, start, carried| step(b, start, None, carried));
        b.for_loop(full, end, self.cols, &carried, |b, start, carried| step(b, start, Some(mask), carried))
    }
}

/// Hides the keys that a query must not see.
#[derive(Clone, Copy)]
pub(crate) struct KeyMask {
    causal: bool,
    documents: Option<Documents>,
    seq: usize,
    rows: usize,
    start: ValueId,
    kept: Kept,
}

impl KeyMask {
    /// Scores with -inf where hidden; keys start at `keys` (Index).
    pub(crate) fn hide(&self, b: &mut Builder, scores: ValueId, keys: ValueId) -> ValueId {
        if self.causal {
            let scores = self.kept.hide_future(b, scores, self.start, keys, true);
            let Some(documents) = self.documents else { return scores };
            let bound = bound(b, self.seq, self.start, self.rows);
            let first = documents.starts(b, self.start, self.rows, bound, keys);
            return self.kept.hide_before(b, scores, first, true);
        }
        let seq = b.index(self.seq);
        let left = b.sub(seq, keys);
        self.kept.hide_from(b, scores, left)
    }
}
