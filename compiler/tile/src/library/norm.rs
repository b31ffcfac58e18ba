//! RMS norm (arXiv 1910.07467) and its gradient, each also fused with the residual connection around it.
//!
//! With `r = 1/√(mean(x²) + eps)` per row: `y = x·r·w`; and for the gradient, with `g = dy·w`,
//! `dx = r·(g − x·r·mean(g·x·r))`, `dw = Σ_rows dy·x·r`. The gradient recomputes `r` from `x`.

use super::{TILE, bound, grid_indices, number, tag};
use crate::builder::Builder;
use crate::ir::{Elem, Kernel, Mode, Unary, ValueId};

/// Forward norm of `[rows, d]`.
#[derive(Clone, PartialEq, Debug)]
pub struct RmsNormSpec {
    /// Tokens: each is normalised by itself.
    pub rows: usize,
    /// Columns, the normalised axis.
    pub d: usize,
    /// Added to the mean square.
    pub eps: f64,
    /// Distance of the rows of `x`, in elements; all other operands are dense.
    pub x_stride: usize,
    /// Element type of `x`, and of the residual and the sum if there are any.
    pub x: Elem,
    /// Element type of `w`.
    pub w: Elem,
    /// Element type of `y`.
    pub y: Elem,
    /// Normalise `sum = x + residual`, rounded to `x`'s type, and store it too.
    pub residual: bool,
}

/// Parameters: x, w, y; with `residual`: x, residual, w, y, sum.
///
/// `sum` may be the same memory as `residual`, or as a dense `x`.
pub fn rms_norm(spec: &RmsNormSpec) -> Kernel {
    let RmsNormSpec { rows, d, .. } = *spec;
    let tile_rows = (TILE / d).clamp(1, rows);
    let count = rows.div_ceil(tile_rows);
    let mut b = Builder::new(forward_name(spec), [count, 1, 1]);
    let x = b.param("x", spec.x, Mode::Read);
    let residual = spec.residual.then(|| b.param("residual", spec.x, Mode::Read));
    let w = b.param("w", spec.w, Mode::Read);
    let y = b.param("y", spec.y, Mode::Write);
    let sum = spec.residual.then(|| b.param("sum", spec.x, Mode::Write));

    let shape = [tile_rows, d];
    let block = grid_indices(&mut b, &[count])[0];
    let row = b.scale_index(block, tile_rows);
    let row_bound = bound(&mut b, rows, row, tile_rows);
    let dense = [(d, row_bound), (1, None)];
    let (from, to, start) = (b.scale_index(row, spec.x_stride), b.scale_index(row, d), b.index(0));
    let weight = b.load_f32(w, start, &[d], &[(1, None)]);
    let weight = b.expand_rows(weight, tile_rows);
    let mut value = b.load_f32(x, from, &shape, &[(spec.x_stride, row_bound), (1, None)]);
    if let (Some(residual), Some(sum)) = (residual, sum) {
        let other = b.load_f32(residual, to, &shape, &dense);
        let exact = b.add(value, other);
        // The norm sees what later readers of the sum will see.
        let rounded = b.cast(exact, spec.x);
        b.store(sum, to, rounded, &dense);
        value = b.cast(rounded, Elem::F32);
    }
    let scale = inverse_rms(&mut b, value, spec.eps);
    let scale = b.expand_cols(scale, d);
    let normalised = b.mul(value, scale);
    let result = b.mul(normalised, weight);
    b.store(y, to, result, &dense);
    b.finish()
}

fn forward_name(spec: &RmsNormSpec) -> String {
    format!(
        "rms_norm{}_{}x{}_s{}_eps{}_{}_{}_{}",
        if spec.residual { "_residual" } else { "" },
        spec.rows,
        spec.d,
        spec.x_stride,
        number(spec.eps),
        tag(spec.x),
        tag(spec.w),
        tag(spec.y)
    )
}

/// `1/√(mean(x²) + eps)` per row, `[rows, d]` to `[rows]`.
fn inverse_rms(b: &mut Builder, x: ValueId, eps: f64) -> ValueId {
    let shape = b.ty(x).shape;
    let squares = b.mul(x, x);
    let total = b.sum(1, squares);
    let mean = b.scale(total, 1.0 / shape[1] as f64);
    // The smallest normal number keeps a row of zeros (also the padding of a tile) at zero if eps is 0.
    let eps = b.full(eps.max(f64::from(f32::MIN_POSITIVE)), &shape[..1]);
    let shifted = b.add(mean, eps);
    b.unary(Unary::Rsqrt, shifted)
}

