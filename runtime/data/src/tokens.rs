//! Tokens of a text by their position, wherever they are.

use std::ops::Range;

use super::corpus::Corpus;
use super::error::DataError;
use super::shards::Shards;

/// The tokens of a training or a validation part.
#[derive(Debug)]
pub(super) enum Tokens {
    /// In memory, tokenized at the start.
    Memory(Corpus),
    /// On disk, tokenized before.
    Shards(Shards),
}

impl Tokens {
    /// Number of tokens.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory(corpus) => corpus.len(),
            Self::Shards(shards) => shards.len(),
        }
    }

    pub(super) fn documents(&self) -> u64 {
        match self {
            Self::Memory(corpus) => u64::from(corpus.documents()),
            Self::Shards(shards) => shards.documents(),
        }
    }

    pub(super) fn text_bytes(&self) -> u64 {
        match self {
            Self::Memory(corpus) => corpus.text_bytes(),
            Self::Shards(shards) => shards.text_bytes(),
        }
    }

    pub(super) fn checksum(&self) -> u32 {
        match self {
            Self::Memory(corpus) => corpus.checksum(),
            Self::Shards(shards) => shards.checksum(),
        }
    }

    /// Whether reading may wait for a disk.
    pub(super) fn are_on_disk(&self) -> bool {
        matches!(self, Self::Shards(_))
    }

    /// Copies tokens from a position on; the range must lie inside.
    ///
    /// # Errors
    /// A shard cannot be read.
    pub(super) fn copy(&self, from: u64, out: &mut [i32]) -> Result<(), DataError> {
        match self {
            Self::Memory(corpus) => {
                corpus.copy(from, out);
                Ok(())
            }
            Self::Shards(shards) => shards.copy(from, out),
        }
    }

    /// The tokens of a range that are the first of their documents, ascending.
    ///
    /// # Errors
    /// A shard cannot be read.
    pub(super) fn starts_in(&self, range: Range<u64>) -> Result<Vec<u64>, DataError> {
        match self {
            Self::Memory(corpus) => Ok(corpus.starts_in(range).to_vec()),
            Self::Shards(shards) => shards.starts_in(range),
        }
    }

    /// UTF-8 bytes of the text behind the tokens of a range; `None` where they were not counted.
    ///
    /// # Errors
    /// A shard cannot be read.
    pub(super) fn bytes_of(&self, range: Range<u64>) -> Result<Option<u64>, DataError> {
        match self {
            Self::Memory(corpus) => Ok(Some(corpus.bytes_of(range))),
            Self::Shards(shards) => shards.bytes_of(range),
        }
    }
}
