//! The answers to requests for completions: texts with what is known of their tokens, whole or in pieces.

use linc_data::{Detokenizer, Tokenizer};
use linc_infer::{End, Scores, TokenScore, Written, offset_of};
use serde_json::{Map, Value, json};

use crate::completion::{Completion, Prompt};

/// The tokens of a text and how likely they are, in the lists of OpenAI's `logprobs`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    texts: Vec<String>,
    log_probs: Vec<Option<f32>>,
    /// The most likely tokens at each place, by their text.
    tops: Vec<Option<Map<String, Value>>>,
    /// Characters of the text before each token.
    offsets: Vec<usize>,
}

impl Tokens {
    fn push(&mut self, text: String, log_prob: Option<f32>, top: Option<Map<String, Value>>, offset: usize) {
        self.texts.push(text);
        self.log_probs.push(log_prob);
        self.tops.push(top);
        self.offsets.push(offset);
    }

    /// What was pushed since the last time.
    fn take(&mut self) -> Value {
        let Tokens { texts, log_probs, tops, offsets } = std::mem::take(self);
        json!({"tokens": texts, "token_logprobs": log_probs, "top_logprobs": tops, "text_offset": offsets})
    }
}

/// A prompt as it is repeated, with what the model says of it where that was asked for.
pub(crate) struct Echo {
    text: String,
    tokens: Option<Tokens>,
    /// Nothing follows it.
    is_all: bool,
}

impl Echo {
    /// The tokens with their scores, one after the other.
    pub(crate) fn new(
        asked: &Completion,
        prompt: &Prompt,
        scores: Option<&Scores>,
        tokenizer: &Tokenizer,
    ) -> Self {
        let is_all = asked.max_tokens == 0;
        let Some(scores) = scores else {
            let text = prompt.text.clone().unwrap_or_else(|| tokenizer.decode(&prompt.ids));
            return Echo { text, tokens: None, is_all };
        };
        let mut stream = Detokenizer::new(tokenizer, &[]);
        let (mut text, mut tokens, mut offset) = (String::new(), Tokens::default(), 0);
        for (at, id) in prompt.ids.iter().enumerate() {
            let piece = stream.push(*id);
            let before = at.checked_sub(1);
            let log_prob = before.and_then(|before| scores.log_probs.get(before)).copied();
            let best = before.and_then(|before| scores.best.get(before)).filter(|_| asked.logprobs > Some(0));
            let likely = best.map(|best| (best.token, best.log_prob));
            let top = log_prob.map(|own| top(tokenizer, likely.into_iter().chain([(*id, own)])));
            let token = tokenizer.token(*id);
            // The token that starts a document stands before a text, and is no part of it.
            let is_added = at == 0 && prompt.text.is_some() && tokenizer.bos() == Some(*id);
            let piece = if is_added { String::new() } else { piece };
            let begin = offset_of(offset, &piece, &token);
            tokens.push(token, log_prob, top, begin);
            offset += piece.chars().count();
            text.push_str(&piece);
        }
        text.push_str(&stream.finish());
        Echo { text: prompt.text.clone().unwrap_or(text), tokens: Some(tokens), is_all }
    }
}

/// A continuation, and the prompt before it where it is to be repeated.
pub(crate) struct Choice {
    index: usize,
    text: String,
    /// Characters of the prompt that is repeated in it.
    repeated: usize,
    /// Bytes of it that were given out before.
    given: usize,
    tokens: Option<Tokens>,
    finish: Option<&'static str>,
    /// Whether its end was told.
    is_told: bool,
    pub(crate) written: usize,
}

/// The most likely tokens by their text. Of several with one text the most likely one is named, so that no token of the text
/// seems to be the most likely one that is not.
fn top(tokenizer: &Tokenizer, likely: impl Iterator<Item = (u32, f32)>) -> Map<String, Value> {
    let mut map = Map::new();
    for (id, log_prob) in likely {
        let text = tokenizer.token(id);
        let is_more = map.get(&text).and_then(Value::as_f64).is_none_or(|known| known < f64::from(log_prob));
        if is_more {
            map.insert(text, json!(log_prob));
        }
    }
    map
}

impl Choice {
    /// A choice before anything is known of it.
    pub(crate) fn new(index: usize, asked: &Completion) -> Self {
        let tokens = asked.logprobs.map(|_| Tokens::default());
        Choice {
            index,
            text: String::new(),
            repeated: 0,
            given: 0,
            tokens,
            finish: None,
            is_told: false,
            written: 0,
        }
    }

    /// Repeats the prompt.
    pub(crate) fn echo(&mut self, echo: &Echo) {
        self.text.clone_from(&echo.text);
        self.repeated = echo.text.chars().count();
        if let (Some(tokens), Some(of_prompt)) = (&mut self.tokens, &echo.tokens) {
            tokens.clone_from(of_prompt);
        }
        if echo.is_all {
            self.finish = Some("length");
        }
    }

    /// The one token that follows a prompt, as its scores tell; of a prompt that fills the context, that there is none.
    pub(crate) fn follow(
        &mut self,
        asked: &Completion,
        prompt: &Prompt,
        scores: &Scores,
        tokenizer: &Tokenizer,
    ) {
        self.finish = Some("length");
        let Some(best) = scores.best.get(prompt.ids.len() - 1) else {
            if let Some(tokens) = &mut self.tokens {
                tokens.push(String::new(), None, None, self.repeated);
            }
            return;
        };
        let likely = [(best.token, best.log_prob)];
        let score = TokenScore {
            log_prob: best.log_prob,
            top: likely[..asked.logprobs.unwrap_or(0).min(1)].to_vec(),
        };
        let (text, end) = if tokenizer.ends_document(best.token) {
            (String::new(), End::Stop)
        } else {
            let mut stream = Detokenizer::new(tokenizer, &prompt.ids);
            let piece = stream.push(best.token);
            (piece + &stream.finish(), End::Length)
        };
        self.write(
            &Written { token: best.token, text, offset: 0, score: Some(score), end: Some(end) },
            tokenizer,
        );
    }

    /// A token of the continuation.
    pub(crate) fn write(&mut self, written: &Written, tokenizer: &Tokenizer) {
        if let (Some(tokens), Some(score)) = (&mut self.tokens, &written.score) {
            let likely = score.top.iter().copied().chain([(written.token, score.log_prob)]);
            let offset = self.repeated + written.offset;
            tokens.push(
                tokenizer.token(written.token),
                Some(score.log_prob),
                Some(top(tokenizer, likely)),
                offset,
            );
        }
        self.text.push_str(&written.text);
        self.written += 1;
        self.finish = written.end.map(|end| match end {
            End::Stop => "stop",
            End::Length => "length",
        });
    }

    /// Whether nothing follows.
    pub(crate) fn is_whole(&self) -> bool {
        self.finish.is_some()
    }

    /// Whether its end was told.
    pub(crate) fn is_told(&self) -> bool {
        self.is_told
    }

    /// What there is since the last time.
    pub(crate) fn take(&mut self) -> Value {
        self.is_told = self.is_whole();
        let text = self.text[self.given..].to_owned();
        self.given = self.text.len();
        let logprobs = self.tokens.as_mut().map(Tokens::take);
        json!({"index": self.index, "text": text, "logprobs": logprobs, "finish_reason": self.finish})
    }
}
