//! Inference: reading a prompt in blocks and writing tokens behind it, by length, share of linear layers and batch, with the
//! memory that a sequence has.

use std::collections::BTreeSet;
use std::time::Duration;

use linc_device::Device;
use linc_device::process::seconds;
use linc_device::words::count;
use linc_driver::{Model, Precision};
use linc_infer::{InferError, Programs, Row, Wanted};
use linc_plan::{Action, Plan, Ref, Role, Step};
use linc_session::{Session, SessionError, target};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{Open, Tell, Times, Timing, Told};
use crate::BenchError;

/// What to measure: every model at every length and batch.
#[derive(Clone, Debug)]
pub struct InferenceBench {
    /// One model at several ratios.
    pub models: Vec<Model>,
    /// Tokens of a prompt.
    pub lengths: Vec<usize>,
    /// Sequences that are continued at once.
    pub batches: Vec<usize>,
    /// Number format of weights, activations and caches.
    pub precision: Precision,
    /// How many runs warm up, and how many are timed.
    pub timing: Timing,
}

/// One model at one length and batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InferenceRow {
    /// `llama3 1B`
    pub model: String,
    /// Share of linear layers.
    pub ratio: f64,
    /// `LLLS LLLS ..`
    pub layers: String,
    /// Tokens of the prompt, and the position of the first token that is timed.
    pub length: usize,
    /// Sequences that are continued at once.
    pub batch: usize,
    /// Bytes of the KV cache that a sequence of this length has, by the plan.
    pub cache_bytes: u64,
    /// Bytes of the recurrent states that a sequence has, by the plan.
    pub state_bytes: u64,
    /// Bytes of weights that the products of a step read, by the plan: what memory must give at least for each step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_bytes: Option<u64>,
    /// Bytes of the arena: weights, caches and states of all slots, scratch. It is all that is allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Milliseconds of reading one prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill_ms: Option<Times>,
    /// Tokens of prompts per second, by the median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill_tokens_per_s: Option<f64>,
    /// Milliseconds of a step, in which each sequence gets a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_ms: Option<Times>,
    /// Tokens written per second, of all sequences together, by the median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_tokens_per_s: Option<f64>,
    /// Why there are no numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What was measured, and on which device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InferenceReport {
    /// The device in words.
    pub device: String,
    /// One per length, batch and model.
    pub rows: Vec<InferenceRow>,
}

/// Measures prompts and tokens. What does not fit in memory is a row that says so, unless nothing fits.
///
/// # Errors
/// [`BenchError`]: models that cannot generate so much, or what the device refuses.
pub fn inference(
    bench: &InferenceBench,
    open: &mut Open<'_>,
    tell: &mut Tell<'_>,
) -> Result<InferenceReport, BenchError> {
    let mut report = InferenceReport { device: String::new(), rows: vec![] };
    let mut unfit = None;
    for length in &bench.lengths {
        for batch in &bench.batches {
            for model in &bench.models {
                let (ratio, tokens) = (model.share_text(), count(*length, "token"));
                tell(Told::Case(&format!("inference: {}, ratio {ratio}, {batch} x {tokens}", model.title())));
                let mut row = InferenceRow {
                    model: model.title(),
                    ratio: model.share().as_f64(),
                    layers: model.layer_map(),
                    length: *length,
                    batch: *batch,
                    cache_bytes: 0,
                    state_bytes: 0,
                    weight_bytes: None,
                    bytes: None,
                    prefill_ms: None,
                    prefill_tokens_per_s: None,
                    decode_ms: None,
                    decode_tokens_per_s: None,
                    error: None,
                };
                match measure(bench, model, &mut row, open, tell, &mut report.device) {
                    Ok(()) => {}
                    Err(BenchError::Session(error @ SessionError::DoesNotFit { .. })) => {
                        row.error = error.to_string().lines().next().map(str::to_owned);
                        unfit = Some(error);
                    }
                    Err(error) => return Err(error),
                }
                report.rows.push(row);
            }
        }
    }
    match unfit {
        Some(error) if report.rows.iter().all(|row| row.decode_ms.is_none()) => Err(error.into()),
        _ => Ok(report),
    }
}

fn measure(
    bench: &InferenceBench,
    model: &Model,
    row: &mut InferenceRow,
    open: &mut Open<'_>,
    tell: &mut Tell<'_>,
    named: &mut String,
) -> Result<(), BenchError> {
    let Timing { warmup, rounds } = bench.timing;
    let runs = warmup.saturating_add(rounds);
    let device = open()?;
    let context = row.length.saturating_add(runs);
    let mut run = Running::new(model, (row.batch, row.length), context, bench.precision, device)?;
    *named = run.session.executor.describe_device();
    row.bytes = Some(run.session.executor.arena_bytes());
    [row.cache_bytes, row.state_bytes] = run.kept();
    row.weight_bytes =
        run.programs.decode_program().map(|program| read_by_products(run.session.executor.plan(program)));

    let mut times = vec![];
    for number in 0..runs.max(row.batch) {
        let time = run.read(number % row.batch)?;
        tell(Told::Runs { done: (number + 1).min(2 * runs), total: 2 * runs });
        times.extend((number >= warmup && times.len() < rounds).then_some(time));
    }
    let prefill = Times::of(times);
    row.prefill_tokens_per_s = Some(row.length as f64 / (prefill.median / 1e3).max(1e-12));
    row.prefill_ms = Some(prefill);

    let mut times = vec![];
    for number in 0..runs {
        let time = run.step()?;
        tell(Told::Runs { done: runs + number + 1, total: 2 * runs });
        times.extend((number >= warmup).then_some(time));
    }
    let decode = Times::of(times);
    row.decode_tokens_per_s = Some(row.batch as f64 / (decode.median / 1e3).max(1e-12));
    row.decode_ms = Some(decode);
    Ok(())
}

