//! Causal linear attention, backward, all chunks in parallel; the mathematics is that of
//! [`super::linear_attention_backward`].
//!
//! The walk from the end becomes three kernels. [`linear_attention_chunk_grads`] does what a chunk can do without knowing
//! the later ones: dQ, what the chunk adds to `d` and `rho`, and dK from its own queries. [`linear_attention_suffix`]
//! gives each chunk the `d` and `rho` of the later ones. [`linear_attention_grads`] finishes dK and makes dV. The
//! softmax gradient of q needs `rowsum(P ⊙ dP)` over all features; that is `rowsum(out ⊙ dout)`, so blocks of features
//! need nothing of each other.
//!
//! [`linear_attention_suffix`]: super::linear_attention_states::linear_attention_suffix

use super::attention::{HeadRows, HeadShape, HeadStrides, Triangle, temper, with_each_row};
use super::grid_indices;
use super::linear_attention_backward::{LinearBackwardSpec, centred_grad};
use super::linear_attention_blocks::{ChunkHead, KeyBlock, QuerySoftmax, column, each_block, from_row};
use super::linear_attention_states::HeadGrid;
use crate::builder::Builder;
use crate::ir::{Binary, Compare, Elem, Kernel, Mode, ParamId, ValueId};

/// `(q, k, v, out, ell, state, dout) -> (dq, d, rho, dk_part)`, a program for each chunk and block of features.
///
/// Live tiles: `1/Z`, the sum of dK, d (two if D = 128), P and dP.
pub fn linear_attention_chunk_grads(spec: &LinearBackwardSpec) -> Kernel {
    let sizes = spec.sizes();
    let HeadGrid { blocks, grid } = HeadGrid::new(&sizes);
    let strides = [spec.q, spec.k, spec.v, spec.out, spec.dout, spec.dq];
    let mut b = Builder::new(spec.name("linear_attention_chunk_grads", &strides), grid);
    let q = b.param("q", spec.elem, Mode::Read);
    let k = b.param("k", spec.elem, Mode::Read);
    let v = b.param("v", spec.elem, Mode::Read);
    let out = b.param("out", spec.elem, Mode::Read);
    let ell = b.param("ell", Elem::F32, Mode::Read);
    let state = b.param("state", Elem::F32, Mode::Read);
    let dout = b.param("dout", spec.elem, Mode::Read);
    let dq = b.param("dq", spec.elem, Mode::Write);
    let d = b.param("d", Elem::F32, Mode::Write);
    let rho = b.param("rho", Elem::F32, Mode::Write);
    let dk_part = b.param("dk_part", Elem::F32, Mode::ReadWrite);

    let place = grid_indices(&mut b, &[sizes.chunks(), blocks]);
    let first = b.scale_index(place[1], sizes.width());
    let chunk = ChunkHead::new(&mut b, sizes, place[0]);
    let k = chunk.rows(&mut b, k, spec.k);
    let v = chunk.rows(&mut b, v, spec.v);
    let saved = chunk.states(&mut b, ell, state);
    let adds = chunk.states(&mut b, rho, d).features(first, sizes.width());
    let keys = KeyBlock::new(&mut b, &chunk, &k, &saved, first);
    let state = saved.features(first, sizes.width()).load_state(&mut b, chunk.index);
    let state = b.cast(state, spec.elem);
    let values = chunk.load(&mut b, &v);
    let own = Own { spec, chunk: &chunk, keys: &keys, q, out, dout, dq, state, values };
    let dk_part = part_rows(&mut b, &chunk, dk_part).features(&mut b, first, sizes.width());
    let done = b.if_else(keys.ok, |b| own.fast(b, &dk_part), |b| own.slow(b, &dk_part));
    adds.store(&mut b, chunk.index, done[1], done[0]);
    b.finish()
}

/// Rows of the gradient of k in f32, contiguous.
fn part_rows(b: &mut Builder, chunk: &ChunkHead, dk_part: ParamId) -> HeadRows {
    let HeadShape { seq, kv_heads, head_dim, .. } = chunk.sizes.shape;
    chunk.rows(b, dk_part, HeadStrides::contiguous(seq, kv_heads, head_dim))
}

/// What a program of [`linear_attention_chunk_grads`] works with.
struct Own<'a> {
    spec: &'a LinearBackwardSpec,
    chunk: &'a ChunkHead,
    keys: &'a KeyBlock,
    q: ParamId,
    out: ParamId,
    dout: ParamId,
    dq: ParamId,
    /// In the element type, `[F, D]`.
    state: ValueId,
    /// `[C, D]`
    values: ValueId,
}

