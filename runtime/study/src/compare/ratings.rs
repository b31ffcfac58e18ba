//! What people said of texts: files that the page saves, which may have been edited or broken since.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{BEST, CRITERIA, Comparison, page::label};
use crate::error::{StudyError, file};

/// A file of more bytes is none of marks.
const MOST: u64 = 64 << 20;
/// Of the file's form.
const VERSION: u64 = 1;

/// A mark is of a prompt, of one of its texts as they are shown, by a criterion.
pub(super) type Place = (usize, usize, usize);

/// The marks of one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ratings {
    /// Who gave them.
    pub(super) rater: String,
    pub(super) marks: BTreeMap<Place, u8>,
}

/// Reads files of marks on one comparison.
///
/// # Errors
/// A file that cannot be read or says what cannot be, or a person who comes twice.
pub(super) fn read_all(comparison: &Comparison, paths: &[PathBuf]) -> Result<Vec<Ratings>, StudyError> {
    let mut all: Vec<Ratings> = vec![];
    let mut names: BTreeMap<String, &Path> = BTreeMap::new();
    for path in paths {
        let found = read(comparison, path)?;
        if let Some(other) = names.insert(found.rater.to_lowercase(), path) {
            return Err(wrong(
                path,
                &format!("is of {:?}, as {} is", found.rater, other.display()),
                "leave one of the two out, or give the other person's file a \"rater\" of its own",
            ));
        }
        all.push(found);
    }
    Ok(all)
}

/// The files of marks in a folder: those whose names begin with `ratings`.
pub(super) fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, StudyError> {
    let entries = fs::read_dir(folder).map_err(file("read", folder))?;
    let is_marks = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("ratings") && name.ends_with(".json")
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_marks).collect();
    paths.sort();
    Ok(paths)
}

/// Which comparison a file says that its marks are of; nothing where it says none.
///
/// # Errors
/// The file cannot be read.
pub(super) fn study(path: &Path) -> Result<Option<String>, StudyError> {
    let mut text = vec![];
    let opened = File::open(path).map_err(file("read", path))?;
    opened.take(MOST).read_to_end(&mut text).map_err(file("read", path))?;
    let json: Option<Value> = serde_json::from_slice(&text).ok();
    Ok(json.and_then(|json| json.get("study")?.as_str().map(str::to_owned)))
}

fn wrong(path: &Path, message: &str, help: &str) -> StudyError {
    StudyError::Nothing { message: format!("{} {message}", path.display()), help: help.to_owned() }
}

fn read(comparison: &Comparison, path: &Path) -> Result<Ratings, StudyError> {
    const SAVED: &str = "a file of marks is what the page of linc compare saves: save it again";
    let mut text = vec![];
    let opened = File::open(path).map_err(file("read", path))?;
    opened.take(MOST + 1).read_to_end(&mut text).map_err(file("read", path))?;
    if text.len() as u64 > MOST {
        return Err(wrong(path, &format!("has more than {} MiB", MOST >> 20), SAVED));
    }
    let json: Value =
        serde_json::from_slice(&text).map_err(|error| wrong(path, &format!("is no JSON: {error}"), SAVED))?;
    match json.get("linc_compare").and_then(Value::as_u64) {
        Some(VERSION) => {}
        Some(other) => {
            return Err(wrong(path, &format!("has version {other}; this linc reads {VERSION}"), SAVED));
        }
        None => {
            return Err(wrong(path, "has no \"linc_compare\", so it has no marks of linc compare", SAVED));
        }
    }
    match json.get("study").and_then(Value::as_str) {
        Some(study) if study == comparison.study => {}
        study => {
            let found = study.unwrap_or("none");
            let message = format!("has marks on the comparison {found}; this one is {}", comparison.study);
            return Err(wrong(
                path,
                &message,
                "the texts were written anew since: ask for marks on the new page",
            ));
        }
    }
    let rater = json.get("rater").and_then(Value::as_str).map(str::trim).filter(|rater| !rater.is_empty());
    let Some(rater) = rater else {
        return Err(wrong(path, "does not say whose marks these are: \"rater\"", SAVED));
    };
    let Some(rows) = json.get("ratings").and_then(Value::as_array) else {
        return Err(wrong(path, "has no list of \"ratings\"", SAVED));
    };
    let mut marks = BTreeMap::new();
    for (number, row) in (1..).zip(rows) {
        let wrong = |message: String| {
            wrong(path, &format!("rating {number}: {message}"), "mend or remove that rating")
        };
        let Value::Object(row) = row else { return Err(wrong("is no object".to_owned())) };
        for (place, mark) in of_row(comparison, row).map_err(wrong)? {
            if marks.insert(place, mark).is_some() {
                let (prompt, text, criterion) = place;
                let (text, criterion) = (label(text), CRITERIA[criterion].0);
                return Err(wrong(format!(
                    "{criterion} of text {text} of prompt {} has a mark already",
                    prompt + 1
                )));
            }
        }
    }
    Ok(Ratings { rater: rater.to_owned(), marks })
}

/// The marks of a text.
fn of_row(comparison: &Comparison, row: &Map<String, Value>) -> Result<Vec<(Place, u8)>, String> {
    let prompts = comparison.prompts.len();
    let prompt = match row.get("prompt").and_then(Value::as_u64) {
        Some(prompt) if (1..=prompts as u64).contains(&prompt) => prompt as usize - 1,
        _ => return Err(format!("its prompt is {}; expected 1 to {prompts}", shown(row.get("prompt")))),
    };
    let labels: Vec<String> = (0..comparison.writers.len()).map(label).collect();
    let text = row.get("text").and_then(Value::as_str);
    let Some(text) = text.and_then(|text| labels.iter().position(|label| label == text)) else {
        return Err(format!("its text is {}; expected {}", shown(row.get("text")), labels.join(", ")));
    };
    let known: BTreeSet<&str> = CRITERIA.iter().map(|(name, _)| *name).chain(["prompt", "text"]).collect();
    if let Some(key) = row.keys().find(|key| !known.contains(key.as_str())) {
        let names = CRITERIA.map(|(name, _)| name).join(", ");
        return Err(format!("{key:?} is none of what texts are judged by: {names}"));
    }
    let mut marks = vec![];
    for (criterion, (name, _)) in CRITERIA.iter().enumerate() {
        let Some(value) = row.get(*name) else { continue };
        match value.as_u64() {
            Some(mark) if (1..=u64::from(BEST)).contains(&mark) => {
                marks.push(((prompt, text, criterion), mark as u8))
            }
            _ => {
                return Err(format!(
                    "its {name} is {}; expected a whole number from 1 to {BEST}",
                    shown(Some(value))
                ));
            }
        }
    }
    Ok(marks)
}

/// A value as it stands in the file, not at length.
fn shown(value: Option<&Value>) -> String {
    const MOST: usize = 40;
    let text = value.map_or_else(|| "missing".to_owned(), Value::to_string);
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}..", &text[..at]),
        None => text,
    }
}
