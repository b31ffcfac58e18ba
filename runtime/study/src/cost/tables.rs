//! What was measured, as tables and sentences.

use linc_bench::{CostReport, CostRow, Limit, Work};
use linc_device::words::{bytes, thousands};

use super::{Crossover, Fit, Wins, crossovers, fits, measured, ratios};
use crate::page::{Table, dash};
use crate::statistics::Power;

/// Points that a sentence lists, at most.
const SAID: usize = 4;

pub(super) fn tables(report: &CostReport) -> Vec<Table> {
    let all = [crossover_table(report), exponents(report), points(report), memory(report), kernels(report)];
    all.into_iter().filter(|table| !table.rows.is_empty()).collect()
}

/// Milliseconds in as few digits as they deserve.
fn ms(value: f64) -> String {
    format!("{value:.*}", if value < 10.0 { 3 } else { 1 })
}

pub(super) fn power(power: Power) -> String {
    match power.half_width {
        Some(half) => format!("{:.2} ± {half:.2}", power.exponent),
        None => format!("{:.2}", power.exponent),
    }
}

fn points(report: &CostReport) -> Table {
    let row = |row: &CostRow| {
        let limit = row.bounds.as_ref().and_then(|bounds| {
            let main = bounds.main()?;
            Some(format!("{} {:.0} %", main.name(), 100.0 * bounds.share(main)))
        });
        vec![
            row.work.name().to_owned(),
            row.ratio.to_string(),
            thousands(row.length as u64),
            row.ms.map_or_else(dash, |found| ms(found.median)),
            row.tokens_per_s.map_or_else(dash, |speed| thousands(speed.round() as u64)),
            row.attention_ms.map_or_else(dash, ms),
            if row.bytes > 0 { bytes(row.bytes) } else { dash() },
            limit.or_else(|| row.error.clone()).unwrap_or_else(dash),
        ]
    };
    let header = ["work", "ratio", "length", "ms", "tokens/s", "attention ms", "memory", "limit"];
    Table::new("cost-points", "Cost of each point", &header, report.rows.iter().map(row).collect())
}

fn exponents(report: &CostReport) -> Table {
    let row = |fit: &Fit| {
        let number = |value: Option<f64>| value.map_or_else(dash, |value| format!("{value:.2}"));
        vec![
            fit.work.name().to_owned(),
            fit.quantity.name().to_owned(),
            fit.ratio.to_string(),
            power(fit.power),
            number(fit.plan),
            number(fit.theory),
            format!("{} .. {} ({})", thousands(fit.from as u64), thousands(fit.to as u64), fit.points),
        ]
    };
    let header = ["work", "what grows", "ratio", "exponent", "of the plan", "theory", "lengths"];
    let rows = fits(report).iter().map(row).collect();
    Table::new("cost-exponents", "Growth with the length", &header, rows)
}

/// From where on, in words.
fn wins(wins: Wins) -> String {
    match wins {
        Wins::Always { from } => format!("from {} on, the shortest", thousands(from as u64)),
        Wins::From { length } => format!("from about {} on", thousands(length.round() as u64)),
        Wins::Not { up_to } => format!("not up to {}", thousands(up_to as u64)),
    }
}

fn crossover_table(report: &CostReport) -> Table {
    let row = |found: &Crossover| {
        vec![found.work.name().to_owned(), found.ratio.to_string(), found.than.to_string(), wins(found.wins)]
    };
    let rows = crossovers(report).iter().map(row).collect();
    Table::new(
        "cost-crossover",
        "Where linear layers win",
        &["work", "ratio", "faster than ratio", "tokens"],
        rows,
    )
}

fn memory(report: &CostReport) -> Table {
    let mut names: Vec<&str> = report
        .rows
        .iter()
        .flat_map(|row| row.memory.iter().filter(|(_, n)| **n > 0))
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    let shown = |name: &&str| name.replace('_', " ");
    let header: Vec<String> = ["work", "ratio", "length"]
        .iter()
        .map(|word| (*word).to_owned())
        .chain(names.iter().map(shown))
        .chain(["arena", "resident", "cache of one", "states of one"].map(str::to_owned))
        .collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let row = |row: &&CostRow| {
        let amount = |n: u64| if n > 0 { bytes(n) } else { dash() };
        let fixed = [row.work.name().to_owned(), row.ratio.to_string(), thousands(row.length as u64)];
        let of = names.iter().map(|name| amount(row.memory.get(*name).copied().unwrap_or(0)));
        let rest = [
            amount(row.bytes),
            row.resident_bytes.map_or_else(dash, bytes),
            amount(row.cache_bytes),
            amount(row.state_bytes),
        ];
        fixed.into_iter().chain(of).chain(rest).collect()
    };
    // Prompts and what comes behind them are one program's.
    let rows: Vec<&CostRow> =
        report.rows.iter().filter(|row| row.bytes > 0 && row.work != Work::Prefill).collect();
    Table::new("cost-memory", "Memory by category", &header, rows.iter().map(row).collect())
}

