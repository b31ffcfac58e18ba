//! Aliasing: which values share storage: views, parts of a concat, and results written over an operand.

use std::collections::{BTreeMap, BTreeSet};

use linc_ir::layout::{Layout, Storage};
use linc_ir::{Class, Graph, NodeId, Op, Overwrites, Shape, Strides, TensorType, Value};

use super::{PersistentLayout, joins, rules};
use crate::error::PassError;

/// Storage of every value.
pub(super) type Storages = BTreeMap<Value, Storage>;

/// Resolves all aliases; inserts explicit copies where an operation cannot read an operand as it lies.
pub(super) fn resolve(
    graph: &mut Graph,
    persistent: &PersistentLayout,
    overlap: bool,
) -> Result<(Vec<NodeId>, Storages), PassError> {
    loop {
        let order = crate::schedule::run(graph, overlap)?;
        let storages = assign(graph, &order, persistent);
        let mut unreadable = unreadable_operands(graph, &order, &storages);
        unreadable.extend(joins::find(graph, &order, &storages).err().unwrap_or_default());
        let views = scattered_outputs(graph, &storages);
        if unreadable.is_empty() && views.is_empty() {
            return Ok((order, storages));
        }
        for value in views {
            let copy = graph.copy(value)?;
            graph.outputs.replace(value, copy);
        }
        for (node, operand) in unreadable {
            let value = graph.operands(node)[operand];
            let scope = graph.set_scope(graph.node(node).scope.clone());
            let copy = graph.copy(value)?;
            graph.set_scope(scope);
            graph.set_operand(node, operand, copy);
        }
    }
}

fn assign(graph: &Graph, order: &[NodeId], persistent: &PersistentLayout) -> Storages {
    let placed = place_concat_parts(graph, order, persistent);
    let mut storages = Storages::new();
    for id in order {
        let operands = graph.operands(*id);
        let overwrites = graph.op(*id).facts().overwrites;
        for value in graph.results(*id) {
            let shape = &graph.ty(value).shape;
            let own = Storage { root: value, layout: Layout::dense(shape) };
            let storage = if let Some(leaf) = overwritten_leaf(graph, &operands, value, &storages) {
                leaf
            } else if let Some(place) = placed.get(&value) {
                place.clone()
            } else if overwrites == Overwrites::OwnedOperand
                && value.port == 0
                && owns_its_part(graph, operands[0])
            {
                storages[&operands[0]].clone()
            } else if let Some((_, operand)) =
                overwrites.always().iter().find(|(port, _)| *port == value.port)
            {
                storages[&operands[*operand]].clone()
            } else {
                view_of(graph, *id, &operands, &storages).unwrap_or(own)
            };
            storages.insert(value, storage);
        }
    }
    storages
}

/// The storage of the leaf that a pointwise result updates: every operand there is read element by element where the
/// result is written, and the schedule puts all other readers before.
fn overwritten_leaf(graph: &Graph, operands: &[Value], value: Value, storages: &Storages) -> Option<Storage> {
    if graph.op(value.node).facts().overwrites != Overwrites::Elementwise {
        return None;
    }
    let leaf = graph.updates.keys_of(value).next()?;
    let leaf = &storages[&Value { node: *leaf, port: 0 }];
    let same_place = |v: &Value| {
        let place = &storages[v];
        place.root != leaf.root || (place == leaf && graph.ty(*v) == graph.ty(value))
    };
    operands.iter().all(same_place).then(|| leaf.clone())
}

/// True if a value is read once, and is its producer's whole result or a part of it that no other part overlaps.
fn owns_its_part(graph: &Graph, mut value: Value) -> bool {
    loop {
        if graph.users(value).len() != 1
            || graph.is_result(value)
            || graph.op(value.node).leaf_name().is_some()
        {
            return false;
        }
        let operands = graph.operands(value.node);
        match graph.op(value.node) {
            Op::Reshape { .. } => value = operands[0],
            Op::Slice { axis, start, len } => {
                let apart = |(user, _): &(NodeId, usize)| match graph.op(*user) {
                    Op::Slice { axis: a, start: s, len: l } => {
                        *user == value.node || (a == axis && (s + l <= *start || start + len <= *s))
                    }
                    _ => false,
                };
                let whole = operands[0];
                return matches!(graph.op(whole.node), Op::MatMul { .. })
                    && !graph.is_result(whole)
                    && graph.users(whole).iter().all(apart);
            }
            Op::MatMul { .. } => return true,
            _ => return false,
        }
    }
}

