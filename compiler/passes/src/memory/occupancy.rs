//! Which places are taken while a buffer lives, so that the first gap is found without a look at all others.
//!
//! A tree over time: each node stands for a stretch of positions, and its two children for the halves of it. A placed
//! range is noted at the few nodes whose stretches it covers as a whole, and at all nodes above those as one that touches
//! them. Notes are sets of disjoint ranges of offsets that melt together where they meet, as most of them do, so each is
//! small however many buffers it came from.

use std::collections::BTreeMap;

use super::ALIGN;

/// Disjoint ranges of offsets: end by start.
#[derive(Default)]
struct Taken(BTreeMap<u64, u64>);

impl Taken {
    fn add(&mut self, mut start: u64, mut end: u64) {
        if let Some((before, its_end)) = self.0.range(..=start).next_back()
            && *its_end >= start
        {
            (start, end) = (*before, end.max(*its_end));
        }
        while let Some((next, its_end)) = self.0.range(start..=end).next().map(|(next, end)| (*next, *end)) {
            self.0.remove(&next);
            end = end.max(its_end);
        }
        self.0.insert(start, end);
    }

    /// Where a range that begins in `offset..end` and leaves no room before `end` ends, if there is one.
    fn in_the_way(&self, offset: u64, end: u64) -> Option<u64> {
        self.0.range(..end).next_back().map(|(_, end)| *end).filter(|end| *end > offset)
    }
}

#[derive(Default)]
struct Node {
    /// Ranges that live for its whole stretch.
    covering: Taken,
    /// Ranges that live at any time of it.
    touching: Taken,
}

/// Placed ranges, by time and offset.
pub(super) struct Occupancy {
    /// Node 1 is the root, and `2i` and `2i + 1` are the children of node `i`.
    nodes: Vec<Node>,
    /// Number of positions, a power of two; the leaves are the last nodes.
    leaves: usize,
    /// The end of what is placed, a multiple of [`ALIGN`].
    pub(super) end: u64,
}

impl Occupancy {
    /// Nothing is placed yet; positions are below `positions`.
    pub(super) fn new(positions: usize) -> Self {
        let leaves = positions.max(1).next_power_of_two();
        Occupancy { nodes: (0..2 * leaves).map(|_| Node::default()).collect(), leaves, end: 0 }
    }

    /// Takes `bytes` at `offset` for the positions `live`, first and last.
    pub(super) fn take(&mut self, offset: u64, bytes: u64, live: (usize, usize)) {
        // What is smaller than the alignment is no gap.
        let (start, end) = (offset / ALIGN * ALIGN, (offset + bytes).next_multiple_of(ALIGN));
        self.end = self.end.max(end);
        for node in self.covered(live) {
            self.nodes[node].covering.add(start, end);
            self.nodes[node].touching.add(start, end);
        }
        for node in self.above(live) {
            self.nodes[node].touching.add(start, end);
        }
    }

    /// The lowest offset, a multiple of [`ALIGN`], at which `bytes` (a multiple as well) are free at the positions `live`.
    pub(super) fn first_gap(&self, bytes: u64, live: (usize, usize)) -> u64 {
        let touching = self.covered(live).into_iter().map(|node| &self.nodes[node].touching);
        let covering = self.above(live).into_iter().map(|node| &self.nodes[node].covering);
        let taken: Vec<&Taken> = touching.chain(covering).filter(|taken| !taken.0.is_empty()).collect();
        let mut offset = 0;
        // Offsets only grow, past ranges that were in the way; it ends where none is.
        loop {
            let before = offset;
            for taken in &taken {
                offset = taken.in_the_way(offset, offset + bytes).unwrap_or(offset);
            }
            if offset == before {
                return offset;
            }
        }
    }

    /// The largest stretches that make up the positions.
    fn covered(&self, (first, last): (usize, usize)) -> Vec<usize> {
        let (mut left, mut right) = (first + self.leaves, last + self.leaves + 1);
        let mut nodes = vec![];
        while left < right {
            if left % 2 == 1 {
                nodes.push(left);
                left += 1;
            }
            if right % 2 == 1 {
                right -= 1;
                nodes.push(right);
            }
            left /= 2;
            right /= 2;
        }
        nodes
    }

    /// The stretches around the first and around the last position, themselves as well.
    fn above(&self, (first, last): (usize, usize)) -> Vec<usize> {
        let (mut left, mut right) = (first + self.leaves, last + self.leaves);
        let mut nodes = vec![];
        while right > 0 {
            nodes.push(left);
            if right != left {
                nodes.push(right);
            }
            left /= 2;
            right /= 2;
        }
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: one range after the other, by offset.
    fn plain_gap(placed: &[(u64, u64, (usize, usize))], bytes: u64, live: (usize, usize)) -> u64 {
        let mut alive: Vec<_> = placed.iter().filter(|p| p.2.1 >= live.0 && p.2.0 <= live.1).collect();
        alive.sort_unstable();
        let mut offset = 0;
        for (start, size, _) in alive {
            if offset + bytes <= *start {
                break;
            }
            offset = offset.max((start + size).next_multiple_of(ALIGN));
        }
        offset
    }

    #[test]
    fn gaps_are_those_of_a_search_through_all_ranges() {
        let mut state = 7u64;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for positions in [1, 2, 13, 64, 200] {
            let mut occupancy = Occupancy::new(positions);
            let mut placed = vec![];
            let span =
                |first: u64, length: u64| (first as usize, ((first + length) as usize).min(positions - 1));
            // Ranges of a join lie side by side, at any multiple of 4.
            let mut start = 0;
            for _ in 0..20 {
                let (bytes, live) = (4 + 4 * below(100), span(below(positions as u64), below(40)));
                occupancy.take(start, bytes, live);
                placed.push((start, bytes, live));
                start += bytes;
            }
            for _ in 0..400 {
                let (bytes, live) = (ALIGN * (1 + below(9)), span(below(positions as u64), below(50)));
                let offset = occupancy.first_gap(bytes, live);
                assert_eq!(
                    offset,
                    plain_gap(&placed, bytes, live),
                    "{bytes} bytes at {live:?} of {positions}"
                );
                occupancy.take(offset, bytes, live);
                placed.push((offset, bytes, live));
            }
            let end = placed.iter().map(|(start, bytes, _)| start + bytes).max().expect("ranges");
            assert_eq!(occupancy.end, end.next_multiple_of(ALIGN));
        }
    }
}
