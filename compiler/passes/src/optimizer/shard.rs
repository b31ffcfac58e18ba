//! What each rank does of an optimizer that is shared out (ZeRO-1, arXiv 1910.02054): the gradients of a run of parameters are
//! summed to equal parts, of which each rank updates its own and keeps the states of no other; then the parameters are gathered.
//!
//! Parts are multiples of [`NORM_BLOCK`] elements, so that the sums of squares are those of one rank, and with them the norm is the
//! same bits. Gradients of a run that has no such parts are followed by
//! zeros, and its parameters in memory by room for as many.

use std::cell::Cell;
use std::collections::BTreeMap;

use linc_ir::{
    ExchangeOp, Graph, Group, NORM_BLOCK, NodeId, Op, ParamState, Reduction, StateRole, TensorType, UpdateOp,
    Value,
};

use super::{Scalars, result, split};
use crate::error::PassError;

/// Who shares an optimizer.
#[derive(Clone, Debug)]
pub struct Sharding {
    /// Those that have a part each.
    pub shard: Group,
    /// Those that have the same part.
    pub replicate: Group,
    /// Elements that there is room for behind each parameter.
    pub room: BTreeMap<String, usize>,
    /// The turn of the next exchange.
    pub turn: Cell<usize>,
}

/// The elements of a run that are this rank's.
struct Part {
    /// The first.
    start: usize,
    /// How many there are, with those behind the end of the run.
    len: usize,
    /// How many of them the run has.
    used: usize,
}

impl Sharding {
    /// Elements that a run of parameters is made a multiple of.
    pub fn multiple(&self) -> usize {
        self.shard.size * NORM_BLOCK
    }

    /// A group for the next exchange.
    fn next(&self, group: &Group) -> Group {
        group.in_turn(self.turn.replace(self.turn.get() + 1))
    }

    fn part(&self, numel: usize) -> Part {
        let len = numel.next_multiple_of(self.multiple()) / self.shard.size;
        let start = self.shard.place * len;
        Part { start, len, used: numel.saturating_sub(start).min(len) }
    }

    /// This rank's part of the sum of all ranks' gradients.
    pub(super) fn scatter(&self, graph: &mut Graph, grads: &[Value]) -> Result<Value, PassError> {
        let joined = graph.join(grads)?;
        let numel = graph.ty(joined).shape.numel();
        let whole = graph.extend_with_zeros(joined, numel.next_multiple_of(self.multiple()))?;
        let scatter = ExchangeOp::ReduceScatter { group: self.next(&self.shard) };
        let part = graph.push(scatter.into(), &[whole])?;
        let all = ExchangeOp::AllReduce { group: self.next(&self.replicate), reduction: Reduction::Sum };
        Ok(if self.replicate.size > 1 { graph.push(all.into(), &[part])? } else { part })
    }

    /// The norm of all gradients, from this rank's parts of runs of so many elements.
    pub(super) fn norm(&self, graph: &mut Graph, parts: &[(Value, usize)]) -> Result<Value, PassError> {
        let mut partials = vec![];
        for (part, numel) in parts {
            let norm = graph.add(Op::GlobalNorm, &[*part])?;
            let gather = ExchangeOp::AllGather { group: self.next(&self.shard) };
            let all = graph.push(gather.into(), &[Value { node: norm, port: 1 }])?;
            // Behind them are those of the zeros.
            let len = numel.div_ceil(NORM_BLOCK);
            partials.push(graph.push(Op::Slice { axis: 0, start: 0, len }, &[all])?);
        }
        let partials = graph.join(&partials)?;
        Ok(graph.push(Op::NormFinish, &[partials])?)
    }

