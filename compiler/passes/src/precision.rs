//! Mixed precision: activations, matmul operands and attention in a narrow type, bf16 or f16; master weights, their
//! gradients, and all statistics in f32. Every rounding is a `cast`, or the result type of an operation that offers the choice.
//!
//! | value | type |
//! |---|---|
//! | parameters, moments, accumulated gradients | f32, as stored |
//! | weights as operands of matmuls and of the output head | narrow, cast once a step for all readers; where nothing trains some are stored so ([`read_narrow`]) |
//! | gains and biases, read by norms and pointwise operations | the f32 master itself |
//! | results of matmuls, attention, norms, rotations, embedding; the residual stream; their gradients | narrow |
//! | pointwise chains | f32 between the narrow values that they read and write |
//! | reductions, log-sum-exps, states of linear attention, losses, gradients of parameters, outputs | f32 |
//! | all of the optimizer, its matmuls as well: what is behind the norm of the gradients | f32 |
//! | key/value caches | narrow |
//!
//! A pointwise result is rounded where it is stored for somebody: where anything but a pointwise operation reads it, or
//! the backward reads it from the forward. So results do not depend on what is fused or recomputed later, and a
//! fused chain rounds once.

use std::collections::{BTreeMap, BTreeSet};

use linc_ir::{Class, DType, ExchangeOp, Graph, NodeId, Op, OperandTypes, StateRole, Value};

use crate::error::PassError;
use crate::setting::PassSetting;

/// Number format of activations and matmul operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// f32 throughout.
    #[default]
    Float32,
    /// bf16 with f32 master weights, sums and statistics.
    Bfloat16,
    /// The same with f16, and a scale of the loss ([`crate::loss_scale`]).
    Float16,
}

impl PassSetting for Precision {
    const NAME: &'static str = "precision";
    const HELP: &'static str = "Number format of activations and matmul operands";
    const ALL: &'static [Self] = &[Precision::Float32, Precision::Bfloat16, Precision::Float16];

    fn name(self) -> &'static str {
        match self {
            Precision::Float32 => "float32",
            Precision::Bfloat16 => "bfloat16",
            Precision::Float16 => "float16",
        }
    }
}

impl Precision {
    /// The type of what is not f32.
    pub const fn narrow(self) -> Option<DType> {
        match self {
            Precision::Float32 => None,
            Precision::Bfloat16 => Some(DType::Bf16),
            Precision::Float16 => Some(DType::F16),
        }
    }

    /// True if gradients would be lost in the type without a scale.
    pub const fn scales_loss(self) -> bool {
        match self {
            Precision::Float32 | Precision::Bfloat16 => false,
            Precision::Float16 => true,
        }
    }
}

/// Gives every value of a lowered f32 graph its element type, f32 or `narrow`; what output `loss` depends on is the forward.
/// Parameters named in `stored` are stored in the narrow type.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn run(graph: &mut Graph, loss: &str, narrow: DType, stored: &BTreeSet<String>) -> Result<(), PassError> {
    store_narrow(graph, stored, narrow);
    let order = graph.topological()?;
    let mut rewrite = Rewrite::new(graph, &order, loss, narrow);
    for id in order {
        rewrite.node(id)?;
    }
    for (name, value) in &rewrite.old.outputs {
        let wide = rewrite.wide(rewrite.at[value])?;
        rewrite.new.outputs.push((name.clone(), wide));
    }
    for (leaf, value) in &rewrite.old.updates {
        let leaf = rewrite.at[&Value { node: *leaf, port: 0 }];
        let value = rewrite.at[value];
        let value = if rewrite.is_narrow(leaf) { rewrite.narrow(value)? } else { rewrite.wide(value)? };
        rewrite.new.updates.push((leaf.node, value));
    }
    *graph = rewrite.new;
    Ok(())
}

/// Names of the parameters of a model, as built, that nothing but matmuls and the embedding reads. Those round them anyway,
/// so where they are stored in the narrow type results keep their bits. Every place in memory is a whole number of words, so
/// what has an odd number of elements stays f32.
pub fn read_narrow(graph: &Graph) -> Result<BTreeSet<String>, PassError> {
    let exact = exact_values(graph, &graph.topological()?, &BTreeSet::new());
    let params = graph.nodes().filter_map(|id| match graph.op(id) {
        Op::Param { name, ty, .. } if ty.shape.numel().is_multiple_of(2) => {
            Some((Value { node: id, port: 0 }, name))
        }
        _ => None,
    });
    let narrow = params.filter(|(value, _)| is_read_narrow(graph, &exact, *value));
    Ok(narrow.map(|(_, name)| name.clone()).collect())
}

