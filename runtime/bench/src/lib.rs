//! Measurements: attention, training steps, inference, kernels that memory limits, and all of it over length and share of linear
//! layers, on any device; a step beside the limits of its processor; and exchanges between ranks.
//!
//! What is timed is what the compiler makes of a model, in the order and the memory of its plan: no kernel is built for a
//! measurement. Everything runs before it is timed; rounds go through all that is compared, so that a clock that drifts
//! drifts for all; results are medians. Data are random: hardware is faster on zeros.

mod attention;
mod bound;
mod cost;
mod cpu;
mod exchange;
mod inference;
mod machine;
mod memory;
mod roofline;
mod training;

use std::time::Duration;

use linc_device::comm::CommError;
use linc_device::process::seconds;
use linc_device::{Device, DeviceError};
use linc_driver::{CompileError, Entry, OptimizerOptions, Options, Precision, RecomputePolicy, names};
use linc_exec::{ExecError, Executor};
use linc_plan::{Plan, Step};
use linc_session::SessionError;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use attention::{AttentionBench, AttentionRow, Pass, attention};
pub use bound::{Bounds, KernelBound};
pub use cost::{CostBench, CostReport, CostRow, Work, cost};
pub use cpu::{CpuBench, CpuReport, cpu};
pub use exchange::{ExchangeBench, ExchangeReport, ExchangeRow, Pattern, RanksCopy, exchange};
pub use inference::{InferenceBench, InferenceReport, InferenceRow, inference};
pub use machine::{CopyRate, InstructionSet, Limit, Machine};
pub use memory::{CopySpeed, MemoryBench, MemoryReport, MemoryRow, memory};
pub use roofline::{GOAL, Roofline, RooflineRow};
pub use training::{TrainingBench, TrainingReport, TrainingRow, training};

/// Why there is no measurement.
#[derive(Debug, Error)]
pub enum BenchError {
    /// What was to be measured does not run.
    #[error("{0}")]
    Session(#[from] SessionError),
    /// Ranks that do not exchange.
    #[error("{0}")]
    Ranks(#[from] CommError),
    /// What was asked for is not measured.
    #[error("{0}")]
    Request(String),
}

impl From<CompileError> for BenchError {
    fn from(error: CompileError) -> Self {
        SessionError::from(error).into()
    }
}

impl From<ExecError> for BenchError {
    fn from(error: ExecError) -> Self {
        SessionError::from(error).into()
    }
}

impl From<DeviceError> for BenchError {
    fn from(error: DeviceError) -> Self {
        SessionError::from(ExecError::from(error)).into()
    }
}

/// Opens the device: each case has one of its own, so that its memory is free for the next.
pub type Open<'a> = dyn FnMut() -> Result<Box<dyn Device>, BenchError> + 'a;

/// What goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// What is about to be measured.
    Case(&'a str),
    /// So many of its runs are done, of how many, those that warm up included.
    Runs {
        /// Runs that have ended, from 0 on.
        done: usize,
        /// Runs in all, those that warm up included.
        total: usize,
    },
}

/// Is told what goes on.
pub type Tell<'a> = dyn FnMut(Told<'_>) + 'a;

/// How often something runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Runs before the first that counts.
    pub warmup: usize,
    /// Runs that count.
    pub rounds: usize,
}

impl Timing {
    /// Tokens that a measurement of costs writes behind a prompt: those that are timed, and one whose parts are.
    pub fn behind_prompts(self) -> usize {
        self.warmup.saturating_add(self.rounds).saturating_add(1)
    }

    /// Tells that as many runs are done.
    fn tell(self, done: usize, tell: &mut Tell<'_>) {
        tell(Told::Runs { done, total: self.warmup.saturating_add(self.rounds) });
    }
}

/// Milliseconds of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Half of the runs were faster.
    pub median: f64,
    /// The fastest run.
    pub min: f64,
    /// The slowest run.
    pub max: f64,
    /// How many runs the others are taken of.
    pub runs: usize,
}

impl Times {
    /// Of seconds, at least one.
    fn of(mut seconds: Vec<f64>) -> Times {
        seconds.sort_by(f64::total_cmp);
        let n = seconds.len();
        let ms = |i: usize| 1e3 * seconds.get(i).copied().unwrap_or(f64::NAN);
        let median = (ms(n.saturating_sub(1) / 2) + ms(n / 2)) / 2.0;
        Times { median, min: ms(0), max: ms(n.saturating_sub(1)), runs: n }
    }

    /// `amount` per second in billions, by the median.
    fn giga(&self, amount: u64) -> f64 {
        amount as f64 / (self.median / 1e3).max(1e-12) / 1e9
    }
}

/// A training step with the optimizer's defaults.
fn train_entry() -> Entry {
    Entry::Train(OptimizerOptions::default())
}

fn compile_options(batch: usize, seq: usize, precision: Precision, recompute: RecomputePolicy) -> Options {
    Options { precision, recompute, clock: Some(seconds), ..Options::new(batch, seq) }
}

/// What a training step is fed with. Inputs lie in memory that a run uses for other things once it has read them, so each
/// run is fed anew.
struct Feed {
    tokens: Vec<i32>,
    targets: Vec<i32>,
    learning_rate: f32,
}

impl Feed {
    /// Random tokens and targets.
    fn new(tokens: usize, vocab: usize, learning_rate: f32) -> Feed {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut draw = || (0..tokens).map(|_| random.random_range(0..vocab as i32)).collect();
        Feed { tokens: draw(), targets: draw(), learning_rate }
    }

    /// Writes the inputs of an evaluation program.
    fn batch(&self, executor: &mut Executor, program: usize) -> Result<(), BenchError> {
        executor.write_input(program, names::TOKENS, bytemuck::cast_slice(&self.tokens))?;
        Ok(executor.write_input(program, names::TARGETS, bytemuck::cast_slice(&self.targets))?)
    }

    /// Writes the inputs of a training program's step, counted from 1.
    fn step(&self, executor: &mut Executor, program: usize, step: usize) -> Result<(), BenchError> {
        self.batch(executor, program)?;
        executor.write_input(program, names::LEARNING_RATE, bytemuck::bytes_of(&self.learning_rate))?;
        Ok(executor.write_input(program, names::STEP, bytemuck::bytes_of(&(step as f32)))?)
    }
}

/// An error if the last run's loss is not a number: then it was not a step that was timed.
fn check_loss(executor: &Executor, program: usize) -> Result<f32, BenchError> {
    let loss = executor.output(program, names::LOSS)?.first().copied().unwrap_or(f32::NAN);
    if loss.is_finite() {
        return Ok(loss);
    }
    Err(BenchError::Request(format!("the measured program gives a loss of {loss}; its times mean nothing")))
}

/// Seconds of the steps of a plan that the caller is interested in; `times` has one for each step.
fn seconds_of(plan: &Plan, times: &[Duration], counted: impl Fn(&Step) -> bool) -> f64 {
    let of = plan.steps.iter().zip(times).filter(|(step, _)| counted(step));
    of.map(|(_, time)| time.as_secs_f64()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let odd = Times::of(vec![3e-3, 1e-3, 2e-3]);
        assert_eq!((odd.median, odd.min, odd.max, odd.runs), (2.0, 1.0, 3.0, 3));
        assert_eq!(Times::of(vec![1e-3, 4e-3, 2e-3, 8e-3]).median, 3.0);
        assert_eq!(odd.giga(4_000_000), 2.0);
        assert!(Times::of(vec![]).median.is_nan());
    }
}
