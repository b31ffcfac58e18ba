//! Whole training steps: a model at several ratios and lengths, one after the other, each alone on the device.

use std::time::Duration;

use linc_device::Device;
use linc_device::process::seconds;
use linc_device::words::count;
use linc_driver::{Model, Precision, RecomputePolicy};
use linc_session::{Session, SessionError};
use serde::Serialize;

use super::{Feed, Open, Tell, Times, Timing, Told, check_loss, compile_options, train_entry};
use crate::BenchError;

/// Small enough that weights hardly move, and not nothing.
const LEARNING_RATE: f32 = 1e-5;

/// What to measure: every model at every length.
#[derive(Clone, Debug)]
pub struct TrainingBench {
    /// One model at several ratios.
    pub models: Vec<Model>,
    /// Tokens of a sequence.
    pub seqs: Vec<usize>,
    /// Sequences of a batch.
    pub batch: usize,
    /// Number format of activations and matmul operands.
    pub precision: Precision,
    /// What the backward recomputes.
    pub recompute: RecomputePolicy,
    /// How many runs warm up, and how many are timed.
    pub timing: Timing,
}

/// One model at one length.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainingRow {
    /// `llama3 1B`
    pub model: String,
    /// Share of linear layers.
    pub ratio: f64,
    /// `LLLS LLLS ..`
    pub layers: String,
    /// Sequences of a batch.
    pub batch: usize,
    /// Tokens of a sequence.
    pub seq: usize,
    /// From a batch on the host to the end of the update; nothing if it does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<Times>,
    /// Tokens per second, by the median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_s: Option<f64>,
    /// Share of the device's peak by the plan's operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// The same in TorchTitan's convention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub titan_mfu: Option<f64>,
    /// Bytes of the arena, if the program compiled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// From texts to a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compile_s: Option<f64>,
    /// From the model to the end of the first step: compiling, machine code, initial values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_step_s: Option<f64>,
    /// Loss of the last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f32>,
    /// Why there are no numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What was measured, and on which device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainingReport {
    /// The device in words.
    pub device: String,
    /// Operations per second that shares are of.
    pub peak_flops: f64,
    /// Where they come from, in words.
    pub peak: String,
    /// One per model and length.
    pub rows: Vec<TrainingRow>,
}

/// Measures training steps. What does not fit in memory is a row that says so, unless nothing fits.
///
/// # Errors
/// [`BenchError`]: models that do not compile, or what the device refuses.
pub fn training(
    bench: &TrainingBench,
    open: &mut Open<'_>,
    tell: &mut Tell<'_>,
) -> Result<TrainingReport, BenchError> {
    if bench.batch == 0 || bench.seqs.contains(&0) {
        return Err(BenchError::Request("sequences and tokens must be at least 1".into()));
    }
    let mut report =
        TrainingReport { device: String::new(), peak_flops: f64::NAN, peak: String::new(), rows: vec![] };
    let mut unfit = None;
    for seq in &bench.seqs {
        for model in &bench.models {
            let row = TrainingRow {
                model: model.title(),
                ratio: model.share().as_f64(),
                layers: model.layer_map(),
                batch: bench.batch,
                seq: *seq,
                ms: None,
                tokens_per_s: None,
                mfu: None,
                titan_mfu: None,
                bytes: None,
                compile_s: None,
                first_step_s: None,
                loss: None,
                error: None,
            };
            let (name, ratio) = (&row.model, model.share_text());
            tell(Told::Case(&format!(
                "train: {name}, ratio {ratio}, {} x {}",
                bench.batch,
                count(*seq, "token")
            )));
            let row = match measure_row(bench, model, row.clone(), open, tell, &mut report) {
                Err(BenchError::Session(error @ SessionError::DoesNotFit { .. })) => {
                    let message = error.to_string().lines().next().unwrap_or_default().to_string();
                    unfit = Some(error);
                    TrainingRow { error: Some(message), ..row }
                }
                other => other?,
            };
            report.rows.push(row);
        }
    }
    match unfit {
        Some(error) if report.rows.iter().all(|row| row.ms.is_none()) => Err(error.into()),
        _ => Ok(report),
    }
}

