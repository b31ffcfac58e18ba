//! `linc bench cpu`: the limits of the processor, and a training step beside them.

use anyhow::{Result, bail};
use linc_bench::{CpuBench, CpuReport, cpu};
use linc_device::Choice;
use linc_device::words::count;

use super::{heading, measured, ms, open, print, timing};
use crate::args::{BenchCpuArgs, Format};
use crate::compile;
use crate::out;
use crate::roofline;

pub(super) fn run(args: &BenchCpuArgs) -> Result<()> {
    if let Choice::Cuda(_) = args.measure.device {
        bail!(
            "--device is {}; linc bench cpu measures the processor\n  help: linc bench memory and linc bench train measure a GPU",
            args.measure.device
        )
    }
    let shape = (args.batch_size, args.seq);
    let bench = CpuBench {
        model: open(&args.model, args.ratio.as_deref(), &args.placement, args.set.clone(), shape)?,
        seq: args.seq,
        batch: args.batch_size,
        precision: compile::pass_setting(&args.measure.precision)?,
        recompute: compile::recompute(&args.recompute)?,
        timing: timing(args.measure.rounds, args.measure.warmup)?,
    };
    let report = measured(Choice::Cpu, &args.measure, |open, tell| cpu(&bench, open, tell))?;
    roofline::warn_of_others(report.others);
    match args.measure.format {
        Format::Text => {
            heading(&report.machine.device, &args.measure)?;
            show(&report)
        }
        Format::Json => print("cpu", &args.measure, serde_json::to_value(&report)?),
    }
}

fn show(report: &CpuReport) -> Result<()> {
    out::line(roofline::limits(&report.machine))?;
    let CpuReport { model, layers, batch, seq, .. } = report;
    let [median, min, max] = [report.ms.median, report.ms.min, report.ms.max].map(ms);
    out::prose(format_args!(
        "\nA training step of {model} ({layers}), {batch} x {}: {median} ms ({min} to {max}), {:.1} % of the peak. Its kernels take {} ms.",
        count(*seq, "token"),
        100.0 * report.of_peak,
        ms(report.roofline.ms)
    ))?;
    roofline::show(&report.roofline)?;
    Ok(out::prose(format_args!("\nMemory: {}", roofline::beside_floor(report.bytes, report.floor_bytes)))?)
}
