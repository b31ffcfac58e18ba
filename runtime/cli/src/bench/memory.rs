//! `linc bench memory`: kernels that memory limits, beside a copy.

use anyhow::Result;
use linc_bench::{MemoryBench, MemoryReport, Times, memory};
use linc_device::words::bytes;

use super::{heading, measured, open, print, times, timing};
use crate::args::{BenchMemoryArgs, Format};
use crate::compile;
use crate::out;
use crate::table::table;

pub(super) fn run(args: &BenchMemoryArgs) -> Result<()> {
    // A user's own number of layers comes later, and wins.
    let set = [&["n_layers=1".to_string()], &args.set[..]].concat();
    let bench = MemoryBench {
        model: open(&args.model, None, "uniform", set, (args.batch_size, args.seq))?,
        seq: args.seq,
        batch: args.batch_size,
        precision: compile::pass_setting(&args.measure.precision)?,
        timing: timing(args.measure.rounds, args.measure.warmup)?,
    };
    let report = measured(args.measure.device, &args.measure, |open, tell| memory(&bench, open, tell))?;
    match args.measure.format {
        Format::Text => {
            heading(&report.device, &args.measure)?;
            out::line(rows(&report))?;
            let [ms, ..] = times(&report.small.ms);
            let (launches, below) = (report.small.launches, bytes(report.small.below_bytes));
            out::line(format!(
                "Launches that move less than {below}: {launches}, which take {ms} ms a step together."
            ))?;
        }
        Format::Json => print("memory", &args.measure, serde_json::to_value(&report)?)?,
    }
    Ok(())
}

fn rows(report: &MemoryReport) -> String {
    let line = |step: &str,
                kernel: &str,
                launches: usize,
                moved: u64,
                ms: &Times,
                speed: (f64, f64, Option<f64>)| {
        let [median, min, max] = times(ms);
        vec![
            step.to_string(),
            kernel.to_string(),
            launches.to_string(),
            bytes(moved),
            median,
            min,
            max,
            format!("{:.1}", speed.0),
            format!("{:.1}%", 100.0 * speed.1),
            speed.2.map_or_else(String::new, |share| format!("{:.1}%", 100.0 * share)),
        ]
    };
    let copy = &report.copy;
    let mut lines = vec![line("copy", "", 1, copy.bytes, &copy.ms, (copy.gbytes, 1.0, Some(1.0)))];
    for row in &report.rows {
        let speed = (row.gbytes, row.share, row.share_of_size);
        lines.push(line(&row.step, &row.kernel, row.launches, row.bytes, &row.ms, speed));
    }
    table(
        &["step", "kernel", "launches", "moves", "ms", "min", "max", "GB/s", "of copy", "of its size"],
        &lines,
    )
}
