//! Common subexpression elimination: of equal operations on equal operands the first stays.

use std::collections::BTreeMap;

use linc_ir::{Graph, Value};

use crate::error::PassError;

/// Merges equal nodes; leaves are unique by name and recomputed nodes are kept apart on purpose.
///
/// # Errors
/// [`PassError::Ir`] on a cyclic graph.
pub fn run(graph: &mut Graph) -> Result<(), PassError> {
    let mut seen: BTreeMap<(String, Vec<Value>), linc_ir::NodeId> = BTreeMap::new();
    for id in graph.topological()? {
        let node = graph.node(id);
        if node.op.leaf_name().is_some() || node.recompute {
            continue;
        }
        let key = (format!("{:?}", node.op), graph.operands(id));
        match seen.get(&key) {
            None => {
                seen.insert(key, id);
            }
            Some(first) => {
                let first = *first;
                for value in graph.results(id) {
                    graph.replace_uses(value, Value { node: first, port: value.port });
                }
                graph.remove(id);
            }
        }
    }
    Ok(())
}
