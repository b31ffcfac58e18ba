//! From the model of whole batches to the model of some of their tokens, for decoding: every tensor that has positions of the
//! sequence along an axis gets fewer of them, if each position is computed from itself alone but for what attention does,
//! and every tensor that has sequences of the batch along an axis gets as many as are decoded at once.
//!
//! The graph that comes in is built for batches as in training, so whatever the text computes from their shape is what it
//! was in training. An operation that mixes positions outside of attention, or sequences, has no meaning for one token; it is
//! refused with its node. What is no result of the tokens keeps its shape, and where it meets positions it is either the
//! same for all of them, or a table with a row per position, of which the rows of the tokens at hand are looked up: learned
//! positions.

mod axis;
mod documents;
mod rows;

use std::collections::BTreeMap;

use linc_ir::{Graph, NodeId, Op, TableKind, TensorType, Value};

use self::axis::Axis;
use crate::error::PassError;

/// Name of the position input: i32 `[1]`, number of tokens before this one, or before the first of a block.
pub const POSITION: &str = "position";

/// Name of the input of a block of a prompt that has tables of positions: i32 `[N]`, the position of each token, below
/// [`Part::longest`]; of tokens that do not exist, any.
///
/// As well, of a program that keeps the documents of a sequence apart: i32 `[B, N]`, the position of each token in its document.
pub const POSITIONS: &str = "positions";

pub use documents::keep_apart;

/// A model for a part of the batches that it was built for.
#[derive(Clone, Debug)]
pub struct Part {
    /// Attention is abstract.
    pub graph: Graph,
    /// The node of the graph that came in which each node stands for.
    pub sources: BTreeMap<NodeId, NodeId>,
    /// Tokens that a sequence can have: rows of its tables of positions. None if it has no such table.
    pub longest: Option<usize>,
}

/// Makes the graph of a whole model, built for sequences of at least two tokens, one for `tokens` tokens of them, with rotary
/// tables for `context` positions.
///
/// # Errors
/// [`PassError::MixesPositions`] with the node of `built` for which there is no such graph.
pub fn run(built: &Graph, tokens: usize, context: usize) -> Result<Part, PassError> {
    rewrite(built, Along::Sequence { context }, tokens)
}

/// Makes the graph of a whole model, built for batches of at least two sequences, one for `batch` sequences.
///
/// # Errors
/// As [`run`].
pub fn sequences(built: &Graph, batch: usize) -> Result<Part, PassError> {
    rewrite(built, Along::Batch, batch)
}

fn rewrite(built: &Graph, along: Along, count: usize) -> Result<Part, PassError> {
    let input = |id: &NodeId| matches!(built.op(*id), Op::Input { ty, .. } if ty.shape.rank() == 2);
    let Some(input) = built.nodes().find(input) else {
        return Err(PassError::Missing("the model has no input of tokens".into()));
    };
    let (batch, seq) = match built.ty(Value { node: input, port: 0 }).shape.dims() {
        [batch, seq] => (*batch, *seq),
        _ => return Err(PassError::Missing("the input of tokens is no batch of sequences".into())),
    };
    let mut rewrite = Rewrite {
        built,
        along,
        size: if along == Along::Batch { batch } else { seq },
        count,
        new: Graph::new(built.name.clone()),
        at: BTreeMap::new(),
        rows: BTreeMap::new(),
        sources: BTreeMap::new(),
        positions: None,
    };
    for id in built.topological()? {
        rewrite.node(id)?;
    }
    for (name, value) in &built.outputs {
        // [batch, seq, vocab] or [batch * seq, vocab].
        let wanted = match (along, built.ty(*value).shape.rank()) {
            (Along::Sequence { .. }, 2) => Axis { axis: 0, outer: batch, inner: 1 },
            (Along::Batch, 2) => Axis { axis: 0, outer: 1, inner: seq },
            (along, _) => Axis::plain(along.axis()),
        };
        let result = rewrite.along(value.node, *value, wanted)?;
        rewrite.new.outputs.push((name.clone(), result));
    }
    let longest = rewrite.positions.map(|_| seq);
    Ok(Part { graph: rewrite.new, sources: rewrite.sources, longest })
}

/// The axis of the tokens that is cut down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Along {
    Batch,
    Sequence { context: usize },
}

