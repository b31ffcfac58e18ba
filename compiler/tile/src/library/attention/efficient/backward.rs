//! Causal efficient attention, backward, chunk by chunk from the end of the sequence.
//!
//! With W_ts = exp(K_s − L_t), G = dout and dP_t = Σ_{s≤t} W_ts (V_s·G_t), per head:
//! `dQ = P ⊙ (dP − rowsum(P ⊙ dP))`, `dV_s = Σ_{t≥s} (P_t·W_ts) G_t`,
//! `dK_s = Σ_{t≥s} W_ts ⊙ (P_t (V_s·G_t) − x_t)` with `x = P ⊙ dP`, the gradient through the prefix logsumexp.
//! The future enters through `d = Σ exp(L_end − L_t) P_t G_tᵀ` and `rho = Σ exp(L_end − L_t) x_t`, which the walk carries.
//! Inside a chunk everything is a matrix product of the forward pass's factors `k̃`, `q̃`; the sum of x over t ≥ s is a
//! true suffix sum (total minus prefix would cancel: x̃ spans e^30). The same check as in the forward pass
//! sends a chunk to a row-by-row path whose exponents are never positive.
//! From chunk to chunk, d and rho decay by the difference of the saved `ell`, so their errors do not add up.

use super::chunked::Sizes;
use super::documents::ChunkDocuments;
use super::feature_softmax::{softmax_rows, softmax_rows_grad, softmax_vector, temper};
use super::forward::kernel_name;
use super::key_chunk::{Factors, KeyChunk, Past, PrefixStep, narrow_future, of_future, start_of_chunk};
use super::state::SavedStates;
use crate::builder::Builder;
use crate::ir::{Binary, Elem, Kernel, Mode, ParamId, Unary, ValueId};
use crate::library::attention::common::{
    Documents, HeadRows, HeadShape, HeadStrides, for_group, group_head, scale_rows, with_each_row,
};
use crate::library::bound;

/// What the backward kernels compute and how.
#[derive(Clone, PartialEq, Debug)]
pub struct EfficientBackwardSpec {
    /// Element type of q, k, v and the gradients.
    pub elem: Elem,
    /// Sizes.
    pub shape: HeadShape,
    /// Tokens of a chunk, C; as in the forward pass.
    pub chunk: usize,
    /// Multiplier of q and k before their softmaxes.
    pub temperature: f64,
    /// A token sees only keys of its own document. Of causal attention only.
    pub documents: bool,
    /// A program of the chunked form has all features of a head, where they are at most 128 in two bytes each: its operands
    /// need some 160 KiB of memory that threads share.
    pub whole: bool,
    /// Distances between the heads and positions of q `[B, S, H, D]`, in elements.
    pub q: HeadStrides,
    /// Of k `[B, S, G, D]`.
    pub k: HeadStrides,
    /// Of v `[B, S, G, D]`.
    pub v: HeadStrides,
    /// Of the gradient of the output, `[B, S, H, D]`.
    pub dout: HeadStrides,
    /// Of the gradient of q.
    pub dq: HeadStrides,
    /// Of the gradient of k.
    pub dk: HeadStrides,
    /// Of the gradient of v.
    pub dv: HeadStrides,
}

impl EfficientBackwardSpec {
    /// What it has in common with the other direction.
    pub(crate) fn sizes(&self) -> Sizes {
        Sizes::new(self.elem, self.shape, self.chunk, self.temperature, self.documents)
    }

    /// Name of a kernel of this spec that uses tensors of these strides.
    pub(crate) fn name(&self, kernel: &str, strides: &[HeadStrides]) -> String {
        kernel_name(kernel, &self.sizes(), strides)
    }

    /// Name of a kernel that computes all gradients.
    pub(crate) fn whole_name(&self, kernel: &str) -> String {
        self.name(kernel, &[self.q, self.k, self.v, self.dout, self.dq, self.dk, self.dv])
    }
}

/// The tensors of one key/value head of a backward kernel, with its parameters declared.
pub(crate) struct BackwardHead<'a> {
    /// What is computed.
    pub spec: &'a EfficientBackwardSpec,
    /// Keys of this head, `[S, D]`.
    pub k: HeadRows,
    /// Values of this head, `[S, D]`.
    pub v: HeadRows,
    /// Where the gradient of the keys goes.
    pub dk: HeadRows,
    /// Where the gradient of the values goes.
    pub dv: HeadRows,
    /// `ell` and `state`.
    pub saved: SavedStates,
    documents: Option<Documents>,
    q: ParamId,
    dout: ParamId,
    dq: ParamId,
    batch: ValueId,
    kv_head: ValueId,
}

