//! The runs that are watched: folders that are named, and those in them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::WatchError;
use crate::run::{METRICS, Run};

/// Runs, in the order of their folders.
#[derive(Debug)]
pub struct Watched {
    named: Vec<PathBuf>,
    pub(crate) runs: Vec<Run>,
}

impl Watched {
    /// Finds and reads the runs of some folders: each is that of a run, or has folders of runs in it.
    ///
    /// # Errors
    /// [`WatchError::Missing`], [`WatchError::NoRun`], or [`WatchError::Unreadable`].
    pub fn open(named: &[PathBuf]) -> Result<Watched, WatchError> {
        for folder in named {
            if !folder.exists() {
                return Err(WatchError::Missing { folder: folder.clone() });
            }
            let is = match (folder.is_dir(), folders_of(folder).is_empty()) {
                (false, _) => "a file",
                (true, true) => "no run has written there",
                (true, false) => continue,
            };
            return Err(WatchError::NoRun { folder: folder.clone(), is });
        }
        let mut watched = Watched { named: named.to_vec(), runs: vec![] };
        watched.update()?;
        Ok(watched)
    }

    /// Reads what has been written since, runs that are new included.
    ///
    /// # Errors
    /// [`WatchError::Unreadable`].
    pub fn update(&mut self) -> Result<(), WatchError> {
        for folder in self.named.iter().flat_map(|named| folders_of(named)) {
            if self.runs.iter().all(|run| run.folder != folder) {
                self.runs.push(Run::new(&folder));
            }
        }
        self.runs.iter_mut().try_for_each(Run::update)
    }
}

/// The folders of runs that a folder means.
fn folders_of(named: &Path) -> Vec<PathBuf> {
    let is_run = |folder: &Path| folder.join(METRICS).is_file();
    if is_run(named) {
        return vec![named.to_path_buf()];
    }
    let entries = fs::read_dir(named).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| is_run(path)).collect();
    folders.sort();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_those_of_runs_or_have_some() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for run in ["runs/b", "runs/a", "runs/notes"] {
            fs::create_dir_all(at(run)).expect("a folder");
        }
        let refused = |name: &str| Watched::open(&[at(name)]).expect_err("refused").to_string();
        assert!(refused("runs").contains("no run has written there"));
        fs::write(at("runs/b/metrics.jsonl"), "").expect("a file");
        fs::write(at("runs/a/metrics.jsonl"), "").expect("a file");
        fs::write(at("runs/notes/config.toml"), "").expect("a file");
        let watched = Watched::open(&[at("runs")]).expect("runs");
        let folders: Vec<&PathBuf> = watched.runs.iter().map(|run| &run.folder).collect();
        assert_eq!(folders, [&at("runs/a"), &at("runs/b")]);
        let mut watched = Watched::open(&[at("runs/b"), at("runs")]).expect("runs");
        assert_eq!(watched.runs.len(), 2, "each once");
        fs::write(at("runs/notes/metrics.jsonl"), "").expect("a file");
        watched.update().expect("read");
        assert_eq!(watched.runs.len(), 3);
        assert!(
            refused("rusn").contains("did you mean") && refused("runs/b/metrics.jsonl").contains("a file")
        );
    }
}
