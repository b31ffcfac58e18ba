//! Which files a path stands for, and what their names say of them. Names need not be UTF-8.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{MOST_NAMES, unreadable};
use crate::error::DataError;

/// How a file holds documents, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The whole file is one.
    Text,
    /// Each line is one, an object.
    JsonLines,
    /// Objects in a list, or one behind the other: C4 and others call their JSON lines `.json`.
    Json,
    /// Each row is one, a column of it.
    Parquet,
}

/// Endings that the names of packed files have besides; Parquet packs its columns itself.
const PACKED: [&str; 2] = [".gz", ".zst"];

/// Names of files that hold documents as text, packed or not.
const FORMATS: [(&str, Format); 6] = [
    (".txt", Format::Text),
    (".text", Format::Text),
    (".raw", Format::Text),
    (".jsonl", Format::JsonLines),
    (".ndjson", Format::JsonLines),
    (".json", Format::Json),
];

/// Names of files that are no text, or not as they are, and what to do with them.
const OTHERS: [(&[&str], &str); 5] = [
    (&[".parquet.gz", ".parquet.zst"], "unpack it, as .parquet: it packs its columns itself"),
    (
        &[".arrow", ".feather", ".csv", ".tsv", ".xlsx"],
        "write its rows as JSON lines, such as with `to_json(PATH, orient=\"records\", lines=True)` of pandas",
    ),
    (&[".xz", ".bz2", ".lz4", ".zip", ".7z", ".tar", ".tgz", ".tar.gz", ".tar.zst"], "unpack it first"),
    (&[".pdf", ".docx", ".epub", ".odt"], "convert it to plain text first"),
    (&[".npy", ".npz", ".pt", ".pth", ".safetensors", ".gguf", ".bin"], "name the text that it was made of"),
];

/// A file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    /// Named by the user or a pattern, rather than come upon in a folder: it must be readable.
    pub(crate) is_named: bool,
}

/// What a path stands for, sorted by path.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) found: Vec<Found>,
    /// Files in folders that are of no known format, and what is no file: opening a pipe would wait for whoever writes
    /// to it. Hidden ones are not mentioned.
    pub(crate) left_out: Vec<PathBuf>,
}

/// The files of a path: of a file itself, of a folder at any depth, of what a pattern matches.
///
/// # Errors
/// There is none, a folder cannot be read, or a file that is named is of a known other format or a pipe or the like.
pub(crate) fn find(path: &str) -> Result<Files, DataError> {
    let given = PathBuf::from(path);
    let (mut named, mut inside, mut left_out) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut add = |found: PathBuf| {
        if found.is_dir() {
            return folder(&found, &mut BTreeSet::new(), &mut inside, &mut left_out);
        }
        if found.is_file() {
            named.insert(found);
        } else {
            left_out.insert(found);
        }
        Ok(())
    };
    if given.exists() {
        if !given.is_file() && !given.is_dir() {
            return Err(DataError::NotRegular { path: given });
        }
        add(given.clone())?;
    } else if path.contains(['*', '?', '[']) {
        let matching = matching(path)?;
        if matching.is_empty() {
            return Err(no_match(path));
        }
        matching.into_iter().try_for_each(add)?;
    } else {
        return Err(DataError::Missing { path: given });
    }
    let mut files = Files { found: Vec::new(), left_out: left_out.into_iter().collect() };
    for path in &named {
        // What the user names is text unless its name says otherwise.
        let format = format_of(path).unwrap_or(Format::Text);
        if let Some(advice) = other_format(path) {
            return Err(DataError::OtherFormat { path: path.clone(), advice });
        }
        files.found.push(Found { path: path.clone(), format, is_named: true });
    }
    for path in inside.difference(&named) {
        let format = format_of(path).unwrap_or(Format::Text);
        files.found.push(Found { path: path.clone(), format, is_named: false });
    }
    files.found.sort_by(|a, b| a.path.cmp(&b.path));
    if files.found.is_empty() {
        // Of files that are there but not read, it is said how they could be.
        let advice = files.left_out.iter().find_map(|path| other_format(path));
        return Err(DataError::NoFiles { path: given, advice });
    }
    Ok(files)
}

