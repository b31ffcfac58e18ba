//! What the operating system says about time and memory.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};
use std::{fs, io};

use linc_exec::device::threads;
use rayon::ThreadPoolBuilder;

/// Seconds since the first call.
pub fn seconds() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Largest resident memory of this process so far, in bytes; 0 where the system does not say.
pub fn peak_memory() -> u64 {
    let Ok(text) = fs::read_to_string("/proc/self/status") else { return 0 };
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

/// Passes on how much of how much is done once work has taken longer than a second: several times a second, and its end.
pub fn paced(mut tell: impl FnMut(u64, u64)) -> impl FnMut(u64, u64) {
    let (mut next, mut told) = (Instant::now() + Duration::from_secs(1), false);
    move |done, total| {
        let now = Instant::now();
        if now >= next || (told && done >= total) {
            (next, told) = (now + Duration::from_millis(200), true);
            tell(done, total);
        }
    }
}

/// Starts the threads that tokenize and the like, as many as the machine runs at once, or as the system gives. They would
/// start by themselves when they are first needed, but panic where one of them is refused.
///
/// # Errors
/// There is a pool already, in words.
pub fn start_threads() -> Result<(), String> {
    start_up_to(threads::available())
}

/// [`start_threads`] of at most `most`. rayon makes its pool once, and none ever if a thread is refused then. So the
/// threads run before there is a pool, and wait to become its own.
fn start_up_to(most: usize) -> Result<(), String> {
    let (hand_over, waiting) = mpsc::channel::<rayon::ThreadBuilder>();
    let waiting = Arc::new(Mutex::new(waiting));
    let start = |number: &usize| {
        let waiting = Arc::clone(&waiting);
        let work = move || {
            let thread = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            if let Ok(thread) = thread {
                thread.run();
            }
        };
        std::thread::Builder::new().name(format!("linc-data-{number}")).spawn(work).is_ok()
    };
    let count = (0..most).take_while(start).count();
    let built = if count == 0 {
        ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global()
    } else {
        let spawn = move |thread| hand_over.send(thread).map_err(|_| io::ErrorKind::BrokenPipe.into());
        ThreadPoolBuilder::new().num_threads(count).spawn_handler(spawn).build_global()
    };
    built.map_err(|error| format!("the threads that tokenize cannot be started: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;
    use std::process::Command;

    /// Says to the test below, in a process of its own, how many threads there are.
    const COUNT: &str = "LINC_TEST_THREADS";

    /// A process has one pool for good, so each case is a process.
    #[test]
    fn as_many_threads_work_as_there_are() {
        if let Ok(count) = std::env::var(COUNT) {
            return work_on(count.parse().expect("a number"));
        }
        for count in 0..4 {
            let mut command = Command::new(std::env::current_exe().expect("this test"));
            command.args(["--exact", "system::tests::as_many_threads_work_as_there_are"]);
            let output = command.env(COUNT, count.to_string()).output().expect("runs");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{count} threads: {said}");
        }
    }

    fn work_on(count: usize) {
        start_up_to(count).expect("the first pool");
        assert_eq!(rayon::current_num_threads(), count.max(1));
        // Enough to be done on another thread, which waits for the pool.
        let sum = crate::data::quiet(|loading| {
            loading.watched("Adding", 2 << 20, |_| Ok((0..1000u64).into_par_iter().sum::<u64>()))
        });
        assert_eq!(sum, Ok(499_500));
        let again = start_up_to(1).expect_err("a second pool");
        assert!(again.contains("cannot be started"), "{again}");
    }
}
