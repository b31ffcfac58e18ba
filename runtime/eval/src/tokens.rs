//! From texts to the sequences that are scored: pairs of context and continuation, and windows over a text.
//!
//! Both are cut as lm-evaluation-harness cuts them, so that numbers can be compared.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use linc_data::{DataError, Tokenizer};

use crate::sample::Continuation;

/// What stands before a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bos {
    /// The tokenizer's token that starts a document, before each context; where there is none, nothing.
    Auto,
    /// Nothing, but where there would be no context at all: then the token that starts a document, or the one that ends it.
    Never,
}

impl Bos {
    /// As it is written.
    pub const ALL: [(&'static str, Bos); 2] = [("auto", Bos::Auto), ("never", Bos::Never)];

    /// The token before a context; `empty` is whether the context has no tokens of its own.
    pub fn token(self, tokenizer: &Tokenizer, empty: bool) -> Option<u32> {
        match self {
            Bos::Auto if !empty => tokenizer.bos(),
            Bos::Never if !empty => None,
            Bos::Auto | Bos::Never => tokenizer.bos().or(tokenizer.eos()),
        }
    }

    /// The policy for people: which token stands where.
    pub fn describe(self, tokenizer: &Tokenizer) -> String {
        let name = |empty: bool| match self.token(tokenizer, empty) {
            None => "nothing".to_owned(),
            Some(id) if Some(id) == tokenizer.bos() => format!("BOS ({id})"),
            Some(id) => format!("EOS ({id})"),
        };
        format!("{} before a context, {} where there is none", name(false), name(true))
    }
}

impl fmt::Display for Bos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Bos::ALL.iter().find(|(_, bos)| bos == self).map_or("", |(name, _)| name))
    }
}

/// The tokens of a continuation behind its context. Blanks that end the context are the continuation's, whose tokens are those
/// of both as one text behind as many as the context has by itself; the context's are its own, which need not be the first of the
/// whole. What does not fit is cut off at the left.
///
/// # Errors
/// The tokenizer has no tokens for the text.
pub fn pair(
    tokenizer: &Tokenizer,
    bos: Bos,
    room: usize,
    context: &str,
    continuation: &str,
) -> Result<Continuation, DataError> {
    let own = context.trim_end().len();
    let before = tokenizer.encode_ids(&context[..own])?;
    let mut ids: Vec<u32> = bos.token(tokenizer, before.is_empty()).into_iter().collect();
    let from = ids.len() + before.len();
    let whole = tokenizer.encode_ids(&format!("{context}{continuation}"))?;
    ids.extend(&before);
    ids.extend(whole.iter().skip(before.len()));
    let from = from.clamp(1, ids.len().max(2) - 1);
    Ok(cut(ids, from, room))
}

/// A sequence of at most one token more than there is room for.
fn cut(mut ids: Vec<u32>, from: usize, room: usize) -> Continuation {
    let cut = ids.len().saturating_sub(room + 1);
    ids.drain(..cut);
    Continuation { ids, from: from.saturating_sub(cut).max(1), cut }
}

/// Cuts a text of tokens, of which the first one only is context, into ranges of at most `room + 1`, and says from which
/// token on each counts: every token but the first counts once. Behind the first range, each has `stride` that count.
pub fn windows(tokens: usize, room: usize, stride: usize) -> Vec<(Range<usize>, usize)> {
    let targets = tokens.saturating_sub(1);
    let mut found = vec![];
    let mut done = 0;
    while done < targets {
        let new = if done == 0 { room.min(targets) } else { stride.min(targets - done) };
        let end = done + new + 1;
        let start = end.saturating_sub(room + 1);
        found.push((start..end, end - new - start));
        done += new;
    }
    found
}

/// Whether each token of a sequence from `from` on is the second of a pair that occurred in it before.
pub fn repeated_pairs(ids: &[u32], from: usize) -> Vec<bool> {
    let mut seen = HashSet::new();
    let pairs = ids.windows(2).map(|pair| !seen.insert((pair[0], pair[1])));
    pairs.skip(from.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_one_text_whose_blanks_are_the_continuations() {
        let bytes = Tokenizer::bytes();
        let found = pair(&bytes, Bos::Auto, 100, "ab ", "c").expect("bytes");
        assert_eq!((found.ids, found.from, found.cut), (vec![0, 97, 98, 32, 99], 3, 0));
        let found = pair(&bytes, Bos::Never, 100, "ab", " c").expect("bytes");
        assert_eq!((found.ids, found.from), (vec![97, 98, 32, 99], 2));
        // Without a context there is something to begin with all the same.
        let found = pair(&bytes, Bos::Never, 100, "", "c").expect("bytes");
        assert_eq!((found.ids, found.from), (vec![0, 99], 1));
        // The last token is only asked for.
        let found = pair(&bytes, Bos::Never, 3, "abcd", "ef").expect("bytes");
        assert_eq!((found.ids, found.from, found.cut), (b"cdef".map(u32::from).to_vec(), 2, 2));
        let found = pair(&bytes, Bos::Never, 3, "", "").expect("bytes");
        assert_eq!((found.ids, found.from), (vec![0], 1), "nothing counts");
        let found = pair(&bytes, Bos::Never, 3, "ab", "cdefgh").expect("bytes");
        assert_eq!((found.ids, found.from), (b"efgh".map(u32::from).to_vec(), 1));
    }

    #[test]
    fn tokens_of_a_context_are_its_own() {
        // Of the whole, "bc" is joined first, so that it does not begin with the context's own token.
        let json = r#"{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
            "decoder": null, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "bc": 3, "ab": 4},
            "merges": [["b", "c"], ["a", "b"]]}}"#;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, json).expect("written");
        let tokenizer = Tokenizer::open(&path).expect("a tokenizer");
        assert_eq!(tokenizer.encode_ids("abc").expect("tokens"), [0, 3]);
        let found = pair(&tokenizer, Bos::Auto, 100, "ab", "c").expect("tokens");
        assert_eq!((found.ids, found.from), (vec![4, 3], 1), "as lm-evaluation-harness has it");
    }

    #[test]
    fn each_token_but_the_first_counts_once_in_windows() {
        // As in lm-evaluation-harness, whose windows of a stride as long as themselves have one token of context.
        assert_eq!(windows(11, 4, 4), [(0..5, 1), (4..9, 1), (6..11, 3)]);
        assert_eq!(windows(8, 4, 2), [(0..5, 1), (2..7, 3), (3..8, 4)]);
        assert_eq!(windows(3, 4, 4), [(0..3, 1)]);
        assert!(windows(1, 4, 4).is_empty() && windows(0, 4, 4).is_empty());
        for (tokens, room, stride) in [(100, 7, 3), (57, 8, 8), (9, 8, 1), (10, 8, 1)] {
            let mut next = 1;
            for (range, from) in windows(tokens, room, stride) {
                assert_eq!(range.start + from, next);
                assert!(range.len() <= room + 1 && from >= 1);
                next = range.end;
            }
            assert_eq!(next, tokens);
        }
    }

    #[test]
    fn pairs_that_were_there_before_are_found() {
        assert_eq!(repeated_pairs(&[1, 2, 3, 1, 2, 1, 2], 1), [false, false, false, true, false, true]);
        assert_eq!(repeated_pairs(&[1, 2, 3, 1, 2, 1, 2], 4), [true, false, true]);
        assert_eq!(repeated_pairs(&[5, 5, 5], 1), [false, true]);
    }
}
