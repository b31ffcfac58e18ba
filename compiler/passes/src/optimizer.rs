//! The optimizer as graph: global-norm clipping and the update, with learning rate and step as scalar inputs. Which
//! optimizer it is, only the operation knows ([`UpdateOp`]), or, where it takes a matrix as a whole, its module (`muon.rs`).

mod muon;
mod norms;
mod shard;

use std::collections::BTreeSet;

use linc_ir::{
    AdamWSpec, BinaryOp, Graph, NodeId, Op, ParamState, Shape, StateRole, TensorType, UpdateOp, Value,
};

use crate::autodiff::Gradients;
use crate::error::PassError;
use crate::loss_scale::{Scaling, is_finite};

pub use muon::{AdjustLr, MuonSpec};
pub use norms::GRAD_NORMS;
pub use shard::Sharding;

/// Settings that are fixed at compile time.
#[derive(Clone, PartialEq, Debug)]
pub struct OptimizerOptions {
    /// The optimizer with its hyperparameters, of every parameter that no group names.
    pub update: UpdateOp,
    /// Parameters with rules of their own.
    pub groups: Vec<ParamGroup>,
    /// Gradients are scaled down to this global L2 norm.
    pub max_norm: f64,
    /// Parameters whose gradients' norm is a result of the program as well, set by set ([`GRAD_NORMS`]).
    pub norms: Vec<BTreeSet<String>>,
}

/// Parameters that are updated by one rule.
#[derive(Clone, PartialEq, Debug)]
pub struct ParamGroup {
    /// Their names. A parameter belongs to the first group that names it.
    pub params: BTreeSet<String>,
    /// How they are updated.
    pub rule: Rule,
    /// The factor of their learning rate.
    pub lr: f64,
}

/// How parameters are updated.
#[derive(Clone, PartialEq, Debug)]
pub enum Rule {
    /// Element by element: those that lie side by side as one vector.
    Joined(UpdateOp),
    /// Matrix by matrix.
    Muon(MuonSpec),
}

impl Default for OptimizerOptions {
    /// TorchTitan's.
    fn default() -> Self {
        let update = UpdateOp::AdamW(AdamWSpec::default());
        OptimizerOptions { update, groups: vec![], max_norm: 1.0, norms: vec![] }
    }
}

/// Name of the learning-rate input, f32 scalar.
pub const LEARNING_RATE: &str = "lr";
/// Name of the step input, f32 scalar, counted from 1.
pub const STEP: &str = "step";
/// Name of the output with the gradient norm before clipping.
pub const GRAD_NORM: &str = "grad_norm";

/// Appends clipping and the update of all parameters; the optimizer's states of each parameter are states. Nothing is updated
/// if a gradient is not finite. With `scaling`, the gradients are scaled.
///
/// What is updated element by element is read and written as vectors: parameters joined, gradients joined, states joined.
/// `ranges` has the gradients of parameters that lie side by side, in that order; those of one range and group, as the memory
/// pass sees to, are one kernel. With `sharding`, a rank does its part of it; the gradients are its own, and summed here.
///
/// # Errors
/// [`PassError::Setting`] for a group that names no parameter, or a rule that one of its parameters does not suit;
/// [`PassError::Ir`] on a malformed graph.
pub fn run(
    graph: &mut Graph,
    ranges: &[Gradients],
    options: &OptimizerOptions,
    scaling: Option<&Scaling>,
    sharding: Option<&Sharding>,
) -> Result<(), PassError> {
    let outer = graph.set_scope("optimizer");
    let scalar = TensorType::f32([]);
    let lr = graph.push(Op::Input { name: LEARNING_RATE.into(), ty: scalar.clone() }, &[])?;
    let step = graph.push(Op::Input { name: STEP.into(), ty: scalar.clone() }, &[])?;
    let runs = runs(graph, ranges, options)?;
    let mut joined = vec![];
    for run in &runs {
        joined.push(match sharding {
            None => graph.join(&run.grads)?,
            Some(sharding) => sharding.scatter(graph, &run.grads)?,
        });
    }
    let norm = match sharding {
        None => graph.push(Op::GlobalNorm, &joined)?,
        Some(sharding) => {
            let numel = |run: &Run| run.grads.iter().map(|grad| graph.ty(*grad).shape.numel()).sum();
            let parts: Vec<(Value, usize)> = joined.iter().copied().zip(runs.iter().map(numel)).collect();
            sharding.norm(graph, &parts)?
        }
    };
    let guard = scaling.map(|scaling| scaling.guard(graph, norm, step)).transpose()?;
    let norm = guard.as_ref().map_or(norm, |guard| guard.norm);
    graph.outputs.push((GRAD_NORM.into(), norm));
    if sharding.is_some() && !options.norms.is_empty() {
        return Err(PassError::Setting(
            "norms of parts of the gradients are asked for, but the optimizer is shared out to several ranks, none of which has all \
             gradients: give all ranks the whole optimizer"
                .into(),
        ));
    }
    norms::run(graph, &runs, &joined, &options.norms, guard.as_ref().map(|guard| guard.unscale))?;
    let clip = clip_factor(graph, norm, options.max_norm)?;
    let scalars = match guard {
        None => Scalars { lr, step, clip, update: is_finite(graph, norm)? },
        Some(guard) => {
            let clip = graph.push(Op::Binary(BinaryOp::Mul), &[clip, guard.unscale])?;
            Scalars { lr, step: guard.step, clip, update: guard.update }
        }
    };
    for (run, grads) in runs.iter().zip(joined) {
        let mut scalars = scalars;
        if run.lr != 1.0 {
            let factor = graph.push(Op::Constant { value: run.lr, ty: scalar.clone() }, &[])?;
            scalars.lr = graph.push(Op::Binary(BinaryOp::Mul), &[lr, factor])?;
        }
        match (&run.rule, sharding) {
            (Rule::Joined(update), None) => update_joined(graph, &run.params, grads, update, scalars)?,
            (Rule::Joined(update), Some(sharding)) => {
                sharding.update(graph, &run.params, grads, update, scalars)?;
            }
            (Rule::Muon(spec), None) => muon::run(graph, &run.params, grads, spec, scalars)?,
            (Rule::Muon(_), Some(sharding)) => {
                return Err(PassError::Setting(format!(
                    "Muon updates whole matrices, and the optimizer is shared out to {} ranks in parts that cut them: \
                     give all ranks the whole optimizer, or choose AdamW",
                    sharding.shard.size
                )));
            }
        }
    }
    graph.set_scope(outer);
    Ok(())
}

