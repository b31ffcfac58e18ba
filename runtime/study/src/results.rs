//! What runs wrote, read again: by a sweep that compares them, and by reports. A run may be going on, may have failed, or
//! may have been started by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use linc_train::metrics::{Kind, Record};

use crate::error::{StudyError, file};
use crate::statistics::{Mean, median};
use crate::sweep::{Metric, Outcome, Run, Status, Sweep};

/// What a run measured while it trained, as far as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunRecords {
    /// Of training steps, ascending.
    pub training: Vec<Record>,
    /// Of validations, ascending.
    pub validations: Vec<Record>,
}

impl RunRecords {
    /// Reads the `metrics.jsonl` of a run's folder; no records where there is none yet. A line that is cut off, as of a
    /// run that is writing it, is passed over.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(folder: &Path) -> Result<RunRecords, StudyError> {
        let path = folder.join("metrics.jsonl");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(RunRecords::default()),
            Err(error) => return Err(file("read", &path)(error)),
        };
        let text = String::from_utf8_lossy(&text);
        let mut records = RunRecords::default();
        for record in text.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok()) {
            match record.kind() {
                Kind::Training => records.training.push(record),
                Kind::Validation => records.validations.push(record),
                // Runs are compared by what all of them measure.
                Kind::Evaluation => {}
            }
        }
        Ok(records)
    }

    /// Without what came after a step.
    #[must_use]
    pub fn until(mut self, step: usize) -> RunRecords {
        self.training.retain(|record| record.step <= step);
        self.validations.retain(|record| record.step <= step);
        self
    }

    /// What runs are compared by, if it was measured.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::ValidationLoss => self.validations.last()?.validation_loss,
            Metric::ValidationAccuracy => self.validations.last()?.validation_accuracy,
            Metric::TrainingLoss => {
                let last = self.training.last()?.step;
                let tail = self.training.iter().filter(|record| record.step > last - last.div_ceil(10));
                let losses: Vec<f64> = tail.filter_map(|record| record.loss).collect();
                Mean::of(&losses).map(|mean| mean.mean)
            }
        }
    }

    /// Tokens per second, of the record in the middle: the first steps are slow.
    pub fn speed(&self) -> Option<f64> {
        let speeds: Vec<f64> = self.training.iter().skip(1).filter_map(|record| record.tps).collect();
        median(&speeds).or_else(|| self.training.first()?.tps)
    }

    /// Bytes of a step at its peak.
    pub fn memory(&self) -> Option<u64> {
        let memory = &self.training.last()?.memory;
        (!memory.is_empty()).then(|| memory.values().sum())
    }
}

/// Runs that differ in their seed only.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The settings that the sweep varies, but for the seed.
    pub values: Vec<(String, String)>,
    /// The value that runs are compared by, over the seeds.
    pub value: Option<Mean>,
    /// How much more that is than the first point's, over the seeds that both have: runs of one seed see the same batches, so
    /// that most of what one seed differs from another is in neither's difference.
    pub difference: Option<Mean>,
    /// Tokens per second.
    pub speed: Option<f64>,
    /// Bytes of a step at its peak.
    pub memory: Option<u64>,
    /// Steps done at least.
    pub steps: usize,
    /// Runs that failed.
    pub failed: usize,
    /// Runs that did all they were asked for: these alone are compared.
    pub finished: usize,
    /// Runs that were ended early.
    pub early: usize,
}

/// The setting of which several values are one point.
const SEED: &str = "training.seed";

/// A run with what it came to.
#[derive(Clone, Debug, PartialEq)]
pub struct RunResult {
    /// The name that its folder has.
    pub name: String,
    /// Where its `metrics.jsonl` is.
    pub folder: PathBuf,
    /// The settings that others have otherwise.
    pub values: Vec<(String, String)>,
    /// What it measured.
    pub records: RunRecords,
    /// How it ended; nothing of a run that may go on.
    pub status: Option<Status>,
    /// Whether it was ended before the steps that its config has, as the worst of a halving are.
    pub is_early: bool,
    /// What it said at last, if it failed.
    pub message: Option<String>,
}

/// The runs of a sweep with what they came to, in its order.
///
/// # Errors
/// Records that cannot be read.
pub fn of_sweep(sweep: &Sweep) -> Result<Vec<RunResult>, StudyError> {
    let result = |run: &Run| {
        let folder = sweep.folder_of(run);
        let outcome = Outcome::read(&sweep.folder, &run.name);
        Ok(RunResult {
            name: run.name.clone(),
            values: run.values.clone(),
            records: RunRecords::read(&folder)?,
            folder,
            is_early: outcome.as_ref().is_some_and(|outcome| outcome.steps < run.config.training.steps),
            status: outcome.as_ref().map(|outcome| outcome.status),
            message: outcome.and_then(|outcome| outcome.message),
        })
    };
    sweep.runs.iter().map(result).collect()
}