/// Storage of a view's result inside its operand's, if no copy is needed.
fn view_of(graph: &Graph, id: NodeId, operands: &[Value], storages: &Storages) -> Option<Storage> {
    let source = storages.get(operands.first()?)?;
    let from = &graph.ty(operands[0]).shape;
    let layout = match graph.op(id) {
        Op::Reshape { shape } => source.layout.reshape(from, shape)?,
        Op::Slice { axis, start, .. } => source.layout.slice(*axis, *start),
        Op::Transpose { perm } => source.layout.transpose(perm),
        _ => return None,
    };
    Some(Storage { root: source.root, layout })
}

/// Leaves that lie side by side as a concat wants them: the first of a range stands for all of it. Ranges of several concats may
/// lie within each other or overlap, as those that matmuls read and those that the optimizer updates do; they are one.
fn place_joined_leaves(graph: &Graph, order: &[NodeId], persistent: &PersistentLayout) -> Storages {
    let joined_leaves = |id: &NodeId| {
        matches!(graph.op(*id), Op::Concat { axis: 0 }).then(|| leaves(graph, *id, persistent)).flatten()
    };
    let mut concats: Vec<(NodeId, Vec<Value>)> =
        order.iter().filter_map(|id| Some((*id, joined_leaves(id)?))).collect();
    concats.extend(order.iter().filter_map(|id| Some((*id, updated_leaves(graph, *id, persistent)?))));
    let start = |leaf: Value| graph.op(leaf.node).leaf_name().and_then(|name| persistent.offset(name));
    let joined = concats.iter().flat_map(|(_, leaves)| leaves);
    let by_place: BTreeMap<Option<u64>, Value> = joined.map(|leaf| (start(*leaf), *leaf)).collect();
    let continues: BTreeSet<Value> =
        concats.iter().flat_map(|(_, leaves)| leaves.iter().skip(1).copied()).collect();
    let mut placed = Storages::new();
    let mut range: Option<(Value, usize)> = None;
    for leaf in by_place.into_values() {
        let (root, offset) = range.filter(|_| continues.contains(&leaf)).unwrap_or((leaf, 0));
        let TensorType { shape, .. } = graph.ty(leaf);
        placed.insert(leaf, Storage { root, layout: Layout { offset, strides: shape.strides() } });
        range = Some((root, offset + shape.numel()));
    }
    for (id, leaves) in concats {
        let joined = Value { node: id, port: 0 };
        let first = &placed[&leaves[0]];
        let (root, offset) = (first.root, first.layout.offset);
        let strides = graph.ty(joined).shape.strides();
        placed.insert(joined, Storage { root, layout: Layout { offset, strides } });
    }
    placed
}

/// The leaves behind the parts of a concat, if all are leaves that lie in this order without gaps.
fn leaves(graph: &Graph, concat: NodeId, persistent: &PersistentLayout) -> Option<Vec<Value>> {
    let mut end = None;
    let (mut found, mut seen) = (vec![], BTreeSet::new());
    for mut part in graph.operands(concat) {
        while matches!(graph.op(part.node), Op::Reshape { .. }) {
            part = graph.operands(part.node)[0];
        }
        let offset = persistent.offset(graph.op(part.node).leaf_name()?)?;
        if end.is_some_and(|end| end != offset) || !seen.insert(part) {
            return None;
        }
        end = Some(offset + graph.ty(part).bytes() as u64);
        found.push(part);
    }
    Some(found)
}

/// The leaves that parts of a result update, if the operation may write it there and they lie as the parts do in it.
fn updated_leaves(graph: &Graph, id: NodeId, persistent: &PersistentLayout) -> Option<Vec<Value>> {
    if graph.op(id).facts().overwrites != Overwrites::UpdatedLeaves {
        return None;
    }
    let whole = Value { node: id, port: 0 };
    let mut parts: Vec<(usize, Value)> = vec![];
    for (leaf, value) in &graph.updates {
        if let Some(start) = start_in(graph, *value, whole) {
            parts.push((start, Value { node: *leaf, port: 0 }));
        }
    }
    parts.sort_unstable();
    let mut end = 0;
    let first = persistent.offset(graph.op(parts.first()?.1.node).leaf_name()?)?;
    for (start, leaf) in &parts {
        let ty = graph.ty(*leaf);
        let offset = persistent.offset(graph.op(leaf.node).leaf_name()?)?;
        if *start != end || offset != first + (start * ty.dtype.bytes()) as u64 {
            return None;
        }
        end = start + ty.shape.numel();
    }
    Some(parts.into_iter().map(|(_, leaf)| leaf).collect())
}

