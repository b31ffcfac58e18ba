//! The tokens of a prompt, many at once, before decoding: efficient attention that goes on from a recurrent state.
//!
//! A prompt is taken in blocks of N tokens. The first of a block is at position `pos` and goes on from state `slot`, numbers in
//! memory as in [`super::efficient_decode`], whose state this is. Where chunks are computed in parallel,
//! [`super::efficient_prefill_prefix`] and [`super::efficient_prefill_out`] go on from it.

use super::forward::{EfficientForwardSpec, Queries};
use super::key_chunk::{KeyChunk, first_reference};
use super::state::{Carried, StoredState};
use crate::builder::Builder;
use crate::ir::{Elem, Kernel, Mode};
use crate::library::attention::common::{HeadRows, Places};

/// `(q, k, v, m [S, G, D], z [S, G, D], t [S, G, D, D], pos [B], slot [B]) -> out`: the chunks of
/// [`super::efficient_attention_forward`], from the recurrent state to the one after the block, in place;
/// at `pos` 0 the old m, z, t are ignored.
pub fn efficient_prefill(spec: &EfficientForwardSpec) -> Kernel {
    let (shape, dim) = (&spec.shape, spec.shape.head_dim);
    let name = spec.name("efficient_prefill", &[spec.q, spec.k, spec.v, spec.out]);
    let mut b = Builder::new(name, [shape.kv_heads, shape.batch, 1]);
    let q = b.param("q", spec.elem, Mode::Read);
    let k = b.param("k", spec.elem, Mode::Read);
    let v = b.param("v", spec.elem, Mode::Read);
    let state = ["m", "z", "t"].map(|name| b.param(name, Elem::F32, Mode::ReadWrite));
    let places = Places::params(&mut b);
    let out = b.param("out", spec.elem, Mode::Write);

    let (kv_head, batch) = (b.program_id(0), b.program_id(1));
    let (pos, slot) = places.load(&mut b, batch);
    let state = StoredState::new(&mut b, state, shape, slot, kv_head);
    let k = HeadRows::new(&mut b, k, spec.k, dim, batch, kv_head);
    let v = HeadRows::new(&mut b, v, spec.v, dim, batch, kv_head);
    let queries = Queries { spec, q, out, batch, kv_head };
    let (zero, end) = (b.index(0), b.index(shape.seq));
    let before = state.load(&mut b, pos, |b| first_reference(b, spec.elem, &k, zero, spec.temperature));
    let init = [before.m, before.z, before.t];
    let done = b.for_loop(zero, end, spec.chunk, &init, |b, start, carried| {
        let before = Carried { m: carried[0], z: carried[1], t: carried[2] };
        let before = before.normalised_for(b, spec.elem);
        let chunk = KeyChunk::load(b, &k, &v, shape.seq, spec.chunk, spec.temperature, start);
        queries.walk(b, &k, &chunk, &before)
    });
    state.store(&mut b, &Carried { m: done[0], z: done[1], t: done[2] });
    b.finish()
}
