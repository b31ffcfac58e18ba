//! What to name instead of a folder that is no checkpoint.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{CHECKSUMS_FILE, hugging_face, step_path, steps};

/// What is there where a checkpoint was looked for, and what to name.
pub(crate) fn of(path: &Path) -> (String, String) {
    let newest = |folder: &Path| {
        let within = [folder.to_path_buf(), folder.join("checkpoint")];
        within.iter().find_map(|folder| Some(step_path(folder, *steps(folder).last()?)))
    };
    if let Some(newest) = newest(path) {
        return ("it holds checkpoints".to_owned(), format!("the newest is {}", newest.display()));
    }
    const NAME: &str = "name a step-N folder of a run's checkpoint folder";
    if path.join(hugging_face::CONFIG).is_file() {
        let help = format!("make a checkpoint of it: linc import {}", path.display());
        return ("it is a folder of Hugging Face".to_owned(), help);
    }
    if path.is_dir() {
        // A folder of runs, or a folder of a checkpoint that was not written to its end.
        let below = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut runs: Vec<PathBuf> = below.filter_map(|run| newest(&run)).collect();
        runs.sort();
        return match runs.first() {
            Some(first) => {
                ("it holds runs".to_owned(), format!("one of their checkpoints is {}", first.display()))
            }
            None => (format!("it has no {CHECKSUMS_FILE}"), NAME.to_owned()),
        };
    }
    if path.exists() {
        let beside = path.parent().filter(|folder| folder.join(CHECKSUMS_FILE).is_file());
        let help =
            beside.map_or_else(|| NAME.to_owned(), |folder| format!("name its folder, {}", folder.display()));
        return ("it is a file".to_owned(), help);
    }
    ("there is no such folder".to_owned(), what_beside(path))
}

/// What to name instead of a checkpoint that is not there.
fn what_beside(path: &Path) -> String {
    let folder = path.parent().unwrap_or(Path::new(""));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match steps(folder).last() {
        Some(newest) => {
            format!("the newest checkpoint beside it is {}", step_path(folder, *newest).display())
        }
        None if folder.is_dir() => {
            format!("there are no checkpoints in {} either; name a step-N folder", folder.display())
        }
        None => format!(
            "there is no folder {} either; name a step-N folder of a run's checkpoint folder",
            folder.display()
        ),
    }
}
