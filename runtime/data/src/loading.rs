//! What a caller sees and may stop while data are read and tokenized, which takes minutes for large files.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::cache::TokenCache;
use super::error::DataError;

/// Work of fewer bytes is done before anybody could look.
const UNWATCHED: u64 = 1 << 20;
/// Nothing is told of what is done within this time.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two looks at how far work is.
const INTERVAL: Duration = Duration::from_millis(200);

/// What loading tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A remark for people: something that was left out or switched off.
    Note(&'a str),
    /// Something looks wrong: a text that a tokenizer loses parts of, or that is trained on and validated on.
    Warning(&'a str),
    /// Work that has taken longer than a second. Told several times a second, the last time with `done == total`.
    Progress {
        /// What is going on, such as `Tokenizing`.
        what: &'static str,
        /// Bytes done.
        done: u64,
        /// Bytes to do.
        total: u64,
    },
}

/// The caller's side of loading.
pub struct Loading<'a> {
    /// Set by another thread or a signal to end loading soon, with [`DataError::Interrupted`].
    pub stop: &'a AtomicBool,
    /// Gets what is told.
    pub tell: &'a mut dyn FnMut(Event<'_>),
    /// Where token ids of earlier runs are found.
    pub cache: TokenCache,
}

impl Loading<'_> {
    /// # Errors
    /// [`DataError::Interrupted`] once `stop` is set.
    pub(super) fn check(&self) -> Result<(), DataError> {
        check(self.stop)
    }

    pub(super) fn note(&mut self, text: &str) {
        (self.tell)(Event::Note(text));
    }

    pub(super) fn warn(&mut self, text: &str) {
        (self.tell)(Event::Warning(text));
    }
}

impl Loading<'_> {
    /// Does work of `total` bytes on other threads, and tells meanwhile how far it is.
    ///
    /// # Errors
    /// The work's own, such as [`DataError::Interrupted`] of [`Watch::advance`].
    pub(crate) fn watched<T: Send>(
        &mut self,
        what: &'static str,
        total: u64,
        work: impl FnOnce(&Watch<'_>) -> Result<T, DataError> + Send,
    ) -> Result<T, DataError> {
        let watch = Watch::new(self.stop);
        // The last resort of a pool: this thread is its only one, and must not wait for others that wait for it.
        let is_pool = rayon::current_thread_index().is_some();
        if total < UNWATCHED || is_pool {
            return work(&watch);
        }
        let work = Mutex::new(Some(work));
        let once = || {
            let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
            work.map(|work| work(&watch))
        };
        let begun = Instant::now();
        let mut told = false;
        let result = std::thread::scope(|scope| {
            let (finished, is_finished) = mpsc::channel::<()>();
            let worker = std::thread::Builder::new().spawn_scoped(scope, move || {
                let result = once();
                drop(finished);
                result
            });
            // A machine without room for a thread does without progress.
            let Ok(worker) = worker else { return once() };
            while is_finished.recv_timeout(INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                if begun.elapsed() >= PATIENCE {
                    told = true;
                    let done = watch.done.load(Ordering::Relaxed).min(total.saturating_sub(1));
                    (self.tell)(Event::Progress { what, done, total });
                }
            }
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        if told {
            (self.tell)(Event::Progress { what, done: total, total });
        }
        result.unwrap_or(Err(DataError::Interrupted))
    }
}

/// Work of one thread that is told of once it has taken longer than a second; at its end too, however it ends.
pub(crate) struct Paced<'a, 'l> {
    loading: &'a mut Loading<'l>,
    what: &'static str,
    done: u64,
    total: u64,
    /// When it is told of the next time.
    next: Instant,
    told: bool,
}

impl<'l> Loading<'l> {
    /// Follows work of `total` bytes.
    pub(super) fn paced(&mut self, what: &'static str, total: u64) -> Paced<'_, 'l> {
        Paced { loading: self, what, done: 0, total, next: Instant::now() + PATIENCE, told: false }
    }
}

impl Paced<'_, '_> {
    /// # Errors
    /// As [`Loading::check`].
    pub(super) fn check(&self) -> Result<(), DataError> {
        self.loading.check()
    }

    /// So many more bytes are done.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.done += bytes as u64;
        let now = Instant::now();
        if now >= self.next && self.total > 0 {
            (self.next, self.told) = (now + INTERVAL, true);
            // Files may grow meanwhile.
            let done = self.done.min(self.total - 1);
            (self.loading.tell)(Event::Progress { what: self.what, done, total: self.total });
        }
    }
}

impl Drop for Paced<'_, '_> {
    fn drop(&mut self) {
        if self.told {
            (self.loading.tell)(Event::Progress { what: self.what, done: self.total, total: self.total });
        }
    }
}

/// What work on several threads counts and asks.
pub(crate) struct Watch<'a> {
    stop: &'a AtomicBool,
    done: AtomicU64,
}

impl<'a> Watch<'a> {
    pub(super) fn new(stop: &'a AtomicBool) -> Self {
        Self { stop, done: AtomicU64::new(0) }
    }

    /// So many more bytes are done.
    ///
    /// # Errors
    /// [`DataError::Interrupted`] if that is enough.
    pub(super) fn advance(&self, bytes: usize) -> Result<(), DataError> {
        self.done.fetch_add(bytes as u64, Ordering::Relaxed);
        check(self.stop)
    }
}

/// [`Loading::check`] where only the flag is at hand, as on threads that tokenize.
pub(super) fn check(stop: &AtomicBool) -> Result<(), DataError> {
    if stop.load(Ordering::Relaxed) { Err(DataError::Interrupted) } else { Ok(()) }
}

/// Loading that nobody watches or stops.
#[cfg(test)]
pub(crate) fn quiet<T>(load: impl FnOnce(&mut Loading<'_>) -> T) -> T {
    load(&mut Loading { stop: &AtomicBool::new(false), tell: &mut |_| {}, cache: TokenCache::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_takes_long_is_told_of() {
        let stop = AtomicBool::new(false);
        let mut events = Vec::new();
        let mut tell = |event: Event<'_>| match event {
            Event::Progress { what, done, total } => events.push((what, done, total)),
            Event::Note(note) | Event::Warning(note) => panic!("{note}"),
        };
        let mut loading = Loading { stop: &stop, tell: &mut tell, cache: TokenCache::default() };
        loading.paced("Nothing long", 10).advance(5);
        let mut work = loading.paced("Reading", 10);
        work.next = Instant::now();
        work.advance(4);
        work.advance(4);
        work.next = Instant::now();
        work.advance(40);
        assert!(work.check().is_ok());
        stop.store(true, Ordering::Relaxed);
        assert_eq!(work.check(), Err(DataError::Interrupted));
        drop(work);
        assert_eq!(events, [("Reading", 4, 10), ("Reading", 9, 10), ("Reading", 10, 10)]);
    }
}
