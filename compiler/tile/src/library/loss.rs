//! Cross-entropy of logits and integer targets, its gradient, and the mean over tokens.
//!
//! Targets below 0 are left out. Targets are validated by the data loader; one beyond the vocabulary makes the loss
//! infinite and reads nothing outside of the row. A row is read in blocks of columns with a running maximum, so the
//! vocabulary may have any size.

use super::{TILE, WORK, bound, grid_indices, load_scalar, tag};
use crate::builder::Builder;
use crate::ir::{Binary, Compare, Elem, Kernel, Mode, ParamId, Unary, ValueId};

/// Counting the targets that take part.
#[derive(Clone, PartialEq, Debug)]
pub struct CountTargetsSpec {
    /// Number of targets.
    pub tokens: usize,
}

/// `inv_count = 1/max(number of targets >= 0, 1)`. Parameters: targets (i32), inv_count (one f32).
pub fn count_targets(spec: &CountTargetsSpec) -> Kernel {
    let mut b = Builder::new(format!("count_targets_{}", spec.tokens), [1, 1, 1]);
    let targets = b.param("targets", Elem::I32, Mode::Read);
    let inv_count = b.param("inv_count", Elem::F32, Mode::Write);
    let value = inverse_count(&mut b, targets, spec.tokens);
    let zero = b.index(0);
    b.store(inv_count, zero, value, &[]);
    b.finish()
}

/// `1/max(number of targets >= 0, 1)`, a scalar.
fn inverse_count(b: &mut Builder, targets: ParamId, tokens: usize) -> ValueId {
    let size = tokens.min(TILE);
    let (lower, upper, none) = (b.index(0), b.index(tokens), b.float(0.0));
    let count = b.for_loop(lower, upper, size, &[none], |b, start, carried| {
        let left = bound(b, tokens, start, size);
        let mut block = b.load(targets, start, &[size], &[(1, left)]);
        if let Some(left) = left {
            // What lies past the end is loaded as 0, which would count.
            let (index, left) = (b.iota(0, &[size]), b.cast(left, Elem::I32));
            let left = b.splat(left, &[size]);
            let inside = b.compare(Compare::Lt, index, left);
            let absent = b.int(-1);
            let absent = b.splat(absent, &[size]);
            block = b.select(inside, block, absent);
        }
        let zero = b.int(0);
        let zero = b.splat(zero, &[size]);
        let counted = b.compare(Compare::Ge, block, zero);
        let (ones, none) = (b.full(1.0, &[size]), b.full(0.0, &[size]));
        let ones = b.select(counted, ones, none);
        let part = b.sum(0, ones);
        vec![b.add(carried[0], part)]
    });
    let one = b.float(1.0);
    let count = b.max(count[0], one);
    b.div(one, count)
}

/// Rows of logits, dense `[rows, vocab]`.
#[derive(Clone, PartialEq, Debug)]
pub struct CrossEntropyRowsSpec {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub vocab: usize,
    /// Element type of the logits.
    pub logits: Elem,
    /// Replace the logits by their gradient.
    pub in_place_gradient: bool,
}

/// Parameters: logits, targets (i32 `[rows]`), nll (f32 `[rows]`); with `in_place_gradient` also inv_count, dloss (one
/// f32 each).
///
/// `nll = logsumexp(row) − row[target]`, or 0 where the target is below 0. The gradient that replaces the logits is
/// `(softmax(row) − onehot(target))·inv_count·dloss`, or 0.
pub fn cross_entropy_rows(spec: &CrossEntropyRowsSpec) -> Kernel {
    let CrossEntropyRowsSpec { rows, vocab, .. } = *spec;
    let group = rows_per_program(rows, vocab);
    let name = format!(
        "cross_entropy_rows{}_{rows}x{vocab}_{}",
        if spec.in_place_gradient { "_grad" } else { "" },
        tag(spec.logits)
    );
    let mut b = Builder::new(name, [rows.div_ceil(group), 1, 1]);
    let mode = if spec.in_place_gradient { Mode::ReadWrite } else { Mode::Read };
    let logits = b.param("logits", spec.logits, mode);
    let targets = b.param("targets", Elem::I32, Mode::Read);
    let nll = b.param("nll", Elem::F32, Mode::Write);
    let scale = spec.in_place_gradient.then(|| {
        let inv_count = b.param("inv_count", Elem::F32, Mode::Read);
        let dloss = b.param("dloss", Elem::F32, Mode::Read);
        let (inv_count, dloss) = (load_scalar(&mut b, inv_count), load_scalar(&mut b, dloss));
        b.mul(inv_count, dloss)
    });
    let gradient = scale.map(|scale| (logits, scale));
    let (first, end) = program_rows(&mut b, rows, group);
    b.for_loop(first, end, 1, &[], |b, row, _| {
        let value = row_loss(b, logits, targets, vocab, row, gradient);
        b.store(nll, row, value, &[]);
        vec![]
    });
    b.finish()
}

