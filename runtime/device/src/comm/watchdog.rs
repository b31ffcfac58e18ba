//! Ends the process where a call into a library does not come back.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use super::{CommError, LOST, Say};

/// Watches a call for as long as it lives.
pub(crate) struct Watchdog {
    /// Dropped with it, which the thread hears.
    _alive: Sender<()>,
}

impl Watchdog {
    /// From now on `error` is said after `timeout`, and the process ends with the code of lost ranks. A system that has no thread to
    /// give leaves the call unwatched.
    pub(crate) fn start(timeout: Duration, error: CommError, say: Say) -> Watchdog {
        let (alive, dropped) = channel::<()>();
        let watch = move || {
            if dropped.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout) {
                say(&error.to_string());
                // SAFETY: `_exit` ends the process without handlers, which could wait for the thread that hangs.
                #[cfg(unix)]
                unsafe {
                    libc::_exit(LOST.into())
                };
                #[cfg(not(unix))]
                std::process::exit(LOST.into());
            }
        };
        let _ = Builder::new().name("linc-watchdog".into()).spawn(watch);
        Watchdog { _alive: alive }
    }
}
