//! Softmax attention: forward, backward, decode.

use std::ops::Range;

use super::{Documents, HeadWeights, Heads, dot, softmax};
use crate::attention::SoftmaxOp;
use crate::error::IrError;
use crate::interp::dense::{add_scaled, inner};
use crate::interp::tensor::{Args, Real};

/// Which keys a query sees.
pub(super) struct Seen {
    pub(super) causal: bool,
    pub(super) documents: Documents,
}

impl Seen {
    /// Of query `t` of sequence `b`.
    fn by(&self, b: usize, t: usize, n: usize) -> std::ops::Range<usize> {
        self.documents.first(b, t, n)..if self.causal { t + 1 } else { n }
    }
}

/// `(out, lse)` as flat arrays.
pub(super) fn forward<T: Real>(
    q: &[T],
    k: &[T],
    v: &[T],
    heads: Heads,
    seen: &Seen,
    scale: T,
) -> (Vec<T>, Vec<T>) {
    let mut out = vec![T::zero(); q.len()];
    let mut lse = Vec::with_capacity(heads.b * heads.h * heads.n);
    for (b, h) in heads.pairs() {
        let group = heads.group(h);
        for t in 0..heads.n {
            let seen = seen.by(b, t, heads.n);
            let query = &q[heads.q(b, t, h)];
            let mut weights: Vec<T> =
                seen.clone().map(|s| inner(query, &k[heads.k(b, s, group)]) * scale).collect();
            lse.push(softmax(&mut weights));
            for (s, weight) in seen.zip(&weights) {
                add_scaled(&mut out[heads.q(b, t, h)], *weight, &v[heads.k(b, s, group)]);
            }
        }
    }
    (out, lse)
}

/// Operands of the backward as flat arrays.
pub(super) struct Saved<'a, T> {
    pub(super) q: &'a [T],
    pub(super) k: &'a [T],
    pub(super) v: &'a [T],
    pub(super) out: &'a [T],
    pub(super) lse: &'a [T],
    pub(super) dout: &'a [T],
}

/// `[dq, dk, dv, delta]`: with p = exp(s - lse), dp = dout·v: `ds = p (dp - delta)`.
pub(super) fn backward<T: Real>(x: &Saved<'_, T>, heads: Heads, seen: &Seen, scale: T) -> [Vec<T>; 4] {
    let mut dq = vec![T::zero(); x.q.len()];
    let mut dk = vec![T::zero(); x.k.len()];
    let mut dv = vec![T::zero(); x.v.len()];
    let mut deltas = Vec::with_capacity(x.lse.len());
    for (b, h) in heads.pairs() {
        let group = heads.group(h);
        for t in 0..heads.n {
            let row = heads.q(b, t, h);
            let (query, dout) = (&x.q[row.clone()], &x.dout[row.clone()]);
            let delta = inner(&x.out[row.clone()], dout);
            let lse = x.lse[deltas.len()];
            deltas.push(delta);
            for s in seen.by(b, t, heads.n) {
                let key = heads.k(b, s, group);
                let weight = (inner(query, &x.k[key.clone()]) * scale - lse).exp();
                let ds = weight * (inner(dout, &x.v[key.clone()]) - delta) * scale;
                add_scaled(&mut dv[key.clone()], weight, dout);
                add_scaled(&mut dq[row.clone()], ds, &x.k[key.clone()]);
                add_scaled(&mut dk[key], ds, query);
            }
        }
    }
    [dq, dk, dv, deltas]
}

pub(super) fn eval<T: Real>(op: &SoftmaxOp, args: &Args<'_, T>) -> Result<Vec<Vec<T>>, IrError> {
    let (q, k, v) = (args.floats(0)?, args.floats(1)?, args.floats(2)?);
    match op {
        SoftmaxOp::Forward { causal, scale } => {
            let seen = Seen { causal: *causal, documents: Documents::of(args, 3)? };
            let (out, lse) = forward(q, k, v, Heads::of(args), &seen, T::of(*scale));
            Ok(vec![out, lse])
        }
        SoftmaxOp::Backward { causal, scale } => {
            let (out, lse, dout) = (args.floats(3)?, args.floats(4)?, args.floats(5)?);
            let saved = Saved { q, k, v, out, lse, dout };
            let seen = Seen { causal: *causal, documents: Documents::of(args, 6)? };
            Ok(backward(&saved, Heads::of(args), &seen, T::of(*scale)).into())
        }
        SoftmaxOp::Decode { scale, range } => decode(args, *scale, *range),
    }
}

