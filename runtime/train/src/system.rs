//! What the operating system says about time and memory.

use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

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
pub fn start_threads() {
    let pool = |count| ThreadPoolBuilder::new().num_threads(count);
    let mut count = threads::available();
    while count > 1 && pool(count).build().is_err() {
        count /= 2;
    }
    let started = if count == 1 { pool(1).use_current_thread() } else { pool(count) };
    // That there is a pool already is all that can be wrong.
    let _ = started.build_global();
}