/// The rows of one query head.
pub(crate) struct QueryHead {
    /// Queries, `[S, D]`.
    pub q: HeadRows,
    /// The gradient of this head's output, `[S, D]`.
    pub dout: HeadRows,
    /// Where the gradient of the queries goes.
    pub dq: HeadRows,
}

impl<'a> BackwardHead<'a> {
    /// Declares `(q, k, v, ell, state, dout, [positions,] dq, dk, dv)`; `count` states were saved per head.
    pub(crate) fn new(b: &mut Builder, spec: &'a EfficientBackwardSpec, count: usize) -> Self {
        let dim = spec.shape.head_dim;
        let q = b.param("q", spec.elem, Mode::Read);
        let k = b.param("k", spec.elem, Mode::Read);
        let v = b.param("v", spec.elem, Mode::Read);
        let ell = b.param("ell", Elem::F32, Mode::Read);
        let state = b.param("state", Elem::F32, Mode::Read);
        let dout = b.param("dout", spec.elem, Mode::Read);
        let positions = spec.documents.then(|| Documents::param(b));
        let dq = b.param("dq", spec.elem, Mode::Write);
        let dk = b.param("dk", spec.elem, Mode::Write);
        let dv = b.param("dv", spec.elem, Mode::Write);
        let (kv_head, batch) = (b.program_id(0), b.program_id(1));
        BackwardHead {
            spec,
            k: HeadRows::new(b, k, spec.k, dim, batch, kv_head),
            v: HeadRows::new(b, v, spec.v, dim, batch, kv_head),
            dk: HeadRows::new(b, dk, spec.dk, dim, batch, kv_head),
            dv: HeadRows::new(b, dv, spec.dv, dim, batch, kv_head),
            saved: SavedStates::new(b, ell, state, &spec.shape, count, batch, kv_head),
            documents: positions.map(|positions| Documents::new(b, positions, &spec.shape, batch)),
            q,
            dout,
            dq,
            batch,
            kv_head,
        }
    }

    /// Keys and values of the chunk at `start`.
    pub(crate) fn chunk(&self, b: &mut Builder, start: ValueId) -> KeyChunk {
        let spec = self.spec;
        KeyChunk::load(b, &self.k, &self.v, spec.shape.seq, spec.chunk, spec.temperature, start)
    }

    /// Which documents the tokens of the chunk from token `start` (Index) on are of, where they are kept apart.
    fn documents(&self, b: &mut Builder, start: ValueId) -> Option<ChunkDocuments> {
        let documents = self.documents?;
        let (seq, rows) = (self.spec.shape.seq, self.spec.chunk);
        let bound = bound(b, seq, start, rows);
        Some(ChunkDocuments::new(b, documents, seq, rows, start, bound))
    }

    /// Carries values over the query heads of the group.
    pub(crate) fn each_query_head(
        &self,
        b: &mut Builder,
        init: &[ValueId],
        body: impl FnOnce(&mut Builder, QueryHead, &[ValueId]) -> Vec<ValueId>,
    ) -> Vec<ValueId> {
        let (spec, dim) = (self.spec, self.spec.shape.head_dim);
        for_group(b, spec.shape.group(), init, |b, member, carried| {
            let head = group_head(b, self.kv_head, spec.shape.group(), member);
            let query = QueryHead {
                q: HeadRows::new(b, self.q, spec.q, dim, self.batch, head),
                dout: HeadRows::new(b, self.dout, spec.dout, dim, self.batch, head),
                dq: HeadRows::new(b, self.dq, spec.dq, dim, self.batch, head),
            };
            body(b, query, carried)
        })
    }
}

