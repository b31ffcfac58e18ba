//! The states between the chunks.
//!
//! The state is a monoid, so each chunk makes its own in parallel ([`efficient_attention_chunk_states`] forward,
//! [`super::backward`] backward), and a walk over the chunks, in place, gives each the sum of
//! those before it ([`efficient_attention_prefix`]) or after it ([`efficient_attention_suffix`]). The walks touch little
//! memory but have a long chain; a program takes few features, so that there are many, and loads several chunks at
//! once, so that it waits for memory only once for them.

use super::{ChunkHead, Sizes};
use crate::builder::Builder;
use crate::ir::{Binary, Elem, Kernel, Mode, ParamId, ValueId};
use crate::library::attention::common::{Documents, Places, mask_from, scale_rows, with_each_row};
use crate::library::attention::efficient::backward::EfficientBackwardSpec;
use crate::library::attention::efficient::documents::ChunkDocuments;
use crate::library::attention::efficient::forward::EfficientForwardSpec;
use crate::library::attention::efficient::state::{Carried, SavedStates, StoredState};
use crate::library::bound;

/// Features of a program of a walk.
const WALK_FEATURES: usize = 4;
/// Chunks that a walk loads at once.
const WALK_CHUNKS: usize = 8;

/// `(k, v, [positions]) -> (ell [B, G, S, D], state [B, G, S, D, D])`: of each chunk's own keys, of those that are seen behind
/// it. Two tiles are live.
pub fn efficient_attention_chunk_states(spec: &EfficientForwardSpec) -> Kernel {
    let sizes = spec.sizes();
    let name = spec.name("efficient_attention_chunk_states", &[spec.k, spec.v]);
    let mut b = Builder::new(name, sizes.block_grid());
    let k = b.param("k", spec.elem, Mode::Read);
    let v = b.param("v", spec.elem, Mode::Read);
    let positions = sizes.positions(&mut b);
    let ell = b.param("ell", Elem::F32, Mode::Write);
    let state = b.param("state", Elem::F32, Mode::Write);
    let (chunk, first) = ChunkHead::with_block(&mut b, sizes);
    let chunk = chunk.apart(&mut b, positions);
    let k = chunk.rows(&mut b, k, spec.k).features(&mut b, first, sizes.width);
    let v = chunk.rows(&mut b, v, spec.v);
    let saved = chunk.states(&mut b, ell, state).features(first, sizes.width);
    let keys = chunk.keys_of_tail(&mut b, &k);
    let values = chunk.load(&mut b, &v);
    let m = b.reduce_max(0, keys);
    let weights = with_each_row(&mut b, Binary::Sub, keys, m);
    let weights = b.exp(weights);
    let z = b.sum(0, weights);
    let weights = b.cast(weights, spec.elem);
    let t = b.dot(weights, true, values, false, None);
    Carried { m, z, t }.save(&mut b, &saved, chunk.index);
    b.finish()
}

/// `(~ell, ~state, [positions])`, in place from each chunk's own to those of all keys before it, of the document of the token
/// before it; 0 for the first chunk.
pub fn efficient_attention_prefix(spec: &EfficientForwardSpec) -> Kernel {
    let sizes = spec.sizes();
    let mut b = Builder::new(spec.name("efficient_attention_prefix", &[]), walk_grid(&sizes));
    let ell = b.param("ell", Elem::F32, Mode::ReadWrite);
    let state = b.param("state", Elem::F32, Mode::ReadWrite);
    let documents = walk_documents(&mut b, &sizes);
    let states = walk_states(&mut b, &sizes, ell, state);
    let (z, t) = zeros(&mut b, &sizes);
    let m = no_key(&mut b);
    prefix(&mut b, &sizes, &states, documents, Carried { m, z, t });
    b.finish()
}

