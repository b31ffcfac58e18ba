//! Token ids on disk, so that a text that was tokenized before is not tokenized again.
//!
//! An entry is named by a hash of all that its ids depend on, the text itself included, and begins with a checksum: what
//! is damaged is tokenized again and replaced. While a text is tokenized, its [`parts`] are entries of their own, from
//! which the next start goes on if this one is ended. Without a folder that can be written there is no cache, and nothing
//! else changes.

pub(super) mod parts;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hmac_sha256::Hash as Sha256;
use linc_device::{cache_folder, touch_entry, trim_folder, write_entry};

use super::corpus::Corpus;
use super::error::DataError;
use super::loading::Watch;
use super::token_file::{self, Digest};
use super::tokenizer::Tokenizer;

/// The crate that tokenizes: another version may give other ids.
pub(super) const TOKENIZERS: &str = "tokenizers 0.23.2";
/// What linc itself makes of texts and tokens: to be raised when it cuts texts, counts bytes or places BOS and EOS otherwise.
pub(super) const RULES: u32 = 1;
/// What entries are called.
const EXTENSION: &str = "ids";
/// What parts are called of texts that are not tokenized to their end.
const PART: &str = "part";
/// Bytes that entries may have together.
const MOST: u64 = 1 << 30;
/// Less text is tokenized in the time that it takes to look.
const WORTHWHILE: u64 = 1 << 20;
/// Bytes that are hashed between two looks at whether to go on.
const HASHED: usize = 1 << 20;

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

impl Key {
    /// The name of the entry for documents.
    ///
    /// # Errors
    /// [`DataError::Interrupted`].
    pub(super) fn of(
        documents: &[String],
        tokenizer: &Tokenizer,
        counts_bytes: bool,
        watch: &Watch<'_>,
    ) -> Result<Self, DataError> {
        let mut hash = Sha256::new();
        hash.update(token_file::MAGIC);
        hash.update(TOKENIZERS);
        hash.update(RULES.to_le_bytes());
        hash.update([u8::from(counts_bytes)]);
        hash.update(tokenizer.digest());
        for document in documents {
            hash.update((document.len() as u64).to_le_bytes());
            for bytes in document.as_bytes().chunks(HASHED) {
                watch.advance(bytes.len())?;
                hash.update(bytes);
            }
        }
        Ok(Self(hash.finalize()))
    }

    fn name(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

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

    /// Whether ids of so many bytes of text are kept: not where tokenizing takes no time worth keeping anything for.
    pub(super) fn keeps(&self, text_bytes: u64, tokenizer: &Tokenizer) -> bool {
        self.folder.is_some() && !tokenizer.is_fast() && text_bytes >= WORTHWHILE
    }

    /// The whole entry of that name, with ids below `vocab_size`.
    pub(super) fn get(&self, key: Key, vocab_size: usize) -> Option<Corpus> {
        let path = self.path(key)?;
        let corpus = token_file::decode(&fs::read(&path).ok()?)?;
        touch_entry(&path);
        (corpus.largest_id() < vocab_size as u64).then_some(corpus)
    }

    /// Writes an entry, and removes those that were not used for longest once all together are too large. A disk that
    /// refuses is no error: the ids are there.
    pub(super) fn put(&self, key: Key, corpus: &Corpus) {
        let Some(path) = self.path(key) else { return };
        // One that fills the cache would only push out all others.
        if token_file::size(corpus) <= self.most / 2 {
            // A disk that refuses is no error.
            let _ = write(&path, corpus);
        }
        // Before room is made, or those of others would go for them.
        parts::remove(self, key);
        self.trim();
    }

    fn trim(&self) {
        if let Some(folder) = &self.folder {
            trim_folder(folder, &[EXTENSION, PART], self.most);
        }
    }

    fn path(&self, key: Key) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{}.{EXTENSION}", key.name())))
    }
}

/// Writes an entry that readers see whole or not at all, also if this process is killed.
///
/// # Errors
/// What the file system says.
fn write(path: &Path, corpus: &Corpus) -> io::Result<()> {
    // The name depends on the tokenizer.
    token_file::write(path, corpus, Digest::default(), write_entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::Ids;
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
        assert_eq!(token_file::decode(&good).as_ref(), Some(&corpus));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 16;
            assert_eq!(token_file::decode(&bad), None, "byte {at}");
            assert_eq!(token_file::decode(&good[..at]), None, "{at} bytes");
        }
        assert_eq!(token_file::decode(&[&good[..], b"more"].concat()), None);
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
