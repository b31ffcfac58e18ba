//! Causal and non-causal efficient attention (Shen et al., arXiv 1812.01243): forward, backward, decode.
//!
//! Per key/value head, with P = softmax over the features of q, L_t = logsumexp of k over the keys that token t
//! sees: `out_t = Σ_s V_s Σ_d P_t[d] exp(K_s[d] - L_t[d])`. Everything is evaluated per token, with L kept as
//! `(m, z)`, L = m + ln z, m the running maximum. Since K_s ≤ L_s ≤ L_t for s ≤ t, no exponent is ever
//! positive: nothing overflows for any keys, and a factor that underflows belongs to a weight that does.

use std::ops::Range;

use super::{Documents, HeadWeights, Heads, dot, softmax};
use crate::attention::{EfficientForm, EfficientOp, EfficientSpec};
use crate::error::IrError;
use crate::interp::dense::{accumulate, add_scaled, inner};
use crate::interp::tensor::{Args, Real};
use crate::types::TensorType;

pub(super) fn eval<T: Real>(
    op: &EfficientOp,
    args: &Args<'_, T>,
    types: &[TensorType],
) -> Result<Vec<Vec<T>>, IrError> {
    match op {
        EfficientOp::Forward(spec) => attention(args, spec),
        EfficientOp::Backward(spec) => attention_grad(args, spec, types),
        EfficientOp::Decode(spec) => decode(args, spec),
    }
}

/// Σ exp(K) and Σ exp(K) Vᵀ over the keys seen, both relative to the maximum `m`.
#[derive(Clone)]
struct State<T> {
    m: Vec<T>,
    z: Vec<T>,
    /// `[d, d]`: features of k by features of v.
    t: Vec<T>,
}

impl<T: Real> State<T> {
    fn empty(d: usize) -> Self {
        State { m: vec![T::neg_infinity(); d], z: vec![T::zero(); d], t: vec![T::zero(); d * d] }
    }

    fn push(&mut self, k: &[T], v: &[T]) {
        let d = k.len();
        for (i, k) in k.iter().enumerate() {
            let m = self.m[i].max(*k);
            let (keep, new) = ((self.m[i] - m).exp(), (*k - m).exp());
            self.m[i] = m;
            self.z[i] = self.z[i] * keep + new;
            let row = &mut self.t[i * d..][..d];
            row.iter_mut().zip(v).for_each(|(t, v)| *t = *t * keep + new * *v);
        }
    }

    /// logsumexp per feature; 0 where no key was seen, so that saved values are finite.
    fn logsumexp(&self) -> Vec<T> {
        self.m
            .iter()
            .zip(&self.z)
            .map(|(m, z)| if *z > T::zero() { *m + z.ln() } else { T::zero() })
            .collect()
    }

    /// The state with weights that sum to 1 per feature; 0 where no key was seen.
    fn normalised(&self) -> Vec<T> {
        let mut out = self.t.clone();
        for (row, z) in out.chunks_exact_mut(self.z.len()).zip(&self.z) {
            let inverse = if *z > T::zero() { T::one() / *z } else { T::zero() };
            row.iter_mut().for_each(|t| *t = *t * inverse);
        }
        out
    }

    /// `(p/z) T` for the softmax p of one query.
    fn read(&self, p: &[T], out: &mut [T]) {
        let weights: Vec<T> = p.iter().zip(&self.z).map(|(p, z)| *p / *z).collect();
        accumulate(&weights, &self.t, out, p.len(), out.len());
    }
}

/// Operands with the temperature applied: P in place of q, scaled keys.
struct Inputs<'a, T> {
    p: Vec<T>,
    k: Vec<T>,
    v: &'a [T],
    heads: Heads,
}

impl<'a, T: Real> Inputs<'a, T> {
    fn of(args: &Args<'a, T>, temperature: f64) -> Result<Self, IrError> {
        let scaled = |x: &[T]| x.iter().map(|x| *x * T::of(temperature)).collect::<Vec<T>>();
        let heads = Heads::of(args);
        let mut p = scaled(args.floats(0)?);
        for row in p.chunks_exact_mut(heads.d) {
            softmax(row);
        }
        Ok(Inputs { p, k: scaled(args.floats(1)?), v: args.floats(2)?, heads })
    }

    /// All (batch, key/value head) pairs.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<T> {
        self.heads.groups()
    }

    fn push(&self, state: &mut State<T>, b: usize, t: usize, group: usize) {
        let key = self.heads.k(b, t, group);
        state.push(&self.k[key.clone()], &self.v[key]);
    }

    fn all_keys(&self, b: usize, group: usize) -> State<T> {
        let mut state = State::empty(self.heads.d);
        (0..self.heads.n).for_each(|t| self.push(&mut state, b, t, group));
        state
    }
}

