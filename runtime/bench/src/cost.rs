//! What a share of linear layers costs: training steps, prompts and tokens at several ratios and lengths, with where the time goes
//! and what limits it.

use std::collections::BTreeMap;
use std::time::Duration;

use linc_device::process::{peak_memory, seconds};
use linc_device::words::count;
use linc_driver::{Model, PassSetting, Precision, RecomputePolicy, by_name};
use linc_exec::Profile;
use linc_infer::MOST_SEQUENCES;
use linc_plan::{Plan, memory};
use linc_session::SessionError;
use serde::{Deserialize, Serialize};

use super::bound::Bounds;
use super::machine::Machine;
use super::{Open, Tell, Times, Timing, Told, inference, training};
use crate::BenchError;

/// Runs that a point needs at least: one to warm up, one to time, one to see where the time goes.
const LEAST_RUNS: f64 = 3.0;

/// What to measure: every model at every length.
#[derive(Clone, Debug)]
pub struct CostBench {
    /// One model at several ratios; others are compared with the first.
    pub models: Vec<Model>,
    /// Tokens of a sequence, ascending.
    pub lengths: Vec<usize>,
    /// Sequences of a batch, of training and of tokens behind prompts.
    pub batch: usize,
    /// Number format of activations and matmul operands, of caches as well.
    pub precision: Precision,
    /// What the backward recomputes.
    pub recompute: RecomputePolicy,
    /// Seconds that a point may take; a longer length of what took longer is not tried.
    pub seconds: f64,
    /// How many runs warm up, and how many are timed at most.
    pub timing: Timing,
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// A training step.
    Training,
    /// Reading a prompt.
    Prefill,
    /// The token behind a prompt of that length.
    Decode,
}

impl Work {
    /// All, in their order.
    pub const ALL: [Work; 3] = [Work::Training, Work::Prefill, Work::Decode];

    /// Name in files and for people.
    pub const fn name(self) -> &'static str {
        match self {
            Work::Training => "training",
            Work::Prefill => "prefill",
            Work::Decode => "decode",
        }
    }
}

/// A point: some work of one model at one length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostRow {
    /// What is timed.
    pub work: Work,
    /// Share of linear layers.
    pub ratio: f64,
    /// `LLLS LLLS ..`
    pub layers: String,
    /// Tokens of a sequence.
    pub length: usize,
    /// Milliseconds of a run; nothing if there was none.
    pub ms: Option<Times>,
    /// Tokens per second, of all sequences together, by the median.
    pub tokens_per_s: Option<f64>,
    /// Milliseconds of attention alone, of a run whose parts were timed.
    pub attention_ms: Option<f64>,
    /// Milliseconds of all parts of that run.
    pub parts_ms: Option<f64>,
    /// Floating-point operations of a run, by the plan.
    pub flops: u64,
    /// Those of attention alone.
    pub attention_flops: u64,
    /// Bytes of the arena, which is all that is allocated.
    pub bytes: u64,
    /// Bytes by category at the peak, by the plan.
    pub memory: BTreeMap<String, u64>,
    /// Largest resident memory of the process, if this point set it.
    pub resident_bytes: Option<u64>,
    /// Bytes of the KV cache of a sequence, by the plan; of tokens behind prompts.
    pub cache_bytes: u64,
    /// Bytes of the recurrent states of a sequence, likewise.
    pub state_bytes: u64,
    /// What limits it, by the time that each limit holds.
    pub bounds: Option<Bounds>,
    /// Why it was not measured.
    pub error: Option<String>,
}

impl CostRow {
    fn new(work: Work, model: &Model, length: usize) -> Self {
        CostRow {
            work,
            ratio: model.share().as_f64(),
            layers: model.layer_map(),
            length,
            ms: None,
            tokens_per_s: None,
            attention_ms: None,
            parts_ms: None,
            flops: 0,
            attention_flops: 0,
            bytes: 0,
            memory: BTreeMap::new(),
            resident_bytes: None,
            cache_bytes: 0,
            state_bytes: 0,
            bounds: None,
            error: None,
        }
    }
}

/// What was measured, and on which device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostReport {
    /// `llama3 1B`
    pub model: String,
    /// Number format.
    pub precision: String,
    /// Sequences of a batch.
    pub batch: usize,
    /// What the backward recomputes.
    pub recompute: String,
    /// What limits are measured by.
    pub machine: Machine,
    /// Points, by length, then model, then work.
    pub rows: Vec<CostRow>,
}

