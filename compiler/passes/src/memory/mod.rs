//! The memory plan: storage for every value, lifetimes, and offsets in one arena.
//!
//! Views and concat parts share storage (`alias.rs`), updates write in place, pointwise results may overwrite an operand
//! that dies with them, and what is joined to one vector is made side by side (`joins.rs`). What is left gets an offset
//! by size, largest first, in the first gap among the buffers that are alive at the same time (greedy by size, arXiv
//! 2001.03288; `offsets.rs`). Persistent tensors are laid out once by name and shared by sister programs (`layout.rs`).
//!
//! Storage is decided in the order of the nodes ([`run`]), offsets in the order of the steps that the nodes become
//! ([`StorageAssignment::allocate`]): a leaf or a view takes no step, so two values that are alive at different nodes may
//! well be in memory at the same step (`lifetimes.rs`).

mod alias;
mod joins;
mod layout;
mod lifetimes;
mod occupancy;
mod offsets;
mod rules;
mod waits;

use std::collections::{BTreeMap, BTreeSet};

use linc_ir::layout::Storage;
use linc_ir::{Class, Graph, NodeId, Op, Overwrites, Value};

use crate::error::PassError;

use lifetimes::{lifetimes, step_lifetimes};

pub use layout::PersistentLayout;
pub use waits::Wait;

/// Alignment in bytes of every allocation that stands alone, and of every range that others make up.
const ALIGN: u64 = 64;

/// What an allocation holds, for reports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Trainable weight.
    Parameter,
    /// Optimizer moment, cache or recurrent state.
    State,
    /// Gradient of a parameter.
    Gradient,
    /// Kept from the forward for the backward, not by attention.
    Activation,
    /// Kept from the forward for the backward by attention.
    Attention,
    /// Short-lived.
    Workspace,
    /// Fed by the caller, or a constant table.
    Input,
}

/// Memory of one root value.
#[derive(Clone, PartialEq, Debug)]
pub struct Allocation {
    /// In the persistent part (true) or in scratch.
    pub persistent: bool,
    /// Byte offset in its part.
    pub offset: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// First and last step at which it is in use, inclusive.
    pub live: (usize, usize),
    /// What the memory holds, by which reports add it up.
    pub kind: Kind,
}

/// Who shares whose memory, and in which order the nodes run: all that their kernels depend on.
#[derive(Clone, PartialEq, Debug)]
pub struct StorageAssignment {
    /// Execution order.
    pub order: Vec<NodeId>,
    /// Place of every value.
    pub storage: BTreeMap<Value, Storage>,
    joins: joins::Joins,
    waits: Vec<Wait>,
}

/// An assignment with addresses.
#[derive(Clone, PartialEq, Debug)]
pub struct MemoryPlan {
    /// Memory of every root.
    pub allocations: BTreeMap<Value, Allocation>,
    /// Size of the scratch part in bytes.
    pub scratch_bytes: u64,
}

/// Decides order and storage of all values of a graph; may add explicit copies to it. Where exchanges `overlap`, other nodes run while
/// they are under way.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph, [`PassError::Missing`] for an update that cannot be made in place.
pub fn run(
    graph: &mut Graph,
    persistent: &PersistentLayout,
    overlap: bool,
) -> Result<StorageAssignment, PassError> {
    let (order, mut storage) = alias::resolve(graph, persistent, overlap)?;
    overwrite_dying_operands(graph, &order, &mut storage);
    for (leaf, value) in &graph.updates {
        if storage[value] != storage[&Value { node: *leaf, port: 0 }] {
            let name = graph.op(*leaf).leaf_name().unwrap_or_default();
            return Err(PassError::Missing(format!("internal error: {name} is not updated in place")));
        }
    }
    let joins = joins::find(graph, &order, &storage).map_err(|parts| {
        PassError::Missing(format!("internal error: parts {parts:?} of a join do not lie side by side"))
    })?;
    let mut assignment = StorageAssignment { order, storage, joins, waits: vec![] };
    assignment.make_last_joins_in_place(graph);
    if overlap {
        let StorageAssignment { order, storage, joins, .. } = &assignment;
        assignment.waits = waits::find(graph, order, storage, joins);
    }
    Ok(assignment)
}

impl StorageAssignment {
    /// True for a concat of what already lies where it wants it: there is nothing to run.
    pub fn is_in_place(&self, id: NodeId) -> bool {
        self.joins.contains_key(&id)
    }

