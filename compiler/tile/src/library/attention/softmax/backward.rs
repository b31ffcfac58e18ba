//! Softmax attention, backward, as three deterministic kernels: every gradient is summed by one program.
//!
//! With P = exp(q kᵀ·scale − lse) recomputed, to base 2 as in the forward: dV = Pᵀ dO, dS = P ⊙ (dO Vᵀ − delta),
//! dQ = scale·dS K, dK = scale·dSᵀ Q, delta = rowsum(out ⊙ dout). `dkdv` sums the query heads of a group itself. Rows
//! beyond the sequence load as 0 and so add nothing.

use std::f64::consts::LOG2_E;

use super::forward::mask_tag;
use super::online::{KeyWalk, scaled_exp};
use super::scores::Kept;
use crate::builder::Builder;
use crate::ir::{Compare, Elem, Kernel, Mode, ParamId, ValueId};
use crate::library::attention::common::{
    Documents, HeadRows, HeadShape, HeadStrides, QueryBlock, for_group, group_head, strides_tag,
};
use crate::library::{bound, number, tag};

/// What the backward kernels compute and how.
#[derive(Clone, PartialEq, Debug)]
pub struct SoftmaxBackwardSpec {
    /// Element type of q, k, v, out and the gradients.
    pub elem: Elem,
    /// Sizes.
    pub shape: HeadShape,
    /// Each query sees only keys at or before its own position.
    pub causal: bool,
    /// And only keys of its own document. Of causal attention only.
    pub documents: bool,
    /// Score multiplier.
    pub scale: f64,
    /// Query rows of a program or iteration.
    pub block_q: usize,
    /// Keys of a program or iteration.
    pub block_k: usize,
    /// Which way round the scores are; a program of `dq` keeps its queries, one of `dkdv` its keys.
    pub kept: Kept,
    /// Distances between the heads and positions of q `[B, S, H, D]`, in elements.
    pub q: HeadStrides,
    /// Of k `[B, S, G, D]`.
    pub k: HeadStrides,
    /// Of v `[B, S, G, D]`.
    pub v: HeadStrides,
    /// Of the output of the forward pass, `[B, S, H, D]`.
    pub out: HeadStrides,
    /// Of the gradient of the output.
    pub dout: HeadStrides,
    /// Of the gradient of q.
    pub dq: HeadStrides,
    /// Of the gradient of k.
    pub dk: HeadStrides,
    /// Of the gradient of v.
    pub dv: HeadStrides,
}

/// The queries that a program meets a block of keys with.
#[derive(Clone, Copy)]
pub(super) struct QueryRange {
    /// First query, Index, at the start of a block.
    pub start: ValueId,
    /// End of the queries, Index.
    pub end: ValueId,
    /// Every query sees every key. Else those that see some key of a block are found.
    pub sees_all: bool,
}

impl QueryRange {
    /// All queries of the sequence.
    pub(super) fn whole(b: &mut Builder, spec: &SoftmaxBackwardSpec) -> QueryRange {
        QueryRange { start: b.index(0), end: b.index(spec.shape.seq), sees_all: !spec.causal }
    }
}

impl SoftmaxBackwardSpec {
    /// Carries values over the blocks of queries that see some key of a block: `step(builder, first query, whether some
    /// keys are hidden, carried)`. `keys` is the first key, Index. Where documents are kept apart, queries end with the
    /// document of the last key.
    fn walk_queries(
        &self,
        b: &mut Builder,
        keys: ValueId,
        queries: QueryRange,
        documents: Option<Documents>,
        carried: &[ValueId],
        step: impl Fn(&mut Builder, ValueId, bool, &[ValueId]) -> Vec<ValueId>,
    ) -> Vec<ValueId> {
        let (rows, cols) = (self.block_q, self.block_k);
        let QueryRange { start, end, sees_all } = queries;
        if let Some(documents) = documents {
            let width = b.index(rows);
            let start = if sees_all {
                start
            } else {
                let first = b.div(keys, width);
                b.scale_index(first, rows)
            };
            let end = self.end_of_document(b, documents, keys, [start, end]);
            return b.for_loop(start, end, rows, carried, |b, start, carried| step(b, start, true, carried));
        }
        if sees_all {
            return b.for_loop(start, end, rows, carried, |b, start, carried| step(b, start, false, carried));
        }
        // Blocks of queries before the keys see none of them; those at or after the last key see all.
        let width = b.index(rows);
        let first = b.div(keys, width);
        let first = b.scale_index(first, rows);
        let reach = b.index(cols - 1 + rows - 1);
        let full = b.add(keys, reach);
        let full = b.div(full, width);
        let full = b.scale_index(full, rows);
        let diagonal = b.min(full, end);
        let carried =
            b.for_loop(first, diagonal, rows, carried, |b, start, carried| step(b, start, true, carried));
        b.for_loop(full, end, rows, &carried, |b, start, carried| step(b, start, false, carried))
    }