/// The mean over tokens.
#[derive(Clone, PartialEq, Debug)]
pub struct MeanNllSpec {
    /// Number of tokens.
    pub tokens: usize,
}

/// `loss = inv_count·Σ nll`. Parameters: nll (f32 `[tokens]`), inv_count (one f32), loss (one f32).
pub fn mean_nll(spec: &MeanNllSpec) -> Kernel {
    let tokens = spec.tokens;
    let size = tokens.min(TILE);
    let mut b = Builder::new(format!("mean_nll_{tokens}"), [1, 1, 1]);
    let nll = b.param("nll", Elem::F32, Mode::Read);
    let inv_count = b.param("inv_count", Elem::F32, Mode::Read);
    let loss = b.param("loss", Elem::F32, Mode::Write);
    let (lower, upper, none) = (b.index(0), b.index(tokens), b.float(0.0));
    let sum = b.for_loop(lower, upper, size, &[none], |b, start, carried| {
        let left = bound(b, tokens, start, size);
        let block = b.load(nll, start, &[size], &[(1, left)]);
        let part = b.sum(0, block);
        vec![b.add(carried[0], part)]
    });
    let inv_count = load_scalar(&mut b, inv_count);
    let mean = b.mul(sum[0], inv_count);
    b.store(loss, lower, mean, &[]);
    b.finish()
}

/// Cross-entropy as one launch that needs no memory besides its operands: logits dense `[rows, vocab]`.
#[derive(Clone, PartialEq, Debug)]
pub struct CrossEntropySpec {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub vocab: usize,
    /// Element type of the logits, and of their gradient.
    pub logits: Elem,
}

/// Mean loss over the targets >= 0. Parameters: logits, targets (i32), loss (one f32).
///
/// One program walks all rows. For speed use [`cross_entropy_rows`] and [`mean_nll`].
pub fn cross_entropy(spec: &CrossEntropySpec) -> Kernel {
    let CrossEntropySpec { rows, vocab, .. } = *spec;
    let mut b = Builder::new(format!("cross_entropy_{rows}x{vocab}_{}", tag(spec.logits)), [1, 1, 1]);
    let logits = b.param("logits", spec.logits, Mode::Read);
    let targets = b.param("targets", Elem::I32, Mode::Read);
    let loss = b.param("loss", Elem::F32, Mode::Write);
    let inv_count = inverse_count(&mut b, targets, rows);
    let (first, end, none) = (b.index(0), b.index(rows), b.float(0.0));
    let sum = b.for_loop(first, end, 1, &[none], |b, row, carried| {
        let value = row_loss(b, logits, targets, vocab, row, None);
        vec![b.add(carried[0], value)]
    });
    let mean = b.mul(sum[0], inv_count);
    b.store(loss, first, mean, &[]);
    b.finish()
}

/// `dlogits = (softmax(row) − onehot(target))/count·dloss`, or 0 where the target is below 0.
/// Parameters: logits, targets (i32), dloss (one f32), dlogits.
///
/// Each program counts the targets itself, which is little beside its rows.
pub fn cross_entropy_grad(spec: &CrossEntropySpec) -> Kernel {
    let CrossEntropySpec { rows, vocab, .. } = *spec;
    let group = rows_per_program(rows, vocab);
    let name = format!("cross_entropy_grad_{rows}x{vocab}_{}", tag(spec.logits));
    let mut b = Builder::new(name, [rows.div_ceil(group), 1, 1]);
    let logits = b.param("logits", spec.logits, Mode::Read);
    let targets = b.param("targets", Elem::I32, Mode::Read);
    let dloss = b.param("dloss", Elem::F32, Mode::Read);
    let dlogits = b.param("dlogits", spec.logits, Mode::Write);
    let (inv_count, dloss) = (inverse_count(&mut b, targets, rows), load_scalar(&mut b, dloss));
    let scale = b.mul(inv_count, dloss);
    let (first, end) = program_rows(&mut b, rows, group);
    b.for_loop(first, end, 1, &[], |b, row, _| {
        row_loss(b, logits, targets, vocab, row, Some((dlogits, scale)));
        vec![]
    });
    b.finish()
}

/// Rows that make a program worth its start.
fn rows_per_program(rows: usize, vocab: usize) -> usize {
    (WORK / vocab).clamp(1, rows)
}

