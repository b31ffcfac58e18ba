//! Token ids on disk, so that a text that was tokenized before is not tokenized again.
//!
//! An entry is named by a hash of all that its ids depend on, the text itself included, and begins with a checksum: what
//! is damaged is tokenized again and replaced. Without a folder that can be written there is no cache, and nothing else
//! changes.

use std::fs;
use std::path::{Path, PathBuf};

use bytemuck::{AnyBitPattern, cast_slice, pod_read_unaligned};
use hmac_sha256::Hash as Sha256;
use linc_device::{cache_folder, touch_entry, trim_folder, write_entry};

use super::corpus::{Corpus, Ids};
use super::tokenizer::Tokenizer;

/// First bytes of an entry; another format gets another number.
const MAGIC: &[u8; 12] = b"linc-tokens1";
/// The crate that tokenizes: another version may give other ids.
const TOKENIZERS: &str = "tokenizers 0.23.2";
/// What linc itself makes of texts and tokens: to be raised when it cuts texts, counts bytes or places BOS and EOS otherwise.
const RULES: u32 = 1;
/// Bytes of an entry before its numbers.
const HEAD: usize = MAGIC.len() + 4 + 2 + 4 * 8;
/// What entries are called.
const EXTENSION: &str = "ids";
/// Bytes that entries may have together.
const MOST: u64 = 1 << 30;
/// Less text is tokenized in the time that it takes to look.
const WORTHWHILE: u64 = 1 << 20;

/// A folder of entries, or none.
#[derive(Clone, Debug, Default)]
pub struct TokenCache {
    folder: Option<PathBuf>,
    /// Bytes that entries may have together.
    most: u64,
}

/// Names an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key([u8; 32]);

impl TokenCache {
    /// The user's, see [`cache_folder`].
    pub fn of_environment() -> Self {
        Self { folder: cache_folder().map(|folder| folder.join("tokens")), most: MOST }
    }

