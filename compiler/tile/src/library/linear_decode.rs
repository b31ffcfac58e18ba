//! One token of linear attention, in O(1): the recurrent state, and a step.
//!
//! A program serves one sequence and key/value head with all query heads of its group as the rows of one tile, and updates
//! its state in place. The position is a scalar in memory, so one kernel serves every step.

use super::attention::{
    GroupTile, HeadRows, HeadShape, HeadStrides, scale_rows, softmax_rows, strides_tag, temper,
};
use super::linear_attention_chunk::Carried;
use super::{load_index, number, tag};
use crate::builder::Builder;
use crate::ir::{Compare, Elem, Kernel, Mode, ParamId, ValueId};

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
    /// Features of values that are done at once, a divisor of D: what of the state a program holds.
    pub width: usize,
    /// Strides of q `[B, 1, H, D]`.
    pub q: HeadStrides,
    /// Strides of k.
    pub k: HeadStrides,
    /// Strides of v.
    pub v: HeadStrides,
    /// Strides of out.
    pub out: HeadStrides,
}

/// `(q, k, v, m [B, G, D], z [B, G, D], t [B, G, D, D], pos) -> out`: one token of causal linear attention in the
/// unnormalised recurrent form `m' = max(m, k)`, `z' = z e^(m−m') + e^(k−m')`, `t' = t e^(m−m') + e^(k−m') vᵀ`,
/// `out = (softmax(q) / z') t'`, in place; at `pos` 0 the old m, z, t are ignored.
pub fn linear_decode(spec: &LinearDecodeSpec) -> Kernel {
    let LinearDecodeSpec { block_h: rows, width, .. } = *spec;
    let HeadShape { batch, kv_heads, head_dim: dim, .. } = spec.shape;
    let name = format!(
        "linear_decode_{}_{}_t{}_h{rows}_v{width}_{}",
        tag(spec.elem),
        spec.shape.tag(),
        number(spec.temperature),
        strides_tag(&[spec.q, spec.k, spec.v, spec.out]),
    );
    spec.shape.check(&name);
    assert!(dim.is_multiple_of(width), "{name}: {width} of {dim} features");
    let mut b = Builder::new(name, [kv_heads, batch, 1]);
    let q = b.param("q", spec.elem, Mode::Read);
    let k = b.param("k", spec.elem, Mode::Read);
    let v = b.param("v", spec.elem, Mode::Read);
    let state = ["m", "z", "t"].map(|name| b.param(name, Elem::F32, Mode::ReadWrite));
    let pos = b.param("pos", Elem::I32, Mode::Read);
    let out = b.param("out", spec.elem, Mode::Write);
    let (kv_head, batch) = (b.program_id(0), b.program_id(1));
    let zero = b.index(0);
    let pos = load_index(&mut b, pos);
    let k = HeadRows::new(&mut b, k, spec.k, dim, batch, kv_head);
    let v = HeadRows::new(&mut b, v, spec.v, dim, batch, kv_head);
    let key = k.load_row(&mut b, zero);
    let key = temper(&mut b, key, spec.temperature);

    let state = StoredState::new(&mut b, state, &spec.shape, batch, kv_head);
    let (old_m, old_z) = state.load_sums(&mut b, pos, |_| key);
    let m = b.max(old_m, key);
    let decay = b.sub(old_m, m);
    let decay = b.exp(decay);
    let fresh = b.sub(key, m);
    let fresh = b.exp(fresh);
    let z = b.fma(old_z, decay, fresh);
    state.store_sums(&mut b, m, z);

    let group = GroupTile::new(&mut b, &spec.shape, rows, batch, kv_head);
    let q = group.load(&mut b, q, spec.q);
    let q = b.cast(q, Elem::F32);
    let p = softmax_rows(&mut b, q, spec.temperature);
    let z_rows = b.expand_rows(z, rows);
    let p = b.div(p, z_rows);
    let each = |b: &mut Builder, first: ValueId| {
        let state = state.values(b, first, width);
        let old = state.load_values(b, pos);
        let value = v.features(b, first, width).load_row(b, zero);
        let kept = scale_rows(b, old, decay);
        let column = b.expand_cols(fresh, width);
        let row = b.expand_rows(value, dim);
        let t = b.fma(column, row, kept);
        state.store_values(b, t);
        let result = b.dot(p, false, t, false, None);
        group.store_features(b, out, spec.out, first, result);
    };
    if width == dim {
        each(&mut b, zero);
    } else {
        let end = b.index(dim);
        b.for_loop(zero, end, width, &[], |b, first, _| {
            each(b, first);
            vec![]
        });
    }
    b.finish()
}

