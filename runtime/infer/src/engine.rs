//! Many sequences at once: each has a slot of caches and states, prompts are read in blocks, and all that have read theirs are
//! continued together, a token each. A slot is free again when its sequence ends, so that others begin while the rest go on.
//!
//! What a sequence says depends on its request alone: a row of a batch is computed by itself, and draws are its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use linc_data::{Detokenizer, Tokenizer};
use linc_session::Session;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::error::InferError;
use crate::logits::Logits;
use crate::programs::{Programs, Row};
use crate::sampling::{Sampling, TokenScore, check};
use crate::stop::{LONGEST_STOP, Stops};

/// A prompt to be continued.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The prompt, at least one token.
    pub prompt: Vec<u32>,
    /// Tokens to write at most, at least one; with those of the prompt one more than the context at most.
    pub tokens: usize,
    /// How they are chosen.
    pub sampling: Sampling,
    /// Texts that end the continuation and are left out of it, of 1 to [`LONGEST_STOP`] bytes each.
    pub stop: Arc<[String]>,
    /// How many of the most likely tokens are told beside each, if how likely it was is to be told.
    pub scores: Option<usize>,
}

/// A token that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// Its id.
    pub token: u32,
    /// The text that is known since; empty while a character is incomplete or a stop text may have begun.
    pub text: String,
    /// Characters of the continuation before it, with those that are known but held back, as they may begin a stop text; 0
    /// where the request asks for no scores.
    pub offset: usize,
    /// How likely it was, if the request asks for it.
    pub score: Option<TokenScore>,
    /// Why it is the last one, if so.
    pub end: Option<End>,
}

/// Why a continuation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The document ended, or a stop text came.
    Stop,
    /// It has as many tokens as were asked for.
    Length,
}

/// What became of a sequence in a step.
pub type Event = Result<Written, InferError>;

/// What an engine has done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Tokens of prompts.
    pub read: usize,
    /// Tokens of continuations.
    pub written: usize,
    /// Those of them that came in blocks.
    pub in_blocks: usize,
    /// Seconds that the blocks took.
    pub reading: f64,
    /// Seconds that steps took, in which each sequence gets a token.
    pub writing: f64,
    /// Those steps.
    pub steps: usize,
    /// Sequences that have their first token.
    pub begun: usize,
    /// Seconds from a slot to the first token, of all of them together.
    pub first_token: f64,
    /// The longest of these times.
    pub first_token_at_most: f64,
}

/// A sequence that has a slot.
struct Running<'a> {
    number: u64,
    slot: usize,
    /// When it got its slot.
    since: Instant,
    /// The prompt and what was written.
    ids: Vec<u32>,
    /// So many of them are in the slot's caches and states.
    fed: usize,
    request: Request,
    written: usize,
    rng: ChaCha8Rng,
    text: Option<Detokenizer<'a>>,
    /// Characters that are known.
    decoded: usize,
    stops: Stops,
}

/// Continues sequences.
pub struct Engine<'a> {
    session: &'a mut Session,
    programs: Programs,
    vocab: usize,
    tokenizer: &'a Tokenizer,
    running: Vec<Running<'a>>,
    work: Work,
    /// Of each token that was fed, where somebody asked for them.
    logits: Option<Logits>,
}

impl<'a> Engine<'a> {
    /// An engine over programs of a session; `vocab` is the number of tokens of the model.
    pub fn new(session: &'a mut Session, programs: Programs, vocab: usize, tokenizer: &'a Tokenizer) -> Self {
        Engine { session, programs, vocab, tokenizer, running: vec![], work: Work::default(), logits: None }
    }

    /// Keeps the logits of all tokens from now on. Prompts are then read token by token: a block of one gives none.
    pub(crate) fn keep_logits(&mut self, logits: Option<Logits>) {
        self.logits = logits;
    }

    /// Whether they are kept.
    pub(crate) fn keeps_logits(&self) -> bool {
        self.logits.is_some()
    }

    /// What was kept.
    pub(crate) fn take_logits(&mut self) -> Option<Logits> {
        self.logits.take()
    }

    /// The session, for its other programs, which share no slots with those of generation.
    pub fn session(&mut self) -> &mut Session {
        self.session
    }

    /// Tokens that prompt and continuation may have together.
    pub fn context(&self) -> usize {
        self.programs.context
    }

