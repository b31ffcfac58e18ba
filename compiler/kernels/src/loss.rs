//! The chunked output head: logits of some rows at a time, their loss, and their gradient in place.

use linc_ir::Value;
use linc_tile::Elem;
use linc_tile::library::loss::{
    CountTargetsSpec, CrossEntropyRowsSpec, CrossEntropySpec, MeanNllSpec, count_targets, cross_entropy_rows,
    log_probs, mean_nll,
};

use crate::context::Lowering;
use crate::{Cost, Gemm, KernelError, Target};

/// Rows of logits from which on the sweep over the output head is limited by arithmetic. A sweep of the gradient reads
/// and writes the gradient of the head's weights in f32, 8 bytes for 2 operations a row, so rows must exceed 4 times the
/// operations that the machine does per byte of memory; one of the forward reads the weights. `narrow` is whether the
/// head is of bf16 or f16.
pub fn min_loss_rows(target: Target, narrow: bool, gradient: bool) -> usize {
    match (target, narrow, gradient) {
        // A few operations of f32 per byte on a CPU, where neither hides behind the other; 10 to 20 on most GPUs.
        (Target::Cpu, ..) | (Target::Cuda | Target::Hopper, false, _) => 256,
        // Of bf16 or f16, 156 (A100), 206 (H200), 295 (H100) or 419 (L40S).
        (Target::Cuda | Target::Hopper, true, true) => 2048,
        (Target::Cuda | Target::Hopper, true, false) => 512,
    }
}

/// Rows and columns of the blocks that a row of logits is read in: on a CPU what stays in its first cache. On a GPU 64 KiB, of
/// which a multiprocessor holds two: one block of threads then keeps memory busy, and the rows that all
/// multiprocessors work on, 250 KB each for 128,256 logits, are still in the second-level cache when the gradient reads
/// them again.
pub(crate) fn logit_block(target: Target, logits: Elem) -> (usize, usize) {
    match (target, logits) {
        (Target::Cpu, _) => (8, 512),
        (Target::Cuda | Target::Hopper, Elem::Bf16 | Elem::F16) => (8, 4096),
        (Target::Cuda | Target::Hopper, _) => (8, 2048),
    }
}

/// `(h, w, targets) -> (loss, logits, nll)`
pub(crate) fn forward(l: &mut Lowering<'_>, chunk: usize) -> Result<(), KernelError> {
    let (logits, nll) = (l.results[1], l.results[2]);
    sweep(l, chunk, logits, nll, None)
}

/// `(h, w, targets, dloss) -> (loss, dh, dw, logits, nll)`
pub(crate) fn gradient(l: &mut Lowering<'_>, chunk: usize) -> Result<(), KernelError> {
    let (logits, nll) = (l.results[3], l.results[4]);
    sweep(l, chunk, logits, nll, Some((l.operands[3], l.results[1], l.results[2])))
}

/// `(h, w, targets) -> (log_probs, best_log_probs, best, logits)`
pub(crate) fn scores(l: &mut Lowering<'_>, chunk: usize) -> Result<(), KernelError> {
    let (h, w, targets) = (l.operands[0], l.operands[1], l.operands[2]);
    let (tokens, dim, vocab) = (l.shape(h).0[0], l.shape(h).0[1], l.shape(w).0[0]);
    let logits = l.results[3];
    let elem = l.uniform_elem(&[h, w, logits])?;
    for start in (0..tokens).step_by(chunk.max(1)) {
        let rows = chunk.min(tokens - start);
        l.gemm(Gemm {
            size: (rows, vocab, dim),
            a: (l.place(h).at(start * dim), (dim, 1)),
            b: (l.place(w), (1, dim)),
            c: (l.place(logits), (vocab, 1)),
            accumulate: false,
        });
        let spec = CrossEntropySpec { rows, vocab, logits: elem, block: logit_block(l.target, elem) };
        let rows_of = [targets, l.results[0], l.results[1], l.results[2]];
        let args = std::iter::once(l.place(logits)).chain(rows_of.map(|v| l.place(v).at(start))).collect();
        // One sweep for the sum, and one for the place of the largest.
        let numel = (rows * vocab) as u64;
        let bytes = 2 * l.ty(logits).dtype.bytes() as u64 * numel;
        l.launch_costing(Cost { flops: 7 * numel, bytes }, log_probs(&spec), args);
    }
    Ok(())
}

/// With `gradient` = (dloss, dh, dw) the gradients as well.
fn sweep(
    l: &mut Lowering<'_>,
    chunk: usize,
    logits: Value,
    nll: Value,
    gradient: Option<(Value, Value, Value)>,
) -> Result<(), KernelError> {
    let (h, w, targets) = (l.operands[0], l.operands[1], l.operands[2]);
    let (tokens, dim, vocab) = (l.shape(h).0[0], l.shape(h).0[1], l.shape(w).0[0]);
    let elem = l.uniform_elem(&[h, w, logits])?;
    let inv_count = l.place(nll).at(tokens);
    l.launch(count_targets(&CountTargetsSpec { tokens }), vec![l.place(targets), inv_count]);
    for start in (0..tokens).step_by(chunk.max(1)) {
        let rows = chunk.min(tokens - start);
        let hidden = l.place(h).at(start * dim);
        let scores = l.place(logits);
        l.gemm(Gemm {
            size: (rows, vocab, dim),
            a: (hidden, (dim, 1)),
            b: (l.place(w), (1, dim)),
            c: (scores, (vocab, 1)),
            accumulate: false,
        });
        let block = logit_block(l.target, elem);
        let spec =
            CrossEntropyRowsSpec { rows, vocab, logits: elem, in_place_gradient: gradient.is_some(), block };
        let mut args = vec![scores, l.place(targets).at(start), l.place(nll).at(start)];
        if let Some((dloss, ..)) = gradient {
            args.extend([inv_count, l.place(dloss)]);
        }
        // Two sweeps for the sum and the gradient, one more to write it.
        let numel = (rows * vocab) as u64;
        let sweeps = if gradient.is_some() { 3 } else { 1 };
        let bytes = l.ty(logits).dtype.bytes() as u64 * sweeps * numel;
        let cost = Cost { flops: 5 * numel, bytes };
        l.launch_costing(cost, cross_entropy_rows(&spec), args);
        if let Some((_, dh, dw)) = gradient {
            l.gemm(Gemm {
                size: (rows, dim, vocab),
                a: (scores, (vocab, 1)),
                b: (l.place(w), (dim, 1)),
                c: (l.place(dh).at(start * dim), (dim, 1)),
                accumulate: false,
            });
            l.gemm(Gemm {
                size: (vocab, dim, rows),
                a: (scores, (1, vocab)),
                b: (hidden, (dim, 1)),
                c: (l.place(dw), (dim, 1)),
                accumulate: start > 0,
            });
        }
    }
    let loss = l.place(l.results[0]);
    l.launch(mean_nll(&MeanNllSpec { tokens }), vec![l.place(nll), inv_count, loss]);
    Ok(())
}
