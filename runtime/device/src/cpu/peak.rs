//! What the CPU could do at most: the best that one core was ever seen to do, times the cores in use.
//!
//! A measurement can only come out too low, since other programs, and other guests of the same host, take of a core what
//! they need. So it is made of many bursts that are shorter than a time slice, of which the fastest counts; the best
//! measurement of all runs on a kind of CPU is kept on disk, and no lower one replaces it; and a program that is faster
//! still raises it for its own run.

use crate::words::count;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::primitives::Level;
use crate::process::machine;
use crate::{cache_folder, write_entry};

/// Rounds of a burst: about a tenth of a millisecond.
const ROUNDS: usize = 20_000;

/// Time of all bursts: enough for a clock to rise.
const TIME: Duration = Duration::from_millis(60);

/// No core does as much: 128 operations in each of eight billion cycles a second. What is on disk and above is damaged. How
/// far it is above a measurement says nothing, since on a machine that others keep busy one can come out as low as it likes.
const MOST: f64 = 128.0 * 8e9;

/// The peak of some threads.
pub(super) struct Peak {
    /// Operations per second of a core.
    core: f64,
    /// Cores that the threads have between them.
    cores: usize,
    level: Level,
}

impl Peak {
    /// Measures a core, or takes what was measured before if that was better.
    pub(super) fn of(level: Level, threads: usize) -> Peak {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let host = machine();
        let file = cache_folder().map(|folder| folder.join("peak").join(file_name(&cpuinfo, &host, level)));
        let cores = cores(Path::new("/sys/devices/system/cpu"), &allowed(), threads);
        Peak::with(measure(level), cores, level, file)
    }

    /// `file` is where the best is kept; nothing where there is no place.
    fn with(measured: f64, cores: usize, level: Level, file: Option<PathBuf>) -> Peak {
        let kept = file.as_ref().and_then(|file| fs::read_to_string(file).ok()?.trim().parse::<f64>().ok());
        let better = kept.filter(|kept| *kept >= measured && *kept <= MOST);
        if let (None, Some(file)) = (better, &file) {
            // A disk that refuses is no error: it is measured again next time.
            let _ = write_entry(file, &[format!("{measured:e}\n").as_bytes()]);
        }
        Peak { core: better.unwrap_or(measured), cores, level }
    }

    /// Operations per second.
    pub(super) fn flops(&self) -> f64 {
        self.core * self.cores as f64
    }

    /// How it comes about, in words.
    pub(super) fn describe(&self) -> String {
        let (cores, giga, level) = (self.cores, self.core / 1e9, self.level.name());
        let cores = count(cores, "core");
        format!("{cores} of {giga:.1} GFLOP/s with {level}, the best ever measured here")
    }

    /// Work went on at this speed. Of this run only: other runs take what was measured, not what one counted.
    pub(super) fn reached(&mut self, flops: f64) {
        if flops.is_finite() && flops > self.flops() {
            self.core = flops / self.cores as f64;
        }
    }
}

/// The fastest of many bursts on this thread, in operations per second.
pub(super) fn measure(level: Level) -> f64 {
    let run = level.multiply_adds();
    let (begun, mut best) = (Instant::now(), 0f64);
    while begun.elapsed() < TIME || best == 0.0 {
        let burst = Instant::now();
        // SAFETY: a level is only used on machines that have it.
        let (flops, value) = unsafe { run(ROUNDS) };
        std::hint::black_box(value);
        best = best.max(flops as f64 / burst.elapsed().as_secs_f64().max(1e-9));
    }
    best
}

/// Names the kind of CPU and the instruction set. Where the system does not say what model the CPU is, which is so on ARM,
/// the host stands for it: a home folder may be shared by machines of many kinds.
fn file_name(cpuinfo: &str, host: &str, level: Level) -> String {
    let value = |key: &str| {
        let line = cpuinfo.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'));
        line.unwrap_or_default().trim().to_string()
    };
    let kind = if value("model name").is_empty() {
        format!("host {}", host.trim())
    } else {
        ["model name", "cpu family", "model\t", "stepping"].map(value).join(" ")
    };
    let plain: String = kind.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("{}-{}.txt", plain.trim_matches('-'), level.name())
}

