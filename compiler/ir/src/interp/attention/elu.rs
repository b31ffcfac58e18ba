//! Causal linear attention with the features elu(x) + 1: forward, backward, decode.
//!
//! With φ(x) = elu(x) + 1, `n_t = Σ_{s≤t} (φ(q_t)·φ(k_s)) v_s` and `c_t = Σ_{s≤t} φ(q_t)·φ(k_s)`: `out_t = n_t / c_t`.
//! Backward, `dn = dout / c` and `dc = -(dout·out) / c`; the rest is that of a product of matrices, token by token.

use std::ops::Range;

use super::{HeadWeights, Heads, dot};
use crate::attention::{EluOp, EluSpec};
use crate::error::IrError;
use crate::interp::dense::{accumulate, add_scaled, inner};
use crate::interp::tensor::{Args, Real};

pub(super) fn eval<T: Real>(op: &EluOp, args: &Args<'_, T>) -> Result<Vec<Vec<T>>, IrError> {
    match op {
        EluOp::Forward(spec) => forward(args, spec),
        EluOp::Backward(_) => backward(args),
        EluOp::Decode(_) => decode(args),
    }
}

/// φ(x) = elu(x) + 1 of each element.
fn features<T: Real>(x: &[T]) -> Vec<T> {
    x.iter().map(|x| x.max(T::zero()) + slope(*x)).collect()
}

/// Its derivative.
fn slope<T: Real>(x: T) -> T {
    x.min(T::zero()).exp()
}

/// Sums over the keys so far.
struct State<T> {
    z: Vec<T>,
    /// `[d, d]`: features of k by features of v.
    s: Vec<T>,
}

impl<T: Real> State<T> {
    fn empty(d: usize) -> Self {
        State { z: vec![T::zero(); d], s: vec![T::zero(); d * d] }
    }

    fn push(&mut self, k: &[T], v: &[T]) {
        add_scaled(&mut self.z, T::one(), k);
        for (row, k) in self.s.chunks_exact_mut(v.len()).zip(k) {
            add_scaled(row, *k, v);
        }
    }

    fn read(&self, q: &[T], out: &mut [T]) {
        accumulate(q, &self.s, out, q.len(), out.len());
        let c = inner(q, &self.z);
        out.iter_mut().for_each(|out| *out = *out / c);
    }
}

/// `[out, z, state]`
fn forward<T: Real>(args: &Args<'_, T>, spec: &EluSpec) -> Result<Vec<Vec<T>>, IrError> {
    let (q, k, v) = (features(args.floats(0)?), features(args.floats(1)?), args.floats(2)?);
    let heads = Heads::of(args);
    let mut out = vec![T::zero(); q.len()];
    let (mut zs, mut states) = (vec![], vec![]);
    for (b, group) in heads.groups() {
        let mut state = State::empty(heads.d);
        for t in 0..heads.n {
            if t % spec.chunk == 0 {
                zs.extend_from_slice(&state.z);
                states.extend_from_slice(&state.s);
            }
            let key = heads.k(b, t, group);
            state.push(&k[key.clone()], &v[key]);
            for h in heads.members(group) {
                let row = heads.q(b, t, h);
                state.read(&q[row.clone()], &mut out[row]);
            }
        }
    }
    Ok(vec![out, zs, states])
}

