//! The last kernel of the chunk-parallel backward ([`super::backward`]): what needs the later
//! chunks, and dV, which needs the attention matrix of the forward pass again.

use super::ChunkHead;
use super::key_block::{KeyBlock, QuerySoftmax};
use crate::builder::Builder;
use crate::ir::{Binary, Compare, Elem, Kernel, Mode, ValueId};
use crate::library::attention::common::{HeadShape, with_each_row};
use crate::library::attention::efficient::backward::EfficientBackwardSpec;
use crate::library::attention::efficient::feature_softmax::temper;
use crate::library::attention::efficient::key_chunk::{narrow_future, of_future};

/// `(q, k, v, ell, dout, d, rho, dk_part, [positions]) -> (dk, dv)`, where `d` and `rho` are of the later chunks, seen from the
/// end of each.
///
/// Live tiles: dV, `A`, P and `1/Z`, later dV, a bracket and the weights of the keys; but for dV and `A` of all features or
/// of a block. The slow path has as many: M and a column's weights in place of P and `1/Z`.
pub fn efficient_attention_grads(spec: &EfficientBackwardSpec) -> Kernel {
    let sizes = spec.sizes().for_whole_head();
    let HeadShape { batch, kv_heads, head_dim: dim, .. } = spec.shape;
    let strides = [spec.q, spec.k, spec.v, spec.dout, spec.dk, spec.dv];
    let name = spec.name("efficient_attention_grads", &strides);
    let mut b = Builder::new(name, [sizes.chunks(), kv_heads, batch]);
    let q = b.param("q", spec.elem, Mode::Read);
    let k = b.param("k", spec.elem, Mode::Read);
    let v = b.param("v", spec.elem, Mode::Read);
    let ell = b.param("ell", Elem::F32, Mode::Read);
    let dout = b.param("dout", spec.elem, Mode::Read);
    let d = b.param("d", Elem::F32, Mode::Read);
    let rho = b.param("rho", Elem::F32, Mode::Read);
    let dk_part = b.param("dk_part", Elem::F32, Mode::Read);
    let positions = sizes.positions(&mut b);
    let dk = b.param("dk", spec.elem, Mode::Write);
    let dv = b.param("dv", spec.elem, Mode::Write);
    let index = b.program_id(0);
    let chunk = ChunkHead::new(&mut b, sizes, index).apart(&mut b, positions);
    let k = chunk.rows(&mut b, k, spec.k);
    let v = chunk.rows(&mut b, v, spec.v);
    let dk_part = chunk.part_rows(&mut b, dk_part);
    let dk = chunk.rows(&mut b, dk, spec.dk);
    let dv = chunk.rows(&mut b, dv, spec.dv);
    let saved = chunk.states(&mut b, ell, d);
    let future = chunk.states(&mut b, rho, d);

    let only = (sizes.blocks() == 1).then(|| {
        let first = b.index(0);
        KeyBlock::new(&mut b, &chunk, &k, &saved, first)
    });
    let init = b.full(0.0, &[spec.chunk, dim]);
    let done = chunk.each_query_head(&mut b, &[init], |b, head, carried| {
        let q = chunk.query_rows(b, q, spec.q, head);
        let dout = chunk.query_rows(b, dout, spec.dout, head);
        let p = QuerySoftmax::new(b, &chunk, q);
        let g = chunk.load(b, &dout);
        let init = b.full(0.0, &[spec.chunk, spec.chunk]);
        let a = sizes.each_block(b, &[init], |b, first, carried| {
            let fresh = only.is_none().then(|| KeyBlock::new(b, &chunk, &k, &saved, first));
            let keys = only.as_ref().or(fresh.as_ref()).expect("one of the two");
            let p = p.block(b, &chunk, first);
            vec![keys.scores(b, &chunk, p, carried[0])[1]]
        });
        let a = chunk.hide(b, a[0]);
        let a = b.cast(a, spec.elem);
        vec![b.dot(a, true, g, false, Some(carried[0]))]
    });

    let values = chunk.load(&mut b, &v);
    let width = sizes.width;
    let done = sizes.each_block(&mut b, &done, |b, first, carried| {
        let (k, part, dk) =
            (k.features(b, first, width), dk_part.features(b, first, width), dk.features(b, first, width));
        let (saved, future) = (saved.features(first, width), future.features(first, width));
        let end = end_of_chunk(b, &chunk, |b, next| saved.load_ell(b, next));
        let keys = chunk.keys_of_tail(b, &k);
        let late = with_each_row(b, Binary::Sub, keys, end);
        let late = b.exp(late);
        let late_small = of_future(b, spec.elem, late);
        let late_small = b.cast(late_small, spec.elem);
        let d = future.load_state(b, chunk.index);
        let d = narrow_future(b, spec.elem, d);
        let dv = b.dot(late_small, false, d, false, Some(carried[0]));
        let bracket = b.dot(values, false, d, true, None);
        let bracket = of_future(b, spec.elem, bracket);
        let rho = future.load_ell(b, chunk.index);
        let bracket = with_each_row(b, Binary::Sub, bracket, rho);
        let part = chunk.load_f32(b, &part);
        let total = b.fma(late, bracket, part);
        let total = temper(b, total, spec.temperature);
        chunk.store(b, &dk, total);
        vec![dv]
    });
    chunk.store(&mut b, &dv, done[0]);
    b.finish()
}

/// L at the end of the chunk, `[F]`: that before the next chunk, or ∞ after the last, which has no future.
fn end_of_chunk(
    b: &mut Builder,
    chunk: &ChunkHead,
    load: impl FnOnce(&mut Builder, ValueId) -> ValueId,
) -> ValueId {
    let one = b.index(1);
    let next = b.add(chunk.index, one);
    let count = b.index(chunk.sizes.chunks());
    let exists = b.compare(Compare::Lt, next, count);
    let width = chunk.sizes.width;
    b.if_else(exists, |b| vec![load(b, next)], |b| vec![b.full(f64::INFINITY, &[width])])[0]
}
