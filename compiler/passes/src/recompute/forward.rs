//! The forward part of a differentiated graph, what the backward keeps of it, and the rules that choose by operation and by
//! layer.

use std::collections::BTreeSet;

use linc_ir::{Class, Graph, NodeId, Op, Value};

use crate::error::PassError;

/// Ancestors of the loss.
pub(super) struct Forward {
    /// All of them.
    pub nodes: BTreeSet<NodeId>,
    /// The same, operands first.
    pub order: Vec<NodeId>,
}

impl Forward {
    /// Of the output `loss`; nothing if there is none.
    pub(super) fn of(graph: &Graph, loss: &str) -> Result<Option<Forward>, PassError> {
        // The producer of the loss itself may be the start of the backward as well.
        let Some(loss) = graph.output(loss) else { return Ok(None) };
        let nodes = graph.ancestors(loss.node);
        let order = graph.topological()?.into_iter().filter(|id| nodes.contains(id)).collect();
        Ok(Some(Forward { nodes, order }))
    }

    /// Storage of forward values that the backward reads.
    pub(super) fn kept_roots(&self, graph: &Graph) -> BTreeSet<Value> {
        let read = |value: &Value| graph.users(*value).iter().any(|(user, _)| !self.nodes.contains(user));
        let values = self.order.iter().flat_map(|id| graph.results(*id)).filter(read);
        values.map(|value| root(graph, value)).collect()
    }

    /// Cheap operations that the backward reads and whose operands are kept anyway, or computed again themselves.
    pub(super) fn cheap(&self, graph: &Graph) -> BTreeSet<NodeId> {
        let mut kept = self.kept_roots(graph);
        let feeding = self.feeding_backward(graph);
        let mut chosen = BTreeSet::new();
        for id in self.order.iter().copied().filter(|id| !is_leaf(graph, *id)) {
            let available = |v: &Value| {
                let root = root(graph, *v);
                chosen.contains(&v.node) || is_leaf(graph, root.node) || kept.contains(&root)
            };
            let is_cheap = graph.op(id).facts().is_cheap && feeding.contains(&id);
            if is_cheap && graph.operands(id).iter().all(available) {
                graph.results(id).for_each(|value| {
                    kept.remove(&value);
                });
                chosen.insert(id);
            }
        }
        chosen
    }

    /// Everything inside the layers that are wanted: values that cross layers stay.
    pub(super) fn inside_layers(&self, graph: &Graph, wanted: impl Fn(usize) -> bool) -> BTreeSet<NodeId> {
        let inside = |id: &NodeId| {
            let layer = graph.node(*id).scope.layer;
            !is_leaf(graph, *id) && layer.is_some_and(&wanted) && !self.crosses_layers(graph, *id)
        };
        self.order.iter().copied().filter(inside).collect()
    }

    /// Forward nodes of which the backward reads a result: directly, through views, or as the start of a pointwise chain
    /// that ends in a rounding which it reads.
    fn feeding_backward(&self, graph: &Graph) -> BTreeSet<NodeId> {
        let (mut feeding, mut rounded) = (BTreeSet::new(), BTreeSet::new());
        for id in self.order.iter().rev() {
            let users: Vec<NodeId> =
                graph.results(*id).flat_map(|value| graph.users(value)).map(|(user, _)| user).collect();
            let feeds = |user: &NodeId| {
                !self.nodes.contains(user)
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

    /// Whether the forward reads a result in another layer.
    pub(super) fn crosses_layers(&self, graph: &Graph, id: NodeId) -> bool {
        let layer = |id: NodeId| graph.node(id).scope.layer;
        graph.results(id).any(|value| {
            graph.users(value).iter().any(|(user, _)| self.nodes.contains(user) && layer(*user) != layer(id))
        })
    }
}

/// True for what exists anyway: leaves, and the narrow form of weights, which is made once for the whole step.
pub(super) fn is_leaf(graph: &Graph, id: NodeId) -> bool {
    let (op, value) = (graph.op(id), Value { node: id, port: 0 });
    matches!(op.facts().class, Class::Leaf { .. } | Class::Constant)
        || (graph.ty(value).dtype.is_narrow() && graph.is_weight(value))
}

pub(super) fn is_view(graph: &Graph, id: NodeId) -> bool {
    graph.op(id).facts().class == Class::View
}

/// The value whose storage a view shares.
pub(super) fn root(graph: &Graph, mut value: Value) -> Value {
    while is_view(graph, value.node) {
        value = graph.operands(value.node)[0];
    }
    value
}
