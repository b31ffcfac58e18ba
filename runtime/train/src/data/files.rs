//! Documents from disk: `.txt`, `.jsonl` and their gzipped forms, in folders and globs.
//!
//! A text file is one document, a line of a JSONL file is one (its field `text`). Order is by path, then
//! by line, so that the same files give the same documents on any machine.

use super::error::DataError;
use super::loading::Loading;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// How a file holds documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    JsonLines,
}

/// Reads all documents of a file, a folder (at any depth) or a glob. None is empty.
///
/// # Errors
/// Nothing there, or a file that cannot be read as UTF-8 text or JSON lines.
pub(super) fn read_documents(path: &str, loading: &Loading<'_>) -> Result<Vec<String>, DataError> {
    let given = PathBuf::from(path);
    let files = find(path)?;
    let mut documents = Vec::new();
    for (file, format) in files {
        loading.check()?;
        let text = read_text(&file)?;
        match format {
            Format::Text => documents.push(text),
            Format::JsonLines => json_lines(&file, &text, &mut documents)?,
        }
    }
    documents.retain(|document| !document.is_empty());
    if documents.is_empty() {
        return Err(DataError::Empty { path: given });
    }
    Ok(documents)
}

/// The data files that a path stands for, sorted.
fn find(path: &str) -> Result<Vec<(PathBuf, Format)>, DataError> {
    let given = PathBuf::from(path);
    let is_pattern = path.contains(['*', '?', '[']);
    let mut files = BTreeSet::new();
    if given.is_dir() {
        folder(&given, &mut BTreeSet::new(), &mut files)?;
    } else if given.exists() {
        // A file named outright is text unless its name says otherwise.
        return Ok(vec![(given, format_of(Path::new(path)).unwrap_or(Format::Text))]);
    } else if is_pattern {
        let matches = glob::glob(path)
            .map_err(|error| DataError::BadPattern { pattern: path.to_owned(), reason: error.to_string() })?;
        for found in matches {
            let found = found.map_err(|error| unreadable(error.path(), error.error()))?;
            if found.is_dir() {
                folder(&found, &mut BTreeSet::new(), &mut files)?;
            } else {
                files.insert(found);
            }
        }
    } else {
        return Err(DataError::Missing { path: given });
    }
    let files: Vec<_> = files
        .into_iter()
        .filter(|file| is_pattern || format_of(file).is_some())
        .map(|file| {
            let format = format_of(&file).unwrap_or(Format::Text);
            (file, format)
        })
        .collect();
    if files.is_empty() { Err(DataError::NoFiles { path: given }) } else { Ok(files) }
}

/// Adds the data files under a folder. `seen` holds the real paths of folders, so that links cannot lead in circles.
fn folder(path: &Path, seen: &mut BTreeSet<PathBuf>, files: &mut BTreeSet<PathBuf>) -> Result<(), DataError> {
    let real = path.canonicalize().map_err(|error| unreadable(path, &error))?;
    if !seen.insert(real) {
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
        let entry = entry.map_err(|error| unreadable(path, &error))?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let child = entry.path();
        if child.is_dir() {
            folder(&child, seen, files)?;
        } else if format_of(&child).is_some() {
            files.insert(child);
        }
    }
    Ok(())
}