/// `[out, ell, state]`; ell and state of the first chunk, which has no keys before it, are 0.
fn attention<T: Real>(args: &Args<'_, T>, spec: &EfficientSpec) -> Result<Vec<Vec<T>>, IrError> {
    let x = Inputs::of(args, spec.temperature)?;
    let heads = x.heads;
    let documents = Documents::of(args, 3)?;
    let mut out = vec![T::zero(); x.p.len()];
    let (mut ells, mut states) = (Vec::new(), Vec::new());
    for (b, group) in x.pairs() {
        let mut state = if spec.causal { State::empty(heads.d) } else { x.all_keys(b, group) };
        for t in 0..heads.n {
            let saved = if spec.causal { t % spec.chunk == 0 } else { t == 0 };
            if saved {
                ells.extend(state.logsumexp());
                states.extend(state.normalised());
            }
            if spec.causal {
                if documents.starts(b, t, heads.n) {
                    state = State::empty(heads.d);
                }
                x.push(&mut state, b, t, group);
            }
            for h in heads.members(group) {
                state.read(&x.p[heads.q(b, t, h)], &mut out[heads.q(b, t, h)]);
            }
        }
    }
    Ok(vec![out, ells, states])
}

/// `[dq, dk, dv]`, recomputed from q, k, v and dout; then the workspaces of the chunked form, which are zeros.
fn attention_grad<T: Real>(
    args: &Args<'_, T>,
    spec: &EfficientSpec,
    types: &[TensorType],
) -> Result<Vec<Vec<T>>, IrError> {
    let x = Inputs::of(args, spec.temperature)?;
    let dout = args.floats(6)?;
    let documents = Documents::of(args, 7)?;
    let mut grads = [vec![T::zero(); x.p.len()], vec![T::zero(); x.k.len()], vec![T::zero(); x.k.len()]];
    for (b, group) in x.pairs() {
        if spec.causal {
            causal_grad(&x, dout, (b, group), &documents, &mut grads);
        } else {
            full_grad(&x, dout, b, group, &mut grads);
        }
    }
    let [mut dq, mut dk, dv] = grads;
    for scaled in dq.iter_mut().chain(&mut dk) {
        *scaled = *scaled * T::of(spec.temperature);
    }
    let mut results = vec![dq, dk, dv];
    results.extend(types[3..].iter().map(|ty| vec![T::zero(); ty.shape.numel()]));
    Ok(results)
}

/// `dP = S dout` for the normalised state S [d, d].
fn state_times<T: Real>(state: &[T], dout: &[T]) -> Vec<T> {
    state.chunks_exact(dout.len()).map(|row| inner(row, dout)).collect()
}

/// The gradient of softmax over features: `dq = p (dp - p·dp)`.
fn softmax_grad<T: Real>(p: &[T], dp: &[T], dq: &mut [T]) {
    let mean = inner(p, dp);
    dq.iter_mut().zip(p.iter().zip(dp)).for_each(|(dq, (p, dp))| *dq = *p * (*dp - mean));
}

/// `out += x yᵀ`
fn add_outer<T: Real>(out: &mut [T], x: &[T], y: &[T]) {
    for (row, x) in out.chunks_exact_mut(y.len()).zip(x) {
        add_scaled(row, *x, y);
    }
}

