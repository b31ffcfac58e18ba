//! Who is told what a run does.

use std::time::{Duration, Instant};

use crate::metrics::{Memory, Record};

/// What a run tells while it goes on.
pub trait Observer {
    /// A remark for people.
    fn message(&mut self, text: &str);
    /// Something that people should look at, such as an alert.
    fn warning(&mut self, text: &str);
    /// Work that has taken longer than a second goes on: `done` of `total`, in a unit that `what` implies (bytes of
    /// text for `Tokenizing`). Told several times a second; the last time with `done == total`.
    fn progress(&mut self, what: &str, done: u64, total: u64);
    /// Tile sizes are measured: so many runs of candidates are done, of as many as there may be.
    fn tuning(&mut self, done: usize, runs: usize);
    /// A step is done (every step).
    fn step(&mut self, step: usize, loss: f32);
    /// A validation goes on: so many of its batches are done. Told before the first and after each.
    fn validating(&mut self, done: usize, batches: usize);
    /// Questions of a task are asked: so many of its samples are done.
    fn asking(&mut self, task: &str, done: usize, samples: usize);
    /// A training record was written.
    fn record(&mut self, record: &Record, memory: Memory);
    /// A validation record was written.
    fn validation(&mut self, record: &Record, memory: Memory);
    /// A record of what was asked beside the validation was written.
    fn evaluation(&mut self, record: &Record);
}

/// Passes on how much of how much is done once work has taken longer than a second: several times a second, and its end.
pub(super) fn paced(mut tell: impl FnMut(u64, u64)) -> impl FnMut(u64, u64) {
    let (mut next, mut told) = (Instant::now() + Duration::from_secs(1), false);
    move |done, total| {
        let now = Instant::now();
        if now >= next || (told && done >= total) {
            (next, told) = (now + Duration::from_millis(200), true);
            tell(done, total);
        }
    }
}
