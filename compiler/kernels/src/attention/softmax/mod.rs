//! Softmax attention to kernels; [`tiles`] has the sizes that can be chosen.

pub mod tiles;

use linc_ir::{DType, Graph, SoftmaxOp, Value};
use linc_tile::library::attention::HeadShape;
use linc_tile::library::attention::softmax::{
    Kept, Round, SoftmaxBackwardSpec, SoftmaxDecodeSpec, SoftmaxForwardSpec, SoftmaxPrefillSpec,
    append_to_cache, softmax_attention_backward, softmax_attention_delta, softmax_attention_dkdv,
    softmax_attention_dq, softmax_attention_forward, softmax_decode, softmax_decode_merge,
    softmax_decode_parts, softmax_prefill,
};
use linc_tile::{Elem, Kernel};

use self::tiles::{Tile, TunableKernel};
use super::{BLOCK, in_slots, query_rows, scores, token_rows};
use crate::context::Lowering;
use crate::{Cost, KernelError, Target};

pub(super) fn lower(l: &mut Lowering<'_>, op: &SoftmaxOp, shape: HeadShape) -> Result<(), KernelError> {
    match op {
        SoftmaxOp::Forward { causal, scale } => forward(l, shape, *causal, *scale),
        SoftmaxOp::Backward { causal, scale } => backward(l, shape, *causal, *scale),
        SoftmaxOp::Decode { scale, .. } if shape.seq > 1 => prefill(l, shape, *scale),
        SoftmaxOp::Decode { scale, range } => decode(l, shape, *scale, *range),
    }
}

pub(super) fn flops(graph: &Graph, op: &SoftmaxOp, operands: &[Value]) -> usize {
    match op {
        SoftmaxOp::Forward { causal, .. } => scores(graph, operands[0], operands[1], *causal) * 4,
        SoftmaxOp::Backward { causal, .. } => scores(graph, operands[0], operands[1], *causal) * 10,
        SoftmaxOp::Decode { .. } => {
            4 * in_slots(graph, operands[3], operands[0]) * query_rows(graph, operands[0], operands[1])
        }
    }
}

/// Programs that keep the cores of a common CPU at work.
const CPU_PROGRAMS: usize = 16;

/// Rows of a range of the joined backward, at least: some blocks, so that what a program does once for each of them does
/// not count.
const RANGE: usize = 4 * BLOCK;

/// Ranges of the backward that is one kernel, of five products where two take seven; `None` where it is two. Programs
/// come from the key/value heads of each sequence and the ranges that these are cut into: at least sixteen in the first
/// round; of causal ranges, fewer in each round that follows. It sums gradients in their own type.
/// (How many cores there are must not decide: results would depend on it.)
fn joined_ranges(target: Target, dtype: DType, shape: &HeadShape) -> Option<usize> {
    let ranges = CPU_PROGRAMS.div_ceil(shape.batch * shape.kv_heads);
    let fits = ranges == 1 || ranges * RANGE <= shape.seq;
    (target == Target::Cpu && dtype == DType::F32 && fits).then_some(ranges)
}

/// Which way round a machine has its scores.
fn kept(target: Target) -> Kept {
    match target {
        Target::Cpu => Kept::Right,
        Target::Cuda | Target::Hopper => Kept::Left,
    }
}

fn forward(l: &mut Lowering<'_>, shape: HeadShape, causal: bool, scale: f64) -> Result<(), KernelError> {
    let (q, k, v, out) = (l.operands[0], l.operands[1], l.operands[2], l.results[0]);
    let tile = l.tile(TunableKernel::Forward)?;
    let spec = SoftmaxForwardSpec {
        elem: l.uniform_elem(&[q, k, v, out])?,
        shape,
        causal,
        documents: l.operands.len() > 3,
        scale,
        block_q: tile.queries,
        block_k: tile.keys,
        kept: kept(l.target),
        q: l.head_strides(q),
        k: l.head_strides(k),
        v: l.head_strides(v),
        out: l.head_strides(out),
    };
    let args = [&l.operands, &[out, l.results[1]][..]].concat();
    l.launch_on(softmax_attention_forward(&spec), &args);
    Ok(())
}

fn backward(l: &mut Lowering<'_>, shape: HeadShape, causal: bool, scale: f64) -> Result<(), KernelError> {
    let [q, k, v, out, lse, dout, ref positions @ ..] = l.operands[..] else {
        return l.fail("takes six operands");
    };
    let positions = positions.to_vec();
    let [dq, dk, dv, delta] = l.results[..] else { return l.fail("has four results") };
    let spec = SoftmaxBackwardSpec {
        elem: l.uniform_elem(&[q, k, v, out, dout, dq, dk, dv])?,
        shape,
        causal,
        documents: !positions.is_empty(),
        scale,
        block_q: BLOCK,
        block_k: BLOCK,
        kept: kept(l.target),
        q: l.head_strides(q),
        k: l.head_strides(k),
        v: l.head_strides(v),
        out: l.head_strides(out),
        dout: l.head_strides(dout),
        dq: l.head_strides(dq),
        dk: l.head_strides(dk),
        dv: l.head_strides(dv),
    };
    l.launch_on(softmax_attention_delta(&spec), &[out, dout, delta]);
    let args = |results: &[Value]| [&[q, k, v, dout, lse, delta][..], &positions, results].concat();
    let tiled =
        |tile: Tile| SoftmaxBackwardSpec { block_q: tile.queries, block_k: tile.keys, ..spec.clone() };
    if let Some(ranges) = joined_ranges(l.target, l.ty(q).dtype, &shape) {
        let tile = l.tile(TunableKernel::Backward)?;
        let (spec, args) = (tiled(tile), args(&[dq, dk, dv]));
        for round in Round::all(ranges) {
            let kernel = softmax_attention_backward(&spec, round);
            let cost = round_cost(l, &spec, round, &kernel, &args, &[k, v, dk, dv]);
            let args = l.places(&args);
            l.launch_costing(cost, kernel, args);
        }
        return Ok(());
    }
    let (dq_tile, dkdv_tile) = (l.tile(TunableKernel::Dq)?, l.tile(TunableKernel::Dkdv)?);
    l.launch_on(softmax_attention_dkdv(&tiled(dkdv_tile)), &args(&[dk, dv]));
    l.launch_on(softmax_attention_dq(&tiled(dq_tile)), &args(&[dq]));
    Ok(())
}

