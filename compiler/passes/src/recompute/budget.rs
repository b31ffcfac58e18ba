//! What to compute again for the least time under a limit of memory.
//!
//! [`Ranking`] puts the values that the backward keeps in the order in which they should go: the most bytes for the least
//! time first, layer by layer, since the values of different layers have nothing to do with each other. Dropping one means
//! to compute again all that leads to it from what is kept; what is computed again once is free for the next. How much
//! memory a step takes after so many drops only the memory plan knows, so [`Ranking::search`] asks for it and looks for the
//! fewest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use linc_ir::{Graph, NodeId, Value};

use super::forward::{Forward, is_leaf, is_view, root};
use super::{Limit, copy};
use crate::error::PassError;

/// How long the kernels of operations take, by an estimate of which only ratios matter.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Floating-point operations and bytes of a node.
    pub cost: fn(&Graph, NodeId) -> (u64, u64),
    /// Operations that the machine does while it moves a byte.
    pub balance: f64,
}

impl Machine {
    /// What the kernels of a node take, in the unit of [`Machine::time`].
    pub fn time_of(&self, graph: &Graph, id: NodeId) -> f64 {
        self.time((self.cost)(graph, id))
    }

    /// In the time of a byte: what limits, operations or bytes.
    pub fn time(&self, (operations, bytes): (u64, u64)) -> f64 {
        (operations as f64 / self.balance).max(bytes as f64)
    }
}

/// What can be computed again, in the order in which that pays.
pub struct Ranking {
    forward: Forward,
    drops: Vec<Drop>,
}

/// A kept value that goes, with all that is computed again for it and was not before.
struct Drop {
    layer: usize,
    nodes: BTreeSet<NodeId>,
    /// Bytes that it frees for a unit of time.
    worth: f64,
}

/// How much of a ranking is computed again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Extent {
    /// Drops from the front of the ranking.
    pub drops: usize,
    /// Of layers below this one. The values of the last layers are wanted again so soon that dropping them may free
    /// nothing.
    pub layers: usize,
}

impl Ranking {
    /// Of the ancestors of output `loss`; nothing if there is no such output.
    ///
    /// # Errors
    /// [`PassError::Ir`] on a malformed graph.
    pub fn new(graph: &Graph, loss: &str, machine: &Machine) -> Result<Option<Ranking>, PassError> {
        let Some(forward) = Forward::of(graph, loss)? else { return Ok(None) };
        let free = free(graph, &forward);
        let mut layers: BTreeMap<usize, Vec<NodeId>> = BTreeMap::new();
        for id in forward.order.iter().filter(|id| free.contains(id) && !is_view(graph, **id)) {
            let layer = graph.node(*id).scope.layer;
            layers.entry(layer.unwrap_or_default()).or_default().push(*id);
        }
        let kept = forward.kept_roots(graph);
        let mut state = State { graph, machine, free: &free, kept, dropped: BTreeSet::new() };
        let mut queues: Vec<VecDeque<Drop>> = vec![];
        for (layer, nodes) in layers {
            queues.push(state.drop_all(layer, &nodes).into());
        }
        let mut drops = vec![];
        // Of drops that are worth the same, as those of layers of one kind are, that of the first layer comes first: it is
        // kept the longest.
        while let Some(best) = queues.iter_mut().filter(|queue| !queue.is_empty()).max_by(|a, b| {
            let worth = |queue: &VecDeque<Drop>| queue.front().map_or(0.0, |drop| drop.worth);
            let layer = |queue: &VecDeque<Drop>| Reverse(queue.front().map(|drop| drop.layer));
            worth(a).total_cmp(&worth(b)).then_with(|| layer(a).cmp(&layer(b)))
        }) {
            drops.extend(best.pop_front());
        }
        Ok(Some(Ranking { forward, drops }))
    }

    /// Everything that can be computed again.
    pub fn all(&self) -> Extent {
        let layers = self.drops.iter().map(|drop| drop.layer + 1).max().unwrap_or(0);
        Extent { drops: self.drops.len(), layers }
    }

    /// Gives the backward its copies of so much.
    pub fn apply(&self, graph: &mut Graph, extent: Extent) {
        let wanted = self.drops[..extent.drops].iter().filter(|drop| drop.layer < extent.layers);
        let mut chosen: BTreeSet<NodeId> = wanted.flat_map(|drop| drop.nodes.iter().copied()).collect();
        // A view holds on to what it is a view of.
        for id in self.forward.order.iter().filter(|id| is_view(graph, **id)) {
            if chosen.contains(&graph.operands(*id)[0].node) {
                chosen.insert(*id);
            }
        }
        copy(graph, &self.forward, &chosen);
    }

