//! Which operations can read and write strided tensors: the contract between the memory pass and the kernel library.

use linc_ir::layout::{Layout, as_matrix, broadcast_strides};
use linc_ir::{Op, Shape, TensorType};

/// True if the operation reads operand `index` where it lies, given its shape and layout.
pub(super) fn reads(op: &Op, index: usize, ty: &TensorType, layout: &Layout) -> bool {
    let dense = layout.is_dense(&ty.shape);
    match op {
        // Views are resolved to addresses, or copied by a strided copy.
        Op::Reshape { .. } | Op::Slice { .. } | Op::Transpose { .. } | Op::Concat { .. } | Op::Pad { .. } => {
            true
        }
        Op::Unary(_) | Op::Binary(_) | Op::Cast { .. } | Op::Broadcast { .. } | Op::Fused(_) => true,
        Op::MatMul { .. } => true,
        Op::Rope { .. }
        | Op::SoftmaxAttention { .. }
        | Op::SoftmaxAttentionGrad { .. }
        | Op::LinearAttention(_)
        | Op::LinearAttentionGrad(_) => dense || (ty.shape.rank() == 4 && layout.strides[3] == 1),
        Op::SoftmaxDecode { .. } | Op::LinearDecode(_) => {
            dense || (index < 3 && ty.shape.rank() == 4 && layout.strides[3] == 1)
        }
        Op::RmsNorm { .. } | Op::RmsNormGrad { .. } => dense,
        Op::Sum { .. }
        | Op::Embedding { .. }
        | Op::EmbeddingGrad { .. }
        | Op::CrossEntropy
        | Op::CrossEntropyGrad
        | Op::LinearCrossEntropy { .. }
        | Op::LinearCrossEntropyGrad { .. }
        | Op::GlobalNorm
        | Op::AdamW(_)
        | Op::Attention(_)
        | Op::AttentionGrad(_) => dense,
        Op::Input { .. } | Op::Param { .. } | Op::State { .. } | Op::Table { .. } | Op::Constant { .. } => {
            dense
        }
    }
}

/// True if the operation can write result `port` with such a layout.
pub(super) fn writes(op: &Op, port: usize, shape: &Shape, layout: &Layout) -> bool {
    if layout.is_dense(shape) {
        return true;
    }
    match op {
        Op::MatMul { .. } => true,
        Op::Rope { .. } => layout.strides.last() == Some(&1),
        Op::SoftmaxAttention { .. } | Op::LinearAttention(_) => {
            port == 0 && layout.strides.last() == Some(&1)
        }
        Op::SoftmaxAttentionGrad { .. } | Op::LinearAttentionGrad(_) => {
            port < 3 && layout.strides.last() == Some(&1)
        }
        _ => false,
    }
}

/// True if a pointwise region finds one split into rows and columns for all its operands and results.
pub(super) fn pointwise_splits(region: &Shape, operands: &[(Layout, Shape)], results: &[Layout]) -> bool {
    let mut strides: Vec<Vec<usize>> =
        operands.iter().map(|(l, s)| broadcast_strides(l, s, region)).collect();
    strides.extend(results.iter().map(|l| l.strides.clone()));
    as_matrix(region, &strides).is_some()
}