/// One head group, causal. Forward in time: dP_t and the (m, z) of every prefix. Backward in time, relative to L_t:
/// `D_t = Σ_{r≥t} exp(L_t - L_r) P_r dout_rᵀ` and `mu_t = Σ_{r≥t} exp(L_t - L_r) P_r dP_r`, from which
/// `dV_t = ŵ D_t` and `dK_t = ŵ (D_t V_t - mu_t)` with `ŵ = exp(K_t - L_t)`.
/// Both pasts and both futures end where a document does.
fn causal_grad<T: Real>(
    x: &Inputs<'_, T>,
    dout: &[T],
    (b, group): (usize, usize),
    documents: &Documents,
    grads: &mut [Vec<T>; 3],
) {
    let heads = x.heads;
    let d = heads.d;
    let [dq, dk, dv] = grads;
    let mut state = State::empty(d);
    let mut prefixes: Vec<(Vec<T>, Vec<T>)> = Vec::with_capacity(heads.n);
    // Σ over the query heads of P dP, per token.
    let mut loads: Vec<Vec<T>> = Vec::with_capacity(heads.n);
    for t in 0..heads.n {
        if documents.starts(b, t, heads.n) {
            state = State::empty(d);
        }
        x.push(&mut state, b, t, group);
        let normalised = state.normalised();
        let mut load = vec![T::zero(); d];
        for h in heads.members(group) {
            let row = heads.q(b, t, h);
            let (p, dp) = (&x.p[row.clone()], state_times(&normalised, &dout[row.clone()]));
            load.iter_mut().zip(p.iter().zip(&dp)).for_each(|(load, (p, dp))| *load += *p * *dp);
            softmax_grad(p, &dp, &mut dq[row]);
        }
        prefixes.push((state.m.clone(), state.z.clone()));
        loads.push(load);
    }
    let mut future = vec![T::zero(); d * d];
    let mut mu = vec![T::zero(); d];
    for t in (0..heads.n).rev() {
        let (m, z) = &prefixes[t];
        if t + 1 < heads.n && documents.starts(b, t + 1, heads.n) {
            future.fill(T::zero());
            mu.fill(T::zero());
        } else if let Some((m_next, z_next)) = prefixes.get(t + 1) {
            for i in 0..d {
                let decay = (m[i] - m_next[i]).exp() * z[i] / z_next[i];
                mu[i] = mu[i] * decay;
                future[i * d..][..d].iter_mut().for_each(|x| *x = *x * decay);
            }
        }
        add_scaled(&mut mu, T::one(), &loads[t]);
        for h in heads.members(group) {
            let row = heads.q(b, t, h);
            add_outer(&mut future, &x.p[row.clone()], &dout[row]);
        }
        let key = heads.k(b, t, group);
        let from_values = state_times(&future, &x.v[key.clone()]);
        for i in 0..d {
            let weight = (x.k[key.start + i] - m[i]).exp() / z[i];
            dk[key.start + i] = weight * (from_values[i] - mu[i]);
            add_scaled(&mut dv[key.clone()], weight, &future[i * d..][..d]);
        }
    }
}

/// One head group, every query seeing every key: W = softmax of k over the sequence, S = WᵀV, out = P S.
fn full_grad<T: Real>(x: &Inputs<'_, T>, dout: &[T], b: usize, group: usize, grads: &mut [Vec<T>; 3]) {
    let heads = x.heads;
    let d = heads.d;
    let [dq, dk, dv] = grads;
    let all = x.all_keys(b, group);
    let state = all.normalised();
    let mut dstate = vec![T::zero(); d * d];
    for t in 0..heads.n {
        for h in heads.members(group) {
            let row = heads.q(b, t, h);
            let p = &x.p[row.clone()];
            add_outer(&mut dstate, p, &dout[row.clone()]);
            softmax_grad(p, &state_times(&state, &dout[row.clone()]), &mut dq[row]);
        }
    }
    // dK = W (dW - Σ_s W dW) with dW = V dSᵀ; the sum over tokens is the row sum of S dS.
    let rows = state.chunks_exact(d).zip(dstate.chunks_exact(d));
    let mean: Vec<T> = rows.map(|(s, ds)| inner(s, ds)).collect();
    for t in 0..heads.n {
        let key = heads.k(b, t, group);
        let dw = state_times(&dstate, &x.v[key.clone()]);
        for i in 0..d {
            let weight = (x.k[key.start + i] - all.m[i]).exp() / all.z[i];
            dk[key.start + i] = weight * (dw[i] - mean[i]);
            add_scaled(&mut dv[key.clone()], weight, &dstate[i * d..][..d]);
        }
    }
}

/// `[out, m', z', t']` for the next tokens, and the workspaces; at position 0 the state that came in is ignored.
fn decode<T: Real>(args: &Args<'_, T>, spec: &EfficientSpec) -> Result<Vec<Vec<T>>, IrError> {
    let x = Inputs::of(args, spec.temperature)?;
    let Heads { d, g, n, .. } = x.heads;
    let positions = args.positions(6, i32::MAX as usize)?;
    let slots = args.slots(7, args.dims(3)[0])?;
    let [mut m, mut z, mut t] = [args.floats(3)?, args.floats(4)?, args.floats(5)?].map(<[T]>::to_vec);
    let mut out = vec![T::zero(); x.p.len()];
    let (mut ells, mut states) = (vec![], vec![]);
    for (b, group) in x.pairs() {
        let i = slots[b] * g + group;
        let mut state = State {
            m: m[i * d..][..d].to_vec(),
            z: z[i * d..][..d].to_vec(),
            t: t[i * d * d..][..d * d].to_vec(),
        };
        if positions[b] == 0 {
            state = State::empty(d);
        }
        for token in 0..n {
            if token % spec.chunk == 0 {
                ells.extend(state.logsumexp());
                states.extend(state.normalised());
            }
            x.push(&mut state, b, token, group);
            for h in x.heads.members(group) {
                let row = x.heads.q(b, token, h);
                state.read(&x.p[row.clone()], &mut out[row]);
            }
        }
        m[i * d..][..d].copy_from_slice(&state.m);
        z[i * d..][..d].copy_from_slice(&state.z);
        t[i * d * d..][..d * d].copy_from_slice(&state.t);
    }
    let mut results = vec![out, m, z, t];
    if spec.form == EfficientForm::Chunked {
        results.extend([ells, states]);
    }
    Ok(results)
}

