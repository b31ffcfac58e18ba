//! Attention nodes to kernels, with their tile sizes.

use linc_ir::{LinearForm, LinearSpec, Value};
use linc_tile::Elem;
use linc_tile::library::attention::HeadShape;
use linc_tile::library::attention::efficient::{
    LinearBackwardSpec, LinearDecodeSpec, LinearForwardSpec, bidirectional_attention_backward,
    bidirectional_attention_out, bidirectional_attention_state, linear_attention_backward,
    linear_attention_chunk_grads, linear_attention_chunk_states, linear_attention_delta,
    linear_attention_forward, linear_attention_grads, linear_attention_out, linear_attention_prefix,
    linear_attention_suffix, linear_decode, linear_prefill, linear_prefill_out, linear_prefill_prefix,
    needs_delta, takes_delta,
};
use linc_tile::library::attention::softmax::{
    SoftmaxBackwardSpec, SoftmaxDecodeSpec, SoftmaxForwardSpec, SoftmaxPrefillSpec, append_to_cache,
    softmax_attention_delta, softmax_attention_dkdv, softmax_attention_dq, softmax_attention_forward,
    softmax_decode, softmax_decode_merge, softmax_decode_parts, softmax_prefill,
};

use crate::tiles::{BLOCK, Family, Tile};
use crate::view::Lowering;
use crate::{Cost, KernelError, Target};

/// Attention reads features in vectors of so many: a head has a multiple of them.
pub const HEAD_DIM_MULTIPLE: usize = 8;

/// Sizes of q `[B, N, H, D]` and k; an error if no kernel exists for them.
fn head_shape(l: &Lowering<'_>, q: Value, k: Value) -> Result<HeadShape, KernelError> {
    let (q, k) = (&l.shape(q).0, &l.shape(k).0);
    if !q[3].is_multiple_of(HEAD_DIM_MULTIPLE) {
        return l
            .fail(format!("heads of {} features, which must be a multiple of {HEAD_DIM_MULTIPLE}", q[3]));
    }
    Ok(HeadShape { batch: q[0], seq: q[1], heads: q[2], kv_heads: k[2], head_dim: q[3] })
}

pub(crate) fn softmax_forward(l: &mut Lowering<'_>, causal: bool, scale: f64) -> Result<(), KernelError> {
    let (q, k, v, out) = (l.operands[0], l.operands[1], l.operands[2], l.results[0]);
    let shape = head_shape(l, q, k)?;
    let tile = l.tile(Family::Forward)?;
    let spec = SoftmaxForwardSpec {
        elem: l.uniform_elem(&[q, k, v, out])?,
        shape,
        causal,
        scale,
        block_q: tile.queries,
        block_k: tile.keys,
        q: l.head_strides(q),
        k: l.head_strides(k),
        v: l.head_strides(v),
        out: l.head_strides(out),
    };
    l.launch_on(softmax_attention_forward(&spec), &[q, k, v, out, l.results[1]]);
    Ok(())
}

