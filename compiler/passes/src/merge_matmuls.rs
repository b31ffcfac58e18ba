//! Merges matmuls that share an input: q, k, v and gate, up read their input once, and so do their weight gradients.
//!
//! The joined operand is a concat whose parts the memory pass puts side by side, so nothing is copied; every element
//! is still the same dot product, so results stay bitwise.

use std::collections::BTreeMap;

use linc_ir::{Graph, NodeId, Op, Value};

use crate::error::PassError;

/// Merges all groups.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn run(graph: &mut Graph) -> Result<(), PassError> {
    for group in projections(graph) {
        merge(graph, &group, 1)?;
    }
    // Backward: gᵢᵀ · x.
    let gradients = groups(graph, |graph, id| match graph.op(id) {
        Op::MatMul { trans_a: true, trans_b: false, .. } => Some(graph.operands(id)[1]),
        _ => None,
    });
    for group in gradients {
        for piece in in_one_piece(graph, group) {
            merge(graph, &piece, 0)?;
        }
    }
    Ok(())
}

/// Groups of parameters that this pass would join.
pub fn joined_params(graph: &Graph) -> Vec<Vec<NodeId>> {
    let params = |group: Vec<NodeId>| group.iter().map(|id| graph.operands(*id)[1].node).collect();
    projections(graph).into_iter().map(params).collect()
}

/// Forward: x · wᵢᵀ with weights that can lie side by side.
fn projections(graph: &Graph) -> Vec<Vec<NodeId>> {
    groups(graph, |graph, id| match graph.op(id) {
        Op::MatMul { trans_a: false, trans_b: true, .. } => {
            let x = graph.operands(id);
            matches!(graph.op(x[1].node), Op::Param { .. }).then_some(x[0])
        }
        _ => None,
    })
}

/// Gradients that the optimizer reads as parts of one vector: only what is next to each other in it can be one result.
fn in_one_piece(graph: &Graph, group: Vec<NodeId>) -> Vec<Vec<NodeId>> {
    let mut free = vec![];
    let mut parts: BTreeMap<(NodeId, usize), NodeId> = BTreeMap::new();
    for id in group {
        match part_of_vector(graph, Value { node: id, port: 0 }) {
            Some(place) => {
                parts.insert(place, id);
            }
            None => free.push(id),
        }
    }
    let mut pieces = vec![free];
    let mut last = None;
    for ((vector, position), id) in parts {
        if last.is_none_or(|(v, p)| (v, p + 1) != (vector, position)) {
            pieces.push(vec![]);
        }
        pieces.last_mut().expect("a piece").push(id);
        last = Some((vector, position));
    }
    pieces.retain(|piece| piece.len() > 1);
    pieces
}

/// The concat of vectors that is the only reader of a value, and the value's position among its parts.
fn part_of_vector(graph: &Graph, mut value: Value) -> Option<(NodeId, usize)> {
    loop {
        let [(user, operand)] = graph.users(value)[..] else { return None };
        let next = Value { node: user, port: 0 };
        match graph.op(user) {
            Op::Reshape { .. } => value = next,
            Op::Concat { .. } if graph.ty(next).shape.rank() == 1 => return Some((user, operand)),
            _ => return None,
        }
    }
}

/// Matmuls by shared operand, each group in program order.
fn groups(graph: &Graph, shared: impl Fn(&Graph, NodeId) -> Option<Value>) -> Vec<Vec<NodeId>> {
    let mut groups: BTreeMap<Value, Vec<NodeId>> = BTreeMap::new();
    for id in graph.nodes() {
        if let Some(value) = shared(graph, id) {
            groups.entry(value).or_default().push(id);
        }
    }
    groups
        .into_values()
        .filter(|ids| ids.len() > 1)
        .map(|mut ids| {
            ids.sort_by_key(|id| producer_key(graph, *id));
            ids
        })
        .collect()
}

/// Program order of the weights behind a matmul or a weight gradient, so that both directions join in one order.
fn producer_key(graph: &Graph, id: NodeId) -> (bool, NodeId) {
    let x = graph.operands(id);
    match graph.op(x[1].node) {
        Op::Param { .. } => (false, x[1].node),
        // Weight gradients arise last first.
        _ => (true, NodeId(u32::MAX - id.0)),
    }
}

/// Joins operand `joined` of the group; `joined` 1: results lie side by side in columns, 0: in rows.
fn merge(graph: &mut Graph, group: &[NodeId], joined: usize) -> Result<(), PassError> {
    let outer = graph.set_scope(graph.node(group[0]).scope.clone());
    let op = graph.op(group[0]).clone();
    let parts: Vec<Value> = group.iter().map(|id| graph.operands(*id)[joined]).collect();
    let concat = graph.push(Op::Concat { axis: 1 - joined }, &parts)?;
    let mut operands = graph.operands(group[0]);
    operands[joined] = concat;
    let merged = graph.push(op, &operands)?;
    let (axis, mut start) = (joined, 0);
    for id in group {
        let result = Value { node: *id, port: 0 };
        let len = graph.ty(result).shape.0[axis];
        let part = graph.push(Op::Slice { axis, start, len }, &[merged])?;
        graph.replace_uses(result, part);
        graph.remove(*id);
        start += len;
    }
    graph.set_scope(outer);
    Ok(())
}
