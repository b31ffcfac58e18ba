//! Where a placement is written, and that nothing is lost there: what somebody else wrote, and what an earlier placement found.

use std::path::{Path, PathBuf};

use linc_checkpoint::{describe, steps};
use serde::Deserialize;

use super::result::TABLE_START;
use crate::error::{StudyError, file};

/// The files of a placement.
#[derive(Clone, Debug)]
pub struct Target {
    /// All numbers.
    pub file: PathBuf,
    /// The hybrid and what is trained from it.
    pub folder: PathBuf,
    /// The placement that is there.
    earlier: Option<Earlier>,
}

/// What tells a placement from other files, and its hybrid from other checkpoints.
#[derive(Clone, Debug, Deserialize)]
struct Earlier {
    complete: bool,
    #[serde(rename = "linear")]
    _linear: Vec<usize>,
    #[serde(rename = "ratio")]
    _ratio: String,
    hybrid: Option<String>,
}

impl Target {
    /// The files of `out`, a name such as `outputs/place.json`.
    ///
    /// # Errors
    /// [`StudyError::Nothing`] if the name is none for such a file, or a file or folder is there that no placement wrote;
    /// [`StudyError::File`] if it cannot be read.
    pub fn new(out: &Path) -> Result<Self, StudyError> {
        let path = match out.extension() {
            Some(_) => out.to_path_buf(),
            None => out.with_extension("json"),
        };
        let folder = path.with_extension("");
        if path.extension().is_some_and(|extension| extension == "csv") || folder == path {
            let message = format!("--out is {}", out.display());
            return Err(StudyError::Nothing {
                message,
                help: "name a file such as outputs/place.json".into(),
            });
        }
        let earlier = match std::fs::read(&path) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|_| in_the_way(&path))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(file("read", &path)(error)),
        };
        let table = path.with_extension("csv");
        let is_table = || std::fs::read(&table).is_ok_and(|bytes| bytes.starts_with(TABLE_START.as_bytes()));
        if table.exists() && !is_table() {
            return Err(in_the_way(&table));
        }
        if folder.exists() && !folder.is_dir() {
            return Err(in_the_way(&folder));
        }
        Ok(Target { file: path, folder, earlier })
    }

    /// Refuses to write the hybrid of a checkpoint among others: a run goes on from the newest of its folder, and that of the
    /// same step would be replaced.
    ///
    /// # Errors
    /// [`StudyError::Nothing`].
    pub fn check(&self) -> Result<(), StudyError> {
        let written = self.earlier.as_ref().and_then(|earlier| earlier.hybrid.as_ref());
        for step in steps(&self.folder) {
            let path = self.folder.join(format!("step-{step}"));
            let found = describe(&path).ok().and_then(|state| state.weights_digest());
            if found.is_none() || found.as_ref() != written {
                return Err(in_the_way(&path));
            }
        }
        Ok(())
    }

    /// Where numbers are written that are not complete: beside those that are.
    pub fn incomplete(&self) -> PathBuf {
        match &self.earlier {
            Some(earlier) if earlier.complete => self.file.with_extension("incomplete.json"),
            _ => self.file.clone(),
        }
    }

    /// Removes what was written there before the work, once all is.
    pub fn remove_incomplete(&self) {
        let incomplete = self.incomplete();
        if incomplete != self.file {
            for path in [incomplete.with_extension("csv"), incomplete] {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

fn in_the_way(path: &Path) -> StudyError {
    StudyError::Nothing {
        message: format!("{} is there, and is nothing that linc place wrote for this --out", path.display()),
        help: "choose another --out: the hybrid is written to the folder of that name without its ending"
            .into(),
    }
}