    /// Sequences that have a slot.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences that can have a slot at once.
    pub fn sequences(&self) -> usize {
        self.programs.sequences
    }

    /// Whether another sequence can begin.
    pub fn has_room(&self) -> bool {
        self.running.len() < self.programs.sequences
    }

    /// What was done so far.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Whether a request can be fulfilled.
    ///
    /// # Errors
    /// [`InferError::Request`] for an empty prompt, tokens that the model does not have, or too many, and for a stop
    /// text that is empty or too long.
    pub fn check(&self, request: &Request) -> Result<(), InferError> {
        let refuse = |message: String, help: &str| Err(InferError::request(message, help));
        let Request { prompt, tokens, .. } = request;
        if prompt.is_empty() {
            return refuse("the prompt has no token".into(), "give some text");
        }
        if let Some(id) = prompt.iter().find(|id| **id as usize >= self.vocab) {
            let message = format!("the prompt has token {id}; the model has 0 to {}", self.vocab - 1);
            return refuse(message, "use the tokenizer that the model was trained with");
        }
        if let Some(stop) = request.stop.iter().find(|stop| !(1..=LONGEST_STOP).contains(&stop.len())) {
            let message = format!("a stop text has {} bytes; expected 1 to {LONGEST_STOP}", stop.len());
            return refuse(message, "give the words that the text is to end at");
        }
        // The last token that is written is not read.
        if *tokens == 0 || prompt.len().saturating_add(*tokens) > self.context() + 1 {
            let message = format!(
                "a prompt of {} and {tokens} more do not fit the context of {}",
                linc_device::words::count(prompt.len(), "token"),
                self.context()
            );
            return refuse(message, "ask for fewer tokens, or at least for one");
        }
        Ok(())
    }

    /// Begins a sequence; its number must not be that of another.
    ///
    /// # Errors
    /// As [`Engine::check`], and [`InferError::Request`] if there is no room.
    pub fn begin(&mut self, number: u64, request: Request) -> Result<(), InferError> {
        self.check(&request)?;
        let taken = |slot: &usize| self.running.iter().any(|running| running.slot == *slot);
        let free = (0..self.programs.slots()).find(|slot| !taken(slot)).filter(|_| self.has_room());
        let Some(slot) = free else {
            return Err(InferError::request("all slots are taken", "wait until a sequence has ended"));
        };
        self.running.push(Running {
            number,
            slot,
            since: Instant::now(),
            ids: request.prompt.clone(),
            fed: 0,
            written: 0,
            rng: ChaCha8Rng::seed_from_u64(request.sampling.seed),
            decoded: 0,
            text: Some(Detokenizer::new(self.tokenizer, &request.prompt)),
            stops: Stops::new(Arc::clone(&request.stop)),
            request,
        });
        Ok(())
    }

    /// Ends a sequence that nobody waits for any more.
    pub fn cancel(&mut self, number: u64) {
        self.running.retain(|running| running.number != number);
    }

