//! Attention nodes to kernels, with their tile sizes: what the kinds share, and a module for the launches and the cost of
//! each. To add one: its module, and its arms in [`lower`] and [`flops`].

mod efficient;
mod elu;
mod softmax;

use linc_ir::{DType, Graph, KindOp, Value};
use linc_tile::library::attention::HeadShape;

use crate::context::{Lowering, elem_of};
use crate::{KernelError, Target};

pub use softmax::{decode_range, tiles};

/// Query rows and keys of a block: two operands, a score tile and an output tile of 64 rows stay in a second-level
/// cache, and 64 is a multiple of every matrix instruction's shape.
pub(crate) const BLOCK: usize = 64;

/// Attention reads features in vectors of so many: a head has a multiple of them.
pub const HEAD_DIM_MULTIPLE: usize = 8;

/// The launches of an operation of one kind.
pub(crate) fn lower(l: &mut Lowering<'_>, op: &KindOp) -> Result<(), KernelError> {
    let (q, k) = (l.operands[0], l.operands[1]);
    let shape = head_shape(l, q, k)?;
    match op {
        KindOp::Softmax(op) => softmax::lower(l, op, shape),
        KindOp::Efficient(op) => efficient::lower(l, op, shape),
        KindOp::Elu(op) => elu::lower(l, op, shape),
    }
}

/// Of a kind whose kernels have a fast path for chunks of keys that are near to those before: the range and the headroom of
/// [`linc_ir::interp::HeadWeights::chunks_within`], for operands of that type.
pub fn fast_path(op: &KindOp, dtype: DType) -> Option<(f64, f64)> {
    let elem = elem_of(dtype)?;
    match op {
        KindOp::Efficient(_) => Some(efficient::fast_path(elem)),
        KindOp::Softmax(_) | KindOp::Elu(_) => None,
    }
}

/// Floating-point operations of an operation of one kind.
pub(crate) fn flops(graph: &Graph, op: &KindOp, operands: &[Value]) -> usize {
    match op {
        KindOp::Softmax(op) => softmax::flops(graph, op, operands),
        KindOp::Efficient(op) => efficient::flops(graph, op, operands),
        KindOp::Elu(op) => elu::flops(graph, op, operands),
    }
}

/// Sizes of q `[B, N, H, D]` and k; an error if no kernel exists for them.
fn head_shape(l: &Lowering<'_>, q: Value, k: Value) -> Result<HeadShape, KernelError> {
    let (q, k) = (&l.shape(q).0, &l.shape(k).0);
    if !q[3].is_multiple_of(HEAD_DIM_MULTIPLE) {
        return l
            .fail(format!("heads of {} features, which must be a multiple of {HEAD_DIM_MULTIPLE}", q[3]));
    }
    Ok(HeadShape { batch: q[0], seq: q[1], heads: q[2], kv_heads: k[2], head_dim: q[3] })
}

/// Tokens of a prompt that one program takes at once. More share a read of the weights, fewer waste less on the end of a
/// prompt: a matrix product of f32 on a CPU reaches its speed at some 64 rows, one of bf16 on a GPU, which does 156 (A100)
/// to 419 (L40S) operations per byte, at as many rows as that.
pub fn prefill_tokens(target: Target) -> usize {
    match target {
        Target::Cpu => 64,
        Target::Cuda | Target::Hopper => 256,
    }
}

/// Rows of the query tile of one token: the heads of a group, on a GPU as many as its matrix products have.
fn token_rows(target: Target, shape: &HeadShape) -> usize {
    match target {
        Target::Cpu => shape.group(),
        Target::Cuda | Target::Hopper => shape.group().next_multiple_of(16),
    }
}

/// Numbers of a state `[slots, ..]` in the slots of the sequences of q.
fn in_slots(graph: &Graph, state: Value, q: Value) -> usize {
    let state = &graph.ty(state).shape;
    state.numel() / state.0[0] * graph.ty(q).shape.0[0]
}

/// Queries of a sequence that read a key/value head.
fn query_rows(graph: &Graph, q: Value, k: Value) -> usize {
    let (q, k) = (&graph.ty(q).shape.0, &graph.ty(k).shape.0);
    q[1] * q[2] / k[2]
}

/// Number of (query, key) pairs over batch and heads times head_dim: 4 of these make a forward, 10 a backward.
fn scores(graph: &Graph, q: Value, k: Value, causal: bool) -> usize {
    let (q, k) = (&graph.ty(q).shape.0, &graph.ty(k).shape.0);
    let pairs = if causal { q[1] * (q[1] + 1) / 2 } else { q[1] * k[1] };
    q[0] * q[2] * pairs * q[3]
}
