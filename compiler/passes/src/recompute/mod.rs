//! Activation checkpointing: values that the backward computes again instead of keeping them.
//!
//! The copies are marked, so that nothing merges them with the originals and the schedule places them late. They are
//! the same operations on the same operands: results stay bitwise.
//!
//! [`policy`] has what can be asked for, [`forward`] what the backward keeps of the forward, and [`budget`] ranks it by
//! what its memory would cost in time.

pub mod budget;
mod forward;
pub mod policy;

use std::collections::{BTreeMap, BTreeSet};

use linc_ir::{Graph, NodeId, Value};

use crate::error::PassError;

use forward::{Forward, is_leaf};
pub use policy::{Limit, Mode, Policy};

/// Gives the backward its own copies of forward values (ancestors of output `loss`), by policy. A [`Policy::Budget`] is
/// decided outside, by [`budget::Ranking`], and recomputes nothing here.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn run(graph: &mut Graph, policy: Policy, loss: &str) -> Result<(), PassError> {
    type Choose = Box<dyn Fn(&Forward, &Graph) -> BTreeSet<NodeId>>;
    let choose: Choose = match policy {
        Policy::None | Policy::Budget(_) => return Ok(()),
        Policy::Selective => Box::new(|forward, graph| forward.cheap(graph)),
        Policy::Layers(every) => Box::new(move |forward, graph| {
            forward.inside_layers(graph, |layer| (layer + 1).is_multiple_of(every))
        }),
        Policy::Full => Box::new(|forward, graph| forward.inside_layers(graph, |_| true)),
    };
    if let Some(forward) = Forward::of(graph, loss)? {
        let chosen = choose(&forward, graph);
        copy(graph, &forward, &chosen);
    }
    Ok(())
}

/// Bytes of forward values (ancestors of output `loss`) that wait for the backward, or for what it computes again.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn kept_bytes(graph: &Graph, loss: &str) -> Result<u64, PassError> {
    let Some(forward) = Forward::of(graph, loss)? else { return Ok(0) };
    let kept = forward.kept_roots(graph).into_iter().filter(|value| !is_leaf(graph, value.node));
    Ok(kept.map(|value| graph.ty(value).bytes() as u64).sum())
}

/// Gives the backward copies of the chosen nodes. Those that nothing reads in the end are dead code and go with it.
fn copy(graph: &mut Graph, forward: &Forward, chosen: &BTreeSet<NodeId>) {
    let mut copies: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    for id in forward.order.iter().copied().filter(|id| chosen.contains(id)) {
        let mut node = graph.node(id).clone();
        node.recompute = true;
        let inputs: Vec<Value> = graph
            .operands(id)
            .iter()
            .map(|v| Value { node: copies.get(&v.node).copied().unwrap_or(v.node), port: v.port })
            .collect();
        let copy = graph.insert(node, &inputs);
        for value in graph.results(id).collect::<Vec<_>>() {
            for (user, operand) in graph.users(value) {
                if !forward.nodes.contains(&user) && user != copy && !graph.node(user).recompute {
                    graph.set_operand(user, operand, Value { node: copy, port: value.port });
                }
            }
        }
        copies.insert(id, copy);
    }
}
