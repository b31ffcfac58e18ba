//! What a device can do at most, measured: operations, copies of every size, launches; and which of these limits a launch is near.

use std::time::Duration;

use linc_device::Device;
use linc_exec::{Executor, ProfileRow};
use linc_plan::{Action, Plan};
use serde::{Deserialize, Serialize};

use super::memory::copy_plan;
use crate::BenchError;

/// Bytes of a copy that tells the speed of memory: more than caches hold.
const LARGE: u64 = 256 << 20;
/// Smaller copies, of which most stay in some cache.
const SIZES: [u64; 6] = [64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20];
/// Bytes of a copy that tells what a launch takes by itself.
const SMALL: u64 = 64;
/// Copies of each size, of which the fastest counts.
const COPIES: usize = 8;
/// A limit is near from this share of it on: what reaches less of all of them is held up by something else, such as the values
/// of exponentials, which are not counted, or threads that wait for each other.
const NEAR: f64 = 0.25;

/// What a device can do at most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The device in words.
    pub device: String,
    /// Operations per second.
    pub peak_flops: f64,
    /// Where that number comes from.
    pub peak: String,
    /// Bytes per second that a copy moves between places in memory, read and written.
    pub copy_bytes: f64,
    /// The same of copies that may stay in a cache, by the bytes that they move, ascending.
    #[serde(default)]
    pub copies: Vec<CopyRate>,
    /// Seconds of a launch that does next to nothing, on all threads of a CPU.
    pub launch_s: f64,
    /// Multiply-adds of a CPU by instruction set, lowest first.
    #[serde(default)]
    pub instruction_sets: Vec<InstructionSet>,
}

/// The speed of copies of one size, which are done again and again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyRate {
    /// Read and written.
    pub bytes: u64,
    /// Per second.
    pub bytes_per_s: f64,
}

/// Multiply-adds in registers alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstructionSet {
    /// `avx2`
    pub name: String,
    /// Operations per second of one thread.
    pub one_thread: f64,
    /// Operations per second of all threads at once.
    pub all_threads: f64,
}

/// What a launch is limited by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Operations per second.
    Flops,
    /// Bytes per second.
    Bytes,
    /// What a launch takes by itself.
    Launch,
    /// It is near none of them.
    None,
}

impl Limit {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Limit::Flops => "FLOP-bound",
            Limit::Bytes => "byte-bound",
            Limit::Launch => "launch-bound",
            Limit::None => "no limit near",
        }
    }
}

/// How near launches come to each limit, as shares of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Shares {
    /// More than 1 tells that operations, or the peak, are counted wrong.
    pub(crate) flops: f64,
    /// At most 1: what is read alone moves faster than what is copied, since stores fetch what they overwrite.
    pub(crate) bytes: f64,
    /// At most 1: a launch that is small stays on the calling thread of a CPU, and takes less than one on all.
    pub(crate) launch: f64,
}

impl Shares {
    /// The limit that comes nearest, if it is near.
    pub(crate) fn limit(self) -> Limit {
        let all = [(Limit::Flops, self.flops), (Limit::Bytes, self.bytes), (Limit::Launch, self.launch)];
        let nearest = all.into_iter().filter(|(_, share)| *share >= NEAR);
        nearest.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(Limit::None, |(limit, _)| limit)
    }

    /// The share of the limit that it comes nearest to.
    pub(crate) fn nearest(self) -> f64 {
        self.flops.max(self.bytes).max(self.launch)
    }
}

