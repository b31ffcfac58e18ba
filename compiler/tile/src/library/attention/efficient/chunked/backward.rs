//! Causal efficient attention, backward, all chunks in parallel; the mathematics is that of
//! [`efficient_attention_backward`](crate::library::attention::efficient::efficient_attention_backward).
//!
//! The walk from the end becomes three kernels. [`efficient_attention_chunk_grads`] does what a chunk can do without knowing
//! the later ones: dQ, what the chunk adds to `d` and `rho`, and dK from its own queries. [`efficient_attention_suffix`]
//! gives each chunk the `d` and `rho` of the later ones. [`efficient_attention_grads`], the last, finishes dK and makes dV.
//!
//! Blocks of features need of each other only `delta = rowsum(P ⊙ dP)`. Where there are several,
//! [`efficient_attention_delta`] makes it first. `rowsum(out ⊙ dout)` is the same number, but not the same rounding: where P
//! is nearly 1, dQ is the small difference of dP and delta, and bf16 would leave little of it.
//!
//! [`efficient_attention_grads`]: super::efficient_attention_grads
//! [`efficient_attention_suffix`]: super::efficient_attention_suffix

use super::key_block::{KeyBlock, QuerySoftmax, column, rows_that_see};
use super::{ChunkHead, Sizes, WIDEST};
use crate::builder::Builder;
use crate::ir::{Elem, Kernel, Mode, ParamId, ValueId};
use crate::library::attention::common::{HeadRows, HeadShape};
use crate::library::attention::efficient::backward::EfficientBackwardSpec;
use crate::library::attention::efficient::feature_softmax::centred_grad;
use crate::library::attention::efficient::state::SavedStates;

/// Whether [`efficient_attention_chunk_grads`] has a place for `delta`: heads have several blocks of features.
pub fn takes_delta(spec: &EfficientBackwardSpec) -> bool {
    spec.sizes().blocks() > 1
}

/// Whether [`efficient_attention_delta`] has to make it: no program has all blocks of a head.
pub fn needs_delta(spec: &EfficientBackwardSpec) -> bool {
    own_sizes(spec).blocks() > 1
}

/// The blocks of the programs of [`efficient_attention_chunk_grads`].
fn own_sizes(spec: &EfficientBackwardSpec) -> Sizes {
    let (sizes, whole) = (spec.sizes(), spec.sizes().for_whole_head());
    if spec.whole && whole.blocks() == 1 { whole } else { sizes }
}

/// `(q, k, v, ell, state, dout, [positions]) -> delta [B, H, N]`: the row sums of `P ⊙ dP`, f32.
///
/// It decides for the same blocks as [`efficient_attention_chunk_grads`] whether products are exact: dQ is the difference of a
/// block's dP and of this sum, and means nothing where one is rounded and the other is not.
///
/// Live tiles, of one block: `1/Z`, dP and then P; two more in the slow path, of L and of dA.
pub fn efficient_attention_delta(spec: &EfficientBackwardSpec) -> Kernel {
    let sizes = spec.sizes();
    let HeadShape { batch, kv_heads, .. } = spec.shape;
    let name = spec.name("efficient_attention_delta", &[spec.q, spec.k, spec.v, spec.dout]);
    let mut b = Builder::new(name, [sizes.chunks(), kv_heads, batch]);
    let params = Params::declare(&mut b, &sizes);
    let delta = b.param("delta", Elem::F32, Mode::Write);
    let index = b.program_id(0);
    let chunk = ChunkHead::new(&mut b, sizes, index).apart(&mut b, params.positions);
    let head = Head::new(&mut b, spec, &chunk, &params);
    write_delta(&mut b, &head, delta, |block, b, query| block.dp(b, query));
    b.finish()
}

/// Writes the row sums of `P ⊙ dP` of all query heads of the group, with dP made as the gradients make it. P comes last, so
/// that it need not be kept beside what dP is made of.
fn write_delta(
    b: &mut Builder,
    head: &Head,
    delta: ParamId,
    dp: impl Fn(&Block, &mut Builder, &Query) -> ValueId,
) {
    let (chunk, sizes) = (head.chunk, head.chunk.sizes);
    chunk.each_query_head(b, &[], |b, number, _| {
        let query = Query::new(b, head, number);
        let none = b.full(0.0, &[sizes.chunk]);
        let sum = sizes.each_block(b, &[none], |b, first, carried| {
            let block = Block::new(b, head, first);
            let dp = dp(&block, b, &query);
            let p = query.p.block(b, chunk, first);
            let product = b.mul(p, dp);
            let part = b.sum(1, product);
            vec![b.add(carried[0], part)]
        });
        let at = chunk.row_offset(b, number);
        b.store(delta, at, sum[0], &[(1, chunk.bound)]);
        vec![]
    });
}

