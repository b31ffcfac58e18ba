//! Runs in words: the columns of the table, and all of it as text.

use std::time::SystemTime;

use linc_device::words::{bytes, count, thousands};

use crate::curve::{Curve, memory};
use crate::run::Run;
use crate::watched::Watched;

/// Alerts that are shown of a run.
pub(crate) const ALERTS: usize = 5;

/// What the table says of a run, by the names of its columns.
pub(crate) const COLUMNS: [&str; 9] =
    ["run", "state", "step", "loss", "validation", "best", "tokens/s", "memory", "left"];

/// The cells of a run; a run of unknown values has empty ones.
pub(crate) fn cells(run: &Run, now: SystemTime) -> [String; 9] {
    let last = run.records.last();
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.4}"));
    let mut validation = run.validations.iter().filter_map(|record| Curve::Validation.of(record));
    let best = validation.clone().min_by(f64::total_cmp);
    let step = match run.steps {
        Some(steps) => format!("{}/{}", run.step(), steps),
        None => run.step().to_string(),
    };
    let left = run.left().filter(|left| *left > 0.0);
    [
        run.folder.display().to_string(),
        run.status(now).word().to_owned(),
        step,
        number(last.and_then(|record| record.loss)),
        number(validation.next_back()),
        number(best),
        last.and_then(|record| record.tps).map_or_else(String::new, |tps| thousands(tps.round() as u64)),
        last.and_then(memory).map_or_else(String::new, bytes),
        left.map_or_else(String::new, clock),
    ]
}

/// `1:05` or `2:01:05`.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

/// All that is known of the runs, a few lines each.
pub fn text(watched: &Watched) -> String {
    let now = SystemTime::now();
    watched.runs.iter().map(|run| of_run(run, now)).collect::<Vec<_>>().join("\n\n")
}

fn of_run(run: &Run, now: SystemTime) -> String {
    let cells = cells(run, now);
    let mut lines = vec![format!("{} ({})", cells[0], cells[1])];
    let mut say = |name: &str, value: &str| {
        if !value.is_empty() {
            lines.push(format!("  {name:14} {value}"));
        }
    };
    say("model", &run.model);
    for (name, value) in COLUMNS.iter().zip(&cells).skip(2) {
        say(name, value);
    }
    let last = run.records.last();
    say(
        "learning rate",
        &last.and_then(|record| record.lr).map_or_else(String::new, |lr| format!("{lr:.3e}")),
    );
    say(
        "gradient norm",
        &last.and_then(|record| record.grad_norm).map_or_else(String::new, |norm| format!("{norm:.4}")),
    );
    say("linear layers", &run.linear_layers().unwrap_or_default());
    let skipped = last.and_then(|record| record.skipped_steps).filter(|steps| *steps > 0);
    say("skipped", &skipped.map_or_else(String::new, |steps| count(steps as usize, "step")));
    for alert in run.alerts.iter().rev().take(ALERTS).rev() {
        say("alert", &format!("step {} ({}): {}", alert.step, alert.level, alert.message));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_clocks() {
        assert_eq!([59.6, 3599.0, 3665.0].map(clock), ["1:00", "59:59", "1:01:05"]);
    }
}
