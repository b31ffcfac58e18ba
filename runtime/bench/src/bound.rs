//! What limits a run: operations, bytes, or launches, kernel by kernel.

use std::collections::BTreeMap;

use linc_exec::Profile;
use serde::{Deserialize, Serialize};

use super::machine::{Limit, Machine};
use super::roofline::Roofline;

/// Kernels that are told of each point.
const KERNELS: usize = 8;

/// One kernel in a point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelBound {
    /// Its name, or that of a matmul with its shape.
    pub kernel: String,
    /// Launches of a run.
    pub launches: usize,
    /// Milliseconds of a run.
    pub ms: f64,
    /// The limit that most of its launches come nearest to.
    pub limit: Limit,
    /// The share of its limit that it reaches. At most 1 where its bytes come from a cache, or a launch takes less than the one that
    /// was measured; operations have no such excuse, so that more than 1 of them tells that they, or the peak, are counted wrong.
    pub attained: f64,
}

/// What limits a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// Milliseconds of kernels by their limit.
    pub ms: BTreeMap<Limit, f64>,
    /// The slowest kernels.
    pub kernels: Vec<KernelBound>,
}

impl Bounds {
    /// Of one run, all programs of it together.
    pub(crate) fn of(profile: &Profile, machine: &Machine) -> Bounds {
        let mut ms: BTreeMap<Limit, f64> = BTreeMap::new();
        for (_, entry) in profile.entries() {
            *ms.entry(machine.shares(entry).limit()).or_default() += 1e3 * entry.time.as_secs_f64();
        }
        let kernels = Roofline::of(profile, machine, &[], 1).kernels.into_iter().take(KERNELS);
        let kernels = kernels.map(|row| KernelBound {
            kernel: row.name,
            launches: row.launches as usize,
            ms: row.ms,
            limit: row.limit,
            attained: row.attained,
        });
        Bounds { ms, kernels: kernels.collect() }
    }

    /// The limit that holds for most of the time.
    pub fn main(&self) -> Option<Limit> {
        self.ms.iter().max_by(|a, b| a.1.total_cmp(b.1)).map(|(limit, _)| *limit)
    }

    /// Share of the time that a limit holds.
    pub fn share(&self, limit: Limit) -> f64 {
        let total: f64 = self.ms.values().sum();
        self.ms.get(&limit).map_or(0.0, |ms| ms / total.max(1e-12))
    }
}
