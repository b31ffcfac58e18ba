//! The sequences that a model is looked at with: pieces of a text, ids that somebody wrote down, and repeated random tokens.

use std::path::Path;

use linc_data::Tokenizer;
use linc_infer::prompt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::draw::below;
use crate::error::StudyError;

/// Where tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// A file of text.
    File(std::path::PathBuf),
    /// A file of token ids, separated by white space or commas.
    Ids(std::path::PathBuf),
}

impl Text {
    /// The tokens, those before a text that a tokenizer begins documents with among them.
    pub(super) fn read(&self, tokenizer: Option<&Tokenizer>) -> Result<Vec<u32>, StudyError> {
        match (self, tokenizer) {
            (Text::File(path), Some(tokenizer)) => {
                let text = prompt::from_file(path)?;
                let mut ids: Vec<u32> = tokenizer.bos().into_iter().collect();
                ids.extend(tokenizer.encode_ids(&text).map_err(linc_infer::InferError::from)?);
                Ok(ids)
            }
            (Text::File(_), None) => Err(StudyError::Nothing {
                message: "the model reads no text: it was trained on token ids alone".to_owned(),
                help: "give --ids FILE with ids of tokens, separated by blanks".to_owned(),
            }),
            (Text::Ids(path), _) => ids(path),
        }
    }
}

fn ids(path: &Path) -> Result<Vec<u32>, StudyError> {
    let text = prompt::from_file(path)?;
    let is_between = |c: char| c.is_whitespace() || c == ',' || c == '[' || c == ']';
    let mut found = vec![];
    for (number, line) in (1..).zip(text.lines()) {
        for word in line.split(is_between).filter(|word| !word.is_empty()) {
            found.push(word.parse().map_err(|_| StudyError::Nothing {
                message: format!("{}:{number}: {word:?} is no id of a token", path.display()),
                help: "a file of ids has whole numbers, separated by blanks or commas".to_owned(),
            })?);
        }
    }
    Ok(found)
}

/// Cuts tokens into `most` sequences of `seq` tokens; of fewer tokens than one needs, what there is.
pub(super) fn cut(ids: &[u32], seq: usize, most: usize) -> Vec<&[u32]> {
    let whole: Vec<&[u32]> = ids.chunks_exact(seq.max(1)).take(most).collect();
    if whole.is_empty() { vec![ids] } else { whole }
}

/// `period` different tokens, drawn from those that there are, twice.
pub(super) fn repeated(period: usize, vocab: usize, seed: u64) -> Vec<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut all: Vec<u32> = (0..vocab as u32).collect();
    for at in 0..period.min(vocab) {
        let other = at + below(&mut random, vocab - at);
        all.swap(at, other);
    }
    all.truncate(period.min(vocab));
    all.repeat(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_whole_or_all_that_there_is() {
        let ids: Vec<u32> = (0..10).collect();
        assert_eq!(cut(&ids, 4, 5), [&[0, 1, 2, 3][..], &[4, 5, 6, 7]]);
        assert_eq!(cut(&ids, 4, 1), [[0, 1, 2, 3]]);
        assert_eq!(cut(&ids, 16, 3), [&ids[..]]);
    }

    #[test]
    fn repeated_tokens_differ_and_come_twice() {
        let ids = repeated(50, 64, 3);
        let (first, second) = ids.split_at(50);
        assert_eq!(first, second);
        let mut sorted = first.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((sorted.len(), sorted.iter().all(|id| *id < 64)), (50, true));
        assert_ne!(ids, repeated(50, 64, 4));
        assert_eq!(repeated(9, 5, 1).len(), 10);
    }

    #[test]
    fn ids_are_numbers_between_blanks() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ids.txt");
        std::fs::write(&path, "[1, 2]\n\n3 4,5\n").expect("written");
        assert_eq!(Text::Ids(path.clone()).read(None).expect("ids"), [1, 2, 3, 4, 5]);
        std::fs::write(&path, "1\n2 x\n").expect("written");
        let error = Text::Ids(path.clone()).read(None).expect_err("a word").to_string();
        assert!(
            error.contains("ids.txt:2: \"x\" is no id of a token") && error.contains("help: "),
            "{error}"
        );
        let error = Text::File(path).read(None).expect_err("no tokenizer").to_string();
        assert!(error.contains("--ids FILE"), "{error}");
    }
}