    /// Exchanges that other nodes run beside, in the order in which they are waited for; others are waited for at once.
    pub fn waits(&self) -> &[Wait] {
        &self.waits
    }

    /// A whole has memory of its own from the step behind its join on. Where nothing runs behind it there is no such step: then
    /// its parts are made in the memory of the whole.
    fn make_last_joins_in_place(&mut self, graph: &Graph) {
        let last = self.order.iter().rev().take_while(|id| !self.computes(graph, **id));
        let last: Vec<NodeId> = last.copied().filter(|id| self.is_in_place(*id)).collect();
        for id in last {
            let whole = self.storage[&Value { node: id, port: 0 }].clone();
            let whole_bytes = whole.layout.offset * graph.ty(Value { node: id, port: 0 }).dtype.bytes();
            let Some(parts) = self.joins.remove(&id) else { continue };
            for (value, place) in &mut self.storage {
                if let Some(base) = parts.get(&place.root) {
                    place.root = whole.root;
                    place.layout.offset += (whole_bytes + *base as usize) / graph.ty(*value).dtype.bytes();
                }
            }
        }
    }

    /// Size of the arena in bytes, before it is known how many steps each node becomes: one for each that computes.
    pub fn arena_bytes(&self, graph: &Graph, persistent: &PersistentLayout) -> u64 {
        let steps: Vec<usize> = self.order.iter().map(|id| usize::from(self.computes(graph, *id))).collect();
        persistent.bytes + self.allocate(graph, persistent, &steps).scratch_bytes
    }

    /// The nodes that kernels compute, in order.
    pub fn computing(&self, graph: &Graph) -> impl Iterator<Item = NodeId> {
        self.order.iter().copied().filter(|id| self.computes(graph, *id))
    }

    fn computes(&self, graph: &Graph, id: NodeId) -> bool {
        let root = |value: &Value| self.storage.get(value).map(|storage| storage.root);
        // Parts that were made where the whole is need no copy.
        let is_made = |id: NodeId| {
            let whole = root(&Value { node: id, port: 0 });
            matches!(graph.op(id), Op::Concat { .. })
                && graph.operands(id).iter().all(|part| root(part) == whole)
        };
        let is_free = matches!(graph.op(id).facts().class, Class::Leaf { .. } | Class::View);
        !is_free && !self.is_in_place(id) && !is_made(id)
    }

    /// Gives every root its address; `steps` has the number of steps that each node of the order became, with the waits before it, and
    /// behind the last.
    pub fn allocate(&self, graph: &Graph, persistent: &PersistentLayout, steps: &[usize]) -> MemoryPlan {
        let kinds = kinds(graph, &self.order, &self.storage, &self.joins);
        let sizes = sizes(graph, &self.storage);
        let mut allocations = BTreeMap::new();
        let mut lives = step_lifetimes(lifetimes(graph, &self.order, &self.storage), steps);
        let moved = |start: usize| {
            let id = self.order[start];
            let values = graph.operands(id).into_iter().chain(graph.results(id));
            values.map(|value| self.storage[&value].root).collect()
        };
        waits::extend(&mut lives, &self.waits, steps, moved);
        for (root, live) in lives {
            let op = graph.op(root.node);
            let known =
                if is_persistent(op) { op.leaf_name().and_then(|n| persistent.offset(n)) } else { None };
            allocations.insert(
                root,
                Allocation {
                    persistent: known.is_some(),
                    offset: known.unwrap_or(0),
                    bytes: sizes[&root],
                    live,
                    kind: kinds[&root],
                },
            );
        }
        let scratch_bytes = offsets::assign(&mut allocations, &self.joins);
        MemoryPlan { allocations, scratch_bytes }
    }
}

fn is_persistent(op: &Op) -> bool {
    op.facts().class == Class::Leaf { persistent: true }
}

/// Bytes of every root: up to the last element of any value in its storage.
fn sizes(graph: &Graph, storage: &BTreeMap<Value, Storage>) -> BTreeMap<Value, u64> {
    let mut sizes: BTreeMap<Value, u64> = BTreeMap::new();
    for (value, place) in storage {
        let ty = graph.ty(*value);
        let last: usize = ty.shape.0.iter().zip(&place.layout.strides).map(|(d, s)| (d - 1) * s).sum();
        let bytes = ((place.layout.offset + last + 1) * ty.dtype.bytes()) as u64;
        let size = sizes.entry(place.root).or_default();
        *size = (*size).max(bytes);
    }
    sizes
}

