//! What this processor was seen to do at most: multiply-adds of each instruction set that it has, on one thread and on all at
//! once, and the time that a step takes to reach all threads.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::peak::measure;
use super::pool::Pool;
use super::primitives::Level;

/// How long launches are repeated, of which the fastest counts. With more threads than cores one may take milliseconds, since those
/// that wait hold up those that are waited for.
const LAUNCHES: Duration = Duration::from_millis(20);

/// How long all threads do multiply-adds together; a few turns of each where they share cores.
const WINDOW: Duration = Duration::from_millis(20);

/// Such windows, of which the best counts: others take their part of the machine in some.
const WINDOWS: usize = 4;

/// Rounds of a burst, a tenth of those that a peak is measured with: what is cut off at the end of a window is small.
const ROUNDS: usize = 2000;

/// The limits of a processor, measured.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuLimits {
    /// By instruction set, lowest first.
    pub peaks: Vec<LevelPeak>,
    /// Seconds of a step that does nothing on all threads.
    pub launch_s: f64,
}

/// Multiply-adds in registers alone, in operations per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelPeak {
    /// The instruction set.
    pub level: Level,
    /// The calling thread alone.
    pub one_thread: f64,
    /// All threads at once: less than so many times as much where cores have hyperthreads, or slow down together.
    pub all_threads: f64,
}

impl CpuLimits {
    /// Takes some tenths of a second.
    pub(super) fn measure(pool: &mut Pool) -> CpuLimits {
        let peak = |pool: &mut Pool, level: Level| {
            let one_thread = measure(level);
            LevelPeak { level, one_thread, all_threads: together(pool, level).max(one_thread) }
        };
        let peaks = Level::available().into_iter().map(|level| peak(pool, level)).collect();
        CpuLimits { peaks, launch_s: launch(pool) }
    }
}

/// What all threads do at once: of some windows that all of them are in from one moment to another, the one in which they did most
/// together. The best that each did at a time of its own would count a core that they share once for each of them.
fn together(pool: &mut Pool, level: Level) -> f64 {
    let run = level.multiply_adds();
    let threads = pool.threads();
    let arrived = AtomicUsize::new(0);
    let mut best = 0f64;
    for number in 1..=WINDOWS {
        let begin = OnceLock::new();
        let operations = AtomicU64::new(0);
        pool.run(threads, 1, &|_, range| {
            for _ in range {
                arrived.fetch_add(1, Ordering::Relaxed);
                while arrived.load(Ordering::Relaxed) < number * threads {
                    std::thread::yield_now();
                }
                let begin: &Instant = begin.get_or_init(Instant::now);
                loop {
                    // SAFETY: a level is only used on machines that have it.
                    let (done, value) = unsafe { run(ROUNDS) };
                    std::hint::black_box(value);
                    // What ends later was not all done inside the window.
                    if begin.elapsed() > WINDOW {
                        break;
                    }
                    operations.fetch_add(done, Ordering::Relaxed);
                }
            }
        });
        best = best.max(operations.into_inner() as f64 / WINDOW.as_secs_f64());
    }
    best
}

/// The least time in which a step begins on all threads and ends: each takes one piece, and waits for the others to have theirs.
/// (Without that the calling thread would be done with all before another has looked.)
fn launch(pool: &mut Pool) -> f64 {
    let threads = pool.threads();
    let arrived = AtomicUsize::new(0);
    let mut best = f64::INFINITY;
    let begun = Instant::now();
    for number in 1.. {
        let start = Instant::now();
        pool.run(threads, 1, &|_, range| {
            for _ in range {
                arrived.fetch_add(1, Ordering::Relaxed);
                while arrived.load(Ordering::Relaxed) < number * threads {
                    std::hint::spin_loop();
                }
            }
        });
        best = best.min(start.elapsed().as_secs_f64());
        if begun.elapsed() >= LAUNCHES {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instruction_set_has_a_peak_that_threads_share() {
        let mut pool = Pool::new(2);
        let limits = CpuLimits::measure(&mut pool);
        let levels: Vec<Level> = limits.peaks.iter().map(|peak| peak.level).collect();
        assert_eq!(levels, Level::available());
        for peak in &limits.peaks {
            assert!(peak.one_thread > 1e8, "{peak:?}");
            assert!(peak.all_threads.is_finite(), "{peak:?}");
        }
        assert!(limits.launch_s > 0.0 && limits.launch_s.is_finite(), "{limits:?}");
    }

    /// Threads that share cores do no more than the cores.
    #[test]
    fn more_threads_than_cores_have_no_higher_peak() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let limits = CpuLimits::measure(&mut Pool::new(16 * cores));
        for peak in &limits.peaks {
            // Others may have kept the one thread from its best; that each thread counts as a core would make it 16 times as much.
            assert!(peak.all_threads < 8.0 * cores as f64 * peak.one_thread, "{cores} cores: {peak:?}");
        }
    }
}
