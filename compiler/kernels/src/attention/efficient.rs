//! Efficient attention to kernels, in the form that the node says.

use linc_ir::{EfficientForm, EfficientOp, EfficientSpec, Graph, Value};
use linc_tile::ir::Elem;
use linc_tile::library::attention::HeadShape;
use linc_tile::library::attention::efficient::{
    EfficientBackwardSpec, EfficientDecodeSpec, EfficientForwardSpec, efficient_attention_backward,
    efficient_attention_chunk_grads, efficient_attention_chunk_states, efficient_attention_delta,
    efficient_attention_forward, efficient_attention_grads, efficient_attention_out,
    efficient_attention_prefix, efficient_attention_suffix, efficient_bidirectional_backward,
    efficient_bidirectional_out, efficient_bidirectional_state, efficient_decode, efficient_prefill,
    efficient_prefill_out, efficient_prefill_prefix, needs_delta, takes_delta,
};

use super::{BLOCK, in_slots, query_rows, token_rows};
use crate::context::Lowering;
use crate::{KernelError, Target};

pub(super) fn lower(l: &mut Lowering<'_>, op: &EfficientOp, shape: HeadShape) -> Result<(), KernelError> {
    match op {
        EfficientOp::Forward(spec) => forward(l, shape, spec),
        EfficientOp::Backward(spec) => backward(l, shape, spec),
        EfficientOp::Decode(spec) if shape.seq > 1 => prefill(l, shape, spec),
        EfficientOp::Decode(spec) => decode(l, shape, spec),
    }
}

pub(super) fn flops(graph: &Graph, op: &EfficientOp, operands: &[Value]) -> usize {
    match op {
        EfficientOp::Forward(spec) => sweeps(graph, operands[0], spec, 1),
        EfficientOp::Backward(spec) => sweeps(graph, operands[0], spec, 2),
        EfficientOp::Decode(_) => {
            4 * in_slots(graph, operands[5], operands[0]) * query_rows(graph, operands[0], operands[1])
        }
    }
}

/// See [`super::fast_path`].
pub(super) fn fast_path(elem: Elem) -> (f64, f64) {
    linc_tile::library::attention::efficient::fast_path(elem)
}

/// What the forward kernels of efficient attention compute, of operands and result in the order of q, k, v, out.
fn forward_spec(
    l: &Lowering<'_>,
    shape: HeadShape,
    attributes: &EfficientSpec,
) -> Result<EfficientForwardSpec, KernelError> {
    let (q, k, v, out) = (l.operands[0], l.operands[1], l.operands[2], l.results[0]);
    Ok(EfficientForwardSpec {
        elem: l.uniform_elem(&[q, k, v, out])?,
        shape,
        chunk: attributes.chunk,
        temperature: attributes.temperature,
        documents: false,
        q: l.head_strides(q),
        k: l.head_strides(k),
        v: l.head_strides(v),
        out: l.head_strides(out),
    })
}

fn forward(l: &mut Lowering<'_>, shape: HeadShape, attributes: &EfficientSpec) -> Result<(), KernelError> {
    let (q, k, v, out) = (l.operands[0], l.operands[1], l.operands[2], l.results[0]);
    let (ell, state) = (l.results[1], l.results[2]);
    let positions = l.operands[3..].to_vec();
    let spec =
        EfficientForwardSpec { documents: !positions.is_empty(), ..forward_spec(l, shape, attributes)? };
    let args = |read: &[Value], rest: &[Value]| [read, &positions, rest].concat();
    match (attributes.causal, attributes.form) {
        (true, EfficientForm::Fused) => {
            l.launch_on(efficient_attention_forward(&spec), &args(&[q, k, v], &[out, ell, state]));
        }
        (true, EfficientForm::Chunked) => {
            l.launch_on(efficient_attention_chunk_states(&spec), &args(&[k, v], &[ell, state]));
            l.launch_on(efficient_attention_prefix(&spec), &args(&[ell, state], &[]));
            l.launch_on(efficient_attention_out(&spec), &args(&[q, k, v, ell, state], &[out]));
        }
        (false, _) => {
            l.launch_on(efficient_bidirectional_state(&spec), &[k, v, ell, state]);
            l.launch_on(efficient_bidirectional_out(&spec), &[q, state, out]);
        }
    }
    Ok(())
}

