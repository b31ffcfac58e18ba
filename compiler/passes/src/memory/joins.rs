//! Flat joins: a concat of vectors whose parts are made where the whole wants them.
//!
//! Each part has memory of its own until the join, and the whole from then on, at the same place. So gradients arise
//! one by one while activations go, and the norm and the optimizer still see one range.

use std::collections::BTreeMap;

use linc_ir::{Graph, NodeId, Op, Value};

use super::alias::Storages;
use super::lifetimes::lifetimes;
use super::sizes;

/// For each flat join, the byte offset in it of each storage that it is made of.
pub(super) type Joins = BTreeMap<NodeId, BTreeMap<Value, u64>>;

/// True for a concat of vectors with memory of its own; the copy, which has one part, is none.
pub(super) fn is_join(graph: &Graph, id: NodeId, storages: &Storages) -> bool {
    let joined = Value { node: id, port: 0 };
    matches!(graph.op(id), Op::Concat { .. })
        && graph.ty(joined).shape.rank() == 1
        && graph.operands(id).len() > 1
        && storages[&joined].root == joined
}

/// Finds all flat joins.
///
/// # Errors
/// The operands, as `(node, operand)`, that have to be copied before they can be a part: leaves, what lives on after the
/// join, what is only a piece of its storage, and what is there twice.
pub(super) fn find(
    graph: &Graph,
    order: &[NodeId],
    storages: &Storages,
) -> Result<Joins, Vec<(NodeId, usize)>> {
    let (sizes, lives) = (sizes(graph, storages), lifetimes(graph, order, storages));
    let mut joins = Joins::new();
    let mut copies = vec![];
    for (at, id) in order.iter().enumerate().filter(|(_, id)| is_join(graph, **id, storages)) {
        let mut parts: BTreeMap<Value, Vec<Part>> = BTreeMap::new();
        let mut start: u64 = 0;
        for (operand, value) in graph.operands(*id).into_iter().enumerate() {
            let (ty, place) = (graph.ty(value), &storages[&value]);
            let dense = place.layout.is_dense(&ty.shape);
            let from = (place.layout.offset * ty.dtype.bytes()) as u64;
            let bytes = ty.bytes() as u64;
            // Where in the join the storage of the part would begin.
            let base = if dense { start.checked_sub(from) } else { None };
            parts.entry(place.root).or_default().push(Part { operand, base, bytes });
            start += bytes;
        }
        let mut places = BTreeMap::new();
        for (root, parts) in parts {
            let covered: u64 = parts.iter().map(|part| part.bytes).sum();
            let base = parts[0].base.filter(|base| parts.iter().all(|part| part.base == Some(*base)));
            let free = graph.op(root.node).leaf_name().is_none() && lives[&root].1 == at;
            match base {
                Some(base) if free && covered == sizes[&root] => {
                    places.insert(root, base);
                }
                _ => copies.extend(parts.iter().map(|part| (*id, part.operand))),
            }
        }
        joins.insert(*id, places);
    }
    if copies.is_empty() { Ok(joins) } else { Err(copies) }
}

/// An operand of a join.
struct Part {
    operand: usize,
    base: Option<u64>,
    bytes: u64,
}
