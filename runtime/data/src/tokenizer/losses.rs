//! What of a text does not come back from its tokens: characters that a tokenizer has no token for, or that it changes
//! before it looks for tokens. A model cannot learn these, and what it has not to predict makes its bits per byte look
//! better than they are.

use std::collections::BTreeMap;

use tokenizers::NormalizedString;
use tokenizers::models::ModelWrapper;

use super::{Backend, Tokenizer};
use crate::error::DataError;

/// Pieces of a text that are looked at, evenly spread; all of them together take a few milliseconds.
const PIECES: usize = 32;
/// Size of a piece in bytes.
const PIECE: usize = 256;
/// Characters of a word, of which most have fewer.
const WORD: usize = 48;
/// Below this share of lost characters, nothing is said: one of a thousand says little of bits per byte.
const SAID_FROM: f64 = 1e-3;
/// Above this share, what would be trained on is not the text.
const REFUSED_FROM: f64 = 0.5;
/// Lost characters that are named.
const NAMED: usize = 5;
/// Names of the unknown token, where the model has them in its vocabulary only.
const UNKNOWN: [&str; 3] = ["<unk>", "[UNK]", "<UNK>"];

/// What a tokenizer made of pieces of a text.
#[derive(Debug, Default)]
struct Losses {
    /// Bytes that were looked at.
    bytes: usize,
    characters: usize,
    /// Characters that did not come back, and how often each of them.
    lost: BTreeMap<char, usize>,
    tokens: usize,
    unknown: usize,
}

/// Looks at pieces of a text. What to say of the losses; nothing if there are hardly any.
///
/// # Errors
/// Most of the text is lost, or the tokenizer fails.
pub(crate) fn check<S: AsRef<str>>(
    tokenizer: &Tokenizer,
    documents: &[S],
) -> Result<Option<String>, DataError> {
    let Backend::HuggingFace { inner, .. } = &tokenizer.backend else { return Ok(None) };
    let unknown = unknown_id(inner);
    let mut losses = Losses::default();
    for piece in pieces(documents) {
        let ids = tokenizer.encode_ids(piece)?;
        losses.tokens += ids.len();
        let known: Vec<u32> = ids.iter().copied().filter(|id| Some(*id) != unknown).collect();
        losses.unknown += ids.len() - known.len();
        // Names of special tokens may be a part of the text, so these are kept.
        losses.count(piece, &inner.decode(&known, false).unwrap_or_default());
    }
    losses.judge(tokenizer)
}

impl Losses {
    /// Counts what a text has and its copy has not, whatever the order, blanks around it and the form (NFC) of its accents.
    fn count(&mut self, text: &str, copy: &str) {
        let form = |text: &str| {
            let mut text = NormalizedString::from(text.trim());
            text.nfc();
            text.get().to_owned()
        };
        let mut counts: BTreeMap<char, i64> = BTreeMap::new();
        let (text, copy) = (form(text), form(copy));
        text.chars().for_each(|c| *counts.entry(c).or_default() += 1);
        copy.chars().for_each(|c| *counts.entry(c).or_default() -= 1);
        self.bytes += text.len();
        self.characters += text.chars().count();
        for (c, count) in counts {
            if let Ok(count @ 1..) = usize::try_from(count) {
                *self.lost.entry(c).or_default() += count;
            }
        }
    }

    fn judge(&self, tokenizer: &Tokenizer) -> Result<Option<String>, DataError> {
        let lost: usize = self.lost.values().sum();
        let share = lost as f64 / self.characters.max(1) as f64;
        let unknown = self.unknown as f64 / self.tokens.max(1) as f64;
        if share < SAID_FROM && unknown < SAID_FROM {
            return Ok(None);
        }
        let (tokenizer, share_text, bytes) = (tokenizer.name(), percent(share), self.bytes);
        let of_tokens = match self.unknown {
            0 => String::new(),
            _ => format!(", and {} of its tokens are the unknown one", percent(unknown)),
        };
        if share > REFUSED_FROM || unknown > REFUSED_FROM {
            return Err(DataError::Lost { tokenizer, lost: share_text, of_tokens, bytes });
        }
        Ok(Some(format!(
            "{tokenizer} loses {share_text} of the characters of the text ({}; by {bytes} bytes of it){of_tokens}: \
             they do not come back from its tokens, the model does not learn them, and bits per byte is not comparable \
             with that of other tokenizers. This is as it should be where a tokenizer drops them on purpose, such as \
             capitals or line breaks",
            self.named(),
        )))
    }

