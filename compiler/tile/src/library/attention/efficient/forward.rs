//! Causal efficient attention, forward, in one pass over the sequence: a program for each sequence and key/value head walks
//! over the chunks and carries the reference, the sum and the weighted values (see [`super`]).

use super::chunked::Sizes;
use super::documents::ChunkDocuments;
use super::feature_softmax::{softmax_rows, softmax_vector};
use super::key_chunk::{Factors, KeyChunk, PrefixStep, first_reference};
use super::state::{Carried, SavedStates};
use crate::builder::Builder;
use crate::ir::{Binary, Elem, Kernel, Mode, ParamId, Unary, ValueId};
use crate::library::attention::common::{
    Documents, HeadRows, HeadShape, HeadStrides, for_group, group_head, scale_rows, strides_tag,
    with_each_row,
};
use crate::library::{bound, number, tag};

/// What the forward kernels compute and how.
#[derive(Clone, PartialEq, Debug)]
pub struct EfficientForwardSpec {
    /// Element type of q, k, v, out.
    pub elem: Elem,
    /// Sizes.
    pub shape: HeadShape,
    /// Tokens of a chunk, C.
    pub chunk: usize,
    /// Multiplier of q and k before their softmaxes.
    pub temperature: f64,
    /// A token sees only keys of its own document. Of causal attention only.
    pub documents: bool,
    /// Distances between the heads and positions of q `[B, S, H, D]`, in elements.
    pub q: HeadStrides,
    /// Of k `[B, S, G, D]`.
    pub k: HeadStrides,
    /// Of v `[B, S, G, D]`.
    pub v: HeadStrides,
    /// Of the output `[B, S, H, D]`.
    pub out: HeadStrides,
}

impl EfficientForwardSpec {
    /// What it has in common with the other direction.
    pub(crate) fn sizes(&self) -> Sizes {
        Sizes::new(self.elem, self.shape, self.chunk, self.temperature, self.documents)
    }

    /// Name of a kernel of this spec that uses tensors of these strides.
    pub(crate) fn name(&self, kernel: &str, strides: &[HeadStrides]) -> String {
        kernel_name(kernel, &self.sizes(), strides)
    }
}

/// Name of a kernel of efficient attention; panics on a shape no kernel exists for.
pub(crate) fn kernel_name(kernel: &str, sizes: &Sizes, strides: &[HeadStrides]) -> String {
    let Sizes { elem, shape, chunk, temperature, documents, .. } = *sizes;
    let name = format!(
        "{kernel}_{}_{}_t{}_c{chunk}{}_{}",
        tag(elem),
        shape.tag(),
        number(temperature),
        if documents { "_documents" } else { "" },
        strides_tag(strides),
    );
    shape.check(&name);
    assert!(chunk > 0, "{name}: empty chunk");
    name
}

/// `(q, k, v, [positions]) -> (out, ell [B, G, S, D], state [B, G, S, D, D])`, causal.
pub fn efficient_attention_forward(spec: &EfficientForwardSpec) -> Kernel {
    let HeadShape { batch, seq, kv_heads, head_dim: dim, .. } = spec.shape;
    let name = spec.name("efficient_attention_forward", &[spec.q, spec.k, spec.v, spec.out]);
    let mut b = Builder::new(name, [kv_heads, batch, 1]);
    let q = b.param("q", spec.elem, Mode::Read);
    let k = b.param("k", spec.elem, Mode::Read);
    let v = b.param("v", spec.elem, Mode::Read);
    let positions = spec.documents.then(|| Documents::param(&mut b));
    let out = b.param("out", spec.elem, Mode::Write);
    let ell = b.param("ell", Elem::F32, Mode::Write);
    let state = b.param("state", Elem::F32, Mode::Write);

    let (kv_head, batch) = (b.program_id(0), b.program_id(1));
    let saved = SavedStates::new(&mut b, ell, state, &spec.shape, seq.div_ceil(spec.chunk), batch, kv_head);
    let k = HeadRows::new(&mut b, k, spec.k, dim, batch, kv_head);
    let v = HeadRows::new(&mut b, v, spec.v, dim, batch, kv_head);
    let queries = Queries { spec, q, out, batch, kv_head };
    let documents = positions.map(|positions| Documents::new(&mut b, positions, &spec.shape, batch));

    let zero = b.index(0);
    let first = first_reference(&mut b, spec.elem, &k, zero, spec.temperature);
    let init = [first, b.full(0.0, &[dim]), b.full(0.0, &[dim, dim])];
    let end = b.index(seq);
    b.for_loop(zero, end, spec.chunk, &init, |b, start, carried| {
        let before = Carried { m: carried[0], z: carried[1], t: carried[2] };
        let size = b.index(spec.chunk);
        let index = b.div(start, size);
        let before = before.save_and_normalise(b, spec.elem, &saved, index);
        let documents = documents.map(|documents| {
            let bound = bound(b, seq, start, spec.chunk);
            ChunkDocuments::new(b, documents, seq, spec.chunk, start, bound)
        });
        let before = match documents {
            Some(documents) => documents.begin(b, spec.elem, &k, spec.temperature, before),
            None => before,
        };
        let chunk = KeyChunk::load(b, &k, &v, seq, spec.chunk, spec.temperature, start).of(documents);
        queries.walk(b, &k, &chunk, &before)
    });
    b.finish()
}

/// The query side of one key/value head.
pub(crate) struct Queries<'a> {
    /// What is computed.
    pub spec: &'a EfficientForwardSpec,
    /// Queries of all heads, `[B, S, H, D]`.
    pub q: ParamId,
    /// Output of all heads, `[B, S, H, D]`.
    pub out: ParamId,
    /// Sequence, Index.
    pub batch: ValueId,
    /// Key/value head, Index.
    pub kv_head: ValueId,
}

