//! Texts as they are on disk, for whoever asks something else of them than batches.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::cache::TokenCache;
use super::error::DataError;
use super::files::{self, Wanted};
use super::loading::{Event, Loading};
use super::tokenizer::Tokenizer;

/// The text of one file, unpacked where it is packed, and without a byte order mark.
///
/// # Errors
/// It cannot be read, or is no UTF-8 text.
pub fn read_file(path: &Path) -> Result<String, DataError> {
    let stop = AtomicBool::new(false);
    let mut loading = Loading { stop: &stop, tell: &mut |_| {}, cache: TokenCache::default() };
    let size = std::fs::metadata(path).map_or(0, |about| about.len());
    files::read_text(path, &mut loading.paced("Reading", size))
}

/// The documents of a file, a folder or a pattern, as training reads them: a text file is one, of JSON and of tables the
/// `field` of each object is.
///
/// # Errors
/// Nothing is there, or a file that cannot be read; [`DataError::Interrupted`] once `stop` is set.
pub fn read_texts(
    path: &str,
    field: &str,
    tokenizer: &Tokenizer,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Vec<String>, DataError> {
    let mut loading = Loading { stop, tell, cache: TokenCache::default() };
    let wanted = Wanted { field, allows_nul: !tokenizer.reserves_nul(), separator: None };
    files::read_documents(path, wanted, &mut loading).map(|(documents, _)| documents)
}
