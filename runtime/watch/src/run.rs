//! One run: what its folder tells.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use linc_train::config::JobConfig;
use linc_train::metrics::{Kind, Record};
use serde_json::Value;

use crate::error::WatchError;
use crate::lines::Lines;

/// Records of steps, the first of what a run's folder has.
pub(crate) const METRICS: &str = "metrics.jsonl";

/// A run that wrote nothing for so long, and for as many of its records, does not seem to go on.
const SILENT: Duration = Duration::from_secs(30);
const SILENT_RECORDS: f64 = 5.0;

/// Whether a run goes on, as far as its files tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It has written nothing yet.
    Waiting,
    /// It wrote a moment ago.
    Running,
    /// All of its steps are done.
    Finished,
    /// It has not written for longer than it should take.
    Silent,
}

impl Status {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Status::Waiting => "waiting",
            Status::Running => "running",
            Status::Finished => "finished",
            Status::Silent => "silent",
        }
    }
}

/// Something out of the ordinary that a run told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Alert {
    pub(crate) step: u64,
    pub(crate) level: String,
    pub(crate) message: String,
}

/// A run and what was read of it.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) folder: PathBuf,
    metrics: Lines,
    alert_lines: Lines,
    /// Of training steps, ascending.
    pub(crate) records: Vec<Record>,
    /// Of validations, ascending.
    pub(crate) validations: Vec<Record>,
    /// The step of the last evaluation; 0 before there is one.
    evaluated: usize,
    pub(crate) alerts: Vec<Alert>,
    /// Steps that it is to do, if its config says.
    pub(crate) steps: Option<usize>,
    /// What it trains, in a line.
    pub(crate) model: String,
    /// When it wrote last.
    written: Option<SystemTime>,
}

impl Run {
    pub(crate) fn new(folder: &Path) -> Run {
        Run {
            folder: folder.to_path_buf(),
            metrics: Lines::new(folder.join(METRICS)),
            alert_lines: Lines::new(folder.join("alerts.jsonl")),
            records: vec![],
            validations: vec![],
            evaluated: 0,
            alerts: vec![],
            steps: None,
            model: String::new(),
            written: None,
        }
    }

    /// Reads what is new.
    pub(crate) fn update(&mut self) -> Result<(), WatchError> {
        let unreadable = |lines: &Lines| {
            let path = lines.path().clone();
            move |error| WatchError::Unreadable { path, error }
        };
        let new = self.metrics.read().map_err(unreadable(&self.metrics))?;
        if new.anew {
            self.records.clear();
            self.validations.clear();
            self.evaluated = 0;
        }
        if new.anew || !new.lines.is_empty() || self.model.is_empty() {
            self.describe();
        }
        // A line that is no record, as one that a crash cut off, is passed over.
        for record in new.lines.iter().filter_map(|line| serde_json::from_str::<Record>(line).ok()) {
            match record.kind() {
                Kind::Training => self.records.push(record),
                Kind::Validation => self.validations.push(record),
                // It tells nothing but that its step is done.
                Kind::Evaluation => self.evaluated = record.step,
            }
        }
        let new = self.alert_lines.read().map_err(unreadable(&self.alert_lines))?;
        if new.anew {
            self.alerts.clear();
        }
        self.alerts.extend(new.lines.iter().filter_map(|line| alert(line)));
        self.written = fs::metadata(self.metrics.path()).and_then(|about| about.modified()).ok();
        Ok(())
    }

    /// What stands in the config and, once there is one, in a checkpoint.
    fn describe(&mut self) {
        let config = fs::read_to_string(self.folder.join("config.toml")).ok();
        let Some(config) = config.and_then(|text| JobConfig::of_run(&text)) else { return };
        self.steps = Some(config.training.steps);
        let checkpoints = self.folder.join(&config.checkpoint.folder);
        let newest = linc_checkpoint::find(&checkpoints, -1).ok().flatten();
        self.model = match newest.and_then(|path| linc_checkpoint::describe(&path).ok()) {
            Some(state) => {
                let letters = |kind: &String| kind.chars().next().map(|letter| letter.to_ascii_uppercase());
                let layers: String = state.model.layers.iter().filter_map(letters).collect();
                format!("{} {}, layers {}", state.model.name, state.model.flavor, grouped(&layers))
            }
            None => {
                let ratio = config.model.linear_attn_ratio;
                let ratio = ratio.map_or_else(|| "0".to_owned(), |ratio| ratio.to_string());
                let placement = &config.model.linear_attn_placement;
                format!("{} {}, linear ratio {ratio} ({placement})", config.model.name, config.model.flavor)
            }
        };
    }

    /// The last step that is known to be done.
    pub(crate) fn step(&self) -> usize {
        let last = |records: &[Record]| records.last().map_or(0, |record| record.step);
        last(&self.records).max(last(&self.validations)).max(self.evaluated)
    }

    pub(crate) fn status(&self, now: SystemTime) -> Status {
        if self.records.is_empty() && self.validations.is_empty() && self.evaluated == 0 {
            return Status::Waiting;
        }
        if self.steps.is_some_and(|steps| self.step() >= steps) {
            return Status::Finished;
        }
        let silent = self.written.and_then(|written| now.duration_since(written).ok()).unwrap_or_default();
        let usual = self.record_time().unwrap_or_default() * SILENT_RECORDS;
        match silent > SILENT && silent.as_secs_f64() > usual {
            true => Status::Silent,
            false => Status::Running,
        }
    }

