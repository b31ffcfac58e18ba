//! What is wrong with training data or a tokenizer, and what to do about it.

use std::path::{Path, PathBuf};

use linc_config::help_for_missing;
use linc_device::words::{count, help_to_read, reason};

/// What is read, for messages.
pub(super) const FORMATS: &str =
    "linc reads .txt, .text, .raw, .jsonl, .ndjson and .json, each also with .gz or .zst, and .parquet";

/// A reason why data cannot be used; the command line exits with [`DataError::EXIT_CODE`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum DataError {
    #[error("{}: there is no such file or folder{}", path.display(), instead_of(path))]
    Missing { path: PathBuf },
    #[error("{}: cannot be read: {reason}\n  help: {help}", path.display())]
    Unreadable { path: PathBuf, reason: String, help: &'static str },
    #[error(
        "{pattern}: not a valid pattern: {reason}\n  help: quote a character that is not meant as a pattern: [[] for [, [*] for *, [?] for ?"
    )]
    BadPattern { pattern: String, reason: String },
    #[error("{pattern}: nothing matches; {} has {there}\n  help: ** in a pattern stands for folders at any depth", folder.display())]
    NoMatch { pattern: String, folder: PathBuf, there: String },
    #[error(
        "dataset {task:?} has no sequences of {seq_len} tokens of a vocabulary of {vocab}\n  help: use a longer training.seq_len, or a model with more tokens"
    )]
    NoSequences { task: &'static str, seq_len: usize, vocab: u32 },
    /// What a setting names cannot be used; `error` says why.
    #[error("{setting}: {error}")]
    Setting { setting: &'static str, error: Box<DataError> },
    #[error("{}: no data files found\n  help: {}", path.display(), advice.map_or_else(|| format!("{FORMATS}, in folders at any depth"), |advice| format!("{advice}; {FORMATS}")))]
    NoFiles { path: PathBuf, advice: Option<&'static str> },
    #[error("{}: a file of this kind is not read\n  help: {advice}; {FORMATS}", path.display())]
    OtherFormat { path: PathBuf, advice: &'static str },
    #[error(
        "{}: its lines are JSON objects with a field `{field}`, but its name is that of plain text\n  help: call it .jsonl, to read that field of each line as a document",
        path.display()
    )]
    JsonInText { path: PathBuf, field: String },
    #[error(
        "{}: a pipe, socket or device, which may have no end, is not read\n  help: write its text into a file, and name that",
        path.display()
    )]
    NotRegular { path: PathBuf },
    #[error("{}: there is no text in it\n  help: {FORMATS}; of JSON objects the field, of Parquet the column training.text_field", path.display())]
    Empty { path: PathBuf },
    #[error(
        "{}: byte {offset} is {}, so this is binary data or UTF-16, not UTF-8 text\n  help: convert UTF-16 with `iconv -f UTF-16 -t UTF-8 OLD > NEW`; leave out other files",
        path.display(),
        if *byte == 0 { "NUL".to_owned() } else { format!("0x{byte:02x}, of a byte order mark") }
    )]
    Binary { path: PathBuf, offset: usize, byte: u8 },
    #[error(
        "{}: not UTF-8 text: byte {offset} is 0x{byte:02x}\n  help: if it is Latin-1 (or another encoding), convert it with `iconv -f LATIN1 -t UTF-8 OLD > NEW`",
        path.display()
    )]
    NotUtf8 { path: PathBuf, offset: usize, byte: u8 },
    #[error(
        "{}:{line}: {reason}\n  help: each document must be a JSON object with a string `{field}`; training.text_field (--text-field of linc tokenize) names another field",
        path.display()
    )]
    Json { path: PathBuf, line: usize, reason: String, field: String },
    #[error("{}: the {what} is cut off or damaged: {reason}\n  help: fetch or write it again", path.display())]
    Damaged { path: PathBuf, what: &'static str, reason: String },
    #[error(
        "{}: {reason}\n  help: each document must be a string in the column `{field}`; training.text_field (--text-field of linc tokenize) names another column",
        path.display()
    )]
    Column { path: PathBuf, reason: String, field: String },
    #[error(
        "{}: its column `{field}` is packed with {codec}, which is not read\n  help: write it again, packed with zstd, snappy or gzip",
        path.display()
    )]
    Codec { path: PathBuf, field: String, codec: String },
    #[error(
        "{}: its column `{field}` holds token ids, not text\n  help: make shards of it with `linc tokenize {:?} --text-field {field:?} --out DIR`, and the tokenizer that it was made with (--tokenizer), and name those",
        path.display(),
        path.display().to_string()
    )]
    TokenColumn { path: PathBuf, field: String },
    #[error("{}, document {number}: {reason}\n  help: name the tokenizer that it was made with (--tokenizer)", path.display())]
    Ids { path: PathBuf, number: u64, reason: String },
    #[error("{}: {reason}\n  help: {help}", folder.display())]
    Shards { folder: PathBuf, reason: String, help: String },
    #[error(
        "{}: its {} held out, and nothing is left to train on\n  help: say a lower --held-out (0 for none), or split the text into more documents",
        path.display(),
        if *documents == 1 { "only document is".to_owned() } else { format!("{} are all", count(*documents as usize, "document")) }
    )]
    AllHeldOut { path: PathBuf, documents: u64 },
    #[error("cannot write {}: {reason}\n  help: {help}", path.display())]
    Unwritable { path: PathBuf, reason: String, help: &'static str },
    #[error(
        "{source_name}: {}, fewer than one sequence of {needed} (training.seq_len + 1)\n  help: use a smaller training.seq_len or more data{}",
        count(*tokens as usize, "token"),
        if *held_out { "; a part of the text is held out for validation (validation.fraction)" } else { "" }
    )]
    TooShort { source_name: String, tokens: u64, needed: u64, held_out: bool },
    #[error(
        "{source_name}: nothing is left to validate on\n  help: raise validation.fraction (of shards, --held-out of linc tokenize), add data, name other data with validation.dataset_path, or say validation.enable = false"
    )]
    NothingHeldOut { source_name: String },
    #[error("{}: not a usable tokenizer: {reason}\n  help: {help}", path.display())]
    Tokenizer { path: PathBuf, reason: String, help: String },
    #[error("{}: not a usable tokenizer: {reason}\n  help: {help}", path.display())]
    UnknownEncoding { path: PathBuf, reason: String, help: String },
    #[error("{}: no tokenizer.json in this folder: {has}\n  help: {help}", folder.display())]
    NoTokenizer { folder: PathBuf, has: String, help: String },
    #[error(
        "{tokenizer}: {lost} of the characters of the text do not come back from its tokens{of_tokens}, by {bytes} bytes of the text: it is not made for such text\n  help: name the tokenizer of a model for this language (model.tokenizer_path), or leave it out to read bytes"
    )]
    Lost { tokenizer: String, lost: String, of_tokens: String, bytes: usize },
    #[error("cannot tokenize {source_name}: {reason}")]
    Tokenize { source_name: String, reason: String },
    #[error(
        "{tokens_of} has {}, but the model's vocab_size is {vocab_size}\n  help: raise the model's vocab_size to at least {needed} ([model.overrides] vocab_size = {needed})",
        count(*needed, "token")
    )]
    Vocabulary { tokens_of: String, needed: usize, vocab_size: usize },
    #[error(
        "cannot go on where the checkpoint stopped: {reason}\n  help: restore that, or start a new run in another job.dump_folder"
    )]
    Resume { reason: String },
    #[error("interrupted while the data were read; nothing was trained")]
    Interrupted,
}