/// `(q, k, v, ell, state, dout, [positions]) -> (dq, dk, dv)`, causal.
pub fn efficient_attention_backward(spec: &EfficientBackwardSpec) -> Kernel {
    let HeadShape { batch, seq, kv_heads, head_dim: dim, .. } = spec.shape;
    let chunks = seq.div_ceil(spec.chunk);
    let mut b = Builder::new(spec.whole_name("efficient_attention_backward"), [kv_heads, batch, 1]);
    let head = BackwardHead::new(&mut b, spec, chunks);
    let init = [
        b.full(0.0, &[dim, dim]),
        b.full(0.0, &[dim]),
        // Nothing comes after the last chunk: whatever refers to its end has weight exp(x − ∞) = 0.
        b.full(f64::INFINITY, &[dim]),
    ];
    let (zero, end) = (b.index(0), b.index(chunks));
    b.for_loop(zero, end, 1, &init, |b, round, carried| {
        let last = b.index(chunks - 1);
        let index = b.sub(last, round);
        let start = b.scale_index(index, spec.chunk);
        let documents = head.documents(b, start);
        let past = documents.map_or(Past::Sequence, Past::Documents);
        let (reference, z) =
            start_of_chunk(b, spec.elem, &head.k, &head.saved, spec.temperature, index, past);
        let chunk = head.chunk(b, start).of(documents);
        let factors = Factors::new(b, spec.elem, chunk.keys, reference, z, documents);
        let ok = factors.in_range(b);
        // d and rho, seen from the start of the chunk.
        let decay = b.sub(reference, carried[2]);
        let decay = b.exp(decay);
        let future = Future {
            d: carried[0],
            rho: carried[1],
            end: carried[2],
            d_start: scale_rows(b, carried[0], decay),
            rho_start: b.mul(carried[1], decay),
        };
        let state = head.saved.load_state(b, index);
        let before = Before { reference, z, state };
        let mut next = b.if_else(
            ok,
            |b| fast_chunk(b, &head, &chunk, &factors, &before, &future),
            |b| slow_chunk(b, &head, &chunk, &before, &future),
        );
        next.push(head.saved.load_ell(b, index));
        next
    });
    b.finish()
}

/// What a chunk sees of the tokens before it.
struct Before {
    /// `[D]`
    reference: ValueId,
    /// `Σ exp(K − reference)` of the earlier keys: 1, or 0 before the first chunk. `[D]`
    z: ValueId,
    /// Normalised state, 0 before the first chunk. `[D, D]`
    state: ValueId,
}

/// What a chunk sees of the tokens after it.
struct Future {
    /// `Σ exp(L_end − L_t) P_t G_tᵀ`, `[D, D]`
    d: ValueId,
    /// `Σ exp(L_end − L_t) x_t`, `[D]`
    rho: ValueId,
    /// L at the end of the chunk, `[D]`.
    end: ValueId,
    /// `d` relative to the start of the chunk.
    d_start: ValueId,
    /// `rho` relative to the start of the chunk.
    rho_start: ValueId,
}

/// Writes the gradients of the chunk by matrix products; returns d and rho of its start.
fn fast_chunk(
    b: &mut Builder,
    head: &BackwardHead,
    chunk: &KeyChunk,
    factors: &Factors,
    before: &Before,
    future: &Future,
) -> Vec<ValueId> {
    let (spec, elem) = (head.spec, head.spec.elem);
    let k_small = b.cast(factors.k, elem);
    let d_small = narrow_future(b, elem, future.d_start);
    let state = b.cast(before.state, elem);
    let inverse = b.unary(Unary::Recip, factors.z);
    let dv = b.dot(k_small, false, d_small, false, None);
    let dv = of_future(b, elem, dv);
    let dv = chunk.rows_of_tail(b, dv);
    let bracket = b.dot(chunk.values, false, d_small, true, None);
    let bracket = of_future(b, elem, bracket);
    let bracket = with_each_row(b, Binary::Sub, bracket, future.rho_start);
    let bracket = chunk.rows_of_tail(b, bracket);
    let x = b.full(0.0, &[spec.chunk, spec.shape.head_dim]);
    let d_start = chunk.carried(b, future.d_start);
    let done = head.each_query_head(b, &[dv, bracket, x, d_start], |b, query, carried| {
        let q = query.q.load_f32(b, chunk.start, spec.chunk, chunk.bound);
        let p = softmax_rows(b, q, spec.temperature);
        let q = b.mul(p, inverse);
        let q_small = b.cast(q, elem);
        let g = query.dout.load(b, chunk.start, spec.chunk, chunk.bound);
        let da = b.dot(g, false, chunk.values, true, None);
        let da = chunk.hide(b, da, false);
        let da = b.cast(da, elem);
        let dp = b.dot(g, false, state, true, None);
        let dp = chunk.rows_of_past(b, dp);
        let dp = b.dot(da, false, k_small, false, Some(dp));
        let dp = b.mul(dp, inverse);
        let x = b.fma(q, dp, carried[2]);
        // [keys, queries]
        let a = b.dot(k_small, false, q_small, true, None);
        let a = chunk.hide(b, a, true);
        let a = b.cast(a, elem);
        let dv = b.dot(a, false, g, false, Some(carried[0]));
        let bracket = b.dot(da, true, q_small, false, Some(carried[1]));
        let of_past = match chunk.documents {
            Some(_) => {
                let q = chunk.rows_of_past(b, q);
                b.cast(q, elem)
            }
            None => q_small,
        };
        let d = b.dot(of_past, true, g, false, Some(carried[3]));
        let dq = softmax_rows_grad(b, p, dp, spec.temperature);
        query.dq.store(b, chunk.start, dq, chunk.bound);
        vec![dv, bracket, x, d]
    });
    let (dv, bracket, x, d) = (done[0], done[1], done[2], done[3]);
    let suffix = match chunk.documents {
        Some(documents) => documents.running_sum(b, x, true),
        None => b.scan(0, true, x),
    };
    let bracket = b.sub(bracket, suffix);
    let dk = b.mul(factors.k, bracket);
    let dk = temper(b, dk, spec.temperature);
    head.dk.store(b, chunk.start, dk, chunk.bound);
    head.dv.store(b, chunk.start, dv, chunk.bound);
    let own = chunk.rows_of_past(b, x);
    let own = b.sum(0, own);
    let rho_start = chunk.carried(b, future.rho_start);
    vec![d, b.add(rho_start, own)]
}

