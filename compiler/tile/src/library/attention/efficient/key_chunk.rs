//! A chunk of keys: its factors, the range in which their products are exact, one row of the slow path.

use super::documents::ChunkDocuments;
use super::feature_softmax::temper;
use super::state::SavedStates;
use crate::builder::Builder;
use crate::ir::{Binary, Compare, Elem, Unary, ValueId};
use crate::library::attention::common::{HeadRows, Triangle, mask_before, mask_from, with_each_row};
use crate::library::bound;

/// By how much ln Z may grow in a chunk that takes the fast path, and how far above the first key of a sequence the reference of its
/// first chunk is.
pub fn fast_path(elem: Elem) -> (f64, f64) {
    (fast_range(elem), first_headroom(elem).unwrap_or(0.0))
}

/// A chunk takes the fast path while every sum Z of `exp(K − reference)` stays below e to this power, by the type in
/// which the factors of matrix products are rounded.
///
/// f32 and bf16 have the same exponents; e^30 leaves room for the products of two factors.
///
/// f16 keeps relative precision from 2^-14 to 2^16 only, and rounds to multiples of 2^-24 below. `k̃` is at most Z and must
/// not overflow: Z < e^11. `q̃ = P / Z` must keep its precision: rounded to 2^-24, it is off by 2^-25 at most, 2^-25.8 on
/// average, and `k̃ ≤ Z` multiplies that. Over D features with random signs the attention weight is off by
/// `√D · 2^-25.8 · Z`, which for D = 128 stays below f16's own rounding of a weight near 1, 2^-12.8 on average, while
/// Z < 2^9.5 = e^6.6. What rounds to 0 among the `k̃` loses nothing: it is below 2^-25 of a sum of at least 1.
fn fast_range(elem: Elem) -> f64 {
    match elem {
        Elem::F16 => 6.6,
        Elem::F32 | Elem::Bf16 | Elem::I32 | Elem::Index | Elem::Bool => 30.0,
    }
}

/// How far above the first key of a sequence the reference of the first chunk is. Before it there is no sum that the
/// reference has to be near to, and with the key itself Z would be `64 / exp(K_0)` at the end: for keys of N(0, 1) more
/// than f16 has room for. `q̃` is up to e^5 then, and a `k̃` that rounds to 0 is below 2^-17 of the sum.
fn first_headroom(elem: Elem) -> Option<f64> {
    match elem {
        Elem::F16 => Some(5.0),
        Elem::F32 | Elem::Bf16 | Elem::I32 | Elem::Index | Elem::Bool => None,
    }
}

/// The reference of a chunk that has no keys before it, whose first token is `token` (Index); `[D]` or the features that `k`
/// has.
pub(crate) fn first_reference(
    b: &mut Builder,
    elem: Elem,
    k: &HeadRows,
    token: ValueId,
    temperature: f64,
) -> ValueId {
    let key = k.load_row(b, token);
    let key = temper(b, key, temperature);
    let Some(headroom) = first_headroom(elem) else { return key };
    let headroom = b.full(headroom, &b.ty(key).shape);
    b.add(key, headroom)
}

/// What the gradient of a state is divided by where it is rounded, and products with it multiplied by.
///
/// It is a sum over all later tokens, and the gradients of single keys and values are products of it and of weights that
/// are small when it is large. In f16 it would overflow long before they need a scale. Random signs make it as much
/// larger as the root of the number of tokens, here of 4096.
fn future_scale(elem: Elem) -> Option<f64> {
    match elem {
        Elem::F16 => Some(64.0),
        Elem::F32 | Elem::Bf16 | Elem::I32 | Elem::Index | Elem::Bool => None,
    }
}

/// The gradient of a state as a factor of matrix products, each of which needs [`of_future`].
pub(crate) fn narrow_future(b: &mut Builder, elem: Elem, d: ValueId) -> ValueId {
    let d = future_scale(elem).map_or(d, |scale| b.scale(d, 1.0 / scale));
    b.cast(d, elem)
}

/// A product with what [`narrow_future`] gave, or its other factor if that is at most 1, as it is without the division.
pub(crate) fn of_future(b: &mut Builder, elem: Elem, value: ValueId) -> ValueId {
    future_scale(elem).map_or(value, |scale| b.scale(value, scale))
}

/// Keys and values of a chunk.
pub(crate) struct KeyChunk {
    /// First token, Index.
    pub start: ValueId,
    /// Existing rows, if the chunk may be ragged.
    pub bound: Option<ValueId>,
    /// Keys times temperature, f32 `[C, D]`; -inf beyond the sequence, so that `exp` of them is 0.
    pub keys: ValueId,
    /// Values in the element type of the spec, `[C, D]`; 0 beyond the sequence.
    pub values: ValueId,
    /// Where documents are kept apart.
    pub documents: Option<ChunkDocuments>,
}

impl KeyChunk {
    /// Loads `rows` tokens from `start` on.
    pub(crate) fn load(
        b: &mut Builder,
        k: &HeadRows,
        v: &HeadRows,
        seq: usize,
        rows: usize,
        temperature: f64,
        start: ValueId,
    ) -> Self {
        let bound = bound(b, seq, start, rows);
        let keys = load_keys(b, k, rows, temperature, start, bound);
        let values = v.load(b, start, rows, bound);
        KeyChunk { start, bound, keys, values, documents: None }
    }

