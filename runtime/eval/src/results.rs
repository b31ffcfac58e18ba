//! What the samples of a task add up to.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::record::Record;
use crate::stats::{Estimate, Unit};
use crate::task::{Chance, Task};

/// What one task gave over all of its samples, those of an evaluation that was ended before included.
#[derive(Clone, Debug)]
pub struct TaskResult {
    /// Which one it was, with its version.
    pub task: Task,
    /// Examples before each question.
    pub shots: usize,
    /// Measures over all samples.
    pub metrics: BTreeMap<String, Estimate>,
    /// Measures of each part of the task.
    pub groups: BTreeMap<String, BTreeMap<String, Estimate>>,
    /// What somebody gets who knows nothing.
    pub chance: Option<f64>,
    /// How many questions the measures are over.
    pub samples: usize,
    /// How many more there are, which the context has no room for.
    pub left_out: usize,
    /// How many of them lost their beginning, which the context had no room for.
    pub cut: usize,
    /// Seconds that this evaluation took, and the samples that it answered in them.
    pub seconds: f64,
    /// See `seconds`.
    pub answered: usize,
    prompt_hash: String,
}

impl TaskResult {
    pub(crate) fn new<'r>(
        task: &Task,
        shots: usize,
        seed: u64,
        vocab: usize,
        records: impl Iterator<Item = &'r Record>,
        prompt_hash: String,
        left_out: usize,
    ) -> Self {
        let mut all: Parts = Parts::new();
        let mut groups: BTreeMap<String, Parts> = BTreeMap::new();
        let mut samples = 0;
        for record in records {
            samples += 1;
            for (name, part) in &record.metrics {
                all.entry(name.clone()).or_default().push(*part);
                if !record.group.is_empty() {
                    let group = groups.entry(record.group.clone()).or_default();
                    group.entry(name.clone()).or_default().push(*part);
                }
            }
        }
        let chance = match task.chance {
            Chance::None => None,
            Chance::Of(share) => Some(share),
            Chance::Vocab => Some(1.0 / vocab as f64),
        };
        TaskResult {
            task: *task,
            shots,
            metrics: estimates(&all, seed),
            groups: groups.iter().map(|(name, parts)| (name.clone(), estimates(parts, seed))).collect(),
            chance,
            samples,
            left_out,
            cut: 0,
            seconds: 0.0,
            answered: 0,
            prompt_hash,
        }
    }

    pub(crate) fn timed(self, seconds: f64, answered: usize) -> Self {
        TaskResult { seconds, answered, ..self }
    }

    /// The measure that counts first.
    pub fn first(&self) -> Option<&Estimate> {
        self.metrics.get(self.task.metric)
    }

    /// For `results.json`.
    pub fn json(&self) -> Value {
        json!({
            "version": self.task.version,
            "shots": self.shots,
            "samples": self.samples,
            "left_out": self.left_out,
            "cut": self.cut,
            "metric": self.task.metric,
            "chance": self.chance,
            "metrics": self.metrics,
            "groups": self.groups,
            "prompt_hash": self.prompt_hash,
            "seconds": self.seconds,
            "answered": self.answered,
        })
    }
}

type Parts = BTreeMap<String, Vec<(f64, f64)>>;

fn estimates(parts: &Parts, seed: u64) -> BTreeMap<String, Estimate> {
    let estimate = |name: &str, parts: &[(f64, f64)]| Estimate::of(parts, Unit::of(name), seed);
    parts.iter().map(|(name, parts)| (name.clone(), estimate(name, parts))).collect()
}
