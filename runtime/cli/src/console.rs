//! The console: TorchTitan's lines, and a progress bar where there is a terminal.

use std::env;
use std::io::{self, IsTerminal};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use linc_device::words::bytes;
use linc_train::metrics::{Memory, Record, console_line, evaluation_line, validation_line};
use linc_train::trainer::Observer;
use serde_json::{Value, json};

use crate::out;
use crate::progress::{Progress, drawable, is_dumb};
use crate::wrap;

/// Columns that TorchTitan's lines need.
const FULL: usize = 170;

/// Time between two lines on the same work in a log that shows no bar.
const INTERVAL: Duration = Duration::from_secs(10);

/// The part of a timestamp that lines on a narrower terminal begin with: `12:34:56`.
const CLOCK: Range<usize> = 11..19;

/// What a log is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    /// Lines for people, with a bar where there is a terminal.
    Text,
    /// Objects, one a line.
    Json,
    /// Nothing but warnings.
    Quiet,
}

/// A line of a log of objects: the time, UTC, how bad it is, and what `what` has.
pub(crate) fn object(level: &str, mut what: Value) -> String {
    what["time"] = json!(timestamp().replacen(' ', "T", 1).replacen(',', ".", 1) + "Z");
    what["level"] = json!(level);
    what.to_string()
}

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
    /// When the log, without a bar, says how far work is the next time; none is going on without it.
    next: Option<Instant>,
}

impl Console {
    pub(crate) fn new(steps: usize, color: bool, log: Log, stop: &'static AtomicBool) -> Self {
        let color = color && log == Log::Text && io::stdout().is_terminal() && allows_color();
        Console {
            progress: if log == Log::Text { Progress::new() } else { Progress::hidden() },
            steps,
            color,
            log,
            width: out::width(),
            stop,
            failed: None,
            next: None,
        }
    }

    /// The bar, for other work of the run.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(crate) fn warn(&mut self, text: &str) {
        if self.log == Log::Json {
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
        let line = match self.width {
            _ if self.log == Log::Json => object("info", json!({ "message": text })),
            Some(width) if width < FULL => wrap::with_time(&timestamp()[CLOCK], text, width),
            Some(_) | None => format!("[linc] {} - root - INFO - {text}", timestamp()),
        };
        if self.log != Log::Quiet {
            self.print(line);
        }
    }

    fn print(&mut self, line: String) {
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.progress.suspend(|| out::line(line)) {
            self.failed = Some(error);
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

impl Observer for Console {
    fn message(&mut self, text: &str) {
        self.line(text);
    }

    fn progress(&mut self, what: &str, done: u64, total: u64) {
        // Without a bar, lines say why nothing else happens.
        if (!drawable() || self.log == Log::Json) && is_due(&mut self.next, Instant::now(), done < total) {
            self.line(&format!("{what}: {} of {}", bytes(done), bytes(total)));
        }
        self.progress.show(what, &format!("{what} {} of {}", bytes(done), bytes(total)), done, total);
    }

    fn step(&mut self, step: usize, loss: f32) {
        let words = format!("step {step}/{}  loss {loss:.4}", self.steps);
        self.progress.show("steps", &words, step as u64, self.steps as u64);
    }

    fn validating(&mut self, done: usize, batches: usize) {
        let words = format!("validation batch {done}/{batches}");
        self.progress.show("validation", &words, done as u64, batches as u64);
    }

    fn asking(&mut self, task: &str, done: usize, samples: usize) {
        self.progress.show("evaluation", &format!("{task} {done}/{samples}"), done as u64, samples as u64);
    }

    fn record(&mut self, record: &Record, memory: Memory) {
        match self.log {
            Log::Json => self.print(object("info", json!({ "record": record }))),
            Log::Text | Log::Quiet => self.line(&console_line(record, memory, self.color, self.room())),
        }
    }

    fn validation(&mut self, record: &Record, memory: Memory) {
        match self.log {
            Log::Json => self.print(object("info", json!({ "record": record }))),
            Log::Text | Log::Quiet => self.line(&validation_line(record, memory, self.color, self.room())),
        }
    }

    fn evaluation(&mut self, record: &Record) {
        match self.log {
            Log::Json => self.print(object("info", json!({ "record": record }))),
            Log::Text | Log::Quiet => self.line(&evaluation_line(record, self.color, self.room())),
        }
    }
}

/// Whether a line is due on work that goes on: at once, and from then on every [`INTERVAL`].
fn is_due(next: &mut Option<Instant>, now: Instant, goes_on: bool) -> bool {
    let is_due = goes_on && next.is_none_or(|next| now >= next);
    if is_due || !goes_on {
        *next = goes_on.then(|| now + INTERVAL);
    }
    is_due
}

/// Whether nobody asks for plain text; see <https://no-color.org>.
pub(crate) fn allows_color() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && !is_dumb()
}

/// `2026-01-31 12:34:56,789`, UTC.
fn timestamp() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (now.as_secs() / 86_400, now.as_secs() % 86_400);
    let (year, month, day) = civil(days as i64);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let milli = now.subsec_millis();
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02},{milli:03}")
}

/// Year, month and day of a day counted from 1970-01-01 (proleptic Gregorian, eras of 400 years from March).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::{INTERVAL, civil, is_due};
    use std::time::{Duration, Instant};

    #[test]
    fn work_in_a_log_is_told_of_now_and_then() {
        let begun = Instant::now();
        let mut next = None;
        let mut due =
            |seconds: u64, goes_on| is_due(&mut next, begun + Duration::from_secs(seconds), goes_on);
        let every = INTERVAL.as_secs();
        assert!(
            due(1, true)
                && !due(2, true)
                && !due(every, true)
                && due(every + 1, true)
                && !due(every + 2, true)
        );
        assert!(due(3 * every, true) && !due(3 * every + 1, false), "its end needs no line");
        assert!(due(3 * every + 2, true), "other work begins");
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_453), (2025, 12, 31));
    }
}
