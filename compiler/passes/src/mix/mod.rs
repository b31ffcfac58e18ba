//! Layers that mix kinds: each attention becomes `gate · softmax + (1 − gate) · linear` of the same values, where the gate of a
//! layer is an input of the program, a number for each sequence. One program then is the model at every placement of linear
//! layers, and has a derivative in each layer's gate. At gates of 1 and 0 it computes the bits of the plain model.
//!
//! The linear branch has copies of those parameters that reach the logits only by way of the queries and keys of its
//! attention, so that it can be trained ([`align`]) while the softmax branch, the teacher, stays as it is.

mod copies;
mod divergence;

use std::collections::BTreeMap;

use linc_ir::{AttentionFamily, AttentionSpec, BinaryOp, Graph, NodeId, Op, TensorType, Value};

use crate::error::PassError;

pub use copies::{CopiedParam, copies};
pub use divergence::{Compared, DIVERGENCE, GATE_GRADIENTS, TEACHER, WEIGHTS, diverge, output_gradients};

/// Name of the output with the error of each layer's linear branch, f32 `[attentions]`: the square of what it differs from the
/// softmax branch by, over the square of that.
pub const ALIGNMENT: &str = "alignment";

/// Keeps the error of a layer that attends to nothing but zeros finite.
const TINY: f64 = 1e-30;

/// Name of the input with the gate of a layer, f32 `[batch, 1, 1, 1]`: 1 is softmax attention, 0 linear attention.
pub fn gate(layer: usize) -> String {
    format!("gate.{layer}")
}

/// Both kinds of one attention.
struct Branches {
    softmax: Value,
    linear: Value,
    /// Parameters of the linear branch.
    copies: Vec<NodeId>,
}

/// Mixes every attention of a graph that the language built; returns the gates, in the order of their layers.
///
/// # Errors
/// [`PassError::Missing`] if there is no attention; [`PassError::Ir`] on a malformed graph.
pub fn run(graph: &mut Graph) -> Result<Vec<NodeId>, PassError> {
    let mut gates: BTreeMap<usize, NodeId> = BTreeMap::new();
    for id in attentions(graph)? {
        let Op::Attention(spec) = graph.op(id).clone() else { continue };
        let shape = graph.ty(Value { node: id, port: 0 }).shape.clone();
        let outer = graph.set_scope(graph.node(id).scope.clone());
        let branches = branches(graph, id, &spec)?;
        let ty = TensorType::f32([shape.0[0], 1, 1, 1]);
        let gate = match gates.get(&spec.layer) {
            Some(gate) => *gate,
            None => graph.add(Op::Input { name: gate(spec.layer), ty }, &[])?,
        };
        gates.insert(spec.layer, gate);
        // All that reads the gate is of the size of the attention, and so is computed where its layer is: steps of earlier layers
        // do the same whatever the gate.
        let gate = Value { node: gate, port: 0 };
        let gate = graph.push(Op::Broadcast { shape: shape.clone() }, &[gate])?;
        let one = graph.push(Op::Constant { value: 1.0, ty: TensorType::f32(shape.0) }, &[])?;
        let rest = graph.push(Op::Binary(BinaryOp::Sub), &[one, gate])?;
        let softmax = graph.push(Op::Binary(BinaryOp::Mul), &[gate, branches.softmax])?;
        let linear = graph.push(Op::Binary(BinaryOp::Mul), &[rest, branches.linear])?;
        let mixed = graph.push(Op::Binary(BinaryOp::Add), &[softmax, linear])?;
        graph.set_scope(outer);
        replace(graph, id, mixed);
    }
    Ok(gates.into_values().collect())
}

/// Makes every attention of a graph that the language built a softmax attention with a linear branch beside it, which nothing
/// goes on from. The only outputs are [`ALIGNMENT`] and the sum of its errors, under the name `loss`. Returns the parameters
/// of the linear branches: what the loss is to be differentiated by, so that nothing flows from layer to layer.
///
/// # Errors
/// [`PassError::Missing`] if there is no attention, or none with parameters of its own; [`PassError::Ir`] on a malformed graph.
pub fn align(graph: &mut Graph, loss: &str) -> Result<Vec<NodeId>, PassError> {
    let (mut errors, mut trained) = (vec![], vec![]);
    for id in attentions(graph)? {
        let Op::Attention(spec) = graph.op(id).clone() else { continue };
        let outer = graph.set_scope(graph.node(id).scope.clone());
        let branches = branches(graph, id, &spec)?;
        trained.extend(branches.copies);
        let difference = graph.push(Op::Binary(BinaryOp::Sub), &[branches.linear, branches.softmax])?;
        let (error, size) = (squares(graph, difference)?, squares(graph, branches.softmax)?);
        let tiny = graph.push(Op::Constant { value: TINY, ty: TensorType::f32([1]) }, &[])?;
        let size = graph.push(Op::Binary(BinaryOp::Add), &[size, tiny])?;
        errors.push(graph.push(Op::Binary(BinaryOp::Div), &[error, size])?);
        graph.set_scope(outer);
        replace(graph, id, branches.softmax);
    }
    if trained.is_empty() {
        let message =
            "no layer has parameters that only its queries or keys depend on: there is nothing to align";
        return Err(PassError::Missing(message.into()));
    }
    let outer = graph.set_scope("loss");
    let errors = graph.push(Op::Concat { axis: 0 }, &errors)?;
    let sum = graph.push(Op::Sum { axes: vec![0], keep: false }, &[errors])?;
    graph.set_scope(outer);
    graph.outputs.clear();
    graph.outputs.push((loss.into(), sum));
    graph.outputs.push((ALIGNMENT.into(), errors));
    Ok(trained)
}

/// All attentions, in the order of their layers.
fn attentions(graph: &Graph) -> Result<Vec<NodeId>, PassError> {
    let found: Vec<NodeId> = graph.nodes().filter(|id| matches!(graph.op(*id), Op::Attention(_))).collect();
    match found.is_empty() {
        true => Err(PassError::Missing("the model has no attention whose kind could be chosen".into())),
        false => Ok(found),
    }
}

fn branches(graph: &mut Graph, id: NodeId, spec: &AttentionSpec) -> Result<Branches, PassError> {
    let operands = graph.operands(id);
    let (own, copied) = copies::linear_branch(graph, id, spec.layer)?;
    let of = |family: AttentionFamily| {
        Op::Attention(AttentionSpec { kind: Some(family.default_kind()), ..spec.clone() })
    };
    let softmax = graph.push(of(AttentionFamily::Softmax), &operands)?;
    let linear: Vec<Value> = own.into_iter().chain(operands[2..].iter().copied()).collect();
    let linear = graph.push(of(AttentionFamily::Linear), &linear)?;
    Ok(Branches { softmax, linear, copies: copied })
}

fn replace(graph: &mut Graph, id: NodeId, by: Value) {
    graph.replace_uses(Value { node: id, port: 0 }, by);
    graph.remove(id);
}

/// The sum of the squares of `[batch, ..]`, as `[1]`. In two steps, of which the first has a program for each sequence.
fn squares(graph: &mut Graph, x: Value) -> Result<Value, PassError> {
    let square = graph.push(Op::Binary(BinaryOp::Mul), &[x, x])?;
    let rank = graph.ty(square).shape.rank();
    let each = graph.push(Op::Sum { axes: (1..rank).collect(), keep: false }, &[square])?;
    Ok(graph.push(Op::Sum { axes: vec![0], keep: true }, &[each])?)
}