/// Gives parameters of those names the narrow type, and nothing else: for who looks at the sizes of parameters.
pub fn store_narrow(graph: &mut Graph, names: &BTreeSet<String>, narrow: DType) {
    let ids: Vec<NodeId> = graph.nodes().collect();
    for id in ids {
        let node = graph.node_mut(id);
        if let Op::Param { name, ty, .. } = &mut node.op
            && names.contains(name)
        {
            ty.dtype = narrow;
            node.types = vec![ty.clone()];
        }
    }
}

/// True if all readers, of views of the value as well, round it to the narrow type.
fn is_read_narrow(graph: &Graph, exact: &BTreeSet<Value>, value: Value) -> bool {
    !graph.is_result(value)
        && graph.users(value).iter().all(|(user, _)| {
            let result = Value { node: *user, port: 0 };
            match graph.op(*user) {
                Op::MatMul { .. } => true,
                Op::Embedding { .. } => !exact.contains(&result),
                op => op.moves_elements() && is_read_narrow(graph, exact, result),
            }
        })
}

fn is_pointwise(op: &Op) -> bool {
    op.facts().class == Class::Pointwise
}

/// True of an exchange whose elements arrive as they are: what is rounded before it is rounded for who reads them there.
fn moves_to_ranks(op: &Op) -> bool {
    matches!(op, Op::Exchange(ExchangeOp::AllToAll { .. } | ExchangeOp::AllGather { .. }))
}

/// Values that only end up in f32: gradients of parameters on their way to the optimizer, and outputs. A matmul behind
/// them gives its f32 sums as they are.
fn exact_values(graph: &Graph, order: &[NodeId], optimizer: &BTreeSet<NodeId>) -> BTreeSet<Value> {
    let mut exact = BTreeSet::new();
    for id in order.iter().rev() {
        for value in graph.results(*id) {
            let passes_on = |user: NodeId| {
                let op = graph.op(user);
                op.facts().precision == OperandTypes::Wide
                    || optimizer.contains(&user)
                    || ((op.moves_elements() || moves_to_ranks(op) || is_pointwise(op))
                        && exact.contains(&Value { node: user, port: 0 }))
            };
            let users = graph.users(value);
            let is_read = graph.is_result(value) || !users.is_empty();
            if is_read && users.iter().all(|(user, _)| passes_on(*user)) {
                exact.insert(value);
            }
        }
    }
    exact
}

/// The graph that is left behind, and the one that takes its place.
struct Rewrite<'a> {
    old: &'a Graph,
    new: Graph,
    /// The type of what is not f32.
    narrow: DType,
    /// The new value of each old one.
    at: BTreeMap<Value, Value>,
    /// The narrow form of new f32 values.
    narrowed: BTreeMap<Value, Value>,
    /// See [`exact_values`].
    exact: BTreeSet<Value>,
    /// Nodes behind the norm of the gradients.
    optimizer: BTreeSet<NodeId>,
    /// Old values that are between the narrow ones of a pointwise chain.
    chained: BTreeSet<Value>,
    /// Nodes that the loss depends on, if there is a loss.
    forward: Option<BTreeSet<NodeId>>,
}

impl<'a> Rewrite<'a> {
    fn new(old: &'a Graph, order: &[NodeId], loss: &str, narrow: DType) -> Self {
        let optimizer = old.behind_gradients();
        Rewrite {
            old,
            narrow,
            new: Graph::new(old.name.clone()),
            at: BTreeMap::new(),
            narrowed: BTreeMap::new(),
            exact: exact_values(old, order, &optimizer),
            optimizer,
            chained: BTreeSet::new(),
            forward: old.output(loss).map(|loss| old.ancestors(loss.node)),
        }
    }

