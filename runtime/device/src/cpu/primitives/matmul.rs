//! A matmul in two phases: the right operand is packed into panels that all threads share, then parts of the result are
//! computed, each by one thread.
//!
//! A panel is [`PANEL`] vectors wide and [`DEPTH`] steps deep, and stays in the first-level cache while the rows of a part
//! go by. The left operand is read where it is if its rows are contiguous f32, and packed by each part otherwise.
//! Panels are f32: narrow operands are widened while they are packed, and a narrow result is rounded once, from f32 sums.

use super::dot::{Block, Dot};
use super::half::{Bf16, F16};
use super::matrix::{Elem, Matrix, Stored, store, widen};
use super::transfer::{Transpose, gather};

/// Steps of the inner dimension per pass.
pub(crate) const DEPTH: usize = 256;

/// Rows of the left operand that are packed at a time; a multiple of the register block.
pub(crate) const HEIGHT: usize = 96;

/// Rows of a register block.
pub(super) const MR: usize = 6;

/// Vectors of a panel.
pub(super) const PANEL: usize = 2;

/// Columns of the widest panel; packed columns are padded to a multiple of it.
pub(crate) const UNIT: usize = 32;

/// Most columns of a part.
pub(crate) const WIDEST: usize = 512;

/// Bytes of packing space for the left operand of a part.
pub(crate) const PACK_BYTES: usize = 4 * DEPTH * HEIGHT;

/// Bytes of a part's rows before they are rounded; behind the packing space.
pub(crate) const SUMS_BYTES: usize = 4 * HEIGHT * WIDEST;

/// The right operand `[k, n]`, and where its panels go.
///
/// The panels of one pass follow each other, those of the next pass come behind them.
#[derive(Clone, Copy)]
pub(crate) struct Right {
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) b: Matrix,
    /// Room for `k · n` elements, `n` rounded up to [`UNIT`].
    pub(crate) panels: *mut f32,
}

impl Right {
    /// First element of the panels of the pass that begins at step `p`, from column `j` on.
    unsafe fn at(&self, p: usize, j: usize) -> *mut f32 {
        let depth = (self.k - p).min(DEPTH);
        // SAFETY: p is below k, and j at most n.
        unsafe { self.panels.add(p * self.n.next_multiple_of(UNIT) + j * depth) }
    }
}

/// A part of `c[m,n] = a·b (+ c)`; a and b are of one type, c is of theirs or f32.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// The right operand, packed.
    pub(crate) right: Right,
    /// First column of the right operand; a multiple of [`UNIT`].
    pub(crate) col: usize,
    /// Columns.
    pub(crate) n: usize,
    /// Rows.
    pub(crate) m: usize,
    /// The left operand from the first row on.
    pub(crate) a: Matrix,
    /// The result from the first row and column on.
    pub(crate) c: Matrix,
    pub(crate) accumulate: bool,
}

/// Packs columns `from..to` of the pass that begins at step `p`.
///
/// # Safety
/// The operand and the panels are valid for the sizes and disjoint; `p` is a multiple of [`DEPTH`] and `from` of
/// [`UNIT`].
pub(super) unsafe fn pack<D: Dot>(right: &Right, p: usize, from: usize, to: usize, transpose: Transpose) {
    let wide = PANEL * D::N;
    let depth = (right.k - p).min(DEPTH);
    let strides = right.b.strides.map(|s| s as i64);
    for j in (from..to).step_by(wide) {
        let cols = (to - j).min(wide);
        // SAFETY: column j and step p exist.
        unsafe {
            let source = right.b.from(p, j);
            let target = right.at(p, j);
            let sizes = [depth, cols, wide];
            match source.elem {
                Elem::Bf16 => {
                    widen::<Bf16>(target, source.at.cast(), sizes, source.strides, transpose);
                }
                Elem::F16 => {
                    widen::<F16>(target, source.at.cast(), sizes, source.strides, transpose);
                }
                Elem::F32 => {
                    let source = source.at.cast::<f32>().cast_const();
                    match (cols == wide && strides[1] == 1, wide) {
                        (true, 32) => copy_rows::<32>(target, source, depth, right.b.strides[0]),
                        (true, 16) => copy_rows::<16>(target, source, depth, right.b.strides[0]),
                        _ => gather(target.cast(), source.cast(), sizes, strides, transpose),
                    }
                }
            }
        }
    }
}

