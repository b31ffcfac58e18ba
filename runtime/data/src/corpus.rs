//! Tokenized documents, in memory, addressable by document and position.

use std::iter::Peekable;
use std::ops::Range;

use linc_device::words::bytes;
use rayon::prelude::*;

use super::cache::Key;
use super::cache::parts::{self, Parts};
use super::error::DataError;
use super::loading::{Loading, Watch};
use super::tokenizer::{Encoded, Tokenizer};

/// So much text is tokenized at once; bounds the memory of what is not packed yet.
const GROUP_BYTES: usize = 64 << 20;
/// So much text of short documents is tokenized, and kept, as one part: some tenths of a second.
const PART_BYTES: usize = 256 << 10;

/// Token ids in the smallest integer that holds the vocabulary.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ids {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
}

impl Ids {
    /// None yet, of a vocabulary of that size.
    pub(super) fn of_vocabulary(size: usize) -> Self {
        match size {
            0..=0x100 => Self::U8(Vec::new()),
            0x101..=0x1_0000 => Self::U16(Vec::new()),
            _ => Self::U32(Vec::new()),
        }
    }

    /// Bytes of each.
    pub(super) fn width(&self) -> u64 {
        match self {
            Self::U8(_) => 1,
            Self::U16(_) => 2,
            Self::U32(_) => 4,
        }
    }

    /// Adds one of the vocabulary that the width was chosen for.
    pub(super) fn push(&mut self, id: u32) {
        match self {
            Self::U8(ids) => ids.push(id as u8),
            Self::U16(ids) => ids.push(id as u16),
            Self::U32(ids) => ids.push(id),
        }
    }

    /// Those at some places, which must exist.
    pub(super) fn range(&self, range: Range<usize>) -> Vec<u32> {
        match self {
            Self::U8(ids) => ids[range].iter().map(|id| u32::from(*id)).collect(),
            Self::U16(ids) => ids[range].iter().map(|id| u32::from(*id)).collect(),
            Self::U32(ids) => ids[range].to_vec(),
        }
    }
}

/// All documents of one part (training or validation), each as BOS + tokens + EOS.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Corpus {
    pub(super) ids: Ids,
    /// UTF-8 bytes of the text behind each token, if they were asked for.
    pub(super) bytes: Option<Vec<u32>>,
    /// First token of each document, and the end of the last.
    pub(super) starts: Vec<u64>,
    /// Size of the text.
    pub(super) text_bytes: u64,
    /// CRC-32 of all ids.
    pub(super) checksum: u32,
}

impl Corpus {
    /// Tokenizes documents, or takes the ids that an earlier run kept of the same ones. `count_bytes` keeps the size of
    /// each token's text.
    ///
    /// # Errors
    /// The tokenizer has no tokens for some text; or [`DataError::Interrupted`].
    pub(super) fn new(
        documents: Vec<String>,
        tokenizer: &Tokenizer,
        count_bytes: bool,
        loading: &mut Loading<'_>,
    ) -> Result<Self, DataError> {
        loading.check()?;
        let total = documents.iter().map(|document| document.len() as u64).sum();
        let key = match loading.cache.keeps(total, tokenizer) {
            true => {
                let hash = |watch: &Watch<'_>| Key::of(&documents, tokenizer, count_bytes, watch);
                Some(loading.watched("Hashing", total, hash)?)
            }
            false => None,
        };
        let folder = loading.cache.folder().map(|folder| folder.display().to_string()).unwrap_or_default();
        if let Some(key) = key
            && let Some(corpus) = loading.cache.get(key, tokenizer.vocab_size())
        {
            parts::remove(&loading.cache, key);
            let text = bytes(corpus.text_bytes);
            loading.note(&format!("{text} of text need not be tokenized again: its ids are in {folder}"));
            return Ok(corpus);
        }
        let parts = Parts::open(loading.cache.clone(), key, tokenizer, count_bytes);
        if parts.is_begun() {
            loading.note(&format!("Tokenizing goes on with what an earlier start has left in {folder}"));
        }
        let tokenize = |watch: &Watch<'_>| Self::tokenize(documents, tokenizer, &parts, watch);
        let corpus = loading.watched("Tokenizing", total, tokenize).inspect_err(|error| {
            if *error == DataError::Interrupted && parts.is_kept() {
                loading.note(&format!(
                    "What is tokenized by now is in {folder}: the same command goes on from there"
                ));
            }
        })?;
        if let Some(key) = key {
            loading.cache.put(key, &corpus);
        }
        Ok(corpus)
    }