/// Writes the gradients of the chunk query by query; safe for any keys. Returns d and rho of its start.
fn slow_chunk(
    b: &mut Builder,
    head: &BackwardHead,
    chunk: &KeyChunk,
    before: &Before,
    future: &Future,
) -> Vec<ValueId> {
    let (spec, dim) = (head.spec, head.spec.shape.head_dim);
    let values = b.cast(chunk.values, Elem::F32);
    let keys = chunk.keys_of_tail(b);
    let late = with_each_row(b, Binary::Sub, keys, future.end);
    let late = b.exp(late);
    let late_small = of_future(b, spec.elem, late);
    let late_small = b.cast(late_small, spec.elem);
    let d_small = narrow_future(b, spec.elem, future.d);
    let dv = b.dot(late_small, false, d_small, false, None);
    let dk = b.dot(chunk.values, false, d_small, true, None);
    let dk = of_future(b, spec.elem, dk);
    let dk = with_each_row(b, Binary::Sub, dk, future.rho);
    let dk = b.mul(dk, late);
    let (d_start, rho_start) = (chunk.carried(b, future.d_start), chunk.carried(b, future.rho_start));
    let init = [before.reference, before.z, dk, dv, d_start, rho_start];
    let (zero, count) = (b.index(0), chunk.count(b));
    let done = b.for_loop(zero, count, 1, &init, |b, row, carried| {
        let token = b.add(chunk.start, row);
        let prefix = [carried[0], carried[1]];
        let step = PrefixStep::new(b, &head.k, chunk, spec.temperature, [token, row], prefix);
        let old = step.weight_of(b, before.reference);
        let mut next = vec![step.m, step.z];
        next.extend(head.each_query_head(b, &carried[2..], |b, query, carried| {
            let q = query.q.load_row(b, token);
            let p = softmax_vector(b, q, spec.temperature);
            let g = query.dout.load_row(b, token);
            let vg = with_each_row(b, Binary::Mul, values, g);
            let vg = b.sum(1, vg);
            let from_state = with_each_row(b, Binary::Mul, before.state, g);
            let from_state = b.sum(1, from_state);
            let from_state = b.mul(from_state, old);
            let from_chunk = scale_rows(b, step.weights, vg);
            let from_chunk = b.sum(0, from_chunk);
            let dp = b.add(from_state, from_chunk);
            let x = b.mul(p, dp);

            let vg = b.expand_cols(vg, dim);
            let bracket = with_each_row(b, Binary::Mul, vg, p);
            let bracket = with_each_row(b, Binary::Sub, bracket, x);
            let dk = b.fma(step.weights, bracket, carried[0]);
            let a = with_each_row(b, Binary::Mul, step.weights, p);
            let a = b.sum(1, a);
            let dv = add_outer(b, carried[1], a, g);
            let p_old = b.mul(p, old);
            let d = add_outer(b, carried[2], p_old, g);
            let rho = b.fma(old, x, carried[3]);

            let delta = b.sum(0, x);
            let delta = b.splat(delta, &[dim]);
            let dq = b.sub(dp, delta);
            let dq = b.mul(p, dq);
            let dq = temper(b, dq, spec.temperature);
            query.dq.store_row(b, token, dq);
            vec![dk, dv, d, rho]
        }));
        next
    });
    let dk = temper(b, done[2], spec.temperature);
    head.dk.store(b, chunk.start, dk, chunk.bound);
    head.dv.store(b, chunk.start, done[3], chunk.bound);
    vec![done[4], done[5]]
}

/// `acc + column rowᵀ`
fn add_outer(b: &mut Builder, acc: ValueId, column: ValueId, row: ValueId) -> ValueId {
    let shape = b.ty(acc).shape;
    let column = b.expand_cols(column, shape[1]);
    let row = b.expand_rows(row, shape[0]);
    b.fma(column, row, acc)
}
