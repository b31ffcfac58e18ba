//! Training programs on trial: what the modes of activation checkpointing save and cost, and the batch size that fits a
//! machine.

use linc_ir::Graph;
use linc_passes::memory::PersistentLayout;
use linc_passes::pipeline::Entry;
use linc_passes::precision::Precision;
use linc_passes::recompute::budget::Machine;
use linc_passes::recompute::{Limit, Policy};
use serde::Serialize;

use crate::error::CompileError;
use crate::model::Model;
use crate::report::Recomputed;
use crate::{Options, Target, compile};

/// The target as one that is estimated: a CPU of two cores with 100 GFLOP/s each at 20 GB/s, or an H200 with 67 TFLOP/s of
/// f32, 990 of bf16 and f16 in tensor cores, at 4.8 TB/s.
pub(crate) fn machine(target: Target, precision: Precision) -> Machine {
    let balance = match (target, precision.narrow()) {
        (Target::Cpu, _) => 10.0,
        (Target::Cuda(_), None) => 14.0,
        (Target::Cuda(_), Some(_)) => 206.0,
    };
    let cost = |graph: &Graph, id| {
        let cost = linc_kernels::cost::cost(graph, id);
        (cost.flops, cost.bytes)
    };
    Machine { cost, balance }
}

/// What to allow after a plan that was allowed `allowed` took `bytes`, which are more than the limit; nothing where a few
/// hundredths less do not help. Each time it is so much less that there are few trials, however little is lacking: each of
/// them searches a whole ranking.
pub(crate) fn less(limit: u64, allowed: u64, bytes: u64) -> Option<u64> {
    let lacking = bytes - limit;
    let is_near = limit - allowed <= limit / 50 && lacking <= limit / 50;
    is_near.then(|| allowed - lacking.max(limit / 200))
}

/// One program that was compiled to be compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// What its backward recomputes, as [`Policy`] prints it.
    pub recompute: String,
    /// Sequences of a batch.
    pub batch: usize,
    /// Size of the arena.
    pub peak_bytes: u64,
    /// Floating-point operations of a step.
    pub flops: u64,
    /// What is computed again, and what is kept.
    #[serde(flatten)]
    pub recomputed: Recomputed,
    /// Estimated time of a token, by operations and bytes, relative to the other candidates only.
    pub token_time: f64,
}

/// What fits a limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// One for each batch size that fits, at least one.
    pub candidates: Vec<Candidate>,
    /// Which of them takes the least time for a token, by the estimate.
    pub best: usize,
    /// The first batch size that does not fit, with the bytes that its step takes at least.
    pub too_large: Option<(usize, u64)>,
}

/// A step of each mode: without recomputation, selective, of every second layer, full, and three budgets between. `tell` hears how many
/// are compiled, of how many.
///
/// # Errors
/// [`CompileError`]: the model does not compile.
pub fn modes(
    model: &Model,
    entry: &Entry,
    options: &Options,
    tell: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Candidate>, CompileError> {
    let budgets = [0.75, 0.5, 0.25].map(|share| Policy::Budget(Limit::Share(share)));
    let plain = [Policy::None, Policy::Selective, Policy::Layers(2), Policy::Full];
    let all: Vec<Policy> = plain.into_iter().chain(budgets).collect();
    let mut candidates = vec![];
    for recompute in &all {
        tell(candidates.len(), all.len());
        candidates.push(candidate(model, entry, &Options { recompute: *recompute, ..options.clone() })?);
    }
    tell(all.len(), all.len());
    Ok(candidates)
}

/// Batches of 1, 2, 4 .. sequences within `bytes`, each with as little recomputation as it needs, and the best of them.
/// Larger batches read the weights for more tokens; what has to be computed again for them is weighed against that. `tell` hears of each
/// size before it is tried.
///
/// # Errors
/// [`CompileError`]: the model does not compile, or a single sequence does not fit.
pub fn fit(
    model: &Model,
    entry: &Entry,
    options: &Options,
    bytes: u64,
    tell: &mut dyn FnMut(usize),
) -> Result<Fit, CompileError> {
    let mut candidates = vec![];
    let mut too_large = None;
    for batch in (0..usize::BITS - 1).map(|power| 1 << power) {
        tell(batch);
        let recompute = Policy::Budget(Limit::Bytes(bytes));
        match candidate(model, entry, &Options { recompute, batch, ..options.clone() }) {
            Ok(candidate) => candidates.push(candidate),
            Err(CompileError::Budget { batch, least, .. }) if !candidates.is_empty() => {
                too_large = Some((batch, least));
                break;
            }
            // Some tensor has more elements than there are numbers for.
            Err(_) if !candidates.is_empty() => break,
            Err(error) => return Err(error),
        }
        // Where larger batches are no faster, yet larger ones will not be either.
        let times: Vec<f64> = candidates.iter().map(|candidate| candidate.token_time).collect();
        if let [.., before, one, two] = times[..]
            && one >= 0.999 * before
            && two >= 0.999 * before
        {
            break;
        }
    }
    let times = candidates.iter().map(|candidate| candidate.token_time).enumerate();
    let best = times.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(index, _)| index);
    Ok(Fit { candidates, best, too_large })
}

fn candidate(model: &Model, entry: &Entry, options: &Options) -> Result<Candidate, CompileError> {
    let options = &Options { dumps: false, ..options.clone() };
    let compiled = compile(model, entry, options, &mut PersistentLayout::default())?;
    let machine = machine(options.target, options.precision);
    let steps = compiled.plan.steps.iter();
    let tokens = (options.batch * options.seq).max(1) as f64;
    Ok(Candidate {
        recompute: options.recompute.to_string(),
        batch: options.batch,
        peak_bytes: compiled.report.peak_bytes,
        flops: compiled.plan.flops(),
        recomputed: compiled.report.recomputed,
        token_time: steps.map(|step| machine.time((step.flops, step.bytes))).sum::<f64>() / tokens,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_nothing_fits_is_given_up_after_a_few_trials() {
        for limit in [0, 49, 1 << 20, 24 << 30, u64::MAX / 2] {
            for lacking in [1, 200, 1 << 19, 1 << 30] {
                let trials =
                    std::iter::successors(Some(limit), |allowed| less(limit, *allowed, limit + lacking));
                let trials: Vec<u64> = trials.take(100).collect();
                assert!(trials.len() < 10, "{limit} + {lacking}: {trials:?}");
                assert!(trials.iter().all(|allowed| *allowed >= limit - limit / 25), "{trials:?}");
            }
        }
        assert_eq!(less(1000, 1000, 1010), Some(990));
    }
}
