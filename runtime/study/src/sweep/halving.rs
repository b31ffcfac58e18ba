//! Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943): all runs are trained a little, the best of them
//! some times longer, and so on. Runs are compared at equal steps on equal batches, and all of a round end before the
//! next begins, so that what goes on does not depend on how many are carried out at once.

use linc_config::ConfigError;

use super::{Method, Metric, Run, Sweep};
use crate::error::StudyError;
use crate::results::RunRecords;

/// The steps after which runs are compared, ascending; the last are all of them. Without halving, that alone.
///
/// # Errors
/// Runs of a halving that do not train on the same amounts.
pub(super) fn rounds(sweep: &Sweep) -> Result<Vec<usize>, ConfigError> {
    let steps = sweep.runs.iter().map(|run| run.config.training.steps).max().unwrap_or(0);
    if sweep.settings.method != Method::Halving {
        return Ok(vec![steps]);
    }
    let amount = |run: &Run| {
        let training = &run.config.training;
        (training.steps, training.batch_size * run.config.accumulation_steps(), training.seq_len)
    };
    if let Some(other) = sweep.runs.iter().find(|run| amount(run) != amount(&sweep.runs[0])) {
        let message = format!(
            "halving compares runs at equal tokens, and {} has other steps, batches or lengths than {}",
            other.name, sweep.runs[0].name
        );
        let help = "vary other settings, or say method = \"grid\" or \"random\" in [sweep]";
        return Err(ConfigError::new(message).help(help));
    }
    let factor = sweep.settings.halving_factor;
    let (mut rounds, mut left, mut next) = (vec![], sweep.runs.len(), sweep.settings.halving_steps);
    while left > 1 && next < steps {
        rounds.push(next);
        left = kept(left, factor);
        next = next.saturating_mul(factor);
    }
    rounds.push(steps);
    Ok(rounds)
}

/// How many of so many runs go on.
fn kept(runs: usize, factor: usize) -> usize {
    runs.div_ceil(factor).max(1)
}

/// The runs that go on after a round, in the order of the sweep: the best of those that have been through it.
///
/// # Errors
/// No run measured what they are compared by.
pub(super) fn best(sweep: &Sweep, runs: &[usize], until: usize) -> Result<Vec<usize>, StudyError> {
    let metric = sweep.settings.metric;
    let mut scored: Vec<(usize, f64)> = runs
        .iter()
        .filter_map(|run| {
            let records = RunRecords::read(&sweep.folder_of(&sweep.runs[*run])).ok()?.until(until);
            Some((*run, score(metric, &records)?))
        })
        .collect();
    // Equal scores keep the order of the sweep.
    scored.sort_by(|a, b| a.1.total_cmp(&b.1));
    scored.truncate(kept(runs.len(), sweep.settings.halving_factor));
    let mut best: Vec<usize> = scored.into_iter().map(|(run, _)| run).collect();
    best.sort_unstable();
    if best.is_empty() {
        return Err(StudyError::Nothing {
            message: format!("no run has a {} at step {until}, by which the others would end", metric.word()),
            help: "their logs, in the folder of the sweep, say why; --retry-failed does failed ones again"
                .to_owned(),
        });
    }
    Ok(best)
}

/// What a run is worth: less is better.
fn score(metric: Metric, records: &RunRecords) -> Option<f64> {
    let value = records.value(metric)?;
    Some(match metric {
        Metric::ValidationLoss | Metric::TrainingLoss => value,
        Metric::ValidationAccuracy => -value,
    })
}
