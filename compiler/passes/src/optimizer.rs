//! The optimizer as graph: global-norm clipping and the update, with learning rate and step as scalar inputs. Which
//! optimizer it is, only the operation knows ([`UpdateOp`]).

use linc_ir::{AdamWSpec, BinaryOp, Graph, NodeId, Op, ParamState, StateRole, TensorType, UpdateOp, Value};

use crate::autodiff::Gradients;
use crate::error::PassError;
use crate::loss_scale::{Scaling, is_finite};

/// Settings that are fixed at compile time.
#[derive(Clone, PartialEq, Debug)]
pub struct OptimizerOptions {
    /// The optimizer with its hyperparameters; the same for every parameter.
    pub update: UpdateOp,
    /// Gradients are scaled down to this global L2 norm.
    pub max_norm: f64,
}

impl Default for OptimizerOptions {
    /// TorchTitan's.
    fn default() -> Self {
        OptimizerOptions { update: UpdateOp::AdamW(AdamWSpec::default()), max_norm: 1.0 }
    }
}

/// Name of the learning-rate input, f32 scalar.
pub const LEARNING_RATE: &str = "lr";
/// Name of the step input, f32 scalar, counted from 1.
pub const STEP: &str = "step";
/// Name of the output with the gradient norm before clipping.
pub const GRAD_NORM: &str = "grad_norm";

/// Appends clipping and the update of all parameters as one; the optimizer's states of each parameter are states. Nothing
/// is updated if a gradient is not finite. With `scaling`, the gradients are scaled.
///
/// The update reads and writes vectors in the order of `gradients`: parameters joined, gradients joined, states joined.
/// Where each of these lies in one range, as the memory pass sees to, it is one kernel for the whole model.
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
    let params: Vec<NodeId> = gradients.iter().map(|(param, _)| *param).collect();
    let grads: Vec<Value> = gradients.iter().map(|(_, grad)| *grad).collect();
    let states = options.update.states().iter();
    let states: Vec<Vec<NodeId>> =
        states.map(|(state, word)| add_states(graph, &params, *state, word)).collect::<Result<_, _>>()?;
    let grads = join(graph, &grads)?;
    let norm = graph.push(Op::GlobalNorm, &[grads])?;
    let guard = scaling.map(|scaling| scaling.guard(graph, norm, step)).transpose()?;
    let norm = guard.as_ref().map_or(norm, |guard| guard.norm);
    graph.outputs.push((GRAD_NORM.into(), norm));
    let clip = clip_factor(graph, norm, options.max_norm)?;
    let scalars = match guard {
        None => vec![lr, step, clip, is_finite(graph, norm)?],
        Some(guard) => {
            let clip = graph.push(Op::Binary(BinaryOp::Mul), &[clip, guard.unscale])?;
            vec![lr, guard.step, clip, guard.update]
        }
    };
    // Parameters, then the states in their order.
    let updated: Vec<Vec<NodeId>> = [params].into_iter().chain(states).collect();
    let mut operands = vec![];
    for leaves in &updated {
        let leaves: Vec<Value> = leaves.iter().map(|id| result(*id)).collect();
        operands.push(join(graph, &leaves)?);
    }
    operands.insert(1, grads);
    operands.extend(scalars);
    let update = graph.add(Op::Update(options.update.clone()), &operands)?;
    for (port, leaves) in updated.into_iter().enumerate() {
        split(graph, Value { node: update, port: port as u32 }, &leaves)?;
    }
    graph.set_scope(outer);
    Ok(())
}

fn result(node: NodeId) -> Value {
    Value { node, port: 0 }
}

/// States of one role, like their parameters, whose names in checkpoints are the parameters' with `word` behind.
fn add_states(
    graph: &mut Graph,
    params: &[NodeId],
    state: ParamState,
    word: &str,
) -> Result<Vec<NodeId>, PassError> {
    let state = |param: &NodeId| {
        let of = graph.op(*param).leaf_name().unwrap_or_default().to_string();
        let (name, ty) = (format!("{of}.{word}"), graph.ty(result(*param)).clone());
        Op::State { name, ty, role: StateRole::OfParam { state, of } }
    };
    let states: Vec<Op> = params.iter().map(state).collect();
    states.into_iter().map(|state| Ok(graph.add(state, &[])?)).collect()
}

/// All elements of some tensors as one vector.
fn join(graph: &mut Graph, tensors: &[Value]) -> Result<Value, PassError> {
    let mut parts = vec![];
    for tensor in tensors {
        let shape = [graph.ty(*tensor).shape.numel()].into();
        parts.push(graph.push(Op::Reshape { shape }, &[*tensor])?);
    }
    // One part is the whole; a concat of it would be a copy.
    Ok(if parts.len() == 1 { parts[0] } else { graph.push(Op::Concat { axis: 0 }, &parts)? })
}

/// Updates leaves with the parts of a vector that are theirs.
fn split(graph: &mut Graph, whole: Value, leaves: &[NodeId]) -> Result<(), PassError> {
    let mut start = 0;
    for leaf in leaves {
        let shape = graph.ty(result(*leaf)).shape.clone();
        let len = shape.numel();
        let part = graph.push(Op::Slice { axis: 0, start, len }, &[whole])?;
        let part = graph.push(Op::Reshape { shape }, &[part])?;
        graph.updates.push((*leaf, part));
        start += len;
    }
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