/// Tokens against the caches, which come back with the tokens written from `pos` on; then, if the work is split, what each
/// part has of it.
fn decode<T: Real>(args: &Args<'_, T>, scale: f64, range: Option<usize>) -> Result<Vec<Vec<T>>, IrError> {
    let heads = Heads::of(args);
    let len = args.dims(3)[1];
    // The verifier has seen that the caches are no shorter than the tokens.
    let positions = args.positions(5, (len + 1).saturating_sub(heads.n))?;
    let slots = args.slots(6, args.dims(3)[0])?;
    let (q, k, v) = (args.floats(0)?, args.floats(1)?, args.floats(2)?);
    let (mut kcache, mut vcache) = (args.floats(3)?.to_vec(), args.floats(4)?.to_vec());
    let cache = Heads { n: len, ..heads };
    let mut out = vec![T::zero(); q.len()];
    let mut parts = range.map(|range| Parts::new(heads, len, range));
    for (b, (pos, slot)) in positions.iter().zip(&slots).enumerate() {
        for (t, group) in (0..heads.n).flat_map(|t| (0..heads.g).map(move |group| (t, group))) {
            kcache[cache.k(*slot, pos + t, group)].copy_from_slice(&k[heads.k(b, t, group)]);
            vcache[cache.k(*slot, pos + t, group)].copy_from_slice(&v[heads.k(b, t, group)]);
        }
    }
    for (b, h) in heads.pairs() {
        let (group, pos, slot) = (heads.group(h), positions[b], slots[b]);
        let value = |s: usize| &vcache[cache.k(slot, s, group)];
        for t in 0..heads.n {
            let row = heads.q(b, t, h);
            let score = |s: usize| inner(&q[row.clone()], &kcache[cache.k(slot, s, group)]) * T::of(scale);
            let mut weights: Vec<T> = (0..=pos + t).map(score).collect();
            if let Some(parts) = &mut parts {
                parts.add(b, h, &weights[..pos], value);
            }
            softmax(&mut weights);
            for (s, weight) in weights.iter().enumerate() {
                add_scaled(&mut out[row.clone()], *weight, value(s));
            }
        }
    }
    let mut results = vec![out, kcache, vcache];
    if let Some(Parts { top, sum, acc, .. }) = parts {
        results.extend([top, sum, acc]);
    }
    Ok(results)
}

/// Softmax attention of one token to those before it, by ranges of keys.
struct Parts<T> {
    heads: Heads,
    range: usize,
    count: usize,
    /// Largest score, `[B, G, P, H/G]`.
    top: Vec<T>,
    /// Σ exp(score - top).
    sum: Vec<T>,
    /// Σ exp(score - top) v, `[B, G, P, H/G, D]`.
    acc: Vec<T>,
}

impl<T: Real> Parts<T> {
    fn new(heads: Heads, len: usize, range: usize) -> Self {
        let count = len.div_ceil(range);
        let rows = heads.b * heads.h * count;
        let (top, sum) = (vec![T::neg_infinity(); rows], vec![T::zero(); rows]);
        Parts { heads, range, count, top, sum, acc: vec![T::zero(); rows * heads.d] }
    }

    /// The scores of one query head.
    fn add<'v>(&mut self, b: usize, head: usize, scores: &[T], value: impl Fn(usize) -> &'v [T])
    where
        T: 'v,
    {
        let Heads { h, g, d, .. } = self.heads;
        let (group, member) = (self.heads.group(head), head % (h / g));
        for (part, scores) in scores.chunks(self.range).enumerate() {
            let at = ((b * g + group) * self.count + part) * (h / g) + member;
            let top = scores.iter().copied().fold(T::neg_infinity(), T::max);
            self.top[at] = top;
            for (s, score) in scores.iter().enumerate() {
                let weight = (*score - top).exp();
                self.sum[at] += weight;
                add_scaled(&mut self.acc[at * d..][..d], weight, value(part * self.range + s));
            }
        }
    }
}

/// Queries and keys of one head.
struct Scores {
    q: Vec<f64>,
    k: Vec<f64>,
    d: usize,
    causal: bool,
    scale: f64,
}

/// See [`super::head_weights`].
pub(super) fn weights(op: &SoftmaxOp, q: Vec<f64>, k: Vec<f64>, d: usize) -> Option<Box<dyn HeadWeights>> {
    match op {
        SoftmaxOp::Forward { causal, scale } => {
            Some(Box::new(Scores { q, k, d, causal: *causal, scale: *scale }))
        }
        SoftmaxOp::Backward { .. } | SoftmaxOp::Decode { .. } => None,
    }
}

impl HeadWeights for Scores {
    fn rows(&self, rows: Range<usize>, out: &mut [f64]) {
        let n = self.k.len() / self.d;
        for (t, out) in rows.zip(out.chunks_exact_mut(n)) {
            let query = &self.q[t * self.d..][..self.d];
            let (seen, hidden) = out.split_at_mut(if self.causal { t + 1 } else { n });
            for (weight, key) in seen.iter_mut().zip(self.k.chunks_exact(self.d)) {
                *weight = dot(query, key) * self.scale;
            }
            softmax(seen);
            hidden.fill(0.0);
        }
    }

    fn features(&self, _: usize) -> Option<&[f64]> {
        None
    }

    fn chunks_within(&self, _: f64, _: f64) -> Option<[usize; 2]> {
        None
    }
}
