//! Global gradient norm, and the formulas of optimizers.

use super::dense::inner;
use super::tensor::{Args, Real, Tensor};
use crate::error::IrError;
use crate::op::NORM_BLOCK;
use crate::optimizer::{AdamSpec, AdamWSpec, UpdateOp};
use crate::types::TensorType;

/// `[norm, partials]`, one sum of squares per block of each operand.
pub(super) fn global_norm<T: Real>(
    args: &Args<'_, T>,
    types: &[TensorType],
) -> Result<Vec<Tensor<T>>, IrError> {
    let mut partials = Vec::with_capacity(types[1].shape.numel());
    for i in 0..args.operands.len() {
        partials.extend(args.floats(i)?.chunks(NORM_BLOCK).map(|block| inner(block, block)));
    }
    Ok(vec![Tensor::scalar(norm(&partials)), Tensor::float(types[1].shape.clone(), partials)])
}

/// The norm, from its partial sums.
pub(super) fn norm<T: Real>(partials: &[T]) -> T {
    partials.iter().copied().sum::<T>().sqrt()
}

/// `[p', states'..]`; what they were where the operands say that nothing is updated.
pub(super) fn update<T: Real>(args: &Args<'_, T>, op: &UpdateOp) -> Result<Vec<Vec<T>>, IrError> {
    let operands = args.operands.len();
    if op.is_guarded(operands) && args.scalar(operands - 1)? == T::zero() {
        let kept = [0].into_iter().chain(2..op.states().len() + 2);
        return kept.map(|i| Ok(args.floats(i)?.to_vec())).collect();
    }
    match op {
        UpdateOp::AdamW(spec) => adam(args, spec, true),
        UpdateOp::Adam(AdamSpec(numbers)) => adam(args, numbers, false),
    }
}

/// `[p', m', v']`; decay is decoupled (arXiv 1711.05101) or a part of the gradient, eps is added to the corrected root.
fn adam<T: Real>(args: &Args<'_, T>, spec: &AdamWSpec, decoupled: bool) -> Result<Vec<Vec<T>>, IrError> {
    let (lr, step, clip) = (args.scalar(4)?, args.scalar(5)?, args.scalar(6)?);
    let (beta1, beta2, one) = (T::of(spec.beta1), T::of(spec.beta2), T::one());
    let correction1 = one - beta1.powf(step);
    let correction2 = one - beta2.powf(step);
    let (mut p, mut m, mut v) =
        (args.floats(0)?.to_vec(), args.floats(2)?.to_vec(), args.floats(3)?.to_vec());
    for (i, g) in args.floats(1)?.iter().enumerate() {
        let decay = T::of(spec.weight_decay) * p[i];
        let g = if decoupled { clip * *g } else { clip * *g + decay };
        m[i] = beta1 * m[i] + (one - beta1) * g;
        v[i] = beta2 * v[i] + (one - beta2) * g * g;
        let decayed = if decoupled { p[i] - lr * decay } else { p[i] };
        let root = (v[i] / correction2).sqrt() + T::of(spec.eps);
        p[i] = decayed - lr * (m[i] / correction1) / root;
    }
    Ok(vec![p, m, v])
}