/// Numbers of the logical CPUs that this process may run on; empty where the system does not say.
fn allowed() -> BTreeSet<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.map(list).unwrap_or_default()
}

/// The numbers of `0-3,8`.
fn list(text: &str) -> BTreeSet<usize> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse::<usize>().ok()?..=to.trim().parse::<usize>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

/// Cores that so many threads run on at best: hyperthreads of a core share its units. As many as threads where the system
/// does not say which logical CPUs are of one core.
fn cores(system: &Path, allowed: &BTreeSet<usize>, threads: usize) -> usize {
    let siblings = |cpu: &usize| {
        let folder = system.join(format!("cpu{cpu}/topology"));
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        // The older name is of kernels before 5.1.
        Some(list(&read("core_cpus_list").or_else(|| read("thread_siblings_list"))?))
    };
    let known: BTreeSet<Option<BTreeSet<usize>>> = allowed.iter().map(siblings).collect();
    if known.is_empty() || known.contains(&None) {
        return threads.max(1);
    }
    threads.clamp(1, known.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_kept_and_raised() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("peak/cpu.txt");
        let peak = |measured| Peak::with(measured, 2, Level::Portable, Some(file.clone()));
        assert_eq!(peak(1e10).flops(), 2e10);
        assert_eq!(peak(0.6e10).flops(), 2e10);
        assert_eq!(peak(1.1e10).flops(), 2.2e10);
        let mut raised = peak(1e10);
        raised.reached(2.1e10);
        assert_eq!(raised.flops(), 2.2e10);
        raised.reached(3e10);
        raised.reached(f64::NAN);
        assert_eq!(raised.flops(), 3e10);
        assert!(
            raised.describe().starts_with("2 cores of 15.0 GFLOP/s with portable"),
            "{}",
            raised.describe()
        );
        assert_eq!(peak(1e10).flops(), 2.2e10, "what a run counted is of that run");
        assert_eq!(peak(1e8).flops(), 2.2e10);
        assert_eq!(peak(1e10).flops(), 2.2e10, "a machine that was busy is not a slow one");
    }

    #[test]
    fn what_cannot_be_of_this_machine_is_not_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("cpu.txt");
        for text in ["1e300", "inf", "NaN", "-1", "", "no number", "1.1e12"] {
            fs::write(&file, text).expect("written");
            assert_eq!(Peak::with(1e10, 1, Level::Portable, Some(file.clone())).flops(), 1e10, "{text}");
        }
    }

    #[test]
    fn a_measurement_is_plausible() {
        for level in Level::available() {
            let flops = measure(level);
            // A multiply-add a cycle of the slowest clock, and 128 operations a cycle of the fastest.
            assert!(flops > 1e8 && flops < 128.0 * 7e9, "{}: {flops:e}", level.name());
        }
    }

    #[test]
    fn hyperthreads_of_a_core_are_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let all: BTreeSet<usize> = (0..4).collect();
        assert_eq!(cores(folder.path(), &all, 3), 3, "nothing is known");
        for (cpu, siblings) in [(0, "0,2"), (1, "1,3"), (2, "0,2"), (3, "1,3")] {
            let topology = folder.path().join(format!("cpu{cpu}/topology"));
            fs::create_dir_all(&topology).expect("made");
            fs::write(topology.join("core_cpus_list"), format!("{siblings}\n")).expect("written");
        }
        assert_eq!([1, 2, 3, 4].map(|threads| cores(folder.path(), &all, threads)), [1, 2, 2, 2]);
        assert_eq!(cores(folder.path(), &list("0,2"), 2), 1);
    }

    #[test]
    fn lists_and_names() {
        assert_eq!(list("0-2,5,7-7\n"), BTreeSet::from([0, 1, 2, 5, 7]));
        assert!(list("").is_empty());
        let cpuinfo =
            "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nstepping\t: 1\n";
        assert_eq!(file_name(cpuinfo, "a\n", Level::Avx2), "AMD-EPYC-25-17-1-avx2.txt");
        assert_eq!(file_name("CPU part\t: 0xd0c\n", "a.b\n", Level::Portable), "host-a-b-portable.txt");
    }
}
