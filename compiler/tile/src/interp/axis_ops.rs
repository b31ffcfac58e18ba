//! Products, reductions, scans and transposition, on row-major slices.

use super::real::Real;
use crate::ir::Reduction;

/// Rows, elements along the axis, and columns behind it: a tile seen from one of its axes.
pub(super) fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

/// Reduces the middle of `(outer, len, inner)`.
pub(super) fn reduce<R: Real>(op: Reduction, around: (usize, usize, usize), x: &[R]) -> Vec<R> {
    match op {
        Reduction::Sum => fold(around, x, R::ZERO, |a, b| a + b),
        Reduction::Max => fold(around, x, R::NEG_INFINITY, R::max),
    }
}

fn fold<R: Real>(
    (outer, len, inner): (usize, usize, usize),
    x: &[R],
    start: R,
    combine: impl Fn(R, R) -> R,
) -> Vec<R> {
    let mut out = vec![start; outer * inner];
    for o in 0..outer {
        for i in 0..len {
            let row = &x[(o * len + i) * inner..][..inner];
            out[o * inner..][..inner].iter_mut().zip(row).for_each(|(acc, x)| *acc = combine(*acc, *x));
        }
    }
    out
}

/// Running sums along the middle of `(outer, len, inner)`.
pub(super) fn scan<R: Real>(reverse: bool, (outer, len, inner): (usize, usize, usize), x: &[R]) -> Vec<R> {
    let mut out = x.to_vec();
    for o in 0..outer {
        for step in 1..len {
            let i = if reverse { len - 1 - step } else { step };
            let before = if reverse { i + 1 } else { i - 1 };
            for j in 0..inner {
                let at = (o * len + i) * inner + j;
                out[at] = out[(o * len + before) * inner + j] + out[at];
            }
        }
    }
    out
}

/// `[rows, cols]` to `[cols, rows]`.
pub(super) fn transpose<T: Copy>(rows: usize, cols: usize, x: &[T]) -> Vec<T> {
    let mut out = Vec::with_capacity(rows * cols);
    for j in 0..cols {
        out.extend((0..rows).map(|i| x[i * cols + j]));
    }
    out
}

/// `out[m, n] += a[m, k] · b[k, n]`, in ascending order of k.
pub(super) fn dot<R: Real>(k: usize, n: usize, a: &[R], b: &[R], out: &mut [R]) {
    for (a, out) in a.chunks_exact(k).zip(out.chunks_exact_mut(n)) {
        for (a, b) in a.iter().zip(b.chunks_exact(n)) {
            out.iter_mut().zip(b).for_each(|(out, b)| *out = *out + *a * *b);
        }
    }
}
