//! `linc tokenize`: documents of a corpus, as they come from its files, become shards.
//!
//! Shards end between documents, where they have as many tokens as they should, whatever threads there are and however often
//! the work was ended: the same corpus gives the same bytes.

use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use hmac_sha256::Hash as Sha256;
use linc_device::words::count;

use super::writer::Writer;
use super::{Index, Part, Place, Shard, check, folder, in_hex};
use crate::cache::{RULES, TOKENIZERS};
use crate::error::DataError;
use crate::files::find::{self, Found};
use crate::files::{self, Document, Kinds, Names, Outcome, Wanted};
use crate::loading::{Loading, Watch};
use crate::token_file;
use crate::tokenizer::Tokenizer;

/// What is to be made of which corpus.
#[derive(Clone, Copy, Debug)]
pub struct TokenizeSettings<'a> {
    /// A file, a folder or a glob.
    pub path: &'a str,
    /// Field of JSON objects, or column of Parquet files.
    pub text_field: &'a str,
    /// What stands between the documents of a plain text file; without it a file is one.
    pub document_separator: Option<&'a str>,
    /// As for [`Tokenizer::open`]; bytes are tokens without it.
    pub tokenizer_path: Option<&'a str>,
    /// The folder to write.
    pub out: &'a Path,
    /// Share of the documents that is not to be trained on, 0 to 0.9; a document is in it or not by its content.
    pub held_out: f64,
    /// Tokens after which a shard ends with its document.
    pub shard_tokens: u64,
}

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokenized {
    /// Documents to train on.
    pub documents: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Size of their text.
    pub text_bytes: u64,
    /// Shards that they are in.
    pub shards: usize,
    /// Tokens to validate on.
    pub held_out: u64,
    /// Whether there was nothing left to do.
    pub was_complete: bool,
}

impl Tokenized {
    fn of(index: &Index, was_complete: bool) -> Self {
        let sum = |part: Part, of: fn(&Shard) -> u64| index.part(part).iter().map(of).sum();
        Self {
            documents: sum(Part::Training, |shard| shard.documents),
            tokens: sum(Part::Training, |shard| shard.tokens),
            text_bytes: sum(Part::Training, |shard| shard.text_bytes),
            shards: index.training.len(),
            held_out: sum(Part::Validation, |shard| shard.tokens),
            was_complete,
        }
    }
}

