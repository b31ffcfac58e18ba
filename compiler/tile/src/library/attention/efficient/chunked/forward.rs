//! Causal efficient attention, forward, all chunks in parallel. Three kernels share the work: [`super::states`] has the two
//! that give each chunk the state before it, the one here has a program for each chunk.
//!
//! A block contributes `q̃ state` and a part of the attention matrix `A`; `tril(A) V` comes last.

use super::ChunkHead;
use super::key_block::{KeyBlock, QuerySoftmax};
use crate::builder::Builder;
use crate::ir::{Elem, Kernel, Mode, ValueId};
use crate::library::attention::common::HeadShape;
use crate::library::attention::efficient::forward::EfficientForwardSpec;
use crate::library::load_index;

/// `(q, k, v, ell, state, [positions]) -> out`, where `ell` and `state` are of the keys before each chunk.
///
/// Live tiles: `1/Z`, `q̃`, `A` and the output, of all features, or the first two of a block. The slow path has as many: M and
/// a column's weights in place of the first two.
pub fn efficient_attention_out(spec: &EfficientForwardSpec) -> Kernel {
    out(spec, false)
}

/// The same for a block of tokens that may not be the first: `(q, k, v, ell, state, pos [B]) -> out`. There are keys before the
/// first chunk unless `pos` is 0.
pub fn efficient_prefill_out(spec: &EfficientForwardSpec) -> Kernel {
    out(spec, true)
}

/// How a block adds to the attention matrix: [`KeyBlock::scores_fast`] or [`KeyBlock::scores_slow`].
type Scores = fn(&KeyBlock, &mut Builder, &ChunkHead, ValueId, ValueId) -> [ValueId; 2];

fn out(spec: &EfficientForwardSpec, goes_on: bool) -> Kernel {
    let sizes = spec.sizes().for_whole_head();
    let HeadShape { batch, kv_heads, head_dim: dim, .. } = spec.shape;
    let kernel = if goes_on { "efficient_prefill_out" } else { "efficient_attention_out" };
    let name = spec.name(kernel, &[spec.q, spec.k, spec.v, spec.out]);
    let mut b = Builder::new(name, [sizes.chunks(), kv_heads, batch]);
    let q = b.param("q", spec.elem, Mode::Read);
    let k = b.param("k", spec.elem, Mode::Read);
    let v = b.param("v", spec.elem, Mode::Read);
    let ell = b.param("ell", Elem::F32, Mode::Read);
    let state = b.param("state", Elem::F32, Mode::Read);
    let pos = goes_on.then(|| b.param("pos", Elem::I32, Mode::Read));
    let positions = sizes.positions(&mut b);
    let out = b.param("out", spec.elem, Mode::Write);
    let index = b.program_id(0);
    let pos = pos.map(|pos| {
        let batch = b.program_id(2);
        load_index(&mut b, pos, batch)
    });
    let chunk = ChunkHead::new(&mut b, sizes, index).after(pos).apart(&mut b, positions);
    let k = chunk.rows(&mut b, k, spec.k);
    let v = chunk.rows(&mut b, v, spec.v);
    let saved = chunk.states(&mut b, ell, state);
    let values = chunk.load(&mut b, &v);
    let side = |b: &mut Builder, first| {
        let keys = KeyBlock::new(b, &chunk, &k, &saved, first);
        let state = saved.features(first, sizes.width).load_state(b, chunk.index);
        (keys, b.cast(state, spec.elem))
    };
    let finish = |b: &mut Builder, head, a, sum| {
        let a = chunk.hide(b, a);
        let a = b.cast(a, spec.elem);
        let result = b.dot(a, false, values, false, Some(sum));
        let out = chunk.query_rows(b, out, spec.out, head);
        chunk.store(b, &out, result);
    };
    let zeros = |b: &mut Builder| [b.full(0.0, &[spec.chunk, dim]), b.full(0.0, &[spec.chunk, spec.chunk])];
    if sizes.blocks() == 1 {
        // The key side of an only block serves all query heads, and so does the choice of the path: the slow one has no
        // 1/Z to keep.
        let first = b.index(0);
        let (keys, state) = side(&mut b, first);
        let heads = |b: &mut Builder, scores: Scores| {
            chunk.each_query_head(b, &[], |b, head, _| {
                let q = chunk.query_rows(b, q, spec.q, head);
                let p = QuerySoftmax::new(b, &chunk, q).block(b, &chunk, first);
                let [sum, a] = zeros(b);
                let [q, a] = scores(&keys, b, &chunk, p, a);
                let q = chunk.rows_of_past(b, q);
                let q = b.cast(q, spec.elem);
                let sum = b.dot(q, false, state, false, Some(sum));
                finish(b, head, a, sum);
                vec![]
            })
        };
        b.if_else(keys.ok, |b| heads(b, KeyBlock::scores_fast), |b| heads(b, KeyBlock::scores_slow));
        return b.finish();
    }
    chunk.each_query_head(&mut b, &[], |b, head, _| {
        let q = chunk.query_rows(b, q, spec.q, head);
        let p = QuerySoftmax::new(b, &chunk, q);
        let init = zeros(b);
        let done = sizes.each_block(b, &init, |b, first, carried| {
            let (keys, state) = side(b, first);
            let p = p.block(b, &chunk, first);
            let [q, a] = keys.scores(b, &chunk, p, carried[1]);
            let q = chunk.rows_of_past(b, q);
            let q = b.cast(q, spec.elem);
            vec![b.dot(q, false, state, false, Some(carried[0])), a]
        });
        finish(b, head, done[1], done[0]);
        vec![]
    });
    b.finish()
}
