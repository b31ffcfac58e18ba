//! The tables of a report: points, runs, alerts, failures, and how each run is repeated.

use linc_device::words::{bytes, thousands};

use super::collect::Collected;
use super::figures::short;
use super::summary::interval;
use crate::page::{Table, dash};
use crate::results::{Point, settings};
use crate::sweep::Status;

/// All tables that have a row.
pub(super) fn tables(collected: &Collected, points: &[Point]) -> Vec<Table> {
    let all = [points_table(collected, points), runs(collected), alerts(collected), commands(collected)];
    all.into_iter().filter(|table| !table.rows.is_empty()).collect()
}

fn points_table(collected: &Collected, points: &[Point]) -> Table {
    let names = settings(points);
    let metric = collected.metric.word().replace('_', " ");
    let fixed = [metric.as_str(), "to first", "runs", "failed", "ended early", "steps", "tokens/s", "memory"];
    let header: Vec<&str> = names.iter().map(|name| short(name)).chain(fixed).collect();
    let row = |point: &Point| {
        let value = |name: &&str| {
            point.values.iter().find(|(known, _)| known == name).map_or_else(dash, |(_, value)| value.clone())
        };
        let numbers = [
            point.value.map_or_else(dash, interval),
            point.difference.map_or_else(dash, interval),
            point.finished.to_string(),
            point.failed.to_string(),
            point.early.to_string(),
            thousands(point.steps as u64),
            point.speed.map_or_else(dash, |speed| thousands(speed.round() as u64)),
            point.memory.map_or_else(dash, bytes),
        ];
        names.iter().map(value).chain(numbers).collect()
    };
    Table::new("points", "Points", &header, points.iter().map(row).collect())
}

fn runs(collected: &Collected) -> Table {
    let row = |index: usize| {
        let run = &collected.results[index];
        let status = match run.status {
            Some(Status::Finished) if run.is_early => "ended early",
            Some(Status::Finished) => "finished",
            Some(Status::Failed) => "failed",
            None if run.records.training.is_empty() => "not started",
            None => "not done",
        };
        let last = run.records.training.last();
        vec![
            run.name.clone(),
            status.to_owned(),
            last.map_or_else(dash, |record| thousands(record.step as u64)),
            last.map_or_else(dash, |record| thousands(record.tokens)),
            last.and_then(|record| record.loss).map_or_else(dash, |loss| format!("{loss:.4}")),
            run.records.value(collected.metric).map_or_else(dash, |value| format!("{value:.4}")),
            run.message.clone().unwrap_or_default(),
        ]
    };
    let header =
        ["run", "state", "step", "tokens", "training loss", collected.metric.word(), "what it said at last"];
    Table::new("runs", "Runs", &header, (0..collected.results.len()).map(row).collect())
}

fn alerts(collected: &Collected) -> Table {
    let mut rows = vec![];
    for (run, alerts) in collected.results.iter().zip(&collected.alerts) {
        for alert in alerts {
            let text = |key: &str| match &alert[key] {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Null => dash(),
                other => other.to_string(),
            };
            rows.push(vec![run.name.clone(), text("step"), text("level"), text("message")]);
        }
    }
    Table::new("alerts", "Alerts", &["run", "step", "level", "message"], rows)
}

/// What repeats each run.
fn commands(collected: &Collected) -> Table {
    let row = |index: usize| {
        let run = &collected.results[index];
        let config = run.folder.join("config.toml");
        // A shell takes the path as one word.
        let quoted = format!("'{}'", config.display().to_string().replace('\'', "'\\''"));
        vec![run.name.clone(), format!("linc train {quoted} --job.dump_folder FOLDER")]
    };
    let known = (0..collected.results.len()).filter(|index| collected.configs[*index].is_some());
    Table::new("commands", "To repeat a run", &["run", "command"], known.map(row).collect())
}
