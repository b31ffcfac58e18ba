//! How far work is that takes longer than a moment: a bar on standard error where there is a terminal to see it, else a line now
//! and then, with the time that the rest takes.

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::rc::Rc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use linc_device::signals;
use serde_json::{Value, json};

use crate::log::{self, Log};

/// Work that is done before this has no bar.
const MOMENT: Duration = Duration::from_millis(500);

/// Work that is done before this has no line.
const FIRST: Duration = Duration::from_secs(5);

/// Time between two lines on the same work.
const INTERVAL: Duration = Duration::from_secs(10);

/// Whether a bar can be drawn: standard error is a terminal that can move its cursor. The bar itself has no colours.
fn drawable() -> bool {
    io::stderr().is_terminal() && !is_dumb()
}

/// Whether the terminal can do no more than print.
pub(crate) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// How far work is, as a line of a log says it.
pub(crate) struct Line {
    what: String,
    /// What is done of how much, for people.
    words: String,
    done: u64,
    total: u64,
    /// What the rest takes; nothing as long as nothing is done.
    seconds_left: Option<u64>,
}

impl Line {
    /// For people.
    pub(crate) fn text(&self) -> String {
        match self.seconds_left {
            Some(seconds) => format!("{}, {} left", self.words, clock(seconds)),
            None => self.words.clone(),
        }
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let Line { what, done, total, seconds_left, .. } = self;
        json!({
            "message": self.text(),
            "progress": { "what": what, "done": done, "total": total, "seconds_left": seconds_left },
        })
    }
}

/// How far a command is: one piece of work after the other, or one within the other. Clones are the same.
#[derive(Clone)]
pub(crate) struct Progress(Rc<RefCell<Shown>>);

struct Shown {
    how: How,
    /// Work that was begun and is not done, the innermost last.
    works: Vec<Work>,
    bar: Option<ProgressBar>,
}

/// How it is shown.
#[derive(Clone, Copy)]
enum How {
    Bar,
    /// By lines, which are told to this.
    Lines(fn(&Line)),
    Nothing,
}

struct Work {
    what: String,
    begun: Instant,
    /// What was done when it began: a resumed run has steps behind it that this one has not taken.
    first: u64,
    /// When a line says how far it is.
    next: Instant,
}

impl Progress {
    /// Of a command whose results others may read: shown on standard error, as the log of the process has it.
    pub(crate) fn new() -> Progress {
        Progress::telling(Log::of_process(), log::progress)
    }

    /// With lines that are told to `tell`, where there is no bar.
    pub(crate) fn telling(log: Log, tell: fn(&Line)) -> Progress {
        Progress::shown(match (log.quiet, log.is_json() || !drawable()) {
            (true, _) => How::Nothing,
            (false, true) => How::Lines(tell),
            (false, false) => How::Bar,
        })
    }

    /// Of a process that says nothing.
    pub(crate) fn hidden() -> Progress {
        Progress::shown(How::Nothing)
    }

    fn shown(how: How) -> Progress {
        Progress(Rc::new(RefCell::new(Shown { how, works: vec![], bar: None })))
    }

    /// So many of `what` are done, of how many there are, which is said in `words`.
    pub(crate) fn show(&self, what: &str, words: &str, done: u64, total: u64) {
        self.0.borrow_mut().show(what, words, done, total, Instant::now());
    }

