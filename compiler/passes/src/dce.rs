//! Dead code elimination: removes nodes that no output and no update needs. Inputs stay.

use std::collections::BTreeSet;

use linc_ir::{Graph, NodeId, Op};

/// Removes unneeded nodes.
pub fn run(graph: &mut Graph) {
    let needed = needed(graph);
    let dead: Vec<NodeId> = graph
        .nodes()
        .filter(|id| !needed.contains(id) && !matches!(graph.op(*id), Op::Input { .. }))
        .collect();
    for id in dead {
        graph.remove(id);
    }
}

/// The name of a parameter that no output and no update depends on.
pub(crate) fn idle_parameter(graph: &Graph) -> Option<String> {
    let needed = needed(graph);
    let is_idle = |id: &NodeId| !needed.contains(id) && matches!(graph.op(*id), Op::Param { .. });
    graph.nodes().find(is_idle).and_then(|id| graph.op(id).leaf_name().map(str::to_owned))
}

fn needed(graph: &Graph) -> BTreeSet<NodeId> {
    let mut needed: BTreeSet<NodeId> = BTreeSet::new();
    let mut stack: Vec<NodeId> = graph.outputs.iter().map(|(_, v)| v.node).collect();
    for (leaf, value) in &graph.updates {
        stack.extend([*leaf, value.node]);
    }
    while let Some(id) = stack.pop() {
        if needed.insert(id) {
            stack.extend(graph.operands(id).iter().map(|v| v.node));
        }
    }
    needed
}
