//! Softmax attention, forward, in the manner of FlashAttention: no N×N buffer, each score is computed once.
//!
//! A program owns `block_q` query rows of one head and walks over blocks of keys by the online softmax.

use super::online::{AttendedRows, KeyWalk};
use super::scores::Kept;
use crate::builder::Builder;
use crate::ir::{Elem, Kernel, Mode, Unary};
use crate::library::attention::common::{
    Documents, HeadRows, HeadShape, HeadStrides, QueryBlock, strides_tag,
};
use crate::library::{number, tag};

/// What [`softmax_attention_forward`] computes and how.
#[derive(Clone, PartialEq, Debug)]
pub struct SoftmaxForwardSpec {
    /// Element type of q, k, v, out.
    pub elem: Elem,
    /// Sizes.
    pub shape: HeadShape,
    /// Each query sees only keys at or before its own position.
    pub causal: bool,
    /// And only keys of its own document. Of causal attention only.
    pub documents: bool,
    /// Score multiplier.
    pub scale: f64,
    /// Query rows of a program.
    pub block_q: usize,
    /// Keys of an iteration.
    pub block_k: usize,
    /// Which way round the scores are; a program keeps its queries.
    pub kept: Kept,
    /// Distances between the heads and positions of q `[B, S, H, D]`, in elements.
    pub q: HeadStrides,
    /// Of k `[B, S, G, D]`.
    pub k: HeadStrides,
    /// Of v `[B, S, G, D]`.
    pub v: HeadStrides,
    /// Of the output `[B, S, H, D]`.
    pub out: HeadStrides,
}

/// Which keys queries see, as a part of kernel names.
pub(super) fn mask_tag(causal: bool, documents: bool) -> &'static str {
    match (causal, documents) {
        (false, _) => "full",
        (true, false) => "causal",
        (true, true) => "documents",
    }
}

/// `(q, k, v, [positions]) -> (out, lse)`: `out = softmax(q kᵀ·scale) v`, `lse` the natural-log row logsumexp of the scaled
/// scores.
pub fn softmax_attention_forward(spec: &SoftmaxForwardSpec) -> Kernel {
    let HeadShape { batch, seq, heads, head_dim: dim, .. } = spec.shape;
    let name = format!(
        "softmax_attention_forward_{}_{}_{}_s{}_q{}_k{}{}_{}",
        tag(spec.elem),
        spec.shape.tag(),
        mask_tag(spec.causal, spec.documents),
        number(spec.scale),
        spec.block_q,
        spec.block_k,
        spec.kept.tag(),
        strides_tag(&[spec.q, spec.k, spec.v, spec.out]),
    );
    spec.shape.check(&name);
    assert!(spec.causal || !spec.documents, "{name}: documents of attention that is not causal");
    let (rows, cols) = (spec.block_q, spec.block_k);
    let blocks = seq.div_ceil(rows);
    let mut b = Builder::new(name, [blocks, heads, batch]);
    let q = b.param("q", spec.elem, Mode::Read);
    let k = b.param("k", spec.elem, Mode::Read);
    let v = b.param("v", spec.elem, Mode::Read);
    let positions = spec.documents.then(|| Documents::param(&mut b));
    let out = b.param("out", spec.elem, Mode::Write);
    let lse = b.param("lse", Elem::F32, Mode::Write);

    let place = QueryBlock::new(&mut b, &spec.shape, rows, spec.causal);
    let q = HeadRows::new(&mut b, q, spec.q, dim, place.batch, place.head);
    let k = HeadRows::new(&mut b, k, spec.k, dim, place.batch, place.kv_head);
    let v = HeadRows::new(&mut b, v, spec.v, dim, place.batch, place.kv_head);
    let out = HeadRows::new(&mut b, out, spec.out, dim, place.batch, place.head);
    let q_tile = q.load(&mut b, place.start, rows, place.bound);

    let documents = positions.map(|positions| Documents::new(&mut b, positions, &spec.shape, place.batch));
    let walk = KeyWalk {
        seq,
        end: None,
        rows,
        cols,
        causal: spec.causal,
        documents,
        start: place.start,
        kept: spec.kept,
    };
    let AttendedRows { m, l, result } = walk.attend(&mut b, spec.elem, spec.scale, q_tile, &k, &v);
    out.store(&mut b, place.start, result, place.bound);
    let log = b.unary(Unary::Log, l);
    let m = b.scale(m, spec.scale);
    let log = b.add(m, log);
    let at = place.row_offset(&mut b, &spec.shape);
    b.store(lse, at, log, &[(1, place.bound)]);
    b.finish()
}
