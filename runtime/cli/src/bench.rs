//! `linc bench`: tables of what the device reaches.

mod cpu;
mod memory;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use linc_bench::{
    AttentionBench, AttentionRow, CostBench, CostReport, InferenceBench, InferenceReport, Open, Pass, Tell,
    Times, Timing, Told, TrainingBench, TrainingReport, attention, cost, inference, training,
};
use linc_device::Choice;
use linc_device::words::{bytes, count, thousands};
use linc_driver::{AttentionFamily, Model};
use serde_json::json;

use crate::args::{
    BenchAttentionArgs, BenchCommand, BenchCostArgs, BenchInferenceArgs, BenchTrainArgs, Format, Half,
    KindArg, LayerArgs, MeasureArgs,
};
use crate::compile;
use crate::device::opener;
use crate::log;
use crate::out;
use crate::progress::Progress;
use crate::ranks;
use crate::table::table;

/// More runs tell nothing more; each one's times are kept.
const MOST_RUNS: usize = 1_000_000;

pub(crate) fn run(command: &BenchCommand) -> Result<ExitCode> {
    match command {
        BenchCommand::Attention(args) => run_attention(args),
        BenchCommand::Train(args) => run_training(args),
        BenchCommand::Inference(args) => run_inference(args),
        BenchCommand::Cost(args) => run_cost(args),
        BenchCommand::Memory(args) => memory::run(args),
        BenchCommand::Cpu(args) => cpu::run(args),
        BenchCommand::Exchange(args) => return ranks::exchange(args),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn run_attention(args: &BenchAttentionArgs) -> Result<()> {
    let kind = |kind: &KindArg| match kind {
        KindArg::Softmax => AttentionFamily::Softmax.default_kind(),
        KindArg::Linear => AttentionFamily::Linear.default_kind(),
    };
    let pass = |half: &Half| match half {
        Half::Forward => Pass::Forward,
        Half::Backward => Pass::Backward,
    };
    let bench = AttentionBench {
        head_dims: args.head_dim.clone(),
        seqs: args.seq.clone(),
        heads: args.heads,
        kv_heads: args.kv_heads,
        batch: args.batch_size,
        kinds: distinct(args.kind.iter().map(kind)),
        passes: distinct(args.pass.iter().map(pass)),
        precision: compile::pass_setting(&args.measure.precision)?,
        timing: timing(args.measure.rounds, args.measure.warmup)?,
    };
    let (device, rows) =
        measured(args.measure.device, &args.measure, |open, tell| attention(&bench, open, tell))?;
    match args.measure.format {
        Format::Text => {
            heading(&device, &args.measure)?;
            out::line(attention_table(&rows))?;
        }
        Format::Json => print("attention", &args.measure, json!({ "device": device, "rows": rows }))?,
    }
    Ok(())
}

fn run_training(args: &BenchTrainArgs) -> Result<()> {
    let recompute = compile::recompute(&args.recompute)?;
    // Parameters are counted at the first of the lengths.
    let shape = (args.batch_size, args.seq.first().copied().unwrap_or(1));
    let open = |ratio| open(&args.model, ratio, &args.placement, args.set.clone(), shape);
    let ratios: Vec<Option<&str>> = match &args.ratio[..] {
        [] => vec![None],
        ratios => ratios.iter().map(|ratio| Some(ratio.as_str())).collect(),
    };
    let bench = TrainingBench {
        models: ratios.into_iter().map(open).collect::<Result<_>>()?,
        seqs: args.seq.clone(),
        batch: args.batch_size,
        precision: compile::pass_setting(&args.measure.precision)?,
        recompute,
        timing: timing(args.measure.rounds, args.measure.warmup)?,
    };
    let report = measured(args.measure.device, &args.measure, |open, tell| training(&bench, open, tell))?;
    match args.measure.format {
        Format::Text => {
            heading(&report.device, &args.measure)?;
            out::line(format_args!("Peak {:.3} TFLOP/s ({})\n", report.peak_flops / 1e12, report.peak))?;
            out::line(training_table(&report))?;
        }
        Format::Json => print("train", &args.measure, serde_json::to_value(&report)?)?,
    }
    Ok(())
}

fn run_inference(args: &BenchInferenceArgs) -> Result<()> {
    let shape = (1, args.seq.iter().copied().max().unwrap_or(1));
    let open = |ratio: &String| open(&args.model, Some(ratio), &args.placement, args.set.clone(), shape);
    let bench = InferenceBench {
        models: args.ratio.iter().map(open).collect::<Result<_>>()?,
        lengths: args.seq.clone(),
        batches: args.batch_size.clone(),
        precision: compile::pass_setting(&args.measure.precision)?,
        timing: timing(args.measure.rounds, args.measure.warmup)?,
    };
    let report = measured(args.measure.device, &args.measure, |open, tell| inference(&bench, open, tell))?;
    match args.measure.format {
        Format::Text => {
            heading(&report.device, &args.measure)?;
            out::line(inference_table(&report))?;
        }
        Format::Json => print("inference", &args.measure, serde_json::to_value(&report)?)?,
    }
    Ok(())
}

fn run_cost(args: &BenchCostArgs) -> Result<()> {
    let mut lengths = args.seq.clone();
    lengths.sort_unstable();
    lengths.dedup();
    let timing = timing(args.measure.rounds, args.measure.warmup)?;
    // A model with learned positions has as many as the longest sequence needs, with the tokens behind its prompt.
    let longest = lengths.last().copied().unwrap_or(1).saturating_add(timing.behind_prompts());
    let shape = (args.batch_size, longest);
    let open = |ratio: &String| open(&args.model, Some(ratio), &args.placement, args.set.clone(), shape);
    let mut models: Vec<Model> = args.ratio.iter().map(open).collect::<Result<_>>()?;
    models.sort_by(|a, b| a.share().as_f64().total_cmp(&b.share().as_f64()));
    // Of few layers, several ratios may be the same.
    models.dedup_by(|a, b| a.kinds == b.kinds);
    let bench = CostBench {
        models,
        lengths,
        batch: args.batch_size,
        precision: compile::pass_setting(&args.measure.precision)?,
        recompute: compile::recompute(&args.recompute)?,
        seconds: args.seconds as f64,
        timing,
    };
    let mut keep = |report: &CostReport| -> Result<()> {
        if let Some(folder) = &args.out {
            linc_study::cost::keep(report, folder)?;
        }
        Ok(())
    };
    let report =
        measured(args.measure.device, &args.measure, |open, tell| cost(&bench, open, tell, &mut keep))?;
    if let Some(folder) = &args.out {
        linc_study::cost::write(&report, folder)?;
    }
    match args.measure.format {
        Format::Text => {
            heading(&report.machine.device, &args.measure)?;
            for (title, header, rows) in linc_study::cost::tables(&report) {
                let header: Vec<&str> = header.iter().map(String::as_str).collect();
                out::line(format_args!("{title}\n{}\n", table(&header, &rows)))?;
            }
            for sentence in linc_study::cost::sentences(&report) {
                out::prose(sentence)?;
            }
        }
        Format::Json => print("cost", &args.measure, linc_study::cost::shown(&report))?,
    }
    if let Some(folder) = &args.out {
        log::say(format_args!(
            "Wrote {}; linc report {} makes a page of it",
            folder.join(linc_study::cost::FILE).display(),
            folder.display()
        ));
    }
    Ok(())
}

/// Each once, in the order in which they were named.
pub(crate) fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    all.fold(vec![], |mut seen, item| {
        if !seen.contains(&item) {
            seen.push(item);
        }
        seen
    })
}

pub(crate) fn timing(rounds: usize, warmup: usize) -> Result<Timing> {
    if rounds > MOST_RUNS {
        bail!("--rounds is {rounds}; expected 1 to {MOST_RUNS}\n  help: 10 say enough");
    }
    if warmup > MOST_RUNS {
        bail!("--warmup is {warmup}; expected at most {MOST_RUNS}\n  help: 3 are enough");
    }
    Ok(Timing { warmup, rounds })
}

fn open(
    path: &Path,
    ratio: Option<&str>,
    placement: &str,
    set: Vec<String>,
    (batch_size, seq_len): (usize, usize),
) -> Result<Model> {
    let layers = LayerArgs {
        ratio: ratio.map(str::to_string),
        placement: placement.to_string(),
        set,
        batch_size,
        seq_len,
        precision: String::new(),
    };
    compile::open(path, &layers)
}

/// Measures with a bar of its own, on a device that is opened again and again.
fn measured<T, E: Into<anyhow::Error>>(
    choice: Choice,
    args: &MeasureArgs,
    measure: impl FnOnce(&mut Open<'_>, &mut Tell<'_>) -> Result<T, E>,
) -> Result<T> {
    let bar = Progress::new();
    let mut open = opener(choice, args.threads, bar.clone(), || true);
    measure(&mut *open, &mut *teller(bar)).map_err(Into::into)
}

/// Progress, where it is not in the way of the results.
pub(crate) fn teller(bar: Progress) -> Box<Tell<'static>> {
    Box::new(move |told| match told {
        Told::Case(what) => {
            bar.clear();
            log::say(what);
        }
        Told::Runs { done, total } => bar.count("runs", done, total),
    })
}

