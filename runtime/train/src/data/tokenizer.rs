//! Text to tokens and back: bytes, or any Hugging Face `tokenizer.json`.
//!
//! The byte tokenizer has 256 tokens, the bytes themselves. Text never contains byte 0 (a NUL makes a
//! file binary), so token 0 marks the start of each document; there is no separate end. A
//! `tokenizer.json` gives each document the BOS before and the EOS after it that its files name.

use super::error::DataError;
use rayon::prelude::*;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Tokens that start a document, in the order of preference, where nothing says which one does.
const BOS_NAMES: [&str; 6] =
    ["<|begin_of_text|>", "<s>", "<bos>", "[BOS]", "<|startoftext|>", "<|start_story|>"];
/// Tokens that end a document, likewise.
const EOS_NAMES: [&str; 8] = [
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "[EOS]",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_story|>",
    "<|im_end|>",
];
/// Longer documents are tokenized in pieces, cut after a line, which bounds memory and uses all threads.
const PIECE_BYTES: usize = 4 << 20;

/// Turns text into tokens and back.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    kind: Kind,
    bos: Option<u32>,
    eos: Option<u32>,
    vocab_size: usize,
}

#[derive(Clone, Debug)]
enum Kind {
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
        Self { kind: Kind::Bytes, bos: Some(0), eos: None, vocab_size: 256 }
    }

    /// The tokenizer of `[model] tokenizer_path`; bytes if that is not set.
    ///
    /// # Errors
    /// As [`Tokenizer::open`].
    pub fn from_setting(tokenizer_path: Option<&str>) -> Result<Self, DataError> {
        tokenizer_path.map_or_else(|| Ok(Self::bytes()), |path| Self::open(Path::new(path)))
    }

    /// Reads a `tokenizer.json`, or the one in a folder. BOS and EOS are what `tokenizer_config.json`
    /// beside it says, otherwise what its added tokens are called.
    ///
    /// # Errors
    /// The file is missing or is not a tokenizer.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
        let fail = |reason: String| DataError::Tokenizer { path: path.clone(), reason };
        let json = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => DataError::Missing { path: path.clone() },
            _ => DataError::Unreadable { path: path.clone(), reason: error.to_string() },
        })?;
        let mut inner = tokenizers::Tokenizer::from_bytes(&json).map_err(|error| fail(error.to_string()))?;
        // Some files cut or pad every text, which training data must not be.
        inner.with_truncation(None).map_err(|error| fail(error.to_string()))?;
        inner.with_padding(None);
        let largest = inner.get_vocab(true).into_values().max();
        let vocab_size = largest.map_or(0, |largest| largest as usize + 1);
        if vocab_size == 0 {
            return Err(fail("it has no tokens".to_owned()));
        }
        let named = special_names(&path)?;
        let bos = find_special(&inner, named.bos.as_deref(), &BOS_NAMES);
        let eos = find_special(&inner, named.eos.as_deref(), &EOS_NAMES);
        Ok(Self { kind: Kind::HuggingFace { path, inner: Box::new(inner) }, bos, eos, vocab_size })
    }

    /// What it is, for messages.
    pub fn name(&self) -> String {
        match &self.kind {
            Kind::Bytes => "the byte tokenizer".to_owned(),
            Kind::HuggingFace { path, .. } => format!("the tokenizer {}", path.display()),
        }
    }

    /// Number of token ids; a model needs at least this vocab_size.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token before each document and each prompt.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token after each document.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether generation is over at this token.
    pub fn ends_document(&self, id: u32) -> bool {
        match self.kind {
            Kind::Bytes => id == 0,
            Kind::HuggingFace { .. } => Some(id) == self.eos,
        }
    }

    /// Tokens of a text, without BOS and EOS, and the size of the text behind each.
    ///
    /// # Errors
    /// The tokenizer has no token for some part of the text and none for "unknown".
    pub fn encode(&self, text: &str) -> Result<Encoded, DataError> {
        match &self.kind {
            Kind::Bytes => Ok(Encoded { ids: byte_ids(text), bytes: vec![1; text.len()] }),
            Kind::HuggingFace { inner, .. } => {
                let pieces: Result<Vec<Encoded>, DataError> =
                    pieces(text).into_par_iter().map(|piece| self.encode_piece(inner, piece)).collect();
                let mut whole = Encoded::default();
                for piece in pieces? {
                    whole.ids.extend(piece.ids);
                    whole.bytes.extend(piece.bytes);
                }
                Ok(whole)
            }
        }
    }

    /// Tokens of a text, without BOS and EOS; the same as [`Tokenizer::encode`]'s, in less time.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_ids(&self, text: &str) -> Result<Vec<u32>, DataError> {
        match &self.kind {
            Kind::Bytes => Ok(byte_ids(text)),
            Kind::HuggingFace { inner, .. } => {
                let encode = |piece| inner.encode_fast(piece, false).map_err(|error| self.failure(&error));
                let pieces: Result<Vec<_>, DataError> =
                    pieces(text).into_par_iter().map(|piece| Ok(encode(piece)?.get_ids().to_vec())).collect();
                Ok(pieces?.concat())
            }
        }
    }

    fn failure(&self, error: &tokenizers::Error) -> DataError {
        let source_name = format!("the text with {}", self.name());
        DataError::Tokenize { source_name, reason: error.to_string() }
    }

    fn encode_piece(&self, inner: &tokenizers::Tokenizer, text: &str) -> Result<Encoded, DataError> {
        let encoding = inner.encode(text, false).map_err(|error| self.failure(&error))?;
        // Offsets may leave out spaces, or repeat a character that several tokens share: each token
        // stands for what lies between the end of those before it and its own end.
        let mut end = 0;
        let mut bytes = Vec::with_capacity(encoding.len());
        for (_, token_end) in encoding.get_offsets() {
            let new_end = end.max(*token_end);
            bytes.push((new_end - end) as u32);
            end = new_end;
        }
        if let Some(last) = bytes.last_mut() {
            *last += (text.len().saturating_sub(end)) as u32;
        }
        Ok(Encoded { ids: encoding.get_ids().to_vec(), bytes })
    }

    /// Text of some tokens, without special tokens; what is not UTF-8 becomes U+FFFD, an unknown id nothing.
    pub fn decode(&self, ids: &[u32]) -> String {
        match &self.kind {
            Kind::Bytes => {
                let bytes: Vec<u8> =
                    ids.iter().filter_map(|id| u8::try_from(*id).ok()).filter(|byte| *byte != 0).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Kind::HuggingFace { inner, .. } => inner.decode(ids, true).unwrap_or_default(),
        }
    }
}

