//! The cost model: floating-point operations and bytes of every operation, counted from shapes.
//!
//! A multiply and an add are two operations; the masked half of causal attention is not counted (TorchTitan's
//! convention, which counts it, is formed where it is reported). Bytes are those that must move at least once.

use linc_ir::{Graph, NodeId, Op, PointOp, Value};

use crate::{attention, exchange, optimizer};

/// Floating-point operations and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes read and written at least once.
    pub bytes: u64,
}

impl std::ops::Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost { flops: self.flops + other.flops, bytes: self.bytes + other.bytes }
    }
}

/// Arithmetic and compulsory memory traffic of one node, which bound the time of its kernels from below.
pub fn cost(graph: &Graph, id: NodeId) -> Cost {
    let operands = graph.operands(id);
    let moved: usize = operands.iter().copied().chain(graph.results(id)).map(|v| graph.ty(v).bytes()).sum();
    let numel = |v: Value| graph.ty(v).shape.numel();
    let out = Value { node: id, port: 0 };
    // Of a table, only the rows that are looked up.
    let unread =
        |table: Value| graph.ty(table).bytes().saturating_sub(numel(out) * graph.ty(table).dtype.bytes());
    let moved = if let Op::Embedding { .. } = graph.op(id) { moved - unread(operands[0]) } else { moved };
    let flops = match graph.op(id) {
        Op::Input { .. } | Op::Param { .. } | Op::State { .. } | Op::Table { .. } => {
            return Cost::default();
        }
        // Views cost nothing; where one needs a copy, its bytes count.
        Op::Reshape { .. } | Op::Slice { .. } | Op::Transpose { .. } | Op::Concat { .. } | Op::Pad { .. } => {
            0
        }
        Op::Constant { .. } | Op::Broadcast { .. } | Op::Cast { .. } => 0,
        Op::Unary(_) | Op::Binary(_) => numel(out),
        Op::Fused(region) => {
            let computes = region.steps.iter().filter(|step| !matches!(step, PointOp::Cast(..)));
            region.shape.numel() * computes.count()
        }
        Op::Sum { .. } => numel(operands[0]),
        Op::MatMul { trans_a, .. } => {
            let k = graph.ty(operands[0]).shape.0[usize::from(!trans_a)];
            2 * numel(out) * k
        }
        // One more where a residual is added, the last operand.
        Op::RmsNorm { .. } => (4 + usize::from(operands.len() > 2)) * numel(operands[0]),
        Op::RmsNormGrad { .. } => (10 + usize::from(operands.len() > 3)) * numel(operands[0]),
        Op::Rope { .. } => 3 * numel(operands[0]),
        Op::Embedding { .. } => 0,
        Op::EmbeddingGrad { .. } => numel(operands[1]),
        // It has no launch, and so no cost, before it has a kind.
        Op::Attention(_) | Op::AttentionGrad(_) => 0,
        Op::Kind(op) => attention::flops(graph, op, &operands),
        Op::CrossEntropy | Op::CrossEntropyGrad => 5 * numel(operands[0]),
        // The second sweep is for the place of the largest.
        Op::LogProbs => 7 * numel(operands[0]),
        Op::LinearLogProbs { .. } => {
            head(graph, &operands, 1) + 2 * numel(out) * graph.ty(operands[1]).shape.0[0]
        }
        Op::LinearCrossEntropy { .. } => head(graph, &operands, 1),
        Op::LinearCrossEntropyGrad { .. } => head(graph, &operands, 3),
        Op::GlobalNorm => operands.iter().map(|v| 2 * numel(*v)).sum(),
        Op::NormFinish => numel(operands[0]),
        Op::Update(op) => optimizer::flops(op, numel(operands[0])),
        Op::Exchange(op) => exchange::flops(op, numel(operands[0])),
    };
    Cost { flops: flops as u64, bytes: moved as u64 }
}

/// `products` matmuls of the output head and the sweep over its logits.
fn head(graph: &Graph, operands: &[Value], products: usize) -> usize {
    let (h, w) = (&graph.ty(operands[0]).shape.0, &graph.ty(operands[1]).shape.0);
    h[0] * w[0] * (2 * h[1] * products + 5)
}
