//! What a well-formed graph is, and the check of it.
//!
//! 1. The operands of a node are numbered 0, 1, 2, … without gap or repetition.
//! 2. Every operand, output and update names an existing result of an existing node.
//! 3. The result types of a node are those that [`infer`] gives for its operation and operand types.
//! 4. There is no cycle, and the turns of exchanges are an order that what they depend on allows.
//! 5. Names of leaves (inputs, parameters, states, tables) are not empty, and no two leaves share one.
//! 6. Names of outputs are not empty, and no two outputs share one.
//! 7. An update writes a parameter or a state, with a value of its type, and no leaf is written twice.
//! 8. Operand `out` of an attention gradient is the result of an attention with the same attributes.
//! 9. A state of a parameter names a parameter of its shape, that of a shard one that has its elements, and no parameter has two
//!    states of one role.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::IrError;
use crate::graph::{Graph, NodeId, Value};
use crate::infer::infer;
use crate::op::Op;
use crate::types::TensorType;

/// Checks all rules of the module doc.
///
/// # Errors
/// [`IrError::Verify`] or [`IrError::Cycle`] naming the node, or [`IrError::Type`] as from [`infer`].
pub fn verify(graph: &Graph) -> Result<(), IrError> {
    check(graph).map_err(|(_, e)| e)
}

/// What the first broken rule is about, for a caller that knows where it was written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Subject {
    Node(NodeId),
    Output(usize),
    Update(usize),
}

pub(crate) fn check(graph: &Graph) -> Result<(), (Subject, IrError)> {
    for id in graph.nodes() {
        node(graph, id).map_err(|e| (Subject::Node(id), e))?;
    }
    if let Err(e) = graph.topological() {
        let place = match &e {
            IrError::Cycle { node, .. } => *node,
            other => unreachable!("{other}"),
        };
        return Err((Subject::Node(place), e));
    }
    let leaves = leaf_names(graph)?;
    param_states(graph, &leaves)?;
    let mut names = BTreeSet::new();
    for (i, (name, value)) in graph.outputs.iter().enumerate() {
        let checked = exists(graph, *value).and_then(|()| match name.as_str() {
            "" => Err(broken(graph, value.node, "an output has an empty name")),
            name if !names.insert(name) => {
                Err(broken(graph, value.node, format!("there are two outputs named {name:?}")))
            }
            _ => Ok(()),
        });
        checked.map_err(|e| (Subject::Output(i), e))?;
    }
    let mut written = BTreeSet::new();
    for (i, (leaf, value)) in graph.updates.iter().enumerate() {
        let mut checked = update(graph, *leaf, *value);
        if checked.is_ok() && !written.insert(*leaf) {
            checked = Err(broken(graph, *leaf, "is updated twice"));
        }
        checked.map_err(|e| (Subject::Update(i), e))?;
    }
    Ok(())
}

fn broken(graph: &Graph, node: NodeId, message: impl Into<String>) -> IrError {
    let op = if graph.contains(node) { graph.op(node).name() } else { "removed node" };
    IrError::Verify { node, op, message: message.into() }
}

fn exists(graph: &Graph, value: Value) -> Result<(), IrError> {
    if !graph.contains(value.node) {
        return Err(broken(graph, value.node, "is read but does not exist"));
    }
    let results = graph.node(value.node).types.len();
    if value.port as usize >= results {
        return Err(broken(
            graph,
            value.node,
            format!("result {} is read, but it has {results}", value.port),
        ));
    }
    Ok(())
}

fn node(graph: &Graph, id: NodeId) -> Result<(), IrError> {
    let edges = graph.operand_edges(id);
    if let Some(i) = (0..edges.len()).find(|i| edges[*i].0 as usize != *i) {
        let positions: Vec<u32> = edges.iter().map(|(position, _)| *position).collect();
        return Err(broken(graph, id, format!("operands are numbered {positions:?}: {i} is missing")));
    }
    for (_, value) in &edges {
        exists(graph, *value)?;
    }
    let operands: Vec<&TensorType> = edges.iter().map(|(_, v)| graph.ty(*v)).collect();
    let node = graph.node(id);
    let expected = infer(&node.op, &operands)?;
    if node.types != expected {
        let message = format!("results are {}, expected {}", types(&node.types), types(&expected));
        return Err(broken(graph, id, message));
    }
    if let Op::AttentionGrad(spec) = &node.op {
        let out = edges[3].1;
        if out.port != 0 || *graph.op(out.node) != Op::Attention(spec.clone()) {
            return Err(broken(graph, id, format!("operand 3 is {out}, not an attention with {spec:?}")));
        }
    }
    Ok(())
}

/// Types as in the text form: `f32[2], i32[]`.
pub(crate) fn types(types: &[TensorType]) -> String {
    let types: Vec<String> = types.iter().map(TensorType::to_string).collect();
    types.join(", ")
}

fn leaf_names(graph: &Graph) -> Result<BTreeMap<&str, NodeId>, (Subject, IrError)> {
    let mut names: BTreeMap<&str, NodeId> = BTreeMap::new();
    for id in graph.nodes() {
        let message = match graph.op(id).leaf_name() {
            None => continue,
            Some("") => "has an empty name".into(),
            Some(name) => match names.insert(name, id) {
                None => continue,
                Some(other) => format!("is named {name:?}, and so is {other:?}"),
            },
        };
        return Err((Subject::Node(id), broken(graph, id, message)));
    }
    Ok(names)
}

fn param_states(graph: &Graph, leaves: &BTreeMap<&str, NodeId>) -> Result<(), (Subject, IrError)> {
    let mut roles = BTreeSet::new();
    for id in graph.nodes() {
        let Op::State { ty, role, .. } = graph.op(id) else { continue };
        let Some(of) = role.param() else { continue };
        let fits = |param: &TensorType| match role.start() {
            None => param.shape == ty.shape,
            Some(start) => {
                let end = start.checked_add(ty.shape.numel());
                ty.shape.rank() == 1 && end.is_some_and(|end| end <= param.shape.numel())
            }
        };
        let param = leaves.get(of).map(|param| graph.op(*param));
        let message = match param {
            Some(Op::Param { ty: found, .. }) if fits(found) && roles.insert((role.name(), of)) => continue,
            Some(Op::Param { ty: found, .. }) if fits(found) => {
                format!("is a second {} of {of:?}", role.name())
            }
            Some(Op::Param { ty: found, .. }) => format!("is {ty}, but its parameter {of:?} is {found}"),
            _ => format!("belongs to {of:?}, which is no parameter"),
        };
        return Err((Subject::Node(id), broken(graph, id, message)));
    }
    Ok(())
}

fn update(graph: &Graph, leaf: NodeId, value: Value) -> Result<(), IrError> {
    exists(graph, value)?;
    exists(graph, Value { node: leaf, port: 0 })?;
    let (Op::Param { ty, .. } | Op::State { ty, .. }) = graph.op(leaf) else {
        return Err(broken(graph, leaf, "is updated, but only parameters and states persist"));
    };
    let found = graph.ty(value);
    if found != ty {
        return Err(broken(graph, leaf, format!("is {ty}, but is updated with {found}")));
    }
    Ok(())
}
