//! Text to tokens and back: bytes, any Hugging Face `tokenizer.json`, or a rank file of tiktoken or Llama 3.
//!
//! The byte tokenizer has 256 tokens, the bytes themselves. Text never contains byte 0 (a NUL makes a
//! file binary), so token 0 marks the start of each document; there is no separate end. A
//! `tokenizer.json` gives each document the BOS before and the EOS after it that its files name.
//!
//! Invariant: the ids of a text depend on the text and the tokenizer's files only, not on chance, threads,
//! or where a long text was cut.

mod long;
pub(crate) mod losses;
mod other;
mod ranks;
mod special;
mod stream;

pub(super) use long::Follow;
pub use stream::Detokenizer;

use linc_device::words::count;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hmac_sha256::Hash as Sha256;
use serde::{Deserialize, Serialize};
use tokenizers::models::ModelWrapper;

use super::error::{DataError, unreadable};
use ranks::NoTokenizer;
use special::Special;

/// The folder in which Meta's folders have the files of a model as it was trained, its rank file among them.
const ORIGINAL: &str = "original";

/// Name of a tokenizer's main file.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// Turns text into tokens and back.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    backend: Backend,
    special: Special,
    vocab_size: usize,
    files: Arc<Vec<TokenizerFile>>,
    notes: Vec<String>,
}

/// A file that a tokenizer was read from. What was read is kept, so that a checkpoint gets what the run reads its text
/// with, even if the file was changed or removed since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerFile {
    /// Its usual name in a folder of its own.
    pub name: &'static str,
    /// Its contents.
    pub bytes: Vec<u8>,
}

/// Tokens that a document has around it where it is trained on, and a prompt where it is continued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Borders {
    /// Before each document and prompt.
    pub bos: Option<u32>,
    /// After each document.
    pub eos: Option<u32>,
}

impl std::fmt::Display for Borders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = |id: Option<u32>| id.map_or_else(|| "none".to_owned(), |id| format!("token {id}"));
        write!(f, "BOS {}, EOS {}", words(self.bos), words(self.eos))
    }
}

#[derive(Clone, Debug)]
enum Backend {
    Bytes,
    HuggingFace { path: PathBuf, inner: Box<tokenizers::Tokenizer> },
}

/// Tokens of one document, without BOS and EOS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, below the tokenizer's `vocab_size`.
    pub ids: Vec<u32>,
    /// UTF-8 bytes of the text that each token stands for; they add up to the text.
    pub bytes: Vec<u32>,
}

impl Tokenizer {
    /// The byte tokenizer: 256 tokens, 0 starts a document.
    pub fn bytes() -> Self {
        let special = Special { bos: Some(0), eos: None, ends: vec![0] };
        Self { backend: Backend::Bytes, special, vocab_size: 256, files: Arc::default(), notes: Vec::new() }
    }

    /// The tokenizer of `[model] tokenizer_path`; bytes if that is not set.
    ///
    /// # Errors
    /// As [`Tokenizer::open`].
    pub fn from_setting(tokenizer_path: Option<&str>) -> Result<Self, DataError> {
        let open = |path| Self::open(Path::new(path)).map_err(|error| error.of("model.tokenizer_path"));
        tokenizer_path.map_or_else(|| Ok(Self::bytes()), open)
    }

