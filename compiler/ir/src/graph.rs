//! The graph: nodes are operations, which know their operands and their readers.
//!
//! Readers are an ordered set, so that redirecting one of them takes time in the logarithm of their number: a training
//! step has nodes that read, or are read by, something of every parameter.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;

use crate::error::IrError;
use crate::infer::infer;
use crate::op::Op;
use crate::results::ResultList;
use crate::scope::Scope;
use crate::types::TensorType;

/// Identifies a node for the life of its graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// One result of a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The node that computes it.
    pub node: NodeId,
    /// Which of the node's results, from 0.
    pub port: u32,
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.node.0)?;
        if self.port > 0 { write!(f, ".{}", self.port) } else { Ok(()) }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An operation in a graph.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// Types of its results.
    pub types: Vec<TensorType>,
    /// Where it comes from: `layers.3/attention`.
    pub scope: Scope,
    /// A recomputation of a forward value: scheduled right before its first use instead of early.
    pub recompute: bool,
}

/// A node with its edges.
#[derive(Clone, Debug)]
struct Slot {
    node: Node,
    /// Operands with their positions, ascending.
    operands: Vec<(u32, Value)>,
    /// Who reads the results: port, reader, and the reader's operand.
    readers: BTreeSet<(u32, NodeId, u32)>,
}

