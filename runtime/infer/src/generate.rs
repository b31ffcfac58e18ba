//! Generation: the prompt in blocks by the prefill program, then one token at a time by the decode program, greedy or
//! sampled.

use std::borrow::Cow;
use std::sync::Arc;

use linc_data::{Detokenizer, Tokenizer};
use linc_device::{Device, words};
use linc_driver::{Entry, Model, Options, Precision, names};
use linc_plan::Role;
use linc_session::{Session, SessionError, target};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::InferError;
use crate::logits::Logits;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Only this many of the most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that together have this probability; 1 for all.
    pub top_p: f64,
    /// Seed of the draw.
    pub seed: u64,
}

impl Sampling {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`InferError::Request`].
    pub fn check(&self) -> Result<(), InferError> {
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            let message = format!("--temperature is {}; expected a number of at least 0", self.temperature);
            return Err(InferError::request(
                message,
                "0 takes the most likely token each time, 1 samples as the model says",
            ));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            let message = format!("--top-p is {}; expected a share above 0, up to 1", self.top_p);
            return Err(InferError::request(message, "1 samples from all tokens"));
        }
        Ok(())
    }
}

/// Tokens that a prompt is continued by where nobody says how many.
pub const USUAL_TOKENS: usize = 200;

/// A tokenized prompt and the number of tokens to add to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    ids: Vec<u32>,
    count: usize,
}

/// The programs of a session that generation runs, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Programs {
    /// Tokens that prompt and continuation may have together.
    pub context: usize,
    /// Takes a token and gives the logits of the next.
    pub decode: usize,
    /// Takes the prompt, if it is not decoded token by token.
    pub prefill: Option<Prefill>,
}

/// A program that takes a block of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefill {
    /// Its number.
    pub program: usize,
    /// Tokens of a block.
    pub tokens: usize,
}

impl Programs {
    /// A session for generation alone.
    ///
    /// # Errors
    /// [`InferError::Request`] for a context that is no number of positions or longer than the model can be,
    /// [`SessionError::Compile`] with the place in its text if it cannot generate, and as [`Session::new`].
    pub fn load(
        model: &Model,
        context: usize,
        precision: Precision,
        device: Box<dyn Device>,
    ) -> Result<(Session, Programs), InferError> {
        crate::check_context(model, context)?;
        let blocks = linc_driver::prompt_blocks(model, target(&*device), context);
        let room = blocks.map_or(context, |blocks| blocks.context);
        let options = Options { precision, narrow_weights: true, ..Options::new(1, 1) };
        let mut entries = vec![(Entry::Decode { context: room }, options.clone())];
        entries.extend(blocks.map(|b| (Entry::Prefill { context: room, tokens: b.tokens }, options)));
        let session = Session::new(model, &entries, device, &mut || Ok(())).map_err(
            |error: SessionError| match error {
                SessionError::DoesNotFit { error, table, .. } => {
                    SessionError::DoesNotFit { error, table, help: "give a smaller --context" }
                }
                other => other,
            },
        )?;
        let prefill = blocks.map(|b| Prefill { program: 1, tokens: b.tokens });
        Ok((session, Programs { context, decode: 0, prefill }))
    }
}

/// Writes text with a model.
pub struct Generator<'a> {
    session: &'a mut Session,
    programs: Programs,
    vocab: usize,
    tokenizer: Arc<Tokenizer>,
    /// Of each token that was fed, where somebody asked for them.
    logits: Option<Logits>,
}

impl<'a> Generator<'a> {
    /// A generator over programs of a session.
    pub fn new(session: &'a mut Session, programs: Programs, vocab: usize, tokenizer: Tokenizer) -> Self {
        Generator { session, programs, vocab, tokenizer: Arc::new(tokenizer), logits: None }
    }

    /// Keeps the logits of all tokens from now on. Prompts are then read token by token: a block of one gives none.
    pub fn keep_logits(&mut self) {
        self.logits = Some(Logits::default());
    }

    /// What was kept.
    pub fn take_logits(&mut self) -> Logits {
        self.logits.take().unwrap_or_default()
    }

