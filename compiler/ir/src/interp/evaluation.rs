//! One graph while it is evaluated: up to where it needs other ranks, and on from there.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::tensor::{Real, Tensor};
use super::{Bindings, Results, eval_typed};
use crate::error::IrError;
use crate::exchange::ExchangeOp;
use crate::graph::{Graph, NodeId, Value};
use crate::op::Op;
use crate::types::TensorType;
use crate::verify::verify;

pub(super) struct Evaluation<'a, T: Clone> {
    graph: &'a Graph,
    bindings: &'a Bindings<T>,
    order: Vec<NodeId>,
    /// How many nodes of the order are evaluated.
    done: usize,
    /// Who is still going to read each value.
    readers: BTreeMap<Value, usize>,
    values: BTreeMap<Value, Cow<'a, Tensor<T>>>,
    keep: bool,
}

/// A node that waits for the same of other ranks.
pub(super) struct Meeting<'a, T> {
    pub(super) op: &'a ExchangeOp,
    pub(super) operands: Vec<&'a Tensor<T>>,
}

impl<'a, T: Real> Evaluation<'a, T> {
    /// Nothing of a graph is evaluated. With `keep`, values stay when nobody reads them any more.
    ///
    /// # Errors
    /// As [`verify`].
    pub(super) fn new(graph: &'a Graph, bindings: &'a Bindings<T>, keep: bool) -> Result<Self, IrError> {
        verify(graph)?;
        let order = graph.topological()?;
        let readers = readers(graph, &order);
        Ok(Evaluation { graph, bindings, order, done: 0, readers, values: BTreeMap::new(), keep })
    }

    /// Evaluates nodes up to the end, or the first that needs other ranks.
    ///
    /// # Errors
    /// As [`super::run`].
    pub(super) fn advance(&mut self) -> Result<(), IrError> {
        while let Some(id) = self.order.get(self.done).copied() {
            if self.meeting().is_some() {
                return Ok(());
            }
            let node = self.graph.node(id);
            let results = match node.op.leaf_name().and_then(|name| self.bindings.get_key_value(name)) {
                Some((name, tensor)) => vec![bound(name, tensor, &node.types[0])?],
                None => {
                    let operands = self.graph.operands(id);
                    let operands: Vec<&Tensor<T>> = operands.iter().map(|v| &*self.values[v]).collect();
                    eval_typed(&node.op, &operands, &node.types)?.into_iter().map(Cow::Owned).collect()
                }
            };
            self.finish(results);
        }
        Ok(())
    }

    /// What the next node waits for, if it is an exchange with others.
    pub(super) fn meeting(&self) -> Option<Meeting<'_, T>> {
        let id = *self.order.get(self.done)?;
        let Op::Exchange(op) = self.graph.op(id) else { return None };
        op.group().filter(|group| group.size > 1)?;
        let operands = self.graph.operands(id).iter().map(|v| &*self.values[v]).collect();
        Some(Meeting { op, operands })
    }

    /// Gives the next node, an exchange, its result.
    pub(super) fn receive(&mut self, result: Tensor<T>) {
        self.finish(vec![Cow::Owned(result)]);
    }

    fn finish(&mut self, results: Vec<Cow<'a, Tensor<T>>>) {
        let id = self.order[self.done];
        self.done += 1;
        self.values.extend(self.graph.results(id).zip(results));
        // Drop what nobody reads any more, to run larger graphs in little memory.
        for value in self.graph.operands(id).into_iter().chain(self.graph.results(id)) {
            let left = self.readers.entry(value).or_default();
            *left = left.saturating_sub(usize::from(value.node != id));
            if *left == 0 && !self.keep {
                self.values.remove(&value);
            }
        }
    }

    /// What was computed, when all nodes are evaluated.
    pub(super) fn results(self) -> Results<T> {
        let Evaluation { graph, values, keep, .. } = self;
        let outputs =
            graph.outputs.iter().map(|(name, v)| (name.clone(), values[v].clone().into_owned())).collect();
        let name = |leaf: NodeId| graph.op(leaf).leaf_name().unwrap_or_default().to_string();
        let updates =
            graph.updates.iter().map(|(leaf, v)| (name(*leaf), values[v].clone().into_owned())).collect();
        let values = if keep {
            values.into_iter().map(|(v, x)| (v, x.into_owned())).collect()
        } else {
            BTreeMap::new()
        };
        Results { outputs, updates, values }
    }
}

/// How often each value is read, by nodes, outputs and updates.
fn readers(graph: &Graph, order: &[NodeId]) -> BTreeMap<Value, usize> {
    let mut readers = BTreeMap::new();
    let by_nodes = order.iter().flat_map(|id| graph.operands(*id));
    let results = graph.outputs.iter().map(|(_, v)| *v).chain(graph.updates.iter().map(|(_, v)| *v));
    for value in by_nodes.chain(results) {
        *readers.entry(value).or_default() += 1;
    }
    readers
}

/// The binding of a leaf, checked and rounded to its element type.
fn bound<'a, T: Real>(
    name: &str,
    tensor: &'a Tensor<T>,
    ty: &TensorType,
) -> Result<Cow<'a, Tensor<T>>, IrError> {
    match tensor.mismatch(ty) {
        Some(message) => Err(IrError::Input { name: name.into(), message }),
        None if ty.dtype.is_narrow() => Ok(Cow::Owned(tensor.clone().rounded(ty.dtype))),
        None => Ok(Cow::Borrowed(tensor)),
    }
}
