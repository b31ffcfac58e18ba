//! What a caller sees and may stop while data are read and tokenized, which takes minutes for large files.

use super::error::DataError;
use std::sync::atomic::{AtomicBool, Ordering};

/// What loading tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A remark for people: something that was left out, switched off, or looks wrong.
    Note(&'a str),
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
}

/// [`Loading::check`] where only the flag is at hand, as on threads that tokenize.
pub(super) fn check(stop: &AtomicBool) -> Result<(), DataError> {
    if stop.load(Ordering::Relaxed) { Err(DataError::Interrupted) } else { Ok(()) }
}

/// Loading that nobody watches or stops.
#[cfg(test)]
pub(super) fn quiet<T>(load: impl FnOnce(&mut Loading<'_>) -> T) -> T {
    load(&mut Loading { stop: &AtomicBool::new(false), tell: &mut |_| {} })
}
