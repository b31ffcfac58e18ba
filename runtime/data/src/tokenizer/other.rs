//! Tokenizers in other formats, and folders without one: what to do about them.

use std::fs;
use std::path::{Path, PathBuf};

use super::{TOKENIZER_FILE, ranks};
use crate::error::DataError;

/// What a tokenizer is. (A folder to import has its tokenizer where no setting names it.)
const USUAL: &str = "a tokenizer is a Hugging Face tokenizer.json, a rank file of tiktoken or Llama 3, or a folder with one; without it, text is read as bytes";
/// How the formats of other libraries become the one that is read.
const CONVERT: &str = "fetch it again if it may be cut off, or write a tokenizer.json with Python's transformers: \
                       AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)";
/// Names of files that other libraries read tokenizers from.
const OTHERS: [&str; 6] = [".model", ".tiktoken", ".bpe", "merges.txt", "vocab.json", "vocab.txt"];
/// Names of files that are shown of a folder.
const SHOWN: usize = 5;

fn is_other(name: &str) -> bool {
    OTHERS.iter().any(|other| name.ends_with(other))
}

/// What to do with a file that is no `tokenizer.json`.
pub(super) fn help(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    (if is_other(&name) { CONVERT } else { USUAL }).to_owned()
}

/// The tokenizer of a folder: its `tokenizer.json`, else its only rank file.
///
/// # Errors
/// It has neither, or several rank files.
pub(super) fn tokenizer_in(folder: &Path) -> Result<PathBuf, DataError> {
    find_in(folder)?.ok_or_else(|| no_tokenizer_in(folder))
}

/// The same; nothing if it has neither.
///
/// # Errors
/// It has several rank files, of which only people know which is meant.
pub(super) fn find_in(folder: &Path) -> Result<Option<PathBuf>, DataError> {
    let json = folder.join(TOKENIZER_FILE);
    if json.exists() {
        return Ok(Some(json));
    }
    let is_ranks = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_named = name == ranks::LLAMA3_FILE || name.ends_with(ranks::ENDING);
        is_named && path.is_file() && fs::read(path).is_ok_and(|bytes| ranks::is_rank_file(path, &bytes))
    };
    match &entries(folder).into_iter().filter(|path| is_ranks(path)).collect::<Vec<_>>()[..] {
        [] => Ok(None),
        [only] => Ok(Some(only.clone())),
        several => {
            let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let names: Vec<String> = several.iter().take(SHOWN).map(name).collect();
            let has = format!("it has {} rank files, {}", several.len(), names.join(", "));
            let help = "leave the one there that belongs to the model".to_owned();
            Err(DataError::NoTokenizer { folder: folder.to_owned(), has, help })
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut entries: Vec<PathBuf> = entries.collect();
    entries.sort();
    entries
}

/// The error of a folder that lacks the file.
fn no_tokenizer_in(folder: &Path) -> DataError {
    let entries = entries(folder);
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let below = entries.iter().find(|entry| entry.join(TOKENIZER_FILE).is_file());
    let help = match below {
        Some(below) => format!("did you mean {}?", below.display()),
        None if entries.iter().any(|entry| is_other(&name(entry))) => CONVERT.to_owned(),
        None => USUAL.to_owned(),
    };
    let mut names: Vec<String> = entries.iter().take(SHOWN).map(name).collect();
    if entries.len() > SHOWN {
        names.push("..".to_owned());
    }
    let has =
        if names.is_empty() { "it is empty".to_owned() } else { format!("it has {}", names.join(", ")) };
    DataError::NoTokenizer { folder: folder.to_owned(), has, help }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tokenizer;

    #[test]
    fn folders_and_files_without_one_are_told_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let said = |path: &Path| Tokenizer::open(path).expect_err("none").to_string();
        assert!(said(folder.path()).contains("no tokenizer.json in this folder: it is empty"));
        fs::write(at("notes.txt"), "").expect("a file");
        let error = said(folder.path());
        assert!(error.contains("it has notes.txt") && error.contains("text is read as bytes"), "{error}");
        fs::write(at("tokenizer.model"), [10, 9, 0, 255]).expect("a file");
        for path in [folder.path().to_owned(), at("tokenizer.model")] {
            assert!(said(&path).contains("save_pretrained"), "{}", said(&path));
        }
        // Of two rank files it is not known which is meant.
        fs::create_dir(at("two")).expect("a folder");
        for name in ["two/a.tiktoken", "two/b.tiktoken"] {
            fs::write(at(name), "YQ== 0\n").expect("a file");
        }
        for error in [said(&at("two")), Tokenizer::find(&at("two")).expect_err("two").to_string()] {
            assert!(error.contains("2 rank files, a.tiktoken, b.tiktoken"), "{error}");
        }
        fs::create_dir(at("original")).expect("a folder");
        fs::write(at("original/tokenizer.json"), "[]").expect("a file");
        let error = said(folder.path());
        assert!(error.contains("did you mean") && error.contains("original?"), "{error}");
        let error = said(&at("original"));
        assert!(error.contains("not a usable tokenizer") && error.contains("as bytes"), "{error}");
    }
}