/// `(q, k, v, ell, state, dout, [positions], [delta]) -> (dq, d, rho, dk_part)`. A program for each chunk where it can have all
/// features, which then makes `delta` itself; else one for each block of them. `delta` if [`takes_delta`].
///
/// Live tiles: d, which is twice as large as others of 128 features, the sums of dK and of x, dP and P; in the slow path
/// those of a block of features.
pub fn efficient_attention_chunk_grads(spec: &EfficientBackwardSpec) -> Kernel {
    let (sizes, whole) = (spec.sizes(), !needs_delta(spec));
    let strides = [spec.q, spec.k, spec.v, spec.dout, spec.dq];
    let kind = if whole && takes_delta(spec) { "_whole" } else { "" };
    let name = spec.name(&format!("efficient_attention_chunk_grads{kind}"), &strides);
    let own = own_sizes(spec);
    let mut b = Builder::new(name, own.block_grid());
    let params = Params::declare(&mut b, &sizes);
    let mode = if whole { Mode::ReadWrite } else { Mode::Read };
    let delta = takes_delta(spec).then(|| b.param("delta", Elem::F32, mode));
    let dq = b.param("dq", spec.elem, Mode::Write);
    let d = b.param("d", Elem::F32, Mode::ReadWrite);
    let rho = b.param("rho", Elem::F32, Mode::Write);
    let dk_part = b.param("dk_part", Elem::F32, Mode::ReadWrite);

    let (chunk, first) = ChunkHead::with_block(&mut b, own);
    let chunk = chunk.apart(&mut b, params.positions);
    let head = Head::new(&mut b, spec, &chunk, &params);
    let block = Block::new(&mut b, &head, first);
    let results = Results { dq, d, rho, dk_part };
    let fast = |b: &mut Builder| {
        let delta = delta.filter(|_| !whole);
        Own::new(b, &block, delta, &results).fast(b);
        vec![]
    };
    let slow = |b: &mut Builder| {
        if !whole || !takes_delta(spec) {
            Own::new(b, &block, delta, &results).slow(b);
            return vec![];
        }
        // Blocks as narrow as those of other kernels: tiles of weights come on top.
        let chunk = chunk.in_blocks(sizes);
        let head = Head { chunk: &chunk, ..head };
        if let Some(delta) = delta {
            write_delta(b, &head, delta, |block, b, query| block.dp_slow(b, query));
        }
        sizes.each_block(b, &[], |b, first, _| {
            let block = Block::new(b, &head, first);
            Own::new(b, &block, delta, &results).slow(b);
            vec![]
        })
    };
    b.if_else(block.keys.ok, fast, slow);
    b.finish()
}

/// The operands of the kernels that need dP.
struct Params {
    q: ParamId,
    k: ParamId,
    v: ParamId,
    ell: ParamId,
    state: ParamId,
    dout: ParamId,
    positions: Option<ParamId>,
}

impl Params {
    fn declare(b: &mut Builder, sizes: &Sizes) -> Self {
        let elem = sizes.elem;
        Params {
            q: b.param("q", elem, Mode::Read),
            k: b.param("k", elem, Mode::Read),
            v: b.param("v", elem, Mode::Read),
            ell: b.param("ell", Elem::F32, Mode::Read),
            state: b.param("state", Elem::F32, Mode::Read),
            dout: b.param("dout", elem, Mode::Read),
            positions: sizes.positions(b),
        }
    }
}

/// One chunk of one key/value head, for dP.
#[derive(Clone, Copy)]
struct Head<'a> {
    spec: &'a EfficientBackwardSpec,
    chunk: &'a ChunkHead,
    params: &'a Params,
    k: HeadRows,
    saved: SavedStates,
    /// `[C, D]`
    values: ValueId,
}

impl<'a> Head<'a> {
    fn new(
        b: &mut Builder,
        spec: &'a EfficientBackwardSpec,
        chunk: &'a ChunkHead,
        params: &'a Params,
    ) -> Self {
        let k = chunk.rows(b, params.k, spec.k);
        let v = chunk.rows(b, params.v, spec.v);
        let saved = chunk.states(b, params.ell, params.state);
        let values = chunk.load(b, &v);
        Head { spec, chunk, params, k, saved, values }
    }
}

/// One query head.
struct Query {
    p: QuerySoftmax,
    /// `[C, D]`
    g: ValueId,
    /// `tril(dout Vᵀ)`, f32 `[C, C]`.
    da: ValueId,
    /// The same in the element type.
    da_small: ValueId,
}

impl Query {
    fn new(b: &mut Builder, head: &Head, number: ValueId) -> Self {
        let (spec, chunk) = (head.spec, head.chunk);
        let dout = chunk.query_rows(b, head.params.dout, spec.dout, number);
        let g = chunk.load(b, &dout);
        let da = b.dot(g, false, head.values, true, None);
        let da = chunk.hide(b, da);
        let da_small = b.cast(da, spec.elem);
        let q = chunk.query_rows(b, head.params.q, spec.q, number);
        Query { p: QuerySoftmax::new(b, chunk, q), g, da, da_small }
    }
}

