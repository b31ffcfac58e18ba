//! Shards: a corpus that was tokenized once, in files from which tokens are read by position, so that it may be far larger
//! than memory.
//!
//! A folder of shards has an index, [`INDEX`], which says of what tokenizer they are and names them in order, a part to
//! train on and one to validate on; its shards (their form is in `token_file.rs`); and the tokenizer's files. The index is
//! written after each shard, with the place in the corpus that the next one begins at: what was killed goes on from there.

mod check;
mod folder;
mod read;
mod write;
mod writer;

pub(super) use read::Shards;
pub use write::{TokenizeSettings, Tokenized, tokenize};

use std::fs;
use std::path::{Path, PathBuf};

use linc_device::words::reason;
use serde::{Deserialize, Serialize};

use super::corpus::Ids;
use super::error::DataError;
use super::token_file::{Digest, HEAD};
use super::tokenizer::{Borders, Tokenizer};

/// Name of the index of a folder of shards.
pub const INDEX: &str = "shards.json";
/// Version of the index.
const VERSION: u32 = 1;

/// What a folder of shards says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    version: u32,
    /// Whether the corpus was tokenized to its end.
    complete: bool,
    /// Hash of what the shards are made of: the corpus' files (names, sizes and times) and all settings.
    source: String,
    /// The tokenizer's digest.
    tokenizer: String,
    vocab_size: usize,
    borders: Borders,
    /// Where the first document is that is in no shard.
    next: Place,
    training: Vec<Shard>,
    validation: Vec<Shard>,
}

/// A place in a corpus: a file, by its number, and documents of it that are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    file: usize,
    document: u64,
}

/// A file of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shard {
    file: String,
    tokens: u64,
    documents: u64,
    text_bytes: u64,
    /// CRC-32 of the ids.
    checksum: u32,
    /// Bytes of the file.
    size: u64,
}

/// The two parts of a corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Training,
    Validation,
}

impl Index {
    fn part(&self, part: Part) -> &[Shard] {
        match part {
            Part::Training => &self.training,
            Part::Validation => &self.validation,
        }
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.training.iter().chain(&self.validation)
    }

    /// What of its numbers cannot be, so that sums and places of them can be relied on.
    fn flaw(&self) -> Option<String> {
        let width = Ids::of_vocabulary(self.vocab_size).width();
        let least = |shard: &Shard| shard.tokens.checked_mul(width)?.checked_add(HEAD as u64);
        for shard in self.shards() {
            let name = Path::new(&shard.file);
            if name.file_name() != Some(name.as_os_str()) {
                return Some(format!("it names {:?}, which is no file of this folder", shard.file));
            }
            if least(shard).is_none_or(|least| least > shard.size) {
                let Shard { file, tokens, size, .. } = shard;
                return Some(format!("{file} cannot have {tokens} tokens in {size} bytes"));
            }
        }
        let sum = |of: fn(&Shard) -> u64| self.shards().map(of).try_fold(0u64, u64::checked_add);
        let fits = sum(|shard| shard.size).is_some()
            && sum(|shard| shard.documents).is_some()
            && sum(|shard| shard.text_bytes).is_some();
        (!fits).then(|| "its shards are larger together than any disk".to_owned())
    }

    /// The index of a folder; `None` if it has none.
    fn load(folder: &Path) -> Result<Option<Self>, DataError> {
        let fail = |reason: String| {
            let help = "make the shards again with `linc tokenize`, into another folder".to_owned();
            DataError::Shards { folder: folder.join(INDEX), reason, help }
        };
        let text = match fs::read(folder.join(INDEX)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(format!("cannot be read: {}", reason(&error)))),
        };
        let index: Self =
            serde_json::from_slice(&text).map_err(|error| fail(format!("no index: {error}")))?;
        if index.version != VERSION {
            let version = index.version;
            return Err(fail(format!("of version {version}; this linc reads version {VERSION}")));
        }
        match index.flaw() {
            None => Ok(Some(index)),
            Some(flaw) => Err(fail(format!("no index: {flaw}"))),
        }
    }
}

/// The folder of shards that a path names, if it names one: the folder itself or its index.
pub(super) fn folder_of(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let folder = if path.file_name().is_some_and(|name| name == INDEX) { path.parent()? } else { path };
    folder.join(INDEX).is_file().then(|| folder.to_path_buf())
}

/// Whether two folders of shards have the same ones: one folder by two names, or a copy.
pub(super) fn are_same(folder: &Path, other: &Path) -> Result<bool, DataError> {
    let real = |folder: &Path| folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    if real(folder) == real(other) {
        return Ok(true);
    }
    let (index, other) = (Index::load(folder)?, Index::load(other)?);
    Ok(index.zip(other).is_some_and(|(index, other)| index.source == other.source))
}

fn in_hex(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Refuses shards of another tokenizer: their numbers mean other texts.
fn check_tokenizer(folder: &Path, index: &Index, tokenizer: &Tokenizer) -> Result<(), DataError> {
    if index.tokenizer == in_hex(&tokenizer.digest()) {
        return Ok(());
    }
    let sizes = format!("{} tokens, {}", index.vocab_size, index.borders);
    let is_own = |tokenizer: &Tokenizer| index.tokenizer == in_hex(&tokenizer.digest());
    let own = if is_own(&Tokenizer::bytes()) {
        "leave out model.tokenizer_path: they are made of bytes".to_owned()
    } else if Tokenizer::open(folder).is_ok_and(|tokenizer| is_own(&tokenizer)) {
        format!("say model.tokenizer_path = {:?}", folder.display().to_string())
    } else {
        "their tokenizer is not in their folder any more: name it with model.tokenizer_path".to_owned()
    };
    Err(DataError::Shards {
        folder: folder.to_path_buf(),
        reason: format!("its shards are of another tokenizer ({sizes}) than {}", tokenizer.name()),
        help: format!("{own}; or make shards with this tokenizer, into another folder"),
    })
}

#[cfg(test)]
mod tests;