/// Where the elements of a value begin in a vector that it is a view of.
fn start_in(graph: &Graph, value: Value, whole: Value) -> Option<usize> {
    if value == whole {
        return Some(0);
    }
    match graph.op(value.node) {
        Op::Reshape { .. } => start_in(graph, graph.operands(value.node)[0], whole),
        Op::Slice { axis: 0, start, .. } => {
            let source = graph.operands(value.node)[0];
            let row = graph.ty(source).shape.0[1..].iter().product::<usize>();
            Some(start_in(graph, source, whole)? + start * row)
        }
        _ => None,
    }
}

/// Values that are produced right where a concat wants them.
fn place_concat_parts(graph: &Graph, order: &[NodeId], persistent: &PersistentLayout) -> Storages {
    let mut placed = place_joined_leaves(graph, order, persistent);
    for id in order {
        let Op::Concat { axis } = graph.op(*id) else { continue };
        let joined = Value { node: *id, port: 0 };
        let parts = graph.operands(*id);
        let flat = graph.ty(joined).shape.rank() == 1 && parts.len() > 1;
        if placed.contains_key(&joined)
            || flat
            || parts.iter().any(|p| graph.op(p.node).leaf_name().is_some())
        {
            continue;
        }
        let whole = Layout::dense(&graph.ty(joined).shape);
        let mut start = 0;
        for part in &parts {
            let layout = whole.slice(*axis, start);
            start += graph.ty(*part).shape.0[*axis];
            if let Some((producer, layout)) = through_views(graph, *part, layout)
                && !placed.contains_key(&producer)
                && can_move(graph, producer)
                && rules::writes(graph, producer, &layout)
            {
                placed.insert(producer, Storage { root: joined, layout });
            }
        }
    }
    placed
}

/// Only values with storage of their own can be produced elsewhere.
fn can_move(graph: &Graph, value: Value) -> bool {
    let facts = graph.op(value.node).facts();
    let has_own_storage = match facts.class {
        Class::Pointwise | Class::Region | Class::Spread | Class::Compute => true,
        Class::Leaf { .. } | Class::Constant | Class::View | Class::Join => false,
    };
    has_own_storage
        && !facts.overwrites.always().iter().any(|(port, _)| *port == value.port)
        && !graph.is_result(value)
}

/// Follows reshapes and transpositions up to the producer, carrying the wanted layout along.
fn through_views(graph: &Graph, mut value: Value, mut layout: Layout) -> Option<(Value, Layout)> {
    loop {
        layout = match graph.op(value.node) {
            Op::Reshape { shape } => layout.reshape(shape, &graph.ty(graph.operands(value.node)[0]).shape)?,
            Op::Transpose { perm } => {
                let mut strides = vec![0; perm.len()];
                for (axis, stride) in perm.iter().zip(&layout.strides) {
                    strides[*axis] = *stride;
                }
                Layout { offset: layout.offset, strides }
            }
            _ => return Some((value, layout)),
        };
        value = graph.operands(value.node)[0];
    }
}

/// Outputs whose elements do not lie one after the other, as whoever reads a program's results takes them.
fn scattered_outputs(graph: &Graph, storages: &Storages) -> BTreeSet<Value> {
    let values = graph.outputs.iter().map(|(_, value)| *value);
    values.filter(|value| !storages[value].layout.is_dense(&graph.ty(*value).shape)).collect()
}

/// Operands that their readers cannot take where they lie.
fn unreadable_operands(graph: &Graph, order: &[NodeId], storages: &Storages) -> Vec<(NodeId, usize)> {
    let mut found = vec![];
    for id in order {
        let op = graph.op(*id);
        let operands = graph.operands(*id);
        for (i, operand) in operands.iter().enumerate() {
            if !rules::reads(op, i, graph.ty(*operand), &storages[operand].layout) {
                found.push((*id, i));
            }
        }
        if op.facts().reads == Strides::Rows && !pointwise_fits(graph, *id, &operands, storages) {
            let strided = |v: &Value| !storages[v].layout.is_dense(&graph.ty(*v).shape);
            found.extend(operands.iter().enumerate().filter(|(_, v)| strided(v)).map(|(i, _)| (*id, i)));
        }
    }
    found
}

fn pointwise_fits(graph: &Graph, id: NodeId, operands: &[Value], storages: &Storages) -> bool {
    let typed: Vec<(Layout, Shape)> = operands
        .iter()
        .map(|v| {
            let TensorType { shape, .. } = graph.ty(*v);
            (storages[v].layout.clone(), shape.clone())
        })
        .collect();
    let results: Vec<Layout> = graph.results(id).map(|v| storages[&v].layout.clone()).collect();
    let region = &graph.ty(Value { node: id, port: 0 }).shape;
    rules::pointwise_splits(region, &typed, &results)
}
