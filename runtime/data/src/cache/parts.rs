//! What is kept of a text while it is tokenized, so that a start that is ended in the middle, in whatever way, has not
//! worked for nothing: the tokens of its parts, each in a file of its own.
//!
//! A part is a range of one document, or some short documents that follow each other. Its name says which, behind the
//! name of the entry that the whole text is going to have, a hash of all that its ids depend on: a part that is whole is
//! right, whoever wrote it. Once the text is tokenized its parts are removed; those of a start that nobody repeats go
//! after a week, or when the cache is full.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use linc_device::touch_entry;
use rayon::prelude::*;

use super::{Key, PART, TokenCache, write};
use crate::corpus::{Corpus, Ids};
use crate::error::DataError;
use crate::loading::Watch;
use crate::token_file;
use crate::tokenizer::{Encoded, Follow, Tokenizer};

/// So long after its last use a part is kept.
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The parts of one text.
pub(crate) struct Parts<'a> {
    cache: TokenCache,
    /// Nothing is kept without it.
    key: Option<Key>,
    tokenizer: &'a Tokenizer,
    count_bytes: bool,
    /// Those of an earlier start.
    found: BTreeSet<PathBuf>,
    /// Size of all that are on disk.
    bytes: AtomicU64,
}

impl<'a> Parts<'a> {
    /// Those that an earlier start left. Parts of any text that were not used for long are removed.
    pub(crate) fn open(
        cache: TokenCache,
        key: Option<Key>,
        tokenizer: &'a Tokenizer,
        count_bytes: bool,
    ) -> Self {
        let mut parts =
            Self { cache, key, tokenizer, count_bytes, found: BTreeSet::new(), bytes: AtomicU64::new(0) };
        let (Some(folder), Some(key)) = (parts.cache.folder(), key) else { return parts };
        let (mut found, mut bytes) = (BTreeSet::new(), 0);
        for file in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, Ok(about)) = (file.path(), file.metadata()) else { continue };
            let is = |extension: &str| path.extension().is_some_and(|e| e == extension);
            let age = about.modified().ok().and_then(|time| time.elapsed().ok());
            // A writer that was killed leaves what it had begun.
            if (is(PART) || is("tmp")) && age.is_some_and(|age| age > WEEK) {
                let _ = fs::remove_file(path);
            } else if is(PART) && is_of(&path, key) {
                bytes += about.len();
                found.insert(path);
            }
        }
        parts.found = found;
        parts.bytes = AtomicU64::new(bytes);
        parts
    }

    /// Whether tokens have their sizes.
    pub(crate) fn count_bytes(&self) -> bool {
        self.count_bytes
    }

    /// Whether an earlier start has left any.
    pub(crate) fn is_begun(&self) -> bool {
        !self.found.is_empty()
    }

    /// Whether any are on disk.
    pub(crate) fn is_kept(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > 0
    }

    /// Tokens of documents that follow each other, the first of them `number`. A long one is known and kept by ranges.
    ///
    /// # Errors
    /// Those of tokenizing; or [`DataError::Interrupted`].
    pub(crate) fn encode(
        &self,
        number: usize,
        documents: &[String],
        watch: &Watch<'_>,
    ) -> Result<Vec<Encoded>, DataError> {
        if let [document] = documents {
            let follow = OfDocument { parts: self, number, watch };
            return Ok(vec![self.tokenizer.encode_watched(document, self.count_bytes, &follow)?]);
        }
        let text_bytes: usize = documents.iter().map(String::len).sum();
        let path = self.path(&format!("{number}+{}", documents.len()));
        if let Some(tokens) = self.known(path.as_deref(), documents.len(), text_bytes) {
            watch.advance(text_bytes)?;
            return Ok(tokens);
        }
        let advance = |bytes: usize| watch.advance(bytes);
        let encode = |document: &String| self.tokenizer.encode_watched(document, self.count_bytes, &advance);
        let tokens = documents.par_iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        self.keep(path.as_deref(), &tokens, text_bytes);
        Ok(tokens)
    }

    fn path(&self, part: &str) -> Option<PathBuf> {
        Some(self.cache.folder()?.join(format!("{}-{part}.{PART}", self.key?.name())))
    }

    /// Tokens of so many texts, if they are whole.
    fn known(&self, path: Option<&Path>, texts: usize, text_bytes: usize) -> Option<Vec<Encoded>> {
        let path = path.filter(|path| self.found.contains(*path))?;
        let part = token_file::decode(&fs::read(path).ok()?)?;
        touch_entry(path);
        let fits = part.starts.len() == texts + 1
            && part.text_bytes == text_bytes as u64
            && part.bytes.is_some() == self.count_bytes
            && part.largest_id() < self.tokenizer.vocab_size() as u64;
        fits.then(|| unpack(&part))
    }

    /// Writes a part, unless those of this text together would push out what others keep. A disk that refuses is no error.
    fn keep(&self, path: Option<&Path>, texts: &[Encoded], text_bytes: usize) {
        let Some(path) = path else { return };
        let part = pack(texts, text_bytes as u64, self.tokenizer.vocab_size(), self.count_bytes);
        let size = token_file::size(&part);
        let before = self.bytes.fetch_add(size, Ordering::Relaxed);
        if before + size > self.cache.most / 2 || write(path, &part).is_err() {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            return;
        }
        // Looking at the folder for each would take longer with each.
        let step = (self.cache.most / 16).max(1);
        if before / step != (before + size) / step {
            self.cache.trim();
        }
    }
}

