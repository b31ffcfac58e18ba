//! A part of a large matmul, by one thread: the right operand is packed into panels that stay in the second-level cache,
//! the left one is read where it is if its rows are contiguous, and packed otherwise.

use super::dot::{Block, Dot};
use super::lanes::Lanes;
use super::transfer::{Transpose, gather};

/// Steps of the inner dimension per pass.
pub(crate) const DEPTH: usize = 256;

/// Most columns of a part.
pub(crate) const WIDTH: usize = 512;

/// Rows of a block of the left operand that is packed at a time; a multiple of the register block.
const HEIGHT: usize = 96;

/// Rows of a register block.
const MR: usize = 6;

/// Vectors of a panel.
const PANEL: usize = 2;

/// Bytes of packing space.
pub(crate) const PACK_BYTES: usize = 4 * DEPTH * (WIDTH + HEIGHT);

/// `c[m,n] = a·b (+ c)`; strides in elements; rows of `c` are contiguous.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub(crate) m: usize,
    /// At most [`WIDTH`].
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) a: *const f32,
    pub(crate) a_strides: [usize; 2],
    pub(crate) b: *const f32,
    pub(crate) b_strides: [usize; 2],
    pub(crate) c: *mut f32,
    pub(crate) c_stride: usize,
    pub(crate) accumulate: bool,
}

/// One pass over [`DEPTH`] steps: operands as the register blocks read them.
struct Pass {
    depth: usize,
    /// Panels of the right operand.
    b: *const f32,
    c: *mut f32,
    ldc: usize,
    n: usize,
    accumulate: bool,
}

/// All rows of a block against all panels; a panel stays in the first-level cache for all rows.
unsafe fn rows<D: Dot, const ROWS: bool>(pass: &Pass, m: usize, a: *const f32, lda: usize) {
    let wide = PANEL * D::N;
    for j in (0..pass.n).step_by(wide) {
        // SAFETY: column j exists, and its panel begins at j·depth.
        let (b, c) = unsafe { (pass.b.add(j * pass.depth), pass.c.add(j)) };
        let left = (pass.n - j).min(wide);
        for i in (0..m).step_by(MR) {
            // A packed block has its rows together, `MR` of each step.
            // SAFETY: row i exists.
            let (a, c) = unsafe { (a.add(if ROWS { i * lda } else { i * pass.depth }), c.add(i * pass.ldc)) };
            let block = Block {
                k: pass.depth,
                a,
                lda: if ROWS { lda } else { MR },
                b,
                ldb: wide,
                c,
                ldc: pass.ldc,
                last: left % D::N,
                accumulate: pass.accumulate,
            };
            // SAFETY: the block has as many rows and columns as are left.
            unsafe {
                match m - i {
                    1 => columns::<D, 1, ROWS>(&block, left),
                    2 => columns::<D, 2, ROWS>(&block, left),
                    3 => columns::<D, 3, ROWS>(&block, left),
                    4 => columns::<D, 4, ROWS>(&block, left),
                    5 => columns::<D, 5, ROWS>(&block, left),
                    _ => columns::<D, MR, ROWS>(&block, left),
                }
            }
        }
    }
}

/// `M` rows against the columns of one panel.
unsafe fn columns<D: Dot, const M: usize, const ROWS: bool>(block: &Block, left: usize) {
    let part = block.last != 0;
    // SAFETY: forwarded from the caller; a panel has at most `WIDE` vectors.
    unsafe {
        match (left.div_ceil(D::N), part) {
            (1, false) => D::block::<M, 1, ROWS, false>(block),
            (1, true) => D::block::<M, 1, ROWS, true>(block),
            (_, false) => D::block::<M, PANEL, ROWS, false>(block),
            (_, true) => D::block::<M, PANEL, ROWS, true>(block),
        }
    }
}

/// The part.
///
/// # Safety
/// The instruction set of `D` is available; the operands are valid for the sizes and strides; `c` is disjoint from both;
/// `pack` has [`PACK_BYTES`].
pub(super) unsafe fn matmul<D: Dot>(part: &Part, pack: *mut f32, transpose: Transpose) {
    let wide = PANEL * D::N;
    let [a_rs, a_cs] = part.a_strides;
    let b_strides = part.b_strides.map(|s| s as i64);
    // SAFETY: the right operand's panels take DEPTH·WIDTH elements, the left one's block DEPTH·HEIGHT.
    unsafe {
        let packed_a = pack.add(DEPTH * WIDTH);
        for p in (0..part.k).step_by(DEPTH) {
            let depth = (part.k - p).min(DEPTH);
            for j in (0..part.n).step_by(wide) {
                let cols = (part.n - j).min(wide);
                let from = part.b.add(p * part.b_strides[0] + j * part.b_strides[1]);
                pack_panel(pack.add(j * depth), from, [depth, cols, wide], b_strides, transpose);
            }
            let accumulate = part.accumulate || p > 0;
            let mut pass = Pass { depth, b: pack, c: part.c, ldc: part.c_stride, n: part.n, accumulate };
            let a = part.a.add(p * a_cs);
            for i in (0..part.m).step_by(HEIGHT) {
                let height = (part.m - i).min(HEIGHT);
                let a = a.add(i * a_rs);
                pass.c = part.c.add(i * part.c_stride);
                if a_cs == 1 {
                    rows::<D, true>(&pass, height, a, a_rs);
                } else {
                    pack_rows(packed_a, a, height, depth, part.a_strides);
                    rows::<D, false>(&pass, height, packed_a, 0);
                }
            }
        }
    }
}