/// `[dq, dk, dv]`, pair of tokens by pair of tokens.
fn backward<T: Real>(args: &Args<'_, T>) -> Result<Vec<Vec<T>>, IrError> {
    let (raw_q, raw_k, v) = (args.floats(0)?, args.floats(1)?, args.floats(2)?);
    let (out, dout) = (args.floats(3)?, args.floats(6)?);
    let (q, k) = (features(raw_q), features(raw_k));
    let heads = Heads::of(args);
    let (mut dq, mut dk) = (vec![T::zero(); q.len()], vec![T::zero(); k.len()]);
    let mut dv = vec![T::zero(); v.len()];
    for (b, h) in heads.pairs() {
        let group = heads.group(h);
        for t in 0..heads.n {
            let row = heads.q(b, t, h);
            let weights: Vec<T> = (0..=t).map(|s| inner(&q[row.clone()], &k[heads.k(b, s, group)])).collect();
            let c = weights.iter().fold(T::zero(), |sum, weight| sum + *weight);
            let dn: Vec<T> = dout[row.clone()].iter().map(|dout| *dout / c).collect();
            let dc = T::zero() - inner(&dn, &out[row.clone()]);
            for (s, weight) in weights.iter().enumerate() {
                let key = heads.k(b, s, group);
                let dweight = inner(&dn, &v[key.clone()]) + dc;
                add_scaled(&mut dv[key.clone()], *weight, &dn);
                add_scaled(&mut dq[row.clone()], dweight, &k[key.clone()]);
                add_scaled(&mut dk[key], dweight, &q[row.clone()]);
            }
        }
    }
    for (gradient, x) in dq.iter_mut().zip(raw_q).chain(dk.iter_mut().zip(raw_k)) {
        *gradient = *gradient * slope(*x);
    }
    Ok(vec![dq, dk, dv])
}

/// `[out, z', state']` for the next token of each sequence; at position 0 what came in is ignored.
fn decode<T: Real>(args: &Args<'_, T>) -> Result<Vec<Vec<T>>, IrError> {
    let (q, k, v) = (features(args.floats(0)?), features(args.floats(1)?), args.floats(2)?);
    let (z, s) = (args.floats(3)?, args.floats(4)?);
    let heads = Heads::of(args);
    let d = heads.d;
    let positions = args.positions(5, i32::MAX as usize)?;
    let slots = args.slots(6, args.dims(3)[0])?;
    let mut out = vec![T::zero(); q.len()];
    let (mut zs, mut states) = (z.to_vec(), s.to_vec());
    for (b, group) in heads.groups() {
        let i = slots[b] * heads.g + group;
        let mut state = if positions[b] == 0 {
            State::empty(d)
        } else {
            State { z: z[i * d..][..d].to_vec(), s: s[i * d * d..][..d * d].to_vec() }
        };
        let key = heads.k(b, 0, group);
        state.push(&k[key.clone()], &v[key]);
        for h in heads.members(group) {
            let row = heads.q(b, 0, h);
            state.read(&q[row.clone()], &mut out[row]);
        }
        zs[i * d..][..d].copy_from_slice(&state.z);
        states[i * d * d..][..d * d].copy_from_slice(&state.s);
    }
    Ok(vec![out, zs, states])
}

/// Features of the queries and keys of one head, those of a query as shares of their sum, by which its weights do not change.
struct Products {
    q: Vec<f64>,
    k: Vec<f64>,
    d: usize,
}

/// See [`super::head_weights`].
pub(super) fn weights(op: &EluOp, q: &[f64], k: &[f64], d: usize) -> Option<Box<dyn HeadWeights>> {
    match op {
        EluOp::Forward(_) => {
            let mut q = features(q);
            for row in q.chunks_exact_mut(d) {
                let sum: f64 = row.iter().sum();
                row.iter_mut().for_each(|q| *q /= sum);
            }
            Some(Box::new(Products { q, k: features(k), d }))
        }
        EluOp::Backward(_) | EluOp::Decode(_) => None,
    }
}

impl HeadWeights for Products {
    fn rows(&self, rows: Range<usize>, out: &mut [f64]) {
        let n = self.k.len() / self.d;
        for (t, out) in rows.zip(out.chunks_exact_mut(n)) {
            let (seen, hidden) = out.split_at_mut(t + 1);
            for (weight, key) in seen.iter_mut().zip(self.k.chunks_exact(self.d)) {
                *weight = dot(&self.q[t * self.d..][..self.d], key);
            }
            let sum: f64 = seen.iter().sum();
            seen.iter_mut().for_each(|weight| *weight /= sum);
            hidden.fill(0.0);
        }
    }

    fn features(&self, row: usize) -> Option<&[f64]> {
        Some(&self.q[row * self.d..][..self.d])
    }

    fn chunks_within(&self, _: f64, _: f64) -> Option<[usize; 2]> {
        None
    }
}