    /// Reads a `tokenizer.json` or a rank file, or the one in a folder. BOS and EOS are what `tokenizer_config.json` or
    /// `special_tokens_map.json` beside it say, otherwise what its added tokens are called.
    ///
    /// # Errors
    /// A file is missing or is not what its name says.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let path = if path.is_dir() { other::tokenizer_in(path)? } else { path.to_path_buf() };
        let fail =
            |reason: String| DataError::Tokenizer { path: path.clone(), reason, help: other::help(&path) };
        let mut json = std::fs::read(&path).map_err(|error| unreadable(&path, &error))?;
        let mut notes = Vec::new();
        if ranks::is_rank_file(&path, &json) {
            let converted = ranks::to_json(&path, &json).map_err(|error| match error {
                NoTokenizer::Damaged(reason) => fail(reason),
                NoTokenizer::Unknown(reason) => {
                    DataError::UnknownEncoding { path: path.clone(), reason, help: other::help(&path) }
                }
            });
            let (converted, note) = converted?;
            json = converted;
            notes.push(note);
        }
        let mut inner = tokenizers::Tokenizer::from_bytes(&json).map_err(|error| fail(error.to_string()))?;
        make_repeatable(&mut inner, &path, &mut notes).map_err(fail)?;
        let largest = inner.get_vocab(true).into_values().max();
        let vocab_size = largest.map_or(0, |largest| largest as usize + 1);
        if vocab_size == 0 {
            return Err(fail("it has no tokens".to_owned()));
        }
        let mut files = vec![TokenizerFile { name: TOKENIZER_FILE, bytes: json }];
        files.extend(special::files_beside(&path)?);
        let special = Special::of(&inner, &files[1..], &path, &mut notes)?;
        let backend = Backend::HuggingFace { path, inner: Box::new(inner) };
        Ok(Self { backend, special, vocab_size, files: Arc::new(files), notes })
    }

    /// Where a folder of a model has its tokenizer: a `tokenizer.json`, else its only rank file, which Meta's folders have in
    /// `original`; nothing if there is none.
    ///
    /// # Errors
    /// There are several rank files.
    pub fn find(folder: &Path) -> Result<Option<PathBuf>, DataError> {
        for place in [folder.to_path_buf(), folder.join(ORIGINAL)] {
            if let Some(path) = other::find_in(&place)?.filter(|path| path.is_file()) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// What it is, for messages.
    pub fn name(&self) -> String {
        match &self.backend {
            Backend::Bytes => "the byte tokenizer".to_owned(),
            Backend::HuggingFace { path, .. } => format!("the tokenizer {}", path.display()),
        }
    }

    /// The files that make it up, for a checkpoint; none for the byte tokenizer.
    pub fn files(&self) -> &[TokenizerFile] {
        &self.files
    }

    /// Remarks for people: what was switched off, what does not fit together.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Identifies the files, and the BOS and EOS that were found in them: two tokenizers with the same digest give
    /// documents the same ids.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for id in [self.special.bos, self.special.eos] {
            hash.update(id.map_or(-1, i64::from).to_le_bytes());
        }
        for file in self.files.iter() {
            hash.update(file.name);
            hash.update((file.bytes.len() as u64).to_le_bytes());
            hash.update(&file.bytes);
        }
        hash.finalize()
    }

    /// Its digest, for people to compare.
    pub fn fingerprint(&self) -> String {
        self.digest().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether it takes so little time that nothing is gained by keeping what it gave.
    pub(super) fn is_fast(&self) -> bool {
        matches!(self.backend, Backend::Bytes)
    }

    /// Whether a NUL character has a meaning of its own, so that no text may contain one.
    pub(super) fn reserves_nul(&self) -> bool {
        matches!(self.backend, Backend::Bytes)
    }

    /// Number of token ids; a model needs at least this vocab_size.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token before each document and each prompt.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// The token after each document.
    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    /// What stands before and after each document.
    pub fn borders(&self) -> Borders {
        Borders { bos: self.bos(), eos: self.eos() }
    }

    /// What stands before and after each document, in words.
    pub(super) fn borders_in_words(&self) -> String {
        let name = |id: u32| match &self.backend {
            // The byte that no text contains.
            Backend::Bytes => format!("byte {id}"),
            Backend::HuggingFace { inner, .. } => {
                format!("{} ({id})", inner.id_to_token(id).unwrap_or_default())
            }
        };
        match (self.bos().map(name), self.eos().map(name)) {
            (Some(bos), Some(eos)) => format!("each document between {bos} and {eos}"),
            (Some(bos), None) => format!("{bos} before each document, nothing after it"),
            (None, Some(eos)) => format!("{eos} after each document, nothing before it"),
            (None, None) => "nothing between documents".to_owned(),
        }
    }

    /// Whether generation is over at this token.
    pub fn ends_document(&self, id: u32) -> bool {
        self.special.ends.contains(&id)
    }

    /// Tokens of a text, without BOS and EOS, and the size of the text behind each.
    ///
    /// # Errors
    /// The tokenizer has no token for some part of the text and none for "unknown".
    pub fn encode(&self, text: &str) -> Result<Encoded, DataError> {
        self.encode_watched(text, true, &|_: usize| Ok(()))
    }

    /// Tokens of a text, without BOS and EOS; the same as [`Tokenizer::encode`]'s, in less time.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_ids(&self, text: &str) -> Result<Vec<u32>, DataError> {
        Ok(self.encode_watched(text, false, &|_: usize| Ok(()))?.ids)
    }

    /// Tokens of a text, with their sizes where `count_bytes`, while somebody follows, and may end the work.
    pub(super) fn encode_watched(
        &self,
        text: &str,
        count_bytes: bool,
        follow: &dyn Follow,
    ) -> Result<Encoded, DataError> {
        match &self.backend {
            Backend::Bytes => {
                let ids = text.bytes().map(u32::from).collect();
                follow.advance(text.len())?;
                Ok(Encoded { ids, bytes: if count_bytes { vec![1; text.len()] } else { Vec::new() } })
            }
            Backend::HuggingFace { inner, .. } => {
                let fail = |error: tokenizers::Error| {
                    let source_name = format!("the text with {}", self.name());
                    DataError::Tokenize { source_name, reason: error.to_string() }
                };
                long::encode(inner, text, count_bytes, &fail, follow)
            }
        }
    }

    /// Text of some tokens, without special tokens; what is not UTF-8 becomes U+FFFD, an unknown id nothing.
    pub fn decode(&self, ids: &[u32]) -> String {
        match &self.backend {
            Backend::Bytes => {
                let bytes: Vec<u8> =
                    ids.iter().filter_map(|id| u8::try_from(*id).ok()).filter(|byte| *byte != 0).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Backend::HuggingFace { inner, .. } => inner.decode(ids, true).unwrap_or_default(),
        }
    }
}

