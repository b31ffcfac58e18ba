//! The figures: what runs are compared by, curves, speed and memory.

use std::collections::{BTreeMap, BTreeSet};

use linc_train::metrics::Record;

use super::collect::Collected;
use super::summary::{better, shown_metric};
use crate::page::{Axis, Chart, Drawing, Mark, Place, Scale, Series};
use crate::results::{Point, RunResult, without_seed};
use crate::statistics::{Mean, Power, log_log_slope};

/// The setting that comes along the horizontal axis where it is varied.
const RATIO: &str = "model.linear_attn_ratio";
const LENGTH: &str = "training.seq_len";
/// Points of a curve, at most: the width of a page has no more.
const CURVE: usize = 200;
/// Curves of one figure, at most.
const CURVES: usize = 60;

/// All figures for which there is something to draw.
pub(super) fn figures(collected: &Collected, points: &[Point]) -> Vec<Chart> {
    let along = along(points);
    let mut charts = vec![];
    charts.extend(compared(collected, points, &along));
    charts.extend(differences(collected, points, &along));
    charts.extend(accuracy(collected, &along));
    charts.extend(curves(
        collected,
        "validation",
        "Validation loss over the steps",
        "validation loss, nats per token",
        |run| curve(&run.records.validations, |record| record.validation_loss),
    ));
    charts.extend(curves(
        collected,
        "training",
        "Training loss over the steps",
        "training loss, nats per token",
        |run| curve(&run.records.training, |record| record.loss),
    ));
    charts.extend(speed(points, &along));
    charts.extend(memory(points, &along));
    charts
        .into_iter()
        .filter(|chart| chart.series.iter().any(|s| s.lines.iter().any(|line| !line.is_empty())))
        .collect()
}

/// The last part of a setting's name.
pub(super) fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Settings and values of a run in few words.
pub(super) fn label(values: &[(String, String)]) -> String {
    let words: Vec<String> = values.iter().map(|(name, value)| format!("{} {value}", short(name))).collect();
    if words.is_empty() { "all runs".to_owned() } else { words.join(", ") }
}

/// The setting along the horizontal axis: the ratio, else the length, else the first that is varied, numbers before words.
fn along(points: &[Point]) -> Option<String> {
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in points.iter().flat_map(|point| &point.values) {
        values.entry(name).or_default().insert(value);
    }
    let varied: Vec<(&str, bool)> = values
        .iter()
        .filter(|(_, values)| values.len() > 1)
        .map(|(name, values)| (*name, values.iter().all(|value| value.parse::<f64>().is_ok())))
        .collect();
    let named = |wanted: &str| varied.iter().find(|(name, _)| *name == wanted);
    let found =
        named(RATIO).or_else(|| named(LENGTH)).or_else(|| varied.iter().find(|(_, is_number)| *is_number));
    found.or_else(|| varied.first()).map(|(name, _)| (*name).to_owned())
}

/// Points as series along a setting: what else is varied names the series.
fn series_along(
    points: &[Point],
    along: &Option<String>,
    mark: impl Fn(&Point) -> Option<(f64, Option<f64>)>,
) -> (Vec<Series>, Scale) {
    let value_of = |point: &Point| {
        let value = along.as_ref().and_then(|name| point.values.iter().find(|(known, _)| known == name));
        value.map_or_else(|| label(&point.values), |(_, value)| value.clone())
    };
    let numbers: Option<Vec<f64>> = points.iter().map(|point| value_of(point).parse().ok()).collect();
    let scale = match &numbers {
        None => Scale::Words,
        Some(numbers) => {
            let (least, most) = numbers.iter().fold((f64::MAX, 0.0_f64), |(l, m), n| (l.min(*n), m.max(*n)));
            if least > 0.0 && most / least >= 8.0 { Scale::Log } else { Scale::Linear }
        }
    };
    let mut series: Vec<Series> = vec![];
    for point in points {
        let rest: Vec<(String, String)> =
            point.values.iter().filter(|(name, _)| Some(name) != along.as_ref()).cloned().collect();
        let name = label(&rest);
        let index = series.iter().position(|series| series.name == name).unwrap_or_else(|| {
            series.push(Series { name, lines: vec![vec![]] });
            series.len() - 1
        });
        if let Some((y, half)) = mark(point).filter(|(y, _)| y.is_finite()) {
            let word = value_of(point);
            let x = match scale {
                Scale::Words => Place::Word(word),
                Scale::Linear | Scale::Log => Place::Number(word.parse().unwrap_or(f64::NAN)),
            };
            series[index].lines[0].push(Mark {
                x,
                y,
                low: half.map(|half| y - half),
                high: half.map(|half| y + half),
            });
        }
    }
    (series, scale)
}

fn axis_of(along: &Option<String>, scale: Scale) -> Axis {
    Axis { label: along.as_deref().map_or("run", short).replace('_', " "), scale, order: vec![], zero: false }
}

fn linear(label: &str) -> Axis {
    Axis { label: label.to_owned(), scale: Scale::Linear, order: vec![], zero: false }
}

fn amount(label: &str, scale: Scale) -> Axis {
    Axis { label: label.to_owned(), scale, order: vec![], zero: scale == Scale::Linear }
}

fn of_mean(mean: Option<Mean>) -> Option<(f64, Option<f64>)> {
    mean.map(|mean| (mean.mean, mean.half_width))
}

