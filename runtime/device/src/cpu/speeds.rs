//! What this processor was seen to do at most: multiply-adds of each instruction set that it has, on one thread and on all at
//! once, and the time that a step takes to reach all threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::peak::measure;
use super::pool::Pool;
use super::primitives::Level;

/// Launches, of which the fastest counts: some milliseconds together.
const LAUNCHES: usize = 2000;

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

/// What all threads do at once: the sum of the best that each did meanwhile.
fn together(pool: &mut Pool, level: Level) -> f64 {
    let threads = pool.threads();
    let each = Mutex::new(vec![0.0; threads]);
    pool.run(threads, 1, &|worker, range| {
        for _ in range {
            let best = measure(level);
            let mut each = each.lock().unwrap_or_else(PoisonError::into_inner);
            each[worker] = f64::max(each[worker], best);
        }
    });
    each.into_inner().unwrap_or_else(PoisonError::into_inner).iter().sum()
}

/// The least time in which a step begins on all threads and ends: each takes one piece, and waits for the others to have theirs.
/// (Without that the calling thread would be done with all before another has looked.)
fn launch(pool: &mut Pool) -> f64 {
    let threads = pool.threads();
    let begun = AtomicUsize::new(0);
    let mut best = f64::INFINITY;
    for number in 1..=LAUNCHES {
        let start = Instant::now();
        pool.run(threads, 1, &|_, range| {
            for _ in range {
                begun.fetch_add(1, Ordering::Relaxed);
                while begun.load(Ordering::Relaxed) < number * threads {
                    std::hint::spin_loop();
                }
            }
        });
        best = best.min(start.elapsed().as_secs_f64());
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
            // Twice, but for cores that others keep busy at other times.
            let times = peak.all_threads / peak.one_thread;
            assert!((1.0..8.0).contains(&times), "{peak:?}");
        }
        assert!(limits.launch_s > 0.0 && limits.launch_s < 1.0, "{limits:?}");
    }
}
