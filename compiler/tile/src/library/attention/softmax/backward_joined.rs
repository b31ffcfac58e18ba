//! Softmax attention, backward, as one kernel: five products for each pair of blocks, where `dq` and `dkdv` take seven,
//! since both compute the scores and the gradient of the weights.
//!
//! A program owns a key/value head with its group of query heads, and walks over blocks of keys. It adds to dQ in memory,
//! which nobody else does, block by block in the order of the keys. There are few programs, so it is for CPUs.

use std::f64::consts::LOG2_E;

use super::backward::{SoftmaxBackwardSpec, gradient_of_scores, inputs};
use super::online::scaled_exp;
use super::scores::Kept;
use crate::builder::Builder;
use crate::ir::{Elem, Kernel, Mode, ValueId};
use crate::library::attention::common::{HeadRows, HeadShape, for_group, group_head};
use crate::library::bound;

/// `(q, k, v, dout, lse, delta) -> (dq, dk, dv)`, all f32.
pub fn softmax_attention_backward(spec: &SoftmaxBackwardSpec) -> Kernel {
    let HeadShape { batch, seq, heads, kv_heads, head_dim: dim } = spec.shape;
    let (rows, cols) = (spec.block_q, spec.block_k);
    let name = spec.name("backward", &[spec.q, spec.k, spec.v, spec.dout, spec.dq, spec.dk, spec.dv]);
    assert_eq!(spec.elem, Elem::F32, "{name}: dq is summed in memory, in its own type");
    let mut b = Builder::new(name, [kv_heads, batch, 1]);
    let [q, k, v, dout, lse, delta] = inputs(&mut b, spec.elem);
    let dq = b.param("dq", spec.elem, Mode::ReadWrite);
    let dk = b.param("dk", spec.elem, Mode::Write);
    let dv = b.param("dv", spec.elem, Mode::Write);
    let (kv_head, batch) = (b.program_id(0), b.program_id(1));
    let k = HeadRows::new(&mut b, k, spec.k, dim, batch, kv_head);
    let v = HeadRows::new(&mut b, v, spec.v, dim, batch, kv_head);
    let dk = HeadRows::new(&mut b, dk, spec.dk, dim, batch, kv_head);
    let dv = HeadRows::new(&mut b, dv, spec.dv, dim, batch, kv_head);
    let (first, end) = (b.index(0), b.index(seq));
    let group = spec.shape.group();

    for_group(&mut b, group, &[], |b, member, _| {
        let head = group_head(b, kv_head, group, member);
        let dq = HeadRows::new(b, dq, spec.dq, dim, batch, head);
        b.for_loop(first, end, rows, &[], |b, start, _| {
            let bound = bound(b, seq, start, rows);
            let zeros = b.full(0.0, &[rows, dim]);
            dq.store(b, start, zeros, bound);
            vec![]
        })
    });

    b.for_loop(first, end, cols, &[], |b, keys, _| {
        b.name(keys, "k_start");
        let key_bound = bound(b, seq, keys, cols);
        let k_tile = k.load(b, keys, cols, key_bound);
        let v_tile = v.load(b, keys, cols, key_bound);
        // Loaded by itself, so that the other copy can be one for products with a transposed operand.
        let scaled = k.load(b, keys, cols, key_bound);
        let scaled = b.scale(scaled, spec.scale);
        b.name(scaled, "k_scaled");
        let [dk_acc, dv_acc] = ["dk_acc", "dv_acc"].map(|name| {
            let zeros = b.full(0.0, &[cols, dim]);
            b.name(zeros, name)
        });
        let done = for_group(b, group, &[dk_acc, dv_acc], |b, member, carried| {
            let head = group_head(b, kv_head, group, member);
            let q = HeadRows::new(b, q, spec.q, dim, batch, head);
            let dout = HeadRows::new(b, dout, spec.dout, dim, batch, head);
            let dq = HeadRows::new(b, dq, spec.dq, dim, batch, head);
            let line = b.scale_index(batch, heads);
            let line = b.add(line, head);
            let line = b.scale_index(line, seq);
            let step = |b: &mut Builder, start: ValueId, masked: bool, carried: &[ValueId]| {
                b.name(start, "q_start");
                let bound = bound(b, seq, start, rows);
                let q_tile = q.load(b, start, rows, bound);
                let dout_tile = dout.load(b, start, rows, bound);
                let at = b.add(line, start);
                let lse = b.load(lse, at, &[rows], &[(1, bound)]);
                let delta = b.load(delta, at, &[rows], &[(1, bound)]);
                let s = spec.kept.product(b, k_tile, q_tile);
                let s = if masked { spec.kept.hide_future(b, s, keys, start, false) } else { s };
                // Keys beyond the sequence are hidden with those behind the queries, where such are hidden. Elsewhere they
                // would be of use to dQ only, but 0 times an infinite weight is no 0.
                let s = match key_bound.filter(|_| !spec.causal) {
                    Some(bound) => spec.kept.hide_kept_from(b, s, bound),
                    None => s,
                };
                b.name(s, "scores");
                let dp = spec.kept.product(b, v_tile, dout_tile);
                b.name(dp, "dp");
                let shift = b.scale(lse, -LOG2_E);
                let [shift, delta] = [shift, delta].map(|vector| spec.kept.expand_walked(b, vector, cols));
                let p = scaled_exp(b, s, spec.scale, shift);
                b.name(p, "weights");
                let ds = gradient_of_scores(b, p, dp, delta);
                b.name(ds, "ds");
                let before = dq.load(b, start, rows, bound);
                let after = b.dot(ds, spec.kept == Kept::Left, scaled, false, Some(before));
                dq.store(b, start, after, bound);
                let dv = spec.kept.weigh(b, p, dout_tile, carried[1]);
                let dk = spec.kept.weigh(b, ds, q_tile, carried[0]);
                vec![dk, dv]
            };
            spec.walk_queries(b, keys, carried, step)
        });
        let result = b.scale(done[0], spec.scale);
        dk.store(b, keys, result, key_bound);
        dv.store(b, keys, done[1], key_bound);
        vec![]
    });
    b.finish()
}
