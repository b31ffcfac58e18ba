//! Which tokens start and end a document: what the files beside a `tokenizer.json` say, else the usual names.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{ORIGINAL, TokenizerFile, unreadable};
use crate::error::DataError;

/// Files that may stand beside a `tokenizer.json` and say which tokens are special. The first that names a token wins;
/// the last holds ids for generation only.
const FILES: [&str; 4] =
    ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", GENERATION_FILE];
const GENERATION_FILE: &str = "generation_config.json";

/// Tokens that start a document, in the order of preference, where nothing says which one does.
const BOS_NAMES: [&str; 6] =
    ["<|begin_of_text|>", "<s>", "<bos>", "[BOS]", "<|startoftext|>", "<|start_story|>"];
/// Tokens that end a document, likewise.
const EOS_NAMES: [&str; 8] = [
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "[EOS]",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_story|>",
    "<|im_end|>",
];

/// Ids of special tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Special {
    /// Before each document.
    pub(super) bos: Option<u32>,
    /// After each document.
    pub(super) eos: Option<u32>,
    /// At any of these generation is over.
    pub(super) ends: Vec<u32>,
}

/// Where a file of [`FILES`] is: beside the tokenizer, or where that is in a folder `original` above it, which has the files of
/// Hugging Face.
fn place(tokenizer: &Path, name: &str) -> PathBuf {
    let beside = tokenizer.with_file_name(name);
    let folder = tokenizer.parent().filter(|folder| folder.file_name().is_some_and(|name| name == ORIGINAL));
    match folder.and_then(Path::parent).map(|above| above.join(name)) {
        Some(above) if !beside.exists() => above,
        _ => beside,
    }
}

/// The files of [`FILES`] that are there.
pub(super) fn files_beside(tokenizer: &Path) -> Result<Vec<TokenizerFile>, DataError> {
    let mut found = Vec::new();
    for name in FILES {
        let path = place(tokenizer, name);
        // A tokenizer may itself be called by one of these names.
        if path == tokenizer {
            continue;
        }
        match std::fs::read(&path) {
            Ok(bytes) => found.push(TokenizerFile { name, bytes }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&path, &error)),
        }
    }
    Ok(found)
}

impl Special {
    /// Decides from the files beside a tokenizer. A name that the tokenizer does not have is noted.
    ///
    /// # Errors
    /// A file is no JSON.
    pub(super) fn of(
        inner: &tokenizers::Tokenizer,
        files: &[TokenizerFile],
        tokenizer: &Path,
        notes: &mut Vec<String>,
    ) -> Result<Self, DataError> {
        let mut parsed: Vec<(&str, Value)> = Vec::new();
        for file in files {
            let json = serde_json::from_slice(&file.bytes).map_err(|error| {
                let path = place(tokenizer, file.name);
                let help = "mend it, or move it away: a tokenizer.json can do without it".to_owned();
                DataError::Tokenizer { path, reason: error.to_string(), help }
            })?;
            parsed.push((file.name, json));
        }
        let mut named = |key: &str| {
            for (file, json) in &parsed {
                let Some(name) = token_name(json, key) else { continue };
                if let Some(id) = inner.token_to_id(name) {
                    return Some(id);
                }
                let path = place(tokenizer, file);
                notes.push(format!(
                    "{}: its {key} {name:?} is no token of {}, so it is not used",
                    path.display(),
                    tokenizer.display()
                ));
            }
            None
        };
        let bos = named("bos_token").or_else(|| usual(inner, &BOS_NAMES));
        let eos = named("eos_token").or_else(|| usual(inner, &EOS_NAMES));
        let mut ends: Vec<u32> = eos.into_iter().collect();
        for (_, json) in parsed.iter().filter(|(file, _)| *file == GENERATION_FILE) {
            ends.extend(token_ids(&json["eos_token_id"]));
        }
        Ok(Self { bos, eos, ends })
    }
}

/// A token is a string, or an object that describes one.
fn token_name<'a>(json: &'a Value, key: &str) -> Option<&'a str> {
    let token = json.get(key)?;
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// An id, or a list of ids.
fn token_ids(json: &Value) -> Vec<u32> {
    let id = |json: &Value| u32::try_from(json.as_u64()?).ok();
    match json {
        Value::Array(ids) => ids.iter().filter_map(id).collect(),
        one => id(one).into_iter().collect(),
    }
}

fn usual(inner: &tokenizers::Tokenizer, usual: &[&str]) -> Option<u32> {
    // Only added tokens count: "<s>" could be ordinary text to some vocabulary.
    let added = inner.get_added_tokens_decoder();
    usual.iter().filter_map(|name| inner.token_to_id(name)).find(|id| added.contains_key(id))
}