/// The format that a file's name promises. C4 calls its JSON lines `.json.gz`.
fn format_of(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    if plain.ends_with(".txt") {
        Some(Format::Text)
    } else if plain.ends_with(".jsonl") || (plain.ends_with(".json") && plain.len() < name.len()) {
        Some(Format::JsonLines)
    } else {
        None
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> DataError {
    match error.kind() {
        std::io::ErrorKind::NotFound => DataError::Missing { path: path.to_path_buf() },
        _ => DataError::Unreadable { path: path.to_path_buf(), reason: error.to_string() },
    }
}

/// A file's text, unpacked, without a byte order mark.
fn read_text(path: &Path) -> Result<String, DataError> {
    let mut bytes = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
    let is_gzip = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    if is_gzip {
        let mut unpacked = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes.as_slice())
            .read_to_end(&mut unpacked)
            .map_err(|error| DataError::Gzip { path: path.to_path_buf(), reason: error.to_string() })?;
        bytes = unpacked;
    }
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        return Err(DataError::Binary { path: path.to_path_buf(), offset });
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let byte = error.as_bytes().get(offset).copied().unwrap_or_default();
        DataError::NotUtf8 { path: path.to_path_buf(), offset, byte }
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
}

fn json_lines(path: &Path, text: &str, documents: &mut Vec<String>) -> Result<(), DataError> {
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let fail = |reason: String| DataError::JsonLine { path: path.to_path_buf(), line: index + 1, reason };
        let record: Record<'_> = serde_json::from_str(line).map_err(|error| {
            // The parser calls every line its line 1; the place is said by the path.
            let reason = error.to_string();
            let reason = reason.rsplit_once(" at line").map_or(reason.as_str(), |(reason, _)| reason);
            fail(format!("column {}: {reason}", error.column()))
        })?;
        let Some(document) = record.text else { return Err(fail("no field `text`".to_owned())) };
        if document.contains('\0') {
            return Err(fail(
                "`text` contains a NUL character, which marks the end of a document".to_owned(),
            ));
        }
        documents.push(document.into_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::loading::quiet;
    use std::io::Write;

    fn read_documents(path: &str) -> Result<Vec<String>, DataError> {
        quiet(|loading| super::read_documents(path, loading))
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).expect("to memory");
        encoder.finish().expect("to memory")
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a temporary folder"))
        }

        fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(path.parent().expect("has a parent")).expect("mkdir");
            std::fs::write(&path, bytes).expect("write");
            path.display().to_string()
        }

        fn path(&self, name: &str) -> String {
            self.0.path().join(name).display().to_string()
        }
    }

    fn error(path: &str) -> String {
        read_documents(path).expect_err("should be refused").to_string()
    }

    #[test]
    fn folders_and_globs_are_read_in_order() {
        let folder = Folder::new();
        folder.write("b/z.txt", "zed");
        folder.write("b/a.jsonl.gz", gzip("{\"text\": \"one\"}\n\n{\"id\": 3, \"text\": \"tw\\u00f6\"}\n"));
        folder.write("a.txt", "\u{feff}alpha");
        folder.write("a.bin", [0, 1]);
        folder.write("empty.txt", "");
        folder.write(".hidden.txt", "no");
        assert_eq!(read_documents(&folder.path("")).expect("read"), ["alpha", "one", "twö", "zed"]);
        assert_eq!(read_documents(&folder.path("*/*.txt")).expect("read"), ["zed"]);
        assert_eq!(read_documents(&folder.path("b*")).expect("read"), ["one", "twö", "zed"]);
        let raw = folder.write("wiki.test.raw", "raw text");
        assert_eq!(read_documents(&raw).expect("read"), ["raw text"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_in_circles_end() {
        let folder = Folder::new();
        folder.write("a.txt", "alpha");
        std::os::unix::fs::symlink(folder.0.path(), folder.0.path().join("loop")).expect("symlink");
        assert_eq!(read_documents(&folder.path("")).expect("read"), ["alpha"]);
    }

    #[test]
    fn bad_files_are_refused_with_their_place() {
        let folder = Folder::new();
        assert!(error(&folder.path("none.txt")).contains("no such file"));
        assert!(error(&folder.path("*.txt")).contains("no data files"));
        assert!(error("[").contains("not a valid pattern"), "{}", error("["));
        assert!(error(&folder.path("")).contains("no data files"));
        assert!(error(&folder.write("empty.txt", "")).contains("no text"));
        assert!(error(&folder.write("empty.jsonl", "\n{\"text\": \"\"}\n")).contains("no text"));
        assert!(error(&folder.write("nul.txt", "ab\0")).contains("byte 2 is NUL"));
        let latin = error(&folder.write("latin.txt", b"caf\xe9 au lait"));
        assert!(latin.contains("byte 3 is 0xe9") && latin.contains("iconv"), "{latin}");
        let line = error(&folder.write("a.jsonl", "{\"text\": \"x\"}\n{\"txt\": \"y\"}\n"));
        assert!(line.contains("a.jsonl:2: no field `text`"), "{line}");
        assert!(error(&folder.write("b.jsonl", "{\"text\": 5}\n")).contains("b.jsonl:1: column"));
        assert!(error(&folder.write("c.jsonl", "{\"text\": \"x\"")).contains("c.jsonl:1"));
        assert!(error(&folder.write("d.jsonl", "{\"text\": \"a\\u0000\"}")).contains("NUL"));
        assert!(error(&folder.write("e.jsonl", "[1]")).contains("e.jsonl:1"));
        let whole = gzip(&"{\"text\": \"some text to pack\"}\n".repeat(50));
        let cut = error(&folder.write("cut.jsonl.gz", &whole[..whole.len() - 9]));
        assert!(cut.contains("cut off or damaged"), "{cut}");
        assert!(error(&folder.write("plain.jsonl.gz", "{\"text\": \"not packed\"}")).contains("gzip"));
        let mut flipped = whole.clone();
        let last = flipped.len() - 6;
        flipped[last] ^= 1;
        assert!(error(&folder.write("flip.jsonl.gz", &flipped)).contains("damaged"));
    }
}