/// Rows of a fixed length, which take no call each.
unsafe fn copy_rows<const W: usize>(to: *mut f32, from: *const f32, rows: usize, stride: usize) {
    for p in 0..rows {
        // SAFETY: both arrays have `rows` rows.
        unsafe {
            let row: [f32; W] = from.add(p * stride).cast::<[f32; W]>().read();
            to.add(p * W).cast::<[f32; W]>().write(row);
        }
    }
}

/// The part.
///
/// # Safety
/// The instruction set of `D` is available; the operands are valid for the sizes and strides; the panels of the part's
/// columns are packed; `c` is disjoint from all; `scratch` has [`PACK_BYTES`], and [`SUMS_BYTES`] behind them.
pub(super) unsafe fn part<D: Dot>(part: &Part, scratch: *mut f32, transpose: Transpose) {
    // SAFETY: forwarded from the caller.
    unsafe {
        match part.a.elem {
            Elem::F32 if part.c.strides[1] == 1 => part_f32::<D>(part, scratch),
            Elem::F32 => part_sums::<D, f32>(part, scratch, transpose),
            Elem::Bf16 => part_sums::<D, Bf16>(part, scratch, transpose),
            Elem::F16 => part_sums::<D, F16>(part, scratch, transpose),
        }
    }
}

unsafe fn part_f32<D: Dot>(part: &Part, scratch: *mut f32) {
    let [a_rs, a_cs] = part.a.strides;
    let ldc = part.c.strides[0];
    // SAFETY: steps p and rows i exist; a packed block takes DEPTH·HEIGHT elements.
    unsafe {
        for p in (0..part.right.k).step_by(DEPTH) {
            let depth = (part.right.k - p).min(DEPTH);
            let panels = part.right.at(p, part.col).cast_const();
            let accumulate = part.accumulate || p > 0;
            for i in (0..part.m).step_by(HEIGHT) {
                let height = (part.m - i).min(HEIGHT);
                let a = part.a.from(i, p).at.cast::<f32>().cast_const();
                let c = part.c.from(i, 0).at.cast();
                let pass = Pass { depth, b: panels, c, ldc, n: part.n, accumulate };
                if a_cs == 1 {
                    rows::<D, true>(&pass, height, a, a_rs);
                } else {
                    pack_rows(scratch, a, height, depth, part.a.strides);
                    rows::<D, false>(&pass, height, scratch, 0);
                }
            }
        }
    }
}

unsafe fn part_sums<D: Dot, E: Stored>(part: &Part, scratch: *mut f32, transpose: Transpose) {
    // SAFETY: steps p and rows i exist; a packed block takes DEPTH·HEIGHT elements.
    unsafe {
        in_sums(part, scratch, 1, |Turn { p, depth, i, height, sums, distance, accumulate }| {
            let b = part.right.at(p, part.col).cast_const();
            let pass = Pass { depth, b, c: sums, ldc: distance, n: part.n, accumulate };
            let a = part.a.from(i, p);
            if a.strides[1] == 1 {
                widen::<E>(scratch, a.at.cast(), [height, depth, depth], a.strides, transpose);
                rows::<D, true>(&pass, height, scratch, depth);
            } else {
                pack_rows(scratch, a.at.cast::<E>().cast_const(), height, depth, a.strides);
                rows::<D, false>(&pass, height, scratch, 0);
            }
        });
    }
}