fn compared(collected: &Collected, points: &[Point], along: &Option<String>) -> Option<Chart> {
    let (series, scale) = series_along(points, along, |point| of_mean(point.value));
    let metric = shown_metric(collected.metric);
    Some(Chart {
        id: "compared",
        title: format!("{} of each point", capital(metric)),
        sentence: format!(
            "Means over the seeds, with 95 % intervals where there are several; {}.",
            better(collected.metric)
        ),
        x: axis_of(along, scale),
        y: linear(metric),
        drawing: Drawing::Points,
        series,
    })
}

fn differences(collected: &Collected, points: &[Point], along: &Option<String>) -> Option<Chart> {
    let (first, rest) = points.split_first()?;
    let (series, scale) = series_along(rest, along, |point| of_mean(point.difference));
    let metric = shown_metric(collected.metric);
    Some(Chart {
        id: "differences",
        title: format!("Difference to {}", label(&first.values)),
        sentence: "Each seed is compared with itself, on the same weights and batches; an interval that holds zero is no \
                   difference that these seeds show."
            .to_owned(),
        x: axis_of(along, scale),
        y: linear(&format!("difference in {metric}")),
        drawing: Drawing::Points,
        series,
    })
}

/// Recall, where runs are of a task that has answers.
fn accuracy(collected: &Collected, along: &Option<String>) -> Option<Chart> {
    let metric = crate::sweep::Metric::ValidationAccuracy;
    if collected.metric == metric || collected.results.iter().all(|run| run.records.value(metric).is_none()) {
        return None;
    }
    let points = crate::results::points(metric, &collected.results);
    let (series, scale) = series_along(&points, along, |point| of_mean(point.value));
    Some(Chart {
        id: "accuracy",
        title: "Recall of each point".to_owned(),
        sentence:
            "Share of recall queries that were answered right; means over the seeds, with 95 % intervals."
                .to_owned(),
        x: axis_of(along, scale),
        y: linear("share answered right"),
        drawing: Drawing::Points,
        series,
    })
}

fn curves(
    collected: &Collected,
    id: &'static str,
    title: &str,
    y: &str,
    of: impl Fn(&RunResult) -> Vec<Mark>,
) -> Option<Chart> {
    let mut series: Vec<Series> = vec![];
    for run in collected.results.iter().take(CURVES) {
        let name = label(&without_seed(&run.values));
        let line = of(run);
        match series.iter_mut().find(|series| series.name == name) {
            Some(series) => series.lines.push(line),
            None => series.push(Series { name, lines: vec![line] }),
        }
    }
    let all = collected.results.len();
    let cut = if all > CURVES { format!(" Of {all} runs, the first {CURVES}.") } else { String::new() };
    Some(Chart {
        id,
        title: title.to_owned(),
        sentence: format!("A line for each run; runs that differ in their seed alone have one colour.{cut}"),
        x: linear("step"),
        y: linear(y),
        drawing: Drawing::Curves,
        series,
    })
}

/// A curve over the steps; where there are too many records, the mean of as many as share a place.
fn curve(records: &[Record], of: impl Fn(&Record) -> Option<f64>) -> Vec<Mark> {
    let values: Vec<(usize, f64)> = records
        .iter()
        .filter_map(|record| Some((record.step, of(record)?)))
        .filter(|(_, y)| y.is_finite())
        .collect();
    let together = values.len().div_ceil(CURVE).max(1);
    let mark = |part: &[(usize, f64)]| {
        let y = part.iter().map(|(_, y)| y).sum::<f64>() / part.len() as f64;
        let step = part.last().map_or(0, |(step, _)| *step);
        Mark { x: Place::Number(step as f64), y, low: None, high: None }
    };
    values.chunks(together).map(mark).collect()
}

fn speed(points: &[Point], along: &Option<String>) -> Option<Chart> {
    let (series, scale) = series_along(points, along, |point| Some((point.speed?, None)));
    Some(Chart {
        id: "speed",
        title: "Training speed".to_owned(),
        sentence: "The median over each run's records, on the machine that trained; runs at once take time from each other."
            .to_owned(),
        x: axis_of(along, scale),
        y: amount("tokens per second", Scale::Linear),
        drawing: Drawing::Points,
        series,
    })
}

fn memory(points: &[Point], along: &Option<String>) -> Option<Chart> {
    const MIB: f64 = (1 << 20) as f64;
    let (series, scale) = series_along(points, along, |point| Some((point.memory? as f64 / MIB, None)));
    let slope = match along.as_deref() {
        Some(LENGTH) => slopes(&series),
        _ => String::new(),
    };
    Some(Chart {
        id: "memory",
        title: "Memory of a step".to_owned(),
        sentence: format!(
            "All tensors at the step's peak, as the plan has them, which is what a run allocates.{slope}"
        ),
        x: axis_of(along, scale),
        y: amount("MiB", if scale == Scale::Log { Scale::Log } else { Scale::Linear }),
        drawing: Drawing::Points,
        series,
    })
}

/// How series grow with the length.
fn slopes(series: &[Series]) -> String {
    let slope = |series: &Series| {
        let pairs: Vec<(f64, f64)> = series.lines[0]
            .iter()
            .filter_map(|mark| match mark.x {
                Place::Number(x) => Some((x, mark.y)),
                Place::Word(_) => None,
            })
            .collect();
        let Power { exponent, half_width } = log_log_slope(&pairs)?;
        let half = half_width.map_or_else(String::new, |half| format!(" ± {half:.2}"));
        Some(format!(" {}: as length to the power of {exponent:.2}{half}.", series.name))
    };
    series.iter().filter_map(slope).collect()
}

/// With a capital at its beginning.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