fn kernels(report: &CostReport) -> Table {
    const SHOWN: usize = 3;
    let mut rows = vec![];
    for row in &report.rows {
        let Some(bounds) = &row.bounds else { continue };
        let total: f64 = bounds.ms.values().sum();
        for kernel in bounds.kernels.iter().take(SHOWN) {
            rows.push(vec![
                row.work.name().to_owned(),
                row.ratio.to_string(),
                thousands(row.length as u64),
                kernel.kernel.clone(),
                format!("{:.0} %", 100.0 * kernel.ms / total.max(1e-12)),
                kernel.limit.name().to_owned(),
                format!("{:.0} %", 100.0 * kernel.attained),
            ]);
        }
    }
    let header = ["work", "ratio", "length", "kernel", "of the time", "limit", "of the limit"];
    Table::new("cost-kernels", "The slowest kernels", &header, rows)
}

/// What the numbers show, and no more.
pub(super) fn sentences(report: &CostReport) -> Vec<String> {
    let mut said = vec![format!(
        "{} in {}, batches of {}, on {}.",
        report.model, report.precision, report.batch, report.machine.device
    )];
    let all = ratios(report);
    let (Some(least), Some(most)) = (all.first(), all.last()) else { return said };
    if least < most {
        for work in Work::ALL {
            let (base, other) = (measured(report, work, *least), measured(report, work, *most));
            let longest = other.iter().rev().find_map(|row| {
                let same = base.iter().find(|base| base.length == row.length)?;
                Some((row.length, same.ms?.median / row.ms?.median))
            });
            if let Some((length, times)) = longest {
                let word = match work {
                    Work::Training => "trains",
                    Work::Prefill => "reads prompts",
                    Work::Decode => "writes tokens",
                };
                said.push(format!(
                    "At {} tokens ratio {most} {word} {times:.2} times as fast as ratio {least}.",
                    thousands(length as u64)
                ));
            }
        }
    }
    for found in crossovers(report).iter().filter(|found| found.ratio == *most) {
        said.push(format!(
            "Ratio {} is faster than ratio {} in {} {}.",
            found.ratio,
            found.than,
            found.work.name(),
            match found.wins {
                Wins::Always { from } => format!("at all lengths from {} tokens on", thousands(from as u64)),
                Wins::From { .. } => wins(found.wins) + " tokens",
                Wins::Not { up_to } => format!("at no length up to {} tokens", thousands(up_to as u64)),
            }
        ));
    }
    for fit in fits(report)
        .iter()
        .filter(|fit| fit.theory.is_some() && fit.quantity == super::Quantity::AttentionTime)
    {
        let theory = fit.theory.unwrap_or_default();
        said.push(format!(
            "In {} at ratio {} attention's time grows as the length to the power of {} from {} to {} tokens; theory says {theory:.0}.",
            fit.work.name(),
            fit.ratio,
            power(fit.power),
            thousands(fit.from as u64),
            thousands(fit.to as u64),
        ));
    }
    let launch: Vec<String> = report
        .rows
        .iter()
        .filter(|row| row.bounds.as_ref().is_some_and(|bounds| bounds.main() == Some(Limit::Launch)))
        .map(|row| {
            format!("{} at ratio {} and {} tokens", row.work.name(), row.ratio, thousands(row.length as u64))
        })
        .collect();
    if !launch.is_empty() {
        let more = match launch.len().saturating_sub(SAID) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let some = launch[..launch.len().min(SAID)].join("; ");
        said.push(format!("Launches take most of the time of: {some}{more}."));
    }
    let left = report.rows.iter().filter(|row| row.ms.is_none()).count();
    if left > 0 {
        said.push(format!("{left} of {} points were not measured; the table says why.", report.rows.len()));
    }
    said
}
