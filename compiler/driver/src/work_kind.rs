//! What sort of work the steps of a node are, by which reports add up time.

use std::collections::BTreeSet;

use linc_ir::{Graph, NodeId, Op};
use linc_kernels::Work;
use linc_plan::{AttentionPass, WorkKind};

/// Tells the sorts of a graph's steps apart.
pub(crate) struct WorkKinds {
    /// What follows the norm of the gradients.
    optimizer: BTreeSet<NodeId>,
}

impl WorkKinds {
    pub(crate) fn of(graph: &Graph) -> Self {
        WorkKinds { optimizer: graph.behind_gradients() }
    }

    /// The sort of a launch that a node became.
    pub(crate) fn kind(&self, graph: &Graph, id: NodeId, work: &Work) -> WorkKind {
        let op = graph.op(id);
        if let Work::Exchange(_) = work {
            return WorkKind::Exchange;
        }
        if self.optimizer.contains(&id) {
            return WorkKind::Optimizer;
        }
        // The output head's products are launches of an operation of the loss.
        if let Work::Gemm(_) = work {
            return WorkKind::Product;
        }
        match op {
            Op::Unary(_) | Op::Binary(_) | Op::Fused(_) | Op::Sum { .. } | Op::Rope { .. } => {
                WorkKind::Pointwise
            }
            Op::Input { .. }
            | Op::Param { .. }
            | Op::State { .. }
            | Op::Table { .. }
            | Op::Constant { .. }
            | Op::Broadcast { .. }
            | Op::Cast { .. }
            | Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Concat { .. } => WorkKind::Move,
            Op::MatMul { .. } => WorkKind::Product,
            Op::RmsNorm { .. } | Op::RmsNormGrad { .. } => WorkKind::Norm,
            Op::Embedding { .. } | Op::EmbeddingGrad { .. } => WorkKind::Embedding,
            // Without a kind they have no launch.
            Op::Attention(_) => WorkKind::Attention(AttentionPass::Forward),
            Op::AttentionGrad(_) => WorkKind::Attention(AttentionPass::Backward),
            Op::Kind(kind) => WorkKind::Attention(match kind.gradient() {
                Some(_) => AttentionPass::Forward,
                None if op.facts().is_attention_gradient => AttentionPass::Backward,
                None => AttentionPass::Decode,
            }),
            Op::CrossEntropy
            | Op::CrossEntropyGrad
            | Op::LogProbs
            | Op::LinearLogProbs { .. }
            | Op::LinearCrossEntropy { .. }
            | Op::LinearCrossEntropyGrad { .. } => WorkKind::Loss,
            Op::GlobalNorm | Op::NormFinish | Op::Update(_) => WorkKind::Optimizer,
            Op::Exchange(_) => WorkKind::Exchange,
        }
    }
}
