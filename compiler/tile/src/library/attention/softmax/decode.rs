//! One token of each sequence of a batch in softmax attention against its KV cache: the keys and values of all its tokens so
//! far.
//!
//! A program serves one sequence and key/value head with all query heads of its group as the rows of one tile. It updates
//! its part of the cache in place and then reads it, which the order of memory operations in a program allows.
//! Position and slot of each sequence are numbers in memory, so one kernel serves every step, and a batch can be of any
//! sequences whose caches are there: those of a sequence are number `slot` of S.
//!
//! A machine with many processors splits the cached positions among programs ([`softmax_decode_parts`]) and merges what they
//! find ([`softmax_decode_merge`]), as Flash-Decoding does. The parts only read the caches, so that tiles can be
//! prefetched.

use crate::builder::Builder;
use crate::ir::{Compare, Elem, Kernel, Mode, ParamId, Unary, ValueId};
use crate::library::attention::common::{
    GroupTile, HeadRows, HeadShape, HeadStrides, Places, mask_from, scale_rows, strides_tag,
};
use crate::library::{number, tag};

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
    /// Keys of an iteration.
    pub block_k: usize,
    /// Keys of a program of [`softmax_decode_parts`].
    pub range: usize,
    /// Strides of q `[B, 1, H, D]`.
    pub q: HeadStrides,
    /// Of k, the keys of the new token `[B, 1, G, D]`.
    pub k: HeadStrides,
    /// Of v, the values of the new token `[B, 1, G, D]`.
    pub v: HeadStrides,
    /// Of the output `[B, 1, H, D]`.
    pub out: HeadStrides,
}

impl SoftmaxDecodeSpec {
    fn name(&self, kernel: &str, strides: &[HeadStrides]) -> String {
        let name = format!(
            "{kernel}_{}_{}_{}_s{}_h{}_k{}_{}",
            tag(self.elem),
            tag(self.cache_elem),
            self.shape.tag(),
            number(self.scale),
            self.block_h,
            self.block_k,
            strides_tag(strides),
        );
        self.shape.check(&name);
        name
    }

    /// Number of the first part of a key/value head (Index) among those of all.
    fn first_part(&self, b: &mut Builder, batch: ValueId, kv_head: ValueId) -> ValueId {
        let line = self.shape.kv_line(b, batch, kv_head);
        b.scale_index(line, self.parts())
    }

    /// Number P of programs that share a key/value head.
    fn parts(&self) -> usize {
        self.shape.seq.div_ceil(self.range)
    }
}

/// `(q, k, v, kcache [S, L, G, D], vcache, pos [B], slot [B]) -> out`: writes k and v at `pos` of the caches in place, then
/// attends over positions `0..=pos`. The caller keeps `pos` within `0..L`, and slots below S and different.
pub fn softmax_decode(spec: &SoftmaxDecodeSpec) -> Kernel {
    let dim = spec.shape.head_dim;
    let name = spec.name("softmax_decode", &[spec.q, spec.k, spec.v, spec.out]);
    let mut b = Builder::new(name, [spec.shape.kv_heads, spec.shape.batch, 1]);
    let q = b.param("q", spec.elem, Mode::Read);
    let k = b.param("k", spec.elem, Mode::Read);
    let v = b.param("v", spec.elem, Mode::Read);
    let caches = ["kcache", "vcache"].map(|name| b.param(name, spec.cache_elem, Mode::ReadWrite));
    let places = Places::params(&mut b);
    let out = b.param("out", spec.elem, Mode::Write);
    let (kv_head, batch) = (b.program_id(0), b.program_id(1));
    let (pos, slot) = places.load(&mut b, batch);
    let caches = Caches::new(&mut b, spec, caches, slot, kv_head);
    let (zero, one) = (b.index(0), b.index(1));
    for (fresh, strides, cached) in [(k, spec.k, &caches.keys), (v, spec.v, &caches.values)] {
        let row = HeadRows::new(&mut b, fresh, strides, dim, batch, kv_head).load_row(&mut b, zero);
        cached.store_row(&mut b, pos, row);
    }
    let group = GroupTile::new(&mut b, &spec.shape, spec.block_h, batch, kv_head);
    let q = group.load(&mut b, q, spec.q);
    let count = b.add(pos, one);
    let [_, l, acc] = caches.attend(&mut b, q, zero, count);
    let inverse = b.unary(Unary::Recip, l);
    let result = scale_rows(&mut b, acc, inverse);
    group.store(&mut b, out, spec.out, result);
    b.finish()
}

