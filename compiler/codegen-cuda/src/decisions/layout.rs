//! Where the elements of a tile are: which thread of the block holds which element in which register.
//!
//! A tile is spread along each axis by itself. Along one axis, a position is a number in mixed radix, most significant
//! digit first: `outer` (registers), warp, `mid` (registers), lane, `inner` (registers). The digits that are registers
//! are the slots of a thread. Rows and columns use disjoint bits of the warp and lane numbers, so a thread of a matrix
//! holds (row slots) × (column slots) elements. What matrix instructions want ([`matrix_layout`]) and what streams
//! through memory in wide accesses ([`stream_layout`]) differ only in the digits.
//!
//! A vector is spread along its one axis and held alike by all threads that differ in the other bits.

/// How positions along one axis are spread.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) struct Axis {
    /// Positions of the tile; the digits may cover more.
    pub extent: usize,
    /// Most significant digit, in registers.
    pub outer: usize,
    /// Warps along the axis, a power of two.
    pub warps: usize,
    /// Lowest bit of the warp number that counts along the axis.
    pub warp_bit: u32,
    /// Middle digit, in registers.
    pub mid: usize,
    /// Lanes along the axis, a power of two.
    pub lanes: usize,
    /// Lowest bit of the lane number that counts along the axis.
    pub lane_bit: u32,
    /// Least significant digit, in registers: neighbours that one thread holds.
    pub inner: usize,
}

impl Axis {
    /// Registers of a thread.
    pub(crate) fn slots(&self) -> usize {
        self.outer * self.mid * self.inner
    }

    /// Distance of two neighbours in the lane digit.
    pub(crate) fn lane_step(&self) -> usize {
        self.inner
    }

    /// Distance of two neighbours in the middle digit.
    pub(crate) fn mid_step(&self) -> usize {
        self.lanes * self.inner
    }

    /// Distance of two neighbours in the warp digit.
    pub(crate) fn warp_step(&self) -> usize {
        self.mid * self.mid_step()
    }

    /// Distance of two neighbours in the outer digit.
    pub(crate) fn outer_step(&self) -> usize {
        self.warps * self.warp_step()
    }

    /// Positions that the digits cover.
    pub(crate) fn covered(&self) -> usize {
        self.outer * self.outer_step()
    }

    /// Every position that the digits cover exists.
    pub(crate) fn exact(&self) -> bool {
        self.covered() == self.extent
    }

    /// Lane masks of the exchanges that combine all lanes along the axis, nearest first.
    pub(crate) fn lane_masks(&self) -> impl Iterator<Item = usize> + use<> {
        let bit = self.lane_bit;
        (0..self.lanes.trailing_zeros()).map(move |i| 1 << (bit + i))
    }
}

/// How a matrix is spread.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct RegisterLayout {
    /// Along axis 0.
    pub rows: Axis,
    /// Along axis 1.
    pub cols: Axis,
}

/// Which threads of a block hold the elements of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ValueLayout {
    /// The same in every thread.
    Scalar,
    /// Elements along one axis, repeated in the threads that differ only along the other.
    Vector(Axis),
    /// A tile of two axes, cut among warps and lanes.
    Matrix(RegisterLayout),
}

impl ValueLayout {
    /// Size of the tile.
    pub(crate) fn extents(self) -> Vec<usize> {
        match self {
            ValueLayout::Scalar => vec![],
            ValueLayout::Vector(axis) => vec![axis.extent],
            ValueLayout::Matrix(layout) => vec![layout.rows.extent, layout.cols.extent],
        }
    }

    /// Registers of a thread.
    pub(crate) fn slots(self) -> usize {
        match self {
            ValueLayout::Scalar => 1,
            ValueLayout::Vector(axis) => axis.slots(),
            ValueLayout::Matrix(layout) => layout.rows.slots() * layout.cols.slots(),
        }
    }
}

