//! A folder that is written under another name and renamed when it is whole.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use linc_config::{ConfigError, Problem};
use linc_device::words::{help_to_write, reason};

use crate::{CheckpointError, io_error, sync_folder};

/// A folder that nobody sees yet; what is in it goes with it unless it is finished.
pub(super) struct Unfinished {
    partial: PathBuf,
    target: PathBuf,
    /// The folder, locked as long as it is open; none where folders cannot be.
    _lock: Option<File>,
}

impl Unfinished {
    /// Makes an empty folder beside the target.
    ///
    /// # Errors
    /// Something is at the target already, somebody else writes it, or the system refuses.
    pub(super) fn new(target: &Path) -> Result<Self, CheckpointError> {
        let name = target.file_name().map(|name| name.to_string_lossy().into_owned());
        let taken = fs::read_dir(target)
            .map_or_else(|_| fs::symlink_metadata(target).is_ok(), |mut entries| entries.next().is_some());
        let Some(name) = name.filter(|_| !taken) else {
            let message = format!("{}: there is something already, which is not replaced", target.display());
            let help = Some("name another folder with --out".to_owned());
            return Err(ConfigError::from(Problem { message, place: None, help }).into());
        };
        let partial = target.with_file_name(format!(".{name}.partial"));
        fs::create_dir_all(&partial).map_err(io_error("create", &partial))?;
        let lock = File::open(&partial).ok();
        if let Some(Err(TryLockError::WouldBlock)) = lock.as_ref().map(File::try_lock) {
            let message = format!("{}: it is being written already", target.display());
            let help = Some("wait until that is done, or name another folder with --out".to_owned());
            return Err(ConfigError::from(Problem { message, place: None, help }).into());
        }
        let unfinished = Unfinished { partial, target: target.to_path_buf(), _lock: lock };
        unfinished.empty()?;
        Ok(unfinished)
    }

    /// Removes what a run that was killed left behind.
    fn empty(&self) -> Result<(), CheckpointError> {
        let partial = &self.partial;
        for entry in fs::read_dir(partial).map_err(io_error("read", partial))?.flatten() {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(io_error("remove", &path))?;
        }
        Ok(())
    }

    /// Where files are written to.
    pub(super) fn path(&self) -> &Path {
        &self.partial
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// The system refuses, or the name was given to something else meanwhile.
    pub(super) fn finish(self) -> Result<(), CheckpointError> {
        sync_folder(&self.partial).map_err(io_error("write", &self.partial))?;
        fs::rename(&self.partial, &self.target).map_err(io_error("create", &self.target))?;
        let above = self.target.parent().filter(|above| !above.as_os_str().is_empty());
        let above = above.unwrap_or(Path::new("."));
        sync_folder(above).map_err(io_error("write", above))
    }
}

/// An error of a file of a checkpoint as one of a folder that the user names by `--out`.
pub(super) fn in_plain_words(error: CheckpointError) -> CheckpointError {
    match error {
        CheckpointError::Io { action, path, source } => {
            let message = format!("cannot {action} {}: {}", path.display(), reason(&source));
            let help = Some(format!("{} (--out)", help_to_write(&source)));
            ConfigError::from(Problem { message, place: None, help }).into()
        }
        other => other,
    }
}

/// A tensor that could be read a moment ago and no more.
pub(super) fn lost(message: String) -> CheckpointError {
    let help = Some("leave the files as they are while they are read".to_owned());
    ConfigError::from(Problem { message, place: None, help }).into()
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // A finished one is not there any more.
        let _ = fs::remove_dir_all(&self.partial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_written_by_one_at_a_time_and_empty_at_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("out");
        fs::create_dir_all(folder.path().join(".out.partial/below")).expect("what a killed run left");
        fs::write(folder.path().join(".out.partial/old"), "").expect("a file");
        let first = Unfinished::new(&target).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(fs::read_dir(first.path()).expect("a folder").count(), 0);
        fs::write(first.path().join("file"), "mine").expect("written");
        let error = Unfinished::new(&target).err().expect("refused").to_string();
        assert!(error.contains("being written already") && error.contains("--out"), "{error}");
        first.finish().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(fs::read_to_string(target.join("file")).expect("whole"), "mine");
        let error = Unfinished::new(&target).err().expect("refused").to_string();
        assert!(error.contains("there is something already"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