/// Most rows for which reading the right operand once, without packing, is all that counts.
const THIN: usize = 4;

/// Whether [`thin`] computes a part: few rows, and contiguous columns of the right operand.
pub(super) fn is_thin(part: &Part) -> bool {
    part.m <= THIN && part.a_strides[1] == 1 && part.b_strides[0] == 1
}

/// A part of few rows, as one dot product per element.
///
/// # Safety
/// As [`matmul`], for a part that [`is_thin`].
#[inline(always)]
pub(super) unsafe fn thin<L: Lanes>(part: &Part) {
    let k = part.k;
    for j in 0..part.n {
        // SAFETY: column j and rows below m, with k elements each.
        unsafe {
            let b = part.b.add(j * part.b_strides[1]);
            let mut acc = [[L::splat(0.0); 2]; THIN];
            let mut p = 0;
            while p + 2 * L::N <= k {
                let right = [L::load(b.add(p)), L::load(b.add(p + L::N))];
                for (i, acc) in acc.iter_mut().enumerate().take(part.m) {
                    let a = part.a.add(i * part.a_strides[0] + p);
                    acc[0] = L::load(a).fma(right[0], acc[0]);
                    acc[1] = L::load(a.add(L::N)).fma(right[1], acc[1]);
                }
                p += 2 * L::N;
            }
            while p < k {
                let left = (k - p).min(L::N);
                let right = L::load_part(b.add(p), left);
                for (i, acc) in acc.iter_mut().enumerate().take(part.m) {
                    let a = part.a.add(i * part.a_strides[0] + p);
                    acc[0] = L::load_part(a, left).fma(right, acc[0]);
                }
                p += L::N;
            }
            for (i, acc) in acc.into_iter().enumerate().take(part.m) {
                let c = part.c.add(i * part.c_stride + j);
                let sum = acc[0].add(acc[1]).sum();
                *c = if part.accumulate { *c + sum } else { sum };
            }
        }
    }
}

/// `[depth, cols]` elements with rows of `wide`.
unsafe fn pack_panel(
    to: *mut f32,
    from: *const f32,
    [depth, cols, wide]: [usize; 3],
    strides: [i64; 2],
    transpose: Transpose,
) {
    // SAFETY: forwarded from the caller.
    unsafe {
        match (cols == wide && strides[1] == 1, wide) {
            (true, 32) => copy_rows::<32>(to, from, depth, strides[0]),
            (true, 16) => copy_rows::<16>(to, from, depth, strides[0]),
            _ => gather(to.cast(), from.cast(), [depth, cols, wide], strides, transpose),
        }
    }
}

/// Rows of a fixed length, which take no call each.
unsafe fn copy_rows<const W: usize>(to: *mut f32, from: *const f32, rows: usize, stride: i64) {
    for p in 0..rows {
        // SAFETY: both arrays have `rows` rows.
        unsafe {
            let row: [f32; W] = from.offset(p as isize * stride as isize).cast::<[f32; W]>().read();
            to.add(p * W).cast::<[f32; W]>().write(row);
        }
    }
}

/// Blocks of `MR` rows, the elements of one step together.
unsafe fn pack_rows(to: *mut f32, from: *const f32, m: usize, depth: usize, [rs, cs]: [usize; 2]) {
    let whole = if rs == 1 { m / MR * MR } else { 0 };
    // SAFETY: `to` has room for whole blocks; row i + r and step p exist.
    unsafe {
        // Step by step, since the rows of a step are neighbours in memory and the steps may be far apart.
        for p in 0..depth {
            for i in (0..whole).step_by(MR) {
                std::ptr::copy_nonoverlapping(from.add(p * cs + i), to.add(i * depth + p * MR), MR);
            }
        }
        for i in (whole..m).step_by(MR) {
            for p in 0..depth {
                for r in 0..(m - i).min(MR) {
                    *to.add(i * depth + p * MR + r) = *from.add(p * cs + (i + r) * rs);
                }
            }
        }
    }
}
