//! Sums over an axis, and the global gradient norm.

use super::{TILE, WORK, bound, grid_indices, tag};
use crate::builder::Builder;
use crate::ir::{Elem, Kernel, Mode, Unary};

/// Elements per partial sum of [`sum_of_squares`].
pub const SQUARES_BLOCK: usize = 16384;

/// A dense `[outer, mid, inner]`, summed over `mid` to a dense `[outer, inner]`.
#[derive(Clone, PartialEq, Debug)]
pub struct SumMiddleSpec {
    /// Product of the axes before the summed ones.
    pub outer: usize,
    /// Number of summands.
    pub mid: usize,
    /// Product of the axes after the summed ones.
    pub inner: usize,
    /// Element type of the operand.
    pub x: Elem,
    /// Element type of the result.
    pub y: Elem,
    /// Columns of a program at least, where there are few: a power of two.
    pub strip: usize,
}

/// Parameters: x, y.
///
/// The sum over `mid` is not split among programs; to sum very much to very little, call it twice:
/// `[1, n·m, 1]` as `[n, m, 1]`, then `[1, n, 1]`.
pub fn sum_middle(spec: &SumMiddleSpec) -> Kernel {
    if spec.inner == 1 { sum_rows(spec) } else { sum_columns(spec) }
}

fn sum_name(spec: &SumMiddleSpec) -> String {
    let SumMiddleSpec { outer, mid, inner, x, y, .. } = spec;
    format!("sum_{outer}x{mid}x{inner}_{}_{}", tag(*x), tag(*y))
}

/// `inner == 1`: a program sums some whole rows.
fn sum_rows(spec: &SumMiddleSpec) -> Kernel {
    let cols = spec.mid.min(TILE);
    let rows = (TILE / cols).clamp(1, spec.outer);
    let count = spec.outer.div_ceil(rows);
    let mut b = Builder::new(sum_name(spec), [count, 1, 1]);
    let x = b.param("x", spec.x, Mode::Read);
    let y = b.param("y", spec.y, Mode::Write);
    let block = grid_indices(&mut b, &[count])[0];
    let row = b.scale_index(block, rows);
    let row_bound = bound(&mut b, spec.outer, row, rows);
    let first = b.scale_index(row, spec.mid);
    let (lower, upper) = (b.index(0), b.index(spec.mid));
    let zero = b.full(0.0, &[rows]);
    let sums = b.for_loop(lower, upper, cols, &[zero], |b, col, carried| {
        let col_bound = bound(b, spec.mid, col, cols);
        let offset = b.add(first, col);
        let tile = b.load_f32(x, offset, &[rows, cols], &[(spec.mid, row_bound), (1, col_bound)]);
        let part = b.sum(1, tile);
        vec![b.add(carried[0], part)]
    });
    b.store(y, row, sums[0], &[(1, row_bound)]);
    b.finish()
}

/// `inner > 1`: a program sums some columns, for as many outer indices as make it worth while.
fn sum_columns(spec: &SumMiddleSpec) -> Kernel {
    let SumMiddleSpec { outer, mid, inner, strip, .. } = *spec;
    // Narrow strips if there are few columns in all, so that a bias gradient still occupies a machine.
    let cols = (outer * inner * strip).div_ceil(2048).next_multiple_of(strip).clamp(strip, 1024).min(inner);
    let rows = (TILE / cols).clamp(1, mid);
    let outers = (WORK / (mid * cols)).clamp(1, outer);
    let counts = [outer.div_ceil(outers), inner.div_ceil(cols)];
    let mut b = Builder::new(sum_name(spec), [counts[0] * counts[1], 1, 1]);
    let x = b.param("x", spec.x, Mode::Read);
    let y = b.param("y", spec.y, Mode::Write);
    let at = grid_indices(&mut b, &counts);
    let col = b.scale_index(at[1], cols);
    let col_bound = bound(&mut b, inner, col, cols);
    let (first, total, many) = (b.scale_index(at[0], outers), b.index(outer), b.index(outers));
    let last = b.add(first, many);
    let last = b.min(last, total);
    b.for_loop(first, last, 1, &[], |b, out, _| {
        let start = b.scale_index(out, mid * inner);
        let start = b.add(start, col);
        let (lower, upper) = (b.index(0), b.index(mid));
        let zero = b.full(0.0, &[cols]);
        let sums = b.for_loop(lower, upper, rows, &[zero], |b, row, carried| {
            let row_bound = bound(b, mid, row, rows);
            let down = b.scale_index(row, inner);
            let offset = b.add(start, down);
            let tile = b.load_f32(x, offset, &[rows, cols], &[(inner, row_bound), (1, col_bound)]);
            let part = b.sum(0, tile);
            vec![b.add(carried[0], part)]
        });
        let to = b.scale_index(out, inner);
        let to = b.add(to, col);
        b.store(y, to, sums[0], &[(1, col_bound)]);
        vec![]
    });
    b.finish()
}