impl Machine {
    /// Measures a device.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn measure(open: Box<dyn Device>) -> Result<Self, BenchError> {
        let large = open.available().map_or(LARGE, |available| LARGE.min(available.bytes / 8)).max(1 << 20);
        let sizes: Vec<u64> =
            [large, SMALL].into_iter().chain(SIZES).filter(|bytes| *bytes <= large).collect();
        let mut executor = Executor::new(open, vec![ladder(&sizes)])?;
        // Once for what a first run takes.
        executor.run(0)?;
        let times = executor.step_times(0)?;
        // The first step only touches the memory.
        let fastest: Vec<f64> = times[1..]
            .chunks(COPIES)
            .map(|of| of.iter().map(Duration::as_secs_f64).fold(f64::INFINITY, f64::min).max(1e-12))
            .collect();
        let rates = sizes
            .iter()
            .zip(&fastest)
            .map(|(bytes, seconds)| CopyRate { bytes: 2 * bytes, bytes_per_s: (2 * bytes) as f64 / seconds });
        let mut copies: Vec<CopyRate> = rates.filter(|rate| rate.bytes > 2 * SMALL).collect();
        copies.sort_by_key(|rate| rate.bytes);
        copies.dedup_by_key(|rate| rate.bytes);
        let limits = executor.cpu_limits();
        let on_all_threads = limits.as_ref().map_or(0.0, |limits| limits.launch_s);
        let instruction_sets =
            limits.into_iter().flat_map(|limits| limits.peaks).map(|peak| InstructionSet {
                name: peak.level.name().to_owned(),
                one_thread: peak.one_thread,
                all_threads: peak.all_threads,
            });
        Ok(Machine {
            device: executor.describe_device(),
            instruction_sets: instruction_sets.collect(),
            peak_flops: executor.peak_flops(),
            peak: executor.describe_peak(),
            copy_bytes: (2 * large) as f64 / fastest[0],
            copies,
            launch_s: fastest[1].max(on_all_threads),
        })
    }

    /// Takes the peak of a device that has shown a higher one since this was measured, with what is said of it.
    pub fn raise_peak(&mut self, executor: &mut Executor) {
        if executor.peak_flops() > self.peak_flops {
            (self.peak_flops, self.peak) = (executor.peak_flops(), executor.describe_peak());
        }
    }

    /// The most bytes per second that a launch can hope for which moves so many: those of the fastest copy that is as large or
    /// larger, since what is small may be in a cache.
    fn bytes_per_s(&self, bytes: f64) -> f64 {
        let as_large = self.copies.iter().filter(|copy| copy.bytes as f64 >= bytes);
        as_large.map(|copy| copy.bytes_per_s).fold(self.copy_bytes, f64::max)
    }

    /// How near launches of one kind come to each limit.
    pub(crate) fn shares(&self, row: &ProfileRow) -> Shares {
        let seconds = row.time.as_secs_f64().max(1e-12);
        let rate = self.bytes_per_s(row.bytes as f64 / row.calls.max(1) as f64).max(1.0);
        Shares {
            flops: row.flops as f64 / self.peak_flops.max(1.0) / seconds,
            bytes: (row.bytes as f64 / rate / seconds).min(1.0),
            launch: (row.calls as f64 * self.launch_s / seconds).min(1.0),
        }
    }
}

/// Some copies of each size, at one place each, behind one that touches all the memory: pages that nobody has written are all
/// the same one, which is read from a cache.
fn ladder(sizes: &[u64]) -> Plan {
    let copies: Vec<u64> = sizes.iter().flat_map(|bytes| std::iter::repeat_n(*bytes, COPIES)).collect();
    let mut plan = copy_plan(&[&sizes[..1], &copies[..]].concat());
    for (at, step) in plan.steps.iter_mut().enumerate() {
        if let Action::Copy { from, to, .. } = &mut step.action {
            (from.offset, to.offset) = (0, 0);
            if at == 0 {
                std::mem::swap(from, to);
            }
        }
    }
    plan
}

#[cfg(test)]
pub(crate) mod tests {
    use linc_device::cpu::{Cpu, CpuOptions};
    use linc_plan::{Ref, Step};

    use super::*;

    /// A device of 10^9 operations, 10^8 bytes from memory and 4·10^8 from a cache of 1000 bytes, and 10^6 launches a second.
    pub(crate) fn machine() -> Machine {
        Machine {
            device: String::new(),
            peak_flops: 1e9,
            peak: String::new(),
            copy_bytes: 1e8,
            copies: vec![
                CopyRate { bytes: 1000, bytes_per_s: 4e8 },
                CopyRate { bytes: 1_000_000, bytes_per_s: 1e8 },
            ],
            launch_s: 1e-6,
            instruction_sets: vec![],
        }
    }

