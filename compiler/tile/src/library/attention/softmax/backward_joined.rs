//! Softmax attention, backward, as one kernel: five products for each pair of blocks, where `dq` and `dkdv` take seven,
//! since both compute the scores and the gradient of the weights.
//!
//! A program owns a key/value head with its group of query heads, and walks over blocks of keys. It adds to dQ in memory,
//! which nobody else does, block by block in the order of the keys. There are few programs, so it is for CPUs.

use super::backward::{KeyBlock, SoftmaxBackwardSpec, SummedInMemory, inputs, write_key_gradients};
use crate::builder::Builder;
use crate::ir::{Elem, Kernel, Mode};
use crate::library::attention::common::{HeadRows, HeadShape, for_group, group_head};
use crate::library::bound;

/// `(q, k, v, dout, lse, delta) -> (dq, dk, dv)`, all f32.
pub fn softmax_attention_backward(spec: &SoftmaxBackwardSpec) -> Kernel {
    let HeadShape { batch, seq, kv_heads, head_dim: dim, .. } = spec.shape;
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
        let block = KeyBlock { batch, kv_head, start: keys, bound: key_bound, k: k_tile, v: v_tile };
        let queries = SummedInMemory { dq, scaled_keys: scaled };
        write_key_gradients(b, spec, [q, dout, lse, delta], &block, [dk, dv], Some(&queries));
        vec![]
    });
    b.finish()
}