impl Tokenizer {
    /// The text of one token by itself, also of one that is special.
    pub fn token(&self, id: u32) -> String {
        match &self.backend {
            Backend::Bytes => {
                String::from_utf8_lossy(&u8::try_from(id).map_or(vec![], |byte| vec![byte])).into()
            }
            Backend::HuggingFace { inner, .. } => inner.decode(&[id], false).unwrap_or_default(),
        }
    }
}

/// Switches off what would cut, pad or vary the tokens of a text: training data and prompts are whole, and a run must
/// read the same tokens each time.
fn make_repeatable(
    inner: &mut tokenizers::Tokenizer,
    path: &Path,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let mut off = Vec::new();
    if let Some(truncation) = inner.get_truncation() {
        off.push(format!("its truncation to {}", count(truncation.max_length, "token")));
        inner.with_truncation(None).map_err(|error| error.to_string())?;
    }
    if inner.get_padding().is_some() {
        off.push("its padding".to_owned());
        inner.with_padding(None);
    }
    let mut model = inner.get_model().clone();
    let chance = match &mut model {
        ModelWrapper::BPE(bpe) => {
            bpe.dropout.take().filter(|p| *p > 0.0).map(|p| format!("its dropout of {p}"))
        }
        ModelWrapper::Unigram(unigram) => {
            unigram.nbest_size = None;
            unigram.alpha.take().filter(|a| *a != 0.0).map(|a| format!("its sampling with alpha {a}"))
        }
        ModelWrapper::WordPiece(_) | ModelWrapper::WordLevel(_) => None,
    };
    if chance.is_some() {
        inner.with_model(model);
        off.extend(chance);
    }
    if !off.is_empty() {
        let name = path.display();
        notes.push(format!("{name}: {} off: a run reads every text whole and the same each time", and(&off)));
    }
    Ok(())
}

/// `its a is`, `its a and its b are`.
fn and(parts: &[String]) -> String {
    let verb = if parts.len() == 1 { "is" } else { "are" };
    format!("{} {verb} switched", parts.join(" and "))
}

#[cfg(test)]
mod tests;
