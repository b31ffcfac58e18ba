//! A total order of the nodes: as early as their operands allow, in-place updates after every other reader of what they overwrite,
//! recomputed values as late as possible, exchanges in their turns.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use linc_ir::{Class, Graph, IrError, NodeId, Op, Overwrites, Value};

use crate::error::PassError;

/// Leaves that the results of a node are written over, because the graph updates them with those, or with parts of them.
fn written_leaves(graph: &Graph, id: NodeId) -> Vec<NodeId> {
    match graph.op(id).facts().overwrites {
        Overwrites::Elementwise => {
            graph.results(id).flat_map(|value| graph.updates.keys_of(value)).copied().collect()
        }
        Overwrites::UpdatedLeaves => {
            let values = graph.results(id).flat_map(|value| views(graph, value));
            values.flat_map(|value| graph.updates.keys_of(value)).copied().collect()
        }
        Overwrites::Nothing | Overwrites::Always(_) | Overwrites::OwnedOperand => vec![],
    }
}

/// A value and its views, and theirs: what may update leaves with parts of it.
fn views(graph: &Graph, value: Value) -> Vec<Value> {
    let mut found = vec![value];
    for (user, _) in graph.users(value) {
        if graph.op(user).facts().class == Class::View {
            found.extend(views(graph, Value { node: user, port: 0 }));
        }
    }
    found
}

/// The order. Where exchanges `overlap`, what reads one goes behind what runs beside it.
///
/// # Errors
/// [`IrError::Cycle`] if an in-place update cannot come after a reader that needs the old value.
pub fn run(graph: &Graph, overlap: bool) -> Result<Vec<NodeId>, PassError> {
    let mut after: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    let mut missing: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut edge = |from: NodeId, to: NodeId| {
        after.entry(from).or_default().push(to);
        *missing.entry(to).or_default() += 1;
    };
    for id in graph.nodes() {
        let sources: BTreeSet<NodeId> = graph.operands(id).iter().map(|v| v.node).collect();
        for source in sources {
            edge(source, id);
        }
        for leaf in written_leaves(graph, id) {
            for reader in readers(graph, Value { node: leaf, port: 0 }) {
                if reader != id {
                    edge(reader, id);
                }
            }
        }
        for (_, operand) in graph.op(id).facts().overwrites.always() {
            for source in viewed(graph, graph.operands(id)[*operand]) {
                for reader in readers(graph, source) {
                    if reader != id {
                        edge(reader, id);
                    }
                }
            }
        }
    }
    for (from, to) in graph.turns() {
        edge(from, to);
    }
    let priority = priorities(graph, overlap)?;
    let mut ready: BinaryHeap<Reverse<(Priority, NodeId)>> =
        graph.nodes().filter(|id| !missing.contains_key(id)).map(|id| Reverse((priority[&id], id))).collect();
    let mut order = Vec::with_capacity(graph.len());
    while let Some(Reverse((_, id))) = ready.pop() {
        order.push(id);
        for next in after.remove(&id).unwrap_or_default() {
            if let Some(count) = missing.get_mut(&next) {
                *count -= 1;
                if *count == 0 {
                    missing.remove(&next);
                    ready.push(Reverse((priority[&next], next)));
                }
            }
        }
    }
    match missing.keys().next() {
        None => Ok(order),
        Some(node) => Err(IrError::Cycle { node: *node, op: graph.op(*node).name() }.into()),
    }
}

/// What a value is a view of, down to what is none.
fn viewed(graph: &Graph, value: Value) -> Vec<Value> {
    if !graph.op(value.node).facts().class.shares_storage() {
        return vec![value];
    }
    graph.operands(value.node).into_iter().flat_map(|v| viewed(graph, v)).collect()
}

/// Nodes that read a value, directly or through views.
fn readers(graph: &Graph, value: Value) -> Vec<NodeId> {
    let mut found = vec![];
    for (user, _) in graph.users(value) {
        if graph.op(user).facts().class.shares_storage() {
            found.extend(readers(graph, Value { node: user, port: 0 }));
        }
        found.push(user);
    }
    found
}

/// Position of a node in the order of ready nodes, see [`priorities`]. The last part is the leaf that is updated.
type Priority = (usize, bool, Option<NodeId>);

/// Among ready nodes the smallest goes first: by the length of the longest way from a leaf, so that a weight gradient
/// runs as soon as its operands exist, which frees them. A recomputed node, whose operands exist since the forward,
/// goes just before the first of its readers. What the optimizer computes comes last, one leaf after the other, so that what it
/// needs for one is gone when it comes to the next.
fn priorities(graph: &Graph, overlap: bool) -> Result<BTreeMap<NodeId, Priority>, PassError> {
    let order = graph.topological()?;
    let mut priority: BTreeMap<NodeId, Priority> = BTreeMap::new();
    for id in &order {
        let depth = graph.operands(*id).iter().map(|v| priority[&v.node].0 + 1).max().unwrap_or(0);
        priority.insert(*id, (depth, true, None));
    }
    for id in order.iter().rev().filter(|id| graph.node(**id).recompute) {
        let readers = graph.results(*id).flat_map(|v| graph.users(v)).map(|(user, _)| priority[&user].0);
        if let Some(first) = readers.min() {
            priority.insert(*id, (first, false, None));
        }
    }
    if overlap {
        put_off(graph, &order, &mut priority);
    }
    let optimizer = graph.behind_gradients();
    let mut leaf_of: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    for id in order.iter().rev().filter(|id| optimizer.contains(id)) {
        let results = || graph.results(*id);
        let readers =
            results().flat_map(|v| graph.users(v)).filter_map(|(user, _)| leaf_of.get(&user).copied());
        let updated = results().flat_map(|v| graph.updates.keys_of(v)).copied();
        if let Some(first) = readers.chain(updated).min() {
            leaf_of.insert(*id, first);
            priority.insert(*id, (usize::MAX, true, Some(first)));
        }
    }
    Ok(priority)
}

/// What reads an exchange waits for it: it goes when the exchange of the next turn could begin, behind what makes that one's
/// operands.
fn put_off(graph: &Graph, order: &[NodeId], priority: &mut BTreeMap<NodeId, Priority>) {
    let turn = |id: NodeId| match graph.op(id) {
        Op::Exchange(op) => op.group().map(|group| group.turn),
        _ => None,
    };
    let mut begins: BTreeMap<usize, usize> = BTreeMap::new();
    for (id, turn) in order.iter().filter_map(|id| Some((id, turn(*id)?))) {
        let depth = priority[id].0;
        begins.entry(turn).and_modify(|first| *first = depth.min(*first)).or_insert(depth);
    }
    for (id, turn) in order.iter().filter_map(|id| Some((id, turn(*id)?))) {
        let Some((_, depth)) = begins.range(turn + 1..).next() else { continue };
        for reader in graph.results(*id).flat_map(|value| readers(graph, value)).collect::<Vec<_>>() {
            if let Some(place) = priority.get_mut(&reader)
                && place.0 < *depth
            {
                place.0 = *depth;
            }
        }
    }
}
