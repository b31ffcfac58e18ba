//! The log-probabilities of given tokens, and the most likely ones.

use super::{Blocks, CrossEntropySpec, program_rows, rows_per_program, statistics};
use crate::builder::Builder;
use crate::ir::{Binary, Compare, Elem, Kernel, Mode, ParamId, ValueId};
use crate::library::tag;

/// What a model says of each token by itself. Parameters: logits, targets (i32), log_probs (f32 `[rows]`), best_log_probs
/// (f32 `[rows]`), best (i32 `[rows]`).
///
/// The log-probability of a target below 0 is 0. Of equal logits the first is the best; where none is a number, the first
/// of all.
pub fn log_probs(spec: &CrossEntropySpec) -> Kernel {
    let CrossEntropySpec { rows, vocab, .. } = *spec;
    let (group, blocks) = (rows_per_program(rows, vocab), Blocks::of(vocab, spec.block));
    let name = format!("log_probs_{rows}x{vocab}_{}_{}", blocks.tag(), tag(spec.logits));
    let mut b = Builder::new(name, [rows.div_ceil(group), 1, 1]);
    let logits = b.param("logits", spec.logits, Mode::Read);
    let targets = b.param("targets", Elem::I32, Mode::Read);
    let [chosen, best] = ["log_probs", "best_log_probs"].map(|name| b.param(name, Elem::F32, Mode::Write));
    let place = b.param("best", Elem::I32, Mode::Write);
    let (first, end) = program_rows(&mut b, rows, group);
    b.for_loop(first, end, 1, &[], |b, row, _| {
        let start = b.scale_index(row, vocab);
        let (max, log_sum) = statistics(b, logits, &blocks, start);
        let log_sum_exp = b.add(max, log_sum);
        let log_probability = target_log_probability(b, logits, targets, vocab, row, log_sum_exp);
        b.store(chosen, row, log_probability, &[]);
        // As of a target, so that the two are equal where they are the same token's.
        let largest = b.sub(max, log_sum_exp);
        b.store(best, row, largest, &[]);
        let at = first_place(b, logits, &blocks, start, max);
        b.store(place, row, at, &[]);
        vec![]
    });
    b.finish()
}

/// The log-probability of the target of a row; 0 below 0, and −∞ beyond the vocabulary.
fn target_log_probability(
    b: &mut Builder,
    logits: ParamId,
    targets: ParamId,
    vocab: usize,
    row: ValueId,
    log_sum_exp: ValueId,
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
            let at = b.add(start, target);
            let logit = b.load_f32(logits, at, &[], &[]);
            vec![b.sub(logit, log_sum_exp)]
        },
        |b| {
            let (nothing, infinite) = (b.float(0.0), b.float(f64::NEG_INFINITY));
            vec![b.select(from_zero, infinite, nothing)]
        },
    );
    result[0]
}

/// The first place of a row whose element is `max`; 0 if there is none.
fn first_place(b: &mut Builder, logits: ParamId, blocks: &Blocks, start: ValueId, max: ValueId) -> ValueId {
    // Places are counted down from the end of the row, so that the first one is the largest number.
    let all = blocks.vocab as f64;
    let mut parts = vec![];
    let last_of =
        |b: &mut Builder, at: ValueId, col: ValueId, numbers: ValueId, shape: &[usize], axes: &[_]| {
            let block = b.load_f32(logits, at, shape, axes);
            let max = b.splat(max, shape);
            let is_max = b.compare(Compare::Eq, block, max);
            let col = b.cast(col, Elem::I32);
            let col = b.cast(col, Elem::F32);
            let col = b.splat(col, shape);
            let left = b.sub(numbers, col);
            let none = b.full(0.0, shape);
            b.select(is_max, left, none)
        };
    if blocks.count > 0 {
        let shape = blocks.shape();
        let (row, col) = (b.iota(0, &shape), b.iota(1, &shape));
        let (row, col) = (b.cast(row, Elem::F32), b.cast(col, Elem::F32));
        let row = b.scale(row, blocks.cols as f64);
        let before = b.add(row, col);
        let total = b.full(all, &shape);
        let numbers = b.sub(total, before);
        let (none, first, end) = (b.full(0.0, &[blocks.cols]), b.index(0), b.index(blocks.rest_start()));
        let found = b.for_loop(first, end, blocks.size(), &[none], |b, col, carried| {
            let at = b.add(start, col);
            let found = last_of(b, at, col, numbers, &shape, &blocks.axes());
            let found = b.reduce_max(0, found);
            vec![b.max(carried[0], found)]
        });
        parts.push(b.reduce_max(0, found[0]));
    }
    if blocks.rest > 0 {
        let shape = [blocks.rest];
        let col = b.index(blocks.rest_start());
        let at = b.add(start, col);
        let before = b.iota(0, &shape);
        let before = b.cast(before, Elem::F32);
        let total = b.full(all, &shape);
        let numbers = b.sub(total, before);
        let found = last_of(b, at, col, numbers, &shape, &[(1, None)]);
        parts.push(b.reduce_max(0, found));
    }
    let found = parts.into_iter().reduce(|a, c| b.max(a, c)).expect("a row has a logit");
    let total = b.float(all);
    let place = b.sub(total, found);
    // Nothing equals a maximum that is NaN.
    let zero = b.float(0.0);
    let is_there = b.compare(Compare::Gt, found, zero);
    let place = b.select(is_there, place, zero);
    b.cast(place, Elem::I32)
}
