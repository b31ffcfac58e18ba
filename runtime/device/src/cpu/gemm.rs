//! Matmuls of the graph (GEMM), cut into parts whose sizes depend on the shapes only, so that any number of threads gives the
//! same bits.
//!
//! A result whose columns are contiguous is computed as that of the transposed product, c^T = b^T a^T, whose rows are: what
//! runs fast is rows that can be stored as vectors.

use super::pool::Pool;
use super::primitives::matmul::{DEPTH, HEIGHT, PACK_BYTES, Part, Right, SUMS_BYTES, UNIT, WIDEST};
use super::primitives::matrix::{Elem, Matrix};
use super::primitives::thin::{COLUMNS, THIN};
use super::primitives::{Level, Matmul};
use super::scratch::Areas;

/// Work of a part, in floating-point operations: long enough to be worth a hand-off, short enough to balance.
const PART: f64 = 48e6;

/// Columns of a part; one whose left operand has to be packed is wider, which does that less often.
const WIDTH: usize = 256;

/// Bytes of the right operand of a part that reads them once, where little but reading them counts.
const THIN_BYTES: usize = 256 << 10;

/// Elements of the right operand that are packed at a time; larger operands are worked off in blocks of columns.
const SHARED: usize = 2 << 20;

/// Columns that one thread packs at a time.
const PACK_COLS: usize = 128;

/// Sizes and operands of `c = a·b (+ c)`.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) a: Matrix,
    pub(super) b: Matrix,
    pub(super) c: Matrix,
    pub(super) accumulate: bool,
}

// SAFETY: the pointers are used by functions whose callers keep the parts apart.
unsafe impl Sync for Product {}

/// What computes a part.
#[derive(Clone, Copy)]
enum Engine {
    /// With a packed right operand.
    Packed(Matmul),
    /// For few rows, with the right operand as it is.
    Thin(Matmul),
}

/// How a matmul is cut.
#[derive(Clone, Copy)]
pub(super) struct Split {
    engine: Engine,
    row_step: usize,
    col_step: usize,
    /// Columns that are packed at a time.
    block: usize,
}

impl Split {
    /// The cut for a matmul.
    pub(super) fn of(product: &Product, level: Level) -> Split {
        let Product { m, n, k, .. } = *product;
        let is_f32 = product.a.elem == Elem::F32;
        let rows_together = product.a.strides[1] == 1;
        let engine = if m <= THIN && rows_together && product.b.strides[0] == 1 {
            Engine::Thin(level.matmul())
        } else {
            Engine::Packed(level.matmul())
        };
        let (block, widest, unit) = match engine {
            Engine::Packed(_) => {
                let widest = if rows_together && is_f32 { WIDTH } else { WIDEST };
                ((SHARED / k.max(1) / WIDEST).max(1) * WIDEST, widest, UNIT)
            }
            Engine::Thin(_) => {
                let column = k.max(1) * product.b.elem.bytes();
                (n, (THIN_BYTES / column).max(COLUMNS), COLUMNS)
            }
        };
        let block = block.min(n).max(1);
        let col_step = block.div_ceil(block.div_ceil(widest)).next_multiple_of(unit);
        let wanted = PART / (2.0 * col_step as f64 * k.max(1) as f64);
        let row_step = (wanted as usize).next_multiple_of(HEIGHT).clamp(HEIGHT, m.max(HEIGHT));
        Split { engine, row_step, col_step, block }
    }

    /// Bytes of scratch that a thread needs.
    pub(super) fn scratch_bytes(&self) -> usize {
        match self.engine {
            Engine::Packed(_) => PACK_BYTES + SUMS_BYTES,
            Engine::Thin(_) => 0,
        }
    }

    /// Bytes that all threads share.
    pub(super) fn shared_bytes(&self, product: &Product) -> usize {
        match self.engine {
            Engine::Packed(_) => 4 * product.k * self.block.next_multiple_of(UNIT),
            Engine::Thin(_) => 0,
        }
    }
}

impl Product {
    /// The same product, or its transpose if that is the one whose result has contiguous rows.
    pub(super) fn by_rows(self) -> Product {
        if self.c.strides[1] == 1 || self.c.strides[0] != 1 {
            return self;
        }
        let transposed = |x: Matrix| Matrix { strides: [x.strides[1], x.strides[0]], ..x };
        let [a, b, c] = [self.b, self.a, self.c].map(transposed);
        Product { m: self.n, n: self.m, a, b, c, ..self }
    }

    /// Computes the product.
    ///
    /// # Safety
    /// The operands are valid for the sizes and strides, `c` overlaps neither of the others, and the areas have the bytes
    /// that `split` asks for.
    pub(super) unsafe fn run(&self, split: &Split, pool: &mut Pool, areas: Areas) {
        for from in (0..self.n).step_by(split.block) {
            let n = (self.n - from).min(split.block);
            let right = Right { k: self.k, n, b: self.b.from(0, from), panels: areas.shared().cast() };
            let block = ColumnBlock { product: self, split, from, right };
            if let Engine::Packed(own) = split.engine {
                let (passes, groups) = (self.k.div_ceil(DEPTH), n.div_ceil(PACK_COLS));
                // A small operand is packed by the caller before the others would be awake.
                let chunk = if passes * groups < 4 { passes * groups } else { 1 };
                let block = &block;
                pool.run(passes * groups, chunk.max(1), &|_, range| {
                    for piece in range {
                        let (p, j) = (piece / groups * DEPTH, piece % groups * PACK_COLS);
                        // SAFETY: each piece has panels of its own.
                        unsafe { (own.pack)(&block.right, p, j, (j + PACK_COLS).min(n)) };
                    }
                });
            }
            let rows = self.m.div_ceil(split.row_step);
            let cols = n.div_ceil(split.col_step);
            let block = &block;
            let areas = &areas;
            pool.run(rows * cols, 1, &|worker, range| {
                for part in range {
                    // Neighbours share columns: the panels that one has read are in a cache of the other.
                    let (row, col) = (part % rows * split.row_step, part / rows * split.col_step);
                    // SAFETY: as promised by the caller; parts do not overlap.
                    unsafe { block.part(row, col, areas.of(worker)) };
                }
            });
        }
    }
}

/// Columns of a product that are worked off together.
struct ColumnBlock<'a> {
    product: &'a Product,
    split: &'a Split,
    /// First column.
    from: usize,
    right: Right,
}

// SAFETY: as for `Product`.
unsafe impl Sync for ColumnBlock<'_> {}

impl ColumnBlock<'_> {
    /// Computes the part that begins at a row and a column of the block.
    ///
    /// # Safety
    /// As [`Product::run`]; the right operand is packed, and no other thread computes the same part.
    unsafe fn part(&self, row: usize, col: usize, scratch: *mut u8) {
        let m = (self.product.m - row).min(self.split.row_step);
        let n = (self.right.n - col).min(self.split.col_step);
        let (a, c) = (self.product.a.from(row, 0), self.product.c.from(row, self.from + col));
        let accumulate = self.product.accumulate;
        let part = Part { right: self.right, col, n, m, a, c, accumulate };
        // SAFETY: row and col are within the block, and so are the sizes.
        unsafe {
            match self.split.engine {
                Engine::Packed(own) => (own.part)(&part, scratch.cast()),
                Engine::Thin(own) => (own.thin)(&part),
            }
        }
    }
}
