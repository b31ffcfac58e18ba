//! What limits a run: operations, bytes, or launches, kernel by kernel.

use std::collections::BTreeMap;
use std::time::Duration;

use linc_device::Device;
use linc_exec::Executor;
use linc_plan::{Plan, Step};
use serde::{Deserialize, Serialize};

use super::memory::copy_plan;
use crate::BenchError;

/// Bytes of a copy that tells the speed of memory: more than caches hold.
const LARGE: u64 = 256 << 20;
/// Bytes of a copy that tells what a launch takes by itself.
const SMALL: u64 = 64;
/// Copies of either size, of which the fastest counts.
const COPIES: usize = 5;
/// Kernels that are told of each point.
const KERNELS: usize = 8;

/// What a device can do at most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The device in words.
    pub device: String,
    /// Operations per second.
    pub peak_flops: f64,
    /// Where that number comes from.
    pub peak: String,
    /// Bytes per second that a copy moves, read and written.
    pub copy_bytes: f64,
    /// Seconds of a launch that does next to nothing.
    pub launch_s: f64,
}

impl Machine {
    /// Measures copies on a device.
    ///
    /// # Errors
    /// What the device refuses.
    pub(crate) fn measure(open: Box<dyn Device>) -> Result<Self, BenchError> {
        let large = open.available().map_or(LARGE, |available| LARGE.min(available.bytes / 8)).max(1 << 20);
        let sizes: Vec<u64> = std::iter::repeat_n([large, SMALL], COPIES).flatten().collect();
        let mut executor = Executor::new(open, vec![copy_plan(&sizes)])?;
        // Once for what a first run takes.
        executor.run(0)?;
        let times = executor.step_times(0)?;
        let fastest = |which: usize| {
            let of = times.iter().skip(which).step_by(2).map(Duration::as_secs_f64);
            of.fold(f64::INFINITY, f64::min).max(1e-12)
        };
        Ok(Machine {
            device: executor.describe_device(),
            peak_flops: executor.peak_flops(),
            peak: executor.describe_peak(),
            copy_bytes: (2 * large) as f64 / fastest(0),
            launch_s: fastest(1),
        })
    }

    /// The limit that a step can least do without, and the seconds that it takes at that limit.
    fn limit(&self, step: &Step) -> (Limit, f64) {
        let of = [
            (Limit::Flops, step.flops as f64 / self.peak_flops.max(1.0)),
            (Limit::Bytes, step.bytes as f64 / self.copy_bytes.max(1.0)),
            (Limit::Launch, self.launch_s),
        ];
        of.into_iter().fold((Limit::Launch, 0.0), |most, next| if next.1 > most.1 { next } else { most })
    }
}

/// What a step is limited by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Operations per second.
    Flops,
    /// Bytes per second.
    Bytes,
    /// What a launch takes by itself.
    Launch,
}

impl Limit {
    /// All, in their order.
    pub const ALL: [Limit; 3] = [Limit::Flops, Limit::Bytes, Limit::Launch];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Limit::Flops => "FLOP-bound",
            Limit::Bytes => "byte-bound",
            Limit::Launch => "launch-bound",
        }
    }

    /// A share of this limit that was reached, without what caches and cheap launches seem to give.
    fn at_most(self, share: f64) -> f64 {
        match self {
            Limit::Flops => share,
            Limit::Bytes | Limit::Launch => share.min(1.0),
        }
    }
}

