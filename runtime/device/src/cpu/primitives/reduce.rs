//! Reductions and running sums, in an order that depends on the sizes and the vector width only.

use super::lanes::{Lanes, max_or_nan};

/// Sum in four accumulators, so that additions overlap.
#[inline(always)]
unsafe fn sum_row<L: Lanes>(src: *const f32, n: usize) -> f32 {
    // SAFETY: the caller promises n readable elements and the instruction set.
    unsafe {
        let mut acc = [L::splat(0.0); 4];
        let mut i = 0;
        while i + 4 * L::N <= n {
            for (k, acc) in acc.iter_mut().enumerate() {
                *acc = acc.add(L::load(src.add(i + k * L::N)));
            }
            i += 4 * L::N;
        }
        while i < n {
            let left = (n - i).min(L::N);
            acc[0] = acc[0].add(L::load_part(src.add(i), left));
            i += L::N;
        }
        acc[0].add(acc[2]).add(acc[1].add(acc[3])).sum()
    }
}

/// `dst[i] = Σ_j src[i, j]`.
///
/// # Safety
/// The instruction set of `L` is available; `src` is valid for rows of `cols` elements at distance `stride`, `dst` for
/// `rows` elements; they are disjoint.
#[inline(always)]
pub(super) unsafe fn row_sum<L: Lanes>(dst: *mut f32, src: *const f32, rows: i64, cols: i64, stride: i64) {
    for i in 0..rows as isize {
        // SAFETY: row i is valid.
        unsafe { *dst.offset(i) = sum_row::<L>(src.offset(i * stride as isize), cols as usize) };
    }
}

/// `dst[i] = max_j src[i, j]`, NaN if any is.
///
/// # Safety
/// As [`row_sum`].
#[inline(always)]
pub(super) unsafe fn row_max<L: Lanes>(dst: *mut f32, src: *const f32, rows: i64, cols: i64, stride: i64) {
    let n = cols as usize;
    for row in 0..rows as isize {
        // SAFETY: row i is valid; every index is below n.
        unsafe {
            let src = src.offset(row * stride as isize);
            let mut acc = [L::splat(f32::NEG_INFINITY); 2];
            // NaN once there is one: x - x is NaN for infinities too, so NaN is looked for as such.
            let mut bad = L::splat(0.0);
            let mut i = 0;
            while i + 2 * L::N <= n {
                for (k, acc) in acc.iter_mut().enumerate() {
                    let x = L::load(src.add(i + k * L::N));
                    *acc = acc.max(x);
                    bad = x.nan_select(x, bad);
                }
                i += 2 * L::N;
            }
            let mut top = bad.nan_select(bad, acc[0].max(acc[1])).top();
            while i < n {
                top = max_or_nan(top, *src.add(i));
                i += 1;
            }
            *dst.offset(row) = top;
        }
    }
}

/// Combines rows into one, columns side by side.
#[inline(always)]
unsafe fn columns<L: Lanes>(
    dst: *mut f32,
    src: *const f32,
    [rows, cols, stride]: [i64; 3],
    start: f32,
    f: impl Fn(L, L) -> L,
) {
    let (cols, stride) = (cols as usize, stride as isize);
    let mut j = 0;
    // SAFETY: the caller promises the instruction set and rows of `cols` elements; all columns are below `cols`.
    unsafe {
        while j + 4 * L::N <= cols {
            let mut acc = [L::splat(start); 4];
            for i in 0..rows as isize {
                let row = src.offset(i * stride).add(j);
                for (k, acc) in acc.iter_mut().enumerate() {
                    *acc = f(*acc, L::load(row.add(k * L::N)));
                }
            }
            for (k, acc) in acc.into_iter().enumerate() {
                acc.store(dst.add(j + k * L::N));
            }
            j += 4 * L::N;
        }
        while j < cols {
            let left = (cols - j).min(L::N);
            let mut acc = L::splat(start);
            for i in 0..rows as isize {
                acc = f(acc, L::load_part(src.offset(i * stride).add(j), left));
            }
            acc.store_part(dst.add(j), left);
            j += L::N;
        }
    }
}

/// `dst[j] = Σ_i src[i, j]`.
///
/// # Safety
/// As [`row_sum`], with `dst` valid for `cols` elements.
#[inline(always)]
pub(super) unsafe fn col_sum<L: Lanes>(dst: *mut f32, src: *const f32, rows: i64, cols: i64, stride: i64) {
    // SAFETY: forwarded from the caller.
    unsafe { columns::<L>(dst, src, [rows, cols, stride], 0.0, |a, b| a.add(b)) };
}

/// `dst[j] = max_i src[i, j]`, NaN if any is.
///
/// # Safety
/// As [`col_sum`].
#[inline(always)]
pub(super) unsafe fn col_max<L: Lanes>(dst: *mut f32, src: *const f32, rows: i64, cols: i64, stride: i64) {
    // SAFETY: forwarded from the caller.
    unsafe {
        columns::<L>(dst, src, [rows, cols, stride], f32::NEG_INFINITY, |a, b| a.nan_select(a, a.max(b)));
    }
}

/// Running sum along each row; `dst` may be `src`.
///
/// # Safety
/// `src` and `dst` are valid for `rows·cols` elements and equal or disjoint.
#[inline(always)]
pub(super) unsafe fn scan_rows(dst: *mut f32, src: *const f32, rows: i64, cols: i64, reverse: i64) {
    let cols = cols as usize;
    for i in 0..rows as usize {
        let mut total = 0.0;
        for step in 0..cols {
            let at = i * cols + if reverse != 0 { cols - 1 - step } else { step };
            // SAFETY: `at` is below rows·cols.
            unsafe {
                total = if step == 0 { *src.add(at) } else { total + *src.add(at) };
                *dst.add(at) = total;
            }
        }
    }
}

/// Running sum down each column; `dst` may be `src`.
///
/// # Safety
/// The instruction set of `L` is available; `src` and `dst` are as for [`scan_rows`].
#[inline(always)]
pub(super) unsafe fn scan_cols<L: Lanes>(dst: *mut f32, src: *const f32, rows: i64, cols: i64, reverse: i64) {
    let (rows, cols) = (rows as usize, cols as usize);
    let mut j = 0;
    while j < cols {
        let left = (cols - j).min(L::N);
        // SAFETY: all indices are below rows·cols.
        unsafe {
            let mut total = L::splat(0.0);
            for step in 0..rows {
                let at = j + cols * if reverse != 0 { rows - 1 - step } else { step };
                let x = L::load_part(src.add(at), left);
                total = if step == 0 { x } else { total.add(x) };
                total.store_part(dst.add(at), left);
            }
        }
        j += L::N;
    }
}