    /// The end of the blocks of queries, `[start, end]`, of which some is of the document of the last key of a block or of an
    /// earlier one.
    fn end_of_document(
        &self,
        b: &mut Builder,
        documents: Documents,
        keys: ValueId,
        [start, end]: [ValueId; 2],
    ) -> ValueId {
        let reach = b.index(self.block_k - 1);
        let last = b.add(keys, reach);
        let found = b.for_loop(start, end, self.block_q, &[start], |b, query, carried| {
            // Documents only begin later from query to query.
            let begin = documents.start(b, query);
            let sees = b.compare(Compare::Le, begin, last);
            b.if_else(
                sees,
                |b| {
                    let rows = b.index(self.block_q);
                    vec![b.add(query, rows)]
                },
                |_| vec![carried[0]],
            )
        });
        b.min(found[0], end)
    }

    pub(super) fn name(&self, kernel: &str, strides: &[HeadStrides]) -> String {
        let name = format!(
            "softmax_attention_{kernel}_{}_{}_{}_s{}_q{}_k{}{}_{}",
            tag(self.elem),
            self.shape.tag(),
            mask_tag(self.causal, self.documents),
            number(self.scale),
            self.block_q,
            self.block_k,
            self.kept.tag(),
            strides_tag(strides),
        );
        self.shape.check(&name);
        assert!(self.causal || !self.documents, "{name}: documents of attention that is not causal");
        name
    }
}

/// `(out, dout) -> delta [B, H, N]`: the row sums of `out ⊙ dout`, f32.
pub fn softmax_attention_delta(spec: &SoftmaxBackwardSpec) -> Kernel {
    let HeadShape { batch, seq, heads, head_dim: dim, .. } = spec.shape;
    let rows = spec.block_q;
    let name = spec.name("delta", &[spec.out, spec.dout]);
    let mut b = Builder::new(name, [seq.div_ceil(rows), heads, batch]);
    let out = b.param("out", spec.elem, Mode::Read);
    let dout = b.param("dout", spec.elem, Mode::Read);
    let delta = b.param("delta", Elem::F32, Mode::Write);
    let place = QueryBlock::new(&mut b, &spec.shape, rows, false);
    let out = HeadRows::new(&mut b, out, spec.out, dim, place.batch, place.head);
    let dout = HeadRows::new(&mut b, dout, spec.dout, dim, place.batch, place.head);
    let out = out.load_f32(&mut b, place.start, rows, place.bound);
    let dout = dout.load_f32(&mut b, place.start, rows, place.bound);
    let product = b.mul(out, dout);
    let sums = b.sum(1, product);
    let at = place.row_offset(&mut b, &spec.shape);
    b.store(delta, at, sums, &[(1, place.bound)]);
    b.finish()
}

/// `(q, k, v, dout, lse, delta, [positions]) -> dq`
pub fn softmax_attention_dq(spec: &SoftmaxBackwardSpec) -> Kernel {
    let HeadShape { batch, seq, heads, head_dim: dim, .. } = spec.shape;
    let (rows, cols) = (spec.block_q, spec.block_k);
    let name = spec.name("dq", &[spec.q, spec.k, spec.v, spec.dout, spec.dq]);
    let mut b = Builder::new(name, [seq.div_ceil(rows), heads, batch]);
    let Inputs { qkv: [q, k, v], dout, lse, delta, positions } = Inputs::declare(&mut b, spec);
    let dq = b.param("dq", spec.elem, Mode::Write);
    let place = QueryBlock::new(&mut b, &spec.shape, rows, spec.causal);
    let q = HeadRows::new(&mut b, q, spec.q, dim, place.batch, place.head);
    let k = HeadRows::new(&mut b, k, spec.k, dim, place.batch, place.kv_head);
    let v = HeadRows::new(&mut b, v, spec.v, dim, place.batch, place.kv_head);
    let dout = HeadRows::new(&mut b, dout, spec.dout, dim, place.batch, place.head);
    let dq = HeadRows::new(&mut b, dq, spec.dq, dim, place.batch, place.head);
    let q_tile = q.load(&mut b, place.start, rows, place.bound);
    let dout_tile = dout.load(&mut b, place.start, rows, place.bound);
    let at = place.row_offset(&mut b, &spec.shape);
    let lse = b.load(lse, at, &[rows], &[(1, place.bound)]);
    let delta = b.load(delta, at, &[rows], &[(1, place.bound)]);
    let shift = b.scale(lse, -LOG2_E);

    let acc = b.full(0.0, &[rows, dim]);
    b.name(acc, "acc");
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
    let done = walk.run(&mut b, &[acc], |b, start, mask, carried| {
        let bound = mask.and_then(|_| bound(b, seq, start, cols));
        let k_tile = k.load(b, start, cols, bound);
        let v_tile = v.load(b, start, cols, bound);
        let s = spec.kept.product(b, q_tile, k_tile);
        let s = mask.map_or(s, |mask| mask.hide(b, s, start));
        b.name(s, "scores");
        let dp = spec.kept.product(b, dout_tile, v_tile);
        b.name(dp, "dp");
        let [shift, delta] = [shift, delta].map(|vector| spec.kept.expand_kept(b, vector, cols));
        let p = scaled_exp(b, s, spec.scale, shift);
        b.name(p, "weights");
        let ds = gradient_of_scores(b, p, dp, delta);
        b.name(ds, "ds");
        let ds = b.cast(ds, spec.elem);
        vec![spec.kept.weigh(b, ds, k_tile, carried[0])]
    });
    let result = b.scale(done[0], spec.scale);
    dq.store(&mut b, place.start, result, place.bound);
    b.finish()
}