    /// Reads a block of one prompt, then gives each sequence that has read its own a token, of which `each` hears.
    ///
    /// # Errors
    /// What the device refuses. What is wrong with one sequence is told to `each`.
    pub fn step(&mut self, each: &mut dyn FnMut(u64, Event)) -> Result<(), InferError> {
        let blocks = self.programs.prefill.filter(|_| self.logits.is_none());
        let mut half_read = None;
        if let Some(prefill) = blocks
            && let Some(next) = self.running.iter_mut().find(|running| running.fed + 1 < running.ids.len())
        {
            // The last token of a prompt is decoded: it is what the first logits follow.
            let end = (next.fed + prefill.tokens).min(next.ids.len() - 1);
            let begun = Instant::now();
            self.programs.read(self.session, prefill, &next.ids[next.fed..end], next.fed, next.slot)?;
            self.work.reading += begun.elapsed().as_secs_f64();
            self.work.read += end - next.fed;
            self.work.in_blocks += end - next.fed;
            next.fed = end;
            half_read = (end + 1 < next.ids.len()).then_some(next.slot);
        }
        let is_ready = |running: &&mut Running<'_>| blocks.is_none() || running.fed + 1 == running.ids.len();
        let mut ready: Vec<&mut Running<'_>> = self.running.iter_mut().filter(is_ready).collect();
        if ready.is_empty() {
            return Ok(());
        }
        let row = |running: &&mut Running<'_>| Row {
            token: running.ids[running.fed],
            position: running.fed,
            slot: running.slot,
        };
        let rows: Vec<Row> = ready.iter().map(row).collect();
        let is_idle = |slot: &usize| half_read != Some(*slot) && rows.iter().all(|row| row.slot != *slot);
        let begun = Instant::now();
        let logits =
            self.programs.step(self.session, &rows, &mut (0..self.programs.slots()).filter(is_idle))?;
        self.work.writing += begun.elapsed().as_secs_f64();
        self.work.steps += 1;
        let width = logits.len() / rows.len();
        let mut ended = vec![];
        for (running, logits) in ready.iter_mut().zip(logits.chunks_exact(width.max(1))) {
            let logits = &logits[..self.vocab.min(width)];
            if let Some(kept) = &mut self.logits {
                kept.tokens.push(running.ids[running.fed]);
                kept.rows.extend(logits);
            }
            running.fed += 1;
            if running.fed < running.ids.len() {
                self.work.read += 1;
                continue;
            }
            if running.written == 0 {
                let waited = running.since.elapsed().as_secs_f64();
                self.work.read += 1;
                self.work.begun += 1;
                self.work.first_token += waited;
                self.work.first_token_at_most = self.work.first_token_at_most.max(waited);
            }
            let event = running.write(logits, self.tokenizer);
            self.work.written += 1;
            if event.as_ref().map_or(true, |written| written.end.is_some()) {
                ended.push(running.number);
            }
            each(running.number, event);
        }
        self.running.retain(|running| !ended.contains(&running.number));
        Ok(())
    }

    /// Continues all requests, as many at once as there is room for, in their order; `each` hears their numbers. False if `stop`
    /// is set before the end.
    ///
    /// # Errors
    /// As [`Engine::step`], or that of a request that cannot be fulfilled, before anything runs.
    pub fn run(
        &mut self,
        requests: Vec<Request>,
        stop: &AtomicBool,
        each: &mut dyn FnMut(u64, Event),
    ) -> Result<bool, InferError> {
        requests.iter().try_for_each(|request| self.check(request))?;
        let mut waiting = (0..).zip(requests);
        loop {
            while self.has_room()
                && let Some((number, request)) = waiting.next()
            {
                self.begin(number, request)?;
            }
            if self.running.is_empty() {
                return Ok(true);
            }
            if stop.load(Ordering::Relaxed) {
                self.running.clear();
                return Ok(false);
            }
            self.step(each)?;
        }
    }
}

impl Running<'_> {
    /// Chooses the token that follows.
    fn write(&mut self, logits: &[f32], tokenizer: &Tokenizer) -> Event {
        check(logits, self.ids.len())?;
        let token = self.request.sampling.choose(logits, &self.ids, &mut self.rng);
        let score = self.request.scores.map(|count| TokenScore::of(logits, token, count));
        self.written += 1;
        self.ids.push(token);
        let (mut text, mut offset) = (String::new(), self.decoded);
        let mut end = (self.written == self.request.tokens).then_some(End::Length);
        if tokenizer.ends_document(token) {
            end = Some(End::Stop);
        } else if let Some(detokenizer) = &mut self.text {
            let known = detokenizer.push(token);
            // Who asks for no scores has no use for it.
            if self.request.scores.is_some() {
                offset = offset_of(self.decoded, &known, &tokenizer.token(token));
                self.decoded += known.chars().count();
            }
            let (piece, stops) = self.stops.push(&known);
            text = piece;
            if stops {
                return Ok(Written { token, text, offset, score, end: Some(End::Stop) });
            }
        }
        if end.is_some() {
            let rest = self.text.take().map_or_else(String::new, Detokenizer::finish);
            let (piece, stops) = self.stops.push(&rest);
            text.push_str(&piece);
            match stops {
                true => end = Some(End::Stop),
                false => text.push_str(&self.stops.finish()),
            }
        }
        Ok(Written { token, text, offset, score, end })
    }
}

/// Characters of a text before those of a token's own `token`, where `decoded` were known before it and `piece` is since: a piece
/// begins with what is left of incomplete characters before the token.
pub fn offset_of(decoded: usize, piece: &str, token: &str) -> usize {
    decoded + piece.chars().count().saturating_sub(token.chars().count())
}

#[cfg(test)]
mod tests;
