//! How a run of a sweep ended, kept beside the runs so that it is not done again.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Run, Sweep};
use crate::error::{StudyError, file};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It did all that it was asked for.
    Finished,
    /// It ended with an error.
    Failed,
}

/// What is known of a run that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The run's name.
    pub run: String,
    /// How it ended.
    pub status: Status,
    /// Steps that it was to do: fewer than its config has where the sweep ended it early.
    pub steps: usize,
    /// The settings that the sweep varies.
    pub values: Vec<(String, String)>,
    /// What it said at last, if it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// Seconds that its processes took, of those starts that ended.
    pub seconds: f64,
}

impl Outcome {
    /// What is known of a run.
    pub(super) fn of(sweep: &Sweep, run: &Run) -> Option<Outcome> {
        Outcome::read(&sweep.folder, &run.name)
    }

    /// What a sweep's folder says of a run; nothing if it has not ended, or what it says cannot be read.
    pub fn read(folder: &Path, run: &str) -> Option<Outcome> {
        let text = fs::read(folder.join("outcomes").join(format!("{run}.json"))).ok()?;
        serde_json::from_slice(&text).ok().filter(|outcome: &Outcome| outcome.run == run)
    }

    /// Removes what is known of a run.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) fn forget(sweep: &Sweep, run: &Run) -> Result<(), StudyError> {
        let path = sweep.folder.join("outcomes").join(format!("{}.json", run.name));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file("remove", &path)(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Keeps it.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) fn write(&self, sweep: &Sweep) -> Result<(), StudyError> {
        let path = sweep.folder.join("outcomes").join(format!("{}.json", self.run));
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        linc_device::write_entry(&path, &[text.as_bytes(), b"\n"]).map_err(file("write", &path))
    }
}
