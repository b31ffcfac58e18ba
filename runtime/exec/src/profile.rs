//! Where the time of a program goes, by kernel.

use std::collections::BTreeMap;
use std::time::Duration;

use linc_plan::Plan;

/// Times of many runs, added up by kernel.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    rows: BTreeMap<String, ProfileRow>,
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

impl ProfileRow {
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
            let row = self.rows.entry(name.clone()).or_default();
            row.name = name;
            row.calls += 1;
            row.time += *time;
            row.flops += step.flops;
            row.bytes += step.bytes;
        }
    }

    /// All kernels, slowest first.
    pub fn rows(&self) -> Vec<ProfileRow> {
        let mut rows: Vec<ProfileRow> = self.rows.values().cloned().collect();
        rows.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.name.cmp(&b.name)));
        rows
    }

    /// Time of all kernels.
    pub fn total(&self) -> Duration {
        self.rows.values().map(|r| r.time).sum()
    }
}