pub(crate) fn softmax_gradient(l: &mut Lowering<'_>, causal: bool, scale: f64) -> Result<(), KernelError> {
    let [q, k, v, out, lse, dout] = l.operands[..] else { return l.fail("takes six operands") };
    let [dq, dk, dv, delta] = l.results[..] else { return l.fail("has four results") };
    let shape = head_shape(l, q, k)?;
    let (dq_tile, dkdv_tile) = (l.tile(Family::Dq)?, l.tile(Family::Dkdv)?);
    let spec = SoftmaxBackwardSpec {
        elem: l.uniform_elem(&[q, k, v, out, dout, dq, dk, dv])?,
        shape,
        causal,
        scale,
        block_q: BLOCK,
        block_k: BLOCK,
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
    let tiled =
        |tile: Tile| SoftmaxBackwardSpec { block_q: tile.queries, block_k: tile.keys, ..spec.clone() };
    l.launch_on(softmax_attention_dkdv(&tiled(dkdv_tile)), &[q, k, v, dout, lse, delta, dk, dv]);
    l.launch_on(softmax_attention_dq(&tiled(dq_tile)), &[q, k, v, dout, lse, delta, dq]);
    Ok(())
}

/// What the forward kernels of linear attention compute, of operands and result in the order of q, k, v, out.
fn forward_spec(
    l: &Lowering<'_>,
    shape: HeadShape,
    attributes: &LinearSpec,
) -> Result<LinearForwardSpec, KernelError> {
    let (q, k, v, out) = (l.operands[0], l.operands[1], l.operands[2], l.results[0]);
    Ok(LinearForwardSpec {
        elem: l.uniform_elem(&[q, k, v, out])?,
        shape,
        chunk: attributes.chunk,
        temperature: attributes.temperature,
        q: l.head_strides(q),
        k: l.head_strides(k),
        v: l.head_strides(v),
        out: l.head_strides(out),
    })
}

pub(crate) fn linear_forward(l: &mut Lowering<'_>, attributes: &LinearSpec) -> Result<(), KernelError> {
    let (q, k, v, out) = (l.operands[0], l.operands[1], l.operands[2], l.results[0]);
    let (ell, state) = (l.results[1], l.results[2]);
    let shape = head_shape(l, q, k)?;
    let spec = forward_spec(l, shape, attributes)?;
    match (attributes.causal, attributes.form) {
        (true, LinearForm::Fused) => {
            l.launch_on(linear_attention_forward(&spec), &[q, k, v, out, ell, state]);
        }
        (true, LinearForm::Chunked) => {
            l.launch_on(linear_attention_chunk_states(&spec), &[k, v, ell, state]);
            l.launch_on(linear_attention_prefix(&spec), &[ell, state]);
            l.launch_on(linear_attention_out(&spec), &[q, k, v, ell, state, out]);
        }
        (false, _) => {
            l.launch_on(bidirectional_attention_state(&spec), &[k, v, ell, state]);
            l.launch_on(bidirectional_attention_out(&spec), &[q, state, out]);
        }
    }
    Ok(())
}

pub(crate) fn linear_gradient(l: &mut Lowering<'_>, attributes: &LinearSpec) -> Result<(), KernelError> {
    let [q, k, v, _, ell, state, dout] = l.operands[..] else { return l.fail("takes seven operands") };
    let [dq, dk, dv, ref workspaces @ ..] = l.results[..] else { return l.fail("has three results") };
    let workspaces = workspaces.to_vec();
    let spec = LinearBackwardSpec {
        elem: l.uniform_elem(&[q, k, v, dout, dq, dk, dv])?,
        shape: head_shape(l, q, k)?,
        chunk: attributes.chunk,
        temperature: attributes.temperature,
        // Of other GPUs, some have 99 KiB that threads share.
        whole: l.target == Target::Hopper && attributes.chunk <= 64,
        q: l.head_strides(q),
        k: l.head_strides(k),
        v: l.head_strides(v),
        dout: l.head_strides(dout),
        dq: l.head_strides(dq),
        dk: l.head_strides(dk),
        dv: l.head_strides(dv),
    };
    let kernel = match (attributes.causal, attributes.form) {
        (true, LinearForm::Fused) => linear_attention_backward(&spec),
        (true, LinearForm::Chunked) => return chunked_gradient(l, &spec, &workspaces),
        (false, _) => bidirectional_attention_backward(&spec),
    };
    l.launch_on(kernel, &[q, k, v, ell, state, dout, dq, dk, dv]);
    Ok(())
}

/// The launches of the chunked form.
fn chunked_gradient(
    l: &mut Lowering<'_>,
    spec: &LinearBackwardSpec,
    workspaces: &[Value],
) -> Result<(), KernelError> {
    let [q, k, v, _, ell, state, dout] = l.operands[..] else { return l.fail("takes seven operands") };
    let (dq, dk, dv) = (l.results[0], l.results[1], l.results[2]);
    let [delta, d, rho, dk_part] = *workspaces else { return l.fail("has seven results") };
    let mut args = vec![q, k, v, ell, state, dout];
    if takes_delta(spec) {
        args.push(delta);
    }
    if needs_delta(spec) {
        l.launch_on(linear_attention_delta(spec), &args);
    }
    args.extend([dq, d, rho, dk_part]);
    l.launch_on(linear_attention_chunk_grads(spec), &args);
    l.launch_on(linear_attention_suffix(spec), &[ell, d, rho]);
    l.launch_on(linear_attention_grads(spec), &[q, k, v, ell, dout, d, rho, dk_part, dk, dv]);
    Ok(())
}

/// Tokens of a prompt that one program takes at once. More share a read of the weights, fewer waste less on the end of a
/// prompt: a matrix product of f32 on a CPU reaches its speed at some 64 rows, one of bf16 on a GPU, which does 156 (A100)
/// to 419 (L40S) operations per byte, at as many.
pub fn prefill_tokens(target: Target) -> usize {
    match target {
        Target::Cpu => 64,
        Target::Cuda | Target::Hopper => 256,
    }
}

/// Keys of a program that works on one token, where several share a head: few, so that a cache of some thousand tokens is
/// spread over a GPU, and at least four iterations of tiles, so that one loads while another is computed.
pub fn decode_range(target: Target) -> Option<usize> {
    match target {
        Target::Cpu => None,
        Target::Cuda | Target::Hopper => Some(4 * BLOCK),
    }
}

/// Rows of the query tile of one token: the heads of a group, on a GPU as many as its matrix products have.
fn token_rows(target: Target, shape: &HeadShape) -> usize {
    match target {
        Target::Cpu => shape.group(),
        Target::Cuda | Target::Hopper => shape.group().next_multiple_of(16),
    }
}

pub(crate) fn decode_softmax(
    l: &mut Lowering<'_>,
    scale: f64,
    range: Option<usize>,
) -> Result<(), KernelError> {
    let [q, k, v, kcache, vcache, pos] = l.operands[..] else { return l.fail("takes six operands") };
    let out = l.results[0];
    let shape = head_shape(l, q, k)?;
    if shape.seq > 1 {
        return prefill_softmax(l, shape, scale);
    }
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
        l.launch_on(softmax_decode(&spec), &[q, k, v, kcache, vcache, pos, out]);
        return Ok(());
    }
    let (top, sum, acc) = (l.results[3], l.results[4], l.results[5]);
    l.launch_on(softmax_decode_parts(&spec), &[q, kcache, vcache, pos, top, sum, acc]);
    let bytes = [q, k, v, k, v, top, sum, acc, out].map(|value| l.ty(value).bytes() as u64).iter().sum();
    let args = l.places(&[q, k, v, top, sum, acc, pos, kcache, vcache, out]);
    l.launch_costing(Cost { flops: 0, bytes }, softmax_decode_merge(&spec), args);
    Ok(())
}

