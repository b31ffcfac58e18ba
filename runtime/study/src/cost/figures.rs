//! The figures of a measurement: speed, memory and latency over the length, a series for each share of linear layers.

use linc_bench::{CostReport, CostRow, Work};

use super::tables::power;
use super::{Quantity, fits, measured, ratios};
use crate::page::{Axis, Chart, Drawing, Mark, Place, Scale, Series};

pub(super) fn figures(report: &CostReport) -> Vec<Chart> {
    const MIB: f64 = (1 << 20) as f64;
    let speed = |row: &CostRow| Some((row.tokens_per_s?, None));
    let charts = [
        over_length(
            report,
            Work::Training,
            "cost-training",
            "Training speed over the length",
            "tokens per second",
            speed,
        ),
        over_length(
            report,
            Work::Training,
            "cost-memory-training",
            "Memory of a training step over the length",
            "MiB",
            |row| Some((row.bytes as f64 / MIB, None)),
        ),
        over_length(
            report,
            Work::Prefill,
            "cost-prefill",
            "Speed of reading a prompt over its length",
            "tokens per second",
            speed,
        ),
        over_length(
            report,
            Work::Decode,
            "cost-decode",
            "Time of a token over the length before it",
            "milliseconds",
            |row| Some((row.ms?.median, Some((row.ms?.min, row.ms?.max)))),
        ),
        over_length(
            report,
            Work::Decode,
            "cost-kept",
            "Cache and states of a sequence over its length",
            "MiB",
            |row| Some(((row.cache_bytes + row.state_bytes) as f64 / MIB, None)),
        ),
        gains(
            report,
            Work::Training,
            "cost-gain-training",
            "Training beside the least share of linear layers",
        ),
        gains(
            report,
            Work::Decode,
            "cost-gain-decode",
            "Writing tokens beside the least share of linear layers",
        ),
    ];
    charts.into_iter().filter(|chart| !chart.series.is_empty()).collect()
}

fn axis(label: &str, scale: Scale) -> Axis {
    Axis { label: label.to_owned(), scale, order: vec![], zero: false }
}

/// A number of a point, and the ends of its interval.
type Of = fn(&CostRow) -> Option<(f64, Option<(f64, f64)>)>;

fn over_length(report: &CostReport, work: Work, id: &'static str, title: &str, y: &str, of: Of) -> Chart {
    let mark = |row: &&CostRow| {
        let (y, ends) = of(row).filter(|(y, _)| *y > 0.0)?;
        let (low, high) = ends.unzip();
        Some(Mark { x: Place::Number(row.length as f64), y, low, high })
    };
    let series = |ratio: f64| {
        let line: Vec<Mark> = measured(report, work, ratio).iter().filter_map(mark).collect();
        (!line.is_empty()).then(|| Series { name: format!("ratio {ratio}"), lines: vec![line] })
    };
    let grows: Vec<String> = fits(report)
        .iter()
        .filter(|fit| fit.work == work && fit.quantity == wanted(id))
        .map(|fit| format!("ratio {} as length to the power of {}", fit.ratio, power(fit.power)))
        .collect();
    let grows = match grows.is_empty() {
        true => String::new(),
        false => {
            format!(" {} grows, over the longer half: {}.", capital(wanted(id).name()), grows.join("; "))
        }
    };
    Chart {
        id,
        title: title.to_owned(),
        sentence: format!("Medians; batches of {}, {}.{grows}", report.batch, report.precision),
        x: axis("tokens of a sequence", Scale::Log),
        y: axis(y, Scale::Log),
        drawing: Drawing::Points,
        series: ratios(report).into_iter().filter_map(series).collect(),
    }
}

/// What a figure shows the growth of.
fn wanted(id: &str) -> Quantity {
    match id {
        "cost-memory-training" => Quantity::Memory,
        "cost-kept" => Quantity::Kept,
        _ => Quantity::Time,
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// How many times as fast as the least ratio the others are.
fn gains(report: &CostReport, work: Work, id: &'static str, title: &str) -> Chart {
    let all = ratios(report);
    let least = all.first().copied().unwrap_or(0.0);
    let base = measured(report, work, least);
    let series = |ratio: &f64| {
        let mark = |row: &&CostRow| {
            let same = base.iter().find(|base| base.length == row.length)?;
            let y = same.ms?.median / row.ms?.median;
            Some(Mark { x: Place::Number(row.length as f64), y, low: None, high: None })
        };
        let line: Vec<Mark> = measured(report, work, *ratio).iter().filter_map(mark).collect();
        (!line.is_empty()).then(|| Series { name: format!("ratio {ratio}"), lines: vec![line] })
    };
    Chart {
        id,
        title: title.to_owned(),
        sentence: format!("How many times as fast as ratio {least}: above 1 the linear layers win."),
        x: axis("tokens of a sequence", Scale::Log),
        y: axis(&format!("times as fast as ratio {least}"), Scale::Linear),
        drawing: Drawing::Points,
        series: all.iter().skip(1).filter_map(series).collect(),
    }
}