    /// As [`Progress::show`], of work whose lines in a log are others than these.
    pub(crate) fn show_bar(&self, what: &str, words: &str, done: u64, total: u64) {
        let mut shown = self.0.borrow_mut();
        if matches!(shown.how, How::Bar) {
            shown.show(what, words, done, total, Instant::now());
        }
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
    fn show(&mut self, what: &str, words: &str, done: u64, total: u64, now: Instant) {
        if matches!(self.how, How::Nothing) {
            return;
        }
        if signals::exit_code().is_some() {
            self.clear();
            return;
        }
        match self.works.iter().position(|work| work.what == what) {
            Some(at) => self.works.truncate(at + 1),
            None => {
                self.works.push(Work { what: what.to_owned(), begun: now, first: done, next: now + FIRST })
            }
        }
        if done >= total {
            self.works.pop();
            if self.works.is_empty() {
                self.clear();
            }
            return;
        }
        let Some(work) = self.works.last_mut() else { return };
        let elapsed = now.saturating_duration_since(work.begun);
        let left = seconds_left(elapsed, done - work.first.min(done), total - done);
        match self.how {
            How::Lines(tell) if now >= work.next => {
                work.next = now + INTERVAL;
                let (what, words) = (what.to_owned(), words.to_owned());
                tell(&Line { what, words, done, total, seconds_left: left });
            }
            How::Bar if elapsed >= MOMENT => {
                self.draw(format!("{words}  [{}]", times(elapsed, left)), done, total)
            }
            How::Lines(_) | How::Bar | How::Nothing => {}
        }
    }

    fn draw(&mut self, words: String, done: u64, total: u64) {
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

/// What the rest takes at the speed of what was done in `elapsed`.
fn seconds_left(elapsed: Duration, done: u64, left: u64) -> Option<u64> {
    (done > 0).then(|| (elapsed.as_secs_f64() * left as f64 / done as f64).round() as u64)
}

/// `0:05<1:20`: the time since work began, and what the rest takes.
fn times(elapsed: Duration, left: Option<u64>) -> String {
    format!("{}<{}", clock(elapsed.as_secs()), left.map_or_else(|| "?".to_owned(), clock))
}

/// `1:20`, or `1:01:40`.
fn clock(seconds: u64) -> String {
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_the_same_work_took() {
        let shown = |seconds, done, left| {
            let elapsed = Duration::from_secs(seconds);
            times(elapsed, seconds_left(elapsed, done, left))
        };
        assert_eq!(shown(10, 5, 40), "0:10<1:20");
        assert_eq!(shown(3700, 1, 2), "1:01:40<2:03:20");
        assert_eq!(shown(2, 0, 9), "0:02<?");
    }

    #[test]
    fn work_within_other_work_gives_the_bar_back() {
        let mut shown = Shown { how: How::Bar, works: vec![], bar: None };
        let names = |shown: &Shown| shown.works.iter().map(|work| work.what.clone()).collect::<Vec<_>>();
        let now = Instant::now();
        shown.show("step", "", 200, 300, now);
        shown.show("reading", "", 1, 9, now);
        assert_eq!(names(&shown), ["step", "reading"]);
        shown.show("reading", "", 9, 9, now);
        shown.show("step", "", 201, 300, now);
        assert_eq!(names(&shown), ["step"]);
        assert_eq!(shown.works[0].first, 200);
        shown.show("reading", "", 1, 9, now);
        shown.show("step", "", 202, 300, now);
        assert_eq!(names(&shown), ["step"], "work that was given up is over");
        shown.show("step", "", 300, 300, now);
        assert!(names(&shown).is_empty() && shown.bar.is_none());
    }

    thread_local! {
        static TOLD: Cell<Vec<Value>> = const { Cell::new(vec![]) };
    }

    fn keep(line: &Line) {
        TOLD.set([TOLD.take(), vec![line.json()]].concat());
    }

    #[test]
    fn without_a_bar_lines_come_now_and_then() {
        let mut shown = Shown { how: How::Lines(keep), works: vec![], bar: None };
        let begun = Instant::now();
        let mut at = |seconds: u64, done: u64| {
            shown.show("reading", "reading", done, 100, begun + Duration::from_secs(seconds));
            TOLD.take()
        };
        assert!(at(0, 20).is_empty() && at(4, 25).is_empty());
        let line = json!({
            "message": "reading, 0:35 left",
            "progress": { "what": "reading", "done": 30, "total": 100, "seconds_left": 35 },
        });
        assert_eq!(at(5, 30), [line]);
        assert!(at(14, 40).is_empty());
        assert_eq!(at(15, 40).len(), 1);
        assert!(at(25, 100).is_empty(), "its end needs no line");
        assert!(at(26, 1).is_empty(), "other work begins");
    }
}
