//! `linc tokenize`: documents of a corpus, as they come from its files, become shards.
//!
//! Shards end between documents, where they have as many tokens as they should, whatever threads there are and however often
//! the work was ended: the same corpus gives the same bytes.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use hmac_sha256::Hash as Sha256;
use linc_device::words::{count, help_to_write, reason};
use linc_device::write_to_disk;
use rayon::prelude::*;

use super::{INDEX, Index, Part, Place, Shard, VERSION, in_hex};
use crate::cache::{RULES, TOKENIZERS};
use crate::corpus::{Corpus, Ids};
use crate::error::DataError;
use crate::files::find::{self, Found};
use crate::files::{self, Document, Outcome, Wanted};
use crate::loading::{Loading, Watch};
use crate::token_file;
use crate::tokenizer::{Encoded, Tokenizer, losses};

/// Text per thread that is tokenized at once; what is in no shard yet is lost if the work is ended.
const GROUP: usize = 1 << 20;
/// Held while a process writes into a folder.
const LOCK: &str = ".lock";

/// What is to be made of which corpus.
#[derive(Clone, Copy, Debug)]
pub struct TokenizeSettings<'a> {
    /// A file, a folder or a glob.
    pub path: &'a str,
    /// Field of JSON objects, or column of Parquet files.
    pub text_field: &'a str,
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
    let _lock = lock(settings.out)?;
    let index = match Index::load(settings.out)? {
        Some(index) if index.source != source => {
            return Err(DataError::Shards {
                folder: settings.out.to_path_buf(),
                reason: "it has shards of another corpus, tokenizer or settings".to_owned(),
                help: "name another folder with --out, or delete this one".to_owned(),
            });
        }
        Some(index) if index.complete => return Ok(Tokenized::of(&index, true)),
        Some(index) => {
            let done = Tokenized::of(&index, false);
            let (shards, tokens) = (count(done.shards, "shard"), count(done.tokens as usize, "token"));
            loading.note(&format!("{}: going on behind {shards} with {tokens}", settings.out.display()));
            index
        }
        None => start(settings.out, source, &tokenizer)?,
    };
    let wanted = Wanted { field: settings.text_field, allows_nul: !tokenizer.reserves_nul() };
    let (resume, stop) = (index.next, loading.stop);
    let mut writer = Writer::new(settings, &tokenizer, index, &corpus.found, Watch::new(stop));
    let (mut notes, mut left_out) = (Vec::new(), corpus.left_out);
    let sizes = corpus.found.iter().map(|file| fs::metadata(&file.path).map_or(0, |about| about.len()));
    let sizes: Vec<u64> = sizes.collect();
    let mut reading = loading.paced("Tokenizing", sizes.iter().sum());
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
    writer.finish(Place { file: corpus.found.len(), document: 0 })?;
    drop(reading);
    notes.extend(writer.warning.take());
    if !left_out.is_empty() {
        notes.push(files::left_out(Path::new(settings.path), left_out));
    }
    notes.iter().for_each(|note| loading.note(note));
    Ok(Tokenized::of(&writer.index, false))
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
    for file in files {
        let about = fs::metadata(&file.path).map_err(|error| crate::error::unreadable(&file.path, &error))?;
        let time = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let path = file.path.as_os_str().as_encoded_bytes();
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        hash.update(about.len().to_le_bytes());
        hash.update(time.unwrap_or_default().as_nanos().to_le_bytes());
    }
    Ok(in_hex(&hash.finalize()))
}

fn unwritable(path: &Path, error: &std::io::Error) -> DataError {
    DataError::Unwritable { path: path.to_path_buf(), reason: reason(error), help: help_to_write(error) }
}

/// Keeps other processes from writing into a folder. Where the file system has no locks, nothing does.
fn lock(folder: &Path) -> Result<File, DataError> {
    fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    let path = folder.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| unwritable(&path, &error))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(DataError::Shards {
            folder: folder.to_path_buf(),
            reason: "another linc tokenize is writing into it".to_owned(),
            help: "wait for its end, or name another folder with --out".to_owned(),
        }),
        Ok(()) | Err(TryLockError::Error(_)) => {
            remove_leftovers(folder);
            Ok(file)
        }
    }
}

/// Removes what a process that was killed had begun to write.
fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "tmp") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A new index in a folder that has nothing else, beside the tokenizer's files.
fn start(folder: &Path, source: String, tokenizer: &Tokenizer) -> Result<Index, DataError> {
    let mut entries = fs::read_dir(folder).map_err(|error| unwritable(folder, &error))?.flatten();
    let known: Vec<&str> = tokenizer.files().iter().map(|file| file.name).collect();
    // The tokenizer is written before the index.
    let foreign = entries.find(|entry| {
        let (name, path) = (entry.file_name(), entry.path());
        name != LOCK
            && !known.iter().any(|known| name == *known)
            && path.extension().is_none_or(|e| e != "tmp")
    });
    if let Some(entry) = foreign {
        return Err(DataError::Shards {
            folder: folder.to_path_buf(),
            reason: format!("it is not empty: it has {}", entry.file_name().display()),
            help: "name a new folder with --out".to_owned(),
        });
    }
    for file in tokenizer.files() {
        let path = folder.join(file.name);
        write_to_disk(&path, &[&file.bytes]).map_err(|error| unwritable(&path, &error))?;
    }
    let index = Index {
        version: VERSION,
        complete: false,
        source,
        tokenizer: in_hex(&tokenizer.digest()),
        vocab_size: tokenizer.vocab_size(),
        borders: tokenizer.borders(),
        next: Place::default(),
        training: Vec::new(),
        validation: Vec::new(),
    };
    // From now on it is known what the folder is.
    write_index(folder, &index)?;
    Ok(index)
}

