//! Finds runs in folders, and what they are told apart by.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use linc_bench::CostReport;
use linc_train::config::{Change, JobConfig};
use serde_json::Value;

use crate::cost;
use crate::error::{StudyError, file};
use crate::results::{RunRecords, RunResult};
use crate::sweep::{Contents, Metric, Outcome, Status};

/// How far a run goes: it changes nothing up to there, and all that is compared.
const STEPS: &str = "training.steps";
/// How deep runs are looked for below a folder.
const DEPTH: usize = 3;

/// Runs with all that a report says of them.
#[derive(Clone, Debug)]
pub struct Collected {
    /// What runs are compared by.
    pub metric: Metric,
    /// The folders as they were named.
    pub folders: Vec<PathBuf>,
    /// The runs, in the order of their sweep, or of their names.
    pub results: Vec<RunResult>,
    /// What each was told; nothing where that cannot be read. In the same order.
    pub configs: Vec<Option<JobConfig>>,
    /// What each raised an alarm about, a line of `alerts.jsonl` each. In the same order.
    pub alerts: Vec<Vec<Value>>,
    /// A measurement of what a share of linear layers costs.
    pub cost: Option<CostReport>,
    /// Folders that seem to be runs and cannot be read, with the reason.
    pub skipped: Vec<String>,
}

impl Collected {
    /// Reads all runs in some folders.
    ///
    /// # Errors
    /// A folder that is not there, or that has no run.
    pub fn read(folders: &[PathBuf]) -> Result<Collected, StudyError> {
        let mut collected = Collected {
            metric: Metric::ValidationLoss,
            folders: folders.to_vec(),
            results: vec![],
            configs: vec![],
            alerts: vec![],
            cost: None,
            skipped: vec![],
        };
        let mut metrics = vec![];
        let mut are_told_apart = true;
        for folder in folders {
            fs::read_dir(folder).map_err(file("read", folder))?;
            let before = collected.results.len();
            let has_cost = folder.join(cost::FILE).is_file();
            if has_cost {
                if collected.cost.is_some() {
                    return Err(StudyError::Nothing {
                        message: format!("{} is the second folder of linc bench cost", folder.display()),
                        help: "a page has one: name the others with --out of their own".to_owned(),
                    });
                }
                collected.cost = Some(cost::read(folder)?);
            }
            if let Some(contents) = Contents::read(folder)? {
                metrics.push(contents.metric());
                for (name, values) in &contents.runs {
                    let outcome = Outcome::read(folder, name);
                    collected.push(
                        name.clone(),
                        &folder.join("runs").join(name),
                        Some(values.clone()),
                        outcome,
                    );
                }
            } else {
                are_told_apart = false;
                for run in runs_below(folder, DEPTH) {
                    let name = run.strip_prefix(folder).unwrap_or(&run);
                    let name = if name.as_os_str().is_empty() { run.as_path() } else { name };
                    collected.push(name.display().to_string(), &run, None, None);
                }
            }
            if collected.results.len() == before && !has_cost {
                return Err(StudyError::Nothing {
                    message: format!("{} has no runs", folder.display()),
                    help: "name the folder of a sweep, of a run, of linc bench cost, or one with runs in it, such as outputs"
                        .to_owned(),
                });
            }
        }
        if folders.len() > 1 || !are_told_apart {
            collected.tell_apart();
        }
        collected.metric = collected.choose_metric(&metrics);
        Ok(collected)
    }

    fn push(
        &mut self,
        name: String,
        folder: &Path,
        values: Option<Vec<(String, String)>>,
        outcome: Option<Outcome>,
    ) {
        let records = RunRecords::read(folder).unwrap_or_else(|error| {
            self.skipped.push(error.to_string());
            RunRecords::default()
        });
        let config = fs::read_to_string(folder.join("config.toml")).ok();
        let config =
            config.and_then(|text| JobConfig::load(&text, "config.toml", &[]).ok()).map(|l| l.config);
        let steps = config.as_ref().map(|config| config.training.steps);
        let is_early = outcome.as_ref().zip(steps).is_some_and(|(outcome, steps)| outcome.steps < steps);
        let is_through = steps.is_some() && records.training.last().map(|record| record.step) == steps;
        let status = match &outcome {
            Some(outcome) => Some(outcome.status),
            None => is_through.then_some(Status::Finished),
        };
        self.alerts.push(alerts(folder));
        self.configs.push(config);
        self.results.push(RunResult {
            name,
            folder: folder.to_path_buf(),
            values: values.unwrap_or_default(),
            records,
            status,
            is_early,
            message: outcome.and_then(|outcome| outcome.message),
        });
    }

    /// Finds the settings in which runs differ, where no sweep says them.
    fn tell_apart(&mut self) {
        let Some(first) = self.configs.iter().flatten().next().cloned() else { return };
        let mut differs: BTreeSet<String> = BTreeSet::new();
        for config in self.configs.iter().flatten() {
            let changes = config.changes_since(&first);
            differs.extend(
                changes
                    .iter()
                    .filter(|change| change.shapes() || change.name == STEPS)
                    .map(|change: &Change| change.name.clone()),
            );
        }
        for (result, config) in self.results.iter_mut().zip(&self.configs) {
            let Some(config) = config else {
                result.values = vec![("run".to_owned(), result.name.clone())];
                continue;
            };
            let resolved = config.resolved();
            let value = |name: &String| {
                let (section, key) = name.rsplit_once('.')?;
                let setting = resolved.iter().find(|s| s.section == section && s.key == key)?;
                setting.value.as_ref().map(|value| value.trim_matches('"').to_owned())
            };
            result.values = differs
                .iter()
                .map(|name| (name.clone(), value(name).unwrap_or_else(|| "-".to_owned())))
                .collect();
        }
        // Runs with equal settings, as one that was trained twice, are told apart by their names.
        let mut counts: BTreeMap<Vec<(String, String)>, usize> = BTreeMap::new();
        for result in &self.results {
            *counts.entry(result.values.clone()).or_default() += 1;
        }
        for result in &mut self.results {
            if counts.get(&result.values).is_some_and(|count| *count > 1) {
                result.values.push(("run".to_owned(), result.name.clone()));
            }
        }
    }

    /// What all of the sweeps compare by, or what most runs measured.
    fn choose_metric(&self, metrics: &[Metric]) -> Metric {
        if let Some(first) = metrics.first()
            && metrics.iter().all(|metric| metric == first)
        {
            return *first;
        }
        let measured = self.results.iter().filter(|run| !run.records.validations.is_empty()).count();
        if 2 * measured >= self.results.len() { Metric::ValidationLoss } else { Metric::TrainingLoss }
    }
}

/// The folders of runs at a folder or below it, in the order of their names.
fn runs_below(folder: &Path, depth: usize) -> Vec<PathBuf> {
    if folder.join("metrics.jsonl").is_file() {
        return vec![folder.to_path_buf()];
    }
    if depth == 0 {
        return vec![];
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut below: Vec<PathBuf> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    below.sort();
    below.iter().flat_map(|folder| runs_below(folder, depth - 1)).collect()
}

fn alerts(folder: &Path) -> Vec<Value> {
    let text = fs::read(folder.join("alerts.jsonl")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