/// One block of features of a head.
struct Block<'a> {
    head: &'a Head<'a>,
    keys: KeyBlock,
    /// In the element type, `[F, D]`.
    state: ValueId,
}

impl<'a> Block<'a> {
    fn new(b: &mut Builder, head: &'a Head<'a>, first: ValueId) -> Self {
        let chunk = head.chunk;
        let keys = KeyBlock::new(b, chunk, &head.k, &head.saved, first);
        let state = head.saved.features(first, chunk.sizes.width).load_state(b, chunk.index);
        Block { head, keys, state: b.cast(state, head.spec.elem) }
    }

    /// `dP ⊙ Z` `[C, F]` by matrix products, where they are exact.
    fn dp_fast(&self, b: &mut Builder, query: &Query) -> ValueId {
        let dp = b.dot(query.g, false, self.state, true, None);
        let dp = self.head.chunk.rows_of_past(b, dp);
        b.dot(query.da_small, false, self.keys.small, false, Some(dp))
    }

    /// L of every token, `[C, F]`.
    fn ends(&self, b: &mut Builder) -> ValueId {
        let Sizes { chunk, width, .. } = self.head.chunk.sizes;
        let zero = b.full(0.0, &[chunk, width]);
        self.keys.prefixes(b, self.head.chunk, zero)
    }

    /// dP `[C, F]`, by the way that is right for the block.
    fn dp(&self, b: &mut Builder, query: &Query) -> ValueId {
        let fast = |b: &mut Builder| {
            let dp = self.dp_fast(b, query);
            vec![b.mul(dp, self.keys.inverse)]
        };
        b.if_else(self.keys.ok, fast, |b| vec![self.dp_slow(b, query)])[0]
    }

    /// [`Block::dp`] key by key, for any keys.
    fn dp_slow(&self, b: &mut Builder, query: &Query) -> ValueId {
        let ends = self.ends(b);
        self.dp_by_keys(b, query, ends)
    }

    /// dP `[C, F]` key by key, for any keys; `ends` are those of [`Block::ends`].
    fn dp_by_keys(&self, b: &mut Builder, query: &Query, ends: ValueId) -> ValueId {
        let chunk = self.head.chunk;
        let dp = b.dot(query.g, false, self.state, true, None);
        let start = self.keys.weights_of_start(b, chunk, ends);
        let dp = b.mul(dp, start);
        let dp = chunk.rows_of_past(b, dp);
        let done = chunk.each_token(b, &[dp], |b, row, carried| {
            let weights = self.keys.weights_of(b, chunk, ends, row);
            let da = column(b, query.da, row);
            let da = b.expand_cols(da, chunk.sizes.width);
            vec![b.fma(weights, da, carried[0])]
        });
        done[0]
    }
}

/// Where the results of [`efficient_attention_chunk_grads`] go.
struct Results {
    dq: ParamId,
    d: ParamId,
    rho: ParamId,
    dk_part: ParamId,
}

/// A block of features whose gradients are made.
struct Own<'a> {
    block: &'a Block<'a>,
    /// The row sums of `P ⊙ dP`; without them the block has all features.
    delta: Option<ParamId>,
    dq: ParamId,
    /// Rows of the block, f32.
    dk_part: HeadRows,
    /// rho and d of the chunk's block.
    adds: SavedStates,
}

impl<'a> Own<'a> {
    fn new(b: &mut Builder, block: &'a Block<'a>, delta: Option<ParamId>, results: &Results) -> Self {
        let (chunk, first) = (block.head.chunk, block.keys.first);
        let width = chunk.sizes.width;
        let adds = chunk.states(b, results.rho, results.d).features(first, width);
        let dk_part = chunk.part_rows(b, results.dk_part).features(b, first, width);
        Own { block, delta, dq: results.dq, dk_part, adds }
    }

    /// d and rho of nothing.
    fn nothing(&self, b: &mut Builder) -> [ValueId; 2] {
        let Sizes { shape, width, .. } = self.block.head.chunk.sizes;
        [b.full(0.0, &[width, shape.head_dim]), b.full(0.0, &[width])]
    }

    /// Writes dQ of query head `number`.
    fn write_dq(&self, b: &mut Builder, number: ValueId, p: ValueId, dp: ValueId) {
        let Head { spec, chunk, .. } = *self.block.head;
        let delta = if let Some(delta) = self.delta {
            let at = chunk.row_offset(b, number);
            b.load(delta, at, &[spec.chunk], &[(1, chunk.bound)])
        } else {
            let product = b.mul(p, dp);
            b.sum(1, product)
        };
        let grad = centred_grad(b, p, dp, delta, spec.temperature);
        let dq = chunk.query_rows(b, self.dq, spec.dq, number);
        let dq = dq.features(b, self.block.keys.first, chunk.sizes.width);
        chunk.store(b, &dq, grad);
    }

