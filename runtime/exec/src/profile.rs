//! Where the time of a program goes, by kernel.

use std::collections::BTreeMap;
use std::time::Duration;

use linc_plan::{Plan, Step};

/// Times of many runs, added up by kernel.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    rows: BTreeMap<String, ProfileRow>,
    /// By layer, and by the block of the model's text.
    parts: BTreeMap<(Option<usize>, String), ProfileRow>,
    /// Runs added.
    pub runs: u64,
}

/// All steps of one kernel or library call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProfileRow {
    /// [`Plan::work_name`] of its steps.
    pub name: String,
    /// Launches over all runs.
    pub calls: u64,
    /// Time over all runs.
    pub time: Duration,
    /// Floating-point operations over all runs.
    pub flops: u64,
    /// Bytes over all runs.
    pub bytes: u64,
}

fn slowest_first(mut rows: Vec<ProfileRow>) -> Vec<ProfileRow> {
    rows.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.name.cmp(&b.name)));
    rows
}

impl ProfileRow {
    fn add(&mut self, name: &str, step: &Step, time: Duration) {
        if self.name.is_empty() {
            name.clone_into(&mut self.name);
        }
        self.calls += 1;
        self.time += time;
        self.flops += step.flops;
        self.bytes += step.bytes;
    }

    /// Floating-point operations by elapsed time, in billions per second.
    pub fn gflops(&self) -> f64 {
        self.flops as f64 / self.time.as_secs_f64().max(1e-12) / 1e9
    }

    /// Bytes that must move by elapsed time, in billions per second.
    pub fn gbytes(&self) -> f64 {
        self.bytes as f64 / self.time.as_secs_f64().max(1e-12) / 1e9
    }
}

impl Profile {
    /// Adds the times of one run's steps.
    pub(crate) fn add(&mut self, plan: &Plan, times: &[Duration]) {
        self.runs += 1;
        for (step, time) in plan.steps.iter().zip(times) {
            let name = plan.work_name(step);
            self.rows.entry(name.clone()).or_default().add(&name, step, *time);
            let scope = &step.label.scope;
            let block = if scope.is_empty() { "rest".to_owned() } else { scope.clone() };
            self.parts.entry((step.label.layer, block.clone())).or_default().add(&block, step, *time);
        }
    }

    /// All kernels, slowest first.
    pub fn rows(&self) -> Vec<ProfileRow> {
        slowest_first(self.rows.values().cloned().collect())
    }

    /// The parts of a step, slowest first: blocks of layers by the word that `kind` has for a layer, and what is outside of the
    /// layers.
    pub fn parts(&self, kind: impl Fn(usize) -> String) -> Vec<ProfileRow> {
        let mut parts: BTreeMap<String, ProfileRow> = BTreeMap::new();
        for ((layer, block), row) in &self.parts {
            let name =
                layer.map_or_else(|| block.clone(), |layer| format!("{} layers: {block}", kind(layer)));
            let part = parts.entry(name.clone()).or_default();
            part.name = name;
            part.calls += row.calls;
            part.time += row.time;
            part.flops += row.flops;
            part.bytes += row.bytes;
        }
        slowest_first(parts.into_values().collect())
    }

    /// Time of all kernels.
    pub fn total(&self) -> Duration {
        self.rows.values().map(|r| r.time).sum()
    }
}