    /// Those that are lost most often.
    fn named(&self) -> String {
        let mut lost: Vec<(&char, &usize)> = self.lost.iter().collect();
        lost.sort_by_key(|(c, count)| (usize::MAX - **count, **c));
        let more = if lost.len() > NAMED { ", .." } else { "" };
        let names: Vec<String> = lost.into_iter().take(NAMED).map(|(c, _)| format!("{c:?}")).collect();
        names.join(", ") + more
    }
}

fn percent(share: f64) -> String {
    format!("{:.*} %", if share < 0.1 { 1 } else { 0 }, 100.0 * share)
}

/// The token of what is in no other.
fn unknown_id(inner: &tokenizers::Tokenizer) -> Option<u32> {
    match inner.get_model() {
        ModelWrapper::BPE(bpe) => inner.token_to_id(bpe.unk_token.as_deref()?),
        ModelWrapper::WordLevel(words) => inner.token_to_id(&words.unk_token),
        ModelWrapper::WordPiece(pieces) => inner.token_to_id(&pieces.unk_token),
        ModelWrapper::Unigram(_) => UNKNOWN.iter().find_map(|name| inner.token_to_id(name)),
    }
}

/// Pieces at even distances of all documents, one behind the other.
fn pieces<S: AsRef<str>>(documents: &[S]) -> Vec<&str> {
    let total: usize = documents.iter().map(|document| document.as_ref().len()).sum();
    let step = (total / PIECES).max(PIECE);
    let (mut pieces, mut begin, mut next) = (Vec::new(), 0, 0);
    for document in documents.iter().map(AsRef::as_ref) {
        while next < begin + document.len() {
            let start = border(document, next - begin);
            pieces.push(&document[start..border(document, start + PIECE)]);
            next += step;
        }
        begin += document.len();
    }
    pieces
}

