//! Generation of one text: a prompt and its continuation.

use std::borrow::Cow;

use linc_data::Tokenizer;
use linc_device::words;
use linc_session::Session;

use crate::engine::{Engine, Event, Request, Work};
use crate::error::InferError;
use crate::logits::Logits;
use crate::programs::Programs;

/// Tokens that a prompt is continued by where nobody says how many.
pub const USUAL_TOKENS: usize = 200;

/// A tokenized prompt and the number of tokens to add to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Its tokens, at least one.
    pub ids: Vec<u32>,
    /// Tokens to add.
    pub count: usize,
}

impl Prompt {
    /// Tokenizes a prompt that is to be continued by up to `count` tokens within a context; without a count, by
    /// [`USUAL_TOKENS`] or as many as there is room for.
    ///
    /// # Errors
    /// [`InferError::Request`] if prompt and continuation exceed the context, [`InferError::Data`] if the prompt
    /// cannot be tokenized.
    pub fn new(
        tokenizer: &Tokenizer,
        text: &str,
        count: Option<usize>,
        context: usize,
    ) -> Result<Self, InferError> {
        Self::behind(tokenizer.bos(), tokenizer, text, count, context)
    }

    /// As [`Prompt::new`], behind another token than the one that starts a document, or behind none.
    ///
    /// # Errors
    /// As [`Prompt::new`].
    pub fn behind(
        first: Option<u32>,
        tokenizer: &Tokenizer,
        text: &str,
        count: Option<usize>,
        context: usize,
    ) -> Result<Self, InferError> {
        let mut ids: Vec<u32> = first.into_iter().collect();
        ids.extend(tokenizer.encode_ids(text)?);
        if ids.is_empty() {
            let message = "the prompt is empty, and the tokenizer has no token to start with";
            return Err(InferError::request(message, "give a --prompt"));
        }
        let room = context.saturating_sub(ids.len());
        let count = count.unwrap_or(room.clamp(1, USUAL_TOKENS));
        if ids.len() > context || count > room {
            let message = format!(
                "the prompt has {}; with {count} more that exceeds the context of {context}",
                words::count(ids.len(), "token"),
            );
            let fewer = if count > 1 && room > 0 {
                format!("at most {room} --tokens")
            } else {
                "a shorter prompt".into()
            };
            return Err(InferError::request(message, format!("give {fewer}, or a larger --context")));
        }
        Ok(Prompt { ids, count })
    }
}

/// Writes text with a model, one at a time.
pub struct Generator<'a> {
    engine: Engine<'a>,
    tokenizer: &'a Tokenizer,
}

impl<'a> Generator<'a> {
    /// A generator over programs of a session.
    pub fn new(session: &'a mut Session, programs: Programs, vocab: usize, tokenizer: &'a Tokenizer) -> Self {
        Generator { engine: Engine::new(session, programs, vocab, tokenizer), tokenizer }
    }

    /// Keeps the logits of all tokens from now on.
    pub fn keep_logits(&mut self) {
        self.engine.keep_logits(Some(Logits::default()));
    }

    /// What was kept.
    pub fn take_logits(&mut self) -> Logits {
        self.engine.take_logits().unwrap_or_default()
    }

    /// [`Prompt::new`] within the context of the programs.
    ///
    /// # Errors
    /// As there.
    pub fn prompt(&self, text: &str, count: Option<usize>) -> Result<Prompt, InferError> {
        Prompt::new(self.tokenizer, text, count, self.engine.context())
    }

    /// What was done so far.
    pub fn work(&self) -> Work {
        self.engine.work()
    }

    /// Continues a prompt; `emit` gets each new piece of text as it is decoded and says whether to go on. Stops early
    /// where the document ends. Prompt and continuation are one text: a space between them is the continuation's.
    ///
    /// # Errors
    /// [`InferError::LogitsNotFinite`], or what the device refuses.
    pub fn generate(
        &mut self,
        request: Request,
        emit: &mut dyn FnMut(&str) -> bool,
    ) -> Result<String, InferError> {
        // The logits of a prompt that is not continued are those that the next token would be chosen by.
        let wanted = request.tokens;
        if wanted == 0 && !self.engine.keeps_logits() {
            return Ok(String::new());
        }
        let request = Request { tokens: wanted.max(1), ..request };
        let mut text = String::new();
        let mut failed = None;
        self.engine.begin(0, request)?;
        while self.engine.running() > 0 {
            let mut goes_on = true;
            self.engine.step(&mut |_, event: Event| match event {
                _ if wanted == 0 => {}
                Ok(written) if written.text.is_empty() => {}
                Ok(written) => {
                    text.push_str(&written.text);
                    goes_on = emit(&written.text);
                }
                Err(error) => failed = Some(error),
            })?;
            if !goes_on {
                self.engine.cancel(0);
            }
        }
        failed.map_or(Ok(text), Err)
    }
}

/// A text with its control characters, but for line breaks and tabs, as escapes such as `\u{1b}`: a model may write any
/// bytes, and a terminal would obey them.
pub fn visible(text: &str) -> Cow<'_, str> {
    let is_obeyed = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_nothing_to_obey() {
        assert_eq!(visible("a\u{1b}[2Jb\r\u{7f}\u{9b}\0"), "a\\u{1b}[2Jb\\r\\u{7f}\\u{9b}\\u{0}");
        assert!(matches!(visible("tabs\tand\nlines, é and 你"), Cow::Borrowed(_)));
    }
}
