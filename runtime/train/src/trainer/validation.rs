//! Validation: loss over data that is not trained on, and accuracy of recall.

use std::sync::atomic::{AtomicBool, Ordering};

use linc_data::{Batch, RecallAccuracy, Score, ValidationData};
use linc_driver::names;
use linc_session::Session;

use super::observer::Observer;
use super::programs::EVAL;
use crate::error::TrainError;
use crate::metrics::Record;
use crate::team::Team;

/// What a batch comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Measured {
    nats: f64,
    targets: u64,
    bytes: u64,
    /// Of recall: queries that were answered right, and all.
    right: u64,
    queries: u64,
}

/// Measures `steps` batches (-1 for all) of a validation part into `record`; losses are weighted by their targets. Ranks share
/// out the batches, and add up in the order of all. False if `stop` was set, on any of them, before it was through: `record` is then as it
/// was.
pub(super) fn validate(
    session: &mut Session,
    data: &ValidationData,
    team: &Team,
    (steps, vocab): (i64, usize),
    record: &mut Record,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<bool, TrainError> {
    let batches = data.batches_of(steps);
    let mut mine = vec![];
    // Ranks leave together, between rounds of batches: one that left alone would wait while the others measure all.
    let never = AtomicBool::new(false);
    let of_batch = if team.is_alone() { stop } else { &never };
    observer.validating(0, batches);
    for round in 0..batches.div_ceil(team.size()) {
        if team.any("the validation", stop.load(Ordering::Relaxed))? {
            return Ok(false);
        }
        let index = round * team.size() + team.rank();
        if index >= batches {
            continue;
        }
        let Some(measured) = measure(session, data, &data.batch(index)?, vocab, of_batch)? else {
            return Ok(false);
        };
        mine.push(measured);
        observer.validating((index + team.size()).min(batches), batches);
    }
    let Some(all) = of_all(team, mine, batches)? else { return Ok(false) };
    let nats: f64 = all.iter().map(|batch| batch.nats).sum();
    let sum = |of: fn(&Measured) -> u64| all.iter().map(of).sum::<u64>();
    let (targets, bytes) = (sum(|batch| batch.targets), sum(|batch| batch.bytes));
    let (right, queries) = (sum(|batch| batch.right), sum(|batch| batch.queries));
    record.validation_loss = Some(nats / targets.max(1) as f64);
    if bytes > 0 {
        record.validation_bits_per_byte = Some(nats / std::f64::consts::LN_2 / bytes as f64);
    }
    if queries > 0 {
        record.validation_accuracy = Some(Score { right, total: queries }.accuracy());
    }
    Ok(true)
}

/// All batches in their order, of what each rank has of them; nothing where one lacks some.
fn of_all(team: &Team, mine: Vec<Measured>, batches: usize) -> Result<Option<Vec<Measured>>, TrainError> {
    if team.is_alone() {
        return Ok((mine.len() == batches).then_some(mine));
    }
    let words = mine.iter().flat_map(|Measured { nats, targets, bytes, right, queries }| {
        [nats.to_bits(), *targets, *bytes, *right, *queries]
    });
    let words: Vec<u64> = words.collect();
    let all = team.gather_numbers("the validation", &words)?;
    let of_rank = |words: Vec<u64>| {
        let (batches, _) = words.as_chunks::<5>();
        let measured = batches.iter().map(|[nats, targets, bytes, right, queries]| Measured {
            nats: f64::from_bits(*nats),
            targets: *targets,
            bytes: *bytes,
            right: *right,
            queries: *queries,
        });
        measured.collect::<Vec<_>>()
    };
    let ranks: Vec<Vec<Measured>> = all.into_iter().map(of_rank).collect();
    let batch = |index: usize| ranks[index % ranks.len()].get(index / ranks.len()).copied();
    Ok((0..batches).map(batch).collect())
}

/// Measures a batch; nothing if `stop` is set before it is through.
fn measure(
    session: &mut Session,
    data: &ValidationData,
    batch: &Batch,
    vocab: usize,
    stop: &AtomicBool,
) -> Result<Option<Measured>, TrainError> {
    let mut measured = Measured {
        targets: batch.target_count() as u64,
        bytes: batch.target_bytes.unwrap_or(0),
        ..Measured::default()
    };
    match data {
        ValidationData::Text(_) => {
            let positions = batch.positions.as_deref();
            let loss = session.loss(EVAL, &batch.tokens, &batch.targets, positions, stop)?;
            let Some(loss) = loss else { return Ok(None) };
            measured.nats = f64::from(loss) * batch.target_count() as f64;
        }
        ValidationData::Recall(_) => {
            let Some(logits) = logits(session, &batch.tokens, stop)? else { return Ok(None) };
            let row = |position: usize| &logits[position * vocab..(position + 1) * vocab];
            let queries = batch.queries.iter();
            measured.nats = queries.map(|q| nll(row(q.position), batch.targets[q.position])).sum();
            let mut accuracy = RecallAccuracy::default();
            accuracy.add(batch, |position| argmax(row(position)));
            (measured.right, measured.queries) = (accuracy.overall.right, accuracy.overall.total);
        }
    }
    Ok(Some(measured))
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
