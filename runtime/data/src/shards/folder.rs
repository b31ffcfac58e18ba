//! The folder that shards are written into: whose it is, who writes, and what is there before the first shard.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use linc_device::words::{help_to_write, reason};
use linc_device::write_to_disk;

use super::{INDEX, Index, Place, VERSION, in_hex};
use crate::error::DataError;
use crate::tokenizer::Tokenizer;

/// Held while a process writes into a folder.
const LOCK: &str = ".lock";
/// Digits that the number of a shard has at least.
const DIGITS: usize = 5;

pub(super) fn unwritable(path: &Path, error: &std::io::Error) -> DataError {
    DataError::Unwritable { path: path.to_path_buf(), reason: reason(error), help: help_to_write(error) }
}

/// Takes a folder to write into, which is left as it is unless it is empty or of an earlier call: the lock, which holds
/// until it is dropped, and the index, if there is one.
///
/// # Errors
/// The folder is of something else, another process writes into it, or it cannot be written.
pub(super) fn claim(folder: &Path, tokenizer: &Tokenizer) -> Result<(File, Option<Index>), DataError> {
    fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    if Index::load(folder)?.is_none() {
        refuse_foreign(folder, tokenizer)?;
    }
    let (lock, is_alone) = lock(folder)?;
    // Another process may have written it before this one had the lock.
    let index = Index::load(folder)?;
    if is_alone {
        remove_leftovers(folder, tokenizer);
    }
    Ok((lock, index))
}

/// Keeps other processes from writing into a folder, and whether it does: some file systems have no locks.
fn lock(folder: &Path) -> Result<(File, bool), DataError> {
    let path = folder.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| unwritable(&path, &error))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(DataError::Shards {
            folder: folder.to_path_buf(),
            reason: "another linc tokenize is writing into it".to_owned(),
            help: "wait for its end, or name another folder with --out".to_owned(),
        }),
        Ok(()) => Ok((file, true)),
        Err(TryLockError::Error(_)) => Ok((file, false)),
    }
}

/// Refuses a folder without an index that has anything else than what is written before the index.
fn refuse_foreign(folder: &Path, tokenizer: &Tokenizer) -> Result<(), DataError> {
    let mut entries = fs::read_dir(folder).map_err(|error| unwritable(folder, &error))?.flatten();
    let is_own = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        // A tokenizer of other bytes is somebody's own, and would be lost.
        let is_tokenizer = |path: &Path| {
            let file = tokenizer.files().iter().find(|file| name == file.name);
            file.is_some_and(|file| fs::read(path).is_ok_and(|bytes| bytes == file.bytes))
        };
        name == LOCK
            || name.to_str().is_some_and(|name| is_leftover(name, tokenizer))
            || is_tokenizer(&entry.path())
    };
    match entries.find(|entry| !is_own(entry)) {
        None => Ok(()),
        Some(entry) => Err(DataError::Shards {
            folder: folder.to_path_buf(),
            reason: format!("it is not empty: it has {}", entry.file_name().display()),
            help: "name a new folder with --out".to_owned(),
        }),
    }
}

/// Removes what a process that was killed had begun to write.
fn remove_leftovers(folder: &Path, tokenizer: &Tokenizer) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| is_leftover(name, tokenizer)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether [`write_to_disk`] of this program calls what is not whole yet like that.
fn is_leftover(name: &str, tokenizer: &Tokenizer) -> bool {
    let parts = name.strip_suffix(".tmp").and_then(|name| name.rsplit_once('.'));
    let Some((stem, writer)) = parts else { return false };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_writer = writer.split_once('-').is_some_and(|(id, number)| is_number(id) && is_number(number));
    let is_of = |file: &str| Path::new(file).file_stem().is_some_and(|of_file| of_file == stem);
    let is_shard = ["training-", "validation-"].iter().any(|part| {
        stem.strip_prefix(part).is_some_and(|number| number.len() >= DIGITS && is_number(number))
    });
    is_writer && (is_shard || is_of(INDEX) || tokenizer.files().iter().any(|file| is_of(file.name)))
}

/// `training-00001.tokens`: the part, and the number among its shards in as many digits as sort by it.
pub(super) fn shard_name(part: &str, number: usize) -> String {
    format!("{part}-{number:0DIGITS$}.tokens")
}

/// A new index in a folder, beside the tokenizer's files.
pub(super) fn start(folder: &Path, source: String, tokenizer: &Tokenizer) -> Result<Index, DataError> {
    write_tokenizer(folder, tokenizer)?;
    let index = Index {
        version: VERSION,
        complete: false,
        source,
        tokenizer: in_hex(&tokenizer.digest()),
        vocab_size: tokenizer.vocab_size(),
        borders: tokenizer.borders(),
        next: Place::default(),
        training: Vec::new(),
        validation: Vec::new(),
    };
    // From now on it is known what the folder is.
    write_index(folder, &index)?;
    Ok(index)
}

/// Writes those files of the tokenizer that are not there as they should.
pub(super) fn write_tokenizer(folder: &Path, tokenizer: &Tokenizer) -> Result<(), DataError> {
    for file in tokenizer.files() {
        let path = folder.join(file.name);
        if !fs::read(&path).is_ok_and(|bytes| bytes == file.bytes) {
            write_to_disk(&path, &[&file.bytes]).map_err(|error| unwritable(&path, &error))?;
        }
    }
    Ok(())
}

pub(super) fn write_index(folder: &Path, index: &Index) -> Result<(), DataError> {
    let path = folder.join(INDEX);
    let json = serde_json::to_vec_pretty(index).map_err(|error| unwritable(&path, &error.into()))?;
    write_to_disk(&path, &[&json]).map_err(|error| unwritable(&path, &error))
}