    /// A cache of a caller's choice, such as a test's.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder: Some(folder), most: MOST }
    }

    /// The folder, for messages.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The name of the entry for documents; `None` where tokenizing takes no time worth keeping anything for.
    pub(super) fn key(&self, documents: &[String], tokenizer: &Tokenizer, counts_bytes: bool) -> Option<Key> {
        self.folder.as_ref()?;
        let size: u64 = documents.iter().map(|document| document.len() as u64).sum();
        if tokenizer.is_fast() || size < WORTHWHILE {
            return None;
        }
        let mut hash = Sha256::new();
        hash.update(MAGIC);
        hash.update(TOKENIZERS);
        hash.update(RULES.to_le_bytes());
        // Entries are written as they lie in memory.
        hash.update(1u32.to_ne_bytes());
        hash.update([u8::from(counts_bytes)]);
        hash.update(tokenizer.digest());
        for document in documents {
            hash.update((document.len() as u64).to_le_bytes());
            hash.update(document);
        }
        Some(Key(hash.finalize()))
    }

    /// The whole entry of that name, with ids below `vocab_size`.
    pub(super) fn get(&self, key: Key, vocab_size: usize) -> Option<Corpus> {
        let path = self.path(key)?;
        let corpus = decode(&fs::read(&path).ok()?)?;
        touch_entry(&path);
        (corpus.largest_id() < vocab_size as u64).then_some(corpus)
    }

    /// Writes an entry, and removes those that were not used for longest once all together are too large. A disk that
    /// refuses is no error: the ids are there.
    pub(super) fn put(&self, key: Key, corpus: &Corpus) {
        let (Some(folder), Some(path)) = (&self.folder, self.path(key)) else { return };
        let (width, numbers) = numbers(corpus);
        let size = numbers.iter().fold(HEAD as u64, |size, part| size + part.len() as u64);
        // One that fills the cache would only push out all others.
        if size > self.most / 2 {
            return;
        }
        let head = head(corpus, width, &numbers);
        let [starts, ids, sizes] = numbers;
        if write_entry(&path, &[&head, starts, ids, sizes]).is_ok() {
            trim_folder(folder, EXTENSION, self.most);
        }
    }

    fn path(&self, Key(key): Key) -> Option<PathBuf> {
        let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(self.folder.as_ref()?.join(format!("{name}.{EXTENSION}")))
    }
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
fn decode(entry: &[u8]) -> Option<Corpus> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loading::quiet;

    fn corpus(text: &str, counts_bytes: bool) -> Corpus {
        let documents = vec![text.to_owned(), "and another".to_owned()];
        quiet(|loading| Corpus::new(documents, &Tokenizer::bytes(), counts_bytes, loading)).expect("bytes")
    }

    const KEY: Key = Key([7; 32]);

    #[test]
    fn what_was_put_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = TokenCache::at(folder.path().join("new/below"));
        assert_eq!(cache.get(KEY, 256), None);
        for counts_bytes in [false, true] {
            let corpus = corpus("some text", counts_bytes);
            cache.put(KEY, &corpus);
            assert_eq!(cache.get(KEY, 256), Some(corpus));
        }
        assert_eq!(cache.get(Key([8; 32]), 256), None);
        assert_eq!(cache.get(KEY, 100), None, "of a larger vocabulary");
        for ids in [Ids::U16(vec![1, 2, 700]), Ids::U32(vec![1, 2, 70_000])] {
            let wide = Corpus { ids, bytes: None, starts: vec![0, 1, 3], text_bytes: 9, checksum: 5 };
            cache.put(KEY, &wide);
            assert_eq!(cache.get(KEY, 70_001), Some(wide));
        }
    }

    #[test]
    fn damage_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = TokenCache::at(folder.path().to_path_buf());
        let corpus = corpus("text", true);
        cache.put(KEY, &corpus);
        let good = fs::read(cache.path(KEY).expect("a path")).expect("an entry");
        assert_eq!(decode(&good).as_ref(), Some(&corpus));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 16;
            assert_eq!(decode(&bad), None, "byte {at}");
            assert_eq!(decode(&good[..at]), None, "{at} bytes");
        }
        assert_eq!(decode(&[&good[..], b"more"].concat()), None);
        fs::write(cache.path(KEY).expect("a path"), &good[..good.len() - 1]).expect("written");
        assert_eq!(cache.get(KEY, 256), None);
        cache.put(KEY, &corpus);
        assert_eq!(cache.get(KEY, 256), Some(corpus));
    }

    #[test]
    fn an_entry_too_large_for_the_cache_is_not_begun() {
        let folder = tempfile::tempdir().expect("a folder");
        let corpus = corpus("some text", true);
        let at = |name: &str, most| TokenCache { folder: Some(folder.path().join(name)), most };
        let unbounded = at("unbounded", MOST);
        unbounded.put(KEY, &corpus);
        let size = fs::metadata(unbounded.path(KEY).expect("a path")).expect("an entry").len();
        let fits = at("fits", size * 2);
        fits.put(KEY, &corpus);
        assert_eq!(fits.get(KEY, 256).as_ref(), Some(&corpus));
        at("small", size * 2 - 1).put(KEY, &corpus);
        assert!(!folder.path().join("small").exists(), "nothing of it is written");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_cache() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "in the way").expect("written");
        let corpus = corpus("text", false);
        for cache in [TokenCache::at(file.join("below")), TokenCache::default()] {
            cache.put(KEY, &corpus);
            assert_eq!(cache.get(KEY, 256), None);
        }
    }

    #[test]
    fn the_crate_that_tokenizes_is_the_one_that_is_named() {
        let (name, version) = TOKENIZERS.split_once(' ').expect("name and version");
        // A range of versions would let another build give other ids under the same key.
        let manifest = include_str!("../../../Cargo.toml");
        let pinned = format!("\n{name} = {{ version = \"={version}\",");
        assert!(
            manifest.contains(&pinned),
            "{TOKENIZERS} is not what Cargo.toml pins: name the version that is"
        );
        let lock = include_str!("../../../Cargo.lock");
        let package = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        assert!(lock.contains(&package), "{TOKENIZERS} is not in Cargo.lock: name the version that is");
    }
}