    pub(super) fn tokenize(
        documents: Vec<String>,
        tokenizer: &Tokenizer,
        parts: &Parts<'_>,
        watch: &Watch<'_>,
    ) -> Result<Self, DataError> {
        let ids = Ids::of_vocabulary(tokenizer.vocab_size());
        let bytes = parts.count_bytes().then(Vec::new);
        let mut corpus = Self { ids, bytes, starts: vec![0], text_bytes: 0, checksum: 0 };
        let mut checksum = crc32fast::Hasher::new();
        let mut rest = documents.into_iter().peekable();
        let mut number = 0;
        while rest.peek().is_some() {
            let group = following(&mut rest, GROUP_BYTES, |document| document.len());
            let mut numbers = (0..group.len()).peekable();
            let mut ranges = Vec::new();
            while let Some(first) = numbers.peek().copied() {
                let part = following(&mut numbers, PART_BYTES, |at| group[*at].len());
                ranges.push(first..first + part.len());
            }
            let encode = |range: Range<usize>| parts.encode(number + range.start, &group[range], watch);
            let encoded: Result<Vec<Vec<Encoded>>, DataError> = ranges.into_par_iter().map(encode).collect();
            for (text, document) in group.iter().zip(encoded?.into_iter().flatten()) {
                corpus.push(text.len(), document, tokenizer, &mut checksum);
            }
            number += group.len();
        }
        corpus.checksum = checksum.finalize();
        Ok(corpus)
    }

    /// Adds a document whose text has so many bytes, with BOS and EOS.
    pub(super) fn push(
        &mut self,
        text_bytes: usize,
        document: Encoded,
        tokenizer: &Tokenizer,
        checksum: &mut crc32fast::Hasher,
    ) {
        let (bos, eos) = (tokenizer.bos(), tokenizer.eos());
        let mut end = self.len();
        for token in bos.into_iter().chain(document.ids).chain(eos) {
            checksum.update(&token.to_le_bytes());
            self.ids.push(token);
            end += 1;
        }
        if let Some(bytes) = &mut self.bytes {
            // BOS and EOS stand for no text.
            bytes.extend(bos.map(|_| 0));
            bytes.extend(document.bytes);
            bytes.extend(eos.map(|_| 0));
        }
        if end > self.len() {
            self.starts.push(end);
        }
        self.text_bytes += text_bytes as u64;
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The largest id there is; 0 if there is none.
    pub(super) fn largest_id(&self) -> u64 {
        let largest = match &self.ids {
            Ids::U8(ids) => ids.iter().max().map(|id| u64::from(*id)),
            Ids::U16(ids) => ids.iter().max().map(|id| u64::from(*id)),
            Ids::U32(ids) => ids.iter().max().map(|id| u64::from(*id)),
        };
        largest.unwrap_or(0)
    }

    /// Number of documents.
    pub(super) fn documents(&self) -> u32 {
        u32::try_from(self.starts.len() - 1).unwrap_or(u32::MAX)
    }

    /// Size of the text in bytes.
    pub(super) fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// Checksum of all tokens.
    pub(super) fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Where the tokens of a document are.
    pub(super) fn document(&self, document: u32) -> Range<u64> {
        let document = document as usize;
        self.starts[document]..self.starts[document + 1]
    }

    /// Copies tokens from a position in the order of the documents; the range must lie inside.
    pub(super) fn copy(&self, from: u64, out: &mut [i32]) {
        let range = from as usize..from as usize + out.len();
        match &self.ids {
            Ids::U8(ids) => out.iter_mut().zip(&ids[range]).for_each(|(out, id)| *out = i32::from(*id)),
            Ids::U16(ids) => out.iter_mut().zip(&ids[range]).for_each(|(out, id)| *out = i32::from(*id)),
            Ids::U32(ids) => out.iter_mut().zip(&ids[range]).for_each(|(out, id)| *out = *id as i32),
        }
    }

    /// The tokens of a range that are the first of their documents; the range must lie inside.
    pub(super) fn starts_in(&self, range: Range<u64>) -> &[u64] {
        let at = |token: u64| self.starts.partition_point(|start| *start < token);
        &self.starts[at(range.start)..at(range.end)]
    }

    /// UTF-8 bytes behind the tokens of a range; 0 if they were not counted.
    pub(super) fn bytes_of(&self, range: std::ops::Range<u64>) -> u64 {
        let Some(bytes) = &self.bytes else { return 0 };
        bytes[range.start as usize..range.end as usize].iter().map(|bytes| u64::from(*bytes)).sum()
    }
}

/// The next items, one at least, and no more than have `most` bytes together.
fn following<T>(
    rest: &mut Peekable<impl Iterator<Item = T>>,
    most: usize,
    bytes: impl Fn(&T) -> usize,
) -> Vec<T> {
    let (mut items, mut size) = (Vec::new(), 0);
    while let Some(item) = rest.next_if(|next| items.is_empty() || size + bytes(next) <= most) {
        size += bytes(&item);
        items.push(item);
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loading::quiet;

    #[test]
    fn documents_are_delimited() {
        let documents = ["ab".to_owned(), "c".to_owned()];
        let corpus = quiet(|l| Corpus::new(documents.to_vec(), &Tokenizer::bytes(), true, l)).expect("bytes");
        let mut out = [0; 5];
        corpus.copy(0, &mut out);
        assert_eq!(out, [0, 97, 98, 0, 99]);
        assert_eq!((corpus.len(), corpus.documents(), corpus.text_bytes()), (5, 2, 3));
        assert_eq!(corpus.bytes_of(0..5), 3);
        assert_eq!(corpus.bytes_of(3..4), 0);
        assert_eq!((corpus.document(0), corpus.document(1)), (0..3, 3..5));
        let other =
            quiet(|l| Corpus::new(vec!["abc".to_owned()], &Tokenizer::bytes(), false, l)).expect("bytes");
        assert_ne!(corpus.checksum(), other.checksum());
    }
}