fn heading(device: &str, args: &MeasureArgs) -> Result<()> {
    let (precision, rounds, warmup) = (&args.precision, count(args.rounds, "round"), args.warmup);
    Ok(out::line(format_args!("{device}\n{precision}, {rounds} after {warmup} to warm up\n"))?)
}

/// One object: what ran, and its results.
fn print(bench: &str, args: &MeasureArgs, results: serde_json::Value) -> Result<()> {
    let mut object = json!({ "tool": "linc", "bench": bench, "precision": args.precision });
    if let (Some(object), serde_json::Value::Object(results)) = (object.as_object_mut(), results) {
        object.extend(results);
    }
    Ok(out::line(serde_json::to_string_pretty(&object)?)?)
}

/// Milliseconds, with as many digits as they deserve.
pub(crate) fn ms(value: f64) -> String {
    format!("{value:.*}", if value < 10.0 { 3 } else { 1 })
}

pub(crate) fn times(times: &Times) -> [String; 3] {
    [times.median, times.min, times.max].map(ms)
}

fn attention_table(rows: &[AttentionRow]) -> String {
    let row = |row: &AttentionRow| {
        let [median, min, max] = times(&row.ms);
        let size = format!("{} x {} x {}/{}", row.batch, row.seq, row.heads, row.kv_heads);
        let kind = format!("{} {}", row.kind, row.pass.name());
        let speeds = [format!("{:.3}", row.tflops), format!("{:.1}", row.gbytes)];
        let [tflops, gbytes] = speeds;
        vec![kind, row.head_dim.to_string(), size, row.launches.to_string(), median, min, max, tflops, gbytes]
    };
    let header =
        ["attention", "head dim", "batch x seq x heads", "kernels", "ms", "min", "max", "TFLOP/s", "GB/s"];
    table(&header, &rows.iter().map(row).collect::<Vec<_>>())
}