/// The softmaxes of one head: P of each query, scaled keys, and L of each query.
struct Features {
    p: Vec<f64>,
    k: Vec<f64>,
    /// logsumexp of the keys that each query sees, `[n, d]`.
    l: Vec<f64>,
    d: usize,
    /// Keys that are taken together.
    chunk: usize,
    causal: bool,
}

/// See [`super::head_weights`].
pub(super) fn weights(
    op: &EfficientOp,
    mut p: Vec<f64>,
    mut k: Vec<f64>,
    d: usize,
) -> Option<Box<dyn HeadWeights>> {
    let spec = match op {
        EfficientOp::Forward(spec) => spec,
        EfficientOp::Backward(_) | EfficientOp::Decode(_) => return None,
    };
    p.iter_mut().chain(&mut k).for_each(|x| *x *= spec.temperature);
    p.chunks_exact_mut(d).for_each(|row| {
        softmax(row);
    });
    let (mut m, mut z) = (vec![f64::NEG_INFINITY; d], vec![0.0; d]);
    let mut l = Vec::with_capacity(k.len());
    for key in k.chunks_exact(d) {
        for ((m, z), k) in m.iter_mut().zip(&mut z).zip(key) {
            let most = m.max(*k);
            *z = *z * (*m - most).exp() + (*k - most).exp();
            *m = most;
        }
        l.extend(m.iter().zip(&z).map(|(m, z)| m + z.ln()));
    }
    if !spec.causal {
        let all = l.split_off(l.len().saturating_sub(d));
        l = all.repeat(k.len() / d);
    }
    Some(Box::new(Features { p, k, l, d, chunk: spec.chunk.max(1), causal: spec.causal }))
}

impl HeadWeights for Features {
    /// `A_ts = Σ_d P_t exp(K_s - L_t)`. Keys before all of the rows go by what the rows have in common, `exp(K_s - r)` with r = L
    /// before the first of them: K_s ≤ r ≤ L_t, so that neither factor is above 1, and there is one exponential for all rows.
    fn rows(&self, rows: Range<usize>, out: &mut [f64]) {
        let (d, n) = (self.d, self.k.len() / self.d);
        let row = |x: &'_ [f64], t: usize| x[t * d..][..d].to_vec();
        out.fill(0.0);
        let (common, r) = match self.causal {
            false => (n, row(&self.l, 0)),
            true if rows.start == 0 => (0, vec![0.0; d]),
            true => (rows.start, row(&self.l, rows.start - 1)),
        };
        let shares: Vec<f64> = rows
            .clone()
            .flat_map(|t| {
                let (p, l) = (&self.p[t * d..][..d], &self.l[t * d..][..d]);
                p.iter().zip(l).zip(&r).map(|((p, l), r)| p * (r - l).exp()).collect::<Vec<f64>>()
            })
            .collect();
        let mut key = vec![0.0; d];
        for s in 0..common {
            let k = &self.k[s * d..][..d];
            key.iter_mut().zip(k.iter().zip(&r)).for_each(|(key, (k, r))| *key = (k - r).exp());
            for (out, share) in out.chunks_exact_mut(n).zip(shares.chunks_exact(d)) {
                out[s] = dot(share, &key);
            }
        }
        for (t, out) in rows.zip(out.chunks_exact_mut(n)) {
            let (p, l) = (&self.p[t * d..][..d], &self.l[t * d..][..d]);
            for (s, weight) in
                out.iter_mut().enumerate().take(if self.causal { t + 1 } else { 0 }).skip(common)
            {
                let k = &self.k[s * d..][..d];
                *weight = p.iter().zip(k.iter().zip(l)).map(|(p, (k, l))| p * (k - l).exp()).sum();
            }
        }
    }

    fn features(&self, row: usize) -> Option<&[f64]> {
        Some(&self.p[row * self.d..][..self.d])
    }

    fn chunks_within(&self, range: f64, headroom: f64) -> Option<[usize; 2]> {
        if !self.causal {
            return None;
        }
        let (n, d) = (self.k.len() / self.d, self.d);
        let l = |t: usize| &self.l[t * d..][..d];
        let starts = (0..n).step_by(self.chunk);
        let is_within = |start: &usize| {
            let end = l(n.min(start + self.chunk) - 1);
            let grows = |reference: &[f64], raised: f64| {
                end.iter().zip(reference).all(|(end, reference)| end - reference - raised <= range)
            };
            match start {
                0 => grows(&self.k[..d], headroom),
                start => grows(l(start - 1), 0.0),
            }
        };
        Some([starts.clone().filter(is_within).count(), starts.count()])
    }
}
