//! Softmax attention: forward, backward, decode, and the abstract attention, which is interpreted as one.

use super::dense::{add_scaled, inner, rotate};
use super::tensor::{Args, Real, Tensor};
use crate::error::IrError;
use crate::op::AttentionSpec;

/// Sizes of q [b, n, h, d] and k, v [b, n, g, d], and where their rows are.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub(super) b: usize,
    pub(super) n: usize,
    pub(super) h: usize,
    pub(super) g: usize,
    pub(super) d: usize,
}

impl Heads {
    pub(super) fn of<T: Real>(args: &Args<'_, T>) -> Self {
        let (q, k) = (args.dims(0), args.dims(1));
        Heads { b: q[0], n: q[1], h: q[2], g: k[2], d: q[3] }
    }

    /// Key/value head of a query head.
    pub(super) fn group(self, head: usize) -> usize {
        head / (self.h / self.g)
    }

    /// Query heads of a key/value head.
    pub(super) fn members(self, group: usize) -> std::ops::Range<usize> {
        let size = self.h / self.g;
        group * size..(group + 1) * size
    }

    /// Elements of the row of one token and query head.
    pub(super) fn q(self, b: usize, t: usize, head: usize) -> std::ops::Range<usize> {
        let start = ((b * self.n + t) * self.h + head) * self.d;
        start..start + self.d
    }

    /// Elements of the row of one token and key/value head.
    pub(super) fn k(self, b: usize, t: usize, group: usize) -> std::ops::Range<usize> {
        let start = ((b * self.n + t) * self.g + group) * self.d;
        start..start + self.d
    }

    /// All (batch, query head) pairs.
    fn pairs(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.b).flat_map(move |b| (0..self.h).map(move |h| (b, h)))
    }
}

/// Turns scores into weights that sum to 1; returns their logsumexp.
pub(super) fn softmax<T: Real>(scores: &mut [T]) -> T {
    let max = scores.iter().copied().fold(T::neg_infinity(), T::max);
    let mut sum = T::zero();
    for s in scores.iter_mut() {
        *s = (*s - max).exp();
        sum += *s;
    }
    scores.iter_mut().for_each(|s| *s = *s / sum);
    max + sum.ln()
}

/// `(out, lse)` as flat arrays.
fn forward<T: Real>(q: &[T], k: &[T], v: &[T], heads: Heads, causal: bool, scale: T) -> (Vec<T>, Vec<T>) {
    let mut out = vec![T::zero(); q.len()];
    let mut lse = Vec::with_capacity(heads.b * heads.h * heads.n);
    for (b, h) in heads.pairs() {
        let group = heads.group(h);
        for t in 0..heads.n {
            let seen = if causal { t + 1 } else { heads.n };
            let query = &q[heads.q(b, t, h)];
            let mut weights: Vec<T> =
                (0..seen).map(|s| inner(query, &k[heads.k(b, s, group)]) * scale).collect();
            lse.push(softmax(&mut weights));
            for (s, weight) in weights.iter().enumerate() {
                add_scaled(&mut out[heads.q(b, t, h)], *weight, &v[heads.k(b, s, group)]);
            }
        }
    }
    (out, lse)
}

/// Operands of the backward as flat arrays.
struct Saved<'a, T> {
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    out: &'a [T],
    lse: &'a [T],
    dout: &'a [T],
}