/// The layout of matrix instructions for `[m, n]`: a warp owns 16 rows, eight lanes a column of eight rows, four lanes
/// the pairs of eight columns (PTX ISA, `mma.m16n8k16`). `across` warps share the rows and divide the columns into
/// ranges. Warps that follow each other have rows that do: four of them are a warpgroup with 64 rows of one range, whose
/// registers are those of `wgmma.m64nNk16`.
pub(crate) fn matrix_layout(m: usize, n: usize, warps: usize, across: usize) -> RegisterLayout {
    let down = warps / across;
    let rows = Axis {
        extent: m,
        outer: m.div_ceil(16 * down),
        warps: down,
        warp_bit: 0,
        mid: 2,
        lanes: 8,
        lane_bit: 2,
        inner: 1,
    };
    let cols = Axis {
        extent: n,
        outer: 1,
        warps: across,
        warp_bit: down.trailing_zeros(),
        mid: 2 * n.div_ceil(16 * across),
        lanes: 4,
        lane_bit: 0,
        inner: 2,
    };
    RegisterLayout { rows, cols }
}

/// A layout for `[m, n]` that streams: neighbours of a row in `width` (a power of two) registers of a thread, then in
/// neighbouring lanes.
pub(crate) fn stream_layout(m: usize, n: usize, warps: usize, width: usize) -> RegisterLayout {
    let threads = (n.div_ceil(width)).next_power_of_two().min(32 * warps);
    let (lanes, across) = (threads.min(32), (threads / 32).max(1));
    let (rest, down) = (32 / lanes, warps / across);
    let cols = Axis {
        extent: n,
        outer: n.div_ceil(threads * width),
        warps: across,
        warp_bit: 0,
        mid: 1,
        lanes,
        lane_bit: 0,
        inner: width,
    };
    let rows = Axis {
        extent: m,
        outer: m.div_ceil(rest * down),
        warps: down,
        warp_bit: across.trailing_zeros(),
        mid: 1,
        lanes: rest,
        lane_bit: lanes.trailing_zeros(),
        inner: 1,
    };
    RegisterLayout { rows, cols }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Position of a slot relative to the thread's first: what `text::positions` writes.
    fn offset(axis: &Axis, slot: usize) -> usize {
        let (rest, inner) = (slot / axis.inner, slot % axis.inner);
        rest / axis.mid * axis.outer_step() + rest % axis.mid * axis.mid_step() + inner
    }

    /// Positions along an axis that a thread holds.
    fn positions(axis: &Axis, warp: usize, lane: usize) -> Vec<usize> {
        let w = (warp >> axis.warp_bit) & (axis.warps - 1);
        let l = (lane >> axis.lane_bit) & (axis.lanes - 1);
        (0..axis.slots()).map(|s| w * axis.warp_step() + l * axis.lane_step() + offset(axis, s)).collect()
    }

    /// Every element of the tile is held exactly once.
    fn assert_partition(layout: &RegisterLayout, warps: usize) {
        let (m, n) = (layout.rows.covered(), layout.cols.covered());
        let mut held = vec![0; m * n];
        for thread in 0..32 * warps {
            for r in positions(&layout.rows, thread / 32, thread % 32) {
                for c in positions(&layout.cols, thread / 32, thread % 32) {
                    held[r * n + c] += 1;
                }
            }
        }
        assert!(held.iter().all(|h| *h == 1), "{layout:?}");
        assert!(m >= layout.rows.extent && n >= layout.cols.extent);
    }

    #[test]
    fn layouts_hold_each_element_once() {
        for warps in [1, 2, 4, 8, 16] {
            for (m, n) in [
                (64, 64),
                (64, 72),
                (128, 24),
                (128, 112),
                (1, 4096),
                (128, 32),
                (5, 768),
                (16, 16),
                (3, 7),
                (64, 128),
                (40, 24),
            ] {
                for width in [1, 2, 4, 8] {
                    assert_partition(&stream_layout(m, n, warps, width), warps);
                }
                for across in [1, 2, 4].into_iter().filter(|a| *a <= warps) {
                    assert_partition(&matrix_layout(m, n, warps, across), warps);
                }
            }
        }
    }

    #[test]
    fn the_matrix_layout_is_that_of_the_instruction() {
        let layout = matrix_layout(16, 16, 1, 1);
        // Lane 13: rows 13/4 = 3 and 11, columns 2(13%4) = 2, 3 of each block of eight.
        assert_eq!(positions(&layout.rows, 0, 13), [3, 11]);
        assert_eq!(positions(&layout.cols, 0, 13), [2, 3, 10, 11]);
    }
}