    fn row(calls: u64, micros: u64, flops: u64, bytes: u64) -> ProfileRow {
        ProfileRow { name: "k".into(), calls, time: Duration::from_micros(micros), flops, bytes }
    }

    #[test]
    fn a_launch_has_the_limit_that_it_comes_nearest_to() {
        let machine = machine();
        let limit = |row: ProfileRow| machine.shares(&row).limit();
        assert_eq!(limit(row(1, 2000, 1_000_000, 100)), Limit::Flops);
        assert_eq!(limit(row(1, 20_000, 1_000_000, 1_000_000)), Limit::Bytes);
        // A few launches long, and many.
        assert_eq!(limit(row(1, 3, 10, 10)), Limit::Launch);
        assert_eq!(limit(row(1, 30, 10, 10)), Limit::None);
        assert_eq!(limit(row(10, 30, 10, 10)), Limit::Launch);
        // Three percent of memory's speed do not make it byte-bound.
        assert_eq!(limit(row(1, 300_000, 1_000_000, 1_000_000)), Limit::None);
    }

    #[test]
    fn what_is_small_may_be_in_a_cache_and_operations_have_no_excuse() {
        let machine = machine();
        let shares = machine.shares(&row(2, 10, 0, 2000));
        assert!((shares.bytes - 0.5).abs() < 1e-9, "{shares:?}");
        let shares = machine.shares(&row(1, 40, 0, 2000));
        assert!((shares.bytes - 0.5).abs() < 1e-9, "{shares:?}");
        // More than the largest that was measured.
        assert!((machine.shares(&row(1, 20_000, 0, 1_000_000_000)).bytes - 1.0).abs() < 1e-9);
        let twice = machine.shares(&row(1, 1000, 2_000_000, 200_000));
        assert!((twice.flops - 2.0).abs() < 1e-9 && twice.bytes == 1.0, "{twice:?}");
        assert!((twice.nearest() - 2.0).abs() < 1e-9 && twice.limit() == Limit::Flops);
    }

    #[test]
    fn the_ladder_is_a_valid_plan() {
        let plan = ladder(&[1 << 20, 64, 4096]);
        linc_plan::validate::validate(&plan).expect("valid");
        let bytes = |step: &Step| step.bytes;
        assert_eq!(plan.steps.len(), 1 + 3 * COPIES);
        assert_eq!(
            [0, 1, COPIES + 1, 2 * COPIES + 1].map(|at| bytes(&plan.steps[at])),
            [2 << 20, 2 << 20, 128, 8192]
        );
        let at = |step: &Step| match step.action {
            Action::Copy { from, to, .. } => (from, to),
            Action::Launch { .. } | Action::Gemm(_) | Action::Start { .. } | Action::Wait { .. } => {
                panic!("a copy")
            }
        };
        let place = |buffer| Ref { buffer, offset: 0 };
        assert_eq!(at(&plan.steps[0]), (place(1), place(0)), "memory that is read was written once");
        assert_eq!(at(&plan.steps[COPIES + 1]), (place(0), place(1)));
    }

    #[test]
    fn a_processor_has_all_limits() {
        let cpu = Cpu::new(CpuOptions { threads: Some(2), level: None }).expect("a CPU");
        let machine = Machine::measure(Box::new(cpu)).expect("measured");
        assert!(!machine.instruction_sets.is_empty());
        // The peak is the best that was ever seen.
        let best = machine.instruction_sets.iter().map(|set| set.all_threads).fold(0.0, f64::max);
        assert!(best > 0.0 && best <= machine.peak_flops, "{machine:?}");
        let ascending = machine.copies.windows(2).all(|pair| pair[0].bytes < pair[1].bytes);
        assert!(ascending && machine.copies.len() > 3, "{machine:?}");
        assert!(machine.copies.iter().all(|copy| copy.bytes_per_s > 1e6), "{machine:?}");
        assert!(machine.launch_s > 0.0, "{machine:?}");
    }
}
