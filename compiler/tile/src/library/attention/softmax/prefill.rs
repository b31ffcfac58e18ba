//! The tokens of a prompt, many at once, before decoding: softmax attention that goes on from a KV cache.
//!
//! A prompt is taken in blocks of N tokens. The first of a block is at position `pos` of the caches `slot`, numbers in memory
//! as in [`super::softmax_decode`], whose caches these are; the caller keeps `pos` + N within the length of the caches.

use super::forward::SoftmaxForwardSpec;
use super::online::KeyWalk;
use crate::builder::Builder;
use crate::ir::{Kernel, Mode};
use crate::library::attention::common::{HeadRows, HeadStrides, Places, QueryBlock, strides_tag};
use crate::library::{bound, number, tag};

/// What [`append_to_cache`] and [`softmax_prefill`] compute and how.
#[derive(Clone, PartialEq, Debug)]
pub struct SoftmaxPrefillSpec {
    /// Of the fresh tokens, causal. The caches have its element type.
    pub forward: SoftmaxForwardSpec,
    /// Length L of the caches, at least that of the block.
    pub len: usize,
}

impl SoftmaxPrefillSpec {
    fn cache_strides(&self) -> HeadStrides {
        let shape = &self.forward.shape;
        HeadStrides::contiguous(self.len, shape.kv_heads, shape.head_dim)
    }
}

/// `(k, v, kcache [S, L, G, D], vcache, pos [B], slot [B])`: writes the fresh keys and values into the caches from `pos` on.
pub fn append_to_cache(spec: &SoftmaxPrefillSpec) -> Kernel {
    let forward = &spec.forward;
    let (shape, rows) = (&forward.shape, forward.block_k);
    let name = format!(
        "append_to_cache_{}_{}_l{}_k{rows}_{}",
        tag(forward.elem),
        shape.tag(),
        spec.len,
        strides_tag(&[forward.k, forward.v]),
    );
    shape.check(&name);
    let mut b = Builder::new(name, [shape.seq.div_ceil(rows), shape.kv_heads, shape.batch]);
    let k = b.param("k", forward.elem, Mode::Read);
    let v = b.param("v", forward.elem, Mode::Read);
    let kcache = b.param("kcache", forward.elem, Mode::Write);
    let vcache = b.param("vcache", forward.elem, Mode::Write);
    let places = Places::params(&mut b);
    let (block, kv_head, batch) = (b.program_id(0), b.program_id(1), b.program_id(2));
    let start = b.scale_index(block, rows);
    let bound = bound(&mut b, shape.seq, start, rows);
    let (pos, slot) = places.load(&mut b, batch);
    let at = b.add(pos, start);
    for (fresh, strides, cache) in [(k, forward.k, kcache), (v, forward.v, vcache)] {
        let fresh = HeadRows::new(&mut b, fresh, strides, shape.head_dim, batch, kv_head);
        let cache = HeadRows::new(&mut b, cache, spec.cache_strides(), shape.head_dim, slot, kv_head);
        let tile = fresh.load(&mut b, start, rows, bound);
        cache.store(&mut b, at, tile, bound);
    }
    b.finish()
}

/// `(q, kcache [S, L, G, D], vcache, pos [B], slot [B]) -> out`: the query of token `i` attends over positions `0..=pos + i`, which the
/// caches have.
pub fn softmax_prefill(spec: &SoftmaxPrefillSpec) -> Kernel {
    let forward = &spec.forward;
    let (shape, dim, elem) = (&forward.shape, forward.shape.head_dim, forward.elem);
    let (rows, cols) = (forward.block_q, forward.block_k);
    let name = format!(
        "softmax_prefill_{}_{}_l{}_s{}_q{rows}_k{cols}{}_{}",
        tag(elem),
        shape.tag(),
        spec.len,
        number(forward.scale),
        forward.kept.tag(),
        strides_tag(&[forward.q, forward.out]),
    );
    shape.check(&name);
    assert!(forward.causal && spec.len >= shape.seq, "{name}: caches of {} for {shape:?}", spec.len);
    let mut b = Builder::new(name, [shape.seq.div_ceil(rows), shape.heads, shape.batch]);
    let q = b.param("q", elem, Mode::Read);
    let kcache = b.param("kcache", elem, Mode::Read);
    let vcache = b.param("vcache", elem, Mode::Read);
    let places = Places::params(&mut b);
    let out = b.param("out", elem, Mode::Write);

    let place = QueryBlock::new(&mut b, shape, rows, true);
    let (pos, slot) = places.load(&mut b, place.batch);
    let q = HeadRows::new(&mut b, q, forward.q, dim, place.batch, place.head);
    let k = HeadRows::new(&mut b, kcache, spec.cache_strides(), dim, slot, place.kv_head);
    let v = HeadRows::new(&mut b, vcache, spec.cache_strides(), dim, slot, place.kv_head);
    let out = HeadRows::new(&mut b, out, forward.out, dim, place.batch, place.head);
    let q_tile = q.load(&mut b, place.start, rows, place.bound);
    let start = b.add(pos, place.start);
    let tokens = b.index(shape.seq);
    let end = Some(b.add(pos, tokens));
    let kept = spec.forward.kept;
    let walk = KeyWalk { seq: spec.len, end, rows, cols, causal: true, documents: None, start, kept };
    let attended = walk.attend(&mut b, elem, forward.scale, q_tile, &k, &v);
    out.store(&mut b, place.start, attended.result, place.bound);
    b.finish()
}
