//! Gradient accumulation: one optimizer step over several batches, as two programs. The first adds the gradients of a
//! batch to states `<param>.grad`; the second, run once after the last batch, reads those states and updates.
//!
//! The step's loss is the mean over all its targets, and batches may have different numbers of them: each batch's mean
//! counts by its input [`SHARE`], its part of the step's targets.
//!
//! No program clears the states: the first multiplies what they hold by its input [`KEEP`], 0 for the first batch of a
//! step and 1 for the others. That forgets numbers only: who runs the programs clears the states after a step that left
//! infinities or NaN in them.

use linc_ir::{BinaryOp, Graph, NodeId, Op, ParamState, StateRole, TensorType, Value};

use crate::autodiff::Gradients;
use crate::error::PassError;

/// Name of the input that says how much of the states to keep, f32 scalar. The states are finite where it is 0.
pub const KEEP: &str = "keep";

/// Name of the input with the batch's share of the targets of the step, f32 scalar; the shares of a step add up to 1.
pub const SHARE: &str = "share";

/// The input [`SHARE`], which the gradients of the batch are to be multiplied by.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn share(graph: &mut Graph) -> Result<Value, PassError> {
    let outer = graph.set_scope("accumulate");
    let share = graph.push(Op::Input { name: SHARE.into(), ty: TensorType::f32([]) }, &[])?;
    graph.set_scope(outer);
    Ok(share)
}

/// Adds each gradient to its state, in place.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn add(graph: &mut Graph, gradients: &Gradients) -> Result<(), PassError> {
    let outer = graph.set_scope("accumulate");
    let keep = graph.push(Op::Input { name: KEEP.into(), ty: TensorType::f32([]) }, &[])?;
    for (param, grad) in gradients {
        let state = state(graph, *param)?;
        let old = Value { node: state, port: 0 };
        let shape = graph.ty(old).shape.clone();
        let keep = graph.push(Op::Broadcast { shape }, &[keep])?;
        let kept = graph.push(Op::Binary(BinaryOp::Mul), &[old, keep])?;
        let sum = graph.push(Op::Binary(BinaryOp::Add), &[kept, *grad])?;
        graph.updates.push((state, sum));
    }
    graph.set_scope(outer);
    Ok(())
}

/// Replaces the model by its parameters and their states; the result stands for the gradients.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn read(graph: &mut Graph) -> Result<Gradients, PassError> {
    let params: Vec<NodeId> = graph.nodes().filter(|n| matches!(graph.op(*n), Op::Param { .. })).collect();
    let mut order = graph.topological()?;
    order.retain(|id| !params.contains(id));
    graph.outputs.clear();
    graph.updates.clear();
    for id in order.into_iter().rev() {
        graph.remove(id);
    }
    let outer = graph.set_scope("accumulate");
    let gradients =
        params.into_iter().map(|param| Ok((param, Value { node: state(graph, param)?, port: 0 })));
    let gradients = gradients.collect::<Result<Gradients, PassError>>()?;
    graph.set_scope(outer);
    Ok(gradients)
}

/// The state that holds the gradient of a parameter.
fn state(graph: &mut Graph, param: NodeId) -> Result<NodeId, PassError> {
    let of = graph.op(param).leaf_name().unwrap_or_default().to_string();
    let (name, ty) = (format!("{of}.grad"), graph.ty(Value { node: param, port: 0 }).clone());
    let role = StateRole::OfParam { state: ParamState::Gradient, of };
    Ok(graph.add(Op::State { name, ty, role }, &[])?)
}