    /// The same of these documents.
    pub(crate) fn of(self, documents: Option<ChunkDocuments>) -> Self {
        KeyChunk { documents, ..self }
    }

    /// Keeps of `tile` `[queries, keys]` what queries see of the keys of the chunk, the rest 0; of `[keys, queries]` where
    /// `transposed`.
    pub(crate) fn hide(&self, b: &mut Builder, tile: ValueId, transposed: bool) -> ValueId {
        match self.documents {
            Some(documents) => documents.hide(b, tile, transposed),
            None => Triangle { fill: 0.0, lower: !transposed }.apply(b, tile, None),
        }
    }

    /// The rows of `tile` `[C, ..]` that see what is before the chunk; the others 0.
    pub(crate) fn rows_of_past(&self, b: &mut Builder, tile: ValueId) -> ValueId {
        self.documents.map_or(tile, |documents| documents.rows_of_past(b, tile))
    }

    /// The rows of `tile` `[C, ..]` whose keys are seen behind the chunk; the others 0.
    pub(crate) fn rows_of_tail(&self, b: &mut Builder, tile: ValueId) -> ValueId {
        self.documents.map_or(tile, |documents| documents.rows_of_tail(b, tile))
    }

    /// The keys that are seen behind the chunk; the others -inf.
    pub(crate) fn keys_of_tail(&self, b: &mut Builder) -> ValueId {
        self.documents.map_or(self.keys, |documents| documents.keys_of_tail(b, self.keys))
    }

    /// What is seen before the chunk as it is seen behind it: itself, or 0 in another document.
    pub(crate) fn carried(&self, b: &mut Builder, value: ValueId) -> ValueId {
        self.documents.map_or(value, |documents| documents.carried(b, value, 0.0))
    }

    /// Existing rows, Index.
    pub(crate) fn count(&self, b: &mut Builder) -> ValueId {
        let rows = b.ty(self.keys).shape[0];
        existing(b, rows, self.bound)
    }
}

/// `rows` keys from `start` on times temperature, f32; -inf from `bound` on.
pub(crate) fn load_keys(
    b: &mut Builder,
    k: &HeadRows,
    rows: usize,
    temperature: f64,
    start: ValueId,
    bound: Option<ValueId>,
) -> ValueId {
    let keys = k.load_f32(b, start, rows, bound);
    let keys = temper(b, keys, temperature);
    match bound {
        Some(bound) => mask_from(b, keys, 0, bound, f64::NEG_INFINITY),
        None => keys,
    }
}

/// How many of `rows` rows exist, Index.
pub(crate) fn existing(b: &mut Builder, rows: usize, bound: Option<ValueId>) -> ValueId {
    let rows = b.index(rows);
    match bound {
        Some(bound) => b.min(bound, rows),
        None => rows,
    }
}

/// Where there are no keys before a chunk.
#[derive(Clone, Copy)]
pub(crate) enum Past {
    /// Before the first chunk.
    Sequence,
    /// Before the first chunk of a block of tokens that is at this position (Index), if that is 0.
    Block(ValueId),
    /// Before a chunk that a document begins with.
    Documents(ChunkDocuments),
}

/// Reference and sum of weights of the keys before chunk `index`, for as many features as `saved` has:
/// `ell` and 1, or [`first_reference`] and 0 if there are none.
pub(crate) fn start_of_chunk(
    b: &mut Builder,
    elem: Elem,
    k: &HeadRows,
    saved: &SavedStates,
    temperature: f64,
    index: ValueId,
    past: Past,
) -> (ValueId, ValueId) {
    let (dim, _) = saved.rows();
    let zero = b.index(0);
    let (is_first, token) = match past {
        Past::Sequence => (b.compare(Compare::Eq, index, zero), zero),
        Past::Block(pos) => {
            let chunks_or_tokens = b.add(pos, index);
            (b.compare(Compare::Eq, chunks_or_tokens, zero), zero)
        }
        Past::Documents(documents) => (documents.begins(b), documents.start()),
    };
    let pair = b.if_else(
        is_first,
        |b| vec![first_reference(b, elem, k, token, temperature), b.full(0.0, &[dim])],
        |b| vec![saved.load_ell(b, index), b.full(1.0, &[dim])],
    );
    (pair[0], pair[1])
}

/// Adds a key to the prefix with largest key `m` and sum `z`, all `[D]`; returns both.
pub(crate) fn extend_prefix(b: &mut Builder, key: ValueId, m: ValueId, z: ValueId) -> (ValueId, ValueId) {
    let larger = b.max(m, key);
    let decay = b.sub(m, larger);
    let decay = b.exp(decay);
    let fresh = b.sub(key, larger);
    let fresh = b.exp(fresh);
    (larger, b.fma(z, decay, fresh))
}