impl Queries<'_> {
    /// The outputs of a chunk, from its keys and what was carried there; returns m, z, t after it.
    pub(crate) fn walk(
        &self,
        b: &mut Builder,
        k: &HeadRows,
        chunk: &KeyChunk,
        before: &Carried,
    ) -> Vec<ValueId> {
        let factors = Factors::new(b, self.spec.elem, chunk.keys, before.m, before.z, chunk.documents);
        let ok = factors.in_range(b);
        b.if_else(
            ok,
            |b| fast_chunk(b, self, chunk, &factors, before),
            |b| slow_chunk(b, self, k, chunk, before),
        )
    }

    /// Runs `body(q rows, out rows)` for each query head of the group.
    fn each(&self, b: &mut Builder, body: impl FnOnce(&mut Builder, HeadRows, HeadRows)) {
        let (spec, dim) = (self.spec, self.spec.shape.head_dim);
        for_group(b, spec.shape.group(), &[], |b, member, _| {
            let head = group_head(b, self.kv_head, spec.shape.group(), member);
            let q = HeadRows::new(b, self.q, spec.q, dim, self.batch, head);
            let out = HeadRows::new(b, self.out, spec.out, dim, self.batch, head);
            body(b, q, out);
            vec![]
        });
    }
}

/// All queries of the chunk by matrix products; returns m, z, t after it.
fn fast_chunk(
    b: &mut Builder,
    queries: &Queries,
    chunk: &KeyChunk,
    factors: &Factors,
    before: &Carried,
) -> Vec<ValueId> {
    let (spec, elem) = (queries.spec, queries.spec.elem);
    let k_small = b.cast(factors.k, elem);
    let t_small = b.cast(before.t, elem);
    let inverse = b.unary(Unary::Recip, factors.z);
    queries.each(b, |b, q, out| {
        let q = q.load_f32(b, chunk.start, spec.chunk, chunk.bound);
        let p = softmax_rows(b, q, spec.temperature);
        let q = b.mul(p, inverse);
        b.name(q, "q_tilde");
        let of_past = chunk.rows_of_past(b, q);
        let of_past = b.cast(of_past, elem);
        let q = if chunk.documents.is_some() { b.cast(q, elem) } else { of_past };
        let inter = b.dot(of_past, false, t_small, false, None);
        let a = b.dot(q, false, k_small, true, None);
        let a = chunk.hide(b, a, false);
        let a = b.cast(a, elem);
        let result = b.dot(a, false, chunk.values, false, Some(inter));
        out.store(b, chunk.start, result, chunk.bound);
    });
    // The largest key becomes the reference again, so that the next chunk starts with small exponents.
    let keys = chunk.keys_of_tail(b);
    let m = b.reduce_max(0, keys);
    let before_m = chunk.documents.map_or(before.m, |d| d.carried(b, before.m, f64::NEG_INFINITY));
    let m = b.max(before_m, m);
    let decay = b.sub(before.m, m);
    let decay = b.exp(decay);
    let z = b.mul(factors.end, decay);
    let k_small = match chunk.documents {
        Some(_) => {
            let k = chunk.rows_of_tail(b, factors.k);
            b.cast(k, elem)
        }
        None => k_small,
    };
    let t = chunk.carried(b, before.t);
    let t = b.dot(k_small, true, chunk.values, false, Some(t));
    let t = scale_rows(b, t, decay);
    vec![m, z, t]
}

/// The queries of the chunk one by one; safe for any keys. Returns m, z, t after the chunk.
fn slow_chunk(
    b: &mut Builder,
    queries: &Queries,
    k: &HeadRows,
    chunk: &KeyChunk,
    before: &Carried,
) -> Vec<ValueId> {
    let spec = queries.spec;
    let values = b.cast(chunk.values, Elem::F32);
    let (zero, count) = (b.index(0), chunk.count(b));
    let ends = b.for_loop(zero, count, 1, &[before.m, before.z], |b, row, carried| {
        let token = b.add(chunk.start, row);
        let step = PrefixStep::new(b, k, chunk, spec.temperature, [token, row], [carried[0], carried[1]]);
        let old = step.weight_of(b, before.m);
        queries.each(b, |b, q, out| {
            let q = q.load_row(b, token);
            let p = softmax_vector(b, q, spec.temperature);
            let from_state = b.mul(p, old);
            let inter = scale_rows(b, before.t, from_state);
            let inter = b.sum(0, inter);
            let a = with_each_row(b, Binary::Mul, step.weights, p);
            let a = b.sum(1, a);
            let intra = scale_rows(b, values, a);
            let intra = b.sum(0, intra);
            let result = b.add(inter, intra);
            out.store_row(b, token, result);
        });
        vec![step.m, step.z]
    });
    // Summed once per chunk instead of token by token, z rounds less often.
    let m = ends[0];
    let decay = b.sub(before.m, m);
    let decay = b.exp(decay);
    let decay = chunk.carried(b, decay);
    let keys = chunk.keys_of_tail(b);
    let weights = with_each_row(b, Binary::Sub, keys, m);
    let weights = b.exp(weights);
    let fresh = b.sum(0, weights);
    let z = b.fma(before.z, decay, fresh);
    let t = scale_rows(b, before.t, decay);
    let weights = b.cast(weights, spec.elem);
    let t = b.dot(weights, true, chunk.values, false, Some(t));
    vec![m, z, t]
}