/// `(q, k, v, dout, lse, delta, [positions]) -> (dk, dv)`
pub fn softmax_attention_dkdv(spec: &SoftmaxBackwardSpec) -> Kernel {
    let HeadShape { batch, seq, kv_heads, head_dim: dim, .. } = spec.shape;
    let cols = spec.block_k;
    let name = spec.name("dkdv", &[spec.q, spec.k, spec.v, spec.dout, spec.dk, spec.dv]);
    let mut b = Builder::new(name, [seq.div_ceil(cols), kv_heads, batch]);
    let inputs = Inputs::declare(&mut b, spec);
    let [_, k, v] = inputs.qkv;
    let dk = b.param("dk", spec.elem, Mode::Write);
    let dv = b.param("dv", spec.elem, Mode::Write);
    let (block, kv_head, batch) = (b.program_id(0), b.program_id(1), b.program_id(2));
    let keys = b.scale_index(block, cols);
    b.name(keys, "k_start");
    let key_bound = bound(&mut b, seq, keys, cols);
    let k = HeadRows::new(&mut b, k, spec.k, dim, batch, kv_head);
    let v = HeadRows::new(&mut b, v, spec.v, dim, batch, kv_head);
    let dk = HeadRows::new(&mut b, dk, spec.dk, dim, batch, kv_head);
    let dv = HeadRows::new(&mut b, dv, spec.dv, dim, batch, kv_head);
    let k_tile = k.load(&mut b, keys, cols, key_bound);
    let v_tile = v.load(&mut b, keys, cols, key_bound);
    let queries = QueryRange::whole(&mut b, spec);
    let block = KeyBlock { batch, kv_head, start: keys, bound: key_bound, k: k_tile, v: v_tile, queries };
    let [dk_sum, dv_sum] = key_gradients(&mut b, spec, &inputs, &block, None);
    dk.store(&mut b, keys, dk_sum, key_bound);
    dv.store(&mut b, keys, dv_sum, key_bound);
    b.finish()
}

/// A block of keys of one key/value head.
pub(super) struct KeyBlock {
    /// Sequence, Index.
    pub batch: ValueId,
    /// Key/value head, Index.
    pub kv_head: ValueId,
    /// First key, Index.
    pub start: ValueId,
    /// Existing keys, if the block may be ragged.
    pub bound: Option<ValueId>,
    /// `[block_k, D]`.
    pub k: ValueId,
    /// `[block_k, D]`.
    pub v: ValueId,
    /// What the keys meet.
    pub queries: QueryRange,
}

/// The gradient of the queries, where it is summed in memory block by block of keys.
pub(super) struct SummedInMemory {
    /// dq, which holds the sum so far.
    pub dq: ParamId,
    /// The keys of the block times the score multiplier, `[block_k, D]`.
    pub scaled_keys: ValueId,
}

