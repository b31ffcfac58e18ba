//! What models write of the prompts.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use linc_checkpoint::load_weights;
use linc_device::Device;
use linc_driver::Precision;
use linc_eval::Subject;
use linc_infer::{End, Engine, InferError, Programs, Request, Sampling, Wanted};

use super::prompts::{Prompt, prompts};
use crate::error::StudyError;

/// Texts that are written together.
const TOGETHER: usize = 8;

/// What all models are asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What is to be continued.
    pub prompts: Vec<Prompt>,
    /// The file that has them; none of those that are built in.
    pub source: Option<PathBuf>,
    /// Tokens to write of each turn at most.
    pub tokens: usize,
    /// How they are chosen; the prompt at index i has the seed + i.
    pub sampling: Sampling,
    /// Tokens that prompt and continuation may have together; see [`shared_context`].
    pub context: usize,
    /// Number format.
    pub precision: Precision,
}

impl Asked {
    /// The prompts of a file, or those that are built in.
    ///
    /// # Errors
    /// The file cannot be read, or has a line that is no prompt.
    pub fn prompts(path: Option<&Path>) -> Result<Vec<Prompt>, StudyError> {
        prompts(path)
    }
}

/// The tokens of a context that all models have, so that none has more room than others: the least of their training lengths.
pub fn shared_context(subjects: &[Subject]) -> usize {
    subjects.iter().map(|subject| subject.state.model.seq_len).min().unwrap_or(1)
}

/// What one model wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts {
    /// Of each prompt, turn by turn.
    pub texts: Vec<Vec<String>>,
    /// How many of them end because the context does, with fewer tokens than were asked for.
    pub cut_short: usize,
}

/// Hears how many of how many texts are written.
pub type Telling<'a> = dyn FnMut(usize, usize) + 'a;

/// What one model writes of all prompts; nothing if `stop` is set before the end.
///
/// # Errors
/// A prompt that is too long, a model that cannot generate or does not fit, or what the device refuses.
pub fn texts(
    subject: &Subject,
    asked: &Asked,
    device: Box<dyn Device>,
    stop: &AtomicBool,
    tell: &mut Telling<'_>,
) -> Result<Option<Texts>, StudyError> {
    let Some(tokenizer) = &subject.tokenizer else {
        return Err(StudyError::Nothing {
            message: format!("{}: the model reads no text, so it writes none", subject.path.display()),
            help: "compare models that were trained on text".to_owned(),
        });
    };
    let context = asked.context;
    let wanted = Wanted { sequences: TOGETHER.min(asked.prompts.len()).max(1), ..Wanted::one(context) };
    let (mut session, programs) = Programs::load(&subject.model, wanted, asked.precision, device)?;
    session.executor.initialize_constants().map_err(InferError::from)?;
    load_weights(&mut session.executor, &subject.checkpoint, &mut |_, _| Ok::<_, StudyError>(()))?;
    let mut engine = Engine::new(&mut session, programs, subject.model.sizes.vocab_size, tokenizer);

    let mut written: Vec<Vec<String>> = vec![vec![]; asked.prompts.len()];
    let total: usize = asked.prompts.iter().map(|prompt| prompt.turns.len()).sum();
    let turns = asked.prompts.iter().map(|prompt| prompt.turns.len()).max().unwrap_or(0);
    let (mut done, mut cut_short) = (0, 0);
    for turn in 0..turns {
        let numbers: Vec<usize> =
            (0..asked.prompts.len()).filter(|number| asked.prompts[*number].turns.len() > turn).collect();
        let request = |number: &usize| {
            let prompt = &asked.prompts[*number];
            let text = so_far(prompt, &written[*number], turn);
            // As much as there is room for is enough, if there is any behind the prompt.
            let found = linc_infer::Prompt::new(tokenizer, &text, Some(1), context).map_err(|error| {
                let reason = error.to_string();
                let reason = reason.lines().next().unwrap_or_default();
                let place = match (&asked.source, prompt.line) {
                    (Some(path), Some(line)) => format!("{}:{line}", path.display()),
                    (Some(path), None) => format!("{}: prompt {}", path.display(), number + 1),
                    (None, _) => format!("built-in prompt {}", number + 1),
                };
                StudyError::Nothing {
                    message: format!("{}: {place}: {reason}", subject.path.display()),
                    help: "leave that prompt out, or give a larger --context".to_owned(),
                }
            })?;
            Ok::<_, StudyError>(Request {
                tokens: asked.tokens.min(context - found.ids.len()),
                prompt: found.ids,
                sampling: Sampling {
                    seed: asked.sampling.seed.wrapping_add(*number as u64),
                    ..asked.sampling
                },
                stop: [].into(),
                scores: None,
            })
        };
        let requests: Vec<Request> = numbers.iter().map(request).collect::<Result<_, _>>()?;
        let rooms: Vec<usize> = requests.iter().map(|request| request.tokens).collect();
        let mut answers = vec![String::new(); numbers.len()];
        let mut failed = None;
        let whole = engine.run(requests, stop, &mut |number, event| match event {
            Ok(one) => {
                answers[number as usize].push_str(&one.text);
                if let Some(end) = one.end {
                    let is_short = end == End::Length && rooms[number as usize] < asked.tokens;
                    cut_short += usize::from(is_short);
                    done += 1;
                    tell(done, total);
                }
            }
            Err(error) => failed = Some(error),
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        if !whole {
            return Ok(None);
        }
        for (number, answer) in numbers.into_iter().zip(answers) {
            written[number].push(answer);
        }
    }
    Ok(Some(Texts { texts: written, cut_short }))
}

/// The text before what is to be written: turns, each behind what was written of those before it.
pub(super) fn so_far(prompt: &Prompt, written: &[String], turn: usize) -> String {
    let mut text = String::new();
    for (number, asked) in prompt.turns.iter().enumerate().take(turn + 1) {
        if number > 0 {
            text.push_str(written.get(number - 1).map_or("", String::as_str));
            text.push_str("\n\n");
        }
        text.push_str(asked);
        // What answers a question begins a line.
        if prompt.turns.len() > 1 {
            text.push_str("\n\n");
        }
    }
    text
}