/// The same for a block of a prompt.
fn prefill_softmax(l: &mut Lowering<'_>, shape: HeadShape, scale: f64) -> Result<(), KernelError> {
    let [q, k, v, kcache, vcache, pos] = l.operands[..] else { return l.fail("takes six operands") };
    let out = l.results[0];
    let elem = l.uniform_elem(&[q, k, v, kcache, vcache, out])?;
    // Of wide heads in f32, fewer rows fit the shared memory of a GPU.
    let is_large = elem == Elem::F32 && shape.head_dim > 128;
    let rows = if l.target != Target::Cpu && is_large { BLOCK / 2 } else { BLOCK };
    let forward = SoftmaxForwardSpec {
        elem,
        shape,
        causal: true,
        scale,
        block_q: rows,
        block_k: rows,
        q: l.head_strides(q),
        k: l.head_strides(k),
        v: l.head_strides(v),
        out: l.head_strides(out),
    };
    let spec = SoftmaxPrefillSpec { forward, len: l.shape(kcache).0[1] };
    let fresh = l.ty(k).bytes() + l.ty(v).bytes();
    let copy = Cost { flops: 0, bytes: 2 * fresh as u64 };
    let args = l.places(&[k, v, kcache, vcache, pos]);
    l.launch_costing(copy, append_to_cache(&spec), args);
    l.launch_on(softmax_prefill(&spec), &[q, kcache, vcache, pos, out]);
    Ok(())
}

/// Columns of the state of linear attention that a program holds: all where they are in a cache, few where in registers.
fn state_width(target: Target, head_dim: usize) -> usize {
    let mut eights = (1..=BLOCK / 16).rev().map(|eights| 8 * eights);
    match target {
        Target::Cpu => head_dim,
        // Heads have a multiple of 8 features.
        Target::Cuda | Target::Hopper => eights.find(|w| head_dim.is_multiple_of(*w)).unwrap_or(head_dim),
    }
}

pub(crate) fn decode_linear(l: &mut Lowering<'_>, attributes: &LinearSpec) -> Result<(), KernelError> {
    let [q, k, v, m, z, t, pos] = l.operands[..] else { return l.fail("takes seven operands") };
    let out = l.results[0];
    let shape = head_shape(l, q, k)?;
    if shape.seq > 1 {
        return prefill_linear(l, shape, attributes);
    }
    let spec = LinearDecodeSpec {
        elem: l.uniform_elem(&[q, k, v, out])?,
        block_h: token_rows(l.target, &shape),
        width: state_width(l.target, shape.head_dim),
        shape,
        temperature: attributes.temperature,
        q: l.head_strides(q),
        k: l.head_strides(k),
        v: l.head_strides(v),
        out: l.head_strides(out),
    };
    l.launch_on(linear_decode(&spec), &[q, k, v, m, z, t, pos, out]);
    Ok(())
}

/// The same for a block of a prompt.
fn prefill_linear(
    l: &mut Lowering<'_>,
    shape: HeadShape,
    attributes: &LinearSpec,
) -> Result<(), KernelError> {
    let [q, k, v, m, z, t, pos] = l.operands[..] else { return l.fail("takes seven operands") };
    let out = l.results[0];
    let spec = forward_spec(l, shape, attributes)?;
    match attributes.form {
        LinearForm::Fused => l.launch_on(linear_prefill(&spec), &[q, k, v, m, z, t, pos, out]),
        LinearForm::Chunked => {
            let (ell, state) = (l.results[4], l.results[5]);
            l.launch_on(linear_attention_chunk_states(&spec), &[k, v, ell, state]);
            l.launch_on(linear_prefill_prefix(&spec), &[ell, state, m, z, t, pos]);
            l.launch_on(linear_prefill_out(&spec), &[q, k, v, ell, state, pos, out]);
        }
    }
    Ok(())
}
