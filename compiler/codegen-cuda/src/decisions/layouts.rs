//! Which layout each tile has, in blocks of so many warps.

use linc_tile::{Kernel, Op, ValueId};

use super::layout::{ValueLayout, matrix_layout, stream_layout};
use super::vectors::Vectors;
use crate::analysis::memory::{WIDE, element_bytes};
use crate::analysis::usage::gcd;

/// Where the values of a kernel are, by value id.
pub(crate) struct Layouts {
    /// Warps of a block.
    pub warps: usize,
    /// Warps that share the rows of a matrix and divide its columns.
    pub across: usize,
    /// The kernel has matrix products: all matrices have their layout.
    pub products: bool,
    place: Vec<ValueLayout>,
}

impl Layouts {
    /// The layouts for blocks of so many warps, of which `across` share the rows of a matrix.
    pub(crate) fn new(kernel: &Kernel, warps: usize, across: usize, products: bool) -> Layouts {
        let widest = widest_access(kernel);
        let layout = |m: usize, n: usize| {
            if products {
                return matrix_layout(m, n, warps, across);
            }
            // Neighbours of a thread never straddle the end of a row.
            let width = gcd(n as u64, widest) as usize;
            stream_layout(m, n, warps, width)
        };
        let vectors = Vectors::of(kernel, &layout);
        let place = kernel.types.iter().enumerate().map(|(id, ty)| match ty.shape[..] {
            [] => ValueLayout::Scalar,
            [n] => ValueLayout::Vector(vectors.axis(id).unwrap_or_else(|| layout(1, n).cols)),
            [m, n] => ValueLayout::Matrix(layout(m, n)),
            _ => unreachable!("verified: a tile has at most two axes"),
        });
        Layouts { warps, across, products, place: place.collect() }
    }

    /// Which threads hold which elements of a value.
    pub(crate) fn place(&self, value: ValueId) -> ValueLayout {
        self.place[value.0 as usize]
    }

    /// Threads of a block.
    pub(crate) fn threads(&self) -> usize {
        32 * self.warps
    }

    /// Whether each element is in one thread.
    pub(crate) fn alone(&self, place: ValueLayout) -> bool {
        match place {
            ValueLayout::Scalar => false,
            ValueLayout::Vector(axis) => axis.lanes * axis.warps == self.threads(),
            ValueLayout::Matrix(_) => true,
        }
    }

    /// Whether registers are so few that addresses are better computed again than kept: 128 for each of 512 threads.
    pub(crate) fn renews_addresses(&self) -> bool {
        self.products && self.warps > 8
    }
}

/// Elements of the widest access that suits all tiles in memory: where types differ, that of the larger, since a warp
/// should touch one contiguous range at a time. Vectors beside matrices have no say: they are few
/// bytes, or of the wider type.
fn widest_access(kernel: &Kernel) -> u64 {
    let mut most = 0;
    kernel.for_each_stmt(|stmt| {
        let (Op::Load(view) | Op::Store(view, _)) = &stmt.op else { return };
        most = most.max(view.axes.len());
    });
    let (mut widest, mut pairs) = (WIDE / 2, false);
    kernel.for_each_stmt(|stmt| {
        let (Op::Load(view) | Op::Store(view, _)) = &stmt.op else { return };
        let Some(last) = view.axes.last() else { return };
        if view.axes.len() < most {
            return;
        }
        widest = widest.min(WIDE / element_bytes(kernel.param(view.param).elem));
        pairs |= last.stride == 2;
    });
    // Even and odd elements are two tiles that one access moves.
    if pairs { widest / 2 } else { widest }
}
