//! Text from a model: prompts, sampling and generation, of one text or of many at once.
//!
//! Invariants: prompt and continuation are one text, whatever the tokenizer; equal seeds give equal texts, whichever others
//! are written beside them; what is no distribution is refused and never drawn from.

mod engine;
mod error;
mod generate;
mod logits;
mod programs;
pub mod prompt;
mod sampling;
mod score;
mod stop;

pub use engine::{End, Engine, Event, Request, Work, Written, offset_of};
pub use error::InferError;
pub use generate::{Generator, Prompt, USUAL_TOKENS, visible};
pub use logits::Logits;
pub use programs::{MOST_SEQUENCES, Programs, Row, Wanted, bytes_per_sequence, options, session};
pub use sampling::{OutOfRange, Sampling, TokenScore};
pub use score::{Best, ScorePrograms, Scores};
pub use stop::LONGEST_STOP;

use linc_device::words;
use linc_driver::Model;

/// Refuses a context that the model cannot have.
///
/// # Errors
/// [`InferError::Request`] for one that is no number of positions or longer than the model can be, and the place in the
/// model's text if it cannot generate.
pub(crate) fn check_context(model: &Model, context: usize) -> Result<(), InferError> {
    if context == 0 || i32::try_from(context).is_err() {
        let message = format!("--context is {context}; expected 1 to {}", i32::MAX);
        return Err(InferError::request(
            message,
            "leave it out for the length that the model was trained on",
        ));
    }
    let longest = linc_driver::decode_support(model)?.longest;
    if let Some(longest) = longest.filter(|longest| context > *longest) {
        let message = format!(
            "the context is {context}, but the model has parameters for {}, the length of the sequences that it was trained on",
            words::count(longest, "position")
        );
        return Err(InferError::request(message, format!("give a --context of at most {longest}")));
    }
    Ok(())
}
