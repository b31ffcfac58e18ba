//! One token of attention against a cache: softmax attention over the keys so far, linear attention in O(1).
//!
//! A program serves one sequence and key/value head with all query heads of its group as the rows of one tile. It updates
//! its part of the cache in place and then reads it, which the order of memory operations in a program allows.
//! The position is a scalar in memory, so one kernel serves every step.

use super::attention::{
    HeadRows, HeadShape, HeadStrides, mask_from, scale_rows, softmax_rows, strides_tag, temper,
};
use super::linear_attention_chunk::Carried;
use super::{load_index, number, tag};
use crate::builder::Builder;
use crate::ir::{Compare, Elem, Kernel, Mode, ParamId, Unary, ValueId};

/// What [`softmax_decode`] computes and how.
#[derive(Clone, PartialEq, Debug)]
pub struct SoftmaxDecodeSpec {
    /// Element type of q, k, v, out.
    pub elem: Elem,
    /// Element type of the caches.
    pub cache_elem: Elem,
    /// Sizes; `seq` is L, the length of the caches.
    pub shape: HeadShape,
    /// Score multiplier.
    pub scale: f64,
    /// Rows of the query tile, at least the group; more only where a machine's matrix product needs them.
    pub block_h: usize,
    /// Keys of a round.
    pub block_k: usize,
    /// Strides of q `[B, 1, H, D]`.
    pub q: HeadStrides,
    /// Strides of k.
    pub k: HeadStrides,
    /// Strides of v.
    pub v: HeadStrides,
    /// Strides of out.
    pub out: HeadStrides,
}

/// What [`linear_decode`] computes and how.
#[derive(Clone, PartialEq, Debug)]
pub struct LinearDecodeSpec {
    /// Element type of q, k, v, out; the state is f32.
    pub elem: Elem,
    /// Sizes; `seq` is 1.
    pub shape: HeadShape,
    /// Multiplier of q and k before their softmaxes.
    pub temperature: f64,
    /// Rows of the query tile, at least the group; more only where a machine's matrix product needs them.
    pub block_h: usize,
    /// Strides of q `[B, 1, H, D]`.
    pub q: HeadStrides,
    /// Strides of k.
    pub k: HeadStrides,
    /// Strides of v.
    pub v: HeadStrides,
    /// Strides of out.
    pub out: HeadStrides,
}

/// `(q, k, v, kcache [B, L, G, D], vcache, pos) -> out`: writes k and v at `pos` of the caches in place, then
/// attends over positions `0..=pos`. The caller keeps `pos` within `0..L`.
pub fn softmax_decode(spec: &SoftmaxDecodeSpec) -> Kernel {
    let HeadShape { batch, seq: len, kv_heads, head_dim: dim, .. } = spec.shape;
    let name = format!(
        "softmax_decode_{}_{}_{}_s{}_h{}_k{}_{}",
        tag(spec.elem),
        tag(spec.cache_elem),
        spec.shape.tag(),
        number(spec.scale),
        spec.block_h,
        spec.block_k,
        strides_tag(&[spec.q, spec.k, spec.v, spec.out]),
    );
    spec.shape.check(&name);
    let (rows, cols, elem) = (spec.block_h, spec.block_k, spec.cache_elem);
    let mut b = Builder::new(name, [kv_heads, batch, 1]);
    let q = b.param("q", spec.elem, Mode::Read);
    let k = b.param("k", spec.elem, Mode::Read);
    let v = b.param("v", spec.elem, Mode::Read);
    let kcache = b.param("kcache", elem, Mode::ReadWrite);
    let vcache = b.param("vcache", elem, Mode::ReadWrite);
    let pos = b.param("pos", Elem::I32, Mode::Read);
    let out = b.param("out", spec.elem, Mode::Write);
    let (kv_head, batch) = (b.program_id(0), b.program_id(1));
    let zero = b.index(0);
    let pos = load_index(&mut b, pos);

    let cache_strides = HeadStrides::contiguous(len, kv_heads, dim);
    let kcache = HeadRows::new(&mut b, kcache, cache_strides, dim, batch, kv_head);
    let vcache = HeadRows::new(&mut b, vcache, cache_strides, dim, batch, kv_head);
    for (fresh, strides, cache) in [(k, spec.k, &kcache), (v, spec.v, &vcache)] {
        let fresh = HeadRows::new(&mut b, fresh, strides, dim, batch, kv_head);
        let row = fresh.load_row(&mut b, zero);
        cache.store_row(&mut b, pos, row);
    }

    let group = GroupTile::new(&mut b, &spec.shape, rows, batch, kv_head);
    let q = group.load(&mut b, q, spec.q);
    let q = b.cast(q, elem);
    let one = b.index(1);
    let count = b.add(pos, one);
    let init = [b.full(f64::NEG_INFINITY, &[rows]), b.full(0.0, &[rows]), b.full(0.0, &[rows, dim])];
    let done = b.for_loop(zero, count, cols, &init, |b, start, carried| {
        let left = b.sub(count, start);
        let keys = kcache.load(b, start, cols, Some(left));
        let values = vcache.load(b, start, cols, Some(left));
        let s = b.dot(q, false, keys, true, None);
        let s = b.scale(s, spec.scale);
        let s = mask_from(b, s, 1, left, f64::NEG_INFINITY);
        let top = b.reduce_max(1, s);
        let top = b.max(carried[0], top);
        let wide = b.expand_cols(top, cols);
        let p = b.sub(s, wide);
        let p = b.exp(p);
        let decay = b.sub(carried[0], top);
        let decay = b.exp(decay);
        let fresh = b.sum(1, p);
        let l = b.fma(carried[1], decay, fresh);
        let acc = scale_rows(b, carried[2], decay);
        let p = b.cast(p, elem);
        let acc = b.dot(p, false, values, false, Some(acc));
        vec![top, l, acc]
    });
    let inverse = b.unary(Unary::Recip, done[1]);
    let result = scale_rows(&mut b, done[2], inverse);
    group.store(&mut b, out, spec.out, result);
    b.finish()
}

