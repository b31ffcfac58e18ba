//! Forward, and one token of it.

use super::{EluAttentionSpec, States, features, key_features, normaliser};
use crate::builder::Builder;
use crate::ir::{Compare, Elem, Kernel, Mode, Unary, ValueId};
use crate::library::attention::common::{
    GroupTile, HeadRows, HeadShape, Places, Triangle, for_group, group_head, scale_rows,
};
use crate::library::bound;

/// `(q, k, v) -> (out, z [B, G, S, D], state [B, G, S, D, D])`, causal.
pub fn elu_attention_forward(spec: &EluAttentionSpec) -> Kernel {
    let EluAttentionSpec { elem, shape, chunk, .. } = *spec;
    let HeadShape { seq, head_dim: dim, .. } = shape;
    let (mut b, kv_head, batch) = spec.builder("elu_attention_forward", 4);
    let [q, k, v] = ["q", "k", "v"].map(|name| b.param(name, elem, Mode::Read));
    let out = b.param("out", elem, Mode::Write);
    let states = ["z", "state"].map(|name| b.param(name, Elem::F32, Mode::Write));
    let saved = States::new(&mut b, states, &shape, seq.div_ceil(chunk), [batch, kv_head]);
    let k = spec.rows(&mut b, k, 1, batch, kv_head);
    let v = spec.rows(&mut b, v, 2, batch, kv_head);
    let init = [b.full(0.0, &[dim]), b.full(0.0, &[dim, dim])];
    let (zero, end) = (b.index(0), b.index(seq));
    b.for_loop(zero, end, chunk, &init, |b, start, before| {
        let [z, state] = *before else { unreachable!("two are carried") };
        let size = b.index(chunk);
        let index = b.div(start, size);
        saved.store(b, index, [z, state]);
        let bound = bound(b, seq, start, chunk);
        let keys = k.load_f32(b, start, chunk, bound);
        let keys = key_features(b, keys, bound);
        let values = v.load(b, start, chunk, bound);
        let (keys_small, state_small) = (b.cast(keys, elem), b.cast(state, elem));
        for_group(b, shape.group(), &[], |b, member, _| {
            let head = group_head(b, kv_head, shape.group(), member);
            let q = spec.rows(b, q, 0, batch, head);
            let x = q.load_f32(b, start, chunk, bound);
            let (queries, _) = features(b, x);
            let queries_small = b.cast(queries, elem);
            let inter = b.dot(queries_small, false, state_small, false, None);
            let a = b.dot(queries_small, false, keys_small, true, None);
            let a = Triangle { fill: 0.0, lower: true }.apply(b, a, None);
            let c = normaliser(b, queries, z, a);
            let a = b.cast(a, elem);
            let n = b.dot(a, false, values, false, Some(inter));
            let inverse = b.unary(Unary::Recip, c);
            let result = scale_rows(b, n, inverse);
            spec.rows(b, out, 3, batch, head).store(b, start, result, bound);
            vec![]
        });
        let fresh = b.sum(0, keys);
        vec![b.add(z, fresh), b.dot(keys_small, true, values, false, Some(state))]
    });
    b.finish()
}

/// `(q, k, v, z [S, G, D], state [S, G, D, D], pos [B], slot [B]) -> out`: one token of each sequence, with the sums of its
/// slot updated in place; at `pos` 0 the old ones are ignored. Both are numbers in memory, so one kernel serves every step.
pub fn elu_decode(spec: &EluAttentionSpec) -> Kernel {
    let EluAttentionSpec { elem, shape, .. } = *spec;
    let (dim, rows) = (shape.head_dim, shape.group());
    let (mut b, kv_head, batch) = spec.builder("elu_decode", 4);
    let [q, k, v] = ["q", "k", "v"].map(|name| b.param(name, elem, Mode::Read));
    let states = ["z", "state"].map(|name| b.param(name, Elem::F32, Mode::ReadWrite));
    let places = Places::params(&mut b);
    let out = b.param("out", elem, Mode::Write);
    let (pos, slot) = places.load(&mut b, batch);
    let states = States::new(&mut b, states, &shape, 1, [slot, kv_head]);
    let zero = b.index(0);
    let row = |b: &mut Builder, rows: HeadRows| rows.load_row(b, zero);
    let key = spec.rows(&mut b, k, 1, batch, kv_head);
    let key = row(&mut b, key);
    let (key, _) = features(&mut b, key);
    let value = spec.rows(&mut b, v, 2, batch, kv_head);
    let value = row(&mut b, value);
    let is_first = b.compare(Compare::Eq, pos, zero);
    let old = b.if_else(
        is_first,
        |b| vec![b.full(0.0, &[dim]), b.full(0.0, &[dim, dim])],
        |b| states.load(b, zero).to_vec(),
    );
    let z = b.add(old[0], key);
    let (column, line) = (b.expand_cols(key, dim), b.expand_rows(value, dim));
    let state = b.fma(column, line, old[1]);
    states.store(&mut b, zero, [z, state]);
    let group = GroupTile::new(&mut b, &shape, rows, batch, kv_head);
    let x = group.load(&mut b, q, spec.strides[0]);
    let x = b.cast(x, Elem::F32);
    let (queries, _) = features(&mut b, x);
    let n = b.dot(queries, false, state, false, None);
    let z: ValueId = b.expand_rows(z, rows);
    let c = b.mul(queries, z);
    let c = b.sum(1, c);
    let inverse = b.unary(Unary::Recip, c);
    let result = scale_rows(&mut b, n, inverse);
    group.store(&mut b, out, spec.strides[3], result);
    b.finish()
}