/// `(q, kcache [S, L, G, D], vcache, pos [B], slot [B]) -> (top [B, G, P, R], sum, acc [B, G, P, R, D])`: softmax attention
/// over the positions before `pos`, `range` of them for each of P programs; R query heads of a group. `top` is the largest score, `sum` and
/// `acc` are relative to it; -inf and 0 where no position is left.
pub fn softmax_decode_parts(spec: &SoftmaxDecodeSpec) -> Kernel {
    let name = spec.name("softmax_decode_parts", &[spec.q]);
    let mut b = Builder::new(
        format!("{name}_r{}", spec.range),
        [spec.parts(), spec.shape.kv_heads, spec.shape.batch],
    );
    let q = b.param("q", spec.elem, Mode::Read);
    let caches = ["kcache", "vcache"].map(|name| b.param(name, spec.cache_elem, Mode::Read));
    let places = Places::params(&mut b);
    let [top, sum, acc] = ["top", "sum", "acc"].map(|name| b.param(name, Elem::F32, Mode::Write));
    let (part, kv_head, batch) = (b.program_id(0), b.program_id(1), b.program_id(2));
    let (pos, slot) = places.load(&mut b, batch);
    let caches = Caches::new(&mut b, spec, caches, slot, kv_head);
    let group = GroupTile::new(&mut b, &spec.shape, spec.block_h, batch, kv_head);
    let q = group.load(&mut b, q, spec.q);
    let (from, range) = (b.scale_index(part, spec.range), b.index(spec.range));
    let end = b.add(from, range);
    let end = b.min(end, pos);
    let found = caches.attend(&mut b, q, from, end);
    let first = spec.first_part(&mut b, batch, kv_head);
    let line = b.add(first, part);
    let row = b.scale_index(line, spec.shape.group());
    let element = b.scale_index(row, spec.shape.head_dim);
    b.store(top, row, found[0], &[(1, group.bound)]);
    b.store(sum, row, found[1], &[(1, group.bound)]);
    b.store(acc, element, found[2], &[(spec.shape.head_dim, group.bound), (1, None)]);
    b.finish()
}

/// Parts that are merged at once.
const MERGE: usize = 16;

