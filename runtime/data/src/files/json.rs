//! Documents in JSON: a field of each object, one object a line, or several in a list.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Document, Give};
use crate::error::DataError;

/// Which documents are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// Field of an object that holds its text.
    pub(crate) field: &'a str,
    /// Whether a text may contain U+0000.
    pub(crate) allows_nul: bool,
    /// What stands between the documents of a plain text file; without it a file is one.
    pub(crate) separator: Option<&'a str>,
}

/// So many names of fields are said where the wanted one is missing.
const MOST_NAMES: usize = 12;
/// So many lines tell JSON lines from a text.
const LOOKED_AT: usize = 8;

/// Documents of the lines of a text that comes in blocks.
pub(super) struct Lines<'a> {
    path: &'a Path,
    wanted: Wanted<'a>,
    /// Lines that are done.
    done: usize,
    /// Bytes of the text that were searched and have no end of a line: one may be as long as the file.
    searched: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(path: &'a Path, wanted: Wanted<'a>) -> Self {
        Self { path, wanted, done: 0, searched: 0 }
    }

    /// Gives the document of each whole line, or of each if no more text follows, and takes these lines away.
    pub(super) fn take(
        &mut self,
        text: &mut String,
        is_end: bool,
        give: &mut Give<'_>,
    ) -> Result<(), DataError> {
        let last = text.as_bytes()[self.searched..].iter().rposition(|byte| *byte == b'\n');
        let end = if is_end { text.len() } else { last.map_or(0, |last| self.searched + last + 1) };
        for line in text[..end].lines() {
            self.done += 1;
            if !line.trim().is_empty() {
                // The parser calls every line its line 1.
                let document = parse_document(line, self.wanted);
                let document =
                    document.map_err(|error| failure(self.path, self.wanted, self.done, &error))?;
                give(Document::Text(document))?;
            }
        }
        text.drain(..end);
        self.searched = text.len();
        Ok(())
    }
}

/// Adds the document of each object: of a list, or of objects one behind the other.
pub(super) fn values(
    path: &Path,
    text: &str,
    wanted: Wanted<'_>,
    documents: &mut Vec<String>,
) -> Result<(), DataError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let fail = |error: serde_json::Error| failure(path, wanted, error.line(), &error);
    if text.trim_start().starts_with('[') {
        List { wanted, documents }.deserialize(&mut json).map_err(fail)?;
        return json.end().map_err(fail);
    }
    while json.end().is_err() {
        documents.push(Object(wanted).deserialize(&mut json).map_err(fail)?);
    }
    Ok(())
}

/// Whether a text is JSON lines with the wanted field, as far as its first lines tell.
pub(super) fn is_lines(text: &str, wanted: Wanted<'_>) -> bool {
    let mut first = text.lines().filter(|line| !line.trim().is_empty()).take(LOOKED_AT).peekable();
    first.peek().is_some()
        && first.all(|line| line.trim_start().starts_with('{') && parse_document(line, wanted).is_ok())
}

/// Whether a text starts with an object that has the wanted field, in a list or not.
pub(super) fn is_values(text: &str, wanted: Wanted<'_>) -> bool {
    let start = text.trim_start();
    let start = start.strip_prefix('[').unwrap_or(start);
    Object(wanted).deserialize(&mut serde_json::Deserializer::from_str(start)).is_ok()
}

fn parse_document(line: &str, wanted: Wanted<'_>) -> serde_json::Result<String> {
    let mut json = serde_json::Deserializer::from_str(line);
    let document = Object(wanted).deserialize(&mut json)?;
    json.end()?;
    Ok(document)
}

fn failure(path: &Path, wanted: Wanted<'_>, line: usize, error: &serde_json::Error) -> DataError {
    let reason = error.to_string();
    let reason = reason.rsplit_once(" at line").map_or(reason.as_str(), |(reason, _)| reason);
    let reason = format!("column {}: {reason}", error.column());
    DataError::Json { path: path.to_path_buf(), line, reason, field: wanted.field.to_owned() }
}

/// A list of objects.
struct List<'a> {
    wanted: Wanted<'a>,
    documents: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(document) = list.next_element_seed(Object(self.wanted))? {
            self.documents.push(document);
        }
        Ok(())
    }
}

/// An object, of which the wanted field is kept.
struct Object<'a>(Wanted<'a>);

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<String, D::Error> {
        json.deserialize_map(self)
    }
}

/// A string that is not copied unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for Object<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<String, A::Error> {
        let Wanted { field, allows_nul, .. } = self.0;
        let mut found = None;
        let mut names = Vec::new();
        while let Some(Text(name)) = map.next_key()? {
            if name == field {
                let Text(text) = map.next_value()?;
                if found.replace(text).is_some() {
                    return Err(A::Error::custom(format!("there are two fields `{field}`")));
                }
            } else {
                map.next_value::<IgnoredAny>()?;
                names.push(name);
            }
        }
        let Some(text) = found else { return Err(A::Error::custom(missing("field", field, &names))) };
        if !allows_nul && text.contains('\0') {
            return Err(A::Error::custom(has_nul(field)));
        }
        Ok(text.into_owned())
    }
}

/// That a text has a NUL where it must not.
pub(super) fn has_nul(field: &str) -> String {
    format!(
        "`{field}` contains a NUL character, which marks the start of a document where text is read as bytes"
    )
}

/// That a field or a column is missing, and which there are.
pub(super) fn missing(what: &str, field: &str, names: &[impl AsRef<str>]) -> String {
    let shown: Vec<String> =
        names.iter().take(MOST_NAMES).map(|name| format!("`{}`", name.as_ref())).collect();
    match names.len() {
        0 => format!("no {what} `{field}`, nor any other"),
        count if count > MOST_NAMES => {
            format!("no {what} `{field}`; there are {} and {} more", shown.join(", "), count - MOST_NAMES)
        }
        _ => format!("no {what} `{field}`; there are {}", shown.join(", ")),
    }
}
