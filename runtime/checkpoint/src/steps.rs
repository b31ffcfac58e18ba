//! The `step-N` of a folder: which there are, and how one is removed or replaced without ever being seen in parts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::io_error;
use crate::shards::names;
use crate::write::{CHECKSUMS_FILE, record};
use crate::{CheckpointError, FileRecord, MODEL_FILE};

/// What becomes of a `step-N` is first given a hidden name, so that no `step-N` is ever seen in parts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hidden {
    /// Not written to the end.
    Partial,
    /// An older one, while a newer takes its place.
    Replaced,
    /// Not deleted to the end.
    Removed,
}

impl Hidden {
    const ALL: [Hidden; 3] = [Hidden::Partial, Hidden::Replaced, Hidden::Removed];

    pub(crate) fn path(self, folder: &Path, step: usize) -> PathBuf {
        let word = match self {
            Hidden::Partial => "partial",
            Hidden::Replaced => "replaced",
            Hidden::Removed => "removed",
        };
        folder.join(format!(".step-{step}.{word}"))
    }
}

pub(crate) fn step_path(folder: &Path, step: usize) -> PathBuf {
    folder.join(format!("step-{step}"))
}

/// The number in a name such as `step-12`, if linc would write it so: `step-012`, `step-+12` or `step-12.bak` are names
/// that somebody else gave.
fn step_of(name: &str) -> Option<usize> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (name == format!("step-{step}")).then_some(step)
}

/// Whether a path has the name of a checkpoint, whatever is there.
pub fn is_named_so(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| step_of(name).is_some())
}

/// Puts a folder of checkpoints in order after a run that was killed: a checkpoint that was to be replaced is there
/// again, and what was not written or deleted to the end is gone. Only the run that holds the folder may do so. What
/// cannot be removed is in nobody's way.
pub fn clean(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let path = folder.join(&name);
        let step = name.strip_prefix('.').and_then(|n| step_of(n.rsplit_once('.')?.0));
        let Some(step) = step else { continue };
        let Some(hidden) = Hidden::ALL.into_iter().find(|h| h.path(folder, step) == path) else { continue };
        // Killed between the two renames of a replacement, there would be no checkpoint of that step.
        let back = hidden == Hidden::Replaced && !step_path(folder, step).exists();
        let _ = if back { fs::rename(&path, step_path(folder, step)) } else { fs::remove_dir_all(&path) };
    }
}

/// Steps of the checkpoints in a folder, ascending; none if there is no folder.
pub fn steps(folder: &Path) -> Vec<usize> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let steps = names.filter_map(|name| step_of(&name)).filter(|step| step_path(folder, *step).is_dir());
    let mut steps: Vec<usize> = steps.collect();
    steps.sort_unstable();
    steps
}

/// The newest checkpoint in the folder of `path`, a `step-N`, that is another and whole.
pub(crate) fn newest_whole(path: &Path) -> Option<PathBuf> {
    let folder = path.parent()?;
    let others =
        steps(folder).into_iter().rev().map(|step| step_path(folder, step)).filter(|other| other != path);
    others.into_iter().find(|other| is_whole(other))
}

/// Whether a checkpoint has all files as they were written, without saying what is wrong with them.
fn is_whole(path: &Path) -> bool {
    let text = fs::read(path.join(CHECKSUMS_FILE)).ok();
    let files = text.and_then(|text| serde_json::from_slice::<BTreeMap<String, FileRecord>>(&text).ok());
    files.filter(|files| names(files, MODEL_FILE).is_some()).is_some_and(|files| {
        files.iter().all(|(name, expected)| {
            record::<CheckpointError>(&path.join(name), &mut |_| Ok(())).is_ok_and(|found| found == *expected)
        })
    })
}

/// Path of step `step` in a folder, of the newest for -1; `None` for -1 in a folder without checkpoints.
///
/// # Errors
/// [`CheckpointError::Missing`] if that step was not saved, with those that were.
pub fn find(folder: &Path, step: i64) -> Result<Option<PathBuf>, CheckpointError> {
    let steps = steps(folder);
    let Ok(wanted) = usize::try_from(step) else {
        return Ok(steps.last().map(|step| step_path(folder, *step)));
    };
    if steps.contains(&wanted) {
        return Ok(Some(step_path(folder, wanted)));
    }
    let there: Vec<String> = steps.iter().map(usize::to_string).collect();
    let message = match there.is_empty() {
        true => {
            format!("checkpoint.load_step is {wanted}, but there are no checkpoints in {}", folder.display())
        }
        false => format!(
            "checkpoint.load_step is {wanted}, but {} has the steps {}",
            folder.display(),
            there.join(", ")
        ),
    };
    let help = match there.is_empty() {
        true => {
            "name the folder of the run that has it: --job.dump_folder DIR; leave load_step out for a new run"
        }
        false => "name one of these; leave it out for the newest",
    };
    Err(CheckpointError::Missing { message, help: help.to_owned() })
}