    /// Seconds between the last two records.
    fn record_time(&self) -> Option<f64> {
        let [.., before, last] = &self.records[..] else { return None };
        Some((last.step - before.step.min(last.step)) as f64 * last.step_ms? / 1e3)
    }

    /// The health of linear layers, as they were looked at last: the least and the most of all layers.
    pub(crate) fn linear_layers(&self) -> Option<String> {
        let record = self.records.iter().rfind(|record| !record.linear_attention.is_empty())?;
        let range = |measure: &str, words: &str, factor: f64, unit: &str| {
            let of = record.linear_attention.iter().filter(|(name, _)| name.ends_with(measure));
            let values: Vec<f64> = of.map(|(_, value)| factor * value).collect();
            let least = values.iter().copied().min_by(f64::total_cmp)?;
            let most = values.iter().copied().max_by(f64::total_cmp)?;
            let [least, most] = [least, most].map(|value| format!("{value:.1}"));
            let range = if least == most { most } else { format!("{least} to {most}") };
            Some(format!("{words} {range}{unit}"))
        };
        let ranges = [
            range("/effective_positions", "effective positions", 1.0, ""),
            range("/effective_features", "effective features", 1.0, ""),
            range("/fast_path_rate", "fast path", 100.0, " %"),
        ];
        let ranges: Vec<String> = ranges.into_iter().flatten().collect();
        Some(format!("{} (step {})", ranges.join(", "), record.step))
    }

    /// Seconds of the steps that are left, at the pace of the last record.
    pub(crate) fn left(&self) -> Option<f64> {
        let left = self.steps?.saturating_sub(self.step());
        Some(left as f64 * self.records.last()?.step_ms? / 1e3)
    }
}

/// Letters in groups of four, as linc shows layers.
fn grouped(letters: &str) -> String {
    let letters: Vec<char> = letters.chars().collect();
    letters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
}

fn alert(line: &str) -> Option<Alert> {
    let value: Value = serde_json::from_str(line).ok()?;
    let word = |key: &str| Some(value[key].as_str()?.to_owned());
    Some(Alert { step: value["step"].as_u64()?, level: word("level")?, message: word("message")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        fs::write(folder.join(name), text).expect("written");
    }

    #[test]
    fn a_run_is_what_its_files_say() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut run = Run::new(folder.path());
        run.update().expect("nothing yet");
        assert_eq!(run.status(SystemTime::now()), Status::Waiting);
        write(folder.path(), "config.toml", "[training]\nsteps = 30\n[model]\nlinear_attn_ratio = 0.5\n");
        let line = |step: usize, ms: f64| {
            let record = Record { loss: Some(2.0), step_ms: Some(ms), ..Record::new(step, 0) };
            serde_json::to_string(&record).expect("JSON") + "\n"
        };
        write(
            folder.path(),
            METRICS,
            &format!("{}{}no record\n{{\"step\":2", line(10, 500.0), line(20, 500.0)),
        );
        let alert =
            "{\"time\":1.0,\"step\":12,\"level\":\"warn\",\"kind\":\"slow\",\"message\":\"it is slow\"}\nx\n";
        write(folder.path(), "alerts.jsonl", alert);
        run.update().expect("read");
        assert_eq!((run.records.len(), run.step(), run.left()), (2, 20, Some(5.0)));
        assert_eq!(run.alerts, [Alert { step: 12, level: "warn".into(), message: "it is slow".into() }]);
        assert!(run.model.contains("linear ratio 0.5"), "{}", run.model);
        let now = SystemTime::now();
        assert_eq!(run.status(now), Status::Running);
        // Records come every five seconds.
        assert_eq!(run.status(now + Duration::from_secs(28)), Status::Running);
        assert_eq!(run.status(now + Duration::from_secs(60)), Status::Silent);
        write(folder.path(), METRICS, &line(30, 1.0));
        run.update().expect("read");
        assert_eq!((run.status(now + Duration::from_secs(600)), run.left()), (Status::Finished, Some(0.0)));
    }

    #[test]
    fn an_evaluation_is_no_step_of_training() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "config.toml", "[training]\nsteps = 30\n");
        let trained = Record {
            loss: Some(2.0),
            tps: Some(100.0),
            step_ms: Some(500.0),
            memory: [("state".to_owned(), 64)].into(),
            ..Record::new(20, 0)
        };
        let asked = Record { evaluation: [("mqar/acc".to_owned(), 0.25)].into(), ..Record::new(20, 0) };
        let last = Record { step: 30, ..asked.clone() };
        let lines = |records: &[&Record]| -> String {
            records.iter().map(|record| serde_json::to_string(record).expect("JSON") + "\n").collect()
        };
        let mut run = Run::new(folder.path());
        write(folder.path(), METRICS, &lines(&[&trained, &asked]));
        run.update().expect("read");
        assert_eq!(run.records, std::slice::from_ref(&trained));
        assert_eq!((run.step(), run.left()), (20, Some(5.0)));
        // Where steps are not recorded to the last, it is the evaluation that tells of the end.
        write(folder.path(), METRICS, &lines(&[&trained, &asked, &last]));
        run.update().expect("read");
        assert_eq!((run.step(), run.status(SystemTime::now())), (30, Status::Finished));
    }

    #[test]
    fn layers_are_in_groups() {
        assert_eq!(grouped("LLLSLL"), "LLLS LL");
    }
}
