//! A training step on the processor beside what the processor can do: its limits, each kernel's share of them, where the step loses
//! time, and its memory beside the least that it needs.

use std::time::Duration;

use linc_device::Load;
use linc_device::words::count;
use linc_driver::{Model, Precision, RecomputePolicy};
use linc_exec::Profile;
use linc_plan::memory;
use serde::Serialize;

use super::machine::Machine;
use super::roofline::Roofline;
use super::{Open, Tell, Times, Timing, Told, training};
use crate::BenchError;

/// What to measure.
#[derive(Clone, Debug)]
pub struct CpuBench {
    /// The model whose step is run, with the kinds of its layers.
    pub model: Model,
    /// Tokens of a sequence.
    pub seq: usize,
    /// Sequences of a batch.
    pub batch: usize,
    /// Number format of activations and matmul operands.
    pub precision: Precision,
    /// What the backward recomputes.
    pub recompute: RecomputePolicy,
    /// How many runs warm up, and how many are timed: each once as a whole, and once kernel by kernel.
    pub timing: Timing,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CpuReport {
    /// `llama3 nano`
    pub model: String,
    /// Share of linear layers.
    pub ratio: f64,
    /// `LLLS LLLS ..`
    pub layers: String,
    /// Sequences of a batch.
    pub batch: usize,
    /// Tokens of a sequence.
    pub seq: usize,
    /// The limits.
    pub machine: Machine,
    /// A whole step, from a batch to the end of the update.
    pub ms: Times,
    /// Operations of a step per second, by the median, as a share of the peak.
    pub of_peak: f64,
    /// The step kernel by kernel: the median time of each launch.
    pub roofline: Roofline,
    /// Bytes of the arena.
    pub bytes: u64,
    /// Bytes that the step needs at least: see [`memory::Peak::floor`].
    pub floor_bytes: u64,
    /// Share of the machine that other processes took meanwhile, if the system says so.
    pub others: Option<f64>,
}

/// Measures the processor that `open` opens, then a training step on it.
///
/// # Errors
/// [`BenchError`]: a machine that is no CPU, a model that does not compile or fit, or what the device refuses.
pub fn cpu(bench: &CpuBench, open: &mut Open<'_>, tell: &mut Tell<'_>) -> Result<CpuReport, BenchError> {
    let CpuBench { model, seq, batch, precision, recompute, timing } = bench;
    if *batch == 0 || *seq == 0 {
        return Err(BenchError::Request("sequences and tokens must be at least 1".into()));
    }
    let begun = Load::now();
    tell(Told::Case("cpu: multiply-adds, copies and launches"));
    let mut machine = Machine::measure(open()?)?;
    let (ratio, tokens) = (model.share_text(), count(*seq, "token"));
    tell(Told::Case(&format!("cpu: {}, ratio {ratio}, {batch} x {tokens}", model.title())));
    let mut run = training::Running::new(model, (*batch, *seq), *precision, *recompute, open()?)?;
    let (mut whole, mut parts) = (vec![], vec![]);
    for round in 0..timing.warmup + timing.rounds {
        let seconds = run.step()?;
        let times = run.profiled()?;
        timing.tell(round + 1, tell);
        if round >= timing.warmup {
            whole.push(seconds);
            parts.push(times);
        }
    }
    run.loss()?;
    let executor = &mut run.session.executor;
    let plan = executor.plan(0);
    let mut profile = Profile::default();
    profile.add(plan, &medians(&parts));
    let ms = Times::of(whole);
    let (flops, peak) = (plan.flops() as f64, memory::peak(&[plan]));
    // The fastest step may show that the peak is higher than was measured.
    executor.share_of_peak(1e3 * flops / ms.min);
    machine.raise_peak(executor);
    let layers = &run.session.reports[0].layers;
    let others = Load::others_since(begun);
    Ok(CpuReport {
        model: model.title(),
        ratio: model.share().as_f64(),
        layers: model.layer_map(),
        batch: *batch,
        seq: *seq,
        of_peak: 1e3 * flops / ms.median.max(1e-9) / machine.peak_flops.max(1.0),
        roofline: Roofline::of(&profile, &machine, layers, 1),
        machine,
        ms,
        bytes: peak.bytes,
        floor_bytes: peak.floor(),
        others,
    })
}

/// The median time of each launch over all rounds: what holds up one round holds up others of its launches.
fn medians(rounds: &[Vec<Duration>]) -> Vec<Duration> {
    let launches = rounds.first().map_or(0, Vec::len);
    let median = |launch: usize| {
        let mut times: Vec<Duration> = rounds.iter().map(|round| round[launch]).collect();
        times.sort_unstable();
        (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2
    };
    (0..launches).map(median).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_launch_has_its_own_median() {
        let round = |micros: [u64; 2]| micros.map(Duration::from_micros).to_vec();
        let odd = [round([1, 30]), round([9, 10]), round([2, 20])];
        assert_eq!(medians(&odd), round([2, 20]));
        assert_eq!(medians(&odd[..2]), round([5, 20]));
        assert!(medians(&[]).is_empty());
    }
}