/// What a round of the joined backward costs: five products over the pairs that it sees, and of each argument the rows of its
/// ranges; of `keys` those of keys, of the others those of queries. By their programs rounds would be charged for the masked
/// half of tiles on the diagonal, which the first round alone has.
fn round_cost(
    l: &Lowering<'_>,
    spec: &SoftmaxBackwardSpec,
    round: Round,
    kernel: &Kernel,
    args: &[Value],
    keys: &[Value],
) -> Cost {
    let HeadShape { batch, seq, heads, head_dim, .. } = spec.shape;
    let [read_keys, read_queries] = round.rows_read(spec);
    let bytes = l.moved(kernel, args, |value, bytes| {
        let rows = if keys.contains(&value) { read_keys } else { read_queries };
        bytes * rows as u64 / seq as u64
    });
    Cost { flops: (10 * round.pairs(spec) * batch * heads * head_dim) as u64, bytes }
}

/// Keys of a program that works on one token, where several share a head: few, so that a cache of some thousand tokens is
/// spread over a GPU, and at least four iterations of tiles, so that one loads while another is computed.
pub fn decode_range(target: Target) -> Option<usize> {
    match target {
        Target::Cpu => None,
        Target::Cuda | Target::Hopper => Some(4 * BLOCK),
    }
}

fn decode(
    l: &mut Lowering<'_>,
    shape: HeadShape,
    scale: f64,
    range: Option<usize>,
) -> Result<(), KernelError> {
    let [q, k, v, kcache, vcache, pos, slot] = l.operands[..] else { return l.fail("takes seven operands") };
    let out = l.results[0];
    let len = l.shape(kcache).0[1];
    let spec = SoftmaxDecodeSpec {
        elem: l.uniform_elem(&[q, k, v, out])?,
        cache_elem: l.uniform_elem(&[kcache, vcache])?,
        block_h: token_rows(l.target, &shape),
        shape: HeadShape { seq: len, ..shape },
        scale,
        block_k: match (range, shape.head_dim) {
            (None, _) | (Some(_), ..=64) => BLOCK,
            (Some(_), ..=128) => BLOCK / 2,
            (Some(_), _) => BLOCK / 4,
        },
        range: range.unwrap_or(len),
        q: l.head_strides(q),
        k: l.head_strides(k),
        v: l.head_strides(v),
        out: l.head_strides(out),
    };
    if range.is_none() {
        l.launch_in_slots(
            softmax_decode(&spec),
            &[q, k, v, kcache, vcache, pos, slot, out],
            &[kcache, vcache],
        );
        return Ok(());
    }
    let (top, sum, acc) = (l.results[3], l.results[4], l.results[5]);
    let args = [q, kcache, vcache, pos, slot, top, sum, acc];
    l.launch_in_slots(softmax_decode_parts(&spec), &args, &[kcache, vcache]);
    let bytes = [q, k, v, k, v, top, sum, acc, out].map(|value| l.ty(value).bytes() as u64).iter().sum();
    let args = l.places(&[q, k, v, top, sum, acc, pos, slot, kcache, vcache, out]);
    l.launch_costing(Cost { flops: 0, bytes }, softmax_decode_merge(&spec), args);
    Ok(())
}

/// A block of a prompt.
fn prefill(l: &mut Lowering<'_>, shape: HeadShape, scale: f64) -> Result<(), KernelError> {
    let [q, k, v, kcache, vcache, pos, slot] = l.operands[..] else { return l.fail("takes seven operands") };
    let out = l.results[0];
    let elem = l.uniform_elem(&[q, k, v, kcache, vcache, out])?;
    // Of wide heads in f32, fewer rows fit the shared memory of a GPU.
    let is_large = elem == Elem::F32 && shape.head_dim > 128;
    let rows = if l.target != Target::Cpu && is_large { BLOCK / 2 } else { BLOCK };
    let forward = SoftmaxForwardSpec {
        elem,
        shape,
        causal: true,
        documents: false,
        scale,
        block_q: rows,
        block_k: rows,
        kept: kept(l.target),
        q: l.head_strides(q),
        k: l.head_strides(k),
        v: l.head_strides(v),
        out: l.head_strides(out),
    };
    let spec = SoftmaxPrefillSpec { forward, len: l.shape(kcache).0[1] };
    let fresh = l.ty(k).bytes() + l.ty(v).bytes();
    let copy = Cost { flops: 0, bytes: 2 * fresh as u64 };
    let args = l.places(&[k, v, kcache, vcache, pos, slot]);
    l.launch_costing(copy, append_to_cache(&spec), args);
    l.launch_in_slots(softmax_prefill(&spec), &[q, kcache, vcache, pos, slot, out], &[kcache, vcache]);
    Ok(())
}
