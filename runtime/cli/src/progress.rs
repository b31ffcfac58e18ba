//! A bar on standard error for work that takes longer than a moment, where there is a terminal to see it.

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::rc::Rc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use linc_device::signals;

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

/// The bar of a command: one piece of work after the other, or one within the other, has it. Clones are the same bar.
#[derive(Clone)]
pub(crate) struct Progress(Rc<RefCell<Shown>>);

struct Shown {
    drawable: bool,
    /// Work that was begun and is not done, the innermost last.
    works: Vec<Work>,
    bar: Option<ProgressBar>,
}

struct Work {
    what: String,
    begun: Instant,
    /// What was done when it began: a resumed run has steps behind it that this one has not taken.
    first: u64,
}

impl Progress {
    /// No bar yet.
    pub(crate) fn new() -> Progress {
        Progress(Rc::new(RefCell::new(Shown { drawable: drawable(), works: vec![], bar: None })))
    }

    /// One that is never drawn, for a log that is no terminal's.
    pub(crate) fn hidden() -> Progress {
        Progress(Rc::new(RefCell::new(Shown { drawable: false, works: vec![], bar: None })))
    }

    /// So many of `what` are done, of how many there are, which is said in `words`.
    pub(crate) fn show(&self, what: &str, words: &str, done: u64, total: u64) {
        self.0.borrow_mut().show(what, words, done, total);
    }

    /// For a device to show what it compiles.
    pub(crate) fn of_kernels(&self) -> linc_device::Progress {
        let bar = self.clone();
        Box::new(move |done, total| {
            bar.count("kernels compiled", done, total);
            true
        })
    }

    /// As [`Progress::show`], of things that are counted.
    pub(crate) fn count(&self, what: &str, done: usize, total: usize) {
        self.show(what, &format!("{done}/{total} {what}"), done as u64, total as u64);
    }

    /// Prints something while the bar is out of the way.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        // Behind the notice of a request to end, a bar would come back below each line.
        if signals::exit_code().is_some() {
            self.clear();
        }
        match &self.0.borrow().bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Ends all work.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

impl Shown {
    fn show(&mut self, what: &str, words: &str, done: u64, total: u64) {
        if !self.drawable {
            return;
        }
        if signals::exit_code().is_some() {
            self.clear();
            return;
        }
        match self.works.iter().position(|work| work.what == what) {
            Some(at) => self.works.truncate(at + 1),
            None => self.works.push(Work { what: what.to_owned(), begun: Instant::now(), first: done }),
        }
        if done >= total {
            self.works.pop();
            if self.works.is_empty() {
                self.clear();
            }
            return;
        }
        let Some(work) = self.works.last() else { return };
        let elapsed = work.begun.elapsed();
        if elapsed < MOMENT {
            return;
        }
        let words = format!("{words}  [{}]", times(elapsed, done - work.first.min(done), total - done));
        if let Some(bar) = &self.bar {
            bar.set_message(words);
            bar.set_length(total);
            bar.set_position(done);
            return;
        }
        // The bar takes what the words leave of the line: a longer line would wrap and stay where it is.
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {msg}") {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let bar = bar.with_style(style).with_message(words).with_position(done);
            bar.tick();
            self.bar = Some(bar);
        }
    }

    fn clear(&mut self) {
        self.works.clear();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.clear();
    }
}

/// `0:05<1:20`: the time since work began, and what the rest takes at the same speed.
fn times(elapsed: Duration, done: u64, left: u64) -> String {
    let clock = |seconds: u64| match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    };
    let rest = match done {
        0 => "?".to_owned(),
        done => clock((elapsed.as_secs_f64() * left as f64 / done as f64).round() as u64),
    };
    format!("{}<{rest}", clock(elapsed.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_the_same_work_took() {
        assert_eq!(times(Duration::from_secs(10), 5, 40), "0:10<1:20");
        assert_eq!(times(Duration::from_secs(3700), 1, 2), "1:01:40<2:03:20");
        assert_eq!(times(Duration::from_secs(2), 0, 9), "0:02<?");
    }

    #[test]
    fn work_within_other_work_gives_the_bar_back() {
        let mut shown = Shown { drawable: true, works: vec![], bar: None };
        let names = |shown: &Shown| shown.works.iter().map(|work| work.what.clone()).collect::<Vec<_>>();
        shown.show("step", "", 200, 300);
        shown.show("reading", "", 1, 9);
        assert_eq!(names(&shown), ["step", "reading"]);
        shown.show("reading", "", 9, 9);
        shown.show("step", "", 201, 300);
        assert_eq!(names(&shown), ["step"]);
        assert_eq!(shown.works[0].first, 200);
        shown.show("reading", "", 1, 9);
        shown.show("step", "", 202, 300);
        assert_eq!(names(&shown), ["step"], "work that was given up is over");
        shown.show("step", "", 300, 300);
        assert!(names(&shown).is_empty() && shown.bar.is_none());
    }
}
