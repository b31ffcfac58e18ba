//! The console: TorchTitan's lines, and a progress bar where there is a terminal.

use std::env;
use std::io::{self, IsTerminal};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use console::{Term, measure_text_width};
use linc_device::words::bytes;
use linc_infer::visible;
use linc_train::metrics::{Memory, Record, console_line, validation_line};
use linc_train::trainer::Observer;

use crate::out;
use crate::progress::{Progress, drawable, is_dumb};

/// Columns that TorchTitan's lines need.
const FULL: usize = 170;

/// What lines of a quotation begin with.
const BAR: &str = "    | ";
/// In less room than this no text can be read, and none is wrapped.
const NARROW: usize = 10;

/// Time between two lines on the same work in a log that shows no bar.
const INTERVAL: Duration = Duration::from_secs(10);

/// The part of a timestamp that lines on a narrower terminal begin with: `12:34:56`.
const CLOCK: Range<usize> = 11..19;

/// Prints what a run tells.
pub(crate) struct Console {
    progress: Progress,
    /// Steps of the run.
    steps: usize,
    color: bool,
    /// Columns of the terminal that the log goes to, if it does.
    width: Option<usize>,
    /// Ends the run, after a checkpoint, when nobody can see any more how it goes.
    stop: &'static AtomicBool,
    failed: Option<io::Error>,
    /// When the log, without a bar, says how far work is the next time; none is going on without it.
    next: Option<Instant>,
}

impl Console {
    pub(crate) fn new(steps: usize, color: bool, stop: &'static AtomicBool) -> Self {
        let terminal = io::stdout().is_terminal();
        let width = terminal.then(|| usize::from(Term::stdout().size().1));
        let color = color && terminal && allows_color();
        Console { progress: Progress::new(), steps, color, width, stop, failed: None, next: None }
    }

    /// The bar, for other work of the run.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(crate) fn warn(&self, text: &str) {
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
        if self.failed.is_some() {
            return;
        }
        let line = match self.width {
            Some(width) if width < FULL => wrapped(&timestamp()[CLOCK], text, width),
            Some(_) | None => format!("[linc] {} - root - INFO - {text}", timestamp()),
        };
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
        if !drawable() && is_due(&mut self.next, Instant::now(), done < total) {
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

    fn record(&mut self, record: &Record, memory: Memory) {
        self.line(&console_line(record, memory, self.color, self.room()));
    }

    fn validation(&mut self, record: &Record, memory: Memory) {
        self.line(&validation_line(record, memory, self.color, self.room()));
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

/// A time and a text in lines of at most `width` columns, but for words that are longer. What is a line of the text by itself
/// stays one, without the time from the second on.
fn wrapped(time: &str, text: &str, width: usize) -> String {
    let indent = " ".repeat(time.len());
    let starts = std::iter::once(time).chain(std::iter::repeat(indent.as_str()));
    text.split('\n')
        .zip(starts)
        .map(|(line, start)| wrapped_line(start, line, width))
        .collect::<Vec<_>>()
        .join("\n")
}

fn wrapped_line(start: &str, text: &str, width: usize) -> String {
    // Spaces within a text that fits are kept: fields of a record are two of them apart.
    if measure_text_width(text) + start.len() < width {
        return format!("{start} {text}");
    }
    let mut lines = vec![start.to_owned()];
    for word in text.split_whitespace() {
        let last = lines.last().map_or(0, |line| measure_text_width(line));
        match lines.last_mut() {
            Some(line) if last + 1 + measure_text_width(word) <= width || last <= start.len() => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(format!("{:1$} {word}", "", start.len())),
        }
    }
    lines.join("\n")
}

/// A text as a quotation, in lines that fit `width` columns, if there is an end to them. What cannot be printed is written
/// as an escape.
pub(crate) fn indented(text: &str, width: Option<usize>) -> String {
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(BAR.len() + 1));
    let room = if room < NARROW { usize::MAX } else { room };
    let text = visible(text);
    let lines = text.lines().flat_map(|line| pieces(line, room));
    lines.map(|line| format!("{BAR}{line}")).collect::<Vec<_>>().join("\n")
}

/// A line in pieces of at most `room` columns, which end behind a word where one does.
fn pieces(line: &str, room: usize) -> Vec<&str> {
    let (mut pieces, mut rest) = (vec![], line);
    while measure_text_width(rest) > room {
        let mut columns = 0;
        let fits = |(_, c): &(usize, char)| {
            columns += measure_text_width(c.encode_utf8(&mut [0; 4]));
            columns <= room
        };
        let end = rest
            .char_indices()
            .take_while(fits)
            .map(|(at, c)| at + c.len_utf8())
            .last()
            .unwrap_or(rest.len());
        // The space at the end of a piece is not seen, so it may be one too many.
        let behind =
            rest[..end].len() + rest[end..].chars().next().filter(|c| *c == ' ').map_or(0, |c| c.len_utf8());
        let cut = rest[..behind].rfind(' ').map_or(end, |space| space + 1);
        pieces.push(rest[..cut].trim_end_matches(' '));
        rest = &rest[cut..];
    }
    pieces.push(rest);
    pieces
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
    use super::{INTERVAL, civil, indented, is_due, wrapped};
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
    fn samples_are_wrapped_where_there_is_an_end_of_the_line() {
        let text = "One day a fox went out.\n\nIt  was\u{e9}\u{b} cold";
        assert_eq!(
            indented(text, None),
            "    | One day a fox went out.\n    | \n    | It  was\u{e9}\\u{b} cold"
        );
        let narrow = "    | One day a\n    | fox went\n    | out.\n    | \n    | It\n    | was\u{e9}\\u{b}\n    | cold";
        assert_eq!(indented(text, Some(17)), narrow);
        let long = indented(&"x".repeat(30), Some(17));
        assert!(long.lines().all(|line| line.len() <= 16) && long.matches('x').count() == 30, "{long}");
        assert_eq!(indented("ab", Some(0)), "    | ab", "a terminal that tells no width");
    }

    #[test]
    fn long_messages_are_wrapped_between_words() {
        assert_eq!(wrapped("12:34:56", "step:  4  loss:  6.2", 40), "12:34:56 step:  4  loss:  6.2");
        let text = "Going on with the run in outputs/a_folder_with_a_long_name, which has 4 steps";
        let lines = "12:34:56 Going on with the run in\n         outputs/a_folder_with_a_long_name,\n         which has 4 steps";
        assert_eq!(wrapped("12:34:56", text, 36), lines);
        let config = "Running with config:\n[job]\ndescription = \"two  spaces\"";
        let lines = "12:34:56 Running with config:\n         [job]\n         description = \"two  spaces\"";
        assert_eq!(wrapped("12:34:56", config, 40), lines);
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_453), (2025, 12, 31));
    }
}
