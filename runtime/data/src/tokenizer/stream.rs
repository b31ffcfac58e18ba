//! Text of tokens as they come, for generation.
//!
//! What a token adds to a text depends on the tokens before it: decoders strip the space that a text starts with, join
//! pieces of words, and make characters of several tokens. So each new piece is what the text of the last tokens grows
//! by when the new ones are decoded together with them.

use super::Tokenizer;

/// So many tokens at the end of a prompt are looked through for the start of the window; else it is the whole prompt.
const FARTHEST: usize = 64;

/// Decodes a continuation of some tokens, piece by piece.
#[derive(Debug)]
pub struct Detokenizer<'a> {
    tokenizer: &'a Tokenizer,
    /// Tokens from a point before the end of what was given out; enough of them to know what stands before a new one.
    window: Vec<u32>,
    /// How many of the window's tokens were given out.
    given: usize,
}

impl<'a> Detokenizer<'a> {
    /// A continuation of a prompt, which is not given out itself.
    pub fn new(tokenizer: &'a Tokenizer, prompt: &[u32]) -> Self {
        // The end of the prompt that has some text, from the start of a character on: special tokens have none, and a
        // decoder that strips the space at the start of a text must find that start where it is.
        let starts = |from: usize| {
            let text = tokenizer.decode(&prompt[from..]);
            !text.is_empty() && !text.starts_with(char::REPLACEMENT_CHARACTER)
        };
        let start = (0..prompt.len()).rev().take(FARTHEST).find(|from| starts(*from)).unwrap_or(0);
        Self { tokenizer, window: prompt[start..].to_vec(), given: prompt.len() - start }
    }

    /// Adds a token; the whole characters that are known since. Empty while a character is incomplete.
    pub fn push(&mut self, id: u32) -> String {
        self.window.push(id);
        let text = self.new_text();
        // A token may hold a part of a character.
        if text.is_empty() || text.ends_with(char::REPLACEMENT_CHARACTER) {
            return String::new();
        }
        // The tokens just given out are what the next ones follow.
        let new = self.tokenizer.decode(&self.window[self.given..]);
        if !new.is_empty() {
            self.window.drain(..self.given);
        }
        self.given = self.window.len();
        text
    }

    /// What never became whole, each broken character as U+FFFD.
    pub fn finish(self) -> String {
        self.new_text()
    }

    fn new_text(&self) -> String {
        let before = self.tokenizer.decode(&self.window[..self.given]);
        let all = self.tokenizer.decode(&self.window);
        match all.strip_prefix(&before) {
            Some(new) => new.to_owned(),
            // Bytes that are no character, behind others: a decoder of `<0xNN>` tokens then gives up all of them.
            None => self.tokenizer.decode(&self.window[self.given..]),
        }
    }
}