    /// Tokenizes a prompt that is to be continued by up to `count` tokens; without a count, by [`USUAL_TOKENS`] or as
    /// many as there is room for.
    ///
    /// # Errors
    /// [`InferError::Request`] if prompt and continuation exceed the context, [`InferError::Data`] if the prompt
    /// cannot be tokenized.
    pub fn prompt(&self, text: &str, count: Option<usize>) -> Result<Prompt, InferError> {
        let mut ids: Vec<u32> = self.tokenizer.bos().into_iter().collect();
        ids.extend(self.tokenizer.encode(text)?.ids);
        if ids.is_empty() {
            let message = "the prompt is empty, and the tokenizer has no token to start with";
            return Err(InferError::request(message, "give a --prompt"));
        }
        let context = self.programs.context;
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

    /// Continues a prompt; `emit` gets each new piece of text as it is decoded and says whether to go on. Stops early
    /// where the document ends. Prompt and continuation are one text: a space between them is the continuation's.
    ///
    /// # Errors
    /// [`InferError::LogitsNotFinite`], or what the device refuses.
    pub fn generate(
        &mut self,
        prompt: &Prompt,
        sampling: &Sampling,
        emit: &mut dyn FnMut(&str) -> bool,
    ) -> Result<String, InferError> {
        let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed);
        let tokenizer = Arc::clone(&self.tokenizer);
        let mut stream = Detokenizer::new(&tokenizer, &prompt.ids);
        let Some((last, before)) = prompt.ids.split_last() else { return Ok(String::new()) };
        self.read(before)?;
        let (mut position, mut token) = (before.len(), *last);
        let mut text = String::new();
        if prompt.count == 0 && self.logits.is_some() {
            self.step(token, position)?;
        }
        for _ in 0..prompt.count {
            let logits = self.step(token, position)?;
            position += 1;
            let logits = &logits[..self.vocab.min(logits.len())];
            check(logits, position)?;
            token = choose(logits, sampling, &mut rng);
            if tokenizer.ends_document(token) {
                break;
            }
            let piece = stream.push(token);
            text.push_str(&piece);
            if !piece.is_empty() && !emit(&piece) {
                return Ok(text);
            }
        }
        let rest = stream.finish();
        if !rest.is_empty() {
            text.push_str(&rest);
            emit(&rest);
        }
        Ok(text)
    }

    /// Feeds the first tokens of a text.
    fn read(&mut self, ids: &[u32]) -> Result<(), InferError> {
        let Some(Prefill { program, tokens }) = self.programs.prefill.filter(|_| self.logits.is_none())
        else {
            return ids.iter().enumerate().try_for_each(|(at, id)| self.step(*id, at).map(|_| ()));
        };
        let x = &mut self.session.executor;
        for (i, part) in ids.chunks(tokens).enumerate() {
            let mut block: Vec<i32> = part.iter().map(|id| *id as i32).collect();
            // What fills the last block up must be as finite as what is there.
            block.resize(tokens, block.last().copied().unwrap_or(0));
            x.write_input(program, names::TOKENS, bytemuck::cast_slice(&block))?;
            x.write_input(program, names::POSITION, bytemuck::bytes_of(&((i * tokens) as i32)))?;
            // Only tables of positions ask for them; those of tokens that do not exist are as good as any.
            if x.plan(program).binding(Role::Input, names::POSITIONS).is_some() {
                let first = i * tokens;
                let last = first + part.len() - 1;
                let positions: Vec<i32> = (first..first + tokens).map(|at| at.min(last) as i32).collect();
                x.write_input(program, names::POSITIONS, bytemuck::cast_slice(&positions))?;
            }
            // Only layers that keep a state of all tokens ask for it.
            if x.plan(program).binding(Role::Input, names::TOKEN_MASK).is_some() {
                let mut mask = vec![1.0_f32; part.len()];
                mask.resize(tokens, 0.0);
                x.write_input(program, names::TOKEN_MASK, bytemuck::cast_slice(&mask))?;
            }
            x.run(program)?;
        }
        Ok(())
    }

    /// Feeds the token at a position; returns the logits of the next one.
    fn step(&mut self, id: u32, position: usize) -> Result<Vec<f32>, InferError> {
        let (x, program) = (&mut self.session.executor, self.programs.decode);
        x.write_input(program, names::TOKENS, bytemuck::bytes_of(&(id as i32)))?;
        x.write_input(program, names::POSITION, bytemuck::bytes_of(&(position as i32)))?;
        x.run(program)?;
        let logits = x.output(program, names::LOGITS)?;
        if let Some(kept) = &mut self.logits {
            kept.tokens.push(id);
            kept.rows.extend(&logits[..self.vocab.min(logits.len())]);
        }
        Ok(logits)
    }
}

