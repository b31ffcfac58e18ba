//! Matmul, RMS norm, rotary position, embedding.

use super::tensor::{Args, Real, Tensor, round};
use crate::error::IrError;
use crate::op::{RopeScaling, TableKind};
use crate::types::{Shape, TensorType};

/// Row-major `[cols, rows]` copy of `[rows, cols]`.
fn transposed<T: Real>(x: &[T], rows: usize, cols: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(x.len());
    for c in 0..cols {
        out.extend((0..rows).map(|r| x[r * cols + c]));
    }
    out
}

/// `out += a b` for row-major `a` [m, k], `b` [k, n], `out` [m, n].
pub(super) fn accumulate<T: Real>(a: &[T], b: &[T], out: &mut [T], k: usize, n: usize) {
    for (a_row, out_row) in a.chunks_exact(k).zip(out.chunks_exact_mut(n)) {
        for (x, b_row) in a_row.iter().zip(b.chunks_exact(n)) {
            add_scaled(out_row, *x, b_row);
        }
    }
}

/// `out += factor * x`
pub(super) fn add_scaled<T: Real>(out: &mut [T], factor: T, x: &[T]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o += factor * *x;
    }
}

/// Sum of products.
pub(super) fn inner<T: Real>(x: &[T], y: &[T]) -> T {
    x.iter().zip(y).map(|(x, y)| *x * *y).sum()
}

/// Product of matrices given as stored, with the flags of [`crate::op::Op::MatMul`]; `shape` is `[m, n]`.
pub(super) fn product<T: Real>(a: &[T], b: &[T], trans: [bool; 2], m: usize, n: usize) -> Vec<T> {
    let k = a.len() / m;
    let mut out = vec![T::zero(); m * n];
    let a_rows = if trans[0] { &transposed(a, k, m)[..] } else { a };
    let b_rows = if trans[1] { &transposed(b, n, k)[..] } else { b };
    accumulate(a_rows, b_rows, &mut out, k, n);
    out
}

pub(super) fn matmul<T: Real>(
    args: &Args<'_, T>,
    trans: [bool; 2],
    shape: &Shape,
) -> Result<Tensor<T>, IrError> {
    let out = product(args.floats(0)?, args.floats(1)?, trans, shape.0[0], shape.0[1]);
    Ok(Tensor::float(shape.clone(), out))
}

/// `1 / sqrt(mean(x²) + eps)`
fn inverse_rms<T: Real>(x: &[T], eps: f64) -> T {
    let mean = inner(x, x) / T::of(x.len() as f64);
    T::one() / (mean + T::of(eps)).sqrt()
}

/// The sum of two tensors, rounded to the type of its storage.
fn rounded_sum<T: Real>(x: &[T], y: &[T], ty: &TensorType) -> Vec<T> {
    let mut sum: Vec<T> = x.iter().zip(y).map(|(x, y)| *x + *y).collect();
    round(&mut sum, ty.dtype);
    sum
}

pub(super) fn rms_norm<T: Real>(
    args: &Args<'_, T>,
    eps: f64,
    types: &[TensorType],
) -> Result<Vec<Tensor<T>>, IrError> {
    let (x, w) = (args.floats(0)?, args.floats(1)?);
    let sum = types.get(1).map(|ty| Ok::<_, IrError>(rounded_sum(x, args.floats(2)?, ty))).transpose()?;
    let x = sum.as_deref().unwrap_or(x);
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(w.len()) {
        let r = inverse_rms(row, eps);
        out.extend(row.iter().zip(w).map(|(x, w)| *x * r * *w));
    }
    Ok([Some(out), sum].into_iter().flatten().map(|x| Tensor::float(types[0].shape.clone(), x)).collect())
}

/// With x̂ = x·r: `dx = r (w·dy - x̂ mean(w·dy·x̂))` and `dw = Σ_rows dy·x̂`, the rows of `dw` summed in contiguous
/// blocks of `ceil(rows / blocks)`.
pub(super) fn rms_norm_grad<T: Real>(
    args: &Args<'_, T>,
    eps: f64,
    types: &[TensorType],
) -> Result<Vec<Tensor<T>>, IrError> {
    let (x, w, dy) = (args.floats(0)?, args.floats(1)?, args.floats(2)?);
    let (d, partial) = (w.len(), &types[1].shape);
    let rows_per_block = (x.len() / d).div_ceil(partial.0[0]);
    let mut dx = Vec::with_capacity(x.len());
    let mut dw = vec![T::zero(); partial.numel()];
    for (row, (x, dy)) in x.chunks_exact(d).zip(dy.chunks_exact(d)).enumerate() {
        let r = inverse_rms(x, eps);
        let normed: Vec<T> = x.iter().map(|x| *x * r).collect();
        let scaled: Vec<T> = dy.iter().zip(w).map(|(dy, w)| *dy * *w).collect();
        let mean = inner(&normed, &scaled) / T::of(d as f64);
        dx.extend(normed.iter().zip(&scaled).map(|(n, s)| r * (*s - *n * mean)));
        let block = &mut dw[row / rows_per_block * d..][..d];
        block.iter_mut().zip(normed.iter().zip(dy)).for_each(|(dw, (n, dy))| *dw += *n * *dy);
    }
    if args.operands.len() == 4 {
        round(&mut dx, types[0].dtype);
        dx = rounded_sum(&dx, args.floats(3)?, &types[0]);
    }
    Ok(vec![Tensor::float(types[0].shape.clone(), dx), Tensor::float(partial.clone(), dw)])
}