/// A dense tensor whose squares are summed.
#[derive(Clone, PartialEq, Debug)]
pub struct SumOfSquaresSpec {
    /// Number of elements.
    pub numel: usize,
    /// Element type.
    pub x: Elem,
}

impl SumOfSquaresSpec {
    /// Number of partial sums.
    pub fn partials(&self) -> usize {
        self.numel.div_ceil(SQUARES_BLOCK)
    }
}

/// Parameters: x, partials (f32, [`SumOfSquaresSpec::partials`] elements).
///
/// Many tensors share one array of partial sums by pointing `partials` into it.
pub fn sum_of_squares(spec: &SumOfSquaresSpec) -> Kernel {
    let numel = spec.numel;
    let mut b = Builder::new(format!("sum_of_squares_{numel}_{}", tag(spec.x)), [spec.partials(), 1, 1]);
    let x = b.param("x", spec.x, Mode::Read);
    let partials = b.param("partials", Elem::F32, Mode::Write);
    let cols = numel.min(TILE);
    let block = b.program_id(0);
    let (lower, length, total) =
        (b.scale_index(block, SQUARES_BLOCK), b.index(SQUARES_BLOCK), b.index(numel));
    let upper = b.add(lower, length);
    let upper = b.min(upper, total);
    let zero = b.float(0.0);
    let sum = b.for_loop(lower, upper, cols, &[zero], |b, start, carried| {
        let left = bound(b, numel, start, cols);
        let tile = b.load_f32(x, start, &[cols], &[(1, left)]);
        let squares = b.mul(tile, tile);
        let part = b.sum(0, squares);
        vec![b.add(carried[0], part)]
    });
    b.store(partials, block, sum[0], &[]);
    b.finish()
}

/// The end of a global norm.
#[derive(Clone, PartialEq, Debug)]
pub struct NormFinishSpec {
    /// Number of partial sums.
    pub partials: usize,
}

/// `norm = √(Σ partials)`. Parameters: partials (f32), norm (one f32).
pub fn norm_finish(spec: &NormFinishSpec) -> Kernel {
    let count = spec.partials;
    let mut b = Builder::new(format!("norm_finish_{count}"), [1, 1, 1]);
    let partials = b.param("partials", Elem::F32, Mode::Read);
    let norm = b.param("norm", Elem::F32, Mode::Write);
    let cols = count.min(TILE);
    let (lower, upper, zero) = (b.index(0), b.index(count), b.float(0.0));
    let sum = b.for_loop(lower, upper, cols, &[zero], |b, start, carried| {
        let left = bound(b, count, start, cols);
        let tile = b.load_f32(partials, start, &[cols], &[(1, left)]);
        let part = b.sum(0, tile);
        vec![b.add(carried[0], part)]
    });
    let root = b.unary(Unary::Sqrt, sum[0]);
    b.store(norm, lower, root, &[]);
    b.finish()
}