    /// Appends an old node.
    fn node(&mut self, id: NodeId) -> Result<(), PassError> {
        self.new.set_scope(self.old.node(id).scope.clone());
        let result = Value { node: id, port: 0 };
        let old = self.old.operands(id);
        let mut operands: Vec<Value> = old.iter().map(|v| self.at[v]).collect();
        let mut op = self.old.op(id).clone();
        let is_float = |v: &Value| self.old.ty(*v).dtype.is_float();
        if is_pointwise(&op) && is_float(&result) && old.iter().all(is_float) {
            let value = self.pointwise(result, op, &operands)?;
            self.at.insert(result, value);
            return Ok(());
        }
        if let Op::State { ty, role: StateRole::KeyValueCache, .. } = &mut op {
            ty.dtype = self.narrow;
        }
        if let Op::MatMul { dtype, .. } | Op::Embedding { dtype } = &mut op
            && !self.exact.contains(&result)
            && !self.optimizer.contains(&id)
        {
            *dtype = self.narrow;
        }
        let precision = match self.optimizer.contains(&id) {
            true => OperandTypes::Wide,
            false => op.facts().precision,
        };
        let narrow = match precision {
            OperandTypes::Any => vec![],
            OperandTypes::Narrow(positions) => positions.to_vec(),
            OperandTypes::Alike if operands.iter().any(|v| self.is_narrow(*v)) => {
                (0..operands.len()).collect()
            }
            OperandTypes::Alike => vec![],
            OperandTypes::Wide => {
                for operand in &mut operands {
                    *operand = self.wide(*operand)?;
                }
                vec![]
            }
        };
        for position in narrow {
            operands[position] = self.narrow(operands[position])?;
        }
        let node = self.new.add(op, &operands)?;
        for value in self.old.results(id) {
            self.at.insert(value, Value { node, port: value.port });
        }
        Ok(())
    }

    /// Computes in f32, and rounds what is stored of a chain that reads narrow values.
    fn pointwise(&mut self, result: Value, op: Op, operands: &[Value]) -> Result<Value, PassError> {
        let lowers = operands.iter().any(|v| self.is_narrow(*v))
            || self.old.operands(result.node).iter().any(|v| self.chained.contains(v));
        let operands = operands.iter().map(|v| self.wide(*v)).collect::<Result<Vec<_>, _>>()?;
        let value = self.new.push(op, &operands)?;
        if !lowers {
            return Ok(value);
        }
        if !self.exact.contains(&result) && self.is_stored(result) {
            return self.narrow(value);
        }
        self.chained.insert(result);
        Ok(value)
    }

    /// True if anything but a pointwise operation of the same half of the step reads the value.
    fn is_stored(&self, value: Value) -> bool {
        let in_forward = |id: NodeId| self.forward.as_ref().is_none_or(|forward| forward.contains(&id));
        let stored_for =
            |user: NodeId| !is_pointwise(self.old.op(user)) || (in_forward(value.node) && !in_forward(user));
        self.old.is_result(value) || self.old.users(value).iter().any(|(user, _)| stored_for(*user))
    }

    fn is_narrow(&self, value: Value) -> bool {
        self.new.ty(value).dtype == self.narrow
    }

    /// The value in f32. Each reader has its own cast, which costs nothing where it is fused into the reader.
    fn wide(&mut self, value: Value) -> Result<Value, PassError> {
        if !self.is_narrow(value) {
            return Ok(value);
        }
        Ok(self.new.push(Op::Cast { dtype: DType::F32 }, &[value])?)
    }

    /// The value in the narrow type: rounded once, where it is made; of views and joints, what they are made of.
    fn narrow(&mut self, value: Value) -> Result<Value, PassError> {
        if self.new.ty(value).dtype != DType::F32 {
            return Ok(value);
        }
        if let Some(known) = self.narrowed.get(&value) {
            return Ok(*known);
        }
        let op = self.new.op(value.node).clone();
        let operands = self.new.operands(value.node);
        let mut sources = vec![value];
        if op.moves_elements() {
            sources = operands.into_iter().map(|v| self.narrow(v)).collect::<Result<_, _>>()?;
        }
        let scope = self.new.node(value.node).scope.clone();
        let outer = self.new.set_scope(scope);
        let op = if op.moves_elements() { op } else { Op::Cast { dtype: self.narrow } };
        let narrow = self.new.push(op, &sources)?;
        self.new.set_scope(outer);
        self.narrowed.insert(value, narrow);
        Ok(narrow)
    }
}
