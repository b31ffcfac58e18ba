//! Matmuls of the graph, cut into parts whose sizes depend on the shapes only, so that any number of threads gives the
//! same bits.
//!
//! With vector instructions the parts run on the device's own matmul, which is ahead of the `gemm` crate there
//! (`examples/speed.rs`); the crate serves the portable level and results whose rows are not contiguous.

use gemm::Parallelism;

use super::primitives::matmul::{PACK_BYTES, Part, WIDTH};
use super::primitives::{Level, Matmul};

/// Work of a part, in floating-point operations: long enough for packing to vanish, short enough to balance.
const PART: f64 = 64e6;

/// Rows of a part that packing its columns needs to pay.
const ROWS: usize = 256;

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

// SAFETY: the pointers are used by `Product::part` only, whose callers keep the parts apart.
unsafe impl Sync for Product {}

/// How the result is cut.
#[derive(Clone, Copy)]
pub(super) struct Split {
    rows: usize,
    cols: usize,
    row_step: usize,
    col_step: usize,
    /// The device's own matmul, if it is to be used.
    own: Option<Matmul>,
}

impl Split {
    /// The cut for a matmul.
    pub(super) fn of(product: &Product, level: Level) -> Split {
        let Product { m, n, k, .. } = *product;
        let own = (level > Level::Portable && product.c_strides.1 == 1).then(|| level.matmul());
        // Where the left operand is packed too, wide parts pack it less often.
        let widest = if product.a_strides.1 == 1 { WIDTH / 2 } else { WIDTH };
        let col_step = n.div_ceil(n.div_ceil(widest).max(1)).next_multiple_of(64).clamp(1, widest);
        let wanted = PART / (2.0 * col_step as f64 * k.max(1) as f64);
        let row_step = (wanted as usize).next_multiple_of(48).clamp(ROWS, m.max(ROWS));
        Split { rows: m.div_ceil(row_step), cols: n.div_ceil(col_step), row_step, col_step, own }
    }

    /// Number of parts.
    pub(super) fn parts(&self) -> usize {
        self.rows * self.cols
    }

    /// Bytes of scratch that a thread needs.
    pub(super) fn scratch_bytes(&self) -> usize {
        if self.own.is_some() { PACK_BYTES } else { 0 }
    }
}

impl Product {
    /// Computes one part.
    ///
    /// # Safety
    /// The operands are valid for the sizes and strides, `c` overlaps neither of the others, `scratch` has
    /// [`Split::scratch_bytes`], and no other part of the same number runs at the same time.
    pub(super) unsafe fn part(&self, split: &Split, part: usize, scratch: *mut u8) {
        // Neighbours share columns: what one has packed is still in a cache of the other.
        let (row, col) = (part % split.rows * split.row_step, part / split.rows * split.col_step);
        let (m, n) = ((self.m - row).min(split.row_step), (self.n - col).min(split.col_step));
        // SAFETY: row and col are within the result, and so are the sizes.
        let (a, b, c) = unsafe {
            (
                self.a.add(row * self.a_strides.0),
                self.b.add(col * self.b_strides.1),
                self.c.add(row * self.c_strides.0 + col * self.c_strides.1),
            )
        };
        if let Some(own) = split.own {
            let part = Part {
                m,
                n,
                k: self.k,
                a,
                a_strides: self.a_strides.into(),
                b,
                b_strides: self.b_strides.into(),
                c,
                c_stride: self.c_strides.0,
                accumulate: self.accumulate,
            };
            // SAFETY: as promised by the caller; the level is the device's.
            unsafe { own(&part, scratch.cast()) };
            return;
        }
        let signed = |(rs, cs): (usize, usize)| (rs as isize, cs as isize);
        let ((a_rs, a_cs), (b_rs, b_cs)) = (signed(self.a_strides), signed(self.b_strides));
        let (c_rs, c_cs) = signed(self.c_strides);
        // SAFETY: as promised by the caller.
        unsafe {
            gemm::gemm(
                m,
                n,
                self.k,
                c,
                c_cs,
                c_rs,
                self.accumulate,
                a,
                a_cs,
                a_rs,
                b,
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
    fn parts_cover_the_result() {
        for (m, n, k) in
            [(1, 1, 1), (2048, 512, 512), (512, 512, 2048), (3, 4096, 512), (4096, 1, 7), (65, 129, 4000)]
        {
            let product = Product {
                m,
                n,
                k,
                a: std::ptr::null(),
                a_strides: (k, 1),
                b: std::ptr::null(),
                b_strides: (n, 1),
                c: std::ptr::null_mut(),
                c_strides: (n, 1),
                accumulate: false,
            };
            let s = Split::of(&product, Level::Portable);
            assert!(s.col_step <= WIDTH && s.parts() >= 1);
            assert!((s.rows - 1) * s.row_step < m && s.rows * s.row_step >= m);
            assert!((s.cols - 1) * s.col_step < n && s.cols * s.col_step >= n);
        }
    }
}
