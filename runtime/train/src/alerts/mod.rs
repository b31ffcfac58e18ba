//! Alerts: what a person would want to be told of a run that nobody watches. [`detect`] finds it, this module says it, to the
//! console, to `alerts.jsonl` and to a command of the user, each kind no more often than its cool-down.

mod command;
mod detect;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::{AlertLevel, Alerts};
use crate::metrics::{Record, since_1970};

use command::Hook;
use detect::Detectors;

/// What an alert is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AlertKind {
    /// The loss or the gradients of a step are not finite.
    NonFinite,
    /// The loss is far above what it was.
    LossSpike,
    /// Steps wait for data.
    StalledData,
    /// Fewer tokens a second than before.
    Slow,
    /// The machine has hardly any memory left.
    Memory,
}

impl AlertLevel {
    /// From 0, the least.
    fn rank(self) -> u8 {
        match self {
            AlertLevel::Info => 0,
            AlertLevel::Warn => 1,
            AlertLevel::Error => 2,
        }
    }
}

impl AlertKind {
    fn word(self) -> &'static str {
        match self {
            AlertKind::NonFinite => "non_finite",
            AlertKind::LossSpike => "loss_spike",
            AlertKind::StalledData => "stalled_data",
            AlertKind::Slow => "slow",
            AlertKind::Memory => "memory",
        }
    }
}

/// Something worth saying.
#[derive(Clone, PartialEq, Debug)]
pub struct Alert {
    /// How bad it is.
    pub level: AlertLevel,
    /// What it is about.
    pub kind: AlertKind,
    /// The step that it was seen at.
    pub step: usize,
    /// A sentence for people.
    pub message: String,
}

/// Watches over a run and says what it finds.
#[derive(Debug)]
pub(crate) struct Monitor {
    settings: Alerts,
    detectors: Detectors,
    path: PathBuf,
    /// Made with the first alert.
    file: Option<File>,
    hook: Option<Hook>,
    /// The last alert of each kind: its level and when.
    said: BTreeMap<AlertKind, (AlertLevel, Instant)>,
}

impl Monitor {
    /// Of a run that writes to `folder`.
    pub(crate) fn new(settings: &Alerts, folder: &Path) -> Self {
        let hook = (!settings.command.is_empty()).then(|| {
            let limit = Duration::from_secs_f64(settings.command_timeout_seconds.min(1e9));
            Hook::new(settings.command.clone(), folder, limit)
        });
        Monitor {
            detectors: Detectors::new(settings),
            settings: settings.clone(),
            path: folder.join("alerts.jsonl"),
            file: None,
            hook,
            said: BTreeMap::new(),
        }
    }

    /// Looks at a step's loss.
    pub(crate) fn step(&mut self, step: usize, loss: f64) -> io::Result<Vec<String>> {
        let found = self.detectors.step(step, loss);
        self.say_all(found)
    }

    /// Looks at the record of some steps; `free` is the share of the machine's memory that is left, if that is known.
    pub(crate) fn record(&mut self, record: &Record, free: Option<f64>) -> io::Result<Vec<String>> {
        let found = self.detectors.record(record, free);
        self.say_all(found)
    }

    /// Says an alert that was found elsewhere.
    pub(crate) fn say(&mut self, alert: Alert) -> io::Result<Vec<String>> {
        self.say_all(vec![alert])
    }

    /// Whether an alert of its kind was said a moment ago. What is worse than that one is said all the same: the end of a run
    /// comes after warnings of what it ends by.
    fn is_hot(&self, alert: &Alert, pause: Duration) -> bool {
        let said = self.said.get(&alert.kind);
        said.is_some_and(|(level, last)| last.elapsed() < pause && alert.level.rank() <= level.rank())
    }

    /// Lines for the console: of the alerts that have cooled down, and of what became of the user's command.
    fn say_all(&mut self, found: Vec<Alert>) -> io::Result<Vec<String>> {
        let mut lines = vec![];
        let pause = Duration::from_secs_f64(self.settings.cooldown_seconds.min(1e9));
        for alert in found {
            if !self.settings.enable || self.is_hot(&alert, pause) {
                continue;
            }
            self.said.insert(alert.kind, (alert.level, Instant::now()));
            self.append(&alert)?;
            lines.push(format!("Alert ({}): {}", alert.level.word(), alert.message));
            if let Some(hook) =
                self.hook.as_mut().filter(|_| alert.level.rank() >= self.settings.command_level.rank())
            {
                lines.extend(hook.run(&alert));
            }
        }
        lines.extend(self.hook.as_mut().into_iter().flat_map(Hook::ended));
        Ok(lines)
    }

    fn append(&mut self, alert: &Alert) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(OpenOptions::new().create(true).append(true).open(&self.path)?);
        }
        let line = serde_json::json!({
            "time": since_1970().as_secs_f64(),
            "step": alert.step,
            "level": alert.level.word(),
            "kind": alert.kind.word(),
            "message": alert.message,
        });
        match &mut self.file {
            Some(file) => file.write_all(format!("{line}\n").as_bytes()),
            None => Ok(()),
        }
    }

    /// Where alerts are written, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives commands that still run `limit` at most from now on; what [`Monitor::finish`] is going to wait for, if there is any.
    pub(crate) fn begin_to_finish(&mut self, limit: Duration) -> Option<String> {
        self.hook.as_mut()?.begin_to_finish(limit)
    }

    /// Waits for commands that still run, until their time is over; what became of them.
    pub(crate) fn finish(&mut self) -> Vec<String> {
        self.hook.as_mut().map(Hook::finish).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(kind: AlertKind, step: usize) -> Alert {
        Alert { level: AlertLevel::Warn, kind, step, message: format!("{} at {step}", kind.word()) }
    }

    #[test]
    fn each_kind_cools_down_by_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut monitor = Monitor::new(&Alerts::default(), folder.path());
        let mut say = |kind, step| monitor.say(alert(kind, step)).expect("written").len();
        assert_eq!(say(AlertKind::Slow, 1), 1);
        assert_eq!(say(AlertKind::Slow, 2), 0);
        assert_eq!(say(AlertKind::Memory, 2), 1);
        let text = std::fs::read_to_string(folder.path().join("alerts.jsonl")).expect("a file");
        let kinds: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(kinds.len(), 2);
        assert_eq!((&kinds[1]["kind"], &kinds[1]["level"]), (&"memory".into(), &"warn".into()));
        assert!(kinds[0]["time"].as_f64() > Some(1.7e9));
    }

    #[test]
    fn what_is_worse_does_not_wait() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut monitor = Monitor::new(&Alerts::default(), folder.path());
        let mut say = |level| {
            let alert = Alert { level, ..alert(AlertKind::NonFinite, 1) };
            monitor.say(alert).expect("written").len()
        };
        let levels = [AlertLevel::Warn, AlertLevel::Error, AlertLevel::Error, AlertLevel::Warn];
        assert_eq!(levels.map(&mut say), [1, 1, 0, 0]);
    }

    #[test]
    fn without_a_cool_down_all_is_said_and_switched_off_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Alerts { cooldown_seconds: 0.0, ..Alerts::default() };
        let mut monitor = Monitor::new(&settings, folder.path());
        for step in 0..3 {
            assert_eq!(monitor.say(alert(AlertKind::Slow, step)).expect("written").len(), 1);
        }
        let mut off = Monitor::new(&Alerts { enable: false, ..settings }, folder.path());
        assert!(off.say(alert(AlertKind::Slow, 3)).expect("nothing").is_empty());
    }
}