fn training_table(report: &TrainingReport) -> String {
    let number = |value: Option<f64>, digits: usize, unit: &str| {
        value.map_or(String::new(), |value| format!("{value:.digits$}{unit}"))
    };
    let percent = |share: Option<f64>| number(share.map(|share| 100.0 * share), 2, "%");
    let mut failures = vec![];
    let mut rows = vec![];
    for row in &report.rows {
        if let Some(error) = &row.error {
            failures.push(format!("ratio {}, {} x {}: {error}", row.ratio, row.batch, row.seq));
        }
        let [median, min, max] = row.ms.as_ref().map(times).unwrap_or_default();
        rows.push(vec![
            format!("{} {}", row.model, row.ratio),
            format!("{} x {}", row.batch, row.seq),
            median,
            min,
            max,
            row.tokens_per_s.map_or(String::new(), |tps| thousands(tps.round() as u64)),
            percent(row.mfu),
            percent(row.titan_mfu),
            row.bytes.map_or(String::new(), bytes),
            number(row.compile_s, 2, ""),
            number(row.first_step_s, 2, ""),
        ]);
    }
    let header = [
        "model and ratio",
        "batch x seq",
        "ms",
        "min",
        "max",
        "tokens/s",
        "MFU",
        "TorchTitan's",
        "memory",
        "compile s",
        "first step s",
    ];
    let mut text = table(&header, &rows);
    for failure in failures {
        text.push_str(&format!("\n{failure}"));
    }
    text
}

fn inference_table(report: &InferenceReport) -> String {
    let speed = |speed: Option<f64>| speed.map_or(String::new(), |speed| thousands(speed.round() as u64));
    let median = |times: &Option<Times>| times.as_ref().map_or(String::new(), |times| ms(times.median));
    let mut failures = vec![];
    let mut rows = vec![];
    for row in &report.rows {
        let size = format!("{} x {}", row.batch, row.length);
        if let Some(error) = &row.error {
            failures.push(format!("ratio {}, {size}: {error}", row.ratio));
        }
        rows.push(vec![
            format!("{} {}", row.model, row.ratio),
            size,
            median(&row.prefill_ms),
            speed(row.prefill_tokens_per_s),
            median(&row.decode_ms),
            speed(row.decode_tokens_per_s),
            bytes(row.cache_bytes),
            bytes(row.state_bytes),
            row.bytes.map_or(String::new(), bytes),
        ]);
    }
    let header = [
        "model and ratio",
        "batch x prompt",
        "prompt ms",
        "tokens/s",
        "step ms",
        "tokens/s",
        "cache of one",
        "states of one",
        "memory",
    ];
    let mut text = table(&header, &rows);
    for failure in failures {
        text.push_str(&format!("\n{failure}"));
    }
    text
}
