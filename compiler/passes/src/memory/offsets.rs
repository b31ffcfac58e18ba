//! Offsets in scratch: one buffer after the other in the first gap among what is alive at the same time.
//!
//! The order in which buffers are placed decides how many gaps stay. Largest first is the best single rule (greedy by
//! size, arXiv 2001.03288) unless a joined range, whose parts arise one by one, is most of memory: then what lives
//! longest must take the places of the parts that arise last. Several orders are tried; the smallest result counts.

use std::collections::BTreeMap;

use linc_ir::Value;

use super::joins::Joins;
use super::occupancy::Occupancy;
use super::{ALIGN, Allocation};

/// The orders: a buffer is long-lived if it lives for this part of the program. Those come first, by their end, last
/// first; the others by size.
const LONG_LIVED: [f64; 5] = [f64::INFINITY, 1.0 / 4.0, 1.0 / 8.0, 1.0 / 16.0, 1.0 / 32.0];

/// Gives every scratch allocation an offset; returns the size of the part.
pub(super) fn assign(allocations: &mut BTreeMap<Value, Allocation>, joins: &Joins) -> u64 {
    let joined = joined_offsets(allocations, joins);
    let open: Vec<Value> = allocations
        .iter()
        .filter(|(root, a)| !a.persistent && !joined.contains_key(root))
        .map(|(root, _)| *root)
        .collect();
    let length = allocations.values().map(|a| a.live.1 + 1).max().unwrap_or(0) as f64;
    let moments = Moments::of(joined.keys().chain(&open).map(|root| allocations[root].live));
    let mut best: Option<(u64, Vec<u64>, Vec<Value>)> = None;
    for part in LONG_LIVED {
        let limit = part * length;
        let mut order = open.clone();
        order.sort_by_cached_key(|root| {
            let Allocation { bytes, live, .. } = allocations[root];
            let end = if (live.1 - live.0) as f64 >= limit { live.1 + 1 } else { 0 };
            (std::cmp::Reverse((end, bytes)), live, *root)
        });
        let most = best.as_ref().map_or(u64::MAX, |(total, ..)| *total);
        if let Some((total, offsets)) = place(allocations, &joined, &order, &moments, most) {
            best = Some((total, offsets, order));
        }
    }
    let (total, offsets, order) = best.unwrap_or_default();
    for (root, offset) in joined.into_iter().chain(order.into_iter().zip(offsets)) {
        allocations.get_mut(&root).expect("a root").offset = offset;
    }
    total
}

/// The positions at which a buffer begins or ends to live, ascending: no other tells two lifetimes apart.
struct Moments(Vec<usize>);

impl Moments {
    fn of(lives: impl Iterator<Item = (usize, usize)>) -> Self {
        let mut moments: Vec<usize> = lives.flat_map(|(first, last)| [first, last]).collect();
        moments.sort_unstable();
        moments.dedup();
        Moments(moments)
    }

    /// A lifetime in numbers of moments.
    fn number(&self, (first, last): (usize, usize)) -> (usize, usize) {
        let number = |position| self.0.partition_point(|moment| *moment < position);
        (number(first), number(last))
    }
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

/// Places buffers in this order among the joined ones; returns the size of all, and their offsets, if that is below `most`.
fn place(
    allocations: &BTreeMap<Value, Allocation>,
    joined: &BTreeMap<Value, u64>,
    order: &[Value],
    moments: &Moments,
    most: u64,
) -> Option<(u64, Vec<u64>)> {
    let mut placed = Occupancy::new(moments.0.len());
    for (root, offset) in joined {
        let Allocation { bytes, live, .. } = allocations[root];
        placed.take(*offset, bytes, moments.number(live));
    }
    let mut offsets = Vec::with_capacity(order.len());
    for root in order {
        let Allocation { bytes, live, .. } = allocations[root];
        let (bytes, live) = (bytes.next_multiple_of(ALIGN).max(ALIGN), moments.number(live));
        let offset = placed.first_gap(bytes, live);
        placed.take(offset, bytes, live);
        if placed.end >= most {
            return None;
        }
        offsets.push(offset);
    }
    (placed.end < most).then_some((placed.end, offsets))
}