/// The same for a block of tokens that may not be the first: `(~ell, ~state, ~m [S, G, D], ~z, ~t [S, G, D, D], pos [B],
/// slot [B])`. The keys before the block are in the recurrent state `m`, `z`, `t` of the slot, ignored if `pos` is 0; it becomes that after the block.
pub fn efficient_prefill_prefix(spec: &EfficientForwardSpec) -> Kernel {
    let sizes = spec.sizes();
    let mut b = Builder::new(spec.name("efficient_prefill_prefix", &[]), walk_grid(&sizes));
    let ell = b.param("ell", Elem::F32, Mode::ReadWrite);
    let state = b.param("state", Elem::F32, Mode::ReadWrite);
    let stored = ["m", "z", "t"].map(|name| b.param(name, Elem::F32, Mode::ReadWrite));
    let places = Places::params(&mut b);
    let states = walk_states(&mut b, &sizes, ell, state);
    let (block, kv_head, batch) = (b.program_id(0), b.program_id(1), b.program_id(2));
    let first = b.scale_index(block, WALK_FEATURES);
    let (pos, slot) = places.load(&mut b, batch);
    let stored = StoredState::new(&mut b, stored, &sizes.shape, slot, kv_head);
    let stored = stored.features(&mut b, first, WALK_FEATURES);
    let before = stored.load(&mut b, pos, no_key);
    let after = prefix(&mut b, &sizes, &states, None, before);
    stored.store(&mut b, &after);
    b.finish()
}

/// No key is the largest so far.
fn no_key(b: &mut Builder) -> ValueId {
    b.full(f64::NEG_INFINITY, &[WALK_FEATURES])
}

/// Walks over the chunks from what is before them; returns what is after them.
fn prefix(
    b: &mut Builder,
    sizes: &Sizes,
    states: &SavedStates,
    documents: Option<Documents>,
    before: Carried,
) -> Carried {
    let walk = Walk { count: sizes.chunks(), from_end: false };
    let load = |b: &mut Builder, at: &Stop| {
        let states = at.window(states);
        let ell = states.load_ell(b, at.index);
        // A chunk that does not exist must leave no trace in what comes after the last one.
        let ell = match at.bound {
            Some(bound) => mask_from(b, ell, 0, bound, f64::NEG_INFINITY),
            None => ell,
        };
        vec![ell, states.load_state(b, at.index)]
    };
    let done = walk.run(b, &[before.m, before.z, before.t], load, |b, at, own, carried| {
        let before = Carried { m: carried[0], z: carried[1], t: carried[2] };
        before.save(b, &at.window(states), at.index);
        let before = match documents.map(|documents| at.documents(b, sizes, documents)) {
            Some(chunk) => Carried {
                m: chunk.carried(b, before.m, f64::NEG_INFINITY),
                z: chunk.carried(b, before.z, 0.0),
                t: chunk.carried(b, before.t, 0.0),
            },
            None => before,
        };
        let m = b.max(before.m, own[0]);
        let decay = b.sub(before.m, m);
        let decay = b.exp(decay);
        let fresh = b.sub(own[0], m);
        let fresh = b.exp(fresh);
        let z = b.fma(before.z, decay, fresh);
        let t = scale_rows(b, before.t, decay);
        let fresh = b.expand_cols(fresh, sizes.shape.head_dim);
        vec![m, z, b.fma(own[1], fresh, t)]
    });
    Carried { m: done[0], z: done[1], t: done[2] }
}

/// `(ell, ~d, ~rho, [positions])`, in place from what each chunk adds to `(d, rho)`, seen from its start, to the sum of what all
/// later chunks add, seen from its end; 0 for the last chunk.
pub fn efficient_attention_suffix(spec: &EfficientBackwardSpec) -> Kernel {
    let sizes = spec.sizes();
    let mut b = Builder::new(spec.name("efficient_attention_suffix", &[]), walk_grid(&sizes));
    let ell = b.param("ell", Elem::F32, Mode::Read);
    let d = b.param("d", Elem::F32, Mode::ReadWrite);
    let rho = b.param("rho", Elem::F32, Mode::ReadWrite);
    let documents = walk_documents(&mut b, &sizes);
    let befores = walk_states(&mut b, &sizes, ell, d);
    let futures = walk_states(&mut b, &sizes, rho, d);
    let (no_rho, no_d) = zeros(&mut b, &sizes);
    // Nothing comes after the last chunk: whatever refers to its end has weight exp(x − ∞) = 0.
    let end = b.full(f64::INFINITY, &[WALK_FEATURES]);
    let walk = Walk { count: sizes.chunks(), from_end: true };
    let load = |b: &mut Builder, at: &Stop| {
        let ell = at.window(&befores).load_ell(b, at.index);
        let futures = at.window(&futures);
        vec![ell, futures.load_ell(b, at.index), futures.load_state(b, at.index)]
    };
    walk.run(&mut b, &[end, no_rho, no_d], load, |b, at, own, carried| {
        let [ell, own_rho, own_d] = own[..] else { unreachable!("three are loaded") };
        let [end, rho, d] = carried[..] else { unreachable!("three are carried") };
        at.window(&futures).store(b, at.index, rho, d);
        let decay = b.sub(ell, end);
        let decay = b.exp(decay);
        let decay = match documents.map(|documents| at.documents(b, &sizes, documents)) {
            Some(chunk) => chunk.carried(b, decay, 0.0),
            None => decay,
        };
        let rho = b.fma(rho, decay, own_rho);
        let decay = b.expand_cols(decay, sizes.shape.head_dim);
        vec![ell, rho, b.fma(d, decay, own_d)]
    });
    b.finish()
}

