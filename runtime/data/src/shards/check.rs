//! Whether the shards of a folder are there as they were written.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use linc_device::words::reason;

use super::{Index, Shard};
use crate::error::{DataError, unreadable};
use crate::loading::Loading;
use crate::token_file::HEAD;

/// So much is read at once.
const BLOCK: usize = 1 << 20;

/// That each shard of an index has its length.
///
/// # Errors
/// One is missing, or is longer or shorter.
pub(super) fn sizes(folder: &Path, index: &Index) -> Result<(), DataError> {
    for shard in index.shards() {
        let path = folder.join(&shard.file);
        match fs::metadata(&path) {
            Ok(about) if about.len() == shard.size => {}
            Ok(about) => {
                let sizes = format!("has {} bytes in place of {}", about.len(), shard.size);
                return Err(lost(folder, shard, &sizes));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(lost(folder, shard, "is not there any more"));
            }
            Err(error) => return Err(unreadable(&path, &error)),
        }
    }
    Ok(())
}

/// That each shard of an index has the bytes that were written: reads all of them once.
///
/// # Errors
/// As [`sizes`], a file has other bytes, or [`DataError::Interrupted`].
pub(super) fn contents(folder: &Path, index: &Index, loading: &mut Loading<'_>) -> Result<(), DataError> {
    sizes(folder, index)?;
    let mut reading = loading.paced("Verifying", index.shards().map(|shard| shard.size).sum());
    let mut block = vec![0; BLOCK];
    for shard in index.shards() {
        let path = folder.join(&shard.file);
        let Ok((mut file, head)) = shard.open(&path) else {
            return Err(lost(folder, shard, "does not begin as it was written"));
        };
        file.seek(SeekFrom::Start(HEAD as u64)).map_err(|error| unreadable(&path, &error))?;
        let mut rest = crc32fast::Hasher::new();
        loop {
            reading.check()?;
            let count = match file.read(&mut block) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => {
                    return Err(lost(folder, shard, &format!("cannot be read: {}", reason(&error))));
                }
            };
            rest.update(&block[..count]);
            reading.advance(count);
        }
        if !head.has_rest(rest.finalize()) {
            return Err(lost(folder, shard, "has other bytes than were written (by its CRC-32)"));
        }
    }
    Ok(())
}

fn lost(folder: &Path, shard: &Shard, what: &str) -> DataError {
    DataError::Shards {
        folder: folder.to_path_buf(),
        reason: format!("its shard {} {what}", shard.file),
        help: "get that file back; or delete this folder, or name another one with --out, to make all shards again"
            .to_owned(),
    }
}