/// The factors of the fast path.
pub(crate) struct Factors {
    /// `k̃ = exp(K − reference)`, `[C, D]`.
    pub k: ValueId,
    /// `Z = z + running sum of k̃`, `[C, D]`.
    pub z: ValueId,
    /// Z after the chunk, `[D]`.
    pub end: ValueId,
    /// At least any Z of the chunk, `[D]`.
    most: ValueId,
    /// Z may be small, where documents begin in the chunk.
    apart: bool,
    elem: Elem,
}

impl Factors {
    /// For keys `[C, D]`, reference `[D]` and the sum `z` `[D]` of the keys before; to be rounded to `elem`.
    pub(crate) fn new(
        b: &mut Builder,
        elem: Elem,
        keys: ValueId,
        reference: ValueId,
        z: ValueId,
        documents: Option<ChunkDocuments>,
    ) -> Self {
        let k = with_each_row(b, Binary::Sub, keys, reference);
        let k = b.exp(k);
        b.name(k, "k_tilde");
        if let Some(documents) = documents {
            let running = documents.running_sum(b, k, false);
            let rows = b.ty(k).shape[0];
            let before = b.expand_rows(z, rows);
            let before = documents.rows_of_past(b, before);
            let running = b.add(running, before);
            let end = documents.rows_of_tail(b, k);
            let end = b.sum(0, end);
            let before = documents.carried(b, z, 0.0);
            let end = b.add(end, before);
            let most = b.sum(0, k);
            let most = b.add(most, z);
            return Factors { k, z: running, end, most, apart: true, elem };
        }
        let running = b.scan(0, false, k);
        let running = with_each_row(b, Binary::Add, running, z);
        let end = b.sum(0, k);
        let end = b.add(end, z);
        Factors { k, z: running, end, most: end, apart: false, elem }
    }

    /// Bool scalar: the fast path is exact (false also if a sum overflowed).
    pub(crate) fn in_range(&self, b: &mut Builder) -> ValueId {
        let worst = b.reduce_max(0, self.most);
        let limit = b.float(fast_range(self.elem).exp());
        let ok = b.compare(Compare::Le, worst, limit);
        if !self.apart {
            return ok;
        }
        let inverse = b.unary(Unary::Recip, self.z);
        let worst = b.reduce_max(0, inverse);
        let worst = b.reduce_max(0, worst);
        // A chunk without a past begins with the least Z that there may be, but for rounding.
        let least = first_headroom(self.elem).map_or(fast_range(self.elem), |headroom| headroom + 1.0);
        let limit = b.float(least.exp());
        let not_small = b.compare(Compare::Le, worst, limit);
        b.binary(Binary::And, ok, not_small)
    }
}

/// One row of the slow path: the prefix of the sequence that ends with token t.
pub(crate) struct PrefixStep {
    /// Largest key of the prefix, `[D]`.
    pub m: ValueId,
    /// `Σ exp(K − m)` of the prefix, `[D]`.
    pub z: ValueId,
    /// `exp(K_s − L_t)` of the chunk's keys `s ≤ t`, 0 for later ones; `[C, D]`, no exponent is positive.
    pub weights: ValueId,
    inverse: ValueId,
    /// Bool scalar where documents are kept apart: the token sees what is before the chunk.
    sees_past: Option<ValueId>,
}

impl PrefixStep {
    /// Adds the token in row `row` of a chunk to the prefix `(m, z)`.
    pub(super) fn new(
        b: &mut Builder,
        k: &HeadRows,
        chunk: &KeyChunk,
        temperature: f64,
        [token, row]: [ValueId; 2],
        prefix: [ValueId; 2],
    ) -> Self {
        let prefix = match chunk.documents {
            Some(documents) => documents.restart(b, token, prefix),
            None => prefix,
        };
        let key = k.load_row(b, token);
        let key = temper(b, key, temperature);
        let (m, z) = extend_prefix(b, key, prefix[0], prefix[1]);
        let inverse = b.unary(Unary::Recip, z);
        let one = b.index(1);
        let seen = b.add(row, one);
        let weights = with_each_row(b, Binary::Sub, chunk.keys, m);
        let mut weights = mask_from(b, weights, 0, seen, f64::NEG_INFINITY);
        let mut sees_past = None;
        if let Some(documents) = chunk.documents {
            let first = documents.first_row(b, token, row);
            weights = mask_before(b, weights, 0, first, f64::NEG_INFINITY);
            let zero = b.index(0);
            sees_past = Some(b.compare(Compare::Lt, first, zero));
        }
        let weights = b.exp(weights);
        let weights = with_each_row(b, Binary::Mul, weights, inverse);
        PrefixStep { m, z, weights, inverse, sees_past }
    }

    /// `exp(reference − L_t)`, `[D]`, for a reference at or before the prefix's largest key; 0 if that is of another document.
    pub(super) fn weight_of(&self, b: &mut Builder, reference: ValueId) -> ValueId {
        let weight = b.sub(reference, self.m);
        let weight = b.exp(weight);
        let weight = b.mul(weight, self.inverse);
        let Some(sees) = self.sees_past else { return weight };
        let shape = b.ty(weight).shape;
        b.if_else(sees, |_| vec![weight], |b| vec![b.full(0.0, &shape)])[0]
    }
}
