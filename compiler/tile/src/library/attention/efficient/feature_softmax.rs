//! The softmax of queries over their features, and its gradient.

use crate::builder::Builder;
use crate::ir::{Unary, ValueId};
use crate::library::attention::common::scale_rows;

/// Softmax of each row of `x * temperature`, f32.
pub(crate) fn softmax_rows(b: &mut Builder, x: ValueId, temperature: f64) -> ValueId {
    let (e, _) = exponential_rows(b, x, temperature, None);
    let sum = b.sum(1, e);
    let inverse = b.unary(Unary::Recip, sum);
    scale_rows(b, e, inverse)
}

/// What the softmax of a part of a row needs of the whole row.
#[derive(Clone, Copy)]
pub(crate) struct RowStatistics {
    /// Largest element after the temperature, `[rows]`.
    pub max: ValueId,
    /// 1 / the sum of `exp(x − max)`, `[rows]`.
    pub inverse: ValueId,
}

/// `exp(x * temperature − max)` of each row, f32, and `max`: the largest element of the row, or `at_least` that.
pub(crate) fn exponential_rows(
    b: &mut Builder,
    x: ValueId,
    temperature: f64,
    at_least: Option<ValueId>,
) -> (ValueId, ValueId) {
    let cols = b.ty(x).shape[1];
    let x = temper(b, x, temperature);
    let max = b.reduce_max(1, x);
    let max = at_least.map_or(max, |least| b.max(least, max));
    let highest = b.expand_cols(max, cols);
    let shifted = b.sub(x, highest);
    (b.exp(shifted), max)
}

/// The part `x` of rows that have these statistics, after the softmax of the whole rows.
pub(crate) fn softmax_part(
    b: &mut Builder,
    x: ValueId,
    temperature: f64,
    statistics: RowStatistics,
) -> ValueId {
    let cols = b.ty(x).shape[1];
    let x = temper(b, x, temperature);
    let max = b.expand_cols(statistics.max, cols);
    let shifted = b.sub(x, max);
    let e = b.exp(shifted);
    scale_rows(b, e, statistics.inverse)
}

/// Softmax of the vector `x * temperature`, f32.
pub(crate) fn softmax_vector(b: &mut Builder, x: ValueId, temperature: f64) -> ValueId {
    let shape = b.ty(x).shape;
    let x = temper(b, x, temperature);
    let max = b.reduce_max(0, x);
    let max = b.splat(max, &shape);
    let shifted = b.sub(x, max);
    let e = b.exp(shifted);
    let sum = b.sum(0, e);
    let sum = b.splat(sum, &shape);
    b.div(e, sum)
}

/// Gradient of `softmax(q·temperature)` over rows: `temperature · P ⊙ (dP − rowsum(P ⊙ dP))`.
pub(crate) fn softmax_rows_grad(b: &mut Builder, p: ValueId, dp: ValueId, temperature: f64) -> ValueId {
    let product = b.mul(p, dp);
    let delta = b.sum(1, product);
    centred_grad(b, p, dp, delta, temperature)
}

/// `temperature · P ⊙ (dP − delta)` for rows whose `delta` `[rows]` is known.
pub(crate) fn centred_grad(
    b: &mut Builder,
    p: ValueId,
    dp: ValueId,
    delta: ValueId,
    temperature: f64,
) -> ValueId {
    let cols = b.ty(p).shape[1];
    let delta = b.expand_cols(delta, cols);
    let centred = b.sub(dp, delta);
    let dq = b.mul(p, centred);
    temper(b, dq, temperature)
}

/// `x * temperature`; nothing is emitted for 1.
pub(crate) fn temper(b: &mut Builder, x: ValueId, temperature: f64) -> ValueId {
    if temperature == 1.0 { x } else { b.scale(x, temperature) }
}