/// Positions of `n` tokens of each sequence from its start on, `[batch * n]`.
pub(super) fn following(starts: &[usize], n: usize) -> Vec<usize> {
    starts.iter().flat_map(|start| (0..n).map(move |t| start + t)).collect()
}

/// Rotates the interleaved feature pairs of `x` [batch, n, heads, d] by the angles of the positions [batch * n].
pub(super) fn rotate<T: Real>(
    x: &[T],
    dims: &[usize],
    table: &[T],
    positions: &[usize],
    inverse: bool,
) -> Vec<T> {
    let (heads, d) = (dims[2], dims[3]);
    let mut out = Vec::with_capacity(x.len());
    for (row, x) in x.chunks_exact(d).enumerate() {
        let position = positions[row / heads];
        for (pair, angle) in x.chunks_exact(2).zip(table[position * d..][..d].chunks_exact(2)) {
            let (cos, sin) = (angle[0], if inverse { -angle[1] } else { angle[1] });
            out.extend([pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos]);
        }
    }
    out
}

pub(super) fn rope<T: Real>(args: &Args<'_, T>, inverse: bool) -> Result<Tensor<T>, IrError> {
    let (dims, len) = (args.dims(0), args.dims(1)[0]);
    let given = if args.operands.len() == 3 { args.positions(2, len)? } else { vec![0; dims[0]] };
    if args.operands.len() == 3 && args.dims(2).len() == 2 {
        let out = rotate(args.floats(0)?, dims, args.floats(1)?, &given, inverse);
        return Ok(Tensor::float(args.operands[0].shape.clone(), out));
    }
    if let Some(start) = given.iter().find(|start| *start + dims[1] > len) {
        return args.error(format!("positions {start}..{} exceed the table of {len}", start + dims[1]));
    }
    let out = rotate(args.floats(0)?, dims, args.floats(1)?, &following(&given, dims[1]), inverse);
    Ok(Tensor::float(args.operands[0].shape.clone(), out))
}

/// Contents of a table of the given shape `[len, head_dim/2, 2]`, row-major, in double precision.
pub fn rope_table(kind: &TableKind, shape: &Shape) -> Vec<f64> {
    let len = shape.0.first().copied().unwrap_or(1).max(1);
    let frequencies = rope_frequencies(kind, shape.numel() / len / 2);
    let mut out = Vec::with_capacity(shape.numel());
    for position in 0..len {
        for frequency in &frequencies {
            let angle = position as f64 * frequency;
            out.extend([angle.cos(), angle.sin()]);
        }
    }
    out
}

/// Angle per position of each of `pairs` feature pairs.
pub fn rope_frequencies(kind: &TableKind, pairs: usize) -> Vec<f64> {
    let TableKind::Rope { theta, scaling } = kind;
    (0..pairs)
        .map(|i| {
            let frequency = theta.powf(-(i as f64) / pairs as f64);
            scaling.map_or(frequency, |s| rescaled(frequency, &s))
        })
        .collect()
}

/// Llama 3.1: long waves are slowed down by `factor`, short ones kept, those between blended.
fn rescaled(frequency: f64, s: &RopeScaling) -> f64 {
    let turns = s.original_max_position as f64 * frequency / (2.0 * std::f64::consts::PI);
    if turns > s.high_freq_factor {
        frequency
    } else if turns < s.low_freq_factor {
        frequency / s.factor
    } else {
        let kept = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
        (1.0 - kept) * frequency / s.factor + kept * frequency
    }
}

/// A token id as a row of a table of `rows` rows.
pub(super) fn row<T: Real>(args: &Args<'_, T>, id: i32, rows: usize) -> Result<usize, IrError> {
    match usize::try_from(id) {
        Ok(row) if row < rows => Ok(row),
        _ => args.error(format!("id {id} is outside 0..{rows}")),
    }
}

pub(super) fn embedding<T: Real>(args: &Args<'_, T>, shape: &Shape) -> Result<Tensor<T>, IrError> {
    let (table, d) = (args.floats(0)?, shape.last());
    let mut out = Vec::with_capacity(shape.numel());
    for id in args.ints(1)? {
        out.extend_from_slice(&table[row(args, *id, args.dims(0)[0])? * d..][..d]);
    }
    Ok(Tensor::float(shape.clone(), out))
}

pub(super) fn embedding_grad<T: Real>(args: &Args<'_, T>, shape: &Shape) -> Result<Tensor<T>, IrError> {
    let (ids, dy, d) = (args.ints(0)?, args.floats(1)?, shape.last());
    let mut out = vec![T::zero(); shape.numel()];
    for (id, dy) in ids.iter().zip(dy.chunks_exact(d)) {
        add_scaled(&mut out[row(args, *id, shape.0[0])? * d..][..d], T::one(), dy);
    }
    Ok(Tensor::float(shape.clone(), out))
}
