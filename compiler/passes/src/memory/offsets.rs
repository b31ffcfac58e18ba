//! Offsets in scratch: one buffer after the other in the first gap among what is alive at the same time.
//!
//! The order in which buffers are placed decides how many gaps stay. Largest first is the best single rule (greedy by
//! size, arXiv 2001.03288) unless a joined range, whose parts arise one by one, is most of memory: then what lives
//! longest must take the places of the parts that arise last. Several orders are tried; the smallest result counts.

use std::collections::BTreeMap;

use linc_ir::Value;

use super::joins::Joins;
use super::{ALIGN, Allocation};

/// The orders: a buffer is long-lived if it lives for this part of the program. Those come first, by their end, last
/// first; the others by size.
const LONG_LIVED: [f64; 5] = [f64::INFINITY, 1.0 / 4.0, 1.0 / 8.0, 1.0 / 16.0, 1.0 / 32.0];

/// A placed range: offset, end, and first and last position at which it is used.
type Range = (u64, u64, (usize, usize));

/// Gives every scratch allocation an offset; returns the size of the part.
pub(super) fn assign(allocations: &mut BTreeMap<Value, Allocation>, joins: &Joins) -> u64 {
    let joined = joined_offsets(allocations, joins);
    let open: Vec<Value> = allocations
        .iter()
        .filter(|(root, a)| !a.persistent && !joined.contains_key(root))
        .map(|(root, _)| *root)
        .collect();
    let length = allocations.values().map(|a| a.live.1 + 1).max().unwrap_or(0) as f64;
    let plans = LONG_LIVED.iter().map(|part| {
        let limit = part * length;
        let mut order = open.clone();
        order.sort_by_key(|root| {
            let Allocation { bytes, live, .. } = allocations[root];
            let end = if (live.1 - live.0) as f64 >= limit { live.1 + 1 } else { 0 };
            (std::cmp::Reverse((end, bytes)), live, *root)
        });
        place(allocations, &joined, &order)
    });
    let (total, offsets) = plans.min_by_key(|(total, _)| *total).unwrap_or_default();
    for (root, offset) in joined.into_iter().chain(offsets) {
        allocations.get_mut(&root).expect("a root").offset = offset;
    }
    total
}

/// Offsets of joined ranges and of their parts, which have one place to go.
fn joined_offsets(allocations: &BTreeMap<Value, Allocation>, joins: &Joins) -> BTreeMap<Value, u64> {
    let mut offsets = BTreeMap::new();
    let mut start = 0;
    for (id, parts) in joins {
        let whole = Value { node: *id, port: 0 };
        offsets.extend(parts.iter().map(|(root, at)| (*root, start + at)));
        offsets.insert(whole, start);
        start += allocations[&whole].bytes.next_multiple_of(ALIGN);
    }
    offsets
}

/// Places buffers in this order among the joined ones; returns the size of all, and their offsets.
fn place(
    allocations: &BTreeMap<Value, Allocation>,
    joined: &BTreeMap<Value, u64>,
    order: &[Value],
) -> (u64, Vec<(Value, u64)>) {
    // Ascending by offset.
    let mut placed: Vec<Range> = joined
        .iter()
        .map(|(root, offset)| (*offset, offset + allocations[root].bytes, allocations[root].live))
        .collect();
    placed.sort_unstable();
    let mut offsets = vec![];
    for root in order {
        let Allocation { bytes, live, .. } = allocations[root];
        let bytes = bytes.next_multiple_of(ALIGN).max(ALIGN);
        let offset = first_gap(&placed, bytes, live);
        let at = placed.partition_point(|p| p.0 <= offset);
        placed.insert(at, (offset, offset + bytes, live));
        offsets.push((*root, offset));
    }
    let total = placed.iter().map(|(_, end, _)| *end).max().unwrap_or(0);
    (total.next_multiple_of(ALIGN), offsets)
}

fn first_gap(placed: &[Range], bytes: u64, live: (usize, usize)) -> u64 {
    let mut offset = 0;
    for (start, end, other) in placed {
        let disjoint = other.1 < live.0 || live.1 < other.0;
        if disjoint {
            continue;
        }
        if offset + bytes <= *start {
            break;
        }
        offset = offset.max(end.next_multiple_of(ALIGN));
    }
    offset
}