/// Adds the files under a folder. `seen` holds the real paths of folders, so that links cannot lead in circles.
fn folder(
    path: &Path,
    seen: &mut BTreeSet<PathBuf>,
    files: &mut BTreeSet<PathBuf>,
    left_out: &mut BTreeSet<PathBuf>,
) -> Result<(), DataError> {
    let real = path.canonicalize().map_err(|error| unreadable(path, &error))?;
    if !seen.insert(real) {
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
        let entry = entry.map_err(|error| unreadable(path, &error))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let child = entry.path();
        if child.is_dir() {
            folder(&child, seen, files, left_out)?;
        } else if child.is_file() && format_of(&child).is_some() && other_format(&child).is_none() {
            files.insert(child);
        } else {
            left_out.insert(child);
        }
    }
    Ok(())
}

/// What a pattern matches, where each part between slashes is a pattern of names and `**` any folders.
fn matching(pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let bad = |error: glob::PatternError| DataError::BadPattern {
        pattern: pattern.to_owned(),
        reason: error.to_string(),
    };
    glob::Pattern::new(pattern).map_err(bad)?;
    let mut found = vec![PathBuf::from(if pattern.starts_with('/') { "/" } else { "" })];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for base in found {
            if part == "**" {
                next.extend(folders_below(&base)?);
            } else if part.contains(['*', '?', '[']) {
                let part = glob::Pattern::new(part).map_err(bad)?;
                let names = names_in(&base)?.into_iter();
                next.extend(names.filter(|name| part.matches(&name.to_string_lossy())).map(|n| base.join(n)));
            } else if base.join(part).exists() {
                next.push(base.join(part));
            }
        }
        found = next;
    }
    Ok(found)
}

/// Why nothing matches a pattern: the folder that its first parts name is not there, or what that folder has.
fn no_match(pattern: &str) -> DataError {
    let mut folder = PathBuf::from(if pattern.starts_with('/') { "/" } else { "" });
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        if part.contains(['*', '?', '[']) {
            break;
        }
        folder.push(part);
        if !folder.exists() {
            return DataError::Missing { path: folder };
        }
    }
    let mut names = names_in(&folder).unwrap_or_default();
    names.sort();
    let mut shown: Vec<String> =
        names.iter().take(MOST_NAMES).map(|name| name.to_string_lossy().into_owned()).collect();
    if names.len() > MOST_NAMES {
        shown.push(format!("{} more", names.len() - MOST_NAMES));
    }
    let there = if shown.is_empty() { "nothing".to_owned() } else { shown.join(", ") };
    let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
    DataError::NoMatch { pattern: pattern.to_owned(), folder, there }
}

/// Names in a folder; none if it is not one.
fn names_in(folder: &Path) -> Result<Vec<std::ffi::OsString>, DataError> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.map(|entry| entry.file_name());
    entries.map(name).collect::<Result<_, _>>().map_err(|error| unreadable(folder, &error))
}

/// A folder and all below it, without following links.
fn folders_below(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut all = vec![folder.to_path_buf()];
    let mut at = 0;
    while at < all.len() {
        for name in names_in(&all[at])? {
            let child = all[at].join(name);
            if child.is_dir() && !child.is_symlink() {
                all.push(child);
            }
        }
        at += 1;
    }
    Ok(all)
}

/// In small letters; what is not UTF-8 in it is in front of what counts.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

/// The format that a file's name promises.
fn format_of(path: &Path) -> Option<Format> {
    let name = name_of(path);
    if name.ends_with(".parquet") {
        return Some(Format::Parquet);
    }
    let plain = PACKED.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
    FORMATS.iter().find(|(suffix, _)| plain.ends_with(suffix)).map(|(_, format)| *format)
}

/// What to do with a file whose name promises something that is not read.
fn other_format(path: &Path) -> Option<&'static str> {
    let name = name_of(path);
    let plain = PACKED.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
    let ends = |suffix: &&str| name.ends_with(*suffix) || plain.ends_with(*suffix);
    OTHERS.iter().find(|(suffixes, _)| suffixes.iter().any(ends)).map(|(_, advice)| *advice)
}
