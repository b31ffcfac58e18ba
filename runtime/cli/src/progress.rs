//! The console: TorchTitan's lines, and a progress bar where there is a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use linc_train::metrics::{Record, console_line, thousands};
use linc_train::trainer::Observer;

/// Prints what a run tells.
pub(crate) struct Console {
    bar: ProgressBar,
    color: bool,
}

impl Console {
    pub(crate) fn new(steps: usize, color: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(steps as u64), target);
        let template = "{bar:32} step {pos}/{len}  {msg}  [{elapsed}<{eta}]";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Console { bar, color: color && std::io::stdout().is_terminal() }
    }

    pub(crate) fn warn(&self, text: &str) {
        self.bar.suspend(|| eprintln!("warning: {text}"));
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| println!("[linc] {} - {text}", timestamp()));
    }
}

impl Observer for Console {
    fn message(&mut self, text: &str) {
        self.line(text);
    }

    fn step(&mut self, step: usize, _steps: usize, loss: f32) {
        self.bar.set_position(step as u64);
        self.bar.set_message(format!("loss {loss:.4}"));
    }

    fn record(&mut self, record: &Record, memory: (u64, u64)) {
        self.line(&console_line(record, memory, self.color));
    }

    fn validation(&mut self, record: &Record) {
        let mut text = format!(
            "validate step: {:2}  loss: {:7.4}",
            record.step,
            record.validation_loss.unwrap_or(f64::NAN)
        );
        if let Some(bits) = record.validation_bits_per_byte {
            text.push_str(&format!("  bits/byte: {bits:.4}"));
        }
        if let Some(accuracy) = record.validation_accuracy {
            text.push_str(&format!("  accuracy: {:.2}%", 100.0 * accuracy));
        }
        text.push_str(&format!("  tokens: {}", thousands(record.tokens)));
        self.line(&text);
    }
}

/// `2026-01-31 12:34:56`, UTC.
fn timestamp() -> String {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (now / 86_400, now % 86_400);
    let (year, month, day) = civil(days as i64);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
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
