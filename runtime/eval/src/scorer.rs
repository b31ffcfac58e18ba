//! Whoever answers: a model, or in tests an oracle and one that knows nothing.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use linc_checkpoint::load_weights;
use linc_data::Tokenizer;
use linc_device::{Choice, Device};
use linc_driver::{Model, Precision};
use linc_infer::{Engine, InferError, Programs, Prompt, Request, Sampling, ScorePrograms, Scores, Wanted};
use linc_session::Session;

use crate::error::EvalError;
use crate::tokens::Bos;

/// Says how likely tokens are, and writes on.
pub trait Scorer {
    /// Number of tokens that it knows.
    fn vocab(&self) -> usize;

    /// Tokens that it reads at most. A sequence that is scored may have one more.
    fn context(&self) -> usize;

    /// Gets ready for sequences of these lengths.
    ///
    /// # Errors
    /// It cannot score such sequences.
    fn prepare(&mut self, lengths: &[usize]) -> Result<(), EvalError>;

    /// Scores sequences of lengths that it is ready for; `each` hears their numbers and scores. False if it was asked
    /// to stop before the end.
    ///
    /// # Errors
    /// A sequence that cannot be scored.
    fn score(&mut self, sequences: &[&[u32]], each: &mut dyn FnMut(usize, Scores))
    -> Result<bool, EvalError>;

    /// Continuations of prompts; `each` hears their numbers and texts. False if it was asked to stop before
    /// the end.
    ///
    /// # Errors
    /// A prompt is too long, or the model cannot generate.
    fn write(
        &mut self,
        prompts: &[Writing<'_>],
        each: &mut dyn FnMut(usize, String),
    ) -> Result<bool, EvalError>;
}

/// A prompt to be continued.
#[derive(Clone, Copy, Debug)]
pub struct Writing<'a> {
    /// The text before.
    pub prompt: &'a str,
    /// Tokens to write at most.
    pub tokens: usize,
    /// Texts that end it and are left out; none is empty.
    pub stop: &'a [String],
    /// How tokens are chosen.
    pub sampling: Sampling,
}

/// Told of each device that is opened, to show what it compiles.
pub type Watch = Box<dyn Fn(&mut dyn Device)>;

/// A model with its weights on a device.
pub struct ModelScorer {
    model: Model,
    checkpoint: PathBuf,
    tokenizer: Option<Tokenizer>,
    context: usize,
    precision: Precision,
    bos: Bos,
    device: Choice,
    threads: Option<usize>,
    stop: &'static AtomicBool,
    watch: Watch,
    held: Held,
}

/// Texts that are written together.
const TOGETHER: usize = 8;

/// The programs that are loaded: weights are there once.
enum Held {
    Nothing,
    Scoring(Box<Session>, ScorePrograms),
    Writing(Box<Session>, Box<Programs>),
}

/// How a model runs.
pub struct Running {
    /// Tokens that it reads at most.
    pub context: usize,
    /// Number format of weights and activations.
    pub precision: Precision,
    /// What stands before a text that it continues.
    pub bos: Bos,
    /// Where.
    pub device: Choice,
    /// Threads of the CPU, if not all.
    pub threads: Option<usize>,
    /// Set by a request to end.
    pub stop: &'static AtomicBool,
    /// Sees each device that is opened.
    pub watch: Watch,
}

impl ModelScorer {
    /// A model, the checkpoint that has its weights, and the tokenizer that makes tokens of its texts.
    pub fn new(model: Model, checkpoint: PathBuf, tokenizer: Option<Tokenizer>, running: Running) -> Self {
        let Running { context, precision, bos, device, threads, stop, watch } = running;
        let held = Held::Nothing;
        Self { model, checkpoint, tokenizer, context, precision, bos, device, threads, stop, watch, held }
    }

    fn open(&self) -> Result<Box<dyn Device>, EvalError> {
        let mut device = self.device.open(self.threads)?.device;
        (self.watch)(&mut *device);
        Ok(device)
    }

