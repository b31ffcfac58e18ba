//! The threads that read and tokenize.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use linc_device::threads;
use rayon::ThreadPoolBuilder;

/// Starts the threads that tokenize and the like, as many as the machine runs at once, or as the system gives. They would
/// start by themselves when they are first needed, but panic where one of them is refused.
///
/// # Errors
/// There is a pool already, in words.
pub fn start() -> Result<(), String> {
    start_up_to(threads::available())
}

/// [`start`] of at most `most`. rayon makes its pool once, and none ever if a thread is refused then. So the
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
            command.args(["--exact", "threads::tests::as_many_threads_work_as_there_are"]);
            let output = command.env(COUNT, count.to_string()).output().expect("runs");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{count} threads: {said}");
        }
    }

    fn work_on(count: usize) {
        start_up_to(count).expect("the first pool");
        assert_eq!(rayon::current_num_threads(), count.max(1));
        // Enough to be done on another thread, which waits for the pool.
        let sum = crate::quiet(|loading| {
            loading.watched("Adding", 2 << 20, |_| Ok((0..1000u64).into_par_iter().sum::<u64>()))
        });
        assert_eq!(sum, Ok(499_500));
        let again = start_up_to(1).expect_err("a second pool");
        assert!(again.contains("cannot be started"), "{again}");
    }
}
