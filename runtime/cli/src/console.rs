//! The console: TorchTitan's lines, and a progress bar where there is a terminal.

use std::env;
use std::io::{self, IsTerminal};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use linc_device::words::bytes;
use linc_train::metrics::{Memory, Record, console_line, evaluation_line, validation_line};
use linc_train::trainer::Observer;
use serde_json::json;

use crate::log::{Log, object, timestamp};
use crate::out;
use crate::progress::{Line, Progress, is_dumb};
use crate::wrap;

/// Columns that TorchTitan's lines need.
const FULL: usize = 170;

/// The part of a timestamp that lines on a narrower terminal begin with: `12:34:56`.
const CLOCK: Range<usize> = 11..19;

/// Prints what a run tells.
pub(crate) struct Console {
    progress: Progress,
    /// Steps of the run.
    steps: usize,
    color: bool,
    log: Log,
    /// Columns of the terminal that the log goes to, if it does.
    width: Option<usize>,
    /// Ends the run, after a checkpoint, when nobody can see any more how it goes.
    stop: &'static AtomicBool,
    failed: Option<io::Error>,
}

impl Console {
    pub(crate) fn new(steps: usize, color: bool, log: Log, stop: &'static AtomicBool) -> Self {
        let color = color && !log.is_json() && io::stdout().is_terminal() && allows_color();
        Console {
            progress: Progress::telling(log, if log.is_json() { tell_object } else { tell_line }),
            steps,
            color,
            log,
            width: out::width(),
            stop,
            failed: None,
        }
    }

    /// The bar, for other work of the run.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(crate) fn warn(&mut self, text: &str) {
        if self.log.is_json() {
            return self.print(object("warning", json!({ "message": text })));
        }
        self.progress.suspend(|| out::complain(format_args!("warning: {text}")));
    }

    /// Columns of the terminal that the log goes to, if it does.
    pub(crate) fn width(&self) -> Option<usize> {
        self.width
    }

    /// Removes the progress bar.
    ///
    /// # Errors
    /// The first failure of standard output.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.progress.clear();
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Columns for the text of a line, if there is an end to them.
    fn room(&self) -> Option<usize> {
        self.width.filter(|width| *width < FULL).map(|width| width.saturating_sub(CLOCK.len() + 1))
    }

    fn line(&mut self, text: &str) {
        if !self.log.quiet {
            self.print(match self.log.is_json() {
                true => object("info", json!({ "message": text })),
                false => line(text, self.width),
            });
        }
    }

    /// A record, of which people are shown a line.
    fn record_line(&mut self, record: &Record, text: &str) {
        match self.log.is_json() {
            true if self.log.quiet => {}
            true => self.print(object("info", json!({ "record": record }))),
            false => self.line(text),
        }
    }

    fn print(&mut self, line: String) {
        if self.failed.is_some() {
            return;
        }
        let print = if self.log.is_json() { out::line_whole } else { out::line };
        if let Err(error) = self.progress.suspend(|| print(line)) {
            self.failed = Some(error);
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// A line of the log, on a terminal of `width` columns or on none.
fn line(text: &str, width: Option<usize>) -> String {
    line_of("INFO", text, width)
}

/// Likewise, of a level.
fn line_of(level: &str, text: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if width < FULL => wrap::with_time(&timestamp()[CLOCK], text, width),
        Some(_) | None => format!("[linc] {} - root - {level} - {text}", timestamp()),
    }
}

/// How far work is, as a line of the log. If it cannot be printed, the next line of the run cannot, which ends it.
fn tell_line(told: &Line) {
    let _ = out::line(line(&told.text(), out::width()));
}

/// The same in a log of objects.
fn tell_object(told: &Line) {
    let _ = out::line_whole(object("info", told.json()));
}

impl Observer for Console {
    fn message(&mut self, text: &str) {
        self.line(text);
    }

    fn warning(&mut self, text: &str) {
        match self.log.quiet || self.log.is_json() {
            true => self.warn(text),
            false => self.print(line_of("WARNING", text, self.width)),
        }
    }

    fn progress(&mut self, what: &str, done: u64, total: u64) {
        self.progress.show(what, &format!("{what}: {} of {}", bytes(done), bytes(total)), done, total);
    }

    fn tuning(&mut self, done: usize, runs: usize) {
        self.progress.show("tile sizes", "measuring tile sizes", done as u64, runs as u64);
    }

    fn step(&mut self, step: usize, loss: f32) {
        let words = format!("step {step}/{}  loss {loss:.4}", self.steps);
        // In a log, records say it.
        self.progress.show_bar("steps", &words, step as u64, self.steps as u64);
    }

    fn validating(&mut self, done: usize, batches: usize) {
        let words = format!("validation batch {done}/{batches}");
        self.progress.show("validation", &words, done as u64, batches as u64);
    }

    fn asking(&mut self, task: &str, done: usize, samples: usize) {
        self.progress.show("evaluation", &format!("{task} {done}/{samples}"), done as u64, samples as u64);
    }

    fn record(&mut self, record: &Record, memory: Memory) {
        self.record_line(record, &console_line(record, memory, self.color, self.room()));
    }

    fn validation(&mut self, record: &Record, memory: Memory) {
        self.record_line(record, &validation_line(record, memory, self.color, self.room()));
    }

    fn evaluation(&mut self, record: &Record) {
        self.record_line(record, &evaluation_line(record, self.color, self.room()));
    }
}

/// Whether nobody asks for plain text; see <https://no-color.org>.
pub(crate) fn allows_color() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && !is_dumb()
}
