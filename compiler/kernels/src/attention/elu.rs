//! Linear attention with elu features to kernels.

use linc_ir::{EluOp, EluSpec, Graph, Value};
use linc_tile::library::attention::HeadShape;
use linc_tile::library::attention::elu::{
    EluAttentionSpec, elu_attention_backward, elu_attention_forward, elu_decode,
};

use super::{in_slots, query_rows};
use crate::KernelError;
use crate::context::Lowering;

pub(super) fn lower(l: &mut Lowering<'_>, op: &EluOp, shape: HeadShape) -> Result<(), KernelError> {
    match op {
        EluOp::Forward(spec) => {
            let (q, k, v, out) = (l.operands[0], l.operands[1], l.operands[2], l.results[0]);
            let tensors = [q, k, v, out];
            let kernel = elu_attention_forward(&attention_spec(l, shape, spec.chunk, &tensors)?);
            l.launch_on(kernel, &[q, k, v, out, l.results[1], l.results[2]]);
        }
        EluOp::Backward(spec) => {
            let [q, k, v, out, z, state, dout] = l.operands[..] else {
                return l.fail("takes seven operands");
            };
            let [dq, dk, dv] = l.results[..] else { return l.fail("has three results") };
            let tensors = [q, k, v, out, dout, dq, dk, dv];
            let kernel = elu_attention_backward(&attention_spec(l, shape, spec.chunk, &tensors)?);
            l.launch_on(kernel, &[q, k, v, out, z, state, dout, dq, dk, dv]);
        }
        EluOp::Decode(_) => {
            let [q, k, v, z, state, pos, slot] = l.operands[..] else {
                return l.fail("takes seven operands");
            };
            let out = l.results[0];
            let kernel = elu_decode(&attention_spec(l, shape, 1, &[q, k, v, out])?);
            l.launch_in_slots(kernel, &[q, k, v, z, state, pos, slot, out], &[z, state]);
        }
    }
    Ok(())
}

/// What a kernel computes on tensors `[B, N, heads, D]`, in the order of its parameters.
fn attention_spec(
    l: &Lowering<'_>,
    shape: HeadShape,
    chunk: usize,
    tensors: &[Value],
) -> Result<EluAttentionSpec, KernelError> {
    let strides = tensors.iter().map(|tensor| l.head_strides(*tensor)).collect();
    Ok(EluAttentionSpec { elem: l.uniform_elem(tensors)?, shape, chunk, strides })
}

/// Per token and head 4d² + 2Cd forward, C·d halved by the causal triangle, and twice the state terms backward.
pub(super) fn flops(graph: &Graph, op: &EluOp, operands: &[Value]) -> usize {
    let q = &graph.ty(operands[0]).shape.0;
    let (tokens, n, d) = (q[0] * q[1] * q[2], q[1], q[3]);
    let within = |spec: &EluSpec| spec.chunk.min(n) * d;
    match op {
        EluOp::Forward(spec) => tokens * (4 * d * d + 2 * within(spec)),
        EluOp::Backward(spec) => tokens * (8 * d * d + 5 * within(spec)),
        EluOp::Decode(_) => {
            4 * in_slots(graph, operands[4], operands[0]) * query_rows(graph, operands[0], operands[1])
        }
    }
}