/// One pass over some rows of a part.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    /// The first step.
    pub(super) p: usize,
    /// How many steps.
    pub(super) depth: usize,
    /// The first row.
    pub(super) i: usize,
    /// How many rows.
    pub(super) height: usize,
    /// Where the sums of these rows are.
    pub(super) sums: *mut f32,
    /// From one row of sums to the next.
    pub(super) distance: usize,
    /// Whether the products are added to the sums that are there.
    pub(super) accumulate: bool,
}

/// All passes over some rows before the next rows, so that their sums can wait in f32 to be rounded once, or to be stored
/// where rows are not contiguous. A turn may write sums behind the last column, up to a multiple of `columns`.
///
/// # Safety
/// As [`part`]; packed rows at the beginning of `scratch` take DEPTH·HEIGHT elements at most.
#[inline(always)]
pub(super) unsafe fn in_sums(part: &Part, scratch: *mut f32, columns: usize, mut run: impl FnMut(Turn)) {
    let in_place = part.c.elem == Elem::F32 && part.c.strides[1] == 1 && part.n.is_multiple_of(columns);
    // SAFETY: steps p and rows i exist; sums take HEIGHT·WIDEST elements behind the packed rows.
    unsafe {
        let waiting = scratch.add(DEPTH * HEIGHT);
        for i in (0..part.m).step_by(HEIGHT) {
            let height = (part.m - i).min(HEIGHT);
            let c = part.c.from(i, 0);
            let (sums, distance) = if in_place { (c.at.cast(), c.strides[0]) } else { (waiting, WIDEST) };
            for p in (0..part.right.k).step_by(DEPTH) {
                let depth = (part.right.k - p).min(DEPTH);
                let accumulate = (in_place && part.accumulate) || p > 0;
                run(Turn { p, depth, i, height, sums, distance, accumulate });
            }
            if !in_place {
                let sizes = [height, part.n, WIDEST];
                match c.elem {
                    Elem::F32 => store::<f32>(c, sums, sizes, part.accumulate),
                    Elem::Bf16 => store::<Bf16>(c, sums, sizes, part.accumulate),
                    Elem::F16 => store::<F16>(c, sums, sizes, part.accumulate),
                }
            }
        }
    }
}

/// Some rows in one pass.
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
    // SAFETY: forwarded from the caller; a panel has `PANEL` vectors.
    unsafe {
        match (left.div_ceil(D::N), part) {
            (1, false) => D::block::<M, 1, ROWS, false>(block),
            (1, true) => D::block::<M, 1, ROWS, true>(block),
            (_, false) => D::block::<M, PANEL, ROWS, false>(block),
            (_, true) => D::block::<M, PANEL, ROWS, true>(block),
        }
    }
}

/// Blocks of `MR` rows, the elements of one step together.
unsafe fn pack_rows<E: Stored>(to: *mut f32, from: *const E, m: usize, depth: usize, [rs, cs]: [usize; 2]) {
    /// Steps between reading an element and asking for it.
    const AHEAD: usize = 8;
    let whole = if rs == 1 { m / MR * MR } else { 0 };
    // SAFETY: `to` has room for whole blocks; row i + r and step p exist; a prefetch may name any address.
    unsafe {
        // Step by step, since the rows of a step are neighbours in memory and the steps may be far apart.
        for p in 0..depth {
            let row = from.add(p * cs);
            for line in (0..whole).step_by(16) {
                prefetch(row.wrapping_add(AHEAD * cs + line).cast());
            }
            for i in (0..whole).step_by(MR) {
                let values = row.add(i).cast::<[E; MR]>().read().map(E::wide);
                to.add(i * depth + p * MR).cast::<[f32; MR]>().write(values);
            }
        }
        for i in (whole..m).step_by(MR) {
            for p in 0..depth {
                for r in 0..(m - i).min(MR) {
                    *to.add(i * depth + p * MR + r) = (*from.add(p * cs + (i + r) * rs)).wide();
                }
            }
        }
    }
}

/// Asks for the line at an address, which may be any.
#[inline(always)]
pub(super) fn prefetch(address: *const i8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