/// Gradient of the norm of `[rows, d]`.
#[derive(Clone, PartialEq, Debug)]
pub struct RmsNormGradSpec {
    /// Tokens: each was normalised by itself.
    pub rows: usize,
    /// Columns, the normalised axis.
    pub d: usize,
    /// As in the forward.
    pub eps: f64,
    /// Number P of row blocks; block `p` is the rows from `p·ceil(rows/P)`, and may be empty.
    pub blocks: usize,
    /// Distance of the rows of `x`, in elements; all other operands are dense.
    pub x_stride: usize,
    /// Element type of `x`.
    pub x: Elem,
    /// Element type of `w`.
    pub w: Elem,
    /// Element type of `dy`, and of `dres` if there is one.
    pub dy: Elem,
    /// Element type of `dx`.
    pub dx: Elem,
    /// Add `dres`, the gradient that reaches the norm's operand by other ways, to the rounded `dx`.
    pub residual: bool,
}

/// Parameters: x, w, dy, dx, dw_partial (f32 `[P, d]`, one sum per row block); with `residual`: x, w, dy, dres, dx,
/// dw_partial.
///
/// One program per row block. `dx` may be the same memory as `dy` or `dres`.
pub fn rms_norm_grad(spec: &RmsNormGradSpec) -> Kernel {
    let RmsNormGradSpec { rows, d, .. } = *spec;
    let block_rows = rows.div_ceil(spec.blocks);
    let tile_rows = (TILE / d).clamp(1, block_rows);
    let mut b = Builder::new(grad_name(spec), [spec.blocks, 1, 1]);
    let x = b.param("x", spec.x, Mode::Read);
    let w = b.param("w", spec.w, Mode::Read);
    let dy = b.param("dy", spec.dy, Mode::Read);
    let dres = spec.residual.then(|| b.param("dres", spec.dy, Mode::Read));
    let dx = b.param("dx", spec.dx, Mode::Write);
    let dw = b.param("dw_partial", Elem::F32, Mode::Write);

    let shape = [tile_rows, d];
    let (block, start, all, length) = (b.program_id(0), b.index(0), b.index(rows), b.index(block_rows));
    let first = b.scale_index(block, block_rows);
    let end = b.add(first, length);
    let end = b.min(end, all);
    let weight = b.load_f32(w, start, &[d], &[(1, None)]);
    let weight = b.expand_rows(weight, tile_rows);
    let zero = b.full(0.0, &[d]);
    let sums = b.for_loop(first, end, tile_rows, &[zero], |b, row, carried| {
        let left = Some(b.sub(end, row));
        let dense = [(d, left), (1, None)];
        let (from, at) = (b.scale_index(row, spec.x_stride), b.scale_index(row, d));
        let value = b.load_f32(x, from, &shape, &[(spec.x_stride, left), (1, None)]);
        let upstream = b.load_f32(dy, at, &shape, &dense);
        // With the others: all are on their way before the first sum is waited for.
        let other = dres.map(|dres| b.load_f32(dres, at, &shape, &dense));
        let scale = inverse_rms(b, value, spec.eps);
        let scale = b.expand_cols(scale, d);
        let normalised = b.mul(value, scale);
        let weighted = b.mul(upstream, weight);
        let product = b.mul(weighted, normalised);
        let along = b.sum(1, product);
        let along = b.scale(along, 1.0 / d as f64);
        let along = b.expand_cols(along, d);
        let along = b.mul(normalised, along);
        let across = b.sub(weighted, along);
        let mut gradient = b.mul(across, scale);
        if let Some(other) = other {
            // As if it had been stored, so that the fused form gives the same bits; in f32 where nothing contracts.
            let rounded = b.cast(gradient, spec.dx);
            let rounded = b.cast(rounded, Elem::F32);
            gradient = b.add(rounded, other);
        }
        b.store(dx, at, gradient, &dense);
        let product = b.mul(upstream, normalised);
        let part = b.sum(0, product);
        vec![b.add(carried[0], part)]
    });
    let to = b.scale_index(block, d);
    b.store(dw, to, sums[0], &[(1, None)]);
    b.finish()
}

fn grad_name(spec: &RmsNormGradSpec) -> String {
    format!(
        "rms_norm_grad{}_{}x{}_p{}_s{}_eps{}_{}_{}_{}_{}",
        if spec.residual { "_residual" } else { "" },
        spec.rows,
        spec.d,
        spec.blocks,
        spec.x_stride,
        number(spec.eps),
        tag(spec.x),
        tag(spec.w),
        tag(spec.dy),
        tag(spec.dx)
    )
}
