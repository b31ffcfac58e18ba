//! When memory is in use: by positions in the order of the nodes, and by steps of the program that they become.

use std::collections::BTreeMap;

use linc_ir::layout::Storage;
use linc_ir::{Graph, NodeId, Op, Value};

/// First and last use of every root.
pub(super) type Lifetimes = BTreeMap<Value, (usize, usize)>;

/// First and last position in the order at which each root is used.
pub(super) fn lifetimes(graph: &Graph, order: &[NodeId], storage: &BTreeMap<Value, Storage>) -> Lifetimes {
    let mut live: Lifetimes = BTreeMap::new();
    let mut touch = |value: &Value, at: usize| {
        let range = live.entry(storage[value].root).or_insert((at, at));
        *range = (range.0.min(at), range.1.max(at));
    };
    let end = order.len().saturating_sub(1);
    for (at, id) in order.iter().enumerate() {
        for value in graph.results(*id) {
            // The caller writes inputs before the first step.
            touch(&value, if matches!(graph.op(*id), Op::Input { .. }) { 0 } else { at });
        }
        for operand in graph.operands(*id) {
            touch(&operand, at);
        }
    }
    for (_, value) in &graph.outputs {
        touch(value, end);
    }
    for (leaf, value) in &graph.updates {
        touch(value, end);
        touch(&Value { node: *leaf, port: 0 }, end);
    }
    live
}

/// From positions to steps, of which `steps[position]` run at each. Memory that no step touches is still in use somewhere: what
/// the caller writes lies there before the first step, whether or not one reads it.
pub(super) fn step_lifetimes(positions: Lifetimes, steps: &[usize]) -> Lifetimes {
    // Steps before each position, and all.
    let mut before = vec![0];
    for count in steps {
        before.push(before[before.len() - 1] + count);
    }
    let last_step = before[before.len() - 1].saturating_sub(1);
    let in_steps = |(first, last): (usize, usize)| {
        let first = before[first].min(last_step);
        (first, before[last + 1].saturating_sub(1).max(first))
    };
    positions.into_iter().map(|(root, live)| (root, in_steps(live))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_become_the_steps_that_run_at_them() {
        let root = |node| Value { node: NodeId(node), port: 0 };
        let positions = [(0, 1), (0, 3), (1, 2), (2, 2), (3, 4), (4, 4)];
        let positions: Lifetimes =
            positions.iter().enumerate().map(|(node, live)| (root(node as u32), *live)).collect();
        // Two leaves, a node of one step, one of two, and a view.
        let found = step_lifetimes(positions, &[0, 0, 1, 2, 0]);
        let found: Vec<(usize, usize)> = found.into_values().collect();
        // An input that nothing reads lies where the first step must not write; what only a view touches, at the last.
        assert_eq!(found, [(0, 0), (0, 2), (0, 0), (0, 0), (1, 2), (2, 2)]);
    }

    #[test]
    fn an_empty_program_has_lifetimes_too() {
        let root = Value { node: NodeId(0), port: 0 };
        assert_eq!(step_lifetimes([(root, (0, 0))].into(), &[0])[&root], (0, 0));
    }
}