/// Bytes of the parameters that matmuls of a plan read.
fn read_by_products(plan: &Plan) -> u64 {
    let params = plan.bindings.iter().filter(|binding| binding.role == Role::Param);
    let params: BTreeSet<usize> = params.map(|binding| binding.at.buffer).collect();
    let of = |step: &Step| match &step.action {
        Action::Gemm(g) => {
            let elements = |r: &Ref, rows: usize| if params.contains(&r.buffer) { rows * g.k } else { 0 };
            (elements(&g.a, g.m) + elements(&g.b, g.n)) as u64 * g.dtype.bytes()
        }
        Action::Launch { .. } | Action::Copy { .. } | Action::Start { .. } | Action::Wait { .. } => 0,
    };
    plan.steps.iter().map(of).sum()
}

/// Prompts and sequences behind them that are loaded.
pub(super) struct Running {
    pub(super) session: Session,
    programs: Programs,
    prompts: Vec<Vec<u32>>,
    random: ChaCha8Rng,
    vocab: u32,
    /// Tokens written behind the prompts.
    written: usize,
}

impl Running {
    /// Compiles and loads programs for so many random prompts of so many tokens, with room for a context.
    pub(super) fn new(
        model: &Model,
        (batch, length): (usize, usize),
        context: usize,
        precision: Precision,
        device: Box<dyn Device>,
    ) -> Result<Self, BenchError> {
        let options = linc_infer::options(precision, target(&*device));
        let wanted = Wanted { sequences: batch, ..Wanted::one(context) };
        let (programs, entries) = Programs::plan(model, wanted, &options, 0)?;
        let mut session = linc_infer::session(model, &entries, device)?;
        session.executor.initialize(1)?;
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let vocab = model.sizes.vocab_size as u32;
        let prompts = (0..batch).map(|_| draw(&mut random, length, vocab)).collect();
        Ok(Running { session, programs, prompts, random, vocab, written: 0 })
    }

    /// Bytes that a sequence as long as its prompt has of caches and of states, by the plan.
    pub(super) fn kept(&self) -> [u64; 2] {
        let [cache, state] = self.programs.bytes_per_sequence(&self.session);
        // The cache has room for what is written as well; of a sequence this long it is a share.
        let length = self.prompts.first().map_or(0, Vec::len) as u64;
        [cache / self.programs.room() as u64 * length, state]
    }

    /// Reads the prompt of a slot; seconds.
    pub(super) fn read(&mut self, slot: usize) -> Result<f64, BenchError> {
        let begun = seconds();
        self.programs.read_prompt(&mut self.session, &self.prompts[slot], slot)?;
        Ok(seconds() - begun)
    }

    /// Reads a prompt once more; `each` sees the time of each step of each program that it takes.
    pub(super) fn profile_prompt(
        &mut self,
        each: &mut dyn FnMut(&Plan, &[Duration]),
    ) -> Result<(), BenchError> {
        Ok(self.programs.profile_prompt(&mut self.session, &self.prompts[0], 0, each)?)
    }

    /// The next token of each sequence.
    fn rows(&mut self) -> Vec<Row> {
        let position = self.prompts.first().map_or(0, Vec::len) + self.written;
        let tokens = draw(&mut self.random, self.prompts.len(), self.vocab);
        (0..).zip(tokens).map(|(slot, token)| Row { token, position, slot }).collect()
    }

    /// Writes a token behind each sequence; seconds.
    pub(super) fn step(&mut self) -> Result<f64, BenchError> {
        let rows = self.rows();
        self.written += 1;
        let begun = seconds();
        let logits = self.programs.step(&mut self.session, &rows, &mut std::iter::empty())?;
        let time = seconds() - begun;
        if let Some(logit) = logits.iter().find(|logit| !logit.is_finite()) {
            let message = format!("the measured program gives a logit of {logit}; its times mean nothing");
            return Err(BenchError::Request(message));
        }
        Ok(time)
    }

    /// Writes the next token once more; `each` sees the time of each step.
    pub(super) fn profile_step(
        &mut self,
        each: &mut dyn FnMut(&Plan, &[Duration]),
    ) -> Result<(), BenchError> {
        let rows = self.rows();
        Ok(self.programs.profile_step(&mut self.session, &rows, each)?)
    }
}

/// Random tokens.
fn draw(random: &mut ChaCha8Rng, count: usize, vocab: u32) -> Vec<u32> {
    (0..count).map(|_| random.random_range(0..vocab)).collect()
}

impl From<InferError> for BenchError {
    fn from(error: InferError) -> Self {
        match error {
            InferError::Session(error) => error.into(),
            other => BenchError::Request(other.to_string()),
        }
    }
}