/// `(q, k, v, m [B, G, D], z [B, G, D], t [B, G, D, D], pos) -> out`: one token of causal linear attention in the
/// unnormalised recurrent form `m' = max(m, k)`, `z' = z e^(m−m') + e^(k−m')`, `t' = t e^(m−m') + e^(k−m') vᵀ`,
/// `out = (softmax(q) / z') t'`, in place; at `pos` 0 the old m, z, t are ignored.
pub fn linear_decode(spec: &LinearDecodeSpec) -> Kernel {
    let HeadShape { batch, kv_heads, head_dim: dim, .. } = spec.shape;
    let name = format!(
        "linear_decode_{}_{}_t{}_h{}_{}",
        tag(spec.elem),
        spec.shape.tag(),
        number(spec.temperature),
        spec.block_h,
        strides_tag(&[spec.q, spec.k, spec.v, spec.out]),
    );
    spec.shape.check(&name);
    let mut b = Builder::new(name, [kv_heads, batch, 1]);
    let q = b.param("q", spec.elem, Mode::Read);
    let k = b.param("k", spec.elem, Mode::Read);
    let v = b.param("v", spec.elem, Mode::Read);
    let m = b.param("m", Elem::F32, Mode::ReadWrite);
    let z = b.param("z", Elem::F32, Mode::ReadWrite);
    let t = b.param("t", Elem::F32, Mode::ReadWrite);
    let pos = b.param("pos", Elem::I32, Mode::Read);
    let out = b.param("out", spec.elem, Mode::Write);
    let (kv_head, batch) = (b.program_id(0), b.program_id(1));
    let zero = b.index(0);
    let pos = load_index(&mut b, pos);
    let k = HeadRows::new(&mut b, k, spec.k, dim, batch, kv_head);
    let v = HeadRows::new(&mut b, v, spec.v, dim, batch, kv_head);
    let key = k.load_row(&mut b, zero);
    let key = temper(&mut b, key, spec.temperature);
    let value = v.load_row(&mut b, zero);

    let state = StoredState::new(&mut b, [m, z, t], &spec.shape, batch, kv_head);
    let old = state.load(&mut b, pos, |_| key);
    let m = b.max(old.m, key);
    let decay = b.sub(old.m, m);
    let decay = b.exp(decay);
    let fresh = b.sub(key, m);
    let fresh = b.exp(fresh);
    let z = b.fma(old.z, decay, fresh);
    let kept = scale_rows(&mut b, old.t, decay);
    let column = b.expand_cols(fresh, dim);
    let row = b.expand_rows(value, dim);
    let t = b.fma(column, row, kept);
    state.store(&mut b, &Carried { m, z, t });

    let group = GroupTile::new(&mut b, &spec.shape, spec.block_h, batch, kv_head);
    let q = group.load(&mut b, q, spec.q);
    let q = b.cast(q, Elem::F32);
    let p = softmax_rows(&mut b, q, spec.temperature);
    let z_rows = b.expand_rows(z, spec.block_h);
    let p = b.div(p, z_rows);
    let result = b.dot(p, false, t, false, None);
    group.store(&mut b, out, spec.out, result);
    b.finish()
}