/// `(q, k, v, top, sum, acc, pos [B], slot [B]) -> (kcache [S, L, G, D], vcache, out)`: what [`softmax_decode`] gives, from what
/// [`softmax_decode_parts`] found. Each query head merges for itself, and with the fresh key and value; the first of a group
/// writes those to the caches at `pos`.
pub fn softmax_decode_merge(spec: &SoftmaxDecodeSpec) -> Kernel {
    let HeadShape { batch, heads, head_dim: dim, .. } = spec.shape;
    let name = spec.name("softmax_decode_merge", &[spec.q, spec.k, spec.v, spec.out]);
    let mut b = Builder::new(format!("{name}_r{}", spec.range), [heads, batch, 1]);
    let q = b.param("q", spec.elem, Mode::Read);
    let k = b.param("k", spec.elem, Mode::Read);
    let v = b.param("v", spec.elem, Mode::Read);
    let parts = ["top", "sum", "acc"].map(|name| b.param(name, Elem::F32, Mode::Read));
    let places = Places::params(&mut b);
    let caches = ["kcache", "vcache"].map(|name| b.param(name, spec.cache_elem, Mode::Write));
    let out = b.param("out", spec.elem, Mode::Write);
    let (head, batch) = (b.program_id(0), b.program_id(1));
    let (pos, slot) = places.load(&mut b, batch);
    let group = b.index(spec.shape.group());
    let (kv_head, member) = (b.div(head, group), b.rem(head, group));
    let zero = b.index(0);
    let row = |b: &mut Builder, param, strides, head| {
        HeadRows::new(b, param, strides, dim, batch, head).load_row(b, zero)
    };
    let (key, value) = (row(&mut b, k, spec.k, kv_head), row(&mut b, v, spec.v, kv_head));
    let caches = Caches::new(&mut b, spec, caches, slot, kv_head);
    let writes = b.compare(Compare::Eq, member, zero);
    b.if_else(
        writes,
        |b| {
            caches.keys.store_row(b, pos, key);
            caches.values.store_row(b, pos, value);
            vec![]
        },
        |_| vec![],
    );
    let query = row(&mut b, q, spec.q, head);
    let score = b.mul(query, key);
    let score = b.sum(0, score);
    let score = b.scale(score, spec.scale);

    // Parts that have positions before `pos`.
    let last = b.index(spec.range - 1);
    let count = b.add(pos, last);
    let range = b.index(spec.range);
    let count = b.div(count, range);
    let first = spec.first_part(&mut b, batch, kv_head);
    let shape = [MERGE.min(spec.parts())];
    let stride = spec.shape.group();
    let init = [score, b.float(1.0), value];
    let done = b.for_loop(zero, count, shape[0], &init, |b, start, carried| {
        let left = b.sub(count, start);
        let line = b.add(first, start);
        let row = b.scale_index(line, stride);
        let row = b.add(row, member);
        let element = b.scale_index(row, dim);
        let top = b.load(parts[0], row, &shape, &[(stride, Some(left))]);
        let top = mask_from(b, top, 0, left, f64::NEG_INFINITY);
        let sum = b.load(parts[1], row, &shape, &[(stride, Some(left))]);
        let acc = b.load(parts[2], element, &[shape[0], dim], &[(stride * dim, Some(left)), (1, None)]);
        let highest = b.reduce_max(0, top);
        let highest = b.max(carried[0], highest);
        let decay = b.sub(carried[0], highest);
        let decay = b.exp(decay);
        let wide = b.splat(highest, &shape);
        let weights = b.sub(top, wide);
        let weights = b.exp(weights);
        let fresh = b.mul(weights, sum);
        let fresh = b.sum(0, fresh);
        let l = b.fma(carried[1], decay, fresh);
        let fresh = scale_rows(b, acc, weights);
        let fresh = b.sum(0, fresh);
        let decay = b.splat(decay, &[dim]);
        vec![highest, l, b.fma(carried[2], decay, fresh)]
    });
    let l = b.splat(done[1], &[dim]);
    let result = b.div(done[2], l);
    let rows = HeadRows::new(&mut b, out, spec.out, dim, batch, head);
    rows.store_row(&mut b, zero, result);
    b.finish()
}

/// The caches of one key/value head.
struct Caches<'a> {
    spec: &'a SoftmaxDecodeSpec,
    keys: HeadRows,
    values: HeadRows,
}

impl<'a> Caches<'a> {
    fn new(
        b: &mut Builder,
        spec: &'a SoftmaxDecodeSpec,
        caches: [ParamId; 2],
        slot: ValueId,
        kv_head: ValueId,
    ) -> Self {
        let HeadShape { seq: len, kv_heads, head_dim: dim, .. } = spec.shape;
        let strides = HeadStrides::contiguous(len, kv_heads, dim);
        let [keys, values] = caches.map(|param| HeadRows::new(b, param, strides, dim, slot, kv_head));
        Caches { spec, keys, values }
    }

    /// Attends with the query tile over positions `from..end`: largest score, sum of exponentials and weighted values relative
    /// to it.
    fn attend(&self, b: &mut Builder, q: ValueId, from: ValueId, end: ValueId) -> [ValueId; 3] {
        let SoftmaxDecodeSpec { cache_elem: elem, block_h: rows, block_k: cols, scale, .. } = *self.spec;
        let q = b.cast(q, elem);
        let dim = self.spec.shape.head_dim;
        let init = [b.full(f64::NEG_INFINITY, &[rows]), b.full(0.0, &[rows]), b.full(0.0, &[rows, dim])];
        let done = b.for_loop(from, end, cols, &init, |b, start, carried| {
            let left = b.sub(end, start);
            let keys = self.keys.load(b, start, cols, Some(left));
            let values = self.values.load(b, start, cols, Some(left));
            let s = b.dot(q, false, keys, true, None);
            let s = b.scale(s, scale);
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
        [done[0], done[1], done[2]]
    }
}