/// A tensor program: a DAG of operations with named outputs and in-place updates of leaves.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Program name: the model's, with the entry point.
    pub name: String,
    /// By id; nothing where a node was removed.
    slots: Vec<Option<Slot>>,
    /// Ids of removed nodes, which new nodes take, the last one first.
    free: Vec<NodeId>,
    /// Named results, in order.
    pub outputs: ResultList<String>,
    /// `(leaf, value)`: after the run the persistent leaf holds the value.
    pub updates: ResultList<NodeId>,
    scope: Scope,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Graph { name: name.into(), ..Graph::default() }
    }

    /// Sets the scope given to nodes added from now on; returns the one before.
    pub fn set_scope(&mut self, scope: impl Into<Scope>) -> Scope {
        std::mem::replace(&mut self.scope, scope.into())
    }

    /// Appends an operation, inferring its result types.
    ///
    /// # Errors
    /// [`IrError::Type`] if the operands do not fit the operation.
    pub fn add(&mut self, op: Op, operands: &[Value]) -> Result<NodeId, IrError> {
        let operand_types: Vec<&TensorType> = operands.iter().map(|v| self.ty(*v)).collect();
        let types = infer(&op, &operand_types)?;
        let node = Node { op, types, scope: self.scope.clone(), recompute: false };
        Ok(self.insert(node, operands))
    }

    /// Appends an operation with one interesting result and returns that result.
    ///
    /// # Errors
    /// As [`Graph::add`].
    pub fn push(&mut self, op: Op, operands: &[Value]) -> Result<Value, IrError> {
        Ok(Value { node: self.add(op, operands)?, port: 0 })
    }

    /// Appends a node as it is (for copies of nodes that were inferred before).
    pub fn insert(&mut self, node: Node, operands: &[Value]) -> NodeId {
        let slot = Some(Slot { node, operands: vec![], readers: BTreeSet::new() });
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id.0 as usize] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                NodeId(self.slots.len() as u32 - 1)
            }
        };
        for (operand, value) in operands.iter().enumerate() {
            self.set_operand(id, operand, *value);
        }
        id
    }

    fn slot(&self, id: NodeId) -> &Slot {
        self.slots[id.0 as usize].as_ref().expect("a node that was not removed")
    }

    fn slot_mut(&mut self, id: NodeId) -> &mut Slot {
        self.slots[id.0 as usize].as_mut().expect("a node that was not removed")
    }

    /// The node behind an id.
    ///
    /// # Panics
    /// If the node was removed.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.slot(id).node
    }

    /// True if the node exists (was added and not removed).
    pub fn contains(&self, id: NodeId) -> bool {
        self.slots.get(id.0 as usize).is_some_and(Option::is_some)
    }

    /// The operation of a node.
    pub fn op(&self, id: NodeId) -> &Op {
        &self.node(id).op
    }

    /// Mutable access; the result types must stay true.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.slot_mut(id).node
    }

    /// Element type and shape of a value, as inferred when its node was added.
    pub fn ty(&self, value: Value) -> &TensorType {
        &self.node(value.node).types[value.port as usize]
    }

    /// Operands of a node, in order.
    pub fn operands(&self, id: NodeId) -> Vec<Value> {
        self.slot(id).operands.iter().map(|(_, value)| *value).collect()
    }

    /// Operands of a node with their positions, ascending; a well-formed node has each position once.
    pub fn operand_edges(&self, id: NodeId) -> Vec<(u32, Value)> {
        self.slot(id).operands.clone()
    }

    /// Operand positions that read a value, as `(node, operand)`, ascending.
    pub fn users(&self, value: Value) -> Vec<(NodeId, usize)> {
        let (first, next) = ((value.port, NodeId(0), 0), (value.port + 1, NodeId(0), 0));
        let readers = self.slot(value.node).readers.range(first..next);
        readers.map(|(_, node, operand)| (*node, *operand as usize)).collect()
    }

    /// True if an output or update reads the value.
    pub fn is_result(&self, value: Value) -> bool {
        self.outputs.has(value) || self.updates.has(value)
    }

    /// Redirects one operand.
    pub fn set_operand(&mut self, id: NodeId, operand: usize, value: Value) {
        let position = operand as u32;
        let operands = &mut self.slot_mut(id).operands;
        let before = match operands.binary_search_by_key(&position, |(position, _)| *position) {
            Ok(at) => Some(std::mem::replace(&mut operands[at].1, value)),
            Err(at) => {
                operands.insert(at, (position, value));
                None
            }
        };
        if let Some(before) = before {
            self.slot_mut(before.node).readers.remove(&(before.port, id, position));
        }
        self.slot_mut(value.node).readers.insert((value.port, id, position));
    }

    /// Redirects every reader of `old` (nodes, outputs, updates) to `new`.
    pub fn replace_uses(&mut self, old: Value, new: Value) {
        for (user, operand) in self.users(old) {
            self.set_operand(user, operand, new);
        }
        self.outputs.replace(old, new);
        self.updates.replace(old, new);
    }

    /// Removes a node nobody reads. If somebody does, that operand is missing from then on.
    pub fn remove(&mut self, id: NodeId) {
        let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::take) else { return };
        self.free.push(id);
        for (position, value) in slot.operands {
            if let Some(source) = &mut self.slots[value.node.0 as usize] {
                source.readers.remove(&(value.port, id, position));
            }
        }
        for (_, reader, operand) in slot.readers {
            if let Some(reader) = &mut self.slots[reader.0 as usize] {
                reader.operands.retain(|(position, _)| *position != operand);
            }
        }
    }

    /// Result values of a node.
    pub fn results(&self, id: NodeId) -> impl Iterator<Item = Value> + use<> {
        (0..self.node(id).types.len() as u32).map(move |port| Value { node: id, port })
    }

    /// All nodes, ascending by id (order of creation).
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.is_some()).map(|(i, _)| NodeId(i as u32))
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// True if there is no node.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Finds a leaf by binding name.
    pub fn leaf(&self, name: &str) -> Option<NodeId> {
        self.nodes().find(|n| self.op(*n).leaf_name() == Some(name))
    }

    /// All nodes that a node depends on, without itself.
    pub fn ancestors(&self, id: NodeId) -> BTreeSet<NodeId> {
        let mut seen = BTreeSet::new();
        let mut stack: Vec<NodeId> = self.operands(id).iter().map(|v| v.node).collect();
        while let Some(id) = stack.pop() {
            if seen.insert(id) {
                stack.extend(self.operands(id).iter().map(|v| v.node));
            }
        }
        seen
    }

    /// All nodes that depend on one of these, without those among them that depend on none.
    pub fn descendants(&self, of: impl IntoIterator<Item = NodeId>) -> BTreeSet<NodeId> {
        let readers = |id: NodeId| {
            let values = self.results(id);
            values.flat_map(|value| self.users(value)).map(|(reader, _)| reader).collect::<Vec<_>>()
        };
        let mut seen = BTreeSet::new();
        let mut stack: Vec<NodeId> = of.into_iter().flat_map(readers).collect();
        while let Some(id) = stack.pop() {
            if seen.insert(id) {
                stack.extend(readers(id));
            }
        }
        seen
    }

    /// The norms of gradients, and all that depends on them: what the optimizer computes.
    pub fn behind_gradients(&self) -> BTreeSet<NodeId> {
        self.descendants(self.nodes().filter(|id| matches!(self.op(*id), Op::GlobalNorm)))
    }

    /// True for a parameter, and for one that is only rounded, viewed or joined with others.
    pub fn is_weight(&self, value: Value) -> bool {
        match self.op(value.node) {
            Op::Param { .. } => true,
            op if op.moves_elements() || matches!(op, Op::Cast { .. }) => {
                self.operands(value.node).into_iter().all(|v| self.is_weight(v))
            }
            _ => false,
        }
    }

    /// A named output.
    pub fn output(&self, name: &str) -> Option<Value> {
        self.outputs.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }

    /// The order of the exchanges beyond what they depend on: pairs of an earlier and a later node, of one turn and the next.
    pub fn turns(&self) -> Vec<(NodeId, NodeId)> {
        let mut turns: BTreeMap<usize, Vec<NodeId>> = BTreeMap::new();
        for id in self.nodes() {
            if let Op::Exchange(op) = self.op(id)
                && let Some(group) = op.group()
            {
                turns.entry(group.turn).or_default().push(id);
            }
        }
        let turns: Vec<Vec<NodeId>> = turns.into_values().collect();
        let pairs = |both: &[Vec<NodeId>]| {
            both[0].iter().flat_map(|from| both[1].iter().map(|to| (*from, *to))).collect::<Vec<_>>()
        };
        turns.windows(2).flat_map(pairs).collect()
    }

    /// A topological order, unique for a graph: among ready nodes the oldest first, and exchanges in their turns.
    ///
    /// # Errors
    /// [`IrError::Cycle`] names a node on a cycle.
    pub fn topological(&self) -> Result<Vec<NodeId>, IrError> {
        use std::cmp::Reverse;
        let mut missing: Vec<usize> =
            self.slots.iter().map(|slot| slot.as_ref().map_or(0, |slot| slot.operands.len())).collect();
        let mut later: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        for (from, to) in self.turns() {
            later.entry(from).or_default().push(to);
            missing[to.0 as usize] += 1;
        }
        let mut ready: BinaryHeap<Reverse<NodeId>> =
            self.nodes().filter(|id| missing[id.0 as usize] == 0).map(Reverse).collect();
        let mut order = Vec::with_capacity(self.len());
        while let Some(Reverse(id)) = ready.pop() {
            order.push(id);
            let readers = self.slot(id).readers.iter().map(|(_, reader, _)| *reader);
            for next in readers.chain(later.remove(&id).unwrap_or_default()) {
                let count = &mut missing[next.0 as usize];
                *count -= 1;
                if *count == 0 {
                    ready.push(Reverse(next));
                }
            }
        }
        match missing.iter().position(|count| *count > 0) {
            None => Ok(order),
            Some(node) => {
                let node = NodeId(node as u32);
                Err(IrError::Cycle { node, op: self.op(node).name() })
            }
        }
    }
}