/// Removes all but the newest `keep` checkpoints up to `step`, the one that was just saved; 0 keeps all. `since` is the step of the
/// one before it, or that the run began with: what lies between the two is of a run that went further before it was resumed
/// at an earlier step, and this one has passed it, so it goes first. Later ones are of such a run too, but not passed yet.
///
/// # Errors
/// [`CheckpointError::Io`] if one cannot be removed.
pub fn purge(folder: &Path, keep: usize, since: usize, step: usize) -> Result<(), CheckpointError> {
    if keep == 0 {
        return Ok(());
    }
    let (passed, own): (Vec<usize>, Vec<usize>) =
        steps(folder).into_iter().filter(|s| *s <= step).partition(|s| (since + 1..step).contains(s));
    for step in passed.iter().chain(&own[..own.len().saturating_sub(keep)]) {
        let (path, removed) = (step_path(folder, *step), Hidden::Removed.path(folder, *step));
        fs::rename(&path, &removed)
            .and_then(|()| fs::remove_dir_all(&removed))
            .map_err(io_error("remove", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open;

    #[test]
    fn a_checkpoint_that_is_not_there_names_the_newest_beside_it() {
        let folder = folder_with(&["step-3", "step-20"]);
        let missing = open(&folder.path().join("step-999")).expect_err("missing").to_string();
        let newest = folder.path().join("step-20").display().to_string();
        assert!(
            missing.contains("no such folder") && missing.contains(&format!("beside it is {newest}")),
            "{missing}"
        );
        let missing = open(&folder.path().join("none/step-1")).expect_err("missing").to_string();
        assert!(missing.contains("none either; name a step-N folder"), "{missing}");
    }

    /// The names in a folder, sorted.
    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for name in names {
            fs::create_dir(folder.path().join(name)).expect("a folder");
            fs::write(folder.path().join(name).join("file"), name).expect("a file");
        }
        folder
    }

    #[test]
    fn only_names_that_linc_writes_are_checkpoints() {
        let foreign = ["step-007", "step-+8", "step-3.bak", "step-12 copy", "step-", "step-9x", "Step-4"];
        let folder = folder_with(&[&["step-0", "step-2", "step-5"], &foreign[..]].concat());
        fs::write(folder.path().join("step-99"), "a file").expect("a file");
        assert_eq!(steps(folder.path()), [0, 2, 5]);
        assert_eq!(find(folder.path(), -1).expect("found"), Some(folder.path().join("step-5")));
        assert!(find(folder.path(), 7).is_err(), "step-007 is not step 7");
        purge(folder.path(), 1, 2, 5).expect("purged");
        let mut left = [&["step-5", "step-99"], &foreign[..]].concat();
        left.sort_unstable();
        assert_eq!(names(folder.path()), left);
    }

    #[test]
    fn what_a_run_has_passed_of_an_earlier_one_goes_before_its_own() {
        let folder = folder_with(&["step-2", "step-4", "step-6", "step-7", "step-8", "step-9"]);
        // It was resumed at step 4.
        purge(folder.path(), 2, 4, 8).expect("purged");
        assert_eq!(steps(folder.path()), [4, 8, 9]);
        purge(folder.path(), 0, 4, 9).expect("all are kept");
        assert_eq!(steps(folder.path()), [4, 8, 9]);
    }

    #[test]
    fn what_a_killed_run_left_is_cleaned_and_nothing_else() {
        let foreign =
            [".step-1.bak", ".step-01.partial", ".step-2.partial.old", ".step-x.removed", "step-3.partial"];
        let leftovers = [".step-1.partial", ".step-2.removed", ".step-4.replaced", ".step-6.replaced"];
        let folder = folder_with(&[&["step-4"], &leftovers[..], &foreign[..]].concat());
        clean(folder.path());
        let mut left = [&["step-4", "step-6"], &foreign[..]].concat();
        left.sort_unstable();
        assert_eq!(names(folder.path()), left);
        // The newer of two stays; the only one of a step is there again.
        let content = |name: &str| fs::read_to_string(folder.path().join(name).join("file")).expect("a file");
        assert_eq!((content("step-4").as_str(), content("step-6").as_str()), ("step-4", ".step-6.replaced"));
    }
}
