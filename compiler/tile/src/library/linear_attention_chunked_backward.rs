//! Causal linear attention, backward, all chunks in parallel; the mathematics is that of
//! [`super::linear_attention_backward`].
//!
//! The walk from the end becomes three kernels. [`linear_attention_chunk_grads`] does what a chunk can do without knowing
//! the later ones: dQ, what the chunk adds to `d` and `rho`, and dK from its own queries. [`linear_attention_suffix`]
//! gives each chunk the `d` and `rho` of the later ones. [`linear_attention_grads`], the last, finishes dK and makes dV.
//!
//! Blocks of features need of each other only `delta = rowsum(P ⊙ dP)`. Where there are several,
//! [`linear_attention_delta`] makes it first. `rowsum(out ⊙ dout)` is the same number, but not the same rounding: where P
//! is nearly 1, dQ is the small difference of dP and delta, and bf16 would leave little of it.
//!
//! [`linear_attention_grads`]: super::linear_attention_chunked_grads::linear_attention_grads
//! [`linear_attention_suffix`]: super::linear_attention_states::linear_attention_suffix

use super::attention::{HeadRows, HeadShape, Triangle};
use super::linear_attention_backward::{LinearBackwardSpec, centred_grad};
use super::linear_attention_blocks::{ChunkHead, KeyBlock, QuerySoftmax, Sizes, column, from_row};
use super::linear_attention_chunk::SavedStates;
use crate::builder::Builder;
use crate::ir::{Elem, Kernel, Mode, ParamId, ValueId};

/// Whether blocks need [`linear_attention_delta`].
pub fn needs_delta(spec: &LinearBackwardSpec) -> bool {
    spec.sizes().blocks() > 1
}

/// `(q, k, v, ell, state, dout) -> delta [B, H, N]`: the row sums of `P ⊙ dP`, f32.
///
/// It decides for the same blocks as [`linear_attention_chunk_grads`] whether products are exact: dQ is the difference of a
/// block's dP and of this sum, and means nothing where one is rounded and the other is not.
///
/// Live tiles: `1/Z`, of all blocks if they are held, and of one block dP and then P; two more in the slow path, of L and
/// of dA.
pub fn linear_attention_delta(spec: &LinearBackwardSpec) -> Kernel {
    let sizes = spec.sizes();
    let HeadShape { batch, kv_heads, .. } = spec.shape;
    let name = spec.name("linear_attention_delta", &[spec.q, spec.k, spec.v, spec.dout]);
    let mut b = Builder::new(name, [sizes.chunks(), kv_heads, batch]);
    let params = Params::declare(&mut b, spec.elem);
    let delta = b.param("delta", Elem::F32, Mode::Write);
    let index = b.program_id(0);
    let chunk = ChunkHead::new(&mut b, sizes, index);
    let head = Head::new(&mut b, spec, &chunk, &params);
    // The key sides of all blocks serve all query heads, where a program has room for them.
    let held: Option<Vec<Block>> = (sizes.whole().blocks() == 1).then(|| {
        let firsts: Vec<ValueId> = (0..sizes.blocks()).map(|i| b.index(i * sizes.width)).collect();
        firsts.into_iter().map(|first| Block::new(&mut b, &head, first)).collect()
    });
    chunk.each_query_head(&mut b, &[], |b, number, _| {
        let query = Query::new(b, &head, number);
        let none = b.full(0.0, &[spec.chunk]);
        let sum = match &held {
            Some(blocks) => blocks.iter().fold(none, |sum, block| {
                let part = block.row_sum(b, &query);
                b.add(sum, part)
            }),
            None => sizes.each_block(b, &[none], |b, first, carried| {
                let block = Block::new(b, &head, first);
                let part = block.row_sum(b, &query);
                vec![b.add(carried[0], part)]
            })[0],
        };
        let at = chunk.row_offset(b, number);
        b.store(delta, at, sum, &[(1, chunk.bound)]);
        vec![]
    });
    b.finish()
}