/// Removes the parts of a text that is tokenized.
pub(crate) fn remove(cache: &TokenCache, key: Key) {
    let Some(folder) = cache.folder() else { return };
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_of(&file.path(), key) {
            let _ = fs::remove_file(file.path());
        }
    }
}

/// Whether a file is a part of that text, or what a writer left of one.
fn is_of(path: &Path, key: Key) -> bool {
    let rest = path.file_name().and_then(|name| name.to_str()?.strip_prefix(&key.name()));
    rest.is_some_and(|rest| rest.starts_with('-'))
}

/// Knows and keeps ranges of one document.
struct OfDocument<'a> {
    parts: &'a Parts<'a>,
    number: usize,
    watch: &'a Watch<'a>,
}

impl OfDocument<'_> {
    fn path(&self, range: &Range<usize>) -> Option<PathBuf> {
        self.parts.path(&format!("{}-{}-{}", self.number, range.start, range.end))
    }
}

impl Follow for OfDocument<'_> {
    fn advance(&self, bytes: usize) -> Result<(), DataError> {
        self.watch.advance(bytes)
    }

    fn known(&self, range: &Range<usize>) -> Option<Encoded> {
        self.parts.known(self.path(range).as_deref(), 1, range.len())?.pop()
    }

    fn keep(&self, range: &Range<usize>, tokens: &Encoded) {
        self.parts.keep(self.path(range).as_deref(), std::slice::from_ref(tokens), range.len());
    }
}

/// Texts as an entry, without BOS and EOS, the empty ones too.
fn pack(texts: &[Encoded], text_bytes: u64, vocab_size: usize, count_bytes: bool) -> Corpus {
    let mut ids = Ids::of_vocabulary(vocab_size);
    let mut starts = vec![0];
    for text in texts {
        text.ids.iter().for_each(|id| ids.push(*id));
        starts.push(starts[starts.len() - 1] + text.ids.len() as u64);
    }
    let bytes = count_bytes.then(|| texts.iter().flat_map(|text| &text.bytes).copied().collect());
    Corpus { ids, bytes, starts, text_bytes, checksum: 0 }
}

