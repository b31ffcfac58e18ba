//! Parameters that the linear branch of a layer has of its own: copies of those that nothing but the queries and keys of its
//! attention depends on.

use std::collections::{BTreeMap, BTreeSet};

use linc_ir::{Graph, NodeId, Op, Value};

use crate::error::PassError;

/// A parameter and its copy in the linear branch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CopiedParam {
    /// The layer, from 0.
    pub layer: usize,
    /// The name of the model's parameter.
    pub of: String,
    /// The name of the copy.
    pub name: String,
}

/// Queries and keys of attention.
const QK: [usize; 2] = [0, 1];

/// The copies that mixing the layers of a graph, as the language built it, makes.
pub fn copies(graph: &Graph) -> Vec<CopiedParam> {
    let mut found = vec![];
    for id in graph.nodes() {
        let Op::Attention(spec) = graph.op(id) else { continue };
        let layer = spec.layer;
        let of = own(graph, id, layer).into_iter().filter_map(|param| graph.op(param).leaf_name());
        found.extend(of.map(|of| CopiedParam { layer, of: of.to_string(), name: name(of) }));
    }
    found
}

fn name(of: &str) -> String {
    format!("{of}.linear")
}

/// Queries and keys of the linear branch of an attention, and the parameters that were copied for them.
pub(super) fn linear_branch(
    graph: &mut Graph,
    id: NodeId,
    layer: usize,
) -> Result<([Value; 2], Vec<NodeId>), PassError> {
    let operands = graph.operands(id);
    let own = own(graph, id, layer);
    let before = before(graph, QK.map(|at| operands[at].node));
    // What lies between them and the attention is computed again.
    let between: BTreeSet<NodeId> = &graph.descendants(own.iter().copied()) & &before;
    let mut copied: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    for node in graph.topological()?.into_iter().filter(|id| own.contains(id) || between.contains(id)) {
        let mut copy = graph.node(node).clone();
        if let Op::Param { name: of, .. } = &mut copy.op {
            *of = name(of);
        }
        let same =
            |value: Value| Value { node: copied.get(&value.node).copied().unwrap_or(value.node), ..value };
        let operands: Vec<Value> = graph.operands(node).into_iter().map(same).collect();
        copied.insert(node, graph.insert(copy, &operands));
    }
    let branch = |at: usize| {
        let Value { node, port } = operands[at];
        Value { node: copied.get(&node).copied().unwrap_or(node), port }
    };
    Ok((QK.map(branch), own.iter().filter_map(|param| copied.get(param)).copied().collect()))
}

/// Parameters of a layer that reach what the graph is for only by queries and keys of an attention.
fn own(graph: &Graph, id: NodeId, layer: usize) -> BTreeSet<NodeId> {
    let mut elsewhere: BTreeSet<NodeId> = BTreeSet::new();
    let mut stack: Vec<NodeId> = graph.outputs.iter().map(|(_, value)| value.node).collect();
    while let Some(node) = stack.pop() {
        if !elsewhere.insert(node) {
            continue;
        }
        let operands = graph.operands(node).into_iter().enumerate();
        stack.extend(operands.filter(|(at, _)| node != id || !QK.contains(at)).map(|(_, value)| value.node));
    }
    let operands = graph.operands(id);
    let is_own = |node: &NodeId| {
        matches!(graph.op(*node), Op::Param { .. })
            && graph.node(*node).scope.layer == Some(layer)
            && !elsewhere.contains(node)
    };
    before(graph, QK.map(|at| operands[at].node)).into_iter().filter(is_own).collect()
}

/// Some nodes and all that they depend on.
fn before(graph: &Graph, nodes: [NodeId; 2]) -> BTreeSet<NodeId> {
    let mut all: BTreeSet<NodeId> = nodes.into_iter().collect();
    all.extend(nodes.into_iter().flat_map(|node| graph.ancestors(node)));
    all
}
