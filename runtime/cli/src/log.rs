//! What a command says beside its results: remarks, warnings, errors, and how far it is. Whether that is lines for people or
//! objects, and whether all of it is said, is asked for once, for every command.
//!
//! Results go to standard output and are not touched by this, but for those of runs, which are a part of their log.

use std::fmt::Display;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use linc_device::signals::{self, Notices};
use serde_json::{Value, json};

use crate::args::Format;
use crate::config::take_format;
use crate::out;
use crate::progress::Line;

/// How commands log.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Log {
    /// Say only warnings, errors and results
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
    /// What is said beside results: lines for people, or an object a line
    // Commands have a format of their own, of their results.
    #[arg(
        id = "log_format",
        long = "log-format",
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub(crate) format: Format,
}

static LOG: OnceLock<Log> = OnceLock::new();

impl Log {
    /// As all of this process, until it ends, was asked to log; for people before that is known.
    pub(crate) fn of_process() -> Log {
        LOG.get().copied().unwrap_or(Log { quiet: false, format: Format::Text })
    }

    /// From now on all that is said is said so. Where a command has settings, what stands behind them is among them, and is taken out.
    ///
    /// # Errors
    /// A format that there is not.
    pub(crate) fn begin(mut self, settings: Option<&mut Vec<String>>) -> Result<()> {
        if let Some(settings) = settings {
            let (format, mut rest) = take_format("--log-format", self.format, settings)?;
            self.quiet |= rest.iter().any(|setting| setting == QUIET);
            rest.retain(|setting| setting != QUIET);
            (self.format, *settings) = (format, rest);
        }
        let _ = LOG.set(self);
        Ok(())
    }

    /// What asks another `linc` for the same.
    pub(crate) fn arguments(self) -> Vec<&'static str> {
        let quiet = self.quiet.then_some(QUIET);
        let format = self.is_json().then_some("--log-format=json");
        quiet.into_iter().chain(format).collect()
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }
}

const QUIET: &str = "--quiet";

/// The options, for messages that look for the nearest.
pub(crate) const OPTIONS: [&str; 2] = [QUIET, "--log-format"];

/// Good to know.
pub(crate) fn say(text: impl Display) {
    if !Log::of_process().quiet {
        to_stderr("info", "", text);
    }
}

/// Good to know, and easily taken for a part of something else.
pub(crate) fn note(text: impl Display) {
    if !Log::of_process().quiet {
        to_stderr("info", "note: ", text);
    }
}

/// Something is not as it was asked for, or will not come to what was hoped for.
pub(crate) fn warn(text: impl Display) {
    to_stderr("warning", "warning: ", text);
}

/// What was asked for is not done.
pub(crate) fn error(text: impl Display) {
    to_stderr("error", "error: ", text);
}

/// As [`error`], of what begins with its place in a file, for editors to jump to, and says `error: ` itself.
pub(crate) fn error_at(text: impl Display) {
    to_stderr("error", "", text);
}

/// How far work is.
pub(crate) fn progress(line: &Line) {
    match Log::of_process().format {
        Format::Text => out::complain(line.text()),
        Format::Json => out::complain_whole(object("info", line.json())),
    }
}

/// What a request to end came to.
pub(crate) fn ended(text: impl Display) {
    to_stderr("warning", "", text);
}

fn to_stderr(level: &str, prefix: &str, text: impl Display) {
    match Log::of_process().format {
        Format::Text => out::complain(format_args!("{prefix}{text}")),
        Format::Json => {
            let text = text.to_string();
            let text = text.trim();
            let message = text.strip_prefix("error: ").unwrap_or(text);
            out::complain_whole(object(level, json!({ "message": message })));
        }
    }
}

/// A line of a log of objects: the time, UTC, how bad it is, the rank that is not the first, and what `what` has.
pub(crate) fn object(level: &str, mut what: Value) -> String {
    what["time"] = json!(timestamp().replacen(' ', "T", 1).replacen(',', ".", 1) + "Z");
    what["level"] = json!(level);
    if let Some(rank) = out::rank() {
        what["rank"] = json!(rank);
    }
    what.to_string()
}

/// As [`signals::catch`], with answers as this log has its lines. They are written where nothing can be computed any more, not even
/// the time.
pub(crate) fn catch(notices: Notices) -> &'static AtomicBool {
    if !Log::of_process().is_json() {
        return signals::catch(notices);
    }
    let line = |text: &'static str| -> &'static str {
        let text = text.trim();
        if text.is_empty() {
            return "";
        }
        let line = json!({ "level": "warning", "message": text }).to_string();
        // As long as the process.
        Box::leak(format!("{line}\n").into_boxed_str())
    };
    signals::catch(Notices { first: line(notices.first), second: line(notices.second) })
}

/// `2026-01-31 12:34:56,789`, UTC.
pub(crate) fn timestamp() -> String {
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