/// A row of logits to draw from: none is NaN or too large, and one at least is a number.
fn check(logits: &[f32], tokens: usize) -> Result<(), InferError> {
    let is_bad = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
    let all_masked = || logits.iter().all(|logit| *logit == f32::NEG_INFINITY);
    match logits.iter().find(|logit| is_bad(logit)) {
        Some(logit) => Err(InferError::LogitsNotFinite { tokens, logit: *logit }),
        None if all_masked() => Err(InferError::LogitsNotFinite { tokens, logit: f32::NEG_INFINITY }),
        None => Ok(()),
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

/// Draws a token from a row of logits.
fn choose(logits: &[f32], sampling: &Sampling, rng: &mut ChaCha8Rng) -> u32 {
    let logit = |i: &u32| logits[*i as usize];
    let by_likelihood = |a: &u32, b: &u32| logit(b).total_cmp(&logit(a)).then(a.cmp(b));
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    if sampling.temperature <= 0.0 {
        return order.into_iter().min_by(by_likelihood).unwrap_or(0);
    }
    // Vocabularies are large and few tokens are drawn from: the others need no order.
    if sampling.top_k > 0 && sampling.top_k < order.len() {
        order.select_nth_unstable_by(sampling.top_k, by_likelihood);
        order.truncate(sampling.top_k);
    }
    order.sort_unstable_by(by_likelihood);
    let best = order.first().map_or(0.0, |i| f64::from(logit(i)));
    let mut weights: Vec<f64> =
        order.iter().map(|i| ((f64::from(logit(i)) - best) / sampling.temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut kept = 0.0;
    let within = weights.iter().position(|w| {
        kept += w / total;
        kept >= sampling.top_p
    });
    weights.truncate(within.map_or(weights.len(), |i| i + 1));
    let mut point = rng.random::<f64>() * weights.iter().sum::<f64>();
    for (id, weight) in order.iter().zip(&weights) {
        point -= weight;
        if point <= 0.0 {
            return *id;
        }
    }
    order.get(weights.len().saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(sampling: Sampling) -> Vec<u32> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        (0..2000).map(|_| choose(&[0.0, 2.0, 1.0, -5.0], &sampling, &mut rng)).collect()
    }

    const ALL: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 0 };

    #[test]
    fn greedy_takes_the_best() {
        assert!(draw(Sampling { temperature: 0.0, ..ALL }).iter().all(|i| *i == 1));
    }

    #[test]
    fn sampling_follows_the_softmax() {
        let draws = draw(ALL);
        let share = draws.iter().filter(|i| **i == 1).count() as f64 / draws.len() as f64;
        let expected = 2f64.exp() / (1.0 + 2f64.exp() + 1f64.exp() + (-5f64).exp());
        assert!((share - expected).abs() < 0.04, "{share} vs {expected}");
    }

    #[test]
    fn what_is_no_distribution_is_refused() {
        for bad in [f32::NAN, f32::INFINITY] {
            let error = check(&[0.0, bad], 7).expect_err("refused").to_string();
            assert!(error.contains("after 7 tokens") && error.contains(&bad.to_string()), "{error}");
        }
        assert!(check(&[f32::NEG_INFINITY; 2], 1).is_err());
        assert!(check(&[f32::NEG_INFINITY, 0.0], 1).is_ok(), "a masked token is just never drawn");
    }

    #[test]
    fn a_terminal_gets_nothing_to_obey() {
        assert_eq!(visible("a\u{1b}[2Jb\r\u{7f}\u{9b}\0"), "a\\u{1b}[2Jb\\r\\u{7f}\\u{9b}\\u{0}");
        assert!(matches!(visible("tabs\tand\nlines, é and 你"), Cow::Borrowed(_)));
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        assert!(draw(Sampling { top_k: 2, ..ALL }).iter().all(|i| [1, 2].contains(i)));
        assert!(draw(Sampling { top_p: 0.5, ..ALL }).iter().all(|i| *i == 1));
    }
}
