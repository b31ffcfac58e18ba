//! Where exchanges with other ranks are waited for: as late as what they move allows, so that kernels run beside them.

use std::collections::{BTreeMap, BTreeSet};

use linc_ir::layout::Storage;
use linc_ir::{Class, Graph, NodeId, Op, Value};

use super::joins::Joins;
use super::lifetimes::Lifetimes;

/// An exchange that is under way while other nodes run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Wait {
    /// The position in the order before which it is waited for; the number of nodes for the end.
    pub before: usize,
    /// The position of the exchange.
    pub start: usize,
}

/// Exchanges in the order in which they are waited for: each before the first node that touches what comes in or writes over what goes
/// out. Those that nothing runs beside are not among them.
pub(super) fn find(
    graph: &Graph,
    order: &[NodeId],
    storage: &BTreeMap<Value, Storage>,
    joins: &Joins,
) -> Vec<Wait> {
    let roots = |values: &mut dyn Iterator<Item = Value>| -> BTreeSet<Value> {
        values.map(|value| storage[&value].root).collect()
    };
    let operands = |id: NodeId| roots(&mut graph.operands(id).into_iter());
    let results = |id: NodeId| roots(&mut graph.results(id));
    let runs = |at: usize| {
        let is_free = matches!(graph.op(order[at]).facts().class, Class::Leaf { .. } | Class::View);
        !is_free && !joins.contains_key(&order[at])
    };
    let mut waits = vec![];
    for (start, id) in order.iter().enumerate() {
        let Op::Exchange(op) = graph.op(*id) else { continue };
        if op.group().is_none() {
            continue;
        }
        let (goes_out, comes_in) = (operands(*id), results(*id));
        let disturbs = |at: &usize| {
            let other = order[*at];
            if !runs(*at) && !joins.contains_key(&other) {
                return false;
            }
            let (reads, writes) = (operands(other), results(other));
            !comes_in.is_disjoint(&reads)
                || !comes_in.is_disjoint(&writes)
                || !goes_out.is_disjoint(&writes)
                || joins.contains_key(&other) && !goes_out.is_disjoint(&reads)
        };
        // What joins in place runs nothing, but from there on the memory is that of the whole: waited for is before what runs last.
        let before = match (start + 1..order.len()).find(disturbs) {
            Some(at) => (start + 1..=at).rev().find(|at| runs(*at)),
            None => Some(order.len()),
        };
        waits.extend(before.map(|before| Wait { before, start }));
    }
    waits.sort_unstable();
    waits
}

/// Keeps what exchanges move in use until they are waited for: by the first steps of a position, or the last of all. `steps` has the
/// number of steps of each position, with these.
pub(super) fn extend(
    live: &mut Lifetimes,
    waits: &[Wait],
    steps: &[usize],
    moved: impl Fn(usize) -> Vec<Value>,
) {
    let all: usize = steps.iter().sum();
    let at_end = waits.iter().filter(|wait| wait.before == steps.len()).count();
    for (number, wait) in waits.iter().enumerate() {
        let earlier = waits[..number].iter().filter(|other| other.before == wait.before).count();
        let first: usize = steps[..wait.before].iter().sum();
        let first = if wait.before == steps.len() { all.saturating_sub(at_end) } else { first };
        let step = (first + earlier).min(all.saturating_sub(1));
        for root in moved(wait.start) {
            if let Some(range) = live.get_mut(&root) {
                range.1 = range.1.max(step);
            }
        }
    }
}
