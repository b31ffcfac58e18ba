//! Graphviz export: one box per node, one nested cluster per scope.

use std::collections::BTreeMap;

use crate::graph::{Graph, NodeId};
use crate::types::TensorType;

/// Deepest nesting of clusters; deeper scopes share one.
const MAX_DEPTH: usize = 8;

/// Scopes nested inside a scope, and the nodes directly in it.
#[derive(Default)]
struct Cluster {
    inner: BTreeMap<String, Cluster>,
    nodes: Vec<NodeId>,
}

/// The graph in DOT; render with `dot -Tsvg`.
pub fn dot(graph: &Graph) -> String {
    let mut root = Cluster::default();
    for id in graph.nodes() {
        let mut cluster = &mut root;
        for part in
            graph.node(id).scope.to_string().split('/').filter(|part| !part.is_empty()).take(MAX_DEPTH)
        {
            cluster = cluster.inner.entry(part.into()).or_default();
        }
        cluster.nodes.push(id);
    }
    let mut lines = vec![format!("digraph {} {{", quote(&graph.name)), "  node [shape=box];".into()];
    let mut clusters = 0;
    cluster_lines(graph, &root, 1, &mut clusters, &mut lines);
    for id in graph.nodes() {
        for (position, value) in graph.operand_edges(id) {
            let label = format!("{}→{position}", value.port);
            lines.push(format!("  {:?} -> {id:?} [label={}];", value.node, quote(&label)));
        }
    }
    for (i, (name, value)) in graph.outputs.iter().enumerate() {
        lines.push(format!("  out{i} [shape=oval, label={}];", quote(name)));
        lines.push(format!("  {:?} -> out{i};", value.node));
    }
    for (leaf, value) in &graph.updates {
        lines.push(format!("  {:?} -> {leaf:?} [style=dashed, constraint=false];", value.node));
    }
    lines.push("}\n".into());
    lines.join("\n")
}

fn cluster_lines(graph: &Graph, cluster: &Cluster, depth: usize, count: &mut usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    for id in &cluster.nodes {
        let node = graph.node(*id);
        let types: Vec<String> = node.types.iter().map(TensorType::to_string).collect();
        let name = node.op.leaf_name().map(|n| format!(" {n}")).unwrap_or_default();
        let label = format!("{}{name}\n{}", node.op.name(), types.join("\n"));
        lines.push(format!("{indent}{id:?} [label={}];", quote(&label)));
    }
    for (name, inner) in &cluster.inner {
        lines.push(format!("{indent}subgraph cluster{count} {{"));
        *count += 1;
        lines.push(format!("{indent}  label={};", quote(name)));
        cluster_lines(graph, inner, depth + 1, count, lines);
        lines.push(format!("{indent}}}"));
    }
}

/// A DOT string: quotes and backslashes escaped, line breaks as `\n`.
fn quote(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}
