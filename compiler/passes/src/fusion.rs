//! Pointwise fusion: connected pointwise operations of one shape become one region with one sweep over memory.
//!
//! A node joins the regions of its producers if the union stays convex (no path leaves it and comes back). The steps
//! keep their order and types, so results stay bitwise. Constants become steps, broadcasts become strided reads.

use std::collections::{BTreeMap, BTreeSet};

use linc_ir::layout::{Layout, as_matrix, broadcast_strides};
use linc_ir::{Class, Graph, NodeId, Op, PointOp, Pointwise, Shape, Value};

use crate::error::PassError;

/// A region larger than this would not stay in registers.
const MAX_STEPS: usize = 48;
/// Nor would one with more operands.
const MAX_OPERANDS: usize = 12;

/// Fuses everything that can be.
///
/// # Errors
/// [`PassError::Ir`] on a malformed graph.
pub fn run(graph: &mut Graph) -> Result<(), PassError> {
    let order = graph.topological()?;
    let position: BTreeMap<NodeId, usize> = order.iter().enumerate().map(|(i, id)| (*id, i)).collect();
    let mut regions = Regions { of: BTreeMap::new(), all: BTreeMap::new(), ends: vec![0; order.len() + 1] };
    for id in &order {
        if !is_pointwise(graph, *id) {
            continue;
        }
        regions.start(*id, position[id]);
        if widens_for_one(graph, *id) {
            continue;
        }
        for producer in graph.operands(*id) {
            regions.try_join(graph, &position, producer.node, *id);
            // The cast brings what it widens, or, if it was too much for the reader's region, goes there.
            if widens_for_one(graph, producer.node) {
                regions.try_join(graph, &position, graph.operands(producer.node)[0].node, producer.node);
            }
        }
    }
    for region in regions.all.into_values() {
        fuse(graph, &region.members, &position)?;
    }
    Ok(())
}

fn is_pointwise(graph: &Graph, id: NodeId) -> bool {
    let op = graph.op(id);
    let casts_integers = matches!(op, Op::Cast { .. }) && !graph.ty(graph.operands(id)[0]).dtype.is_float();
    op.facts().class == Class::Pointwise && !casts_integers
}

/// A cast to a wider type that one pointwise operation reads. It belongs to its reader: in the region of what it reads
/// it would, where the two are apart, be stored beside the narrow value that says the same in fewer bytes.
fn widens_for_one(graph: &Graph, id: NodeId) -> bool {
    let value = Value { node: id, port: 0 };
    let widens = |from: Value| graph.ty(from).dtype.bytes() < graph.ty(value).dtype.bytes();
    let (Op::Cast { .. }, [(reader, _)]) = (graph.op(id), &graph.users(value)[..]) else { return false };
    widens(graph.operands(id)[0])
        && !graph.is_result(value)
        && is_pointwise(graph, *reader)
        && shape(graph, *reader) == shape(graph, id)
}

fn shape(graph: &Graph, id: NodeId) -> &Shape {
    &graph.ty(Value { node: id, port: 0 }).shape
}

struct Region {
    members: BTreeSet<NodeId>,
    /// Positions of the first and the last member.
    span: (usize, usize),
}

struct Regions {
    /// The name of each node's region.
    of: BTreeMap<NodeId, NodeId>,
    /// Regions by name, which is one of their nodes.
    all: BTreeMap<NodeId, Region>,
    /// The last positions of regions by their first, as maxima of a Fenwick tree. A region that was joined to another stays
    /// noted: the other reaches as far, and begins no later.
    ends: Vec<usize>,
}

impl Regions {
    fn start(&mut self, id: NodeId, position: usize) {
        self.of.insert(id, id);
        self.all.insert(id, Region { members: BTreeSet::from([id]), span: (position, position) });
        self.note((position, position));
    }

    fn note(&mut self, (first, last): (usize, usize)) {
        let mut at = first + 1;
        while at < self.ends.len() {
            self.ends[at] = self.ends[at].max(last);
            at += at & at.wrapping_neg();
        }
    }

    /// The last position of the regions that begin before `position`.
    fn reach(&self, position: usize) -> usize {
        let (mut at, mut reach) = (position, 0);
        while at > 0 {
            reach = reach.max(self.ends[at]);
            at &= at - 1;
        }
        reach
    }

    /// The nodes that are fused with a node, itself included.
    fn with(&self, id: NodeId) -> Vec<NodeId> {
        match self.of.get(&id) {
            Some(region) => self.all[region].members.iter().copied().collect(),
            None => vec![id],
        }
    }

    /// The position behind which no way leads back before `last`, whatever regions it goes through.
    fn horizon(&self, last: usize) -> usize {
        let mut horizon = last;
        loop {
            let reach = self.reach(horizon);
            if reach <= horizon {
                return horizon;
            }
            horizon = reach;
        }
    }

    fn try_join(&mut self, graph: &Graph, position: &BTreeMap<NodeId, usize>, producer: NodeId, id: NodeId) {
        let (Some(a), Some(b)) = (self.of.get(&producer).copied(), self.of.get(&id).copied()) else { return };
        if a == b || shape(graph, producer) != shape(graph, id) {
            return;
        }
        let (left, right) = (&self.all[&a], &self.all[&b]);
        let union: BTreeSet<NodeId> = left.members.union(&right.members).copied().collect();
        if union.len() > MAX_STEPS || operands_of(graph, &union).len() > MAX_OPERANDS {
            return;
        }
        if !is_convex(graph, position, self, &union) || !splits(graph, &union) {
            return;
        }
        let span = (left.span.0.min(right.span.0), left.span.1.max(right.span.1));
        for member in &right.members {
            self.of.insert(*member, a);
        }
        self.all.remove(&b);
        self.all.insert(a, Region { members: union, span });
        self.note(span);
    }
}