/// Tokenizes a corpus into a folder of shards; one that an earlier call was ended in is finished.
///
/// # Errors
/// The corpus or the tokenizer cannot be used, the folder is of something else or cannot be written, or
/// [`DataError::Interrupted`], after which the same call goes on.
pub fn tokenize(settings: TokenizeSettings<'_>, loading: &mut Loading<'_>) -> Result<Tokenized, DataError> {
    let open = |path| Tokenizer::open(Path::new(path)).map_err(|error| error.of("--tokenizer"));
    let tokenizer = settings.tokenizer_path.map_or_else(|| Ok(Tokenizer::bytes()), open)?;
    for note in tokenizer.notes() {
        loading.note(note);
    }
    let mut corpus = find::find(settings.path)?;
    // A folder of shards may lie in the folder of its corpus.
    let out = settings.out.canonicalize().unwrap_or_else(|_| settings.out.to_path_buf());
    let is_own = |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(&out));
    corpus.found.retain(|file| !is_own(&file.path));
    corpus.left_out.retain(|path| !is_own(path));
    let source = identity(settings, &tokenizer, &corpus.found)?;
    let (_lock, index) = folder::claim(settings.out, &tokenizer)?;
    let index = match index {
        // What has no shard yet is lost by nobody.
        Some(index) if index.source != source && index.shards().next().is_some() => {
            return Err(DataError::Shards {
                folder: settings.out.to_path_buf(),
                reason: "it has shards of another corpus, tokenizer or settings".to_owned(),
                help: "name another folder with --out, or delete this one".to_owned(),
            });
        }
        Some(index) if index.source == source => {
            folder::write_tokenizer(settings.out, &tokenizer)?;
            if index.complete {
                check::contents(settings.out, &index, loading)?;
                return Ok(Tokenized::of(&index, true));
            }
            check::sizes(settings.out, &index)?;
            let done = Tokenized::of(&index, false);
            let (shards, tokens) = (count(done.shards, "shard"), count(done.tokens as usize, "token"));
            loading.note(&format!("{}: going on behind {shards} with {tokens}", settings.out.display()));
            index
        }
        Some(_) | None => folder::start(settings.out, source, &tokenizer)?,
    };
    let separator = settings.document_separator;
    let wanted = Wanted { field: settings.text_field, allows_nul: !tokenizer.reserves_nul(), separator };
    let (resume, stop) = (index.next, loading.stop);
    let mut writer = Writer::new(settings, &tokenizer, index, &corpus.found, Watch::new(stop));
    let (mut notes, mut left_out) = (Vec::new(), corpus.left_out);
    let sizes = corpus.found.iter().map(|file| fs::metadata(&file.path).map_or(0, |about| about.len()));
    let sizes: Vec<u64> = sizes.collect();
    let mut reading = loading.paced("Tokenizing", sizes.iter().sum());
    let mut read = || {
        for (file, found) in corpus.found.iter().enumerate() {
            reading.check()?;
            if file < resume.file {
                reading.advance(usize::try_from(sizes[file]).unwrap_or(0));
                continue;
            }
            let mut document = 0;
            let mut take = |content: Document| {
                document += 1;
                let is_done = file == resume.file && document <= resume.document;
                if is_done { Ok(()) } else { writer.add(content, Place { file, document }) }
            };
            match files::each_document(found, wanted, &mut reading, &mut take)? {
                Outcome::Read => {}
                Outcome::Noted(note) => notes.push(note),
                Outcome::LeftOut => left_out.push(found.path.clone()),
            }
        }
        writer.finish(Place { file: corpus.found.len(), document: 0 })
    };
    let ended = read();
    drop(reading);
    // Whoever goes on later begins behind the text that this is about.
    files::say(&notes, loading);
    if let Some(warning) = writer.warning.take() {
        loading.warn(&warning);
    }
    let mut kinds = Kinds::default();
    corpus.found.iter().filter(|file| !left_out.contains(&file.path)).for_each(|file| kinds.add(file.format));
    let names = Names { field: "--text-field", separator: "--document-separator" };
    files::say(&kinds.unread(settings.path, wanted, names), loading);
    if !left_out.is_empty() {
        loading.note(&files::left_out(Path::new(settings.path), left_out));
    }
    ended?;
    let made = Tokenized::of(&writer.index, false);
    if settings.held_out > 0.0 && made.held_out == 0 {
        let documents = count(made.documents as usize, "document");
        loading.note(&format!(
            "nothing is held out: by its content none of {documents} is, with --held-out {}; validation needs a higher one, or other data",
            settings.held_out
        ));
    }
    Ok(made)
}

/// A hash of all that shards depend on.
fn identity(
    settings: TokenizeSettings<'_>,
    tokenizer: &Tokenizer,
    files: &[Found],
) -> Result<String, DataError> {
    let mut hash = Sha256::new();
    hash.update(token_file::MAGIC);
    hash.update(TOKENIZERS);
    hash.update(RULES.to_le_bytes());
    hash.update(tokenizer.digest());
    hash.update(settings.held_out.to_le_bytes());
    hash.update(settings.shard_tokens.to_le_bytes());
    hash.update(settings.text_field);
    // Shards from before there were separators have the same hash.
    if let Some(separator) = settings.document_separator {
        hash.update([0]);
        hash.update(separator);
    }
    for file in files {
        let about = fs::metadata(&file.path).map_err(|error| crate::error::unreadable(&file.path, &error))?;
        let time = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        // However the corpus was named.
        let path = file.path.canonicalize().unwrap_or_else(|_| file.path.clone());
        let path = path.as_os_str().as_encoded_bytes();
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        hash.update(about.len().to_le_bytes());
        hash.update(time.unwrap_or_default().as_nanos().to_le_bytes());
    }
    Ok(in_hex(&hash.finalize()))
}
