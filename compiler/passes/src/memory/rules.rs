//! Which operations can read and write strided tensors, as their facts declare it: the contract between the memory pass
//! and the kernel library.

use linc_ir::layout::{Layout, as_matrix, broadcast_strides};
use linc_ir::{Graph, Op, Shape, Strides, TensorType, Value};

/// True if the operation reads operand `index` where it lies, given its shape and layout. Pointwise operations also ask
/// [`pointwise_splits`], about all operands together.
pub(super) fn reads(op: &Op, index: usize, ty: &TensorType, layout: &Layout) -> bool {
    layout.is_dense(&ty.shape)
        || match op.facts().reads {
            Strides::Dense => false,
            Strides::Heads(operands) => {
                operands.contains(&index) && ty.shape.rank() == 4 && layout.strides[3] == 1
            }
            Strides::Rows | Strides::Any => true,
        }
}

/// True if the operation behind a value can write it with such a layout.
pub(super) fn writes(graph: &Graph, value: Value, layout: &Layout) -> bool {
    let shape = &graph.ty(value).shape;
    layout.is_dense(shape)
        || match graph.op(value.node).facts().writes {
            Strides::Dense => false,
            Strides::Heads(results) => {
                results.contains(&(value.port as usize)) && layout.strides.last() == Some(&1)
            }
            Strides::Rows => layout.as_rows(shape).is_some_and(|(_, cols)| cols == 1),
            Strides::Any => true,
        }
}

/// True if a pointwise region finds one split into rows and columns for all its operands and results.
pub(super) fn pointwise_splits(region: &Shape, operands: &[(Layout, Shape)], results: &[Layout]) -> bool {
    let mut strides: Vec<Vec<usize>> =
        operands.iter().map(|(l, s)| broadcast_strides(l, s, region)).collect();
    strides.extend(results.iter().map(|l| l.strides.clone()));
    as_matrix(region, &strides).is_some()
}