/// The recurrent state of one key/value head between two programs: `m`, `z` `[B, G, D]`, `t` `[B, G, D, D]`, or a part of
/// its rows and columns.
pub(crate) struct StoredState {
    params: [ParamId; 3],
    vector: ValueId,
    matrix: ValueId,
    shape: [usize; 2],
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
        let line = shape.kv_line(b, batch, kv_head);
        let (vector, matrix) = (b.scale_index(line, dim), b.scale_index(line, dim * dim));
        StoredState { params, vector, matrix, shape: [dim, dim], dim }
    }

    /// `rows` features of keys from feature `first` (Index) on.
    pub(crate) fn features(&self, b: &mut Builder, first: ValueId, rows: usize) -> Self {
        let above = b.scale_index(first, self.dim);
        let (vector, matrix) = (b.add(self.vector, first), b.add(self.matrix, above));
        StoredState { vector, matrix, shape: [rows, self.shape[1]], ..*self }
    }

    /// `width` features of values from feature `first` (Index) on.
    fn values(&self, b: &mut Builder, first: ValueId, width: usize) -> Self {
        StoredState { matrix: b.add(self.matrix, first), shape: [self.shape[0], width], ..*self }
    }

    /// What was carried to position `pos` (Index); at 0 nothing but the reference that `first` gives.
    pub(crate) fn load(
        &self,
        b: &mut Builder,
        pos: ValueId,
        first: impl FnOnce(&mut Builder) -> ValueId,
    ) -> Carried {
        let (m, z) = self.load_sums(b, pos, first);
        Carried { m, z, t: self.load_values(b, pos) }
    }

    /// `m` and `z` of [`StoredState::load`].
    fn load_sums(
        &self,
        b: &mut Builder,
        pos: ValueId,
        first: impl FnOnce(&mut Builder) -> ValueId,
    ) -> (ValueId, ValueId) {
        let rows = [self.shape[0]];
        let load = |b: &mut Builder, param| b.load(param, self.vector, &rows, &[(1, None)]);
        let is_first = is_zero(b, pos);
        let sums = b.if_else(
            is_first,
            |b| vec![first(b), b.full(0.0, &rows)],
            |b| vec![load(b, self.params[0]), load(b, self.params[1])],
        );
        (sums[0], sums[1])
    }

    /// `t` of [`StoredState::load`].
    fn load_values(&self, b: &mut Builder, pos: ValueId) -> ValueId {
        let is_first = is_zero(b, pos);
        let values = b.if_else(
            is_first,
            |b| vec![b.full(0.0, &self.shape)],
            |b| vec![b.load(self.params[2], self.matrix, &self.shape, &[(self.dim, None), (1, None)])],
        );
        values[0]
    }

    /// Writes it back.
    pub(crate) fn store(&self, b: &mut Builder, state: &Carried) {
        self.store_sums(b, state.m, state.z);
        self.store_values(b, state.t);
    }

    fn store_sums(&self, b: &mut Builder, m: ValueId, z: ValueId) {
        b.store(self.params[0], self.vector, m, &[(1, None)]);
        b.store(self.params[1], self.vector, z, &[(1, None)]);
    }

    fn store_values(&self, b: &mut Builder, t: ValueId) {
        b.store(self.params[2], self.matrix, t, &[(self.dim, None), (1, None)]);
    }
}

fn is_zero(b: &mut Builder, index: ValueId) -> ValueId {
    let zero = b.index(0);
    b.compare(Compare::Eq, index, zero)
}