/// Lets pointwise results take over the storage of an operand that nobody reads afterwards.
fn overwrite_dying_operands(graph: &Graph, order: &[NodeId], storage: &mut BTreeMap<Value, Storage>) {
    let mut last_use: BTreeMap<Value, usize> =
        lifetimes(graph, order, storage).into_iter().map(|(root, live)| (root, live.1)).collect();
    let mut sharers: BTreeMap<Value, Vec<Value>> = BTreeMap::new();
    for (value, place) in storage.iter() {
        sharers.entry(place.root).or_default().push(*value);
    }
    for (at, id) in order.iter().enumerate() {
        if graph.op(*id).facts().overwrites != Overwrites::Elementwise {
            continue;
        }
        let operands = graph.operands(*id);
        let mut taken = BTreeSet::new();
        for result in graph.results(*id).collect::<Vec<_>>() {
            let ty = graph.ty(result);
            if storage[&result].root != result {
                continue;
            }
            // Every operand in that storage must be read element by element where the result is written.
            let same_place = |v: &Value, root: Value| {
                let place = &storage[v];
                place.root != root
                    || (graph.ty(*v) == ty && place.layout.offset == 0 && place.layout.is_dense(&ty.shape))
            };
            let candidate = operands.iter().map(|v| storage[v].root).find(|root| {
                graph.ty(*root).bytes() == ty.bytes()
                    && graph.op(root.node).leaf_name().is_none()
                    && !taken.contains(root)
                    && last_use.get(root) == Some(&at)
                    && operands.iter().all(|v| same_place(v, *root))
            });
            if let Some(root) = candidate {
                taken.insert(root);
                let end = last_use.remove(&result).unwrap_or(at);
                last_use.insert(root, end);
                let moved = sharers.remove(&result).unwrap_or_default();
                for value in &moved {
                    if let Some(place) = storage.get_mut(value) {
                        place.root = root;
                    }
                }
                sharers.entry(root).or_default().extend(moved);
            }
        }
    }
}

fn kinds(
    graph: &Graph,
    order: &[NodeId],
    storage: &BTreeMap<Value, Storage>,
    joins: &joins::Joins,
) -> BTreeMap<Value, Kind> {
    let forward = match graph.output(crate::loss::LOSS) {
        Some(loss) => graph.ancestors(loss.node),
        None => graph.nodes().collect(),
    };
    // A norm behind that of the gradients is the optimizer's own.
    let optimizer = graph.behind_gradients();
    let mut gradients: BTreeSet<Value> = order
        .iter()
        .filter(|id| matches!(graph.op(**id), Op::GlobalNorm) && !optimizer.contains(id))
        .flat_map(|id| graph.operands(*id))
        .map(|v| storage[&v].root)
        .collect();
    // Those that go to other ranks, and come from them.
    for id in order.iter().filter(|id| !optimizer.contains(id)) {
        if matches!(graph.op(*id), Op::Exchange(_)) {
            gradients
                .extend(graph.operands(*id).into_iter().chain(graph.results(*id)).map(|v| storage[&v].root));
        }
    }
    // What is joined last first: its parts may be joins.
    for (id, parts) in joins.iter().rev() {
        if gradients.contains(&Value { node: *id, port: 0 }) {
            gradients.extend(parts.keys());
        }
    }
    let mut kept: BTreeMap<Value, Kind> = BTreeMap::new();
    for id in order.iter().filter(|id| !forward.contains(id)) {
        for value in graph.operands(*id) {
            let root = storage[&value].root;
            if forward.contains(&root.node) {
                let by_attention = graph.op(*id).facts().is_attention_gradient;
                let kind = if by_attention { Kind::Attention } else { Kind::Activation };
                let entry = kept.entry(root).or_insert(kind);
                *entry = (*entry).max(kind);
            }
        }
    }
    let roots: BTreeSet<Value> = storage.values().map(|s| s.root).collect();
    roots
        .into_iter()
        .map(|root| {
            let kind = match graph.op(root.node) {
                // Also in the form that matmuls read: one for the whole step.
                _ if graph.is_weight(root) => Kind::Parameter,
                Op::State { .. } => Kind::State,
                Op::Input { .. } | Op::Table { .. } => Kind::Input,
                _ if gradients.contains(&root) => Kind::Gradient,
                _ => kept.get(&root).copied().unwrap_or(Kind::Workspace),
            };
            (root, kind)
        })
        .collect()
}