/// The tiles of one query head.
struct Query {
    /// `[C, F]`
    p: ValueId,
    /// `[C, D]`
    g: ValueId,
    /// `rowsum(out ⊙ dout)`, `[C]`.
    delta: ValueId,
    /// `tril(dout Vᵀ)`, f32 `[C, C]`.
    da: ValueId,
    dq: HeadRows,
}

impl Own<'_> {
    fn query(&self, b: &mut Builder, head: ValueId) -> Query {
        let (spec, chunk) = (self.spec, self.chunk);
        let out = chunk.query_rows(b, self.out, spec.out, head);
        let dout = chunk.query_rows(b, self.dout, spec.dout, head);
        let g = chunk.load(b, &dout);
        let out = chunk.load_f32(b, &out);
        let wide = b.cast(g, Elem::F32);
        let product = b.mul(out, wide);
        let delta = b.sum(1, product);
        let da = b.dot(g, false, self.values, true, None);
        let da = Triangle { fill: 0.0, lower: true }.apply(b, da, None);
        let q = chunk.query_rows(b, self.q, spec.q, head);
        let p = QuerySoftmax::new(b, chunk, q).block(b, chunk, self.keys.first);
        let dq = chunk.query_rows(b, self.dq, spec.dq, head);
        let dq = dq.features(b, self.keys.first, chunk.sizes.width());
        Query { p, g, delta, da, dq }
    }

    /// d and rho of nothing.
    fn nothing(&self, b: &mut Builder) -> [ValueId; 2] {
        let width = self.chunk.sizes.width();
        [b.full(0.0, &[width, self.spec.shape.head_dim]), b.full(0.0, &[width])]
    }

    /// Writes dQ and adds to d and rho: what both paths do once `q̃` and dP are known.
    fn finish(
        &self,
        b: &mut Builder,
        query: &Query,
        q: ValueId,
        dp: ValueId,
        carried: &[ValueId],
    ) -> Vec<ValueId> {
        let dq = centred_grad(b, query.p, dp, query.delta, self.spec.temperature);
        self.chunk.store(b, &query.dq, dq);
        let x = b.mul(q, dp);
        let rho = b.sum(0, x);
        let q = b.cast(q, self.spec.elem);
        let d = b.dot(q, true, query.g, false, Some(carried[0]));
        vec![d, b.add(carried[1], rho)]
    }

    /// By matrix products; returns d and rho.
    fn fast(&self, b: &mut Builder, dk_part: &HeadRows) -> Vec<ValueId> {
        let (elem, chunk, keys) = (self.spec.elem, self.chunk, self.keys);
        let rows = chunk.sizes.chunk;
        // The suffix sum of x as a product, which adds to the sum that is carried anyway.
        let later = b.full(-1.0, &[rows, rows]);
        let later = Triangle { fill: 0.0, lower: false }.apply(b, later, None);
        let later = b.cast(later, elem);
        let [d, rho] = self.nothing(b);
        let bracket = b.full(0.0, &[rows, chunk.sizes.width()]);
        let done = chunk.each_query_head(b, &[d, rho, bracket], |b, head, carried| {
            let query = self.query(b, head);
            let da = b.cast(query.da, elem);
            let dp = b.dot(query.g, false, self.state, true, None);
            let dp = b.dot(da, false, keys.small, false, Some(dp));
            let dp = b.mul(dp, keys.inverse);
            let q = b.mul(query.p, keys.inverse);
            let q_small = b.cast(q, elem);
            let bracket = b.dot(da, true, q_small, false, Some(carried[2]));
            let x = b.mul(q, dp);
            let x = b.cast(x, elem);
            let bracket = b.dot(later, false, x, false, Some(bracket));
            let mut next = self.finish(b, &query, q, dp, carried);
            next.push(bracket);
            next
        });
        let k = keys.k_tilde(b, chunk);
        let dk = b.mul(k, done[2]);
        chunk.store(b, dk_part, dk);
        vec![done[0], done[1]]
    }

    /// Key by key, safe for any keys; returns d and rho. Two more tiles are live, of L and of dA.
    fn slow(&self, b: &mut Builder, dk_part: &HeadRows) -> Vec<ValueId> {
        let (chunk, keys) = (self.chunk, self.keys);
        let width = chunk.sizes.width();
        let zero = b.full(0.0, &[chunk.sizes.chunk, width]);
        chunk.store(b, dk_part, zero);
        let ends = keys.prefixes(b, chunk);
        let nothing = self.nothing(b);
        chunk.each_query_head(b, &nothing, |b, head, carried| {
            let query = self.query(b, head);
            let start = keys.weights_of_start(b, ends);
            let dp = b.dot(query.g, false, self.state, true, None);
            let dp = b.mul(dp, start);
            let dp = chunk.each_token(b, &[dp], |b, row, carried| {
                let weights = keys.weights_of(b, chunk, ends, row);
                let da = column(b, query.da, row);
                let da = b.expand_cols(da, width);
                vec![b.fma(weights, da, carried[0])]
            })[0];
            let x = b.mul(query.p, dp);
            chunk.each_token(b, &[], |b, row, _| {
                let weights = keys.weights_of(b, chunk, ends, row);
                let da = column(b, query.da, row);
                let da = b.expand_cols(da, width);
                let term = b.mul(query.p, da);
                let term = b.sub(term, x);
                let term = b.mul(weights, term);
                let term = from_row(b, term, row);
                let term = b.sum(0, term);
                let token = b.add(chunk.start, row);
                let sum = dk_part.load_row(b, token);
                let sum = b.add(sum, term);
                dk_part.store_row(b, token, sum);
                vec![]
            });
            let start = keys.weights_of_start(b, ends);
            let q = b.mul(query.p, start);
            self.finish(b, &query, q, dp, carried)
        })
    }
}

