//! Views, sums and joins: operations that move elements.

use super::tensor::{Args, Data, Real, Tensor};
use crate::error::IrError;
use crate::types::Shape;

/// Reads `x` at `offset + index · strides` for every index of `shape`, in row-major order.
fn gather<E: Copy>(x: &[E], shape: &Shape, strides: &[usize], offset: usize) -> Vec<E> {
    let mut out = Vec::with_capacity(shape.numel());
    let mut index = vec![0; shape.rank()];
    let mut at = offset;
    loop {
        out.push(x[at]);
        let mut axis = shape.rank();
        loop {
            if axis == 0 {
                return out;
            }
            axis -= 1;
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape.0[axis] {
                break;
            }
            at -= strides[axis] * shape.0[axis];
            index[axis] = 0;
        }
    }
}

fn view<T: Real>(x: &Tensor<T>, shape: Shape, strides: &[usize], offset: usize) -> Tensor<T> {
    let data = match &x.data {
        Data::Float(x) => Data::Float(gather(x, &shape, strides, offset)),
        Data::Int(x) => Data::Int(gather(x, &shape, strides, offset)),
    };
    Tensor { shape, data }
}

pub(super) fn broadcast<T: Real>(x: &Tensor<T>, shape: &Shape) -> Tensor<T> {
    let missing = shape.rank() - x.shape.rank();
    let mut strides = vec![0; shape.rank()];
    for (axis, stride) in x.shape.strides().into_iter().enumerate() {
        if x.shape.0[axis] != 1 {
            strides[missing + axis] = stride;
        }
    }
    view(x, shape.clone(), &strides, 0)
}

pub(super) fn reshape<T: Real>(x: &Tensor<T>, shape: &Shape) -> Tensor<T> {
    Tensor { shape: shape.clone(), data: x.data.clone() }
}

pub(super) fn transpose<T: Real>(x: &Tensor<T>, perm: &[usize], shape: &Shape) -> Tensor<T> {
    let from = x.shape.strides();
    let strides: Vec<usize> = perm.iter().map(|p| from[*p]).collect();
    view(x, shape.clone(), &strides, 0)
}

pub(super) fn slice<T: Real>(x: &Tensor<T>, axis: usize, start: usize, shape: &Shape) -> Tensor<T> {
    let strides = x.shape.strides();
    view(x, shape.clone(), &strides, start * strides[axis])
}

/// Runs of elements before, along and inside an axis: `(outer, size, inner)`.
fn around(shape: &Shape, axis: usize) -> (usize, usize, usize) {
    let product = |dims: &[usize]| dims.iter().product();
    (product(&shape.0[..axis]), shape.0[axis], product(&shape.0[axis + 1..]))
}

pub(super) fn pad<T: Real>(x: &Tensor<T>, axis: usize, before: usize, shape: &Shape) -> Tensor<T> {
    let (outer, size, inner) = around(&x.shape, axis);
    let padded = shape.0[axis];
    fn place<E: Copy>(x: &[E], zero: E, runs: [usize; 3], row: usize) -> Vec<E> {
        let [outer, run, skip] = runs;
        let mut out = vec![zero; outer * row];
        for o in 0..outer {
            out[o * row + skip..][..run].copy_from_slice(&x[o * run..][..run]);
        }
        out
    }
    let runs = [outer, size * inner, before * inner];
    let data = match &x.data {
        Data::Float(x) => Data::Float(place(x, T::zero(), runs, padded * inner)),
        Data::Int(x) => Data::Int(place(x, 0, runs, padded * inner)),
    };
    Tensor { shape: shape.clone(), data }
}

pub(super) fn concat<T: Real>(args: &Args<'_, T>, axis: usize, shape: &Shape) -> Result<Tensor<T>, IrError> {
    fn join<E: Copy>(parts: &[(&[E], usize)], outer: usize) -> Vec<E> {
        let mut out = Vec::new();
        for o in 0..outer {
            for (x, run) in parts {
                out.extend_from_slice(&x[o * run..][..*run]);
            }
        }
        out
    }
    let outer = around(shape, axis).0;
    let run = |i: usize| {
        let (_, size, inner) = around(&args.operands[i].shape, axis);
        size * inner
    };
    let operands = 0..args.operands.len();
    let data = match &args.operands[0].data {
        Data::Float(_) => {
            let parts: Result<Vec<_>, IrError> = operands.map(|i| Ok((args.floats(i)?, run(i)))).collect();
            Data::Float(join(&parts?, outer))
        }
        Data::Int(_) => {
            let parts: Result<Vec<_>, IrError> = operands.map(|i| Ok((args.ints(i)?, run(i)))).collect();
            Data::Int(join(&parts?, outer))
        }
    };
    Ok(Tensor { shape: shape.clone(), data })
}

/// Sum over `axes`, in row-major order of the operand.
pub(super) fn sum<T: Real>(x: &Tensor<T>, axes: &[usize], shape: &Shape) -> Tensor<T> {
    // Stride of every operand axis in the result; 0 along the summed ones.
    let mut kept = x.shape.clone();
    axes.iter().for_each(|axis| kept.0[*axis] = 1);
    let mut strides = kept.strides();
    axes.iter().for_each(|axis| strides[*axis] = 0);
    let positions: Vec<usize> = (0..kept.numel()).collect();
    let targets = gather(&positions, &x.shape, &strides, 0);
    let data = match &x.data {
        Data::Float(x) => {
            let mut out = vec![T::zero(); kept.numel()];
            x.iter().zip(targets).for_each(|(x, target)| out[target] += *x);
            Data::Float(out)
        }
        Data::Int(x) => {
            let mut out = vec![0_i32; kept.numel()];
            x.iter().zip(targets).for_each(|(x, target)| out[target] = out[target].wrapping_add(*x));
            Data::Int(out)
        }
    };
    Tensor { shape: shape.clone(), data }
}