/// `(q, k, v, ell, state, dout, [delta]) -> (dq, d, rho, dk_part)`, a program for each chunk and block of features;
/// `delta` if [`needs_delta`].
///
/// Live tiles: the sum of dK, d (two if D = 128), P, dP and `1/Z`.
pub fn linear_attention_chunk_grads(spec: &LinearBackwardSpec) -> Kernel {
    let sizes = spec.sizes();
    let strides = [spec.q, spec.k, spec.v, spec.dout, spec.dq];
    let name = spec.name("linear_attention_chunk_grads", &strides);
    let mut b = Builder::new(name, sizes.block_grid());
    let params = Params::declare(&mut b, spec.elem);
    let delta = needs_delta(spec).then(|| b.param("delta", Elem::F32, Mode::Read));
    let dq = b.param("dq", spec.elem, Mode::Write);
    let d = b.param("d", Elem::F32, Mode::Write);
    let rho = b.param("rho", Elem::F32, Mode::Write);
    let dk_part = b.param("dk_part", Elem::F32, Mode::ReadWrite);

    let (chunk, first) = ChunkHead::with_block(&mut b, sizes);
    let adds = chunk.states(&mut b, rho, d).features(first, sizes.width);
    let head = Head::new(&mut b, spec, &chunk, &params);
    let block = Block::new(&mut b, &head, first);
    let dk_part = chunk.part_rows(&mut b, dk_part).features(&mut b, first, sizes.width);
    let own = Own { block: &block, delta, dq, dk_part };
    let done = b.if_else(block.keys.ok, |b| own.fast(b), |b| own.slow(b));
    adds.store(&mut b, chunk.index, done[1], done[0]);
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
}

impl Params {
    fn declare(b: &mut Builder, elem: Elem) -> Self {
        Params {
            q: b.param("q", elem, Mode::Read),
            k: b.param("k", elem, Mode::Read),
            v: b.param("v", elem, Mode::Read),
            ell: b.param("ell", Elem::F32, Mode::Read),
            state: b.param("state", Elem::F32, Mode::Read),
            dout: b.param("dout", elem, Mode::Read),
        }
    }
}

/// One chunk of one key/value head, for dP.
struct Head<'a> {
    spec: &'a LinearBackwardSpec,
    chunk: &'a ChunkHead,
    params: &'a Params,
    k: HeadRows,
    saved: SavedStates,
    /// `[C, D]`
    values: ValueId,
}

impl<'a> Head<'a> {
    fn new(b: &mut Builder, spec: &'a LinearBackwardSpec, chunk: &'a ChunkHead, params: &'a Params) -> Self {
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
        let da = Triangle { fill: 0.0, lower: true }.apply(b, da, None);
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

    /// dP `[C, F]` by matrix products, where they are exact.
    fn dp_fast(&self, b: &mut Builder, query: &Query) -> ValueId {
        let dp = b.dot(query.g, false, self.state, true, None);
        let dp = b.dot(query.da_small, false, self.keys.small, false, Some(dp));
        b.mul(dp, self.keys.inverse)
    }

    /// L of every token, `[C, F]`.
    fn ends(&self, b: &mut Builder) -> ValueId {
        let Sizes { chunk, width, .. } = self.head.chunk.sizes;
        let zero = b.full(0.0, &[chunk, width]);
        self.keys.prefixes(b, self.head.chunk, zero)
    }

    /// Row sums of the block's `P ⊙ dP`. P comes last, so that it need not be kept beside what dP is made of.
    fn row_sum(&self, b: &mut Builder, query: &Query) -> ValueId {
        let fast = |b: &mut Builder| vec![self.dp_fast(b, query)];
        let slow = |b: &mut Builder| {
            let ends = self.ends(b);
            vec![self.dp_slow(b, query, ends)]
        };
        let dp = b.if_else(self.keys.ok, fast, slow)[0];
        let p = query.p.block(b, self.head.chunk, self.keys.first);
        let product = b.mul(p, dp);
        b.sum(1, product)
    }

    /// dP `[C, F]` key by key, for any keys; `ends` are those of [`Block::ends`].
    fn dp_slow(&self, b: &mut Builder, query: &Query, ends: ValueId) -> ValueId {
        let chunk = self.head.chunk;
        let dp = b.dot(query.g, false, self.state, true, None);
        let start = self.keys.weights_of_start(b, chunk, ends);
        let dp = b.mul(dp, start);
        let done = chunk.each_token(b, &[dp], |b, row, carried| {
            let weights = self.keys.weights_of(b, chunk, ends, row);
            let da = column(b, query.da, row);
            let da = b.expand_cols(da, chunk.sizes.width);
            vec![b.fma(weights, da, carried[0])]
        });
        done[0]
    }
}

/// What a program of [`linear_attention_chunk_grads`] works with.
struct Own<'a> {
    block: &'a Block<'a>,
    delta: Option<ParamId>,
    dq: ParamId,
    /// Rows of the block, f32.
    dk_part: HeadRows,
}

