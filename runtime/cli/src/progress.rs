//! A bar on standard error for work that takes longer than a moment, where there is a terminal to see it.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work that is done before this has no bar.
const MOMENT: Duration = Duration::from_millis(500);

/// Whether a bar can be drawn: standard error is a terminal that can move its cursor. The bar itself has no colours.
pub(crate) fn drawable() -> bool {
    io::stderr().is_terminal() && !is_dumb()
}

/// Whether the terminal can do no more than print.
pub(crate) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// The bar of one piece of work, gone when it is dropped.
pub(crate) struct Progress {
    what: &'static str,
    begun: Instant,
    bar: Option<ProgressBar>,
    drawable: bool,
}

impl Progress {
    /// No bar yet. `what` says what is counted: `kernels compiled`.
    pub(crate) fn new(what: &'static str) -> Progress {
        Progress { what, begun: Instant::now(), bar: None, drawable: drawable() }
    }

    /// So many are done, of how many there are.
    pub(crate) fn show(&mut self, done: u64, total: u64) {
        if !self.drawable || (self.bar.is_none() && (self.begun.elapsed() < MOMENT || done >= total)) {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos}/{len} {msg}  [{elapsed}<{eta}]") {
                bar.set_style(style);
            }
            bar.set_message(self.what);
            bar
        });
        bar.set_length(total);
        bar.set_position(done);
        if done >= total {
            self.clear();
        }
    }

    /// For a device to show what it compiles.
    pub(crate) fn of_kernels() -> linc_device::Progress {
        let mut bar = Progress::new("kernels compiled");
        Box::new(move |done, total| bar.show(done as u64, total as u64))
    }

    /// Ends this piece of work; the next one has a bar of its own.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.begun = Instant::now();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
