//! Texts that end a continuation.

use std::sync::Arc;

/// Bytes that a text may have that ends a continuation: as much is held back, and looked through at each token.
pub const LONGEST_STOP: usize = 1024;

/// Holds back what may be the start of a text that ends a continuation, so that nothing of it is given out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stops {
    texts: Arc<[String]>,
    held: String,
}

impl Stops {
    /// Ends at the first of these, which are not empty.
    pub(crate) fn new(texts: Arc<[String]>) -> Self {
        Stops { texts, held: String::new() }
    }

    /// Adds a piece; what can be given out, and whether the text ends behind it.
    pub(crate) fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        // A search begins with work on all of the text that is sought, which is for nothing where it is the longer one.
        let fitting = self.texts.iter().filter(|text| text.len() <= self.held.len());
        if let Some(at) = fitting.filter_map(|text| self.held.find(text.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let may_begin = |from: usize| self.texts.iter().any(|text| text.starts_with(&self.held[from..]));
        let mut places = self.held.char_indices().map(|(at, _)| at);
        let from = places.find(|from| may_begin(*from)).unwrap_or(self.held.len());
        let rest = self.held.split_off(from);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, at the end of the text.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(texts: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut stops = Stops::new(texts.iter().map(ToString::to_string).collect());
        let mut out = vec![];
        for piece in pieces {
            let (text, ends) = stops.push(piece);
            out.push(text);
            if ends {
                return (out, true);
            }
        }
        out.push(stops.finish());
        (out, false)
    }

    #[test]
    fn nothing_of_a_stop_is_given_out() {
        let found = |texts, pieces| {
            let (out, ends) = run(texts, pieces);
            (out.join("|"), ends)
        };
        assert_eq!(found(&["\n\n"], &["a\n", "b\n", "\nc"]), ("a|\nb|".into(), true));
        // What looked like the start of one and was none comes later; what is held at the end is text.
        assert_eq!(found(&["abc"], &["xab", "abd", "a"]), ("x|ababd||a".into(), false));
        assert_eq!(found(&["b", "ab"], &["xxab"]), ("xx".into(), true), "the first place counts");
        assert_eq!(found(&["né"], &["n", "e", "né"]), ("|ne|".into(), true));
        assert_eq!(found(&[], &["a", "b"]), ("a|b|".into(), false));
    }
}