impl Own<'_> {
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

    /// By matrix products; returns d and rho. The order keeps few tiles alive.
    fn fast(&self, b: &mut Builder) -> Vec<ValueId> {
        let (block, keys) = (self.block, &self.block.keys);
        let Head { spec, chunk, .. } = *block.head;
        // The suffix sum of x as a product, which adds to the sum that is carried anyway.
        let earlier = b.full(-1.0, &[spec.chunk, spec.chunk]);
        let earlier = Triangle { fill: 0.0, lower: true }.apply(b, earlier, None);
        let earlier = b.cast(earlier, spec.elem);
        let [d, rho] = self.nothing(b);
        let bracket = b.full(0.0, &[spec.chunk, chunk.sizes.width]);
        let done = chunk.each_query_head(b, &[d, rho, bracket], |b, number, carried| {
            let query = Query::new(b, block.head, number);
            let dp = block.dp_fast(b, &query);
            let p = query.p.block(b, chunk, keys.first);
            self.write_dq(b, number, p, dp);
            let q = b.mul(p, keys.inverse);
            b.name(q, "q_tilde");
            let q_small = b.cast(q, spec.elem);
            let d = b.dot(q_small, true, query.g, false, Some(carried[0]));
            let bracket = b.dot(query.da_small, true, q_small, false, Some(carried[2]));
            let x = b.mul(q, dp);
            let rho = b.sum(0, x);
            let rho = b.add(carried[1], rho);
            let x = b.cast(x, spec.elem);
            vec![d, rho, b.dot(earlier, true, x, false, Some(bracket))]
        });
        let k = keys.k_tilde(b, chunk);
        let dk = b.mul(k, done[2]);
        chunk.store(b, &self.dk_part, dk);
        vec![done[0], done[1]]
    }

    /// Key by key, safe for any keys; returns d and rho. One more tile is live than in the fast path.
    fn slow(&self, b: &mut Builder) -> Vec<ValueId> {
        let (block, keys) = (self.block, &self.block.keys);
        let Head { spec, chunk, .. } = *block.head;
        let width = chunk.sizes.width;
        let zero = b.full(0.0, &[spec.chunk, width]);
        chunk.store(b, &self.dk_part, zero);
        let ends = block.ends(b);
        let nothing = self.nothing(b);
        chunk.each_query_head(b, &nothing, |b, number, carried| {
            let query = Query::new(b, block.head, number);
            let p = query.p.block(b, chunk, keys.first);
            let dp = block.dp_slow(b, &query, ends);
            chunk.each_token(b, &[], |b, row, _| {
                let weights = keys.weights_of(b, chunk, ends, row);
                let da = column(b, query.da, row);
                let da = b.expand_cols(da, width);
                let term = b.sub(da, dp);
                let term = b.mul(p, term);
                let term = b.mul(weights, term);
                let term = from_row(b, term, row);
                let term = b.sum(0, term);
                let token = b.add(chunk.start, row);
                let sum = self.dk_part.load_row(b, token);
                let sum = b.add(sum, term);
                self.dk_part.store_row(b, token, sum);
                vec![]
            });
            let start = keys.weights_of_start(b, chunk, ends);
            let q = b.mul(p, start);
            let x = b.mul(q, dp);
            let rho = b.sum(0, x);
            self.write_dq(b, number, p, dp);
            let q = b.cast(q, spec.elem);
            let d = b.dot(q, true, query.g, false, Some(carried[0]));
            vec![d, b.add(carried[1], rho)]
        })
    }
}