fn measure_row(
    bench: &TrainingBench,
    model: &Model,
    row: TrainingRow,
    open: &mut Open<'_>,
    tell: &mut Tell<'_>,
    report: &mut TrainingReport,
) -> Result<TrainingRow, BenchError> {
    let device = open()?;
    let begun = seconds();
    let mut run = Running::new(model, (bench.batch, row.seq), bench.precision, bench.recompute, device)?;
    let mut step = |run: &mut Running| -> Result<f64, BenchError> {
        let time = run.step()?;
        bench.timing.tell(run.steps, tell);
        Ok(time)
    };
    step(&mut run)?;
    let first_step_s = seconds() - begun;
    // A device may do more on the first runs, such as putting all steps into one graph.
    for _ in 1..bench.timing.warmup {
        step(&mut run)?;
    }
    let times = (0..bench.timing.rounds).map(|_| step(&mut run)).collect::<Result<_, _>>()?;
    let ms = Times::of(times);
    let loss = run.loss()?;
    let tokens = bench.batch * row.seq;
    let tokens_per_s = 1e3 * tokens as f64 / ms.median;
    let session = &mut run.session;
    let (executor, compiled) = (&mut session.executor, &session.reports[0]);
    // By the fastest run, which may have shown that the peak is higher than was measured.
    executor.share_of_peak(1e3 * (compiled.flops_per_token * tokens as u64) as f64 / ms.min);
    let mfu = executor.share_of_peak(compiled.flops_per_token as f64 * tokens_per_s);
    report.device = executor.describe_device();
    report.peak_flops = executor.peak_flops();
    report.peak = executor.describe_peak();
    let titan_mfu = compiled.titan_flops_per_token as f64 * tokens_per_s / report.peak_flops.max(1.0);
    Ok(TrainingRow {
        ms: Some(ms),
        tokens_per_s: Some(tokens_per_s),
        mfu: Some(mfu),
        // The convention counts operations that nobody does, such as those of masked scores.
        titan_mfu: Some(titan_mfu.min(1.0)),
        bytes: Some(compiled.peak_bytes),
        compile_s: Some(compiled.passes.iter().map(|pass| pass.seconds).sum()),
        first_step_s: Some(first_step_s),
        loss: Some(loss),
        ..row
    })
}

/// A training step that is loaded, with what it is fed.
pub(super) struct Running {
    pub(super) session: Session,
    feed: Feed,
    /// Steps done.
    pub(super) steps: usize,
}

impl Running {
    /// Compiles and loads a step for so many sequences of so many tokens.
    pub(super) fn new(
        model: &Model,
        (batch, seq): (usize, usize),
        precision: Precision,
        recompute: RecomputePolicy,
        device: Box<dyn Device>,
    ) -> Result<Self, BenchError> {
        let options = compile_options(batch, seq, precision, recompute);
        let mut session =
            Session::new(model, &[(train_entry(), options)], device, &mut || Ok::<_, BenchError>(()))?;
        session.executor.initialize(0)?;
        let feed = Feed::new(batch * seq, model.sizes.vocab_size, LEARNING_RATE);
        Ok(Running { session, feed, steps: 0 })
    }

    /// One step, from a batch on the host to the end of the update; seconds.
    pub(super) fn step(&mut self) -> Result<f64, BenchError> {
        self.steps += 1;
        let begun = seconds();
        self.feed.step(&mut self.session.executor, 0, self.steps)?;
        self.session.executor.run(0)?;
        Ok(seconds() - begun)
    }

    /// One step, with the time of each of its parts.
    pub(super) fn profiled(&mut self) -> Result<Vec<Duration>, BenchError> {
        self.steps += 1;
        self.feed.step(&mut self.session.executor, 0, self.steps)?;
        Ok(self.session.executor.step_times(0)?)
    }

    /// The loss of the last step, which must be a number.
    pub(super) fn loss(&self) -> Result<f32, BenchError> {
        check_loss(&self.session.executor, 0)
    }
}
