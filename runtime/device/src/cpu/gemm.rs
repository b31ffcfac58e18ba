//! Matmuls of the graph: the `gemm` crate on pieces of the result whose sizes depend on the shapes only, so that any
//! number of threads gives the same bits.

use gemm::Parallelism;

/// Work of a piece, in floating-point operations: long enough to be worth a hand-off, short enough to balance.
const PIECE: f64 = 16e6;

/// Most pieces of one matmul.
const MOST: usize = 64;

/// Sizes, pointers and strides of `c = a·b (+ c)`.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) a: *const f32,
    pub(super) a_strides: (usize, usize),
    pub(super) b: *const f32,
    pub(super) b_strides: (usize, usize),
    pub(super) c: *mut f32,
    pub(super) c_strides: (usize, usize),
    pub(super) accumulate: bool,
}

// SAFETY: the pointers are used by `Product::piece` only, whose callers keep the pieces apart.
unsafe impl Sync for Product {}

/// How the result is cut: pieces along rows and columns, and their sizes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Split {
    rows: usize,
    cols: usize,
    row_step: usize,
    col_step: usize,
}

impl Split {
    /// The cut for a shape.
    pub(super) fn of(m: usize, n: usize, k: usize) -> Split {
        let flops = 2.0 * m as f64 * n as f64 * k as f64;
        let wanted = ((flops / PIECE) as usize).clamp(1, MOST);
        let (mut rows, mut cols) = (1, 1);
        // Halve the longer side of a piece; pieces of whole register blocks.
        while rows * cols < wanted {
            if m / rows >= n / cols { rows *= 2 } else { cols *= 2 }
        }
        let step = |size: usize, parts: usize, unit: usize| {
            if parts == 1 { size.max(1) } else { size.div_ceil(parts).next_multiple_of(unit) }
        };
        let (row_step, col_step) = (step(m, rows, 48), step(n, cols, 64));
        Split { rows: m.div_ceil(row_step), cols: n.div_ceil(col_step), row_step, col_step }
    }

    /// Number of pieces.
    pub(super) fn pieces(&self) -> usize {
        self.rows * self.cols
    }
}

impl Product {
    /// Computes one piece.
    ///
    /// # Safety
    /// The operands are valid for the sizes and strides, `c` overlaps neither of the others, and no other piece of the
    /// same number runs at the same time.
    pub(super) unsafe fn piece(&self, split: &Split, piece: usize) {
        let (row, col) = (piece / split.cols * split.row_step, piece % split.cols * split.col_step);
        let (m, n) = ((self.m - row).min(split.row_step), (self.n - col).min(split.col_step));
        let signed = |(rs, cs): (usize, usize)| (rs as isize, cs as isize);
        let ((a_rs, a_cs), (b_rs, b_cs)) = (signed(self.a_strides), signed(self.b_strides));
        let (c_rs, c_cs) = signed(self.c_strides);
        // SAFETY: row and col are within the result, and so are the sizes.
        unsafe {
            gemm::gemm(
                m,
                n,
                self.k,
                self.c.offset(row as isize * c_rs + col as isize * c_cs),
                c_cs,
                c_rs,
                self.accumulate,
                self.a.offset(row as isize * a_rs),
                a_cs,
                a_rs,
                self.b.offset(col as isize * b_cs),
                b_cs,
                b_rs,
                1.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_result() {
        for (m, n, k) in
            [(1, 1, 1), (2048, 512, 512), (512, 512, 2048), (3, 4096, 512), (4096, 1, 7), (65, 129, 4000)]
        {
            let s = Split::of(m, n, k);
            assert!(s.pieces() >= 1 && s.pieces() <= 2 * MOST);
            assert!((s.rows - 1) * s.row_step < m && s.rows * s.row_step >= m);
            assert!((s.cols - 1) * s.col_step < n && s.cols * s.col_step >= n);
        }
    }
}
