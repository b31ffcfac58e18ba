//! The console: TorchTitan's lines, and a progress bar where there is a terminal.

use std::env;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use linc_device::words::bytes;
use linc_train::metrics::{Memory, Record, console_line, validation_line};
use linc_train::trainer::Observer;

use crate::out;
use crate::progress::{drawable, is_dumb};

/// Prints what a run tells.
pub(crate) struct Console {
    bar: ProgressBar,
    color: bool,
    /// Ends the run, after a checkpoint, when nobody can see any more how it goes.
    stop: &'static AtomicBool,
    failed: Option<io::Error>,
    /// Whether the log says what is going on.
    said: bool,
}

impl Console {
    pub(crate) fn new(steps: usize, color: bool, stop: &'static AtomicBool) -> Self {
        let target = if drawable() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(steps as u64), target);
        let template = "{bar:32} step {pos}/{len}  {msg}  [{elapsed}<{eta}]";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let color = color && io::stdout().is_terminal() && allows_color();
        Console { bar, color, stop, failed: None, said: false }
    }

    pub(crate) fn warn(&self, text: &str) {
        self.bar.suspend(|| out::complain(format_args!("warning: {text}")));
    }

    /// Removes the progress bar.
    ///
    /// # Errors
    /// The first failure of standard output.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.bar.finish_and_clear();
        self.failed.take().map_or(Ok(()), Err)
    }

    fn line(&mut self, text: &str) {
        if self.failed.is_some() {
            return;
        }
        let line = format!("[linc] {} - root - INFO - {text}", timestamp());
        if let Err(error) = self.bar.suspend(|| out::line(line)) {
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
        // Without a bar, one line says why nothing happens.
        if self.bar.is_hidden() && done < total && !self.said {
            self.line(&format!("{what}: {} of {}", bytes(done), bytes(total)));
        }
        self.said = done < total;
        if done < total {
            self.bar.set_message(format!("{what} {} of {}", bytes(done), bytes(total)));
        } else {
            self.bar.set_message("");
        }
    }

    fn step(&mut self, step: usize, loss: f32) {
        self.bar.set_position(step as u64);
        self.bar.set_message(format!("loss {loss:.4}"));
    }

    fn record(&mut self, record: &Record, memory: Memory) {
        self.line(&console_line(record, memory, self.color));
    }

    fn validation(&mut self, record: &Record, memory: Memory) {
        self.line(&validation_line(record, memory, self.color));
    }
}

/// Whether nobody asks for plain text; see <https://no-color.org>.
fn allows_color() -> bool {
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
    use super::civil;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_453), (2025, 12, 31));
    }
}