/// Walks over the queries that see a block of keys, of each head of its group: the sums of dK and dV `[block_k, D]`; with
/// `summed`, adds to the gradient of the queries as well.
pub(super) fn key_gradients(
    b: &mut Builder,
    spec: &SoftmaxBackwardSpec,
    inputs: &Inputs,
    block: &KeyBlock,
    summed: Option<&SummedInMemory>,
) -> [ValueId; 2] {
    let HeadShape { seq, heads, head_dim: dim, .. } = spec.shape;
    let (rows, cols, group) = (spec.block_q, spec.block_k, spec.shape.group());
    let Inputs { qkv: [q, ..], dout, lse, delta, positions } = *inputs;
    let documents = positions.map(|positions| Documents::new(b, positions, &spec.shape, block.batch));
    let accs = ["dk_acc", "dv_acc"].map(|name| {
        let zeros = b.full(0.0, &[cols, dim]);
        b.name(zeros, name)
    });
    let done = for_group(b, group, &accs, |b, member, carried| {
        let head = group_head(b, block.kv_head, group, member);
        let q = HeadRows::new(b, q, spec.q, dim, block.batch, head);
        let dout = HeadRows::new(b, dout, spec.dout, dim, block.batch, head);
        let dq = summed
            .map(|summed| (HeadRows::new(b, summed.dq, spec.dq, dim, block.batch, head), summed.scaled_keys));
        let line = b.scale_index(block.batch, heads);
        let line = b.add(line, head);
        let line = b.scale_index(line, seq);
        let step = |b: &mut Builder, start: ValueId, masked: bool, carried: &[ValueId]| {
            b.name(start, "q_start");
            let bound = bound(b, seq, start, rows);
            let q_tile = q.load(b, start, rows, bound);
            let dout_tile = dout.load(b, start, rows, bound);
            let at = b.add(line, start);
            let lse = b.load(lse, at, &[rows], &[(1, bound)]);
            let delta = b.load(delta, at, &[rows], &[(1, bound)]);
            let mut s = spec.kept.product(b, block.k, q_tile);
            if masked {
                s = spec.kept.hide_future(b, s, block.start, start, false);
                if let Some(documents) = documents {
                    let first = documents.starts(b, start, rows, bound, block.start);
                    s = spec.kept.hide_before(b, s, first, false);
                }
            }
            // Keys beyond the sequence are hidden with those behind the queries, where such are hidden. Elsewhere they matter
            // to dQ only, where 0 times an infinite weight would be no 0.
            if let Some(bound) = block.bound.filter(|_| dq.is_some() && !spec.causal) {
                s = spec.kept.hide_kept_from(b, s, bound);
            }
            b.name(s, "scores");
            let dp = spec.kept.product(b, block.v, dout_tile);
            b.name(dp, "dp");
            let shift = b.scale(lse, -LOG2_E);
            let [shift, delta] = [shift, delta].map(|vector| spec.kept.expand_walked(b, vector, cols));
            let p = scaled_exp(b, s, spec.scale, shift);
            b.name(p, "weights");
            let ds = gradient_of_scores(b, p, dp, delta);
            b.name(ds, "ds");
            if let Some((dq, scaled_keys)) = &dq {
                let before = dq.load(b, start, rows, bound);
                let after = b.dot(ds, spec.kept == Kept::Left, *scaled_keys, false, Some(before));
                dq.store(b, start, after, bound);
            }
            let p = b.cast(p, spec.elem);
            let dv = spec.kept.weigh(b, p, dout_tile, carried[1]);
            let ds = b.cast(ds, spec.elem);
            let dk = spec.kept.weigh(b, ds, q_tile, carried[0]);
            vec![dk, dv]
        };
        spec.walk_queries(b, block.start, block.queries, documents, carried, step)
    });
    [b.scale(done[0], spec.scale), done[1]]
}

/// The parameters that the kernels read.
pub(super) struct Inputs {
    /// Queries, keys and values.
    pub qkv: [ParamId; 3],
    dout: ParamId,
    lse: ParamId,
    delta: ParamId,
    /// Where documents are kept apart.
    positions: Option<ParamId>,
}

impl Inputs {
    pub(super) fn declare(b: &mut Builder, spec: &SoftmaxBackwardSpec) -> Self {
        Inputs {
            qkv: ["q", "k", "v"].map(|name| b.param(name, spec.elem, Mode::Read)),
            dout: b.param("dout", spec.elem, Mode::Read),
            lse: b.param("lse", Elem::F32, Mode::Read),
            delta: b.param("delta", Elem::F32, Mode::Read),
            positions: spec.documents.then(|| Documents::param(b)),
        }
    }
}

/// `ds = p ⊙ (dp - delta)`, all of one shape.
fn gradient_of_scores(b: &mut Builder, p: ValueId, dp: ValueId, delta: ValueId) -> ValueId {
    b.name(p, "p");
    let centred = b.sub(dp, delta);
    let ds = b.mul(p, centred);
    b.name(ds, "ds");
    ds
}