/// What all updates of a step read; f32 scalars.
#[derive(Clone, Copy)]
struct Scalars {
    /// Learning rate.
    lr: Value,
    /// Number of the step, from 1.
    step: Value,
    /// What a gradient is multiplied by.
    clip: Value,
    /// 1 to update, 0 to leave everything as it is.
    update: Value,
}

/// Parameters of one rule that lie side by side, with their gradients.
struct Run {
    params: Vec<NodeId>,
    grads: Vec<Value>,
    rule: Rule,
    lr: f64,
    group: Option<usize>,
}

/// Cuts ranges where the group changes.
fn runs(graph: &Graph, ranges: &[Gradients], options: &OptimizerOptions) -> Result<Vec<Run>, PassError> {
    let name = |param: NodeId| graph.op(param).leaf_name().unwrap_or_default();
    let known: BTreeSet<&str> = ranges.iter().flatten().map(|(param, _)| name(*param)).collect();
    let named = options.groups.iter().flat_map(|group| &group.params);
    if let Some(name) = named.into_iter().find(|name| !known.contains(name.as_str())) {
        return Err(PassError::Setting(format!("an optimizer's group names {name}, which is no parameter")));
    }
    let mut runs: Vec<Run> = vec![];
    for range in ranges {
        let first = runs.len();
        for (param, grad) in range {
            let group = options.groups.iter().position(|group| group.params.contains(name(*param)));
            match runs[first..].last_mut().filter(|run| run.group == group) {
                Some(run) => {
                    run.params.push(*param);
                    run.grads.push(*grad);
                }
                None => {
                    let own = group.map(|group| &options.groups[group]);
                    let rule =
                        own.map_or_else(|| Rule::Joined(options.update.clone()), |own| own.rule.clone());
                    let lr = own.map_or(1.0, |own| own.lr);
                    runs.push(Run { params: vec![*param], grads: vec![*grad], rule, lr, group });
                }
            }
        }
    }
    Ok(runs)
}

/// Updates parameters as one vector.
fn update_joined(
    graph: &mut Graph,
    params: &[NodeId],
    grads: Value,
    update: &UpdateOp,
    scalars: Scalars,
) -> Result<(), PassError> {
    let states = update.states().iter();
    let states: Vec<Vec<NodeId>> =
        states.map(|(state, word)| add_states(graph, params, *state, word)).collect::<Result<_, _>>()?;
    // Parameters, then the states in their order.
    let updated: Vec<Vec<NodeId>> = [params.to_vec()].into_iter().chain(states).collect();
    let mut operands = vec![];
    for leaves in &updated {
        let leaves: Vec<Value> = leaves.iter().map(|id| result(*id)).collect();
        operands.push(graph.join(&leaves)?);
    }
    operands.insert(1, grads);
    operands.extend([scalars.lr, scalars.step, scalars.clip, scalars.update]);
    let update = graph.add(Op::Update(update.clone()), &operands)?;
    for (port, leaves) in updated.into_iter().enumerate() {
        split(graph, Value { node: update, port: port as u32 }, &leaves)?;
    }
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

/// Updates leaves with the parts of a vector that are theirs.
fn split(graph: &mut Graph, whole: Value, leaves: &[NodeId]) -> Result<(), PassError> {
    let shapes: Vec<Shape> = leaves.iter().map(|leaf| graph.ty(result(*leaf)).shape.clone()).collect();
    for (leaf, part) in leaves.iter().zip(graph.cut(whole, &shapes)?) {
        graph.updates.push((*leaf, part));
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