/// Measures all points; `keep` gets the report after each length of a model, so that what ends early leaves what it has.
///
/// # Errors
/// [`BenchError`]: models that do not compile, or what the device refuses.
pub fn cost<E: From<BenchError>>(
    bench: &CostBench,
    open: &mut Open<'_>,
    tell: &mut Tell<'_>,
    keep: &mut dyn FnMut(&CostReport) -> Result<(), E>,
) -> Result<CostReport, E> {
    let Some(first) = bench.models.first() else {
        return Err(BenchError::Request("no model is named".into()).into());
    };
    if !(1..=MOST_SEQUENCES).contains(&bench.batch) {
        let message = format!("{} sequences at once; expected 1 to {MOST_SEQUENCES}", bench.batch);
        return Err(BenchError::Request(message).into());
    }
    let mut unfit = None;
    let mut report = CostReport {
        model: first.title(),
        precision: bench.precision.name().to_owned(),
        batch: bench.batch,
        recompute: bench.recompute.to_string(),
        machine: Machine::measure(open()?)?,
        rows: vec![],
    };
    for length in &bench.lengths {
        for model in &bench.models {
            let (ratio, tokens) = (model.share_text(), count(*length, "token"));
            tell(Told::Case(&format!("cost: {}, ratio {ratio}, {} x {tokens}", model.title(), bench.batch)));
            report.rows.extend(point(bench, model, *length, &report, open, tell, &mut unfit)?);
            keep(&report)?;
        }
    }
    match unfit {
        Some(error) if report.rows.iter().all(|row| row.ms.is_none()) => Err(error.into()),
        _ => Ok(report),
    }
}

/// Training, prompts and tokens of one model at one length.
fn point(
    bench: &CostBench,
    model: &Model,
    length: usize,
    report: &CostReport,
    open: &mut Open<'_>,
    tell: &mut Tell<'_>,
    refused: &mut Option<BenchError>,
) -> Result<Vec<CostRow>, BenchError> {
    let mut rows = Work::ALL.map(|work| CostRow::new(work, model, length));
    let [training, prefill, decode] = &mut rows;
    let machine = &report.machine;
    match too_long(bench, report, training) {
        Some(error) => training.error = Some(error),
        None => {
            let error = unfit(measure_training(bench, model, training, machine, open, tell), refused)?;
            training.error = error;
        }
    }
    match too_long(bench, report, prefill) {
        Some(error) => {
            decode.error = Some("the prompt before it was not read".to_owned());
            prefill.error = Some(error);
        }
        None => {
            let both = [&mut *prefill, &mut *decode];
            let error = unfit(measure_inference(bench, model, both, machine, open, tell), refused)?;
            (prefill.error, decode.error) = (error.clone(), error);
        }
    }
    Ok(rows.into())
}

/// Why a point is not tried, by what the length before took: it takes at least as many times as long as it is longer.
fn too_long(bench: &CostBench, report: &CostReport, row: &CostRow) -> Option<String> {
    let same = |other: &&CostRow| other.work == row.work && other.layers == row.layers;
    let before = report.rows.iter().rfind(same)?;
    let least = least_runs(bench, row.work);
    let expected = match &before.ms {
        Some(ms) => least * ms.median / 1e3 * row.length as f64 / before.length.max(1) as f64,
        // It did not fit, or would have taken too long.
        None => return Some(format!("not tried: {} were too many already", count(before.length, "token"))),
    };
    (expected > bench.seconds).then(|| {
        format!(
            "not tried: {} runs would take {expected:.0} s at least, --seconds is {}",
            least, bench.seconds
        )
    })
}

/// What does not fit is no error, but a point that says so; `refused` gets the error itself, for where nothing was measured.
fn unfit(
    measured: Result<(), BenchError>,
    refused: &mut Option<BenchError>,
) -> Result<Option<String>, BenchError> {
    match measured {
        Ok(()) => Ok(None),
        Err(error @ BenchError::Session(SessionError::DoesNotFit { .. })) => {
            let said = error.to_string().lines().next().map(str::to_owned);
            *refused = Some(error);
            Ok(said)
        }
        Err(error) => Err(error),
    }
}

/// Runs that a point needs at least: before a token is written, the other sequences of the batch are read as well.
fn least_runs(bench: &CostBench, work: Work) -> f64 {
    match work {
        Work::Training | Work::Decode => LEAST_RUNS,
        Work::Prefill => LEAST_RUNS + bench.batch.saturating_sub(1) as f64,
    }
}

/// Runs until there are as many times as are wanted, or no more time: the first ones warm up. One is kept in any case.
fn timed(
    bench: &CostBench,
    work: Work,
    tell: &mut Tell<'_>,
    run: &mut dyn FnMut() -> Result<f64, BenchError>,
) -> Result<Times, BenchError> {
    let Timing { warmup, rounds } = bench.timing;
    let begun = seconds();
    let mut times = vec![];
    let mut done = 0;
    loop {
        let time = run()?;
        done += 1;
        bench.timing.tell(done, tell);
        let is_late = seconds() - begun + least_runs(bench, work) * time > bench.seconds;
        if done > warmup || is_late {
            // Where there is no time to warm up, the second run counts.
            times.extend((done > warmup.min(1)).then_some(time));
        }
        if times.len() >= rounds || (is_late && !times.is_empty()) {
            // The bar is done.
            bench.timing.tell(warmup.saturating_add(rounds), tell);
            return Ok(Times::of(times));
        }
    }
}

