//! A fork-join pool of low latency: a step of a plan takes microseconds, and there are thousands.
//!
//! A job is a number of pieces and a function that runs a range of them; threads take ranges from a shared counter
//! (dynamic scheduling), so who runs what varies, and pieces must not depend on it. A worker that has nothing to do spins
//! for a moment, then sleeps; the caller works too, and never waits for a worker that has not begun.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// Rounds of spinning before a worker sleeps, about 50 µs.
const SPINS: u32 = 20_000;

/// Runs pieces `range` as thread `worker`.
type Task<'a> = dyn Fn(usize, Range<usize>) + Sync + 'a;

#[derive(Clone, Copy)]
struct Job {
    /// The function; its lifetime is that of the call of [`Pool::run`] that has opened the job.
    work: *const Task<'static>,
    total: usize,
    chunk: usize,
}

struct Shared {
    job: UnsafeCell<Option<Job>>,
    /// Number of the open job, 0 if there is none.
    open: AtomicU64,
    /// Next piece to take.
    next: AtomicUsize,
    /// Workers that may be looking at the job.
    active: AtomicUsize,
    asleep: Vec<AtomicBool>,
    stop: AtomicBool,
}

// SAFETY: `job` is written only by the owner of the pool while no job is open and no worker is active, and read by
// workers only while they are counted in `active` and have seen the job open.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is used only while the function it points to is borrowed by `Pool::run`.
unsafe impl Send for Shared {}

/// A fixed number of threads.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    jobs: u64,
}

impl Pool {
    /// A pool of `threads` threads, of which the caller is one; of fewer, where the system has no more to give.
    pub(crate) fn new(threads: usize) -> Pool {
        let helpers = threads.saturating_sub(1);
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(None),
            open: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            asleep: (0..helpers).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
        });
        let mut pool = Pool { shared, workers: vec![], jobs: 0 };
        for helper in 0..helpers {
            let shared = Arc::clone(&pool.shared);
            let name = format!("linc-{}", helper + 1);
            match std::thread::Builder::new().name(name).spawn(move || worker(&shared, helper)) {
                Ok(worker) => pool.workers.push(worker),
                Err(_) => break,
            }
        }
        pool
    }

    /// Number of threads, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `total` pieces, in ranges of up to `chunk`, and returns when all are done. `work` gets the number of the
    /// thread, below [`Pool::threads`], and a range of pieces. It must not panic.
    pub(crate) fn run(&mut self, total: usize, chunk: usize, work: &Task<'_>) {
        if self.workers.is_empty() || total <= chunk {
            work(0, 0..total);
            return;
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; the job is closed and no worker is active before this function returns.
        let work: *const Task<'static> = unsafe { std::mem::transmute(std::ptr::from_ref(work)) };
        let job = Job { work, total, chunk };
        // SAFETY: no job is open and no worker is active, as at the end of this function.
        unsafe { *shared.job.get() = Some(job) };
        shared.next.store(0, Ordering::Relaxed);
        self.jobs += 1;
        shared.open.store(self.jobs, Ordering::SeqCst);
        for (worker, asleep) in self.workers.iter().zip(&shared.asleep) {
            if asleep.swap(false, Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        // SAFETY: the function is borrowed for the whole call.
        unsafe { run_ranges(shared, &job, 0) };
        shared.open.store(0, Ordering::SeqCst);
        while shared.active.load(Ordering::SeqCst) != 0 {
            std::hint::spin_loop();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker ends only this way; its result carries nothing.
            drop(worker.join());
        }
    }
}

/// Takes ranges of a job until none is left.
///
/// # Safety
/// The job's function is alive.
unsafe fn run_ranges(shared: &Shared, job: &Job, worker: usize) {
    loop {
        let start = shared.next.fetch_add(job.chunk, Ordering::Relaxed);
        if start >= job.total {
            return;
        }
        // SAFETY: the caller promises that the function is alive.
        let work = unsafe { &*job.work };
        work(worker, start..(start + job.chunk).min(job.total));
    }
}

fn worker(shared: &Shared, helper: usize) {
    let mut done = 0;
    let mut spins = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let open = shared.open.load(Ordering::Relaxed);
        if open != 0 && open != done {
            shared.active.fetch_add(1, Ordering::SeqCst);
            // The owner closes a job before it looks at `active`: if the job is still open now, the owner will wait.
            let open = shared.open.load(Ordering::SeqCst);
            if open != 0 {
                // SAFETY: an open job is set and stays until `active` is 0.
                if let Some(job) = unsafe { *shared.job.get() } {
                    // SAFETY: the owner waits for this worker before it ends the borrow.
                    unsafe { run_ranges(shared, &job, helper + 1) };
                }
                done = open;
            }
            shared.active.fetch_sub(1, Ordering::SeqCst);
            spins = 0;
            continue;
        }
        if spins < SPINS {
            spins += 1;
            std::hint::spin_loop();
            continue;
        }
        shared.asleep[helper].store(true, Ordering::SeqCst);
        // A job that was opened before the flag was seen must not be slept through.
        let open = shared.open.load(Ordering::SeqCst);
        if (open == 0 || open == done) && !shared.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
        shared.asleep[helper].store(false, Ordering::SeqCst);
        spins = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_runs_once() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for (total, chunk) in [(0, 1), (1, 1), (7, 3), (100, 1), (1000, 7)] {
                for _ in 0..50 {
                    let hits: Vec<AtomicUsize> = (0..total).map(|_| AtomicUsize::new(0)).collect();
                    pool.run(total, chunk, &|worker, range| {
                        assert!(worker < threads);
                        for piece in range {
                            hits[piece].fetch_add(1, Ordering::Relaxed);
                        }
                    });
                    assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1));
                }
            }
        }
    }

    #[test]
    fn workers_wake_after_sleep() {
        let mut pool = Pool::new(2);
        let seen = AtomicUsize::new(0);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            pool.run(64, 1, &|_, range| {
                seen.fetch_add(range.len(), Ordering::Relaxed);
            });
        }
        assert_eq!(seen.into_inner(), 3 * 64);
    }
}