/// First row and end of this program's rows.
fn program_rows(b: &mut Builder, rows: usize, group: usize) -> (ValueId, ValueId) {
    let block = grid_indices(b, &[rows.div_ceil(group)])[0];
    let (first, length, all) = (b.scale_index(block, group), b.index(group), b.index(rows));
    let end = b.add(first, length);
    (first, b.min(end, all))
}

/// The negative log likelihood of one row. With `gradient` also writes the row of a gradient: destination and factor;
/// the destination may be the logits.
fn row_loss(
    b: &mut Builder,
    logits: ParamId,
    targets: ParamId,
    vocab: usize,
    row: ValueId,
    gradient: Option<(ParamId, ValueId)>,
) -> ValueId {
    let start = b.scale_index(row, vocab);
    let target = b.load(targets, row, &[], &[]);
    let target = b.cast(target, Elem::Index);
    let (zero, size) = (b.index(0), b.index(vocab));
    let (from_zero, in_vocab) = (b.compare(Compare::Ge, target, zero), b.compare(Compare::Lt, target, size));
    let valid = b.binary(Binary::And, from_zero, in_vocab);
    let result = b.if_else(
        valid,
        |b| {
            let lse = log_sum_exp(b, logits, vocab, start);
            let at = b.add(start, target);
            let logit = b.load_f32(logits, at, &[], &[]);
            let log_likelihood = b.sub(logit, lse);
            if let Some((to, scale)) = gradient {
                each_block(b, vocab, &[], |b, col, size, _| {
                    let at = b.add(start, col);
                    let block = b.load_f32(logits, at, &[size], &[(1, None)]);
                    let probability = exp_minus(b, block, lse);
                    let scale = b.splat(scale, &[size]);
                    let block = b.mul(probability, scale);
                    b.store(to, at, block, &[(1, None)]);
                    vec![]
                });
                // The target's element again, from the logit itself: nothing is lost to a rounding in between.
                let (probability, one) = (b.exp(log_likelihood), b.float(1.0));
                let difference = b.sub(probability, one);
                let element = b.mul(difference, scale);
                b.store(to, at, element, &[]);
            }
            vec![b.unary(Unary::Neg, log_likelihood)]
        },
        |b| {
            if let Some((to, _)) = gradient {
                each_block(b, vocab, &[], |b, col, size, _| {
                    let (at, zeros) = (b.add(start, col), b.full(0.0, &[size]));
                    b.store(to, at, zeros, &[(1, None)]);
                    vec![]
                });
            }
            let (nothing, infinite) = (b.float(0.0), b.float(f64::INFINITY));
            vec![b.select(from_zero, infinite, nothing)]
        },
    );
    result[0]
}

/// `ln Σ e^x` of a row, in one sweep with a running maximum.
fn log_sum_exp(b: &mut Builder, logits: ParamId, vocab: usize, start: ValueId) -> ValueId {
    // Below every maximum that matters, yet finite: differences with it stay defined.
    let (lowest, none) = (b.float(-1e30), b.float(0.0));
    let statistics = each_block(b, vocab, &[lowest, none], |b, col, size, carried| {
        let (max, sum) = (carried[0], carried[1]);
        let at = b.add(start, col);
        let block = b.load_f32(logits, at, &[size], &[(1, None)]);
        let block_max = b.reduce_max(0, block);
        let new_max = b.max(max, block_max);
        let terms = exp_minus(b, block, new_max);
        let block_sum = b.sum(0, terms);
        let change = exp_minus(b, max, new_max);
        vec![new_max, b.fma(sum, change, block_sum)]
    });
    let log = b.unary(Unary::Log, statistics[1]);
    b.add(statistics[0], log)
}

/// `e^(x − shift)`, `shift` a scalar.
fn exp_minus(b: &mut Builder, x: ValueId, shift: ValueId) -> ValueId {
    let shape = b.ty(x).shape;
    let shift = b.splat(shift, &shape);
    let difference = b.sub(x, shift);
    b.exp(difference)
}

/// Runs `body(first column, columns, carried)` over blocks of equal size, then over a shorter one with what is left;
/// no block needs a mask.
fn each_block(
    b: &mut Builder,
    vocab: usize,
    init: &[ValueId],
    body: impl Fn(&mut Builder, ValueId, usize, &[ValueId]) -> Vec<ValueId>,
) -> Vec<ValueId> {
    // As equal as possible, so that there is seldom a rest: 128256 columns are 32 blocks of 4008.
    let size = vocab.div_ceil(vocab.div_ceil(TILE)).next_multiple_of(8).min(vocab);
    let rest = vocab % size;
    let (first, end) = (b.index(0), b.index(vocab - rest));
    let carried = b.for_loop(first, end, size, init, |b, col, carried| body(b, col, size, carried));
    if rest == 0 { carried } else { body(b, end, rest, &carried) }
}
