//! Softmax attention, forward, in the manner of FlashAttention: no N×N buffer, each score is computed once.
//!
//! A program owns `block_q` query rows of one head and walks over blocks of keys with a running maximum `m`, sum `l`
//! and unnormalised output. Scores are scaled where they are exponentiated: with `c = scale·log2(e)`, a positive number,
//! `exp(scale·(s - m)) = 2^(c·s - c·m)` is one multiply-add and one power of two. Blocks of keys above the diagonal are skipped, the mask is applied only
//! to blocks on the diagonal and to the ragged last block, in code of their own after the main loop.

use std::f64::consts::LOG2_E;

use super::attention::{HeadRows, HeadShape, HeadStrides, Triangle, mask_from, scale_rows, strides_tag};
use super::{bound, number, tag};
use crate::builder::Builder;
use crate::ir::{Elem, Kernel, Mode, Unary, ValueId};

/// What [`softmax_attention_forward`] computes and how.
#[derive(Clone, PartialEq, Debug)]
pub struct SoftmaxForwardSpec {
    /// Element type of q, k, v, out.
    pub elem: Elem,
    /// Sizes.
    pub shape: HeadShape,
    /// Each query sees only keys at or before its own position.
    pub causal: bool,
    /// Score multiplier.
    pub scale: f64,
    /// Query rows of a program.
    pub block_q: usize,
    /// Keys of a round.
    pub block_k: usize,
    /// Strides of q.
    pub q: HeadStrides,
    /// Strides of k.
    pub k: HeadStrides,
    /// Strides of v.
    pub v: HeadStrides,
    /// Strides of out.
    pub out: HeadStrides,
}

/// `(q, k, v) -> (out, lse)`: `out = softmax(q kᵀ·scale) v`, `lse` the natural-log row logsumexp of the scaled scores.
pub fn softmax_attention_forward(spec: &SoftmaxForwardSpec) -> Kernel {
    let HeadShape { batch, seq, heads, head_dim: dim, .. } = spec.shape;
    let name = format!(
        "softmax_attention_forward_{}_{}_{}_s{}_q{}_k{}_{}",
        tag(spec.elem),
        spec.shape.tag(),
        if spec.causal { "causal" } else { "full" },
        number(spec.scale),
        spec.block_q,
        spec.block_k,
        strides_tag(&[spec.q, spec.k, spec.v, spec.out]),
    );
    spec.shape.check(&name);
    let (rows, cols) = (spec.block_q, spec.block_k);
    let blocks = seq.div_ceil(rows);
    let mut b = Builder::new(name, [blocks, heads, batch]);
    let q = b.param("q", spec.elem, Mode::Read);
    let k = b.param("k", spec.elem, Mode::Read);
    let v = b.param("v", spec.elem, Mode::Read);
    let out = b.param("out", spec.elem, Mode::Write);
    let lse = b.param("lse", Elem::F32, Mode::Write);

    let place = QueryBlock::new(&mut b, &spec.shape, rows, spec.causal);
    let q = HeadRows::new(&mut b, q, spec.q, dim, place.batch, place.head);
    let k = HeadRows::new(&mut b, k, spec.k, dim, place.batch, place.kv_head);
    let v = HeadRows::new(&mut b, v, spec.v, dim, place.batch, place.kv_head);
    let out = HeadRows::new(&mut b, out, spec.out, dim, place.batch, place.head);
    let q_tile = q.load(&mut b, place.start, rows, place.bound);

    let walk = KeyWalk { seq, end: None, rows, cols, causal: spec.causal, start: place.start };
    let AttendedRows { m, l, result } = walk.attend(&mut b, spec.elem, spec.scale, q_tile, &k, &v);
    out.store(&mut b, place.start, result, place.bound);
    let log = b.unary(Unary::Log, l);
    let m = b.scale(m, spec.scale);
    let log = b.add(m, log);
    let at = place.row_offset(&mut b, &spec.shape);
    b.store(lse, at, log, &[(1, place.bound)]);
    b.finish()
}

/// `exp(scale·s)` with a shift of the exponent, which is to base 2: `2^(scale·log2(e)·s + shift)`.
pub(crate) fn scaled_exp(b: &mut Builder, s: ValueId, scale: f64, shift: ValueId) -> ValueId {
    let shape = b.ty(s).shape.clone();
    let factor = b.float(scale * LOG2_E);
    b.name(factor, "scale_log2e");
    let factor = b.splat(factor, &shape);
    let exponent = b.fma(s, factor, shift);
    b.exp2(exponent)
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

/// The blocks of keys that a block of queries sees.
pub(crate) struct KeyWalk {
    /// Number of keys that there is memory for, N.
    pub seq: usize,
    /// Number of keys that exist, Index; N if nothing is given. Of causal walks only.
    pub end: Option<ValueId>,
    /// Query rows.
    pub rows: usize,
    /// Keys of a round.
    pub cols: usize,
    /// Only keys at or before each query.
    pub causal: bool,
    /// First query row, Index.
    pub start: ValueId,
}

/// Hides the keys that a query must not see.
#[derive(Clone, Copy)]
pub(crate) struct KeyMask {
    causal: bool,
    seq: usize,
    start: ValueId,
}

impl KeyMask {
    /// Scores `[queries, keys]` with -inf where hidden; keys start at `keys` (Index).
    pub(crate) fn hide(&self, b: &mut Builder, scores: ValueId, keys: ValueId) -> ValueId {
        if self.causal {
            let lower = Triangle { fill: f64::NEG_INFINITY, lower: true };
            return lower.apply(b, scores, Some((self.start, keys)));
        }
        let seq = b.index(self.seq);
        let left = b.sub(seq, keys);
        mask_from(b, scores, 1, left, f64::NEG_INFINITY)
    }
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
            let s = b.dot(queries, false, k_tile, true, None);
            let s = mask.map_or(s, |mask| mask.hide(b, s, start));
            b.name(s, "scores");
            let (m, l, acc) = (carried[0], carried[1], carried[2]);
            let top = b.reduce_max(1, s);
            let top = b.max(m, top);
            b.name(top, "row_max");
            let shift = b.scale(top, -scale * LOG2_E);
            let shift = b.expand_cols(shift, cols);
            let p = scaled_exp(b, s, scale, shift);
            b.name(p, "weights");
            let alpha = b.sub(m, top);
            let alpha = b.scale(alpha, scale * LOG2_E);
            let alpha = b.exp2(alpha);
            b.name(alpha, "correction");
            let fresh = b.sum(1, p);
            let l = b.fma(l, alpha, fresh);
            b.name(l, "row_sum");
            let acc = scale_rows(b, acc, alpha);
            let p = b.cast(p, elem);
            let acc = b.dot(p, false, v_tile, false, Some(acc));
            vec![top, l, acc]
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
        let mask = KeyMask { causal: self.causal, seq: self.seq, start: self.start };
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
        let carried =
            b.for_loop(zero, full, self.cols, init, |b, start, carried| step(b, start, None, carried));
        b.for_loop(full, end, self.cols, &carried, |b, start, carried| step(b, start, Some(mask), carried))
    }
}
