//! Files that the compiler makes, in a folder of their own: one program's, never two programs' mixed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use linc_device::words::{help_to_read, help_to_write, reason};
use thiserror::Error;

/// Lists what linc wrote into a folder, so that it can replace just that.
const LIST: &str = "files.txt";

const HEADER: &str =
    "# Written by linc, which replaces these files; any others in this folder are not its own.";

/// Why files cannot be written.
#[derive(Debug, Error)]
pub enum OutputError {
    /// The system refuses.
    #[error("cannot {action} {}: {}\n  help: {}", path.display(), reason(source), help(action, source))]
    Io {
        /// `create`, `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The folder holds what may be somebody's.
    #[error(
        "{} has a {taken} that is not known to be of linc: it has no {LIST} beside it\n  help: name an empty folder, or remove this one",
        folder.display()
    )]
    Taken {
        /// Where the caller wants to write.
        folder: PathBuf,
        /// The name that linc would write and did not.
        taken: String,
    },
}

fn help(action: &str, error: &io::Error) -> String {
    match action {
        "read" => help_to_read(error).to_owned(),
        _ => format!("{} (job.dump_folder, or --out of linc compile)", help_to_write(error)),
    }
}

/// Writes files, named by paths relative to the folder, in place of those that linc wrote there before.
///
/// # Errors
/// [`OutputError::Taken`] if the folder holds files under these names, or in these subfolders, that linc does not know
/// to be its own; [`OutputError::Io`] for what cannot be written.
pub fn write_files(folder: &Path, files: &[(&str, &[u8])]) -> Result<(), OutputError> {
    let new: BTreeSet<&str> = files.iter().map(|(path, _)| *path).collect();
    let old = own_files(folder, &new)?;
    fs::create_dir_all(folder).map_err(output("create", folder))?;
    // Whenever this ends early, all that is there is on the list.
    write_list(folder, old.iter().map(String::as_str).chain(new.iter().copied()).collect())?;
    for path in old.iter().filter(|path| !new.contains(path.as_str())) {
        remove(folder, path)?;
    }
    for (path, contents) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(output("create", parent))?;
        }
        fs::write(&path, contents).map_err(output("write", &path))?;
    }
    write_list(folder, new)
}

/// Whether [`write_files`] would refuse a folder for files of these paths, without writing anything.
///
/// # Errors
/// [`OutputError::Taken`] or [`OutputError::Io`], as there.
pub fn check_folder(folder: &Path, paths: &[&str]) -> Result<(), OutputError> {
    own_files(folder, &paths.iter().copied().collect()).map(|_| ())
}

/// The paths of the files that linc wrote into a folder, in which files of the `new` paths are to be.
fn own_files(folder: &Path, new: &BTreeSet<&str>) -> Result<BTreeSet<String>, OutputError> {
    match fs::read_to_string(folder.join(LIST)) {
        Ok(text) => Ok(listed(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            check_free(folder, new)?;
            Ok(BTreeSet::new())
        }
        Err(error) => Err(output("read", &folder.join(LIST))(error)),
    }
}

fn write_list(folder: &Path, paths: BTreeSet<&str>) -> Result<(), OutputError> {
    let mut text = format!("{HEADER}\n");
    for path in paths {
        text.push_str(path);
        text.push('\n');
    }
    let list = folder.join(LIST);
    fs::write(&list, text).map_err(output("write", &list))
}

/// The paths of a list; none that leads out of the folder, whoever wrote it.
fn listed(text: &str) -> BTreeSet<String> {
    let inside = |path: &&str| {
        let mut parts = Path::new(path).components();
        !path.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter(inside).map(str::to_string).collect()
}

/// Removes a file that linc wrote, and its subfolder if nothing is left in it.
fn remove(folder: &Path, path: &str) -> Result<(), OutputError> {
    let file = folder.join(path);
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(output("remove", &file)(error)),
        Ok(()) | Err(_) => {}
    }
    // Refused where there is something else.
    if let Some(parent) = file.parent().filter(|parent| *parent != folder) {
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

/// Refuses a folder without a list where something is already that is named like one of the files or their subfolders.
fn check_free(folder: &Path, paths: &BTreeSet<&str>) -> Result<(), OutputError> {
    let tops: BTreeSet<&str> = paths.iter().filter_map(|path| path.split('/').next()).collect();
    let Some(taken) = tops.into_iter().find(|top| fs::symlink_metadata(folder.join(top)).is_ok()) else {
        return Ok(());
    };
    Err(OutputError::Taken { folder: folder.to_path_buf(), taken: taken.to_owned() })
}

/// The error of a file that cannot be read or written.
pub fn output(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OutputError {
    let path: PathBuf = path.to_path_buf();
    move |source| OutputError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files_below(folder: &Path) -> Vec<String> {
        let mut found = vec![];
        let mut folders = vec![folder.to_path_buf()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).expect("a folder") {
                let path = entry.expect("an entry").path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => found.push(path.strip_prefix(folder).expect("inside").display().to_string()),
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn files_of_the_program_before_go_and_others_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("d");
        let first: [(&str, &[u8]); 3] =
            [("graph/00-build.ir", b"a"), ("graph/01-loss.ir", b"b"), ("plan.json", b"{}")];
        write_files(&folder, &first).expect("an empty folder");
        fs::create_dir(folder.join("mine")).expect("made");
        fs::write(folder.join("mine/notes.md"), "x").expect("written");
        fs::write(folder.join("graph/mine.md"), "x").expect("written");
        let second: [(&str, &[u8]); 2] = [("graph/00-build.ir", b"c"), ("kernels/k.tile", b"d")];
        write_files(&folder, &second).expect("its own folder");
        assert_eq!(
            files_below(&folder),
            ["files.txt", "graph/00-build.ir", "graph/mine.md", "kernels/k.tile", "mine/notes.md"]
        );
        assert_eq!(fs::read(folder.join("graph/00-build.ir")).expect("a file"), b"c");
        let third: [(&str, &[u8]); 1] = [("plan.json", b"{}")];
        write_files(&folder, &third).expect("its own folder");
        assert_eq!(files_below(&folder), ["files.txt", "graph/mine.md", "mine/notes.md", "plan.json"]);
        assert!(!folder.join("kernels").exists());
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused_and_untouched() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("graph")).expect("made");
        fs::write(folder.path().join("graph/02-attention.ir"), "x").expect("written");
        let files: [(&str, &[u8]); 1] = [("graph/00-build.ir", b"a")];
        let refused = write_files(folder.path(), &files).expect_err("not linc's").to_string();
        assert!(
            refused.contains("has a graph") && refused.contains("help: name an empty folder"),
            "{refused}"
        );
        assert_eq!(files_below(folder.path()), ["graph/02-attention.ir"]);
        // What has other names is not in the way.
        let files: [(&str, &[u8]); 1] = [("plan.json", b"{}")];
        write_files(folder.path(), &files).expect("nothing of that name");
    }

    #[test]
    fn a_list_removes_nothing_outside() {
        let outer = tempfile::tempdir().expect("a folder");
        let folder = outer.path().join("d");
        fs::create_dir(&folder).expect("made");
        fs::write(outer.path().join("kept"), "x").expect("written");
        let absolute = outer.path().join("kept");
        fs::write(folder.join(LIST), format!("../kept\n{}\ngraph/../../kept\n\n", absolute.display()))
            .expect("written");
        write_files(&folder, &[("plan.json", b"{}")]).expect("written");
        assert!(absolute.exists());
    }
}
