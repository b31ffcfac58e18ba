//! Documents of a corpus on their way into shards, tokenized on all cores in their order.

use std::path::PathBuf;

use linc_device::write_to_disk;
use rayon::prelude::*;

use super::write::TokenizeSettings;
use super::{Index, Part, Place, Shard, folder};
use crate::corpus::{Corpus, Ids};
use crate::error::DataError;
use crate::files::Document;
use crate::files::find::Found;
use crate::loading::Watch;
use crate::tokenizer::{Detokenizer, Encoded, Tokenizer, losses};
use crate::{split, token_file};

/// Text per thread that is tokenized at once; what is in no shard yet is lost if the work is ended.
const GROUP: usize = 1 << 20;
/// So many tokens are made text as one, and as many before them say how their text begins: those without any are looked
/// through again for each that follows.
const FOLLOWED: usize = 64;

/// Documents on their way into shards.
pub(super) struct Writer<'a> {
    settings: TokenizeSettings<'a>,
    tokenizer: &'a Tokenizer,
    files: &'a [Found],
    watch: Watch<'a>,
    pub(super) index: Index,
    /// Documents that are not tokenized yet, each with the place behind it.
    group: Vec<(Document, Place)>,
    group_bytes: usize,
    training: Pending,
    validation: Pending,
    /// What to say of the first documents.
    pub(super) warning: Option<String>,
    is_checked: bool,
}

/// A shard that is not full yet.
struct Pending {
    corpus: Corpus,
    checksum: crc32fast::Hasher,
}

impl Pending {
    fn new(tokenizer: &Tokenizer, has_sizes: bool) -> Self {
        let ids = Ids::of_vocabulary(tokenizer.vocab_size());
        let bytes = has_sizes.then(Vec::new);
        let corpus = Corpus { ids, bytes, starts: vec![0], text_bytes: 0, checksum: 0 };
        Self { corpus, checksum: crc32fast::Hasher::new() }
    }
}

