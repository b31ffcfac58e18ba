//! Tokenized documents, in memory, addressable by document and position.

use super::error::DataError;
use super::tokenizer::{Encoded, Tokenizer};
use rayon::prelude::*;

/// Token ids in the smallest integer that holds the vocabulary.
#[derive(Debug)]
enum Ids {
    U16(Vec<u16>),
    U32(Vec<u32>),
}

/// All documents of one part (training or validation), each as BOS + tokens + EOS.
#[derive(Debug)]
pub(super) struct Corpus {
    ids: Ids,
    /// UTF-8 bytes of the text behind each token, if they were asked for.
    bytes: Option<Vec<u32>>,
    /// First token of each document, and the end of the last.
    starts: Vec<u64>,
    /// Size of the text.
    text_bytes: u64,
    checksum: u32,
}

impl Corpus {
    /// Tokenizes documents. `count_bytes` keeps the size of each token's text.
    ///
    /// # Errors
    /// The tokenizer has no tokens for some text.
    pub(super) fn new(
        documents: &[String],
        tokenizer: &Tokenizer,
        count_bytes: bool,
    ) -> Result<Self, DataError> {
        let encoded: Result<Vec<Encoded>, DataError> =
            documents.par_iter().map(|document| tokenizer.encode(document)).collect();
        let mut ids = match tokenizer.vocab_size() {
            0..=0x1_0000 => Ids::U16(Vec::new()),
            _ => Ids::U32(Vec::new()),
        };
        let mut bytes = count_bytes.then(Vec::new);
        let mut starts = vec![0];
        let mut checksum = crc32fast::Hasher::new();
        let mut total = 0u64;
        for document in encoded? {
            let tokens = tokenizer.bos().into_iter().chain(document.ids).chain(tokenizer.eos());
            let before = total;
            for token in tokens {
                checksum.update(&token.to_le_bytes());
                match &mut ids {
                    // Ids are below vocab_size, which fits.
                    Ids::U16(ids) => ids.push(token as u16),
                    Ids::U32(ids) => ids.push(token),
                }
                total += 1;
            }
            if let Some(bytes) = &mut bytes {
                // BOS and EOS stand for no text.
                bytes.extend(tokenizer.bos().map(|_| 0));
                bytes.extend(document.bytes);
                bytes.extend(tokenizer.eos().map(|_| 0));
            }
            if total > before {
                starts.push(total);
            }
        }
        let text_bytes = documents.iter().map(|document| document.len() as u64).sum();
        Ok(Self { ids, bytes, starts, text_bytes, checksum: checksum.finalize() })
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
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

    #[test]
    fn documents_are_delimited() {
        let documents = ["ab".to_owned(), "c".to_owned()];
        let corpus = Corpus::new(&documents, &Tokenizer::bytes(), true).expect("bytes");
        let mut out = [0; 5];
        corpus.copy(0, &mut out);
        assert_eq!(out, [0, 97, 98, 0, 99]);
        assert_eq!((corpus.len(), corpus.documents(), corpus.text_bytes()), (5, 2, 3));
        assert_eq!(corpus.bytes_of(0..5), 3);
        assert_eq!(corpus.bytes_of(3..4), 0);
        let mut tail = [-1; 4];
        assert_eq!(corpus.copy_document(0, 1, &mut tail), 2);
        assert_eq!(tail, [97, 98, -1, -1]);
        let other = Corpus::new(&["abc".to_owned()], &Tokenizer::bytes(), false).expect("bytes");
        assert_ne!(corpus.checksum(), other.checksum());
    }
}
