//! The state between chunks: as a walk carries it, as the backward finds it, as decoding keeps it.

use crate::builder::Builder;
use crate::ir::{Compare, Elem, ParamId, Unary, ValueId};
use crate::library::attention::common::{HeadShape, scale_rows};

/// What the walk carries: reference, sum and weighted values of the keys so far.
pub(crate) struct Carried {
    /// Reference per feature, `[D]`.
    pub m: ValueId,
    /// `Σ exp(K − m)`, `[D]`; 0 before the first chunk.
    pub z: ValueId,
    /// `Σ exp(K − m) Vᵀ`, `[D, D]`.
    pub t: ValueId,
}

impl Carried {
    /// Writes `ell` and the normalised `state`; both are 0 before the first chunk.
    pub(crate) fn save(&self, b: &mut Builder, saved: &SavedStates, index: ValueId) {
        let (ell, state, _) = self.normalised(b);
        saved.store(b, index, ell, state);
    }

    /// `ell`, the state, and whether there was a key for the feature (`[D]`).
    fn normalised(&self, b: &mut Builder) -> (ValueId, ValueId, ValueId) {
        let shape = b.ty(self.z).shape;
        let zero = b.full(0.0, &shape);
        let one = b.full(1.0, &shape);
        let some = b.compare(Compare::Gt, self.z, zero);
        let z = b.select(some, self.z, one);
        let log = b.unary(Unary::Log, z);
        let ell = b.add(self.m, log);
        let ell = b.select(some, ell, zero);
        let inverse = b.unary(Unary::Recip, z);
        (ell, scale_rows(b, self.t, inverse), some)
    }

    /// What the factors of a chunk refer to, if they are rounded to `elem`; saves it as well.
    pub(crate) fn save_and_normalise(
        self,
        b: &mut Builder,
        elem: Elem,
        saved: &SavedStates,
        index: ValueId,
    ) -> Carried {
        let (ell, state, some) = self.normalised(b);
        saved.store(b, index, ell, state);
        if keeps_large_sums(elem) { self } else { self.replaced(b, ell, state, some) }
    }

    /// What the factors of a chunk refer to, where nothing is saved.
    pub(crate) fn normalised_for(self, b: &mut Builder, elem: Elem) -> Carried {
        if keeps_large_sums(elem) {
            return self;
        }
        let (ell, state, some) = self.normalised(b);
        self.replaced(b, ell, state, some)
    }

    /// The normalised state in place of this one, where there was a key.
    fn replaced(&self, b: &mut Builder, ell: ValueId, state: ValueId, some: ValueId) -> Carried {
        let shape = b.ty(self.z).shape;
        let one = b.full(1.0, &shape);
        Carried { m: b.select(some, ell, self.m), z: b.select(some, one, self.z), t: state }
    }
}

/// Relative to the largest key, the sums grow with the number of keys, which bf16 holds and f16 does not: there the walk
/// goes on from the normalised state, as the kernels do that start at a chunk.
fn keeps_large_sums(elem: Elem) -> bool {
    elem != Elem::F16
}

/// The saved states of one key/value head.
#[derive(Clone, Copy)]
pub(crate) struct SavedStates {
    ell: ParamId,
    state: ParamId,
    first: ValueId,
    dim: usize,
    window: Option<Window>,
}

/// Some rows of every pair: a block of features.
#[derive(Clone, Copy)]
struct Window {
    first: ValueId,
    rows: usize,
    bound: Option<ValueId>,
}

impl SavedStates {
    /// `count` (S) states of head `kv_head` of sequence `batch`.
    pub(crate) fn new(
        b: &mut Builder,
        ell: ParamId,
        state: ParamId,
        shape: &HeadShape,
        count: usize,
        batch: ValueId,
        kv_head: ValueId,
    ) -> Self {
        let line = shape.kv_line(b, batch, kv_head);
        SavedStates { ell, state, first: b.scale_index(line, count), dim: shape.head_dim, window: None }
    }

    /// `rows` features of each pair from feature `first` (Index) on.
    pub(crate) fn features(&self, first: ValueId, rows: usize) -> Self {
        SavedStates { window: Some(Window { first, rows, bound: None }), ..*self }
    }

    /// The same features, but none from `bound` on.
    pub(crate) fn bounded(&self, bound: Option<ValueId>) -> Self {
        SavedStates { window: self.window.map(|window| Window { bound, ..window }), ..*self }
    }

    fn offsets(&self, b: &mut Builder, index: ValueId) -> (ValueId, ValueId) {
        let at = b.add(self.first, index);
        let (small, large) = (b.scale_index(at, self.dim), b.scale_index(at, self.dim * self.dim));
        let Some(Window { first, .. }) = self.window else { return (small, large) };
        let rows = b.scale_index(first, self.dim);
        (b.add(small, first), b.add(large, rows))
    }

    /// Rows of a pair, and where they end.
    pub(crate) fn rows(&self) -> (usize, Option<ValueId>) {
        self.window.map_or((self.dim, None), |window| (window.rows, window.bound))
    }

    /// Writes the pair number `index`.
    pub(crate) fn store(&self, b: &mut Builder, index: ValueId, ell: ValueId, state: ValueId) {
        let (small, _) = self.offsets(b, index);
        let (_, bound) = self.rows();
        b.store(self.ell, small, ell, &[(1, bound)]);
        self.store_state(b, index, state);
    }

    /// Writes `state` number `index`.
    pub(crate) fn store_state(&self, b: &mut Builder, index: ValueId, state: ValueId) {
        let (_, large) = self.offsets(b, index);
        let (_, bound) = self.rows();
        b.store(self.state, large, state, &[(self.dim, bound), (1, None)]);
    }

    /// Reads `ell` number `index`, `[D]` or the features of the window.
    pub(crate) fn load_ell(&self, b: &mut Builder, index: ValueId) -> ValueId {
        let (small, _) = self.offsets(b, index);
        let (rows, bound) = self.rows();
        b.load(self.ell, small, &[rows], &[(1, bound)])
    }

    /// Reads `state` number `index`, `[D, D]` or the features of the window.
    pub(crate) fn load_state(&self, b: &mut Builder, index: ValueId) -> ValueId {
        let (_, large) = self.offsets(b, index);
        let (rows, bound) = self.rows();
        b.load(self.state, large, &[rows, self.dim], &[(self.dim, bound), (1, None)])
    }
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
    pub(crate) fn values(&self, b: &mut Builder, first: ValueId, width: usize) -> Self {
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
    pub(crate) fn load_sums(
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
    pub(crate) fn load_values(&self, b: &mut Builder, pos: ValueId) -> ValueId {
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

    /// Writes `m` and `z`.
    pub(crate) fn store_sums(&self, b: &mut Builder, m: ValueId, z: ValueId) {
        b.store(self.params[0], self.vector, m, &[(1, None)]);
        b.store(self.params[1], self.vector, z, &[(1, None)]);
    }

    /// Writes `t`.
    pub(crate) fn store_values(&self, b: &mut Builder, t: ValueId) {
        b.store(self.params[2], self.matrix, t, &[(self.dim, None), (1, None)]);
    }
}

fn is_zero(b: &mut Builder, index: ValueId) -> ValueId {
    let zero = b.index(0);
    b.compare(Compare::Eq, index, zero)
}
