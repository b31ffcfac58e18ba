//! Efficient attention without causality: the softmax of k runs over the whole sequence.
//!
//! Per head, with W = exp(K − logsumexp over the sequence), `state = Wᵀ V` and `out = P state`. Backward, with G = dout:
//! `dstate = Pᵀ G`, `dP = G stateᵀ`, `dW = V dstateᵀ`, `dV = W dstate`, `dK = W ⊙ (dW − rho)`; here rho, the column
//! sums of `W ⊙ dW`, is the row sums of `state ⊙ dstate`, so no pass over the sequence is needed for it.
//! The state is small, so one program per sequence and key/value head builds it, and it is saved in place of the
//! states of the causal form: `ell [B, G, 1, D]`, `state [B, G, 1, D, D]`.

use super::backward::{BackwardHead, EfficientBackwardSpec};
use super::feature_softmax::{softmax_rows, softmax_rows_grad, temper};
use super::forward::EfficientForwardSpec;
use super::key_chunk::{KeyChunk, narrow_future, of_future};
use super::state::{Carried, SavedStates};
use crate::builder::Builder;
use crate::ir::{Binary, Elem, Kernel, Mode};
use crate::library::attention::common::{HeadRows, HeadShape, QueryBlock, scale_rows, with_each_row};
use crate::library::bound;

/// `(k, v) -> (ell [B, G, 1, D], state [B, G, 1, D, D])`
pub fn efficient_bidirectional_state(spec: &EfficientForwardSpec) -> Kernel {
    let HeadShape { batch, seq, kv_heads, head_dim: dim, .. } = spec.shape;
    let name = spec.name("efficient_bidirectional_state", &[spec.k, spec.v]);
    let mut b = Builder::new(name, [kv_heads, batch, 1]);
    let k = b.param("k", spec.elem, Mode::Read);
    let v = b.param("v", spec.elem, Mode::Read);
    let ell = b.param("ell", Elem::F32, Mode::Write);
    let state = b.param("state", Elem::F32, Mode::Write);
    let (kv_head, batch) = (b.program_id(0), b.program_id(1));
    let saved = SavedStates::new(&mut b, ell, state, &spec.shape, 1, batch, kv_head);
    let k = HeadRows::new(&mut b, k, spec.k, dim, batch, kv_head);
    let v = HeadRows::new(&mut b, v, spec.v, dim, batch, kv_head);
    let zero = b.index(0);
    let first = k.load_row(&mut b, zero);
    let first = temper(&mut b, first, spec.temperature);
    let init = [first, b.full(0.0, &[dim]), b.full(0.0, &[dim, dim])];
    let end = b.index(seq);
    let done = b.for_loop(zero, end, spec.chunk, &init, |b, start, carried| {
        let chunk = KeyChunk::load(b, &k, &v, seq, spec.chunk, spec.temperature, start);
        let m = b.reduce_max(0, chunk.keys);
        let m = b.max(carried[0], m);
        let decay = b.sub(carried[0], m);
        let decay = b.exp(decay);
        let weights = with_each_row(b, Binary::Sub, chunk.keys, m);
        let weights = b.exp(weights);
        let fresh = b.sum(0, weights);
        let z = b.fma(carried[1], decay, fresh);
        let t = scale_rows(b, carried[2], decay);
        let weights = b.cast(weights, spec.elem);
        let t = b.dot(weights, true, chunk.values, false, Some(t));
        vec![m, z, t]
    });
    Carried { m: done[0], z: done[1], t: done[2] }.save(&mut b, &saved, zero);
    b.finish()
}

/// `(q, state) -> out`
pub fn efficient_bidirectional_out(spec: &EfficientForwardSpec) -> Kernel {
    let HeadShape { batch, seq, heads, head_dim: dim, .. } = spec.shape;
    let rows = spec.chunk;
    let name = spec.name("efficient_bidirectional_out", &[spec.q, spec.out]);
    let mut b = Builder::new(name, [seq.div_ceil(rows), heads, batch]);
    let q = b.param("q", spec.elem, Mode::Read);
    let state = b.param("state", Elem::F32, Mode::Read);
    let out = b.param("out", spec.elem, Mode::Write);
    let place = QueryBlock::new(&mut b, &spec.shape, rows, false);
    let q = HeadRows::new(&mut b, q, spec.q, dim, place.batch, place.head);
    let out = HeadRows::new(&mut b, out, spec.out, dim, place.batch, place.head);
    let line = b.scale_index(place.batch, spec.shape.kv_heads);
    let line = b.add(line, place.kv_head);
    let at = b.scale_index(line, dim * dim);
    let state = b.load(state, at, &[dim, dim], &[(dim, None), (1, None)]);
    let state = b.cast(state, spec.elem);
    let q = q.load_f32(&mut b, place.start, rows, place.bound);
    let p = softmax_rows(&mut b, q, spec.temperature);
    let p = b.cast(p, spec.elem);
    let result = b.dot(p, false, state, false, None);
    out.store(&mut b, place.start, result, place.bound);
    b.finish()
}

/// `(q, k, v, ell, state, dout) -> (dq, dk, dv)`
pub fn efficient_bidirectional_backward(spec: &EfficientBackwardSpec) -> Kernel {
    let HeadShape { batch, seq, kv_heads, head_dim: dim, .. } = spec.shape;
    let elem = spec.elem;
    let mut b = Builder::new(spec.whole_name("efficient_bidirectional_backward"), [kv_heads, batch, 1]);
    let head = BackwardHead::new(&mut b, spec, 1);
    let (zero, end) = (b.index(0), b.index(seq));
    let ell = head.saved.load_ell(&mut b, zero);
    let state = head.saved.load_state(&mut b, zero);
    let state_small = b.cast(state, elem);

    let dstate = b.full(0.0, &[dim, dim]);
    let done = b.for_loop(zero, end, spec.chunk, &[dstate], |b, start, carried| {
        let bound = bound(b, seq, start, spec.chunk);
        head.each_query_head(b, carried, |b, query, carried| {
            let q = query.q.load_f32(b, start, spec.chunk, bound);
            let p = softmax_rows(b, q, spec.temperature);
            let g = query.dout.load(b, start, spec.chunk, bound);
            let dp = b.dot(g, false, state_small, true, None);
            let dq = softmax_rows_grad(b, p, dp, spec.temperature);
            query.dq.store(b, start, dq, bound);
            let p = b.cast(p, elem);
            vec![b.dot(p, true, g, false, Some(carried[0]))]
        })
    });
    let dstate = done[0];
    let rho = b.mul(state, dstate);
    let rho = b.sum(1, rho);
    let dstate = narrow_future(&mut b, elem, dstate);
    b.for_loop(zero, end, spec.chunk, &[], |b, start, _| {
        let chunk = head.chunk(b, start);
        let weights = with_each_row(b, Binary::Sub, chunk.keys, ell);
        let weights = b.exp(weights);
        let dw = b.dot(chunk.values, false, dstate, true, None);
        let dw = of_future(b, elem, dw);
        let dw = with_each_row(b, Binary::Sub, dw, rho);
        let dk = b.mul(weights, dw);
        let dk = temper(b, dk, spec.temperature);
        head.dk.store(b, start, dk, chunk.bound);
        let weights = of_future(b, elem, weights);
        let weights = b.cast(weights, elem);
        let dv = b.dot(weights, false, dstate, false, None);
        head.dv.store(b, start, dv, chunk.bound);
        vec![]
    });
    b.finish()
}