fn unpack(part: &Corpus) -> Vec<Encoded> {
    let text = |borders: &[u64]| {
        let range = borders[0] as usize..borders[1] as usize;
        let bytes = part.bytes.as_ref().map_or_else(Vec::new, |bytes| bytes[range.clone()].to_vec());
        Encoded { ids: part.ids.range(range), bytes }
    };
    part.starts.windows(2).map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loading::{Loading, quiet};
    use std::sync::atomic::AtomicBool;
    use std::time::SystemTime;

    /// Words are tokens.
    fn tokenizer(folder: &Path) -> Tokenizer {
        let path = folder.join("tokenizer.json");
        let json = r#"{"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
            "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "?": 2}, "unk_token": "?"}}"#;
        fs::write(&path, json).expect("written");
        Tokenizer::open(&path).expect("a tokenizer")
    }

    /// A long document between short ones, of long words, which takes less time.
    fn documents() -> Vec<String> {
        let (b, c) = ("b ".repeat(2), format!("{} ", "c".repeat(60)));
        let short = |i: usize| format!("{} a c", (b.clone() + &c).repeat(2000 + i));
        let mut documents: Vec<String> = (0..6).map(short).collect();
        documents.insert(4, (0..140_000).map(|i: usize| ["a ", &b, &c][i * i % 7 % 3]).collect());
        documents
    }

    const KEY: Key = Key([3; 32]);
    const OTHER: Key = Key([4; 32]);

    fn tokenize(cache: &TokenCache, tokenizer: &Tokenizer, count_bytes: bool) -> Corpus {
        let parts = Parts::open(cache.clone(), Some(KEY), tokenizer, count_bytes);
        quiet(|loading| {
            loading.watched("Tokenizing", 0, |watch| Corpus::tokenize(documents(), tokenizer, &parts, watch))
        })
        .expect("tokens")
    }

    fn files(cache: &TokenCache) -> Vec<PathBuf> {
        let files = fs::read_dir(cache.folder().expect("a folder")).expect("a folder");
        let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
        files.sort();
        files
    }

    #[test]
    fn a_start_goes_on_with_the_parts_of_another() {
        for count_bytes in [false, true] {
            let folder = tempfile::tempdir().expect("a folder");
            let tokenizer = tokenizer(folder.path());
            let whole = tokenize(&TokenCache::default(), &tokenizer, count_bytes);
            let cache = TokenCache::at(folder.path().join("tokens"));
            assert!(tokenize(&cache, &tokenizer, count_bytes) == whole);
            let parts = files(&cache);
            assert_eq!(parts.len(), 6, "{parts:?}");
            let contents = |path: &PathBuf| fs::read(path).expect("a part");
            let good: Vec<Vec<u8>> = parts.iter().map(contents).collect();

            // Some are missing, some damaged, as after the loss of power.
            fs::remove_file(&parts[0]).expect("removed");
            fs::write(&parts[1], &good[1][..good[1].len() / 2]).expect("written");
            let mut flipped = good[2].clone();
            flipped[good[2].len() / 2] ^= 4;
            fs::write(&parts[2], flipped).expect("written");
            fs::write(&parts[3], "").expect("written");
            assert!(tokenize(&cache, &tokenizer, count_bytes) == whole);
            assert_eq!(files(&cache), parts);
            assert!(parts.iter().map(contents).eq(good.iter().cloned()), "they are made again");

            // A whole one is believed: nothing is tokenized that is there.
            let mut other = token_file::decode(&good[5]).expect("whole");
            other.ids = Ids::U8(vec![1; other.len() as usize]);
            write(&parts[5], &other).expect("written");
            assert!(tokenize(&cache, &tokenizer, count_bytes).ids != whole.ids);
            // But not one of a larger vocabulary, or of other texts.
            other.ids = Ids::U8(vec![3; other.len() as usize]);
            write(&parts[5], &other).expect("written");
            assert!(tokenize(&cache, &tokenizer, count_bytes) == whole);
            fs::write(&parts[5], &good[0]).expect("written");
            assert!(tokenize(&cache, &tokenizer, count_bytes) == whole);
        }
    }

    #[test]
    fn parts_go_when_nobody_needs_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let tokenizer = tokenizer(folder.path());
        let cache = TokenCache::at(folder.path().join("tokens"));
        tokenize(&cache, &tokenizer, false);
        let tokens = folder.path().join("tokens");
        let file = |key: Key, rest: &str| tokens.join(format!("{}{rest}", key.name()));
        let days = |path: &Path, days: u64| {
            fs::write(path, "").expect("written");
            let time = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
            fs::File::options().write(true).open(path).and_then(|f| f.set_modified(time)).expect("a time");
        };
        let old = [file(OTHER, "-0-1-2.part"), file(OTHER, "-0-1-3.99-0.tmp"), file(KEY, "-9-1-3.part")];
        old.iter().for_each(|path| days(path, 8));
        let kept = [file(OTHER, "-1-1-2.part"), file(OTHER, "-1-1-3.99-0.tmp"), file(OTHER, ".ids")];
        kept.iter().for_each(|path| days(path, 6));
        days(&kept[2], 80);
        assert!(Parts::open(cache.clone(), Some(KEY), &tokenizer, false).is_begun());
        let there = files(&cache);
        assert!(old.iter().all(|path| !there.contains(path)), "{there:?}");
        assert!(kept.iter().all(|path| there.contains(path)), "{there:?}");
        days(&file(KEY, "-0-1-3.99-0.tmp"), 0);
        days(&file(KEY, ".ids"), 0);
        remove(&cache, KEY);
        let mut left = [&kept[..], &[file(KEY, ".ids")]].concat();
        left.sort();
        assert_eq!(files(&cache), left);
    }

    #[test]
    fn parts_leave_room_for_entries() {
        let folder = tempfile::tempdir().expect("a folder");
        let tokenizer = tokenizer(folder.path());
        let whole = tokenize(&TokenCache::default(), &tokenizer, false);
        let most = whole.len();
        let cache = TokenCache { folder: Some(folder.path().join("tokens")), most };
        let size = || files(&cache).iter().map(|f| fs::metadata(f).expect("a file").len()).sum::<u64>();
        for _ in 0..2 {
            assert!(tokenize(&cache, &tokenizer, false) == whole);
            assert!((1..=most / 2).contains(&size()), "{}", size());
        }
    }

    #[test]
    fn parts_do_not_push_out_the_entry_of_another_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let tokenizer = tokenizer(folder.path());
        let at = |most| TokenCache { folder: Some(folder.path().join("tokens")), most };
        let corpus = |documents, cache| {
            let mut loading = Loading { stop: &AtomicBool::new(false), tell: &mut |_| {}, cache };
            Corpus::new(documents, &tokenizer, false, &mut loading).expect("tokens")
        };
        let other = corpus(documents().into_iter().rev().collect(), at(u64::MAX));
        let [kept] = &files(&at(0))[..] else { panic!("one entry") };
        // Room for two entries, but not for the parts of one besides.
        corpus(documents(), at(token_file::size(&other) * 27 / 10));
        assert!(kept.exists() && files(&at(0)).len() == 2, "{:?}", files(&at(0)));
    }

    #[test]
    fn naming_and_tokenizing_can_be_stopped() {
        let folder = tempfile::tempdir().expect("a folder");
        let tokenizer = tokenizer(folder.path());
        let stop = AtomicBool::new(true);
        let mut loading = Loading { stop: &stop, tell: &mut |_| {}, cache: TokenCache::default() };
        let name = loading.watched("Hashing", 0, |w| Key::of(&documents(), &tokenizer, false, w));
        assert_eq!(name, Err(DataError::Interrupted));
        let parts = Parts::open(TokenCache::default(), None, &tokenizer, false);
        let tokens =
            loading.watched("Tokenizing", 0, |w| Corpus::tokenize(documents(), &tokenizer, &parts, w));
        assert_eq!(tokens, Err(DataError::Interrupted));
    }
}
