//! Tokens of shards by their position. Files are opened when they are first read, and a few are kept open.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use linc_device::words::reason;

use super::{INDEX, Index, Part, Shard, check_tokenizer};
use crate::error::{DataError, unreadable};
use crate::token_file::{HEAD, Head};
use crate::tokenizer::Tokenizer;

/// Files that are open at once: processes may open about a thousand.
const OPEN: usize = 64;

/// A part of a folder of shards.
#[derive(Debug)]
pub(crate) struct Shards {
    folder: PathBuf,
    files: Vec<Shard>,
    /// First token of each file, and the end of the last.
    starts: Vec<u64>,
    documents: u64,
    text_bytes: u64,
    checksum: u32,
    vocab_size: usize,
    /// Those that were used last.
    open: Mutex<VecDeque<(usize, Arc<Open>)>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    head: Head,
}

impl Shards {
    /// Opens a part, of which every file has to be there in its whole length.
    ///
    /// # Errors
    /// The shards are of another tokenizer, not made to their end, or not all there.
    pub(crate) fn open(folder: &Path, part: Part, tokenizer: &Tokenizer) -> Result<Self, DataError> {
        let index = Index::load(folder)?.ok_or_else(|| DataError::Missing { path: folder.join(INDEX) })?;
        check_tokenizer(folder, &index, tokenizer)?;
        if !index.complete {
            let reason = "its corpus was not tokenized to the end".to_owned();
            let help = "run the same `linc tokenize` again: it goes on where it stopped".to_owned();
            return Err(DataError::Shards { folder: folder.to_path_buf(), reason, help });
        }
        let files = index.part(part).to_vec();
        let (mut starts, mut checksum) = (vec![0], crc32fast::Hasher::new());
        for shard in &files {
            let path = folder.join(&shard.file);
            let size = std::fs::metadata(&path).map_err(|error| match error.kind() {
                // The folder is there: to say where paths start would be no help.
                io::ErrorKind::NotFound => damaged(&path, &format!("it is missing, and {INDEX} names it")),
                _ => unreadable(&path, &error),
            })?;
            let size = size.len();
            if size != shard.size {
                return Err(damaged(&path, &format!("it has {size} of its {} bytes", shard.size)));
            }
            starts.push(starts[starts.len() - 1] + shard.tokens);
            checksum.update(&shard.checksum.to_le_bytes());
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            documents: files.iter().map(|shard| shard.documents).sum(),
            text_bytes: files.iter().map(|shard| shard.text_bytes).sum(),
            checksum: checksum.finalize(),
            vocab_size: tokenizer.vocab_size(),
            open: Mutex::default(),
            files,
            starts,
        })
    }

    /// Number of tokens.
    pub(crate) fn len(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    pub(crate) fn documents(&self) -> u64 {
        self.documents
    }

    pub(crate) fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// Checksum of the checksums of all shards.
    pub(crate) fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Copies tokens from a position on; the range must lie inside.
    ///
    /// # Errors
    /// A file cannot be read, or has tokens that the tokenizer does not have.
    pub(crate) fn copy(&self, from: u64, out: &mut [i32]) -> Result<(), DataError> {
        let mut filled = 0;
        self.each_file(from..from + out.len() as u64, |number, ids| {
            let open = self.file(number)?;
            let bytes = self.bytes(number, &open, open.head.place(ids))?;
            let width = usize::from(open.head.width);
            for id in bytes.chunks_exact(width) {
                let id = id.iter().rev().fold(0u32, |id, byte| id << 8 | u32::from(*byte));
                if id as usize >= self.vocab_size {
                    let reason = format!("it has the token {id} of a vocabulary of {}", self.vocab_size);
                    return Err(damaged(&self.path(number), &reason));
                }
                out[filled] = id as i32;
                filled += 1;
            }
            Ok(())
        })
    }

    /// UTF-8 bytes of the text behind the tokens of a range; `None` where they were not kept.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn bytes_of(&self, range: Range<u64>) -> Result<Option<u64>, DataError> {
        let mut sum = Some(0);
        self.each_file(range, |number, ids| {
            let open = self.file(number)?;
            if !open.head.has_sizes {
                sum = None;
                return Ok(());
            }
            let bytes = self.bytes(number, &open, open.head.place_of_sizes(ids))?;
            let sizes =
                bytes.chunks_exact(4).map(|size| size.iter().rev().fold(0, |s, b| s << 8 | u64::from(*b)));
            sum = sum.map(|sum: u64| sum + sizes.sum::<u64>());
            Ok(())
        })?;
        Ok(sum)
    }

    /// The tokens of a range that are the first of their documents, ascending. Borders are searched on disk: of a large corpus
    /// there are too many to keep.
    ///
    /// # Errors
    /// A file cannot be read, or its borders are none.
    pub(crate) fn starts_in(&self, range: Range<u64>) -> Result<Vec<u64>, DataError> {
        let mut starts = Vec::new();
        self.each_file(range, |number, ids| {
            let open = self.file(number)?;
            let read = |borders: Range<u64>| -> Result<Vec<u64>, DataError> {
                let bytes = self.bytes(number, &open, open.head.place_of_borders(borders))?;
                let border =
                    |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                Ok(bytes.chunks_exact(8).map(border).collect())
            };
            // The first border that is not before a token.
            let search = |token: u64| -> Result<u64, DataError> {
                let (mut low, mut high) = (0, open.head.borders);
                while low < high {
                    let middle = low + (high - low) / 2;
                    if read(middle..middle + 1)?.first().is_some_and(|border| *border < token) {
                        low = middle + 1;
                    } else {
                        high = middle;
                    }
                }
                Ok(low)
            };
            let (first, end) = (search(ids.start)?, search(ids.end)?);
            let count = end.saturating_sub(first);
            let borders = if count > ids.end - ids.start { Vec::new() } else { read(first..first + count)? };
            let fits = borders.len() as u64 == count
                && borders.iter().all(|border| ids.contains(border))
                && borders.is_sorted_by(|a, b| a < b);
            if !fits {
                return Err(damaged(&self.path(number), "its documents do not follow each other"));
            }
            starts.extend(borders.into_iter().map(|border| self.starts[number] + border));
            Ok(())
        })?;
        Ok(starts)
    }

    /// The files that have tokens of a range, each with the range within it.
    fn each_file(
        &self,
        range: Range<u64>,
        mut work: impl FnMut(usize, Range<u64>) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let mut from = range.start;
        let mut number = self.starts.partition_point(|start| *start <= from).saturating_sub(1);
        while from < range.end {
            let (start, end) = (self.starts[number], self.starts[number + 1]);
            let to = range.end.min(end);
            if from < to {
                work(number, from - start..to - start)?;
            }
            from = to;
            number += 1;
        }
        Ok(())
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(&self.files[number].file)
    }

    fn bytes(&self, number: usize, open: &Open, place: Range<u64>) -> Result<Vec<u8>, DataError> {
        let mut bytes = vec![0; usize::try_from(place.end - place.start).unwrap_or(0)];
        read_at(&open.file, &mut bytes, place.start).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged(&self.path(number), "it has become shorter"),
            _ => unreadable(&self.path(number), &error),
        })?;
        Ok(bytes)
    }

    fn file(&self, number: usize) -> Result<Arc<Open>, DataError> {
        let mut files = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = files.iter().position(|(open, _)| *open == number) {
            let found = files.remove(at);
            files.extend(found);
        } else {
            let (file, head) = self.files[number].open(&self.path(number))?;
            let open = Arc::new(Open { file, head });
            files.push_back((number, open));
            if files.len() > OPEN {
                files.pop_front();
            }
        }
        let last = files.back().map(|(_, open)| Arc::clone(open));
        last.ok_or_else(|| damaged(&self.path(number), "it is closed"))
    }
}

impl Shard {
    /// Opens its file, whose head has to say what the index does.
    ///
    /// # Errors
    /// There is no such file, or another one.
    pub(super) fn open(&self, path: &Path) -> Result<(File, Head), DataError> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let mut bytes = vec![0; HEAD];
        read_at(&file, &mut bytes, 0).map_err(|error| damaged(path, &reason(&error)))?;
        let head = Head::decode(&bytes).ok_or_else(|| damaged(path, "it has no head of a file of tokens"))?;
        let fits =
            head.ids == self.tokens && head.checksum == self.checksum && head.size() == Some(self.size);
        if !fits {
            return Err(damaged(path, &format!("it is not the file that {INDEX} names")));
        }
        Ok((file, head))
    }
}

fn damaged(path: &Path, reason: &str) -> DataError {
    DataError::Damaged { path: path.to_path_buf(), what: "shard", reason: reason.to_owned() }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], from: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, from)
}

#[cfg(not(unix))]
fn read_at(mut file: &File, bytes: &mut [u8], from: u64) -> io::Result<()> {
    use std::io::{Read, Seek};
    file.seek(io::SeekFrom::Start(from))?;
    file.read_exact(bytes)
}