impl DataError {
    /// Exit status of a process that was given bad data.
    pub const EXIT_CODE: i32 = 2;

    /// Whether it is the end that somebody asked for.
    pub fn is_interrupt(&self) -> bool {
        *self == Self::Interrupted
    }

    /// With the setting that gives the path, where the path itself is at fault, and not what is in a file.
    pub(super) fn of(self, setting: &'static str) -> Self {
        match self {
            Self::Missing { .. }
            | Self::Unreadable { .. }
            | Self::BadPattern { .. }
            | Self::NoMatch { .. }
            | Self::NoFiles { .. }
            | Self::OtherFormat { .. }
            | Self::NotRegular { .. }
            | Self::Empty { .. }
            | Self::Tokenizer { .. }
            | Self::UnknownEncoding { .. }
            | Self::NoTokenizer { .. } => Self::Setting { setting, error: Box::new(self) },
            Self::Setting { .. }
            | Self::JsonInText { .. }
            | Self::Binary { .. }
            | Self::NotUtf8 { .. }
            | Self::Json { .. }
            | Self::Damaged { .. }
            | Self::Column { .. }
            | Self::Codec { .. }
            | Self::TokenColumn { .. }
            | Self::Ids { .. }
            | Self::Shards { .. }
            | Self::AllHeldOut { .. }
            | Self::Unwritable { .. }
            | Self::TooShort { .. }
            | Self::NothingHeldOut { .. }
            | Self::Lost { .. }
            | Self::Tokenize { .. }
            | Self::Vocabulary { .. }
            | Self::NoSequences { .. }
            | Self::Resume { .. }
            | Self::Interrupted => self,
        }
    }
}

/// What else there is, as a line of help.
fn instead_of(path: &Path) -> String {
    help_for_missing(path).map_or_else(String::new, |help| format!("\n  help: {help}"))
}

/// The error of a file or folder that the system does not let be read.
pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> DataError {
    let path = path.to_path_buf();
    match error.kind() {
        std::io::ErrorKind::NotFound => DataError::Missing { path },
        _ => DataError::Unreadable { path, reason: reason(error), help: help_to_read(error) },
    }
}
