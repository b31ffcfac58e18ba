//! Activation checkpointing: values that the backward computes again instead of keeping them.
//!
//! The copies are marked, so that nothing merges them with the originals and the schedule places them late. They are
//! the same operations on the same operands: results stay bitwise.

use std::collections::{BTreeMap, BTreeSet};

use linc_ir::{Class, Graph, NodeId, Op, Value};

use crate::error::PassError;
use crate::setting::PassSetting;

/// What the backward recomputes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// Nothing: every value it needs is kept.
    None,
    /// Cheap operations (norms, pointwise) whose operands are kept anyway.
    #[default]
    Selective,
    /// Everything inside a layer: only values that cross layers are kept.
    Full,
}

impl PassSetting for Policy {
    const NAME: &'static str = "recompute";
    const HELP: &'static str = "What the backward recomputes";
    const ALL: &'static [Self] = &[Policy::None, Policy::Selective, Policy::Full];

    fn name(self) -> &'static str {
        match self {
            Policy::None => "none",
            Policy::Selective => "selective",
            Policy::Full => "full",
        }
    }
}

/// Gives the backward its own copies of forward values (ancestors of output `loss`), by policy.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn run(graph: &mut Graph, policy: Policy, loss: &str) -> Result<(), PassError> {
    if policy == Policy::None {
        return Ok(());
    }
    // The producer of the loss itself may be the start of the backward as well.
    let Some(loss) = graph.output(loss) else { return Ok(()) };
    let forward = &graph.ancestors(loss.node);
    let order: Vec<NodeId> = graph.topological()?.into_iter().filter(|id| forward.contains(id)).collect();
    let mut kept = kept_roots(graph, &order, forward);
    let feeding = feeding_backward(graph, &order, forward);
    let mut copies: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    for id in order {
        if is_leaf(graph, id) {
            continue;
        }
        let operands = graph.operands(id);
        let available = |v: &Value| {
            copies.contains_key(&v.node)
                || is_leaf(graph, root(graph, *v).node)
                || kept.contains(&root(graph, *v))
        };
        let wanted = match policy {
            Policy::None => false,
            Policy::Selective => {
                graph.op(id).facts().is_cheap && feeding.contains(&id) && operands.iter().all(available)
            }
            // Copies that nothing reads in the end are dead code and go with it.
            Policy::Full => graph.node(id).scope.layer.is_some() && !crosses_layers(graph, id, forward),
        };
        if !wanted {
            continue;
        }
        let mut node = graph.node(id).clone();
        node.recompute = true;
        let inputs: Vec<Value> = operands
            .iter()
            .map(|v| Value { node: copies.get(&v.node).copied().unwrap_or(v.node), port: v.port })
            .collect();
        let copy = graph.insert(node, &inputs);
        for value in graph.results(id).collect::<Vec<_>>() {
            kept.remove(&value);
            for (user, operand) in graph.users(value) {
                if !forward.contains(&user) && user != copy && !graph.node(user).recompute {
                    graph.set_operand(user, operand, Value { node: copy, port: value.port });
                }
            }
        }
        copies.insert(id, copy);
    }
    Ok(())
}

/// True for what exists anyway: leaves, and the narrow form of weights, which is made once for the whole step.
fn is_leaf(graph: &Graph, id: NodeId) -> bool {
    let (op, value) = (graph.op(id), Value { node: id, port: 0 });
    matches!(op.facts().class, Class::Leaf { .. } | Class::Constant)
        || (graph.ty(value).dtype.is_narrow() && graph.is_weight(value))
}

fn is_view(graph: &Graph, id: NodeId) -> bool {
    graph.op(id).facts().class == Class::View
}

/// The value whose storage a view shares.
fn root(graph: &Graph, mut value: Value) -> Value {
    while is_view(graph, value.node) {
        value = graph.operands(value.node)[0];
    }
    value
}

/// Storage of forward values that the backward reads.
fn kept_roots(graph: &Graph, order: &[NodeId], forward: &BTreeSet<NodeId>) -> BTreeSet<Value> {
    let mut kept = BTreeSet::new();
    for id in order {
        for value in graph.results(*id) {
            if graph.users(value).iter().any(|(user, _)| !forward.contains(user)) {
                kept.insert(root(graph, value));
            }
        }
    }
    kept
}

/// Forward nodes of which the backward reads a result: directly, through views, or as the start of a pointwise chain
/// that ends in a rounding which it reads.
fn feeding_backward(graph: &Graph, order: &[NodeId], forward: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let (mut feeding, mut rounded) = (BTreeSet::new(), BTreeSet::new());
    for id in order.iter().rev() {
        let users: Vec<NodeId> =
            graph.results(*id).flat_map(|value| graph.users(value)).map(|(user, _)| user).collect();
        let feeds = |user: &NodeId| {
            !forward.contains(user)
                || (is_view(graph, *user) && feeding.contains(user))
                || rounded.contains(user)
        };
        let op = graph.op(*id);
        if users.iter().any(feeds) {
            feeding.insert(*id);
        }
        let rounds = matches!(op, Op::Cast { dtype } if dtype.is_narrow()) && feeding.contains(id);
        let leads_on = (op.facts().class == Class::Pointwise || matches!(op, Op::Broadcast { .. }))
            && users.iter().any(|user| rounded.contains(user));
        if rounds || leads_on {
            rounded.insert(*id);
        }
    }
    feeding
}

fn crosses_layers(graph: &Graph, id: NodeId, forward: &BTreeSet<NodeId>) -> bool {
    let layer = |id: NodeId| graph.node(id).scope.layer;
    graph.results(id).any(|value| {
        graph.users(value).iter().any(|(user, _)| forward.contains(user) && layer(*user) != layer(id))
    })
}
