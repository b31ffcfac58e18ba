//! The form of an entry on disk: numbers as they lie in memory, behind a checksum of them all.

use std::io;
use std::path::Path;

use bytemuck::{AnyBitPattern, cast_slice, pod_read_unaligned};
use linc_device::write_entry;

use crate::corpus::{Corpus, Ids};

/// First bytes of an entry; another format gets another number.
pub(super) const MAGIC: &[u8; 12] = b"linc-tokens1";
/// Bytes of an entry before its numbers.
const HEAD: usize = MAGIC.len() + 4 + 2 + 4 * 8;

/// Bytes that a corpus takes on disk.
pub(super) fn size(corpus: &Corpus) -> u64 {
    numbers(corpus).1.iter().fold(HEAD as u64, |size, part| size + part.len() as u64)
}

/// Writes an entry that readers see whole or not at all, also if this process is killed.
///
/// # Errors
/// What the file system says.
pub(super) fn write(path: &Path, corpus: &Corpus) -> io::Result<()> {
    let (width, numbers) = numbers(corpus);
    let head = head(corpus, width, &numbers);
    let [starts, ids, sizes] = numbers;
    write_entry(path, &[&head, starts, ids, sizes])
}

/// Width of an id in bytes; where documents start, ids and sizes, as they lie in memory: a large corpus is not copied.
fn numbers(corpus: &Corpus) -> (u8, [&[u8]; 3]) {
    let (width, ids): (u8, &[u8]) = match &corpus.ids {
        Ids::U8(ids) => (1, ids),
        Ids::U16(ids) => (2, cast_slice(ids)),
        Ids::U32(ids) => (4, cast_slice(ids)),
    };
    let sizes: &[u8] = corpus.bytes.as_deref().map_or(&[], cast_slice);
    (width, [cast_slice(&corpus.starts), ids, sizes])
}

/// What an entry has before its numbers: magic, CRC-32 of the rest, width of an id, whether sizes are kept, size of the
/// text, checksum of the ids, number of documents' borders and of ids.
fn head(corpus: &Corpus, width: u8, numbers: &[&[u8]; 3]) -> Vec<u8> {
    let counts = [corpus.text_bytes, u64::from(corpus.checksum), corpus.starts.len() as u64, corpus.len()];
    let about = [&[width, u8::from(corpus.bytes.is_some())][..], cast_slice(&counts)].concat();
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&about);
    numbers.iter().for_each(|part| checksum.update(part));
    [&MAGIC[..], &checksum.finalize().to_le_bytes(), &about].concat()
}

/// The corpus, if the entry is whole.
pub(super) fn decode(entry: &[u8]) -> Option<Corpus> {
    let (checksum, rest) = entry.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    if crc32fast::hash(rest) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let ([width, has_bytes], rest) = rest.split_first_chunk::<2>()?;
    let mut rest = rest;
    let [text_bytes, checksum, starts, count] = *take::<u64>(&mut rest, 4)? else { return None };
    let count = usize::try_from(count).ok()?;
    let starts: Vec<u64> = take(&mut rest, usize::try_from(starts).ok()?)?;
    let ids = match width {
        1 => Ids::U8(take(&mut rest, count)?),
        2 => Ids::U16(take(&mut rest, count)?),
        4 => Ids::U32(take(&mut rest, count)?),
        _ => return None,
    };
    let bytes = if *has_bytes == 1 { Some(take(&mut rest, count)?) } else { None };
    let fits = starts.first() == Some(&0) && starts.is_sorted() && starts.last() == Some(&(count as u64));
    let checksum = u32::try_from(checksum).ok()?;
    (fits && rest.is_empty()).then_some(Corpus { ids, bytes, starts, text_bytes, checksum })
}

/// The next numbers of an entry.
fn take<T: AnyBitPattern>(rest: &mut &[u8], count: usize) -> Option<Vec<T>> {
    let (taken, after) = rest.split_at_checked(count.checked_mul(size_of::<T>())?)?;
    *rest = after;
    Some(taken.chunks_exact(size_of::<T>()).map(pod_read_unaligned).collect())
}
