//! The files of the workspace, for the tests that read sources.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the workspace.
#[derive(Clone, Debug)]
pub struct TextFile {
    /// Path from the root, `/` between its parts.
    pub path: String,
    /// Contents.
    pub text: String,
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file of the workspace by its path from the root.
///
/// # Panics
/// If it cannot be read: the tests that ask for it cannot go on.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All text files of the workspace, sorted by path, without build outputs and hidden folders other than `.ci`.
///
/// # Panics
/// If a folder cannot be read.
pub fn files() -> Vec<TextFile> {
    let mut files = vec![];
    collect(&root(), "", &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// The Rust files among [`files`].
pub fn rust_files() -> Vec<TextFile> {
    files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<TextFile>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let Ok(name) = entry.file_name().into_string() else { continue };
        let hidden = name.starts_with('.') && name != ".ci" && name != ".gitignore";
        if hidden || matches!(name.as_str(), "target" | "outputs") {
            continue;
        }
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&entry.path(), &path, files),
            Ok(kind) if kind.is_file() => {
                // What is not UTF-8 is data, not text.
                if let Ok(text) = fs::read_to_string(entry.path()) {
                    files.push(TextFile { path, text });
                }
            }
            _ => {}
        }
    }
}