impl Along {
    /// Of tokens, and of queries, keys and values.
    fn axis(self) -> usize {
        match self {
            Along::Batch => 0,
            Along::Sequence { .. } => 1,
        }
    }

    /// What lies along it, for people.
    fn items(self) -> &'static str {
        match self {
            Along::Batch => "sequences of the batch",
            Along::Sequence { .. } => "positions of the sequence",
        }
    }
}

struct Rewrite<'a> {
    built: &'a Graph,
    along: Along,
    /// Positions (or sequences) in the graph that came in, and in the new one.
    size: usize,
    count: usize,
    new: Graph,
    /// The new value of each old one with the axis of its positions; without one it is as it was.
    at: BTreeMap<Value, (Value, Option<Axis>)>,
    /// New values with the rows of the tokens at hand, of old ones without positions.
    rows: BTreeMap<(Value, Axis), Value>,
    /// The old node of each new one.
    sources: BTreeMap<NodeId, NodeId>,
    /// The input of positions.
    positions: Option<Value>,
}

impl Rewrite<'_> {
    fn node(&mut self, id: NodeId) -> Result<(), PassError> {
        self.new.set_scope(self.built.node(id).scope.clone());
        let operands = self.built.operands(id);
        let (op, operands, axis) = self.rewritten(id, &operands)?;
        let value = self.new.push(op, &operands)?;
        self.sources.insert(value.node, id);
        self.at.insert(Value { node: id, port: 0 }, (value, axis));
        Ok(())
    }

    /// The operation for fewer positions, its operands in the new graph, and where its result has positions.
    fn rewritten(
        &mut self,
        id: NodeId,
        operands: &[Value],
    ) -> Result<(Op, Vec<Value>, Option<Axis>), PassError> {
        let op = self.built.op(id).clone();
        let axis_of = |this: &Self, operand: usize| this.at[&operands[operand]].1;
        let shape = |this: &Self, operand: usize| this.built.ty(operands[operand]).shape.clone();
        let plain = |this: &Self| operands.iter().map(|v| this.at[v].0).collect::<Vec<Value>>();
        // Rotary tables are no result of tokens, but as long as the sequences are.
        if let (Along::Sequence { context }, Op::Table { name, ty, kind: kind @ TableKind::Rope { .. } }) =
            (self.along, &op)
        {
            let shape = Axis::plain(0).scaled(&ty.shape, context);
            let ty = TensorType::new(ty.dtype, shape);
            return Ok((Op::Table { name: name.clone(), ty, kind: kind.clone() }, vec![], None));
        }
        if let Op::Input { name, ty } = &op {
            let axis = Axis::plain(self.along.axis());
            let ty = TensorType::new(ty.dtype, axis.scaled(&ty.shape, self.count));
            return Ok((Op::Input { name: name.clone(), ty }, vec![], Some(axis)));
        }
        let Some(axis) = (0..operands.len()).find_map(|i| axis_of(self, i)) else {
            return Ok((op, plain(self), None));
        };
        let elsewhere = |this: &Self, message: &str| Err(this.mixes(id, message));
        match &op {
            Op::Unary(_) | Op::Cast { .. } => Ok((op, plain(self), Some(axis))),
            Op::Binary(_) => {
                let operands = self.all_along(id, operands, axis)?;
                Ok((op, operands, Some(axis)))
            }
            Op::Broadcast { shape: target } => {
                let from = shape(self, 0);
                let to = axis.at(axis.axis + target.rank() - from.rank());
                if target.0[to.axis] != from.0[axis.axis] {
                    return elsewhere(self, "repeats one of the");
                }
                let shape = to.scaled(target, self.count);
                Ok((Op::Broadcast { shape }, plain(self), Some(to)))
            }
            Op::Sum { axes, keep } => {
                if axes.contains(&axis.axis) {
                    return elsewhere(self, "adds up");
                }
                let gone = if *keep { 0 } else { axes.iter().filter(|a| **a < axis.axis).count() };
                Ok((op, plain(self), Some(axis.at(axis.axis - gone))))
            }
            Op::Reshape { shape: target } => {
                let Some(to) = axis.reshaped(&shape(self, 0), target, self.size) else {
                    return elsewhere(self, "tears apart the");
                };
                let shape = to.scaled(target, self.count);
                Ok((Op::Reshape { shape }, plain(self), Some(to)))
            }
            Op::Transpose { perm } => {
                let to = perm.iter().position(|from| *from == axis.axis).unwrap_or(axis.axis);
                Ok((op, plain(self), Some(axis.at(to))))
            }
            Op::Slice { axis: along, start, len } if *along == axis.axis => {
                if (*start, *len) != (0, shape(self, 0).0[*along]) {
                    return elsewhere(self, "picks");
                }
                let len = axis.scaled(&shape(self, 0), self.count).0[*along];
                Ok((Op::Slice { axis: *along, start: 0, len }, plain(self), Some(axis)))
            }
            Op::Slice { .. } => Ok((op, plain(self), Some(axis))),
            Op::Pad { axis: along, .. } => {
                if *along == axis.axis {
                    return elsewhere(self, "moves");
                }
                Ok((op, plain(self), Some(axis)))
            }
            Op::Concat { axis: along } => {
                if *along == axis.axis && operands.len() > 1 {
                    return elsewhere(self, "joins");
                }
                let operands = self.all_along(id, operands, axis)?;
                Ok((op, operands, Some(axis)))
            }
            Op::MatMul { trans_a, trans_b, .. } => {
                let (rows, columns) = (usize::from(*trans_a), usize::from(!*trans_b));
                let to = match (axis_of(self, 0), axis_of(self, 1)) {
                    (Some(a), None) if a.axis == rows => a.at(0),
                    (None, Some(b)) if b.axis == columns => b.at(1),
                    (Some(_), Some(_)) => return elsewhere(self, "combines different"),
                    _ => return elsewhere(self, "adds up products over"),
                };
                Ok((op, plain(self), Some(to)))
            }
            Op::RmsNorm { .. } => {
                let norm = axis.axis + 1 < shape(self, 0).rank();
                if !norm || axis_of(self, 0) != Some(axis) || axis_of(self, 1).is_some() {
                    return elsewhere(self, "takes the norm over");
                }
                Ok((op, plain(self), Some(axis)))
            }
            Op::Embedding { .. } => {
                if axis_of(self, 0).is_some() {
                    return elsewhere(self, "looks up rows that depend on");
                }
                Ok((op, plain(self), Some(axis)))
            }
            Op::Attention(spec) => {
                if self.along != Along::Batch && !spec.causal {
                    let message =
                        "this attention is not causal: it reads tokens that are not there yet".into();
                    return Err(PassError::MixesPositions { node: id, message });
                }
                if axis != Axis::plain(self.along.axis()) {
                    return elsewhere(self, "attention has in another axis the");
                }
                let mut qkv = self.all_along(id, &operands[..3], axis)?;
                qkv.extend(operands[3..].iter().map(|table| self.at[table].0));
                Ok((op, qkv, Some(axis)))
            }
            Op::Input { .. }
            | Op::Param { .. }
            | Op::State { .. }
            | Op::Table { .. }
            | Op::Constant { .. }
            | Op::Fused(_)
            | Op::RmsNormGrad { .. }
            | Op::Rope { .. }
            | Op::EmbeddingGrad { .. }
            | Op::AttentionGrad(_)
            | Op::Kind(_)
            | Op::CrossEntropy
            | Op::CrossEntropyGrad
            | Op::LogProbs
            | Op::LinearLogProbs { .. }
            | Op::LinearCrossEntropy { .. }
            | Op::LinearCrossEntropyGrad { .. }
            | Op::GlobalNorm
            | Op::NormFinish
            | Op::Update(_)
            | Op::Exchange(_) => {
                Err(PassError::Missing(format!("internal error: {} in a model as it was built", op.name())))
            }
        }
    }

    fn mixes(&self, node: NodeId, what: &str) -> PassError {
        PassError::MixesPositions { node, message: format!("this {what} {}", self.along.items()) }
    }

    fn all_along(&mut self, id: NodeId, values: &[Value], axis: Axis) -> Result<Vec<Value>, PassError> {
        values.iter().map(|value| self.along(id, *value, axis)).collect()
    }

    /// The new form of an old value that a node reads along an axis of positions.
    fn along(&mut self, reader: NodeId, value: Value, axis: Axis) -> Result<Value, PassError> {
        match self.at[&value] {
            (new, Some(found)) if found == axis => Ok(new),
            (_, Some(_)) => Err(self.mixes(reader, "combines different")),
            (_, None) => self.rows(value, axis),
        }
    }
}
