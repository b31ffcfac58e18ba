//! Documents from disk: plain text and JSON, packed by gzip or zstd or not, and Parquet, in folders and globs.
//!
//! A text file is one document, or several with a separator between them; of JSON, each object is one (a field of it), of Parquet each row (a column of it). Order is by path, then by place in the file,
//! so that the same files give the same documents on any machine.

pub(super) mod find;
mod json;
mod kinds;
mod parquet;
mod unpack;

use super::error::{DataError, unreadable};
use super::loading::{Loading, Paced};
use find::{Format, Found};
pub(super) use json::Wanted;
pub(super) use kinds::{Kinds, Names};
use linc_device::words::count;
use std::path::{Path, PathBuf};
pub(super) use unpack::read_text;

/// So many files that are not read are named.
const MOST_NAMES: usize = 5;

/// Reads all documents of a file, a folder (at any depth) or a glob, and says which kinds of files they come from. None is empty.
///
/// # Errors
/// Nothing there, or a file that cannot be read as UTF-8 text or JSON; or [`DataError::Interrupted`].
pub(super) fn read_documents(
    path: &str,
    wanted: Wanted<'_>,
    loading: &mut Loading<'_>,
) -> Result<(Vec<String>, Kinds), DataError> {
    let given = PathBuf::from(path);
    let mut files = find::find(path)?;
    let (mut documents, mut kinds) = (Vec::new(), Kinds::default());
    let sizes = files.found.iter().filter_map(|file| std::fs::metadata(&file.path).ok());
    let mut reading = loading.paced("Reading", sizes.map(|about| about.len()).sum());
    let mut notes = Vec::new();
    for file in &files.found {
        reading.check()?;
        let mut keep = |document: Document| match document {
            Document::Text(text) => {
                documents.push(text);
                Ok(())
            }
            Document::Tokens(_) => {
                Err(DataError::TokenColumn { path: file.path.clone(), field: wanted.field.to_owned() })
            }
        };
        match each_document(file, wanted, &mut reading, &mut keep)? {
            Outcome::Read => kinds.add(file.format),
            Outcome::Noted(note) => {
                kinds.add(file.format);
                notes.push(note);
            }
            Outcome::LeftOut => files.left_out.push(file.path.clone()),
        }
    }
    drop(reading);
    say(&notes, loading);
    if !files.left_out.is_empty() {
        loading.note(&left_out(&given, files.left_out));
    }
    documents.retain(|document| !document.is_empty());
    if documents.is_empty() {
        return Err(DataError::Empty { path: given });
    }
    Ok((documents, kinds))
}

/// One document as it stands in a file.
pub(super) enum Document {
    Text(String),
    /// Ids that somebody tokenized already.
    Tokens(Vec<u32>),
}

/// What became of a file.
pub(super) enum Outcome {
    Read,
    /// It was read, and that is to be said.
    Noted(String),
    /// It has no documents of the kind that is wanted.
    LeftOut,
}

/// Takes a document.
pub(super) type Give<'a> = dyn FnMut(Document) -> Result<(), DataError> + 'a;

/// Gives the documents of a file, one by one: those of JSON lines and of Parquet while the rest is still on disk.
pub(super) fn each_document(
    Found { path, format, is_named }: &Found,
    wanted: Wanted<'_>,
    reading: &mut Paced<'_, '_>,
    give: &mut Give<'_>,
) -> Result<Outcome, DataError> {
    match format {
        Format::Text => {
            let text = unpack::read_text(path, reading)?;
            if json::is_lines(&text, wanted) {
                let field = wanted.field.to_owned();
                return Err(DataError::JsonInText { path: path.clone(), field });
            }
            let Some(separator) = wanted.separator else {
                let note = separated(path, &text);
                give(Document::Text(text))?;
                return Ok(note.map_or(Outcome::Read, Outcome::Noted));
            };
            // The separator often has a line of its own, which is no text.
            let documents = text.split(separator).map(|text| text.trim_matches(['\n', '\r']));
            let mut count = 0;
            for document in documents.filter(|document| !document.is_empty()) {
                count += 1;
                give(Document::Text(document.to_owned()))?;
            }
            if count == 1 {
                let path = path.display();
                let note = format!(
                    "{path}: the separator of documents, {separator:?}, is nowhere between texts; it is one document"
                );
                return Ok(Outcome::Noted(note));
            }
        }
        Format::JsonLines => {
            let mut lines = json::Lines::new(path, wanted);
            let mut rest =
                unpack::read_blocks(path, reading, &mut |text| lines.take(text, false, &mut *give))?;
            lines.take(&mut rest, true, give)?;
        }
        Format::Json => {
            let text = unpack::read_text(path, reading)?;
            // Folders of data often hold JSON files about the data.
            if !is_named && !json::is_values(&text, wanted) {
                return Ok(Outcome::LeftOut);
            }
            let mut documents = Vec::new();
            json::values(path, &text, wanted, &mut documents)?;
            documents.into_iter().map(Document::Text).try_for_each(give)?;
        }
        Format::Parquet => {
            let without = parquet::documents(path, wanted, reading, give)?;
            if without > 0 {
                let (path, field) = (path.display(), wanted.field);
                let rows = count(without, "row");
                let note = format!("{path}: {rows} without a value in `{field}`, left out");
                return Ok(Outcome::Noted(note));
            }
        }
    }
    Ok(Outcome::Read)
}

/// Separators of documents that corpora of plain text have.
const SEPARATORS: [&str; 3] = ["<|endoftext|>", "<|end_of_text|>", "</s>"];

/// What to say of a text that is one document and has a usual separator in it.
fn separated(path: &Path, text: &str) -> Option<String> {
    let separator = SEPARATORS.iter().find(|separator| text.contains(**separator))?;
    let times = count(text.matches(separator).count(), "time");
    let path = path.display();
    Some(format!(
        "{path}: it has {separator:?} {times} and is one document; say training.document_separator (linc tokenize --document-separator) if that stands between documents"
    ))
}

/// Says notes of files, the first few of many.
pub(super) fn say(notes: &[String], loading: &mut Loading<'_>) {
    notes.iter().take(MOST_NAMES).for_each(|note| loading.note(note));
    if let Some(more @ 1..) = notes.len().checked_sub(MOST_NAMES) {
        loading.note(&format!("and as much of {} more", count(more, "file")));
    }
}

/// Names files of a folder that are not read.
pub(super) fn left_out(folder: &Path, mut files: Vec<PathBuf>) -> String {
    files.sort();
    let name = |file: &PathBuf| {
        let name = file.strip_prefix(folder).unwrap_or(file).display();
        if file.is_file() { name.to_string() } else { format!("{name} [no regular file]") }
    };
    let mut names: Vec<String> = files.iter().take(MOST_NAMES).map(name).collect();
    if files.len() > MOST_NAMES {
        names.push(format!("{} more", files.len() - MOST_NAMES));
    }
    format!("{}: not read: {} ({})", folder.display(), names.join(", "), super::error::FORMATS)
}

#[cfg(test)]
mod tests;