/// A border of words at or a little before a byte, so that no letter is cut off its accent; of characters where there is none.
fn border(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let mut before = text[..at].char_indices().rev().take(WORD);
    let space = before.find(|(_, c)| c.is_whitespace()).map(|(space, c)| space + c.len_utf8());
    if at == text.len() { at } else { space.unwrap_or(at) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::fs;

    fn tokenizer(parts: &Value) -> (tempfile::TempDir, Tokenizer) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut json = json!({"version": "1.0", "added_tokens": []});
        for (key, value) in parts.as_object().expect("parts") {
            json[key] = value.clone();
        }
        let path = folder.path().join("tokenizer.json");
        fs::write(&path, json.to_string()).expect("a file");
        let tokenizer = Tokenizer::open(&path).expect("a tokenizer");
        (folder, tokenizer)
    }

    /// Each character a token, but for those that it does not have.
    fn characters(has: &str, unknown: Option<&str>, normalizer: &Value) -> (tempfile::TempDir, Tokenizer) {
        let tokens = has.chars().map(String::from).chain(unknown.map(String::from));
        let vocab: serde_json::Map<String, Value> = tokens.zip((0..).map(Value::from)).collect();
        let model = json!({"type": "BPE", "vocab": vocab, "merges": [], "unk_token": unknown});
        tokenizer(&json!({"normalizer": normalizer, "decoder": {"type": "Fuse"}, "model": model}))
    }

    fn said(tokenizer: &Tokenizer, text: &str) -> Option<String> {
        check(tokenizer, &[text.to_owned()]).expect("most of it comes back")
    }

    #[test]
    fn characters_without_a_token_are_counted_and_named() {
        let text = "one day a fox met a dog\n".repeat(50);
        let all = "onedayfxmtg \n";
        let (_folder, whole) = characters(all, None, &Value::Null);
        assert_eq!(said(&whole, &text), None);
        // Of the 24 characters of a line, two are an x and a newline.
        let (_folder, without) = characters(&all.replace(['x', '\n'], ""), None, &Value::Null);
        let warning = said(&without, &text).expect("a loss");
        assert!(warning.contains("loses 8.") && warning.contains("'x', '\\n'"), "{warning}");
        assert!(warning.contains("bits per byte is not comparable"), "{warning}");
        // With an unknown token as well, whose name is no character of the text.
        let (_folder, unknown) = characters(&all.replace('x', ""), Some("xyz"), &Value::Null);
        let warning = said(&unknown, &text).expect("a loss");
        assert!(
            warning.contains("('x';") && warning.contains("% of its tokens are the unknown"),
            "{warning}"
        );
    }

    #[test]
    fn what_only_looks_different_is_no_loss() {
        let text = "  un café, deux cafe\u{301}s  ".repeat(20);
        let (_folder, composed) = characters("uncafé, edxs", None, &json!({"type": "NFC"}));
        assert_eq!(said(&composed, &text), None);
        let (_folder, stripped) = characters(
            "uncafé, edxs",
            None,
            &json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Strip", "strip_left": true, "strip_right": true}]}),
        );
        assert_eq!(said(&stripped, &text), None);
        assert_eq!(said(&Tokenizer::bytes(), "\u{1}é"), None);
        let (_folder, small) = characters("thefox ", None, &json!({"type": "Lowercase"}));
        let warning = said(&small, "The Fox the fox ").expect("a loss");
        assert!(warning.contains("('F', 'T';") && warning.contains("such as capitals"), "{warning}");
    }

    #[test]
    fn a_tokenizer_of_another_text_is_refused() {
        let text = "кот и пёс. ".repeat(30);
        let (_folder, latin) = characters("abc .", None, &Value::Null);
        let error = check(&latin, std::slice::from_ref(&text)).expect_err("most is lost").to_string();
        assert!(error.contains("do not come back") && error.contains("help: "), "{error}");
        let model = json!({"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "cat": 1}});
        let (_folder, words) = tokenizer(&json!({"pre_tokenizer": {"type": "Whitespace"}, "model": model}));
        let error = check(&words, &[text]).expect_err("all is unknown").to_string();
        assert!(error.contains("100 % of its tokens"), "{error}");
    }

    #[test]
    fn letters_keep_their_accents_at_the_ends_of_pieces() {
        // In the form that NFC changes, at every offset to the pieces.
        let has = "bac\u{300}\u{301}e\u{302} ".replace('a', "");
        for shift in 0..9 {
            let text = "b".repeat(shift) + &" e\u{302}\u{301}be\u{300}".repeat(2000);
            let (_folder, composed) = characters(&(has.clone() + "ếèê"), None, &json!({"type": "NFC"}));
            assert_eq!(said(&composed, &text), None, "{shift}");
        }
    }

    #[test]
    fn pieces_are_few_and_from_everywhere() {
        let documents: Vec<String> = (0..50).map(|i| format!("é{i}").repeat(1000)).collect();
        let total: usize = documents.iter().map(String::len).sum();
        let pieces = pieces(&documents);
        assert!((PIECES..=PIECES + 1).contains(&pieces.len()), "{}", pieces.len());
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE + WORD * 4));
        assert!(pieces[0].contains("é0") && pieces[pieces.len() - 1].contains("é4"), "of {total}");
        let short = ["a".to_owned(), String::new(), "é".repeat(400)];
        assert!(super::pieces(&short).concat().contains('a'));
        assert!(super::pieces::<&str>(&[]).is_empty());
    }
}
