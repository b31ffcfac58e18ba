//! Backward, chunk by chunk from the end of the sequence.
//!
//! With `dn = dout / c` and `dc = -(dn·out)`, the gradient of a weight `φ(q_t)·φ(k_s)`, s ≤ t, is `P_ts = dn_t·v_s + dc_t`:
//! `dφ(Q) = tril(P) φ(K) + dn stateᵀ + dc zᵀ`, `dφ(K) = tril(P)ᵀ φ(Q) + V dstateᵀ + dz`, `dV = Aᵀ dn + φ(K) dstate`. The walk
//! carries what later chunks add, `dstate = Σ φ(q_t) dn_tᵀ` and `dz = Σ φ(q_t) dc_t`.

use super::{EluAttentionSpec, States, features, key_features, normaliser};
use crate::ir::{Binary, Elem, Kernel, Mode, Unary};
use crate::library::attention::common::{
    HeadShape, Triangle, for_group, group_head, scale_rows, with_each_row,
};
use crate::library::bound;

/// `(q, k, v, out, z, state, dout) -> (dq, dk, dv)`, causal.
pub fn elu_attention_backward(spec: &EluAttentionSpec) -> Kernel {
    let EluAttentionSpec { elem, shape, chunk, .. } = *spec;
    let HeadShape { seq, head_dim: dim, .. } = shape;
    let chunks = seq.div_ceil(chunk);
    let (mut b, kv_head, batch) = spec.builder("elu_attention_backward", 8);
    let [q, k, v, out] = ["q", "k", "v", "out"].map(|name| b.param(name, elem, Mode::Read));
    let states = ["z", "state"].map(|name| b.param(name, Elem::F32, Mode::Read));
    let dout = b.param("dout", elem, Mode::Read);
    let [dq, dk, dv] = ["dq", "dk", "dv"].map(|name| b.param(name, elem, Mode::Write));
    let saved = States::new(&mut b, states, &shape, chunks, [batch, kv_head]);
    let k = spec.rows(&mut b, k, 1, batch, kv_head);
    let v = spec.rows(&mut b, v, 2, batch, kv_head);
    let dk = spec.rows(&mut b, dk, 6, batch, kv_head);
    let dv = spec.rows(&mut b, dv, 7, batch, kv_head);
    let init = [b.full(0.0, &[dim]), b.full(0.0, &[dim, dim])];
    let (zero, end) = (b.index(0), b.index(chunks));
    b.for_loop(zero, end, 1, &init, |b, round, later| {
        let [dz, dstate] = *later else { unreachable!("two are carried") };
        let last = b.index(chunks - 1);
        let index = b.sub(last, round);
        let start = b.scale_index(index, chunk);
        let bound = bound(b, seq, start, chunk);
        let [z, state] = saved.load(b, index);
        let x = k.load_f32(b, start, chunk, bound);
        let (_, slope) = features(b, x);
        let keys = key_features(b, x, bound);
        let values = v.load(b, start, chunk, bound);
        let [keys_small, state_small, dstate_small] = [keys, state, dstate].map(|tile| b.cast(tile, elem));
        // What later chunks add to the gradients of keys and values.
        let dkeys = b.dot(values, false, dstate_small, true, None);
        let dkeys = with_each_row(b, Binary::Add, dkeys, dz);
        let dvalues = b.dot(keys_small, false, dstate_small, false, None);
        let done = for_group(b, shape.group(), &[dkeys, dvalues, dz, dstate], |b, member, carried| {
            let [dkeys, dvalues, dz, dstate] = *carried else { unreachable!("four are carried") };
            let head = group_head(b, kv_head, shape.group(), member);
            let x = spec.rows(b, q, 0, batch, head).load_f32(b, start, chunk, bound);
            let (queries, slope) = features(b, x);
            let queries_small = b.cast(queries, elem);
            let lower = Triangle { fill: 0.0, lower: true };
            let a = b.dot(queries_small, false, keys_small, true, None);
            let a = lower.apply(b, a, None);
            let c = normaliser(b, queries, z, a);
            let inverse = b.unary(Unary::Recip, c);
            // Rows beyond the sequence load as 0, and so add nothing to what others see of them.
            let dn = spec.rows(b, dout, 4, batch, head).load_f32(b, start, chunk, bound);
            let dn = scale_rows(b, dn, inverse);
            let result = spec.rows(b, out, 3, batch, head).load_f32(b, start, chunk, bound);
            let dc = b.mul(dn, result);
            let dc = b.sum(1, dc);
            let dc = b.scale(dc, -1.0);
            let dn_small = b.cast(dn, elem);
            let p = b.dot(dn_small, false, values, true, None);
            let wide_dc = b.expand_cols(dc, chunk);
            let p = b.add(p, wide_dc);
            let p = lower.apply(b, p, None);
            let p = b.cast(p, elem);
            let a = b.cast(a, elem);
            let dqueries = b.dot(dn_small, false, state_small, true, None);
            let z_rows = b.expand_rows(z, chunk);
            let from_z = scale_rows(b, z_rows, dc);
            let dqueries = b.add(dqueries, from_z);
            let dqueries = b.dot(p, false, keys_small, false, Some(dqueries));
            let dqueries = b.mul(dqueries, slope);
            spec.rows(b, dq, 5, batch, head).store(b, start, dqueries, bound);
            let loads = scale_rows(b, queries, dc);
            let load = b.sum(0, loads);
            vec![
                b.dot(p, true, queries_small, false, Some(dkeys)),
                b.dot(a, true, dn_small, false, Some(dvalues)),
                b.add(dz, load),
                b.dot(queries_small, true, dn_small, false, Some(dstate)),
            ]
        });
        let dkeys = b.mul(done[0], slope);
        dk.store(b, start, dkeys, bound);
        dv.store(b, start, done[1], bound);
        vec![done[2], done[3]]
    });
    b.finish()
}