    /// Looks for the least that stays within the limit, by the bytes that `peak` finds for an extent, and returns the limit in
    /// bytes. The extents that `peak` was asked for are those worth a comparison.
    ///
    /// # Errors
    /// Those of `peak`.
    pub fn search(
        &self,
        limit: Limit,
        mut peak: impl FnMut(Extent) -> Result<u64, PassError>,
    ) -> Result<u64, PassError> {
        let mut known: BTreeMap<Extent, u64> = BTreeMap::new();
        let mut peak = |extent: Extent| -> Result<u64, PassError> {
            if let Some(bytes) = known.get(&extent) {
                return Ok(*bytes);
            }
            let bytes = peak(extent)?;
            known.insert(extent, bytes);
            Ok(bytes)
        };
        let all = self.all();
        let limit = match limit {
            Limit::Bytes(bytes) => bytes,
            Limit::Share(share) => {
                let (most, least) = (peak(Extent { drops: 0, ..all })?, peak(all)?);
                least + (share.clamp(0.0, 1.0) * most.saturating_sub(least) as f64) as u64
            }
        };
        let drops = first(all.drops, |drops| Ok(peak(Extent { drops, ..all })? <= limit))?;
        first(all.layers, |layers| Ok(peak(Extent { drops, layers })? <= limit))?;
        Ok(limit)
    }
}

/// The first number below `end` for which `holds`, which then holds for all that follow; `end` if there is none.
fn first(end: usize, mut holds: impl FnMut(usize) -> Result<bool, PassError>) -> Result<usize, PassError> {
    let (mut low, mut high) = (0, end);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

/// Nodes that can be computed again inside their layers: nothing outside reads them, nor a view of them.
fn free(graph: &Graph, forward: &Forward) -> BTreeSet<NodeId> {
    let mut free = forward.inside_layers(graph, |_| true);
    for id in forward.order.iter().rev() {
        let holds = |(user, _): &(NodeId, usize)| {
            forward.nodes.contains(user) && is_view(graph, *user) && !free.contains(user)
        };
        if graph.results(*id).any(|value| graph.users(value).iter().any(holds)) {
            free.remove(id);
        }
    }
    free
}

/// What is kept and what is computed again so far.
struct State<'a> {
    graph: &'a Graph,
    machine: &'a Machine,
    free: &'a BTreeSet<NodeId>,
    kept: BTreeSet<Value>,
    dropped: BTreeSet<NodeId>,
}

impl State<'_> {
    /// Drops all that can be dropped of a layer, what is worth the most first.
    fn drop_all(&mut self, layer: usize, nodes: &[NodeId]) -> Vec<Drop> {
        let mut drops = vec![];
        loop {
            let kept = |id: &&NodeId| self.graph.results(**id).any(|value| self.kept.contains(&value));
            let candidates = nodes.iter().filter(kept).filter_map(|id| self.drop(layer, *id));
            // The first of equals, so that the order is that of the graph.
            let best = candidates.reduce(|best, next| if next.0.worth > best.0.worth { next } else { best });
            let Some((drop, needed)) = best else { return drops };
            for id in &drop.nodes {
                for value in self.graph.results(*id) {
                    self.kept.remove(&value);
                }
            }
            self.kept.extend(needed);
            self.dropped.extend(&drop.nodes);
            drops.push(drop);
        }
    }

    /// What dropping the results of a node means, with the values that have to be kept for it and are not yet; nothing if
    /// those are as large.
    fn drop(&self, layer: usize, id: NodeId) -> Option<(Drop, BTreeSet<Value>)> {
        let (mut nodes, mut needed) = (BTreeSet::new(), BTreeSet::new());
        let mut open = vec![id];
        while let Some(next) = open.pop() {
            if !nodes.insert(next) {
                continue;
            }
            for operand in self.graph.operands(next) {
                let root = root(self.graph, operand);
                let exists = is_leaf(self.graph, root.node)
                    || self.kept.contains(&root)
                    || self.dropped.contains(&root.node);
                match (exists, self.free.contains(&root.node)) {
                    (true, _) => {}
                    (false, true) => open.push(root.node),
                    (false, false) => {
                        needed.insert(root);
                    }
                }
            }
        }
        let bytes = |values: &mut dyn Iterator<Item = Value>| -> f64 {
            values.map(|value| self.graph.ty(value).bytes() as f64).sum()
        };
        let freed = nodes.iter().flat_map(|id| self.graph.results(*id)).filter(|v| self.kept.contains(v));
        let gain = bytes(&mut freed.into_iter()) - bytes(&mut needed.iter().copied());
        let time: f64 = nodes.iter().map(|id| self.machine.time_of(self.graph, *id)).sum();
        (gain > 0.0).then(|| (Drop { layer, nodes, worth: gain / time }, needed))
    }
}
