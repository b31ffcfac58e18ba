//! Validation: loss over data that is not trained on, and accuracy of recall.

use std::sync::atomic::AtomicBool;

use linc_data::{RecallAccuracy, ValidationData};
use linc_driver::names;
use linc_session::Session;

use super::observer::Observer;
use super::programs::EVAL;
use crate::error::TrainError;
use crate::metrics::Record;

/// Measures `steps` batches (-1 for all) of a validation part into `record`; losses are weighted by their targets. False
/// if `stop` was set before it was through: `record` is then as it was.
pub(super) fn validate(
    session: &mut Session,
    data: &ValidationData,
    steps: i64,
    vocab: usize,
    record: &mut Record,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<bool, TrainError> {
    let (mut nats, mut count, mut bytes) = (0.0, 0u64, 0u64);
    let mut accuracy = RecallAccuracy::default();
    let batches = data.batches_of(steps);
    observer.validating(0, batches);
    for index in 0..batches {
        let batch = data.batch(index)?;
        match data {
            ValidationData::Text(_) => {
                let positions = batch.positions.as_deref();
                let loss = session.loss(EVAL, &batch.tokens, &batch.targets, positions, stop)?;
                let Some(loss) = loss else { return Ok(false) };
                nats += f64::from(loss) * batch.target_count() as f64;
            }
            ValidationData::Recall(_) => {
                let Some(logits) = logits(session, &batch.tokens, stop)? else { return Ok(false) };
                let row = |position: usize| &logits[position * vocab..(position + 1) * vocab];
                let queries = batch.queries.iter();
                nats += queries.map(|q| nll(row(q.position), batch.targets[q.position])).sum::<f64>();
                accuracy.add(&batch, |position| argmax(row(position)));
            }
        }
        count += batch.target_count() as u64;
        bytes += batch.target_bytes.unwrap_or(0);
        observer.validating(index + 1, batches);
    }
    record.validation_loss = Some(nats / count.max(1) as f64);
    if bytes > 0 {
        record.validation_bits_per_byte = Some(nats / std::f64::consts::LN_2 / bytes as f64);
    }
    if accuracy.overall.total > 0 {
        record.validation_accuracy = Some(accuracy.overall.accuracy());
    }
    Ok(true)
}

/// Logits `[B*N, vocab]` of a batch by the evaluation program; nothing if `stop` is set before it is through.
fn logits(session: &mut Session, tokens: &[i32], stop: &AtomicBool) -> Result<Option<Vec<f32>>, TrainError> {
    session.executor.write_input(EVAL, names::TOKENS, bytemuck::cast_slice(tokens))?;
    if !session.executor.run_until(EVAL, stop)? {
        return Ok(None);
    }
    Ok(Some(session.executor.output(EVAL, names::LOGITS)?))
}

/// Negative log likelihood of a target in a row of logits.
fn nll(row: &[f32], target: i32) -> f64 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|x| f64::from(x - max).exp()).sum();
    let own = usize::try_from(target).ok().and_then(|t| row.get(t)).copied().unwrap_or(f32::NEG_INFINITY);
    sum.ln() - f64::from(own - max)
}

fn argmax(row: &[f32]) -> i32 {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    best.map_or(-1, |(i, _)| i as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nll_is_the_negative_log_softmax() {
        let row = [1000.0, 1001.0, 999.0];
        let expected = (1.0 + (-1f64).exp() + (-2f64).exp()).ln();
        assert!((nll(&row, 1) - expected).abs() < 1e-12);
        assert!((nll(&row, 2) - expected - 2.0).abs() < 1e-12);
    }

    #[test]
    fn the_first_of_equal_logits_wins() {
        assert_eq!(argmax(&[0.0, 3.0, 3.0, -1.0]), 1);
        assert_eq!(argmax(&[]), -1);
    }
}
