//! One token of attention against a cache: softmax attention over the keys so far, linear attention in O(1).
//!
//! A program serves one sequence and key/value head with all query heads of its group as the rows of one tile. It updates
//! its part of the cache in place and then reads it, which the order of memory operations in a program allows.
//! The position is a scalar in memory, so one kernel serves every step.

use super::attention::{
    HeadRows, HeadShape, HeadStrides, mask_from, scale_rows, softmax_rows, strides_tag, temper,
};
use super::{number, tag};
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
    let pos = position(&mut b, pos);

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
    let pos = position(&mut b, pos);
    let k = HeadRows::new(&mut b, k, spec.k, dim, batch, kv_head);
    let v = HeadRows::new(&mut b, v, spec.v, dim, batch, kv_head);
    let key = k.load_row(&mut b, zero);
    let key = temper(&mut b, key, spec.temperature);
    let value = v.load_row(&mut b, zero);

    let line = b.scale_index(batch, kv_heads);
    let line = b.add(line, kv_head);
    let at = b.scale_index(line, dim);
    let at_t = b.scale_index(line, dim * dim);
    let (vector, matrix) = ([(1, None)], [(dim, None), (1, None)]);
    let is_first = b.compare(Compare::Eq, pos, zero);
    let old = b.if_else(
        is_first,
        |b| vec![key, b.full(0.0, &[dim]), b.full(0.0, &[dim, dim])],
        |b| {
            let old_m = b.load(m, at, &[dim], &vector);
            let old_z = b.load(z, at, &[dim], &vector);
            vec![old_m, old_z, b.load(t, at_t, &[dim, dim], &matrix)]
        },
    );
    let new_m = b.max(old[0], key);
    let decay = b.sub(old[0], new_m);
    let decay = b.exp(decay);
    let fresh = b.sub(key, new_m);
    let fresh = b.exp(fresh);
    let new_z = b.fma(old[1], decay, fresh);
    let kept = scale_rows(&mut b, old[2], decay);
    let column = b.expand_cols(fresh, dim);
    let row = b.expand_rows(value, dim);
    let new_t = b.fma(column, row, kept);
    b.store(m, at, new_m, &vector);
    b.store(z, at, new_z, &vector);
    b.store(t, at_t, new_t, &matrix);

    let group = GroupTile::new(&mut b, &spec.shape, spec.block_h, batch, kv_head);
    let q = group.load(&mut b, q, spec.q);
    let q = b.cast(q, Elem::F32);
    let p = softmax_rows(&mut b, q, spec.temperature);
    let z_rows = b.expand_rows(new_z, spec.block_h);
    let p = b.div(p, z_rows);
    let result = b.dot(p, false, new_t, false, None);
    group.store(&mut b, out, spec.out, result);
    b.finish()
}

/// The position as an Index.
fn position(b: &mut Builder, pos: ParamId) -> ValueId {
    let zero = b.index(0);
    let pos = b.load(pos, zero, &[], &[]);
    b.cast(pos, Elem::Index)
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