/// A program for some features of each head.
fn walk_grid(sizes: &Sizes) -> [usize; 3] {
    [sizes.shape.head_dim / WALK_FEATURES, sizes.shape.kv_heads, sizes.shape.batch]
}

/// The pairs of this program's head, its features only.
fn walk_states(b: &mut Builder, sizes: &Sizes, vector: ParamId, matrix: ParamId) -> SavedStates {
    let (block, kv_head, batch) = (b.program_id(0), b.program_id(1), b.program_id(2));
    let first = b.scale_index(block, WALK_FEATURES);
    let states = SavedStates::new(b, vector, matrix, &sizes.shape, sizes.chunks(), batch, kv_head);
    states.features(first, WALK_FEATURES)
}

/// The documents of this program's sequence, where they are kept apart: declares their parameter.
fn walk_documents(b: &mut Builder, sizes: &Sizes) -> Option<Documents> {
    let positions = sizes.positions(b)?;
    let batch = b.program_id(2);
    Some(Documents::new(b, positions, &sizes.shape, batch))
}

/// A vector and a matrix of zeros for this program's features.
fn zeros(b: &mut Builder, sizes: &Sizes) -> (ValueId, ValueId) {
    (b.full(0.0, &[WALK_FEATURES]), b.full(0.0, &[WALK_FEATURES, sizes.shape.head_dim]))
}

/// A chunk on a walk.
struct Stop {
    /// Its number, Index; some number if it does not exist.
    index: ValueId,
    /// Bound of the features: none exist in a chunk that does not.
    bound: Option<ValueId>,
}

impl Stop {
    /// Which documents its tokens are of; of a chunk that does not exist, those of some token that does.
    fn documents(&self, b: &mut Builder, sizes: &Sizes, documents: Documents) -> ChunkDocuments {
        let start = b.scale_index(self.index, sizes.chunk);
        ChunkDocuments::new(b, documents, sizes.shape.seq, sizes.chunk, start, None)
    }

    fn window(&self, states: &SavedStates) -> SavedStates {
        states.bounded(self.bound)
    }
}

/// A walk over the chunks.
struct Walk {
    count: usize,
    from_end: bool,
}

impl Walk {
    /// Carries values over the chunks: `step(builder, chunk, what load gave for it, carried)`.
    fn run(
        &self,
        b: &mut Builder,
        init: &[ValueId],
        load: impl Fn(&mut Builder, &Stop) -> Vec<ValueId>,
        step: impl Fn(&mut Builder, &Stop, &[ValueId], &[ValueId]) -> Vec<ValueId>,
    ) -> Vec<ValueId> {
        let round = WALK_CHUNKS.min(self.count);
        let (zero, end, last) = (b.index(0), b.index(self.count), b.index(self.count - 1));
        b.for_loop(zero, end, round, init, |b, start, carried| {
            let left = bound(b, self.count, start, round);
            let stops: Vec<Stop> = (0..round)
                .map(|i| {
                    let i = b.index(i);
                    let at = b.add(start, i);
                    let bound = left.map(|left| {
                        let left = b.sub(left, i);
                        b.scale_index(left, WALK_FEATURES)
                    });
                    Stop { index: if self.from_end { b.sub(last, at) } else { at }, bound }
                })
                .collect();
            let loaded: Vec<Vec<ValueId>> = stops.iter().map(|stop| load(b, stop)).collect();
            stops
                .iter()
                .zip(&loaded)
                .fold(carried.to_vec(), |carried, (stop, loaded)| step(b, stop, loaded, &carried))
        })
    }
}