/// `[dq, dk, dv, delta]`: with p = exp(s - lse), dp = dout·v: `ds = p (dp - delta)`.
fn backward<T: Real>(x: &Saved<'_, T>, heads: Heads, causal: bool, scale: T) -> [Vec<T>; 4] {
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
            let seen = if causal { t + 1 } else { heads.n };
            for s in 0..seen {
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

pub(super) fn attention<T: Real>(
    args: &Args<'_, T>,
    causal: bool,
    scale: f64,
) -> Result<Vec<Vec<T>>, IrError> {
    let (q, k, v) = (args.floats(0)?, args.floats(1)?, args.floats(2)?);
    let (out, lse) = forward(q, k, v, Heads::of(args), causal, T::of(scale));
    Ok(vec![out, lse])
}

pub(super) fn attention_grad<T: Real>(
    args: &Args<'_, T>,
    causal: bool,
    scale: f64,
) -> Result<Vec<Vec<T>>, IrError> {
    let saved = Saved {
        q: args.floats(0)?,
        k: args.floats(1)?,
        v: args.floats(2)?,
        out: args.floats(3)?,
        lse: args.floats(4)?,
        dout: args.floats(5)?,
    };
    Ok(backward(&saved, Heads::of(args), causal, T::of(scale)).into())
}

fn default_scale<T: Real>(heads: Heads) -> T {
    T::of((heads.d as f64).powf(-0.5))
}

/// Operands 0 and 1, rotated by the rope table at `table` if the spec has one.
fn rotated<T: Real>(args: &Args<'_, T>, spec: &AttentionSpec, table: usize) -> Result<[Vec<T>; 2], IrError> {
    let (q, k) = (args.floats(0)?, args.floats(1)?);
    if !spec.rope {
        return Ok([q.to_vec(), k.to_vec()]);
    }
    let table = args.floats(table)?;
    Ok([rotate(q, args.dims(0), table, 0, false), rotate(k, args.dims(1), table, 0, false)])
}

/// The abstract attention with softmax and scale d^-1/2.
pub(super) fn abstract_attention<T: Real>(
    args: &Args<'_, T>,
    spec: &AttentionSpec,
) -> Result<Vec<Vec<T>>, IrError> {
    let heads = Heads::of(args);
    let [q, k] = rotated(args, spec, 3)?;
    Ok(vec![forward(&q, &k, args.floats(2)?, heads, spec.causal, default_scale(heads)).0])
}

/// Its gradient, from q, k, v and dout alone.
pub(super) fn abstract_attention_grad<T: Real>(
    args: &Args<'_, T>,
    spec: &AttentionSpec,
) -> Result<Vec<Vec<T>>, IrError> {
    let heads = Heads::of(args);
    let [q, k] = rotated(args, spec, 5)?;
    let v = args.floats(2)?;
    let scale = default_scale(heads);
    let (out, lse) = forward(&q, &k, v, heads, spec.causal, scale);
    let saved = Saved { q: &q, k: &k, v, out: &out, lse: &lse, dout: args.floats(4)? };
    let [mut dq, mut dk, dv, _] = backward(&saved, heads, spec.causal, scale);
    if spec.rope {
        let table = args.floats(5)?;
        dq = rotate(&dq, args.dims(0), table, 0, true);
        dk = rotate(&dk, args.dims(1), table, 0, true);
    }
    Ok(vec![dq, dk, dv])
}

/// Tokens against the caches, which come back with the tokens written from `pos` on; then, if the work is split, what each
/// part has of it.
pub(super) fn decode<T: Real>(
    args: &Args<'_, T>,
    scale: f64,
    range: Option<usize>,
) -> Result<Vec<Vec<T>>, IrError> {
    let heads = Heads::of(args);
    let len = args.dims(3)[1];
    // The verifier has seen that the caches are no shorter than the tokens.
    let pos = args.position(5, (len + 1).saturating_sub(heads.n))?;
    let (q, k, v) = (args.floats(0)?, args.floats(1)?, args.floats(2)?);
    let (mut kcache, mut vcache) = (args.floats(3)?.to_vec(), args.floats(4)?.to_vec());
    let cache = Heads { n: len, ..heads };
    let mut out = vec![T::zero(); q.len()];
    let mut parts = range.map(|range| Parts::new(heads, len, range));
    for b in 0..heads.b {
        for (t, group) in (0..heads.n).flat_map(|t| (0..heads.g).map(move |group| (t, group))) {
            kcache[cache.k(b, pos + t, group)].copy_from_slice(&k[heads.k(b, t, group)]);
            vcache[cache.k(b, pos + t, group)].copy_from_slice(&v[heads.k(b, t, group)]);
        }
    }
    for (b, h) in heads.pairs() {
        let group = heads.group(h);
        let value = |s: usize| &vcache[cache.k(b, s, group)];
        for t in 0..heads.n {
            let row = heads.q(b, t, h);
            let score = |s: usize| inner(&q[row.clone()], &kcache[cache.k(b, s, group)]) * T::of(scale);
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

/// Flat results with the shapes of `types`.
pub(super) fn shaped<T: Real>(data: Vec<Vec<T>>, types: &[crate::types::TensorType]) -> Vec<Tensor<T>> {
    data.into_iter().zip(types).map(|(x, ty)| Tensor::float(ty.shape.clone(), x)).collect()
}