    /// Updates this rank's part of a run of parameters, and gathers the others.
    pub(super) fn update(
        &self,
        graph: &mut Graph,
        params: &[NodeId],
        grads: Value,
        update: &UpdateOp,
        scalars: Scalars,
    ) -> Result<(), PassError> {
        let numels: Vec<usize> = params.iter().map(|param| graph.ty(result(*param)).shape.numel()).collect();
        let part = self.part(numels.iter().sum());
        self.check_room(graph, params, part.len * self.shard.size - numels.iter().sum::<usize>())?;
        let mut gathered = vec![];
        if part.used > 0 {
            gathered.push(update_part(graph, params, &part, grads, update, scalars)?);
        }
        if part.used < part.len {
            // Nobody reads what is behind the end of the run. But it is to be there when the step is decided on, as what others gather.
            let shape = [part.len - part.used].into();
            gathered.push(graph.push(Op::Broadcast { shape }, &[scalars.update])?);
        }
        let gather = ExchangeOp::AllGather { group: self.next(&self.shard) };
        let whole = graph.push(gather.into(), &gathered)?;
        split(graph, whole, params)
    }

    fn check_room(&self, graph: &Graph, params: &[NodeId], needed: usize) -> Result<(), PassError> {
        let last = params.last().and_then(|param| graph.op(*param).leaf_name()).unwrap_or_default();
        match self.room.get(last) {
            Some(room) if *room < needed => Err(PassError::Setting(format!(
                "{needed} elements behind {last} are needed to share its group's parameters out to {} ranks, and there is room for {room}: \
                 the parameters of each group of the optimizer must lie together",
                self.shard.size
            ))),
            _ => Ok(()),
        }
    }
}

/// Updates a part of a run, of which there is something; gives its parameters.
fn update_part(
    graph: &mut Graph,
    params: &[NodeId],
    part: &Part,
    grads: Value,
    update: &UpdateOp,
    scalars: Scalars,
) -> Result<Value, PassError> {
    let (start, end) = (part.start, part.start + part.used);
    let mut touched: Vec<(NodeId, usize, usize)> = vec![];
    // Where the first parameter that is touched begins.
    let (mut first, mut offset) = (0, 0);
    for param in params {
        let numel = graph.ty(result(*param)).shape.numel();
        let (from, to) = (start.max(offset), end.min(offset + numel));
        if from < to {
            if touched.is_empty() {
                first = offset;
            }
            touched.push((*param, from - offset, to - from));
        }
        offset += numel;
    }
    let values: Vec<Value> = touched.iter().map(|(param, ..)| result(*param)).collect();
    let joined = graph.join(&values)?;
    let slice = |start: usize| Op::Slice { axis: 0, start, len: part.used };
    let mut operands = vec![graph.push(slice(start - first), &[joined])?, graph.push(slice(0), &[grads])?];
    let mut states = vec![];
    for (state, word) in update.states() {
        let mut leaves = vec![];
        for (param, start, len) in &touched {
            leaves.push(shard_state(graph, *param, *start, *len, *state, word)?);
        }
        let values: Vec<Value> = leaves.iter().map(|leaf| result(*leaf)).collect();
        operands.push(graph.join(&values)?);
        states.push(leaves);
    }
    operands.extend([scalars.lr, scalars.step, scalars.clip, scalars.update]);
    let update = graph.add(Op::Update(update.clone()), &operands)?;
    for (port, leaves) in (1..).zip(states) {
        split(graph, Value { node: update, port }, &leaves)?;
    }
    Ok(result(update))
}

/// A state of `len` elements of a parameter from `start` on.
fn shard_state(
    graph: &mut Graph,
    param: NodeId,
    start: usize,
    len: usize,
    state: ParamState,
    word: &str,
) -> Result<NodeId, PassError> {
    let of = graph.op(param).leaf_name().unwrap_or_default().to_string();
    let (name, ty) = (format!("{of}.{word}"), TensorType::new(graph.ty(result(param)).dtype, [len]));
    Ok(graph.add(Op::State { name, ty, role: StateRole::OfShard { state, of, start } }, &[])?)
}
