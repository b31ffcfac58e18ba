//! The optimizer as graph: global-norm clipping and AdamW, with learning rate and step as scalar inputs.

use linc_ir::{AdamWSpec, BinaryOp, Graph, NodeId, Op, TensorType, Value};

use crate::autodiff::Gradients;
use crate::error::PassError;
use crate::loss_scale::Scaling;

/// Settings that are fixed at compile time.
#[derive(Clone, PartialEq, Debug)]
pub struct OptimizerOptions {
    /// AdamW's hyperparameters; the same for every parameter.
    pub adamw: AdamWSpec,
    /// Gradients are scaled down to this global L2 norm.
    pub max_norm: f64,
}

/// Name of the learning-rate input, f32 scalar.
pub const LEARNING_RATE: &str = "lr";
/// Name of the step input, f32 scalar, counted from 1.
pub const STEP: &str = "step";
/// Name of the output with the gradient norm before clipping.
pub const GRAD_NORM: &str = "grad_norm";

/// Appends clipping and the update of every parameter; moments are states `<param>.exp_avg` and `.exp_avg_sq`. With
/// `scaling`, the gradients are scaled, and nothing is updated if one overflowed.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn run(
    graph: &mut Graph,
    gradients: &Gradients,
    options: &OptimizerOptions,
    scaling: Option<&Scaling>,
) -> Result<(), PassError> {
    let outer = graph.set_scope("optimizer");
    let scalar = TensorType::f32([]);
    let lr = graph.push(Op::Input { name: LEARNING_RATE.into(), ty: scalar.clone() }, &[])?;
    let step = graph.push(Op::Input { name: STEP.into(), ty: scalar.clone() }, &[])?;
    let grads: Vec<Value> = gradients.iter().map(|(_, g)| *g).collect();
    let norm = graph.push(Op::GlobalNorm, &grads)?;
    let guard = scaling.map(|scaling| scaling.guard(graph, norm, step)).transpose()?;
    let norm = guard.as_ref().map_or(norm, |guard| guard.norm);
    graph.outputs.push((GRAD_NORM.into(), norm));
    let clip = clip_factor(graph, norm, options.max_norm)?;
    let scalars = match guard {
        None => vec![lr, step, clip],
        Some(guard) => {
            let clip = graph.push(Op::Binary(BinaryOp::Mul), &[clip, guard.unscale])?;
            vec![lr, guard.step, clip, guard.update]
        }
    };
    for (param, grad) in gradients {
        let name = graph.op(*param).leaf_name().unwrap_or_default().to_string();
        let ty = graph.ty(Value { node: *param, port: 0 }).clone();
        let m = graph.add(Op::State { name: format!("{name}.exp_avg"), ty: ty.clone() }, &[])?;
        let v = graph.add(Op::State { name: format!("{name}.exp_avg_sq"), ty }, &[])?;
        let first = |node: NodeId| Value { node, port: 0 };
        let operands = [vec![first(*param), *grad, first(m), first(v)], scalars.clone()].concat();
        let update = graph.add(Op::AdamW(options.adamw.clone()), &operands)?;
        for (leaf, port) in [(*param, 0), (m, 1), (v, 2)] {
            graph.updates.push((leaf, Value { node: update, port }));
        }
    }
    graph.set_scope(outer);
    Ok(())
}

/// min(1, max_norm / (norm + 1e-6)), as `torch.nn.utils.clip_grad_norm_`.
fn clip_factor(graph: &mut Graph, norm: Value, max_norm: f64) -> Result<Value, PassError> {
    let scalar = TensorType::f32([]);
    let mut constant = |value| graph.push(Op::Constant { value, ty: scalar.clone() }, &[]);
    let (max_norm, eps, one) = (constant(max_norm)?, constant(1e-6)?, constant(1.0)?);
    let guarded = graph.push(Op::Binary(BinaryOp::Add), &[norm, eps])?;
    let ratio = graph.push(Op::Binary(BinaryOp::Div), &[max_norm, guarded])?;
    Ok(graph.push(Op::Binary(BinaryOp::Min), &[ratio, one])?)
}