/// The recurrent state of one key/value head between two programs: `m`, `z` `[B, G, D]`, `t` `[B, G, D, D]`.
pub(crate) struct StoredState {
    params: [ParamId; 3],
    vector: ValueId,
    matrix: ValueId,
    rows: usize,
    dim: usize,
}

impl StoredState {
    /// The state of `kv_head` (Index) of sequence `batch` (Index).
    pub(crate) fn new(
        b: &mut Builder,
        params: [ParamId; 3],
        shape: &HeadShape,
        batch: ValueId,
        kv_head: ValueId,
    ) -> Self {
        let dim = shape.head_dim;
        let line = b.scale_index(batch, shape.kv_heads);
        let line = b.add(line, kv_head);
        let (vector, matrix) = (b.scale_index(line, dim), b.scale_index(line, dim * dim));
        StoredState { params, vector, matrix, rows: dim, dim }
    }

    /// `rows` features of keys from feature `first` (Index) on.
    pub(crate) fn features(&self, b: &mut Builder, first: ValueId, rows: usize) -> Self {
        let above = b.scale_index(first, self.dim);
        let (vector, matrix) = (b.add(self.vector, first), b.add(self.matrix, above));
        StoredState { vector, matrix, rows, ..*self }
    }

    /// What was carried to position `pos` (Index); at 0 nothing but the reference that `first` gives.
    pub(crate) fn load(
        &self,
        b: &mut Builder,
        pos: ValueId,
        first: impl FnOnce(&mut Builder) -> ValueId,
    ) -> Carried {
        let (rows, dim) = (self.rows, self.dim);
        let zero = b.index(0);
        let is_first = b.compare(Compare::Eq, pos, zero);
        let old = b.if_else(
            is_first,
            |b| vec![first(b), b.full(0.0, &[rows]), b.full(0.0, &[rows, dim])],
            |b| {
                let m = b.load(self.params[0], self.vector, &[rows], &[(1, None)]);
                let z = b.load(self.params[1], self.vector, &[rows], &[(1, None)]);
                vec![m, z, b.load(self.params[2], self.matrix, &[rows, dim], &[(dim, None), (1, None)])]
            },
        );
        Carried { m: old[0], z: old[1], t: old[2] }
    }

    /// Writes it back.
    pub(crate) fn store(&self, b: &mut Builder, state: &Carried) {
        b.store(self.params[0], self.vector, state.m, &[(1, None)]);
        b.store(self.params[1], self.vector, state.z, &[(1, None)]);
        b.store(self.params[2], self.matrix, state.t, &[(self.dim, None), (1, None)]);
    }
}

/// The query heads of a group as the rows of one tile.
struct GroupTile {
    rows: usize,
    dim: usize,
    first: ValueId,
    batch: ValueId,
    bound: Option<ValueId>,
}

impl GroupTile {
    fn new(b: &mut Builder, shape: &HeadShape, rows: usize, batch: ValueId, kv_head: ValueId) -> Self {
        let group = shape.group();
        assert!(rows >= group, "a query tile of {rows} rows for {group} heads");
        let first = b.scale_index(kv_head, group);
        let bound = (rows > group).then(|| b.index(group));
        GroupTile { rows, dim: shape.head_dim, first, batch, bound }
    }

    fn offset(&self, b: &mut Builder, strides: HeadStrides) -> ValueId {
        let batch = b.scale_index(self.batch, strides.batch);
        let head = b.scale_index(self.first, strides.head);
        b.add(batch, head)
    }

    fn load(&self, b: &mut Builder, param: ParamId, strides: HeadStrides) -> ValueId {
        let offset = self.offset(b, strides);
        b.load(param, offset, &[self.rows, self.dim], &[(strides.head, self.bound), (1, None)])
    }

    fn store(&self, b: &mut Builder, param: ParamId, strides: HeadStrides, value: ValueId) {
        let offset = self.offset(b, strides);
        b.store(param, offset, value, &[(strides.head, self.bound), (1, None)]);
    }
}
