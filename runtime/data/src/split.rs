//! Which part of a text is held out for validation.
//!
//! Documents are visited in a fixed pseudo-random order, the same for every training seed, and held out
//! whole as long as all held-out bytes stay within the asked share. Where too few documents are small
//! enough for that (one book, say), the tail of each document is held out instead, cut after a line.
//! A document that occurs twice is in one part only, in a mixture of several datasets too.

use std::collections::BTreeSet;

use hmac_sha256::Hash as Sha256;

use super::rng::{Use, permutation, stream};

/// A tail is cut after a line if one ends within so many bytes.
const LINE_SEARCH: usize = 2048;
/// From this size on, a document of a mixture gives its tail.
const LARGE: usize = 64 << 10;

/// Two parts of a text that share nothing.
pub(super) struct Split {
    pub(super) training: Vec<String>,
    pub(super) held_out: Vec<String>,
}

/// Splits documents; `share` (0 to 1) of the bytes, or somewhat less, are held out.
pub(super) fn split(documents: Vec<String>, share: f64) -> Split {
    let total: usize = documents.iter().map(String::len).sum();
    let target = (total as f64 * share) as usize;
    if target == 0 {
        return Split { training: documents, held_out: Vec::new() };
    }
    let chosen = choose(&documents, target);
    let held: usize = documents.iter().filter(|text| chosen.contains(text.as_str())).map(String::len).sum();
    // Whole documents, unless duplicates or large documents leave a share far from the one asked for.
    if (target / 2..=target * 2).contains(&held) {
        let is_held: Vec<bool> = documents.iter().map(|text| chosen.contains(text.as_str())).collect();
        let mut parts = Split { training: Vec::new(), held_out: Vec::new() };
        for (document, is_held) in documents.into_iter().zip(is_held) {
            if is_held { parts.held_out.push(document) } else { parts.training.push(document) }
        }
        return parts;
    }
    tails(documents, share)
}

/// Splits the documents of one dataset of a mixture, each by its text alone, whatever else the dataset has: what is held
/// out of one dataset is not trained on in another that has it too. Documents are held out whole, but for large ones, of
/// which there may be few, where `cuts_large`: these give their tails.
pub(super) fn split_by_text(documents: Vec<String>, share: f64, cuts_large: bool) -> Split {
    let mut parts = Split { training: Vec::new(), held_out: Vec::new() };
    for mut document in documents {
        if cuts_large && share > 0.0 && document.len() >= LARGE {
            let tail = cut_tail(&mut document, share);
            parts.held_out.extend(Some(tail).filter(|tail| !tail.is_empty()));
            parts.training.push(document);
        } else if is_held_out(&document, share) {
            parts.held_out.push(document);
        } else {
            parts.training.push(document);
        }
    }
    parts
}

/// Whether a document is held out where a share of them is, by its text alone: wherever a copy of it is read, it is on
/// the same side.
pub(super) fn is_held_out(text: &str, share: f64) -> bool {
    if share <= 0.0 {
        return false;
    }
    let hash = Sha256::hash(text.as_bytes());
    let number = u64::from_le_bytes(std::array::from_fn(|byte| hash[byte]));
    (number as f64) < share * 2f64.powi(64)
}

/// Documents that fit into `target` bytes together, by their text.
fn choose(documents: &[String], target: usize) -> BTreeSet<&str> {
    let count = u32::try_from(documents.len()).unwrap_or(u32::MAX);
    let mut chosen = BTreeSet::new();
    let mut held = 0;
    for index in permutation(&mut stream(0, Use::HeldOut, 0), count) {
        let document = documents[index as usize].as_str();
        if held + document.len() <= target && chosen.insert(document) {
            held += document.len();
        }
    }
    chosen
}

fn tails(documents: Vec<String>, share: f64) -> Split {
    let mut parts = Split { training: Vec::new(), held_out: Vec::new() };
    let mut seen = BTreeSet::new();
    for mut document in documents {
        // A copy would carry the tail of the first into the training part only if cut elsewhere; it is cut alike.
        let tail = cut_tail(&mut document, share);
        if !tail.is_empty() && seen.insert(tail.clone()) {
            parts.held_out.push(tail);
        }
        if !document.is_empty() {
            parts.training.push(document);
        }
    }
    parts
}

/// Takes the tail of a document off it.
fn cut_tail(document: &mut String, share: f64) -> String {
    let keep = document.len() - (document.len() as f64 * share) as usize;
    let keep = cut_after_line(document, keep);
    document.split_off(keep)
}

/// The end of the line around `at` if it is near, otherwise the next character boundary.
fn cut_after_line(text: &str, at: usize) -> usize {
    let boundary = (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let line_end = text[boundary..].find('\n').map(|end| boundary + end + 1);
    match line_end {
        Some(end) if end - boundary <= LINE_SEARCH && end < text.len() => end,
        Some(_) | None => boundary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(parts: &[String]) -> usize {
        parts.iter().map(String::len).sum()
    }

    #[test]
    fn many_documents_are_held_out_whole() {
        let documents: Vec<String> =
            (0..200).map(|i| format!("document {i} {}", "x".repeat(i % 37))).collect();
        let parts = split(documents.clone(), 0.1);
        assert_eq!(parts.training.len() + parts.held_out.len(), 200);
        assert!(parts.held_out.iter().all(|text| documents.contains(text) && !parts.training.contains(text)));
        let share = bytes(&parts.held_out) as f64 / bytes(&documents) as f64;
        assert!((0.09..=0.1).contains(&share), "{share}");
        assert_eq!(split(documents, 0.1).held_out, parts.held_out);
    }

    #[test]
    fn one_document_gives_its_tail() {
        let text: String = (0..1000).map(|i| format!("line {i}\n")).collect();
        let parts = split(vec![text.clone()], 0.1);
        assert_eq!(parts.training.concat() + &parts.held_out.concat(), text);
        assert!(parts.training[0].ends_with('\n'));
        let share = bytes(&parts.held_out) as f64 / text.len() as f64;
        assert!((0.09..=0.1).contains(&share), "{share}");
        let umlauts = "ä".repeat(1001);
        let parts = split(vec![umlauts.clone()], 0.3);
        assert_eq!(parts.training.concat() + &parts.held_out.concat(), umlauts);
    }

    #[test]
    fn a_few_books_each_give_a_tail() {
        let books: Vec<String> = ["a", "b", "c"].iter().map(|s| s.repeat(1000)).collect();
        let parts = split(books, 0.05);
        assert_eq!(parts.held_out.iter().map(String::len).collect::<Vec<_>>(), [50, 50, 50]);
        assert_eq!(bytes(&parts.training), 2850);
    }

    #[test]
    fn copies_are_on_one_side() {
        let documents: Vec<String> = (0..300).map(|i| format!("document number {}", i % 100)).collect();
        let parts = split(documents, 0.1);
        assert!(!parts.held_out.is_empty());
        assert!(parts.held_out.iter().all(|text| !parts.training.contains(text)));
    }

    #[test]
    fn nothing_held_out_on_request() {
        let parts = split(vec!["abc".to_owned()], 0.0);
        assert_eq!((parts.training.len(), parts.held_out.len()), (1, 0));
    }
}
