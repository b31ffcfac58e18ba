//! What models write of the prompts.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use linc_checkpoint::load_weights;
use linc_device::Device;
use linc_driver::Precision;
use linc_eval::Subject;
use linc_infer::{Engine, InferError, Programs, Request, Sampling, Wanted};

use super::prompts::{Prompt, prompts};
use crate::error::StudyError;

/// Texts that are written together.
const TOGETHER: usize = 8;

/// What all models are asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What is to be continued.
    pub prompts: Vec<Prompt>,
    /// Tokens to write of each turn at most.
    pub tokens: usize,
    /// How they are chosen; the prompt at index i has the seed + i.
    pub sampling: Sampling,
    /// Tokens that prompt and continuation may have together; each model's own training length, if not given.
    pub context: Option<usize>,
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

/// Hears how many of how many texts are written.
pub type Telling<'a> = dyn FnMut(usize, usize) + 'a;

/// What one model writes of all prompts, turn by turn; nothing if `stop` is set before the end.
///
/// # Errors
/// A prompt that is too long, a model that cannot generate or does not fit, or what the device refuses.
pub fn texts(
    subject: &Subject,
    asked: &Asked,
    device: Box<dyn Device>,
    stop: &AtomicBool,
    tell: &mut Telling<'_>,
) -> Result<Option<Vec<Vec<String>>>, StudyError> {
    let Some(tokenizer) = &subject.tokenizer else {
        return Err(StudyError::Nothing {
            message: format!("{}: the model reads no text, so it writes none", subject.checkpoint.display()),
            help: "compare models that were trained on text".to_owned(),
        });
    };
    let context = asked.context.unwrap_or(subject.state.model.seq_len);
    let wanted = Wanted { sequences: TOGETHER.min(asked.prompts.len()).max(1), ..Wanted::one(context) };
    let (mut session, programs) = Programs::load(&subject.model, wanted, asked.precision, device)?;
    session.executor.initialize_constants().map_err(InferError::from)?;
    load_weights(&mut session.executor, &subject.checkpoint, &mut || Ok::<_, StudyError>(()))?;
    let mut engine = Engine::new(&mut session, programs, subject.model.sizes.vocab_size, tokenizer);

    let mut written: Vec<Vec<String>> = vec![vec![]; asked.prompts.len()];
    let total: usize = asked.prompts.iter().map(|prompt| prompt.turns.len()).sum();
    let turns = asked.prompts.iter().map(|prompt| prompt.turns.len()).max().unwrap_or(0);
    let mut done = 0;
    for turn in 0..turns {
        let numbers: Vec<usize> =
            (0..asked.prompts.len()).filter(|number| asked.prompts[*number].turns.len() > turn).collect();
        let request = |number: &usize| {
            let prompt = &asked.prompts[*number];
            let text = so_far(prompt, &written[*number], turn);
            let fits = |tokens: Option<usize>| linc_infer::Prompt::new(tokenizer, &text, tokens, context);
            // As much as there is room for is enough, if the prompt itself fits.
            let found = fits(Some(asked.tokens)).or_else(|_| fits(None)).map_err(|error| {
                let reason = error.to_string();
                let reason = reason.lines().next().unwrap_or_default();
                let line =
                    prompt.line.map_or_else(String::new, |line| format!("the prompt of line {line}: "));
                StudyError::Nothing {
                    message: format!("{}: {line}{reason}", subject.checkpoint.display()),
                    help: "leave that prompt out, or give a larger --context".to_owned(),
                }
            })?;
            Ok::<_, StudyError>(Request {
                prompt: found.ids,
                tokens: found.count,
                sampling: Sampling {
                    seed: asked.sampling.seed.wrapping_add(*number as u64),
                    ..asked.sampling
                },
                stop: [].into(),
                scores: None,
            })
        };
        let requests: Vec<Request> = numbers.iter().map(request).collect::<Result<_, _>>()?;
        let mut answers = vec![String::new(); numbers.len()];
        let mut failed = None;
        let whole = engine.run(requests, stop, &mut |number, event| match event {
            Ok(one) => {
                answers[number as usize].push_str(&one.text);
                if one.end.is_some() {
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
    Ok(Some(written))
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