    /// By matrix products. The order keeps few tiles alive.
    fn fast(&self, b: &mut Builder) {
        let (block, keys) = (self.block, &self.block.keys);
        let Head { spec, chunk, .. } = *block.head;
        // Until dK is known, its place keeps 1/Z, and that of a large d the sum of x: d needs the registers.
        chunk.store(b, &self.dk_part, keys.inverse);
        let dim = spec.shape.head_dim;
        let place = (chunk.sizes.width == dim && dim > WIDEST && spec.chunk <= dim)
            .then(|| self.adds.features(keys.first, spec.chunk));
        let [d, _] = self.nothing(b);
        let zero = b.full(0.0, &[spec.chunk, chunk.sizes.width]);
        let mut sums = vec![d, zero];
        match &place {
            Some(place) => place.store_state(b, chunk.index, zero),
            None => sums.push(zero),
        }
        let done = chunk.each_query_head(b, &sums, |b, number, carried| {
            let query = Query::new(b, block.head, number);
            let dp = block.dp_fast(b, &query);
            let inverse = chunk.load_f32(b, &self.dk_part);
            let dp = b.mul(dp, inverse);
            let p = query.p.block(b, chunk, keys.first);
            self.write_dq(b, number, p, dp);
            let inverse = chunk.load_f32(b, &self.dk_part);
            let q = b.mul(p, inverse);
            b.name(q, "q_tilde");
            let x = b.mul(q, dp);
            let before = place.as_ref().map_or_else(|| carried[2], |place| place.load_state(b, chunk.index));
            let x = b.add(before, x);
            let of_past = chunk.documents().map(|documents| {
                let q = documents.rows_of_past(b, q);
                b.cast(q, spec.elem)
            });
            let q = b.cast(q, spec.elem);
            if let Some(place) = &place {
                place.store_state(b, chunk.index, x);
            }
            let bracket = b.dot(query.da_small, true, q, false, Some(carried[1]));
            let d = b.dot(of_past.unwrap_or(q), true, query.g, false, Some(carried[0]));
            if place.is_some() { vec![d, bracket] } else { vec![d, bracket, x] }
        });
        let x = place.as_ref().map_or_else(|| done[2], |place| place.load_state(b, chunk.index));
        let rho = chunk.rows_of_past(b, x);
        let rho = b.sum(0, rho);
        let later = match chunk.documents() {
            Some(documents) => documents.running_sum(b, x, true),
            None => b.scan(0, true, x),
        };
        let bracket = b.sub(done[1], later);
        let k = keys.k_tilde(b, chunk);
        let dk = b.mul(k, bracket);
        chunk.store(b, &self.dk_part, dk);
        self.adds.store(b, chunk.index, rho, done[0]);
    }

    /// Key by key, safe for any keys.
    fn slow(&self, b: &mut Builder) {
        let (block, keys) = (self.block, &self.block.keys);
        let Head { spec, chunk, .. } = *block.head;
        let width = chunk.sizes.width;
        let zero = b.full(0.0, &[spec.chunk, width]);
        chunk.store(b, &self.dk_part, zero);
        let ends = block.ends(b);
        let nothing = self.nothing(b);
        let done = chunk.each_query_head(b, &nothing, |b, number, carried| {
            let query = Query::new(b, block.head, number);
            let p = query.p.block(b, chunk, keys.first);
            let dp = block.dp_by_keys(b, &query, ends);
            chunk.each_token(b, &[], |b, row, _| {
                let weights = keys.weights_of(b, chunk, ends, row);
                let da = column(b, query.da, row);
                let da = b.expand_cols(da, width);
                let term = b.sub(da, dp);
                let term = b.mul(p, term);
                let term = b.mul(weights, term);
                let term = rows_that_see(b, chunk, term, row);
                let term = b.sum(0, term);
                let token = b.add(chunk.start, row);
                let sum = self.dk_part.load_row(b, token);
                let sum = b.add(sum, term);
                self.dk_part.store_row(b, token, sum);
                vec![]
            });
            let start = keys.weights_of_start(b, chunk, ends);
            let q = b.mul(p, start);
            let q = chunk.rows_of_past(b, q);
            let x = b.mul(q, dp);
            let rho = b.sum(0, x);
            self.write_dq(b, number, p, dp);
            let q = b.cast(q, spec.elem);
            let d = b.dot(q, true, query.g, false, Some(carried[0]));
            vec![d, b.add(carried[1], rho)]
        });
        self.adds.store(b, chunk.index, done[1], done[0]);
    }
}