/// A document's tokens, and how large its text is.
struct Prepared {
    tokens: Encoded,
    text_bytes: usize,
    is_held_out: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        settings: TokenizeSettings<'a>,
        tokenizer: &'a Tokenizer,
        index: Index,
        files: &'a [Found],
        watch: Watch<'a>,
    ) -> Self {
        let (training, validation) = (Pending::new(tokenizer, false), Pending::new(tokenizer, true));
        let (group, group_bytes, warning) = (Vec::new(), 0, None);
        // Who goes on has looked at the beginning before.
        let is_checked = index.shards().next().is_some();
        Self {
            settings,
            tokenizer,
            files,
            watch,
            index,
            group,
            group_bytes,
            training,
            validation,
            warning,
            is_checked,
        }
    }

    /// Takes the next document, and the place behind it.
    ///
    /// # Errors
    /// It cannot be tokenized, or a shard not be written; or [`DataError::Interrupted`].
    pub(super) fn add(&mut self, document: Document, behind: Place) -> Result<(), DataError> {
        let bytes = size(&document);
        if bytes == 0 {
            return Ok(());
        }
        self.group_bytes += bytes;
        self.group.push((document, behind));
        let is_full = self.group_bytes >= GROUP * rayon::current_num_threads();
        if is_full { self.tokenize_group() } else { Ok(()) }
    }

    fn tokenize_group(&mut self) -> Result<(), DataError> {
        let group = std::mem::take(&mut self.group);
        self.group_bytes = 0;
        if !std::mem::replace(&mut self.is_checked, true) {
            // As much as is there with one thread, so that threads do not matter.
            let mut before = 0;
            let first = group.iter().take_while(|(document, _)| {
                let begins = before < GROUP;
                before += size(document);
                begins
            });
            let texts = first.filter_map(|(document, _)| match document {
                Document::Text(text) => Some(text.as_str()),
                Document::Tokens(_) => None,
            });
            self.warning = losses::check(self.tokenizer, &texts.collect::<Vec<&str>>())?;
        }
        let prepared: Result<Vec<Option<Prepared>>, DataError> =
            group.par_iter().map(|(document, behind)| self.prepare(document, *behind)).collect();
        for (prepared, (_, behind)) in prepared?.into_iter().zip(group) {
            let Some(prepared) = prepared else { continue };
            let part = if prepared.is_held_out { &mut self.validation } else { &mut self.training };
            part.corpus.push(prepared.text_bytes, prepared.tokens, self.tokenizer, &mut part.checksum);
            if self.training.corpus.len() >= self.settings.shard_tokens {
                self.write(behind)?;
            }
        }
        Ok(())
    }

    /// `None` of a document that has no text, as of an empty one.
    fn prepare(&self, document: &Document, behind: Place) -> Result<Option<Prepared>, DataError> {
        match document {
            Document::Text(text) => {
                let is_held_out = split::is_held_out(text, self.settings.held_out);
                let advance = |bytes: usize| self.watch.advance(bytes);
                let tokens = self.tokenizer.encode_watched(text, is_held_out, &advance)?;
                Ok(Some(Prepared { tokens, text_bytes: text.len(), is_held_out }))
            }
            Document::Tokens(ids) => {
                self.watch.advance(0)?;
                self.of_tokens(ids, behind)
            }
        }
    }

    /// Ids as somebody else made them; BOS and EOS are placed here.
    fn of_tokens(&self, ids: &[u32], behind: Place) -> Result<Option<Prepared>, DataError> {
        let vocab_size = self.tokenizer.vocab_size();
        let refuse = |reason: String| {
            let path = self.files.get(behind.file).map(|file| file.path.clone()).unwrap_or_default();
            Err(DataError::Ids { path, number: behind.document, reason })
        };
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
            let name = self.tokenizer.name();
            return refuse(format!("the id {id} is no token of {name}, which has {vocab_size}"));
        }
        let ids = ids.strip_prefix(self.tokenizer.bos().as_slice()).unwrap_or(ids);
        let ids = ids.strip_suffix(self.tokenizer.eos().as_slice()).unwrap_or(ids);
        if ids.is_empty() {
            return Ok(None);
        }
        if self.tokenizer.reserves_nul() && ids.contains(&0) {
            return refuse(
                "the id 0 within it: of bytes it begins a document, and no text has it".to_owned(),
            );
        }
        let text = self.tokenizer.decode(ids);
        let is_held_out = split::is_held_out(&text, self.settings.held_out);
        let bytes = if is_held_out { self.sizes(ids) } else { Vec::new() };
        let tokens = Encoded { ids: ids.to_vec(), bytes };
        Ok(Some(Prepared { tokens, text_bytes: text.len(), is_held_out }))
    }

    /// Bytes by which each token lets the text grow. The tokenizer need not have made them of that text: special tokens
    /// within it have none, and words may be split otherwise.
    fn sizes(&self, ids: &[u32]) -> Vec<u32> {
        let mut sizes = Vec::with_capacity(ids.len());
        let (mut text, mut followed) = (Detokenizer::new(self.tokenizer, &[]), 0);
        for (at, id) in ids.iter().enumerate() {
            let new = text.push(*id);
            sizes.push(new.len() as u32);
            followed += 1;
            // Rather not within a character.
            if followed >= FOLLOWED && !new.is_empty() || followed >= 2 * FOLLOWED {
                let before = &ids[(at + 1).saturating_sub(FOLLOWED)..=at];
                let next = Detokenizer::new(self.tokenizer, before);
                sizes[at] += std::mem::replace(&mut text, next).finish().len() as u32;
                followed = 0;
            }
        }
        if let Some(last) = sizes.last_mut() {
            *last += text.finish().len() as u32;
        }
        sizes
    }

    /// Writes what there is, and that the next shard begins at a place.
    fn write(&mut self, next: Place) -> Result<(), DataError> {
        for part in [Part::Validation, Part::Training] {
            let (pending, shards, name) = match part {
                Part::Training => (&mut self.training, &mut self.index.training, "training"),
                Part::Validation => (&mut self.validation, &mut self.index.validation, "validation"),
            };
            if pending.corpus.len() == 0 {
                continue;
            }
            let full = std::mem::replace(pending, Pending::new(self.tokenizer, part == Part::Validation));
            let mut corpus = full.corpus;
            corpus.checksum = full.checksum.finalize();
            let file = folder::shard_name(name, shards.len());
            let path: PathBuf = self.settings.out.join(&file);
            token_file::write(&path, &corpus, self.tokenizer.digest(), write_to_disk)
                .map_err(|error| folder::unwritable(&path, &error))?;
            shards.push(Shard {
                file,
                tokens: corpus.len(),
                documents: u64::from(corpus.documents()),
                text_bytes: corpus.text_bytes,
                checksum: corpus.checksum,
                size: token_file::size(&corpus),
            });
        }
        self.index.next = next;
        folder::write_index(self.settings.out, &self.index)
    }

    /// Writes the last shards.
    ///
    /// # Errors
    /// As [`Writer::add`], or there is nothing to train on.
    pub(super) fn finish(&mut self, end: Place) -> Result<(), DataError> {
        self.tokenize_group()?;
        if self.index.training.is_empty() && self.training.corpus.len() == 0 {
            let path = PathBuf::from(self.settings.path);
            let written: u64 = self.index.validation.iter().map(|shard| shard.documents).sum();
            let held_out = written + u64::from(self.validation.corpus.documents());
            return Err(match held_out {
                0 => DataError::Empty { path },
                documents => DataError::AllHeldOut { path, documents },
            });
        }
        self.index.complete = true;
        self.write(end)
    }
}

fn size(document: &Document) -> usize {
    match document {
        Document::Text(text) => text.len(),
        Document::Tokens(ids) => 4 * ids.len(),
    }
}