fn byte_ids(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// A text in pieces of about [`PIECE_BYTES`], each but the last ending after a line.
fn pieces(mut text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    while text.len() > PIECE_BYTES {
        let newline = text.as_bytes()[PIECE_BYTES..].iter().position(|byte| *byte == b'\n');
        let Some(newline) = newline else { break };
        let (piece, rest) = text.split_at(PIECE_BYTES + newline + 1);
        pieces.push(piece);
        text = rest;
    }
    if !text.is_empty() {
        pieces.push(text);
    }
    pieces
}

#[derive(Default)]
struct SpecialNames {
    bos: Option<String>,
    eos: Option<String>,
}

/// `bos_token` and `eos_token` of the `tokenizer_config.json` beside a tokenizer, if there is one.
fn special_names(tokenizer: &Path) -> Result<SpecialNames, DataError> {
    let path = tokenizer.with_file_name("tokenizer_config.json");
    let Ok(json) = std::fs::read(&path) else { return Ok(SpecialNames::default()) };
    let config: Value = serde_json::from_slice(&json)
        .map_err(|error| DataError::Tokenizer { path: path.clone(), reason: error.to_string() })?;
    // A token is a string, or an object that describes one.
    let name = |key: &str| {
        let token = config.get(key)?;
        token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
    };
    Ok(SpecialNames { bos: name("bos_token"), eos: name("eos_token") })
}

fn find_special(inner: &tokenizers::Tokenizer, named: Option<&str>, usual: &[&str]) -> Option<u32> {
    if let Some(id) = named.and_then(|name| inner.token_to_id(name)) {
        return Some(id);
    }
    // Only added tokens count: "<s>" could be ordinary text to some vocabulary.
    let added = inner.get_added_tokens_decoder();
    usual.iter().filter_map(|name| inner.token_to_id(name)).find(|id| added.contains_key(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A byte-level BPE with the merges "he", " w", and two special tokens.
    fn small_tokenizer(folder: &Path) -> PathBuf {
        let json = r#"{
            "version": "1.0", "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
            "padding": null,
            "added_tokens": [
                {"id": 9, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
                {"id": 10, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}
            ],
            "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": {"h": 0, "e": 1, "Ġ": 2, "w": 3, "Ã": 4, "¤": 5, "he": 6, "Ġw": 7, "o": 8},
                "merges": ["h e", "Ġ w"]}
        }"#;
        let path = folder.join("tokenizer.json");
        fs::write(&path, json).expect("write");
        path
    }

    #[test]
    fn bytes_round_trip() {
        let tokenizer = Tokenizer::bytes();
        let encoded = tokenizer.encode("né\n").expect("any text");
        assert_eq!(encoded.ids, [110, 195, 169, 10]);
        assert_eq!(encoded.bytes, [1; 4]);
        assert_eq!(tokenizer.decode(&[0, 110, 195, 169, 10, 999]), "né\n");
        assert!(tokenizer.ends_document(0) && !tokenizer.ends_document(10));
    }

    #[test]
    fn a_tokenizer_file_is_read_with_its_special_tokens() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        small_tokenizer(folder.path());
        let tokenizer = Tokenizer::open(folder.path()).expect("valid");
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.vocab_size()), (Some(9), Some(10), 11));
        let encoded = tokenizer.encode("he woä he").expect("all in the vocabulary");
        assert_eq!(encoded.ids, [6, 7, 8, 4, 5, 2, 6]);
        assert_eq!(encoded.bytes.iter().sum::<u32>(), "he woä he".len() as u32);
        // The space before "wo" belongs to its token, and "ä" is counted once.
        assert_eq!(encoded.bytes, [2, 2, 1, 2, 0, 1, 2]);
        assert_eq!(tokenizer.decode(&encoded.ids), "he woä he");
        assert!(tokenizer.ends_document(10));
        fs::write(folder.path().join("tokenizer_config.json"), r#"{"bos_token": {"content": "</s>"}}"#)
            .expect("write");
        assert_eq!(Tokenizer::open(folder.path()).expect("valid").bos(), Some(10));
    }

    #[test]
    fn bad_tokenizers_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = |path: &Path| Tokenizer::open(path).expect_err("refused").to_string();
        assert!(error(&folder.path().join("none.json")).contains("no such file"));
        assert!(error(folder.path()).contains("tokenizer.json"));
        let path = small_tokenizer(folder.path());
        let whole = fs::read(&path).expect("read");
        fs::write(&path, &whole[..200]).expect("write");
        assert!(error(&path).contains("not a usable tokenizer"));
        fs::write(&path, "{}").expect("write");
        assert!(error(&path).contains("not a usable tokenizer"));
        fs::write(&path, &whole).expect("write");
        fs::write(folder.path().join("tokenizer_config.json"), "{").expect("write");
        assert!(error(&path).contains("tokenizer_config.json"));
    }

    #[test]
    fn pieces_make_up_the_text() {
        let text = "a line of text\n".repeat(1_000_000);
        let parts = pieces(&text);
        assert_eq!(parts.concat(), text);
        assert_eq!(parts.len(), 4);
        assert!(parts.iter().all(|part| part.ends_with('\n')));
        let no_lines = "x".repeat(PIECE_BYTES + 5);
        assert_eq!(pieces(&no_lines).len(), 1);
    }

    /// Ids that the tokenizers' own Python package gave for the same strings.
    #[test]
    fn golden_ids_of_public_tokenizers() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/tokenizers");
        let Ok(golden) = fs::read(folder.join("golden_ids.json")) else {
            eprintln!("skipped: no ../shared/data");
            return;
        };
        let golden: Value = serde_json::from_slice(&golden).expect("JSON");
        let cases: Vec<&str> =
            golden["cases"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let mut compared = 0;
        for (file, expected) in golden["tokenizers"].as_object().expect("an object") {
            if !file.ends_with("tokenizer.json") {
                continue;
            }
            let tokenizer = Tokenizer::open(&folder.join(file)).expect("valid");
            for (case, ids) in cases.iter().zip(expected["ids"].as_array().expect("a list")) {
                let ids: Vec<u64> =
                    ids.as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
                let encoded = tokenizer.encode(case).expect("encodes");
                assert_eq!(
                    encoded.ids.iter().map(|id| u64::from(*id)).collect::<Vec<_>>(),
                    ids,
                    "{file}: {case:?}"
                );
                assert_eq!(tokenizer.encode_ids(case), Ok(encoded.ids.clone()), "{file}: {case:?}");
                if !ids.is_empty() {
                    assert_eq!(encoded.bytes.iter().sum::<u32>() as usize, case.len(), "{file}: {case:?}");
                }
                compared += 1;
            }
        }
        assert!(compared >= 100, "{compared}");
    }
}