/// What runs show, a point for those that differ in their seed alone, in the order in which they come.
pub fn points(metric: Metric, runs: &[RunResult]) -> Vec<Point> {
    let mut order: Vec<Vec<(String, String)>> = vec![];
    let mut of: BTreeMap<Vec<(String, String)>, Vec<&RunResult>> = BTreeMap::new();
    for run in runs {
        let values = without_seed(&run.values);
        if !of.contains_key(&values) {
            order.push(values.clone());
        }
        of.entry(values).or_default().push(run);
    }
    let mut points = vec![];
    let mut first = None;
    for values in order {
        let (mut point, by_seed) = point(metric, &of[&values], values.clone());
        match &first {
            None => first = Some(by_seed),
            Some(first) => point.difference = difference(&by_seed, first),
        }
        points.push(point);
    }
    points
}

/// Values by what the seed is.
type BySeed = BTreeMap<Option<String>, f64>;

/// The mean of the differences of values with equal seeds.
fn difference(own: &BySeed, first: &BySeed) -> Option<Mean> {
    let differences: Vec<f64> =
        own.iter().filter_map(|(seed, value)| Some(value - first.get(seed)?)).collect();
    Mean::of(&differences)
}

fn point(metric: Metric, runs: &[&RunResult], values: Vec<(String, String)>) -> (Point, BySeed) {
    let (mut compared, mut speeds, mut memory, mut steps) = (BySeed::new(), vec![], None, usize::MAX);
    let (mut failed, mut finished, mut early) = (0, 0, 0);
    for run in runs {
        let records = &run.records;
        match run.status {
            // What was trained for less is no measure beside what was trained for all of it.
            Some(Status::Finished) if run.is_early => early += 1,
            Some(Status::Finished) => {
                finished += 1;
                let seed = run.values.iter().find(|(name, _)| name == SEED).map(|(_, seed)| seed.clone());
                compared.extend(records.value(metric).map(|value| (seed, value)));
            }
            Some(Status::Failed) => failed += 1,
            None => {}
        }
        speeds.extend(records.speed());
        memory = memory.max(records.memory());
        steps = steps.min(records.training.last().map_or(0, |record| record.step));
    }
    let value = Mean::of(&compared.values().copied().collect::<Vec<_>>());
    let speed = median(&speeds);
    (Point { values, value, difference: None, speed, memory, steps, failed, finished, early }, compared)
}

/// The settings in which points differ, in the order in which they come.
pub fn settings(points: &[Point]) -> Vec<&str> {
    let mut names: Vec<&str> = vec![];
    for (name, _) in points.iter().flat_map(|point| &point.values) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

/// The settings of a run but for its seed, by which it belongs to a point.
pub(crate) fn without_seed(values: &[(String, String)]) -> Vec<(String, String)> {
    values.iter().filter(|(name, _)| name != SEED).cloned().collect()
}

/// The points as comma-separated values with a header, for spreadsheets.
pub fn csv(metric: Metric, points: &[Point]) -> String {
    let names = settings(points);
    let metric = metric.word();
    let interval = format!("{metric}_half_width");
    let fixed = [
        metric,
        interval.as_str(),
        "difference_to_first",
        "difference_half_width",
        "runs",
        "failed",
        "ended_early",
        "steps",
        "tokens_per_second",
        "memory_bytes",
    ];
    let mut text = row(names.iter().chain(&fixed).map(|name| (*name).to_owned()));
    for point in points {
        let value = |name: &&str| {
            point.values.iter().find(|(n, _)| n == name).map_or(String::new(), |(_, v)| v.clone())
        };
        let number = |number: Option<f64>| number.map_or(String::new(), |number| number.to_string());
        let numbers = [
            number(point.value.map(|mean| mean.mean)),
            number(point.value.and_then(|mean| mean.half_width)),
            number(point.difference.map(|mean| mean.mean)),
            number(point.difference.and_then(|mean| mean.half_width)),
            point.finished.to_string(),
            point.failed.to_string(),
            point.early.to_string(),
            point.steps.to_string(),
            number(point.speed.map(f64::round)),
            point.memory.map_or(String::new(), |bytes| bytes.to_string()),
        ];
        text.push_str(&row(names.iter().map(value).chain(numbers)));
    }
    text
}

pub(crate) fn row(cells: impl Iterator<Item = String>) -> String {
    let quoted = |cell: String| match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    };
    let cells: Vec<String> = cells.map(quoted).collect();
    format!("{}\n", cells.join(","))
}

/// Writes the table of a sweep into its folder, as [`csv`]; where.
///
/// # Errors
/// The file cannot be written.
pub fn write_csv(sweep: &Sweep, points: &[Point]) -> Result<PathBuf, StudyError> {
    let path = sweep.folder.join("results.csv");
    let text = csv(sweep.settings.metric, points);
    linc_device::write_entry(&path, &[text.as_bytes()]).map_err(file("write", &path))?;
    Ok(path)
}