/// One kernel in a point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelBound {
    /// Its name, or that of a matmul with its shape.
    pub kernel: String,
    /// Launches of a run.
    pub launches: usize,
    /// Milliseconds of a run.
    pub ms: f64,
    /// What limits it, by the largest of the three times that it must take at least.
    pub limit: Limit,
    /// That time as a share of what it took. At most 1 where its bytes come from a cache, or a launch takes less than the one that
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
    /// The limit that holds for most of the time.
    pub fn main(&self) -> Option<Limit> {
        self.ms.iter().max_by(|a, b| a.1.total_cmp(b.1)).map(|(limit, _)| *limit)
    }

    /// Share of the time that a limit holds.
    pub fn share(&self, limit: Limit) -> f64 {
        let total: f64 = self.ms.values().sum();
        self.ms.get(&limit).map_or(0.0, |ms| ms / total.max(1e-12))
    }

    /// Adds the steps of a run, or of a part of it.
    pub(crate) fn add(&mut self, plan: &Plan, times: &[Duration], machine: &Machine) {
        /// Launches, seconds, and seconds at each step's limit by limit.
        type Row = (usize, f64, BTreeMap<Limit, f64>);
        let mut rows: BTreeMap<String, Row> = BTreeMap::new();
        for (step, time) in plan.steps.iter().zip(times) {
            let seconds = time.as_secs_f64();
            let (limit, least) = machine.limit(step);
            *self.ms.entry(limit).or_default() += 1e3 * seconds;
            let row = rows.entry(plan.work_name(step)).or_default();
            row.0 += 1;
            row.1 += seconds;
            *row.2.entry(limit).or_default() += least;
        }
        for (kernel, (launches, seconds, limits)) in rows {
            let least: f64 = limits.values().sum();
            let limit =
                limits.iter().max_by(|a, b| a.1.total_cmp(b.1)).map_or(Limit::Launch, |(limit, _)| *limit);
            match self.kernels.iter_mut().find(|known| known.kernel == kernel) {
                Some(known) => {
                    let before = known.attained * known.ms / 1e3;
                    known.launches += launches;
                    known.ms += 1e3 * seconds;
                    known.attained = known.limit.at_most((before + least) / (known.ms / 1e3).max(1e-12));
                }
                None => {
                    let attained = limit.at_most(least / seconds.max(1e-12));
                    self.kernels.push(KernelBound { kernel, launches, ms: 1e3 * seconds, limit, attained });
                }
            }
        }
        self.kernels.sort_by(|a, b| b.ms.total_cmp(&a.ms).then_with(|| a.kernel.cmp(&b.kernel)));
    }

    /// Only the slowest kernels.
    pub(crate) fn shorten(&mut self) {
        self.kernels.truncate(KERNELS);
    }
}

#[cfg(test)]
mod tests {
    use linc_plan::{Action, Ref};

    use super::*;

    fn machine() -> Machine {
        let words = String::new;
        Machine { device: words(), peak_flops: 1e9, peak: words(), copy_bytes: 1e8, launch_s: 1e-6 }
    }

    fn step(flops: u64, bytes: u64) -> Step {
        let at = Ref { buffer: 0, offset: 0 };
        Step { action: Action::Copy { from: at, to: at, bytes: 0 }, label: "s".into(), flops, bytes }
    }

    fn plan(steps: Vec<Step>) -> Plan {
        Plan {
            name: "p".into(),
            persistent_bytes: 0,
            scratch_bytes: 0,
            buffers: vec![],
            kernels: vec![],
            steps,
            bindings: vec![],
            world: linc_plan::World::default(),
        }
    }

    #[test]
    fn each_step_has_the_limit_that_takes_longest() {
        let machine = machine();
        assert_eq!(machine.limit(&step(1_000_000, 100)).0, Limit::Flops);
        assert_eq!(machine.limit(&step(1_000, 1_000_000)).0, Limit::Bytes);
        assert_eq!(machine.limit(&step(10, 10)).0, Limit::Launch);
        let plan = plan(vec![step(1_000_000, 100), step(10, 10), step(1_000, 1_000_000)]);
        let times = [2, 1, 10].map(Duration::from_millis);
        let mut bounds = Bounds::default();
        bounds.add(&plan, &times, &machine);
        bounds.add(&plan, &times, &machine);
        assert_eq!(bounds.main(), Some(Limit::Bytes));
        assert!((bounds.share(Limit::Flops) - 2.0 / 13.0).abs() < 1e-9);
        // All three are copies.
        let [copy] = &bounds.kernels[..] else { panic!("{bounds:?}") };
        assert_eq!((copy.launches, copy.limit), (6, Limit::Bytes));
        // 1 ms of operations, 1 µs of a launch, 10 ms of bytes, of 13 ms.
        assert!((copy.attained - 11.001 / 13.0).abs() < 1e-9, "{}", copy.attained);
    }

    #[test]
    fn more_operations_than_there_can_be_are_seen() {
        let share = |flops: u64, bytes: u64| {
            let plan = plan(vec![step(flops, bytes)]);
            let mut bounds = Bounds::default();
            bounds.add(&plan, &[Duration::from_millis(1)], &machine());
            bounds.kernels[0].attained
        };
        // Twice what the peak and the speed of memory allow in a millisecond.
        assert!((share(2_000_000, 0) - 2.0).abs() < 1e-9);
        assert_eq!(share(0, 200_000), 1.0);
    }
}
