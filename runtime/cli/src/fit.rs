//! `linc compile --modes` and `--fit`: training programs that are compared before one is run.

use std::process::ExitCode;

use anyhow::{Result, bail};
use linc_device::words::{bytes, count, thousands};
use linc_driver::{Candidate, Entry, Fit, MemoryLimit, Model, Options};

use crate::args::{CompileArgs, Format};
use crate::out;
use crate::progress::Progress;
use crate::table::{flops, table};

pub(crate) fn run(args: &CompileArgs, model: &Model, entry: &Entry, options: &Options) -> Result<ExitCode> {
    if !matches!(entry, Entry::Train(_)) {
        bail!("--entry is \"{}\"; only a training step recomputes anything", args.entry)
    }
    let bar = Progress::new();
    match args.fit {
        Some(MemoryLimit::Bytes(limit)) => {
            // How many there will be shows when one is too large.
            let mut tell =
                |batch| bar.show("fit", &format!("trying {} at once", count(batch, "sequence")), 0, 1);
            let found = linc_driver::fit(model, entry, options, limit, &mut tell);
            bar.clear();
            fit(args, &found?, limit)
        }
        Some(share @ MemoryLimit::Share(_)) => {
            bail!("--fit is \"{share}\"; expected an amount of memory such as 24GiB")
        }
        None => {
            let mut tell = |done, modes| bar.count("modes compiled", done, modes);
            modes(args, &linc_driver::modes(model, entry, options, &mut tell)?)
        }
    }
}

fn modes(args: &CompileArgs, candidates: &[Candidate]) -> Result<ExitCode> {
    if args.format == Format::Json {
        out::line(serde_json::to_string_pretty(candidates)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> =
        candidates.iter().map(|candidate| row(candidate, &candidate.recompute, &candidates[0])).collect();
    out::line(format_args!(
        "Training step of {}, batch {} x {}\n\n{}\n\nTime is estimated from operations and bytes; results are the same bits.",
        args.model.display(),
        args.layers.batch_size,
        args.layers.seq_len,
        table(&header("recompute"), &rows)
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn fit(args: &CompileArgs, found: &Fit, limit: u64) -> Result<ExitCode> {
    let best = &found.candidates[found.best];
    if args.format == Format::Json {
        out::line(serde_json::to_string_pretty(found)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |candidate: &Candidate| row(candidate, &candidate.batch.to_string(), &found.candidates[0]);
    let mut rows: Vec<Vec<String>> = found.candidates.iter().map(row).collect();
    if let Some((batch, least)) = found.too_large {
        rows.push(vec![batch.to_string(), format!("{} at least", bytes(least))]);
    }
    out::line(format_args!(
        "Training step of {}, sequences of {} tokens, in {}\n\n{}\n\n\
         Time is estimated from operations and bytes. In a config:\n\n\
         [training]\nbatch_size = {}\nseq_len = {}\n\n[activation_checkpoint]\nmode = \"memory_budget\"\nmemory_budget = \"{}\"",
        args.model.display(),
        thousands(args.layers.seq_len as u64),
        bytes(limit),
        table(&header("batch"), &rows),
        best.batch,
        args.layers.seq_len,
        MemoryLimit::Bytes(limit),
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn header(first: &'static str) -> [&'static str; 6] {
    [first, "step memory", "kept", "again", "of all", "time of a token"]
}

/// A row that begins with what differs; times are relative to the candidate `one`.
fn row(candidate: &Candidate, first: &str, one: &Candidate) -> Vec<String> {
    let again = candidate.recomputed.recomputed_flops;
    vec![
        first.to_string(),
        bytes(candidate.peak_bytes),
        bytes(candidate.recomputed.kept_bytes),
        flops(again),
        format!("{:.1} %", 100.0 * again as f64 / candidate.flops.max(1) as f64),
        format!("{:.3}", candidate.token_time / one.token_time),
    ]
}
