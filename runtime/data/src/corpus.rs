//! Tokenized documents, in memory, addressable by document and position.

use linc_device::words::bytes;
use rayon::prelude::*;

use super::error::DataError;
use super::loading::{Loading, Watch};
use super::tokenizer::{Encoded, Tokenizer};

/// So much text is tokenized at once; bounds the memory of what is not packed yet.
const GROUP_BYTES: usize = 64 << 20;

/// Token ids in the smallest integer that holds the vocabulary.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ids {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
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
        let key = loading.cache.key(&documents, tokenizer, count_bytes);
        if let Some(corpus) = key.and_then(|key| loading.cache.get(key, tokenizer.vocab_size())) {
            let folder = loading.cache.folder().map(|folder| folder.display().to_string());
            let (text, folder) = (bytes(corpus.text_bytes), folder.unwrap_or_default());
            loading.note(&format!("{text} of text need not be tokenized again: its ids are in {folder}"));
            return Ok(corpus);
        }
        let total = documents.iter().map(|document| document.len() as u64).sum();
        let corpus = loading
            .watched("Tokenizing", total, |watch| Self::tokenize(documents, tokenizer, count_bytes, watch))?;
        if let Some(key) = key {
            loading.cache.put(key, &corpus);
        }
        Ok(corpus)
    }

    fn tokenize(
        documents: Vec<String>,
        tokenizer: &Tokenizer,
        count_bytes: bool,
        watch: &Watch<'_>,
    ) -> Result<Self, DataError> {
        let ids = match tokenizer.vocab_size() {
            0..=0x100 => Ids::U8(Vec::new()),
            0x101..=0x1_0000 => Ids::U16(Vec::new()),
            _ => Ids::U32(Vec::new()),
        };
        let bytes = count_bytes.then(Vec::new);
        let mut corpus = Self { ids, bytes, starts: vec![0], text_bytes: 0, checksum: 0 };
        let mut checksum = crc32fast::Hasher::new();
        let encode = |document: &String| {
            tokenizer.encode_watched(document, count_bytes, &|bytes| watch.advance(bytes))
        };
        let mut rest = documents.into_iter().peekable();
        while rest.peek().is_some() {
            let mut group = Vec::new();
            let mut size = 0;
            while let Some(document) = rest.next_if(|next| size == 0 || size + next.len() <= GROUP_BYTES) {
                size += document.len().max(1);
                group.push(document);
            }
            let encoded: Result<Vec<Encoded>, DataError> = group.par_iter().map(encode).collect();
            for (text, document) in group.iter().zip(encoded?) {
                corpus.push(text, document, tokenizer, &mut checksum);
            }
        }
        corpus.checksum = checksum.finalize();
        Ok(corpus)
    }

    fn push(
        &mut self,
        text: &str,
        document: Encoded,
        tokenizer: &Tokenizer,
        checksum: &mut crc32fast::Hasher,
    ) {
        let (bos, eos) = (tokenizer.bos(), tokenizer.eos());
        let mut end = self.len();
        for token in bos.into_iter().chain(document.ids).chain(eos) {
            checksum.update(&token.to_le_bytes());
            match &mut self.ids {
                // Ids are below vocab_size, for which the width was chosen.
                Ids::U8(ids) => ids.push(token as u8),
                Ids::U16(ids) => ids.push(token as u16),
                Ids::U32(ids) => ids.push(token),
            }
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
        self.text_bytes += text.len() as u64;
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

    /// Number of tokens of a document.
    pub(super) fn document_len(&self, document: u32) -> u64 {
        let document = document as usize;
        self.starts[document + 1] - self.starts[document]
    }

    /// Copies tokens of one document, from `skip` on, as many as fit into `out`; says how many.
    pub(super) fn copy_document(&self, document: u32, skip: u64, out: &mut [i32]) -> usize {
        let from = self.starts[document as usize] + skip;
        let end = self.starts[document as usize + 1];
        let count = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX).min(out.len());
        self.copy(from, &mut out[..count]);
        count
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

    /// UTF-8 bytes behind the tokens of a range; 0 if they were not counted.
    pub(super) fn bytes_of(&self, range: std::ops::Range<u64>) -> u64 {
        let Some(bytes) = &self.bytes else { return 0 };
        bytes[range.start as usize..range.end as usize].iter().map(|bytes| u64::from(*bytes)).sum()
    }
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
        let mut tail = [-1; 4];
        assert_eq!(corpus.copy_document(0, 1, &mut tail), 2);
        assert_eq!(tail, [97, 98, -1, -1]);
        let other =
            quiet(|l| Corpus::new(vec!["abc".to_owned()], &Tokenizer::bytes(), false, l)).expect("bytes");
        assert_ne!(corpus.checksum(), other.checksum());
    }
}
