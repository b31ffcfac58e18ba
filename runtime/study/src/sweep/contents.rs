//! The list of a sweep's runs in its folder, by which a report finds them.

use std::fs;
use std::path::Path;

use linc_config::{DeValue, Setting as _};
use serde::{Deserialize, Serialize};

use super::{Metric, Sweep};
use crate::error::{StudyError, file};

/// The name of the file.
const FILE: &str = "sweep.json";

/// What is in the folder of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// What its runs are compared by, as `sweep.metric` says it.
    metric: String,
    /// Name and varied settings of each run, in the order of the sweep.
    pub runs: Vec<(String, Vec<(String, String)>)>,
}

impl Contents {
    pub(super) fn of(sweep: &Sweep) -> Contents {
        let runs = sweep.runs.iter().map(|run| (run.name.clone(), run.values.clone())).collect();
        Contents { metric: sweep.settings.metric.word().to_owned(), runs }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), StudyError> {
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        linc_device::write_entry(&path, &[text.as_bytes(), b"\n"]).map_err(file("write", &path))
    }

    /// Reads what a sweep wrote; nothing where there is no sweep.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn read(folder: &Path) -> Result<Option<Contents>, StudyError> {
        let path = folder.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file("read", &path)(error)),
        };
        let contents: Contents = serde_json::from_slice(&text).map_err(|error| StudyError::Nothing {
            message: format!("{} is damaged: {error}", path.display()),
            help: "the sweep writes it again: linc sweep with the same file".to_owned(),
        })?;
        // A name is the last part of a path, and leads nowhere else.
        let is_name =
            |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
        match contents.runs.iter().find(|(name, _)| !is_name(name)) {
            Some((name, _)) => Err(StudyError::Nothing {
                message: format!("{} names {name:?}, which is no run", path.display()),
                help: "the sweep writes it again: linc sweep with the same file".to_owned(),
            }),
            None => Ok(Some(contents)),
        }
    }

    /// What runs are compared by; the loss on validation data where it says something unknown.
    pub fn metric(&self) -> Metric {
        Metric::from_toml(&DeValue::String(self.metric.as_str().into())).unwrap_or(Metric::ValidationLoss)
    }
}
