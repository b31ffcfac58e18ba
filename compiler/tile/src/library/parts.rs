//! Reductions of parts that came from several ranks, in an order that depends on nothing but their number.

use std::ops::Range;

use super::{TILE, bound};
use crate::builder::Builder;
use crate::ir::{Binary, Compare, Elem, Kernel, Mode, ParamId, ValueId};

/// `parts` vectors of f32, one behind the other, that become one.
#[derive(Clone, PartialEq, Debug)]
pub struct ReducePartsSpec {
    /// How many there are.
    pub parts: usize,
    /// Elements of each.
    pub numel: usize,
    /// What becomes of two elements: their sum, or the larger.
    pub by: PartsReduction,
}

/// What becomes of elements at one place of the parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartsReduction {
    /// Their sum.
    Sum,
    /// The largest.
    Max,
}

/// Where the order divides `count` parts, of which there are two at least: at the largest power of two below it. Neighbours meet
/// first, then pairs, and so on, so that over 2^n parts of which each is such a sum of 2^m leaves the bits are those of one
/// sum over all the leaves.
///
/// # Panics
/// If there are no two.
pub fn middle(count: usize) -> usize {
    1 << (count - 1).ilog2()
}

/// Parameters: x, y.
pub fn reduce_parts(spec: &ReducePartsSpec) -> Kernel {
    let ReducePartsSpec { parts, numel, by } = *spec;
    let word = match by {
        PartsReduction::Sum => "sum",
        PartsReduction::Max => "max",
    };
    let size = numel.min(TILE);
    let mut b = Builder::new(format!("reduce_parts_{word}_{parts}x{numel}"), [numel.div_ceil(size), 1, 1]);
    let x = b.param("x", Elem::F32, Mode::Read);
    let y = b.param("y", Elem::F32, Mode::Write);
    let block = b.program_id(0);
    let start = b.scale_index(block, size);
    let axes = [(1, bound(&mut b, numel, start, size))];
    let tree = Tree { x, start, size, numel, axes, by };
    let value = tree.of(&mut b, 0..parts);
    b.store(y, start, value, &axes);
    b.finish()
}

struct Tree {
    x: ParamId,
    start: ValueId,
    size: usize,
    numel: usize,
    axes: [(usize, Option<ValueId>); 1],
    by: PartsReduction,
}

impl Tree {
    /// The block of some neighbouring parts.
    fn of(&self, b: &mut Builder, parts: Range<usize>) -> ValueId {
        if parts.len() == 1 {
            let first = b.index(parts.start * self.numel);
            let at = b.add(first, self.start);
            return b.load(self.x, at, &[self.size], &self.axes);
        }
        let middle = parts.start + middle(parts.len());
        let left = self.of(b, parts.start..middle);
        let right = self.of(b, middle..parts.end);
        match self.by {
            PartsReduction::Sum => b.add(left, right),
            // Machines differ in the maximum of a number and a NaN. Here it is the NaN, as it is of a sum.
            PartsReduction::Max => {
                let larger = b.compare(Compare::Gt, left, right);
                let is_nan = b.compare(Compare::Ne, left, left);
                let takes_left = b.binary(Binary::Or, larger, is_nan);
                b.select(takes_left, left, right)
            }
        }
    }
}
