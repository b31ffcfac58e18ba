//! Where the time of a program goes, by kernel.

use std::collections::BTreeMap;
use std::time::Duration;

use linc_plan::{Label, Plan, Step};

/// Times of many runs, added up by kernel and by where in the model it runs.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    entries: BTreeMap<(String, Label), ProfileRow>,
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
    /// No launch yet.
    pub fn named(name: &str) -> ProfileRow {
        ProfileRow { name: name.to_owned(), ..ProfileRow::default() }
    }

    fn add_step(&mut self, step: &Step, time: Duration) {
        self.calls += 1;
        self.time += time;
        self.flops += step.flops;
        self.bytes += step.bytes;
    }

    /// Adds the launches of another row.
    pub fn add(&mut self, other: &ProfileRow) {
        self.calls += other.calls;
        self.time += other.time;
        self.flops += other.flops;
        self.bytes += other.bytes;
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
    pub fn add(&mut self, plan: &Plan, times: &[Duration]) {
        self.runs += 1;
        for (step, time) in plan.steps.iter().zip(times) {
            let name = plan.work_name(step);
            let row = self.entries.entry((name, step.label.clone()));
            let row = row.or_insert_with_key(|(name, _)| ProfileRow::named(name));
            row.add_step(step, *time);
        }
    }

    /// Each kernel at each of its places in the model.
    pub fn entries(&self) -> impl Iterator<Item = (&Label, &ProfileRow)> {
        self.entries.iter().map(|((_, label), row)| (label, row))
    }

    /// Rows that add up all entries of one name, slowest first.
    fn by(&self, name: impl Fn(&Label, &ProfileRow) -> String) -> Vec<ProfileRow> {
        let mut rows: BTreeMap<String, ProfileRow> = BTreeMap::new();
        for (label, entry) in self.entries() {
            let row = rows.entry(name(label, entry));
            row.or_insert_with_key(|name| ProfileRow::named(name)).add(entry);
        }
        slowest_first(rows.into_values().collect())
    }

    /// All kernels, slowest first.
    pub fn rows(&self) -> Vec<ProfileRow> {
        self.by(|_, row| row.name.clone())
    }

    /// The parts of a step, slowest first: blocks of layers by the word that `kind` has for a layer, and what is outside of the
    /// layers.
    pub fn parts(&self, kind: impl Fn(usize) -> String) -> Vec<ProfileRow> {
        self.by(|label, _| {
            let block = if label.scope.is_empty() { "rest" } else { &label.scope };
            label.layer.map_or_else(|| block.to_owned(), |layer| format!("{} layers: {block}", kind(layer)))
        })
    }

    /// Time of all kernels.
    pub fn total(&self) -> Duration {
        self.entries.values().map(|row| row.time).sum()
    }
}