fn backward(l: &mut Lowering<'_>, shape: HeadShape, attributes: &EfficientSpec) -> Result<(), KernelError> {
    let [q, k, v, _, ell, state, dout, ref positions @ ..] = l.operands[..] else {
        return l.fail("takes seven operands");
    };
    let positions = positions.to_vec();
    let [dq, dk, dv, ref workspaces @ ..] = l.results[..] else { return l.fail("has three results") };
    let workspaces = workspaces.to_vec();
    let spec = EfficientBackwardSpec {
        elem: l.uniform_elem(&[q, k, v, dout, dq, dk, dv])?,
        shape,
        chunk: attributes.chunk,
        temperature: attributes.temperature,
        documents: !positions.is_empty(),
        // Some of the other GPUs have only 99 KiB of shared memory for a block.
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
        (true, EfficientForm::Fused) => efficient_attention_backward(&spec),
        (true, EfficientForm::Chunked) => return chunked_gradient(l, &spec, &workspaces),
        (false, _) => efficient_bidirectional_backward(&spec),
    };
    l.launch_on(kernel, &[&[q, k, v, ell, state, dout][..], &positions, &[dq, dk, dv]].concat());
    Ok(())
}

/// The launches of the chunked form.
fn chunked_gradient(
    l: &mut Lowering<'_>,
    spec: &EfficientBackwardSpec,
    workspaces: &[Value],
) -> Result<(), KernelError> {
    let [q, k, v, _, ell, state, dout, ref positions @ ..] = l.operands[..] else {
        return l.fail("takes seven operands");
    };
    let positions = positions.to_vec();
    let (dq, dk, dv) = (l.results[0], l.results[1], l.results[2]);
    let [delta, d, rho, dk_part] = *workspaces else { return l.fail("has seven results") };
    let mut args = [&[q, k, v, ell, state, dout][..], &positions].concat();
    if takes_delta(spec) {
        args.push(delta);
    }
    if needs_delta(spec) {
        l.launch_on(efficient_attention_delta(spec), &args);
    }
    args.extend([dq, d, rho, dk_part]);
    l.launch_on(efficient_attention_chunk_grads(spec), &args);
    l.launch_on(efficient_attention_suffix(spec), &[&[ell, d, rho][..], &positions].concat());
    let read = [q, k, v, ell, dout, d, rho, dk_part];
    l.launch_on(efficient_attention_grads(spec), &[&read[..], &positions, &[dk, dv]].concat());
    Ok(())
}

/// Columns of the state that a program holds: all where they are in a cache, few where in registers.
fn state_width(target: Target, head_dim: usize) -> usize {
    let mut eights = (1..=BLOCK / 16).rev().map(|eights| 8 * eights);
    match target {
        Target::Cpu => head_dim,
        // Heads have a multiple of 8 features.
        Target::Cuda | Target::Hopper => eights.find(|w| head_dim.is_multiple_of(*w)).unwrap_or(head_dim),
    }
}

fn decode(l: &mut Lowering<'_>, shape: HeadShape, attributes: &EfficientSpec) -> Result<(), KernelError> {
    let [q, k, v, m, z, t, pos, slot] = l.operands[..] else { return l.fail("takes eight operands") };
    let out = l.results[0];
    let spec = EfficientDecodeSpec {
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
    l.launch_in_slots(efficient_decode(&spec), &[q, k, v, m, z, t, pos, slot, out], &[m, z, t]);
    Ok(())
}

/// A block of a prompt.
fn prefill(l: &mut Lowering<'_>, shape: HeadShape, attributes: &EfficientSpec) -> Result<(), KernelError> {
    let [q, k, v, m, z, t, pos, slot] = l.operands[..] else { return l.fail("takes eight operands") };
    let out = l.results[0];
    let spec = forward_spec(l, shape, attributes)?;
    match attributes.form {
        EfficientForm::Fused => {
            l.launch_in_slots(efficient_prefill(&spec), &[q, k, v, m, z, t, pos, slot, out], &[m, z, t]);
        }
        EfficientForm::Chunked => {
            let (ell, state) = (l.results[4], l.results[5]);
            l.launch_on(efficient_attention_chunk_states(&spec), &[k, v, ell, state]);
            let args = [ell, state, m, z, t, pos, slot];
            l.launch_in_slots(efficient_prefill_prefix(&spec), &args, &[m, z, t]);
            l.launch_on(efficient_prefill_out(&spec), &[q, k, v, ell, state, pos, out]);
        }
    }
    Ok(())
}

/// The form does not change what has to be computed, only how often a part of it is.
/// Per token and head `4d² + 2Cd` forward and twice the state terms backward, C·d halved by the causal triangle.
fn sweeps(graph: &Graph, q: Value, spec: &EfficientSpec, sweep: usize) -> usize {
    let q = &graph.ty(q).shape.0;
    let (tokens, d) = (q[0] * q[1] * q[2], q[3]);
    let chunk = spec.chunk.min(q[1]);
    let within = match (spec.causal, sweep) {
        (false, _) => 0,
        (true, 1) => 2 * chunk * d,
        (true, _) => 5 * chunk * d,
    };
    tokens * (4 * sweep * d * d + within)
}