    fn filled(&self, mut session: Session) -> Result<Box<Session>, EvalError> {
        session.executor.initialize_constants().map_err(linc_infer::InferError::from)?;
        load_weights(&mut session.executor, &self.checkpoint, &mut |_, _| Ok::<_, EvalError>(()))?;
        Ok(Box::new(session))
    }
}

impl Scorer for ModelScorer {
    fn vocab(&self) -> usize {
        self.model.sizes.vocab_size
    }

    fn context(&self) -> usize {
        self.context
    }

    fn prepare(&mut self, lengths: &[usize]) -> Result<(), EvalError> {
        if matches!(&self.held, Held::Scoring(_, programs) if programs.covers(lengths)) {
            return Ok(());
        }
        // The memory of one is free before the other takes its own.
        self.held = Held::Nothing;
        let device = self.open()?;
        let (session, programs) =
            ScorePrograms::load(&self.model, self.context, lengths, self.precision, device)?;
        self.held = Held::Scoring(self.filled(session)?, programs);
        Ok(())
    }

    fn score(
        &mut self,
        sequences: &[&[u32]],
        each: &mut dyn FnMut(usize, Scores),
    ) -> Result<bool, EvalError> {
        if !matches!(self.held, Held::Scoring(..)) {
            let lengths: Vec<usize> = sequences.iter().map(|ids| ids.len()).collect();
            self.prepare(&lengths)?;
        }
        match &mut self.held {
            Held::Scoring(session, programs) => Ok(programs.score(session, sequences, self.stop, each)?),
            Held::Nothing | Held::Writing(..) => Ok(false),
        }
    }

    fn write(
        &mut self,
        prompts: &[Writing<'_>],
        each: &mut dyn FnMut(usize, String),
    ) -> Result<bool, EvalError> {
        let Some(tokenizer) = self.tokenizer.clone() else {
            let message = "the model reads no text, so it writes none";
            return Err(EvalError::request(
                message,
                "choose tasks that score tokens: linc eval --list-tasks",
            ));
        };
        if !matches!(self.held, Held::Writing(..)) {
            self.held = Held::Nothing;
            let device = self.open()?;
            let wanted = Wanted { sequences: TOGETHER, ..Wanted::one(self.context) };
            let (session, programs) = Programs::load(&self.model, wanted, self.precision, device)?;
            self.held = Held::Writing(self.filled(session)?, Box::new(programs));
        }
        let Held::Writing(session, programs) = &mut self.held else { return Ok(false) };
        let vocab = self.model.sizes.vocab_size;
        continued(session, programs, vocab, (&tokenizer, self.bos), prompts, self.stop, each)
    }
}

/// Continues prompts with programs of a session, as [`Scorer::write`].
pub(crate) fn continued(
    session: &mut Session,
    programs: &Programs,
    vocab: usize,
    (tokenizer, bos): (&Tokenizer, Bos),
    prompts: &[Writing<'_>],
    stop: &AtomicBool,
    each: &mut dyn FnMut(usize, String),
) -> Result<bool, EvalError> {
    let request = |asked: &Writing<'_>| {
        let first = bos.token(tokenizer, asked.prompt.is_empty());
        let prompt = Prompt::behind(first, tokenizer, asked.prompt, Some(asked.tokens), programs.context);
        let Prompt { ids, count } = prompt.map_err(|error| match error {
            InferError::Request { message, .. } => EvalError::request(message, "give a larger --context"),
            other => other.into(),
        })?;
        Ok::<_, EvalError>(Request {
            prompt: ids,
            tokens: count,
            sampling: asked.sampling,
            stop: asked.stop.into(),
            scores: None,
        })
    };
    let requests: Vec<Request> = prompts.iter().map(request).collect::<Result<_, _>>()?;
    let mut engine = Engine::new(session, programs.clone(), vocab, tokenizer);
    let mut texts = vec![String::new(); prompts.len()];
    let mut failed = None;
    let whole = engine.run(requests, stop, &mut |number, event| match event {
        Ok(written) => {
            let text = &mut texts[number as usize];
            text.push_str(&written.text);
            if written.end.is_some() {
                each(number as usize, std::mem::take(text));
            }
        }
        Err(error) => failed = Some(error),
    })?;
    failed.map_or(Ok(whole), |error| Err(error.into()))
}
