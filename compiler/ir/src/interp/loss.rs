//! Cross-entropy, of logits and of the output projection.

use super::attention::softmax;
use super::dense::{product, row};
use super::tensor::{Args, Real, Tensor, round};
use crate::error::IrError;
use crate::types::{DType, TensorType};

/// Number of targets that count; 1 if none does, so that loss and gradients are then 0.
fn counted<T: Real>(targets: &[i32]) -> T {
    T::of(targets.iter().filter(|t| **t >= 0).count().max(1) as f64)
}

/// Negative log likelihood of every row (0 where the target is negative), and, in place of the logits, the
/// gradient of their sum: `softmax - onehot`, 0 in ignored rows.
fn rows<T: Real>(args: &Args<'_, T>, logits: &mut [T], targets: &[i32]) -> Result<Vec<T>, IrError> {
    let vocab = logits.len() / targets.len();
    let mut nll = Vec::with_capacity(targets.len());
    for (logits, target) in logits.chunks_exact_mut(vocab).zip(targets) {
        if *target < 0 {
            logits.fill(T::zero());
            nll.push(T::zero());
            continue;
        }
        let target = row(args, *target, vocab)?;
        let chosen = logits[target];
        nll.push(softmax(logits) - chosen);
        logits[target] = logits[target] - T::one();
    }
    Ok(nll)
}

pub(super) fn cross_entropy<T: Real>(args: &Args<'_, T>) -> Result<Tensor<T>, IrError> {
    let targets = args.ints(1)?;
    let nll = rows(args, &mut args.floats(0)?.to_vec(), targets)?;
    Ok(Tensor::scalar(nll.into_iter().sum::<T>() / counted(targets)))
}

pub(super) fn cross_entropy_grad<T: Real>(args: &Args<'_, T>) -> Result<Tensor<T>, IrError> {
    let targets = args.ints(1)?;
    let mut grad = args.floats(0)?.to_vec();
    rows(args, &mut grad, targets)?;
    let factor = args.scalar(2)? / counted(targets);
    grad.iter_mut().for_each(|x| *x = *x * factor);
    Ok(Tensor::float(args.operands[0].shape.clone(), grad))
}

pub(super) fn log_probs<T: Real>(args: &Args<'_, T>) -> Result<Vec<Tensor<T>>, IrError> {
    scores(args, args.floats(0)?, args.ints(1)?, args.dims(0)[1])
}

/// The logits workspace is zeros.
pub(super) fn linear_log_probs<T: Real>(
    args: &Args<'_, T>,
    types: &[TensorType],
) -> Result<Vec<Tensor<T>>, IrError> {
    let mut found = scores(args, &logits(args, types[3].dtype)?, args.ints(2)?, args.dims(1)[0])?;
    found.push(Tensor::full(&types[3], 0.0));
    Ok(found)
}

/// Log-probabilities of targets (0 where one is negative), and the largest of each row with its place.
fn scores<T: Real>(
    args: &Args<'_, T>,
    logits: &[T],
    targets: &[i32],
    vocab: usize,
) -> Result<Vec<Tensor<T>>, IrError> {
    let (mut chosen, mut bests, mut ids) = (vec![], vec![], vec![]);
    for (logits, target) in logits.chunks_exact(vocab).zip(targets) {
        let best = (0..vocab).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
        let log_sum = softmax(&mut logits.to_vec());
        chosen.push(match *target {
            ..0 => T::zero(),
            target => logits[row(args, target, vocab)?] - log_sum,
        });
        bests.push(logits[best] - log_sum);
        ids.push(best as i32);
    }
    let rows = [targets.len()];
    Ok(vec![Tensor::float(rows, chosen), Tensor::float(rows, bests), Tensor::int(rows, ids)])
}

/// `h wᵀ`, as the workspace holds it.
fn logits<T: Real>(args: &Args<'_, T>, workspace: DType) -> Result<Vec<T>, IrError> {
    let (tokens, vocab) = (args.dims(0)[0], args.dims(1)[0]);
    let mut logits = product(args.floats(0)?, args.floats(1)?, [false, true], tokens, vocab);
    round(&mut logits, workspace);
    Ok(logits)
}

/// The logits workspace is zeros.
pub(super) fn linear_cross_entropy<T: Real>(
    args: &Args<'_, T>,
    types: &[TensorType],
) -> Result<Vec<Tensor<T>>, IrError> {
    let targets = args.ints(2)?;
    let nll = rows(args, &mut logits(args, types[1].dtype)?, targets)?;
    let loss = nll.iter().copied().sum::<T>() / counted(targets);
    let nll = Tensor::float(types[2].shape.clone(), nll);
    Ok(vec![Tensor::scalar(loss), Tensor::full(&types[1], 0.0), nll])
}

/// The logits workspace is zeros.
pub(super) fn linear_cross_entropy_grad<T: Real>(
    args: &Args<'_, T>,
    types: &[TensorType],
) -> Result<Vec<Tensor<T>>, IrError> {
    let (h, w, targets) = (args.floats(0)?, args.floats(1)?, args.ints(2)?);
    let (tokens, dim, vocab) = (args.dims(0)[0], args.dims(0)[1], args.dims(1)[0]);
    let mut dlogits = logits(args, types[3].dtype)?;
    let nll = rows(args, &mut dlogits, targets)?;
    let loss = nll.iter().copied().sum::<T>() / counted(targets);
    let factor = args.scalar(3)? / counted(targets);
    dlogits.iter_mut().for_each(|x| *x = *x * factor);
    round(&mut dlogits, types[3].dtype);
    let dh = product(&dlogits, w, [false, false], tokens, dim);
    let dw = product(&dlogits, h, [true, false], vocab, dim);
    Ok(vec![
        Tensor::scalar(loss),
        Tensor::float(types[1].shape.clone(), dh),
        Tensor::float(types[2].shape.clone(), dw),
        Tensor::full(&types[3], 0.0),
        Tensor::float(types[4].shape.clone(), nll),
    ])
}
