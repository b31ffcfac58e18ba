//! Cross-entropy of logits and integer targets, its gradient, and the mean over tokens.
//!
//! Targets below 0 are left out. Targets are validated by the data loader; one beyond the vocabulary makes the loss
//! infinite and reads nothing outside of the row. A row is read in blocks with a running maximum, so the vocabulary may
//! have any size. A block is a matrix whose columns have a maximum and a sum each: what lies between them in memory
//! is for other lanes, so that only the last reduction crosses lanes.

mod log_probs;

use super::{TILE, WORK, bound, grid_indices, load_scalar, tag};
use crate::builder::Builder;
use crate::ir::{Binary, Compare, Elem, Kernel, Mode, ParamId, Unary, ValueId};

pub use log_probs::log_probs;

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
    /// Tokens: the first dimension of the logits.
    pub rows: usize,
    /// Classes: the second dimension of the logits.
    pub vocab: usize,
    /// Element type of the logits.
    pub logits: Elem,
    /// Replace the logits by their gradient.
    pub in_place_gradient: bool,
    /// Rows and columns of the blocks that a row of logits is cut into, at most.
    pub block: (usize, usize),
}

/// Parameters: logits, targets (i32 `[rows]`), nll (f32 `[rows]`); with `in_place_gradient` also inv_count, dloss (one
/// f32 each).
///
/// `nll = logsumexp(row) − row[target]`, or 0 where the target is below 0. The gradient that replaces the logits is
/// `(softmax(row) − onehot(target))·inv_count·dloss`, or 0.
pub fn cross_entropy_rows(spec: &CrossEntropyRowsSpec) -> Kernel {
    let CrossEntropyRowsSpec { rows, vocab, .. } = *spec;
    let (group, blocks) = (rows_per_program(rows, vocab), Blocks::of(vocab, spec.block));
    let name = format!(
        "cross_entropy_rows{}_{rows}x{vocab}_{}_{}",
        if spec.in_place_gradient { "_grad" } else { "" },
        blocks.tag(),
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
        let value = row_loss(b, logits, targets, &blocks, row, gradient);
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
    /// Tokens: the first dimension of the logits.
    pub rows: usize,
    /// Classes: the second dimension of the logits.
    pub vocab: usize,
    /// Element type of the logits, and of their gradient.
    pub logits: Elem,
    /// Rows and columns of the blocks that a row of logits is cut into, at most.
    pub block: (usize, usize),
}

/// Mean loss over the targets >= 0. Parameters: logits, targets (i32), loss (one f32).
///
/// One program walks all rows. For speed use [`cross_entropy_rows`] and [`mean_nll`].
pub fn cross_entropy(spec: &CrossEntropySpec) -> Kernel {
    let CrossEntropySpec { rows, vocab, .. } = *spec;
    let blocks = Blocks::of(vocab, spec.block);
    let name = format!("cross_entropy_{rows}x{vocab}_{}_{}", blocks.tag(), tag(spec.logits));
    let mut b = Builder::new(name, [1, 1, 1]);
    let logits = b.param("logits", spec.logits, Mode::Read);
    let targets = b.param("targets", Elem::I32, Mode::Read);
    let loss = b.param("loss", Elem::F32, Mode::Write);
    let inv_count = inverse_count(&mut b, targets, rows);
    let (first, end, none) = (b.index(0), b.index(rows), b.float(0.0));
    let sum = b.for_loop(first, end, 1, &[none], |b, row, carried| {
        let value = row_loss(b, logits, targets, &blocks, row, None);
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
    let (group, blocks) = (rows_per_program(rows, vocab), Blocks::of(vocab, spec.block));
    let name = format!("cross_entropy_grad_{rows}x{vocab}_{}_{}", blocks.tag(), tag(spec.logits));
    let mut b = Builder::new(name, [rows.div_ceil(group), 1, 1]);
    let logits = b.param("logits", spec.logits, Mode::Read);
    let targets = b.param("targets", Elem::I32, Mode::Read);
    let dloss = b.param("dloss", Elem::F32, Mode::Read);
    let dlogits = b.param("dlogits", spec.logits, Mode::Write);
    let (inv_count, dloss) = (inverse_count(&mut b, targets, rows), load_scalar(&mut b, dloss));
    let scale = b.mul(inv_count, dloss);
    let (first, end) = program_rows(&mut b, rows, group);
    b.for_loop(first, end, 1, &[], |b, row, _| {
        row_loss(b, logits, targets, &blocks, row, Some((dlogits, scale)));
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

/// How a row of logits is cut up: `count` blocks of `rows x cols`, then a vector of what is left.
struct Blocks {
    vocab: usize,
    rows: usize,
    cols: usize,
    count: usize,
    rest: usize,
}

impl Blocks {
    /// Columns are as equal as possible, so that little is left, and as many as may be before there are several rows:
    /// 128256 logits are 32 rows of 4008.
    fn of(vocab: usize, (rows, cols): (usize, usize)) -> Blocks {
        let all = vocab.div_ceil(cols);
        let rows = rows.min(all);
        let share = vocab / all.next_multiple_of(rows);
        let blocks = |cols: usize| {
            let count = vocab.checked_div(rows * cols).unwrap_or(0);
            Blocks { vocab, rows, cols, count, rest: vocab - count * rows * cols }
        };
        // Whole pieces of 16 bytes: in all rows a little less than their share, or in fewer a little more.
        let (less, more) = (blocks(share / 8 * 8), blocks(share.next_multiple_of(8)));
        if less.rest <= more.rest { less } else { more }
    }

    fn tag(&self) -> String {
        format!("b{}x{}x{}", self.count, self.rows, self.cols)
    }

    fn size(&self) -> usize {
        self.rows * self.cols
    }

    fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// The axes of a block in a row of logits.
    fn axes(&self) -> [(usize, Option<ValueId>); 2] {
        [(self.cols, None), (1, None)]
    }

    /// First column of what is left.
    fn rest_start(&self) -> usize {
        self.vocab - self.rest
    }

    /// `f(first element, shape, axes)` for all parts of the row that starts at `start`, from the last to the first: of what was
    /// read forwards just before, the end is in a cache.
    fn backwards(
        &self,
        b: &mut Builder,
        start: ValueId,
        f: impl Fn(&mut Builder, ValueId, &[usize], &[(usize, Option<ValueId>)]),
    ) {
        if self.rest > 0 {
            let end = b.index(self.rest_start());
            let at = b.add(start, end);
            f(b, at, &[self.rest], &[(1, None)]);
        }
        if self.count > 0 {
            let (zero, end) = (b.index(0), b.index(self.rest_start()));
            let last = b.index(self.rest_start() - self.size());
            let last = b.add(start, last);
            b.for_loop(zero, end, self.size(), &[], |b, back, _| {
                let at = b.sub(last, back);
                f(b, at, &self.shape(), &self.axes());
                vec![]
            });
        }
    }
}

/// The negative log likelihood of one row. With `gradient` also writes the row of a gradient: destination and factor;
/// the destination may be the logits.
fn row_loss(
    b: &mut Builder,
    logits: ParamId,
    targets: ParamId,
    blocks: &Blocks,
    row: ValueId,
    gradient: Option<(ParamId, ValueId)>,
) -> ValueId {
    let start = b.scale_index(row, blocks.vocab);
    let target = b.load(targets, row, &[], &[]);
    let target = b.cast(target, Elem::Index);
    let (zero, size) = (b.index(0), b.index(blocks.vocab));
    let (from_zero, in_vocab) = (b.compare(Compare::Ge, target, zero), b.compare(Compare::Lt, target, size));
    let valid = b.binary(Binary::And, from_zero, in_vocab);
    let result = b.if_else(
        valid,
        |b| {
            // First of all: the sweep that overwrites it need not wait for who reads it.
            let at = b.add(start, target);
            let logit = b.load_f32(logits, at, &[], &[]);
            let lse = log_sum_exp(b, logits, blocks, start);
            let log_likelihood = b.sub(logit, lse);
            if let Some((to, scale)) = gradient {
                blocks.backwards(b, start, |b, at, shape, axes| {
                    let block = b.load_f32(logits, at, shape, axes);
                    let probability = exp_minus(b, block, lse);
                    let scale = b.splat(scale, shape);
                    let block = b.mul(probability, scale);
                    b.store(to, at, block, axes);
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
                blocks.backwards(b, start, |b, at, shape, axes| {
                    let zeros = b.full(0.0, shape);
                    b.store(to, at, zeros, axes);
                });
            }
            let (nothing, infinite) = (b.float(0.0), b.float(f64::INFINITY));
            vec![b.select(from_zero, infinite, nothing)]
        },
    );
    result[0]
}

/// Below every maximum that matters, yet finite: differences with it stay defined.
const LOWEST: f64 = -1e30;

/// `ln Σ e^x` of a row, in one sweep with a running maximum.
fn log_sum_exp(b: &mut Builder, logits: ParamId, blocks: &Blocks, start: ValueId) -> ValueId {
    let (max, log) = statistics(b, logits, blocks, start);
    b.add(max, log)
}

/// The maximum of a row, and `ln Σ e^(x − max)`.
fn statistics(b: &mut Builder, logits: ParamId, blocks: &Blocks, start: ValueId) -> (ValueId, ValueId) {
    // Maximum, and sum relative to it, of parts of the row.
    let mut parts = vec![];
    if blocks.count > 0 {
        let (lowest, none) = (b.full(LOWEST, &[blocks.cols]), b.full(0.0, &[blocks.cols]));
        let (first, end) = (b.index(0), b.index(blocks.rest_start()));
        let statistics = b.for_loop(first, end, blocks.size(), &[lowest, none], |b, col, carried| {
            let (max, sum) = (carried[0], carried[1]);
            let at = b.add(start, col);
            let block = b.load_f32(logits, at, &blocks.shape(), &blocks.axes());
            let block_max = b.reduce_max(0, block);
            let new_max = b.max(max, block_max);
            let shift = b.expand_rows(new_max, blocks.rows);
            let terms = b.sub(block, shift);
            let terms = b.exp(terms);
            let block_sum = b.sum(0, terms);
            let change = b.sub(max, new_max);
            let change = b.exp(change);
            vec![new_max, b.fma(sum, change, block_sum)]
        });
        let max = b.reduce_max(0, statistics[0]);
        let change = exp_minus(b, statistics[0], max);
        let sum = b.mul(statistics[1], change);
        parts.push((max, b.sum(0, sum)));
    }
    if blocks.rest > 0 {
        let end = b.index(blocks.rest_start());
        let at = b.add(start, end);
        let block = b.load_f32(logits, at, &[blocks.rest], &[(1, None)]);
        let (max, lowest) = (b.reduce_max(0, block), b.float(LOWEST));
        let max = b.max(max, lowest);
        let terms = exp_minus(b, block, max);
        parts.push((max, b.sum(0, terms)));
    }
    let (max, sum) = parts
        .into_iter()
        .reduce(|(max, sum), (other, more)| {
            let both = b.max(max, other);
            let (change, other_change) = (exp_minus(b, max, both), exp_minus(b, other, both));
            let sum = b.mul(sum, change);
            (both, b.fma(more, other_change, sum))
        })
        .expect("a row has a logit");
    let log = b.unary(Unary::Log, sum);
    (max, log)
}

/// `e^(x − shift)`, `shift` a scalar.
fn exp_minus(b: &mut Builder, x: ValueId, shift: ValueId) -> ValueId {
    let shape = b.ty(x).shape;
    let shift = b.splat(shift, &shape);
    let difference = b.sub(x, shift);
    b.exp(difference)
}
