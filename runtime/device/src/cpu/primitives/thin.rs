//! Matmuls of few rows, whose right operand is read once from where it is: packing it would move more bytes than the product
//! does. Decoding is made of them, with a row for each sequence and the weights on the right.
//!
//! Each element is a dot product whose bits depend neither on how many rows there are nor on how rows and columns are grouped:
//! a text is the same alone and among others.

use super::half::{Bf16, F16};
use super::lanes::Lanes;
use super::matmul::{Part, prefetch};
use super::matrix::{Elem, Stored};

/// Most rows that are worked off this way; with more of them, packing is a small share of the work.
pub(crate) const THIN: usize = 16;

/// Columns that are read side by side where rows are too long to stay in the nearest cache.
pub(crate) const COLUMNS: usize = 3;

/// Bytes of rows that stay in the nearest cache while columns go by.
const NEAR: usize = 24 << 10;

/// Vectors of sums of an element: an addition takes a few steps, and rows may be too few to fill them.
const CHAINS: usize = 2;

/// A part of at most [`THIN`] rows; rows of the left and columns of the right operand are contiguous, and the latter is not
/// packed.
///
/// # Safety
/// The instruction set of `L` is available; the operands are valid for the sizes and strides; `c` is disjoint from both.
#[inline(always)]
pub(super) unsafe fn thin<L: Lanes>(part: &Part) {
    // SAFETY: forwarded from the caller.
    unsafe {
        match part.right.b.elem {
            Elem::F32 => groups::<L, f32>(part),
            Elem::Bf16 => groups::<L, Bf16>(part),
            Elem::F16 => groups::<L, F16>(part),
        }
    }
}

/// All rows by one column after the other, which reads the right operand from its beginning to its end, as memory is fastest;
/// or, so that long rows come from a far cache less often, by some columns side by side.
#[inline(always)]
unsafe fn groups<L: Lanes, E: Stored>(part: &Part) {
    let Part { m, n, .. } = *part;
    // SAFETY: blocks of rows and columns are cut off the part's.
    unsafe {
        if m == 1 || m * part.right.k * size_of::<E>() <= NEAR {
            for j in 0..n {
                for (i, rows) in blocks::<4>(m) {
                    match rows {
                        1 => dots::<L, E, 1, 1>(part, i, j),
                        2 => dots::<L, E, 2, 1>(part, i, j),
                        3 => dots::<L, E, 3, 1>(part, i, j),
                        _ => dots::<L, E, 4, 1>(part, i, j),
                    }
                }
            }
        } else {
            let whole = n / COLUMNS * COLUMNS;
            for j in (0..whole).step_by(COLUMNS) {
                for (i, rows) in blocks::<2>(m) {
                    match rows {
                        1 => dots::<L, E, 1, COLUMNS>(part, i, j),
                        _ => dots::<L, E, 2, COLUMNS>(part, i, j),
                    }
                }
            }
            for j in whole..n {
                for (i, rows) in blocks::<2>(m) {
                    match rows {
                        1 => dots::<L, E, 1, 1>(part, i, j),
                        _ => dots::<L, E, 2, 1>(part, i, j),
                    }
                }
            }
        }
    }
}

/// First row and number of rows of blocks of at most `MOST`, as even as they can be.
#[inline(always)]
fn blocks<const MOST: usize>(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(MOST);
    (0..count).map(move |block| {
        let (from, to) = (block * rows / count, (block + 1) * rows / count);
        (from, to - from)
    })
}

/// `R` rows times `J` columns.
#[inline(always)]
unsafe fn dots<L: Lanes, E: Stored, const R: usize, const J: usize>(part: &Part, i: usize, j: usize) {
    let k = part.right.k;
    let rows: [*const E; R] = std::array::from_fn(|r| part.a.from(i + r, 0).at.cast::<E>().cast_const());
    let columns: [*const E; J] =
        std::array::from_fn(|c| part.right.b.from(0, part.col + j + c).at.cast::<E>().cast_const());
    let step = CHAINS * L::N;
    // SAFETY: rows and columns have k elements each.
    unsafe {
        let mut sums = [[[L::splat(0.0); CHAINS]; J]; R];
        let mut p = 0;
        while p + step <= k {
            for chain in 0..CHAINS {
                let at = p + chain * L::N;
                let mut right = [L::splat(0.0); J];
                for (c, (right, column)) in right.iter_mut().zip(&columns).enumerate() {
                    *right = E::lanes(column.add(at));
                    if J > 1 && i == 0 {
                        // A processor that guesses what is read next begins anew with each column: the next ones are asked
                        // for one after the other, as they lie in memory.
                        prefetch(columns[0].wrapping_add(J * (k + at) + c * L::N).cast());
                    }
                }
                for (row, sums) in rows.iter().zip(&mut sums) {
                    let left = E::lanes::<L>(row.add(at));
                    for (right, sums) in right.into_iter().zip(sums) {
                        sums[chain] = left.fma(right, sums[chain]);
                    }
                }
            }
            p += step;
        }
        while p < k {
            let left = (k - p).min(L::N);
            for (column, c) in columns.iter().zip(0..) {
                let right = E::lanes_part::<L>(column.add(p), left);
                for (row, sums) in rows.iter().zip(&mut sums) {
                    sums[c][0] = E::lanes_part::<L>(row.add(p), left).fma(right, sums[c][0]);
                }
            }
            p += L::N;
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (c, [first, second]) in sums.into_iter().enumerate() {
                let (at, sum) = (part.c.from(i + r, j + c), first.add(second).sum());
                match at.elem {
                    Elem::F32 => put(at.at.cast::<f32>(), sum, part.accumulate),
                    Elem::Bf16 => put(at.at.cast::<Bf16>(), sum, part.accumulate),
                    Elem::F16 => put(at.at.cast::<F16>(), sum, part.accumulate),
                }
            }
        }
    }
}

/// One element of the result.
#[inline(always)]
unsafe fn put<C: Stored>(at: *mut C, sum: f32, accumulate: bool) {
    // SAFETY: the caller promises the element.
    unsafe { *at = C::nearest(if accumulate { (*at).wide() + sum } else { sum }) };
}