/// `(q, k, v, ell, dout, d, rho, dk_part) -> (dk, dv)`, where `d` and `rho` are of the later chunks, seen from the
/// end of each.
///
/// Live tiles: dV (two if D = 128), `A`, P and `1/Z`, later dV, a bracket and the weights of the keys; one more in the
/// slow path.
pub fn linear_attention_grads(spec: &LinearBackwardSpec) -> Kernel {
    let sizes = spec.sizes();
    let HeadShape { batch, kv_heads, head_dim: dim, .. } = spec.shape;
    let strides = [spec.q, spec.k, spec.v, spec.dout, spec.dk, spec.dv];
    let name = spec.name("linear_attention_grads", &strides);
    let mut b = Builder::new(name, [sizes.chunks(), kv_heads, batch]);
    let q = b.param("q", spec.elem, Mode::Read);
    let k = b.param("k", spec.elem, Mode::Read);
    let v = b.param("v", spec.elem, Mode::Read);
    let ell = b.param("ell", Elem::F32, Mode::Read);
    let dout = b.param("dout", spec.elem, Mode::Read);
    let d = b.param("d", Elem::F32, Mode::Read);
    let rho = b.param("rho", Elem::F32, Mode::Read);
    let dk_part = b.param("dk_part", Elem::F32, Mode::Read);
    let dk = b.param("dk", spec.elem, Mode::Write);
    let dv = b.param("dv", spec.elem, Mode::Write);
    let index = b.program_id(0);
    let chunk = ChunkHead::new(&mut b, sizes, index);
    let k = chunk.rows(&mut b, k, spec.k);
    let v = chunk.rows(&mut b, v, spec.v);
    let dk_part = part_rows(&mut b, &chunk, dk_part);
    let dk = chunk.rows(&mut b, dk, spec.dk);
    let dv = chunk.rows(&mut b, dv, spec.dv);
    let saved = chunk.states(&mut b, ell, d);
    let future = chunk.states(&mut b, rho, d);

    let only = (sizes.width() == dim).then(|| {
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
        let a = each_block(b, dim, &[init], |b, first, carried| {
            let fresh = only.is_none().then(|| KeyBlock::new(b, &chunk, &k, &saved, first));
            let keys = only.as_ref().or(fresh.as_ref()).expect("one of the two");
            let p = p.block(b, &chunk, first);
            vec![keys.scores(b, &chunk, p, carried[0]).1]
        });
        let a = Triangle { fill: 0.0, lower: true }.apply(b, a[0], None);
        let a = b.cast(a, spec.elem);
        vec![b.dot(a, true, g, false, Some(carried[0]))]
    });

    let values = chunk.load(&mut b, &v);
    let width = sizes.width();
    let done = each_block(&mut b, dim, &done, |b, first, carried| {
        let (k, part, dk) =
            (k.features(b, first, width), dk_part.features(b, first, width), dk.features(b, first, width));
        let (saved, future) = (saved.features(first, width), future.features(first, width));
        let end = end_of_chunk(b, &chunk, |b, next| saved.load_ell(b, next));
        let keys = chunk.keys(b, &k);
        let late = with_each_row(b, Binary::Sub, keys, end);
        let late = b.exp(late);
        let late_small = b.cast(late, spec.elem);
        let d = future.load_state(b, chunk.index);
        let d = b.cast(d, spec.elem);
        let dv = b.dot(late_small, false, d, false, Some(carried[0]));
        let bracket = b.dot(values, false, d, true, None);
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
    let width = chunk.sizes.width();
    b.if_else(
        exists,
        |b| vec![load(b, next)],
        |b| vec![b.full(f64::INFINITY, &[width])],
    )[0]
}