/// No path leaves the set and comes back. Regions that were formed before count as one node each, since they will be:
/// otherwise two regions could come to wait for each other.
fn is_convex(
    graph: &Graph,
    position: &BTreeMap<NodeId, usize>,
    regions: &Regions,
    set: &BTreeSet<NodeId>,
) -> bool {
    let last = set.iter().map(|id| position[id]).max().unwrap_or(0);
    let horizon = regions.horizon(last);
    let users =
        |id: NodeId| graph.results(id).flat_map(|v| graph.users(v)).map(|(user, _)| user).collect::<Vec<_>>();
    let mut stack: Vec<NodeId> = set.iter().flat_map(|id| users(*id)).filter(|u| !set.contains(u)).collect();
    let mut visited = BTreeSet::new();
    while let Some(id) = stack.pop() {
        if set.contains(&id) {
            return false;
        }
        if !visited.insert(id) {
            continue;
        }
        for member in regions.with(id) {
            visited.insert(member);
            // What comes after the horizon cannot lead back into the set.
            if position.get(&member).is_some_and(|p| *p < horizon) {
                stack.extend(users(member));
            }
        }
    }
    true
}

/// What a region reads from outside, with broadcasts looked through.
fn operands_of(graph: &Graph, set: &BTreeSet<NodeId>) -> BTreeSet<Value> {
    set.iter()
        .flat_map(|id| graph.operands(*id))
        .filter(|v| !set.contains(&v.node) && !matches!(graph.op(v.node), Op::Constant { .. }))
        .map(|v| source(graph, v))
        .collect()
}

/// The operand behind a broadcast.
fn source(graph: &Graph, value: Value) -> Value {
    match graph.op(value.node) {
        Op::Broadcast { .. } => graph.operands(value.node)[0],
        _ => value,
    }
}

/// True if one split into rows and columns serves all operands.
fn splits(graph: &Graph, set: &BTreeSet<NodeId>) -> bool {
    let Some(first) = set.first() else { return false };
    let region = shape(graph, *first);
    let strides: Vec<Vec<usize>> = operands_of(graph, set)
        .iter()
        .map(|v| {
            let from = &graph.ty(*v).shape;
            broadcast_strides(&Layout::dense(from), from, region)
        })
        .collect();
    as_matrix(region, &strides).is_some()
}

/// Appends a step, unless the region has it: readers of one value each widen it.
fn push_once(region: &mut Pointwise, step: PointOp) -> usize {
    let casts = matches!(step, PointOp::Cast(..));
    if let Some(known) = region.steps.iter().position(|s| casts && *s == step) {
        return known;
    }
    region.steps.push(step);
    region.steps.len() - 1
}

/// Replaces the members by one fused node in the place of the last member, which keeps the program order.
fn fuse(
    graph: &mut Graph,
    members: &BTreeSet<NodeId>,
    position: &BTreeMap<NodeId, usize>,
) -> Result<(), PassError> {
    let mut order: Vec<NodeId> = members.iter().copied().collect();
    order.sort_by_key(|id| position[id]);
    let reads_more = |id: &NodeId| {
        let rewritten = |v: &Value| matches!(graph.op(v.node), Op::Constant { .. } | Op::Broadcast { .. });
        graph.operands(*id).iter().any(rewritten)
    };
    if order.len() == 1 && !(reads_more(&order[0]) && splits(graph, members)) {
        return Ok(());
    }
    let Some(last) = order.last().copied() else { return Ok(()) };
    let mut region = Pointwise { shape: shape(graph, last).clone(), steps: vec![], outputs: vec![] };
    let mut operands: Vec<Value> = vec![];
    let mut step_of: BTreeMap<Value, usize> = BTreeMap::new();
    for id in &order {
        let mut args = vec![];
        for operand in graph.operands(*id) {
            args.push(match step_of.get(&operand) {
                Some(step) => *step,
                None => {
                    let step = match graph.op(operand.node) {
                        Op::Constant { value, .. } => PointOp::Const(*value),
                        _ => {
                            let from = source(graph, operand);
                            let index = operands.iter().position(|v| *v == from).unwrap_or_else(|| {
                                operands.push(from);
                                operands.len() - 1
                            });
                            PointOp::Input(index)
                        }
                    };
                    region.steps.push(step);
                    step_of.insert(operand, region.steps.len() - 1);
                    region.steps.len() - 1
                }
            });
        }
        let value = Value { node: *id, port: 0 };
        let step = push_once(&mut region, graph.op(*id).step(&args).expect("a pointwise operation"));
        // Steps compute in f32: what a node rounds, the region rounds.
        let dtype = graph.ty(value).dtype;
        let rounds = dtype.is_narrow() && !matches!(graph.op(*id), Op::Cast { .. });
        let step = if rounds { push_once(&mut region, PointOp::Cast(dtype, step)) } else { step };
        step_of.insert(value, step);
    }
    let mut results = vec![];
    for id in &order {
        let value = Value { node: *id, port: 0 };
        if graph.is_result(value) || graph.users(value).iter().any(|(user, _)| !members.contains(user)) {
            region.outputs.push((step_of[&value], graph.ty(value).dtype));
            results.push(value);
        }
    }
    let recompute = order.iter().all(|id| graph.node(*id).recompute);
    let outer = graph.set_scope(graph.node(last).scope.clone());
    let fused = graph.add(Op::Fused(region), &operands)?;
    graph.set_scope(outer);
    graph.node_mut(fused).recompute = recompute;
    for (port, value) in results.iter().enumerate() {
        graph.replace_uses(*value, Value { node: fused, port: port as u32 });
    }
    for id in order.iter().rev() {
        graph.remove(*id);
    }
    Ok(())
}
