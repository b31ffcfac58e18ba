//! The graph: nodes are operations, edges carry operand positions. The only file that names petgraph.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;

use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;

use crate::error::IrError;
use crate::infer::infer;
use crate::op::Op;
use crate::types::TensorType;

/// Identifies a node for the life of its graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// One result of a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// Producer.
    pub node: NodeId,
    /// Result position.
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
    /// Where it comes from, for people: `layers.3/attention`.
    pub scope: String,
    /// A recomputation of a forward value: scheduled right before its first use instead of early.
    pub recompute: bool,
}

/// An edge: result `port` of the source feeds operand `operand` of the target.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Operand {
    port: u32,
    operand: u32,
}

/// A tensor program: a DAG of operations with named outputs and in-place updates of leaves.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Program name: the model's, with the entry point.
    pub name: String,
    graph: StableDiGraph<Node, Operand>,
    /// Named results, in order.
    pub outputs: Vec<(String, Value)>,
    /// `(leaf, value)`: after the run the persistent leaf holds the value.
    pub updates: Vec<(NodeId, Value)>,
    scope: String,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Graph { name: name.into(), ..Graph::default() }
    }

    /// Sets the scope given to nodes added from now on; returns the one before.
    pub fn set_scope(&mut self, scope: impl Into<String>) -> String {
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
        let index = self.graph.add_node(node);
        for (operand, value) in operands.iter().enumerate() {
            self.connect(*value, index, operand as u32);
        }
        NodeId(index.index() as u32)
    }

    fn connect(&mut self, value: Value, target: NodeIndex, operand: u32) {
        self.graph.add_edge(index(value.node), target, Operand { port: value.port, operand });
    }

    /// The node behind an id.
    ///
    /// # Panics
    /// If the node was removed.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.graph[index(id)]
    }

    /// True if the node exists (was added and not removed).
    pub fn contains(&self, id: NodeId) -> bool {
        self.graph.contains_node(index(id))
    }

    /// The operation of a node.
    pub fn op(&self, id: NodeId) -> &Op {
        &self.node(id).op
    }

    /// Mutable access; the result types must stay true.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.graph[index(id)]
    }

    /// Type of a value.
    pub fn ty(&self, value: Value) -> &TensorType {
        &self.node(value.node).types[value.port as usize]
    }

    /// Operands of a node, in order.
    pub fn operands(&self, id: NodeId) -> Vec<Value> {
        self.operand_edges(id).into_iter().map(|(_, v)| v).collect()
    }

    /// Operands of a node with their positions, ascending; a well-formed node has each position once.
    pub fn operand_edges(&self, id: NodeId) -> Vec<(u32, Value)> {
        let mut edges: Vec<(u32, Value)> = self
            .graph
            .edges_directed(index(id), Direction::Incoming)
            .map(|e| {
                let source = NodeId(e.source().index() as u32);
                (e.weight().operand, Value { node: source, port: e.weight().port })
            })
            .collect();
        edges.sort_unstable();
        edges
    }

    /// Operand positions that read a value, as `(node, operand)`, ascending.
    pub fn users(&self, value: Value) -> Vec<(NodeId, usize)> {
        let mut users: Vec<(NodeId, usize)> = self
            .graph
            .edges_directed(index(value.node), Direction::Outgoing)
            .filter(|e| e.weight().port == value.port)
            .map(|e| (NodeId(e.target().index() as u32), e.weight().operand as usize))
            .collect();
        users.sort_unstable();
        users
    }

    /// True if an output or update reads the value.
    pub fn is_result(&self, value: Value) -> bool {
        self.outputs.iter().any(|(_, v)| *v == value) || self.updates.iter().any(|(_, v)| *v == value)
    }

    /// Redirects one operand.
    pub fn set_operand(&mut self, id: NodeId, operand: usize, value: Value) {
        let edge = self
            .graph
            .edges_directed(index(id), Direction::Incoming)
            .find(|e| e.weight().operand as usize == operand)
            .map(|e| e.id());
        if let Some(edge) = edge {
            self.graph.remove_edge(edge);
        }
        self.connect(value, index(id), operand as u32);
    }

    /// Redirects every reader of `old` (nodes, outputs, updates) to `new`.
    pub fn replace_uses(&mut self, old: Value, new: Value) {
        for (user, operand) in self.users(old) {
            self.set_operand(user, operand, new);
        }
        for (_, v) in &mut self.outputs {
            if *v == old {
                *v = new;
            }
        }
        for (_, v) in &mut self.updates {
            if *v == old {
                *v = new;
            }
        }
    }

    /// Removes a node nobody reads.
    pub fn remove(&mut self, id: NodeId) {
        self.graph.remove_node(index(id));
    }

    /// Result values of a node.
    pub fn results(&self, id: NodeId) -> impl Iterator<Item = Value> + use<> {
        (0..self.node(id).types.len() as u32).map(move |port| Value { node: id, port })
    }

    /// All nodes, ascending by id (order of creation).
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.graph.node_indices().map(|i| NodeId(i.index() as u32))
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.graph.node_count()
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

    /// True for a parameter, and for one that is only rounded, viewed or joined with others.
    pub fn is_weight(&self, value: Value) -> bool {
        match self.op(value.node) {
            Op::Param { .. } => true,
            op if op.is_view() || matches!(op, Op::Cast { .. }) => {
                self.operands(value.node).into_iter().all(|v| self.is_weight(v))
            }
            _ => false,
        }
    }

    /// A named output.
    pub fn output(&self, name: &str) -> Option<Value> {
        self.outputs.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }

    /// A topological order, unique for a graph: among ready nodes the oldest first.
    ///
    /// # Errors
    /// [`IrError::Cycle`] names a node on a cycle.
    pub fn topological(&self) -> Result<Vec<NodeId>, IrError> {
        use std::cmp::Reverse;
        let mut missing: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut ready = BinaryHeap::new();
        for id in self.nodes() {
            let count = self.graph.edges_directed(index(id), Direction::Incoming).count();
            if count == 0 {
                ready.push(Reverse(id));
            } else {
                missing.insert(id, count);
            }
        }
        let mut order = Vec::with_capacity(self.len());
        while let Some(Reverse(id)) = ready.pop() {
            order.push(id);
            for edge in self.graph.edges_directed(index(id), Direction::Outgoing) {
                let target = NodeId(edge.target().index() as u32);
                let count = missing.get_mut(&target).expect("an edge into a node that was already ordered");
                *count -= 1;
                if *count == 0 {
                    missing.remove(&target);
                    ready.push(Reverse(target));
                }
            }
        }
        match missing.keys().next() {
            None => Ok(order),
            Some(node) => Err(IrError::Cycle { node: *node, op: self.op(*node).name() }),
        }
    }
}

fn index(id: NodeId) -> NodeIndex {
    NodeIndex::new(id.0 as usize)
}
