//! Tables of what a run reaches of its machine's limits.

use anyhow::Result;
use linc_bench::{GOAL, InstructionSet, Machine, Roofline, RooflineRow};
use linc_device::NOISY;
use linc_device::words::bytes;

use crate::bench::ms;
use crate::log;
use crate::out;
use crate::table::table;

/// Kernels that are shown; what is left is small, and in the other tables.
const KERNELS: usize = 24;

/// What the machine does at most.
pub(crate) fn limits(machine: &Machine) -> String {
    let giga = |rate: f64| format!("{:.1}", rate / 1e9);
    let set = |set: &InstructionSet| vec![set.name.clone(), giga(set.one_thread), giga(set.all_threads)];
    let sets: Vec<Vec<String>> = machine.instruction_sets.iter().map(set).collect();
    let copies: Vec<Vec<String>> =
        machine.copies.iter().map(|copy| vec![bytes(copy.bytes), giga(copy.bytes_per_s)]).collect();
    let mut text = String::new();
    if !sets.is_empty() {
        text += &table(&["multiply-adds, GFLOP/s", "one thread", "all threads"], &sets);
        text += "\n\n";
    }
    text + &format!(
        "Peak {} GFLOP/s: {}\n\n{}\n\nA launch takes {:.2} µs.",
        giga(machine.peak_flops),
        machine.peak,
        table(&["copy, read and written", "GB/s"], &copies),
        1e6 * machine.launch_s
    )
}

/// Warns where other processes took so much of the machine that the numbers are not its own.
pub(crate) fn warn_of_others(others: Option<f64>) {
    if let Some(others) = others.filter(|others| *others > NOISY) {
        log::warn(format_args!(
            "other processes took {:.0} % of the machine meanwhile; alone, shares of its limits would be higher",
            100.0 * others
        ));
    }
}

/// What a step takes, and how far that is above what it needs.
pub(crate) fn beside_floor(taken: u64, floor: u64) -> String {
    let times = taken as f64 / floor.max(1) as f64;
    format!("{}, {times:.2} times the {} in use at the fullest launch.", bytes(taken), bytes(floor))
}

/// Prints the tables: by kernel, by part of the model, and by sort of work what it loses.
pub(crate) fn show(roofline: &Roofline) -> Result<()> {
    let shown = &roofline.kernels[..roofline.kernels.len().min(KERNELS)];
    out::line(format_args!("\n{}", shares("kernel", shown)))?;
    if let left @ 1.. = roofline.kernels.len() - shown.len() {
        let rest: f64 = roofline.kernels[shown.len()..].iter().map(|row| row.ms).sum();
        out::line(format_args!("and {left} more, {} ms together", ms(rest)))?;
    }
    out::line(format_args!("\n{}", shares("part", &roofline.parts)))?;
    let row = |row: &RooflineRow| {
        vec![
            row.name.clone(),
            ms(row.ms),
            percent(row.attained),
            ms(row.lost_ms),
            percent(row.lost_ms / roofline.ms.max(1e-12)),
            ms(row.saved_ms),
        ]
    };
    let header = ["work", "ms", "of its limits", "ms lost", "of the step", "saved at the goal"];
    out::line(format_args!("\n{}", table(&header, &roofline.work.iter().map(row).collect::<Vec<_>>())))?;
    Ok(out::prose(format_args!(
        "\nAll kernels together reach {:.1} % of their limits. With none below {:.0} % of its own, a step would take {:.1} % less time.",
        100.0 * roofline.attained,
        100.0 * GOAL,
        100.0 * roofline.saved
    ))?)
}

/// Rows with what each reaches.
fn shares(what: &str, rows: &[RooflineRow]) -> String {
    let row = |row: &RooflineRow| {
        vec![
            row.name.clone(),
            launches(row.launches),
            ms(row.ms),
            percent(row.share),
            format!("{:.1}", row.gflops),
            percent(row.of_peak),
            format!("{:.1}", row.gbytes),
            percent(row.of_copy),
            row.limit.name().to_owned(),
        ]
    };
    let header = [what, "launches", "ms", "of the step", "GFLOP/s", "of peak", "GB/s", "of copy", "limit"];
    table(&header, &rows.iter().map(row).collect::<Vec<_>>())
}

/// A whole number, but for means over steps that differ.
fn launches(mean: f64) -> String {
    if mean.fract() == 0.0 { format!("{mean:.0}") } else { format!("{mean:.1}") }
}

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}