fn write_index(folder: &Path, index: &Index) -> Result<(), DataError> {
    let path = folder.join(INDEX);
    let json = serde_json::to_vec_pretty(index).map_err(|error| unwritable(&path, &error.into()))?;
    write_to_disk(&path, &[&json]).map_err(|error| unwritable(&path, &error))
}

/// Documents on their way into shards.
struct Writer<'a> {
    settings: TokenizeSettings<'a>,
    tokenizer: &'a Tokenizer,
    files: &'a [Found],
    watch: Watch<'a>,
    index: Index,
    /// Documents that are not tokenized yet, each with the place behind it.
    group: Vec<(Document, Place)>,
    group_bytes: usize,
    training: Pending,
    validation: Pending,
    /// What to say of the first documents.
    warning: Option<String>,
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
    fn new(
        settings: TokenizeSettings<'a>,
        tokenizer: &'a Tokenizer,
        index: Index,
        files: &'a [Found],
        watch: Watch<'a>,
    ) -> Self {
        let (training, validation) = (Pending::new(tokenizer, false), Pending::new(tokenizer, true));
        let (group, group_bytes, warning, is_checked) = (Vec::new(), 0, None, false);
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

    fn add(&mut self, document: Document, behind: Place) -> Result<(), DataError> {
        let bytes = match &document {
            Document::Text(text) => text.len(),
            Document::Tokens(ids) => 4 * ids.len(),
        };
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
            let texts = group.iter().filter_map(|(document, _)| match document {
                Document::Text(text) => Some(text.clone()),
                Document::Tokens(_) => None,
            });
            self.warning = losses::check(self.tokenizer, &texts.collect::<Vec<String>>())?;
        }
        let prepared: Result<Vec<Prepared>, DataError> =
            group.par_iter().map(|(document, behind)| self.prepare(document, *behind)).collect();
        for (prepared, (_, behind)) in prepared?.into_iter().zip(group) {
            let part = if prepared.is_held_out { &mut self.validation } else { &mut self.training };
            part.corpus.push(prepared.text_bytes, prepared.tokens, self.tokenizer, &mut part.checksum);
            if self.training.corpus.len() >= self.settings.shard_tokens {
                self.write(behind)?;
            }
        }
        Ok(())
    }

    fn prepare(&self, document: &Document, behind: Place) -> Result<Prepared, DataError> {
        match document {
            Document::Text(text) => {
                let is_held_out = self.is_held_out(text);
                let advance = |bytes: usize| self.watch.advance(bytes);
                let tokens = self.tokenizer.encode_watched(text, is_held_out, &advance)?;
                Ok(Prepared { tokens, text_bytes: text.len(), is_held_out })
            }
            Document::Tokens(ids) => {
                self.watch.advance(0)?;
                self.of_tokens(ids, behind)
            }
        }
    }

    /// Ids as somebody else made them; BOS and EOS are placed here.
    fn of_tokens(&self, ids: &[u32], behind: Place) -> Result<Prepared, DataError> {
        let vocab_size = self.tokenizer.vocab_size();
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
            let path = self.files.get(behind.file).map(|file| file.path.clone()).unwrap_or_default();
            let reason =
                format!("the id {id} is no token of {}, which has {vocab_size}", self.tokenizer.name());
            return Err(DataError::Ids { path, number: behind.document, reason });
        }
        let ids = ids.strip_prefix(self.tokenizer.bos().as_slice()).unwrap_or(ids);
        let ids = ids.strip_suffix(self.tokenizer.eos().as_slice()).unwrap_or(ids);
        let text = self.tokenizer.decode(ids);
        let mut tokens = Encoded { ids: ids.to_vec(), bytes: Vec::new() };
        let mut is_held_out = self.is_held_out(&text);
        if is_held_out {
            // Bits per byte need the size of each token's text, which only the tokenizer knows.
            let again = self.tokenizer.encode(&text)?;
            is_held_out = again.ids == tokens.ids;
            tokens.bytes = again.bytes;
        }
        Ok(Prepared { tokens, text_bytes: text.len(), is_held_out })
    }

    /// By the text alone, so that copies of a document are on one side.
    fn is_held_out(&self, text: &str) -> bool {
        if self.settings.held_out <= 0.0 {
            return false;
        }
        let hash = Sha256::hash(text.as_bytes());
        let number = u64::from_le_bytes(std::array::from_fn(|byte| hash[byte]));
        (number as f64) < self.settings.held_out * 2f64.powi(64)
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
            let file = format!("{name}-{:05}.tokens", shards.len());
            let path: PathBuf = self.settings.out.join(&file);
            token_file::write(&path, &corpus, self.tokenizer.digest(), write_to_disk)
                .map_err(|error| unwritable(&path, &error))?;
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
        write_index(self.settings.out, &self.index)
    }

    fn finish(&mut self, end: Place) -> Result<(), DataError> {
        self.tokenize_group()?;
        let has_any = !self.index.training.is_empty() || self.training.corpus.len() > 0;
        if !has_any {
            return Err(DataError::Empty { path: PathBuf::from(self.settings.path) });
        }
        self.index.complete = true;
        self.write(end)
    }
}
