//! The form of tokens on disk: of the files of the cache, and of shards.
//!
//! A file is a head of [`HEAD`] bytes, the ids, the sizes of their text where these are kept, and the borders of the documents.
//! Numbers are little-endian, so that token `i` is found at byte `HEAD + i * width` without reading what is before it:
//!
//! | bytes | what |
//! |---|---|
//! | 0..12 | `linc-tokens2`; another format has another number |
//! | 12..16 | CRC-32 of the rest of the head |
//! | 16..20 | CRC-32 of all behind the head |
//! | 20 | bytes of an id: 1, 2 or 4 |
//! | 21 | 1 if there are sizes, of 4 bytes each, else 0 |
//! | 22..24 | 0 |
//! | 24..56 | the tokenizer's digest, SHA-256; zeros in the cache, whose names depend on it |
//! | 56..88 | size of the text in bytes, CRC-32 of the ids as 4 bytes each, number of borders, number of ids: 8 bytes each |
//! | 88..96 | 0 |
//!
//! Borders are 8 bytes each: the first token of each document, and the end of the last.

use std::io;
use std::ops::Range;
use std::path::Path;

use bytemuck::{AnyBitPattern, cast_slice, pod_read_unaligned};

use super::corpus::{Corpus, Ids};

/// First bytes of a file.
pub(super) const MAGIC: &[u8; 12] = b"linc-tokens2";
/// Bytes before the ids.
pub(super) const HEAD: usize = 96;

// Numbers are written as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"), "token files are little-endian");

/// Identifies a tokenizer, see [`super::Tokenizer::digest`].
pub(super) type Digest = [u8; 32];

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of an id.
    pub(super) width: u8,
    pub(super) has_sizes: bool,
    pub(super) digest: Digest,
    pub(super) text_bytes: u64,
    /// CRC-32 of the ids, whatever their width.
    pub(super) checksum: u32,
    pub(super) borders: u64,
    pub(super) ids: u64,
    /// CRC-32 of what is behind the head.
    rest: u32,
}

impl Head {
    /// The head at the start of a file, if that is what it is.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (checked, rest) = bytes.get(..HEAD)?.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
        if crc32fast::hash(rest) != u32::from_le_bytes(*checked) {
            return None;
        }
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| rest[at + byte]));
        Some(Self {
            width: Some(rest[4]).filter(|width| [1, 2, 4].contains(width))?,
            has_sizes: rest[5] == 1,
            digest: std::array::from_fn(|byte| rest[8 + byte]),
            text_bytes: word(40),
            checksum: u32::try_from(word(48)).ok()?,
            borders: word(56),
            ids: word(64),
            rest: u32::try_from(word(0) & u64::from(u32::MAX)).ok()?,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes =
            [&self.rest.to_le_bytes()[..], &[self.width, u8::from(self.has_sizes), 0, 0]].concat();
        bytes.extend_from_slice(&self.digest);
        for word in [self.text_bytes, u64::from(self.checksum), self.borders, self.ids, 0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        [&MAGIC[..], &crc32fast::hash(&bytes).to_le_bytes(), &bytes].concat()
    }

    /// Where some ids are.
    pub(super) fn place(&self, ids: Range<u64>) -> Range<u64> {
        let width = u64::from(self.width);
        HEAD as u64 + ids.start * width..HEAD as u64 + ids.end * width
    }

    /// Where the sizes of some ids are.
    pub(super) fn place_of_sizes(&self, ids: Range<u64>) -> Range<u64> {
        let start = self.place(0..self.ids).end;
        start + 4 * ids.start..start + 4 * ids.end
    }

    /// Where some borders are.
    pub(super) fn place_of_borders(&self, borders: Range<u64>) -> Range<u64> {
        let sizes = if self.has_sizes { 4 * self.ids } else { 0 };
        let start = self.place(0..self.ids).end + sizes;
        start + 8 * borders.start..start + 8 * borders.end
    }

    /// Whether what is behind the head has this CRC-32.
    pub(super) fn has_rest(&self, checksum: u32) -> bool {
        self.rest == checksum
    }

    /// Bytes of the whole file; `None` of numbers that are none of a file.
    pub(super) fn size(&self) -> Option<u64> {
        let sizes = if self.has_sizes { 4 } else { 0 };
        let of_ids = self.ids.checked_mul(u64::from(self.width) + sizes)?;
        self.borders.checked_mul(8)?.checked_add(of_ids)?.checked_add(HEAD as u64)
    }
}

/// Bytes that a corpus takes on disk.
pub(super) fn size(corpus: &Corpus) -> u64 {
    numbers(corpus).1.iter().fold(HEAD as u64, |size, part| size + part.len() as u64)
}

/// Hands a file to a writer, in slices that follow each other: a large corpus is not copied.
///
/// # Errors
/// Those of the writer.
pub(super) fn write(
    path: &Path,
    corpus: &Corpus,
    digest: Digest,
    write: fn(&Path, &[&[u8]]) -> io::Result<()>,
) -> io::Result<()> {
    let (width, numbers) = numbers(corpus);
    let mut rest = crc32fast::Hasher::new();
    numbers.iter().for_each(|part| rest.update(part));
    let head = Head {
        width,
        has_sizes: corpus.bytes.is_some(),
        digest,
        text_bytes: corpus.text_bytes,
        checksum: corpus.checksum,
        borders: corpus.starts.len() as u64,
        ids: corpus.len(),
        rest: rest.finalize(),
    };
    let [ids, sizes, borders] = numbers;
    write(path, &[&head.encode(), ids, sizes, borders])
}

/// Width of an id in bytes; ids, sizes and borders, as they lie in memory.
fn numbers(corpus: &Corpus) -> (u8, [&[u8]; 3]) {
    let (width, ids): (u8, &[u8]) = match &corpus.ids {
        Ids::U8(ids) => (1, ids),
        Ids::U16(ids) => (2, cast_slice(ids)),
        Ids::U32(ids) => (4, cast_slice(ids)),
    };
    let sizes: &[u8] = corpus.bytes.as_deref().map_or(&[], cast_slice);
    (width, [ids, sizes, cast_slice(&corpus.starts)])
}

/// The corpus, if the file is whole.
pub(super) fn decode(file: &[u8]) -> Option<Corpus> {
    let head = Head::decode(file)?;
    let mut rest = file.get(HEAD..)?;
    if head.size() != Some(file.len() as u64) || crc32fast::hash(rest) != head.rest {
        return None;
    }
    let count = usize::try_from(head.ids).ok()?;
    let ids = match head.width {
        1 => Ids::U8(take(&mut rest, count)?),
        2 => Ids::U16(take(&mut rest, count)?),
        _ => Ids::U32(take(&mut rest, count)?),
    };
    let bytes = if head.has_sizes { Some(take(&mut rest, count)?) } else { None };
    let starts: Vec<u64> = take(&mut rest, usize::try_from(head.borders).ok()?)?;
    let fits = starts.first() == Some(&0) && starts.is_sorted() && starts.last() == Some(&head.ids);
    fits.then_some(Corpus { ids, bytes, starts, text_bytes: head.text_bytes, checksum: head.checksum })
}

/// The next numbers of a file.
fn take<T: AnyBitPattern>(rest: &mut &[u8], count: usize) -> Option<Vec<T>> {
    let (taken, after) = rest.split_at_checked(count.checked_mul(size_of::<T>())?)?;
    *rest = after;
    Some(taken.chunks_exact(size_of::<T>()).map(pod_read_unaligned).collect())
}
