//! Attention: heads, the abstract operation, which is interpreted as softmax attention, and a module for each kind.

mod efficient;
mod elu;
mod softmax;

use std::ops::Range;

use super::dense::{following, rotate};
use super::tensor::{Args, Real};
use crate::attention::{AttentionSpec, KindOp};
use crate::error::IrError;
use crate::types::TensorType;

/// Flat results of an operation of one kind, whose result types are known.
pub(super) fn eval<T: Real>(
    op: &KindOp,
    args: &Args<'_, T>,
    types: &[TensorType],
) -> Result<Vec<Vec<T>>, IrError> {
    match op {
        KindOp::Softmax(op) => softmax::eval(op, args),
        KindOp::Efficient(op) => efficient::eval(op, args, types),
        KindOp::Elu(op) => elu::eval(op, args),
    }
}

/// How much each query of one head takes of each key's value: the matrix A with `out = A v`, for whoever looks at it. Of a kind
/// that never forms such a matrix it is the one that gives the same.
pub trait HeadWeights: Send + Sync {
    /// Some rows of A, `[rows, n]`; what a query does not see weighs 0. The work of many rows at once is less than that of each.
    fn rows(&self, rows: Range<usize>, out: &mut [f64]);

    /// How much the query of a row takes of each of its features, which sums to 1; nothing of a kind without such features.
    fn features(&self, row: usize) -> Option<&[f64]>;

    /// Of the chunks of keys of a kind that takes them in chunks: those in which no feature's sum of `exp(key)` grows to more than
    /// `e^range` times itself, and all. The first chunk has nothing before it, so its sum is measured by its first key, raised by `headroom`.
    fn chunks_within(&self, range: f64, headroom: f64) -> Option<[usize; 2]>;
}

/// The weights of one head of a forward; queries and keys `[n, d]`, as the operation reads them. Nothing for other operations.
pub fn head_weights(op: &KindOp, q: &[f32], k: &[f32], d: usize) -> Option<Box<dyn HeadWeights>> {
    let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    match op {
        KindOp::Softmax(op) => softmax::weights(op, wide(q), wide(k), d),
        KindOp::Efficient(op) => efficient::weights(op, wide(q), wide(k), d),
        KindOp::Elu(op) => elu::weights(op, &wide(q), &wide(k), d),
    }
}

/// The sum of products, in four sums so that a processor has something to do at once.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    let (xs, ys) = (x.chunks_exact(4), y.chunks_exact(4));
    let rest: f64 = xs.remainder().iter().zip(ys.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in xs.zip(ys) {
        sums.iter_mut().zip(x.iter().zip(y)).for_each(|(sum, (x, y))| *sum += x * y);
    }
    sums[0] + sums[1] + sums[2] + sums[3] + rest
}

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

    /// All (batch, key/value head) pairs.
    pub(super) fn groups(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.b).flat_map(move |b| (0..self.g).map(move |g| (b, g)))
    }

    /// All (batch, query head) pairs.
    pub(super) fn pairs(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.b).flat_map(move |b| (0..self.h).map(move |h| (b, h)))
    }
}

/// Turns scores into weights that sum to 1; returns their logsumexp.
pub(in crate::interp) fn softmax<T: Real>(scores: &mut [T]) -> T {
    let max = scores.iter().copied().fold(T::neg_infinity(), T::max);
    let mut sum = T::zero();
    for s in scores.iter_mut() {
        *s = (*s - max).exp();
        sum += *s;
    }
    scores.iter_mut().for_each(|s| *s = *s / sum);
    max + sum.ln()
}

fn default_scale<T: Real>(heads: Heads) -> T {
    T::of((heads.d as f64).powf(-0.5))
}

/// Which tokens are of one document.
pub(super) struct Documents {
    /// Position of each token in its document, `[batch * n]`; nothing where a sequence is one document.
    positions: Option<Vec<usize>>,
}

impl Documents {
    /// Of the positions at operand `i`, if it is there.
    pub(super) fn of<T: Real>(args: &Args<'_, T>, i: usize) -> Result<Self, IrError> {
        if i >= args.operands.len() {
            return Ok(Documents { positions: None });
        }
        let n = args.dims(0)[1];
        let positions = args.positions(i, n)?;
        for sequence in positions.chunks_exact(n) {
            let follows = |pair: &[usize]| pair[1] == 0 || pair[1] == pair[0] + 1;
            if sequence[0] != 0 || !sequence.windows(2).all(follows) {
                return args.error("positions count each document from 0");
            }
        }
        Ok(Documents { positions: Some(positions) })
    }

    /// The first token that token `t` of sequence `b` sees, of sequences of `n` tokens.
    pub(super) fn first(&self, b: usize, t: usize, n: usize) -> usize {
        self.positions.as_ref().map_or(0, |positions| t - positions[b * n + t])
    }

    /// Whether token `t` is the first of its document.
    pub(super) fn starts(&self, b: usize, t: usize, n: usize) -> bool {
        self.first(b, t, n) == t
    }
}

/// Positions `[batch * n]` by which tokens are rotated.
fn angles(heads: Heads, documents: &Documents) -> Vec<usize> {
    documents.positions.clone().unwrap_or_else(|| following(&vec![0; heads.b], heads.n))
}

/// Operands 0 and 1, rotated by the rope table at `table` if the spec has one.
fn rotated<T: Real>(
    args: &Args<'_, T>,
    spec: &AttentionSpec,
    table: usize,
    documents: &Documents,
) -> Result<[Vec<T>; 2], IrError> {
    let (q, k) = (args.floats(0)?, args.floats(1)?);
    if !spec.rope {
        return Ok([q.to_vec(), k.to_vec()]);
    }
    let table = args.floats(table)?;
    let at = angles(Heads::of(args), documents);
    Ok([rotate(q, args.dims(0), table, &at, false), rotate(k, args.dims(1), table, &at, false)])
}

/// The abstract attention with softmax and scale d^-1/2.
pub(super) fn abstract_attention<T: Real>(
    args: &Args<'_, T>,
    spec: &AttentionSpec,
) -> Result<Vec<Vec<T>>, IrError> {
    let heads = Heads::of(args);
    let documents = Documents::of(args, 3 + usize::from(spec.rope))?;
    let [q, k] = rotated(args, spec, 3, &documents)?;
    let seen = softmax::Seen { causal: spec.causal, documents };
    Ok(vec![softmax::forward(&q, &k, args.floats(2)?, heads, &seen, default_scale(heads)).0])
}

/// Its gradient, from q, k, v and dout alone.
pub(super) fn abstract_attention_grad<T: Real>(
    args: &Args<'_, T>,
    spec: &AttentionSpec,
) -> Result<Vec<Vec<T>>, IrError> {
    let heads = Heads::of(args);
    let documents = Documents::of(args, 5 + usize::from(spec.rope))?;
    let [q, k] = rotated(args, spec, 5, &documents)?;
    let at = angles(heads, &documents);
    let seen = softmax::Seen { causal: spec.causal, documents };
    let v = args.floats(2)?;
    let scale = default_scale(heads);
    let (out, lse) = softmax::forward(&q, &k, v, heads, &seen, scale);
    let saved = softmax::Saved { q: &q, k: &k, v, out: &out, lse: &lse, dout: args.floats(4)? };
    let [mut dq, mut dk, dv, _] = softmax::backward(&saved, heads, &seen, scale);
    if spec.rope {
        let table = args.floats(5)?;
        dq = rotate(&dq, args.dims(0), table, &at, true);
        dk = rotate(&dk, args.dims(1), table, &at, true);
    }
    Ok(vec![dq, dk, dv])
}