/// Hears of the time of each part of a program that has run.
type Each<'a> = dyn FnMut(&Plan, &[Duration]) + 'a;

/// Times the parts of a run a few times, and keeps those of the fastest: one alone may have been held up.
fn fastest_parts(
    bench: &CostBench,
    machine: &Machine,
    row: &mut CostRow,
    run: &mut dyn FnMut(&mut Each<'_>) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    const TRIES: usize = 3;
    let begun = seconds();
    let mut fastest: Option<Profile> = None;
    for _ in 0..TRIES {
        let mut trial = Profile::default();
        run(&mut |plan, times| trial.add(plan, times))?;
        if fastest.as_ref().is_none_or(|known| trial.total() < known.total()) {
            fastest = Some(trial);
        }
        if seconds() - begun > bench.seconds / TRIES as f64 {
            break;
        }
    }
    let Some(profile) = fastest else { return Ok(()) };
    row.bounds = Some(Bounds::of(&profile, machine));
    for (label, entry) in profile.entries() {
        let ms = 1e3 * entry.time.as_secs_f64();
        *row.parts_ms.get_or_insert(0.0) += ms;
        row.flops += entry.flops;
        if label.attention().is_some() {
            *row.attention_ms.get_or_insert(0.0) += ms;
            row.attention_flops += entry.flops;
        }
    }
    Ok(())
}

fn measure_training(
    bench: &CostBench,
    model: &Model,
    row: &mut CostRow,
    machine: &Machine,
    open: &mut Open<'_>,
    tell: &mut Tell<'_>,
) -> Result<(), BenchError> {
    let shape = (bench.batch, row.length);
    let resident = peak_memory();
    let mut run = training::Running::new(model, shape, bench.precision, bench.recompute, open()?)?;
    let ms = timed(bench, Work::Training, tell, &mut || run.step())?;
    run.loss()?;
    fastest_parts(bench, machine, row, &mut |each| {
        let times = run.profiled()?;
        each(run.session.executor.plan(0), &times);
        Ok(())
    })?;
    let executor = &run.session.executor;
    row.bytes = executor.arena_bytes();
    row.memory = categories(&[executor.plan(0)]);
    row.resident_bytes = set_since(resident);
    row.tokens_per_s = Some(1e3 * (bench.batch * row.length) as f64 / ms.median.max(1e-9));
    row.ms = Some(ms);
    Ok(())
}

fn measure_inference(
    bench: &CostBench,
    model: &Model,
    [prefill, decode]: [&mut CostRow; 2],
    machine: &Machine,
    open: &mut Open<'_>,
    tell: &mut Tell<'_>,
) -> Result<(), BenchError> {
    let length = prefill.length;
    let resident = peak_memory();
    let shape = (bench.batch, length);
    let context = length.saturating_add(bench.timing.behind_prompts());
    let mut run = inference::Running::new(model, shape, context, bench.precision, open()?)?;
    let mut read = 0;
    let ms = timed(bench, Work::Prefill, tell, &mut || {
        let slot = read % bench.batch;
        read += 1;
        run.read(slot)
    })?;
    // All have a prompt before a token is written behind it.
    (read.min(bench.batch)..bench.batch).try_for_each(|slot| run.read(slot).map(|_| ()))?;
    fastest_parts(bench, machine, prefill, &mut |each| run.profile_prompt(each))?;
    prefill.tokens_per_s = Some(1e3 * length as f64 / ms.median.max(1e-9));
    prefill.ms = Some(ms);
    let ms = timed(bench, Work::Decode, tell, &mut || run.step())?;
    fastest_parts(bench, machine, decode, &mut |each| run.profile_step(each))?;
    decode.tokens_per_s = Some(1e3 * bench.batch as f64 / ms.median.max(1e-9));
    decode.ms = Some(ms);
    let executor = &run.session.executor;
    let kept = run.kept();
    let plans: Vec<&Plan> = (0..run.session.reports.len()).map(|program| executor.plan(program)).collect();
    let (memory, bytes) = (categories(&plans), executor.arena_bytes());
    let resident = set_since(resident);
    for row in [prefill, decode] {
        [row.cache_bytes, row.state_bytes] = kept;
        (row.bytes, row.memory, row.resident_bytes) = (bytes, memory.clone(), resident);
    }
    Ok(())
}

fn categories(plans: &[&Plan]) -> BTreeMap<String, u64> {
    let peak = memory::peak(plans);
    by_name(&peak.categories).into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

/// The largest resident memory, if it is larger than it was.
fn set_since(before: u64) -> Option<u64> {
    let now = peak_memory();
    (now > before).then_some(now)
}
