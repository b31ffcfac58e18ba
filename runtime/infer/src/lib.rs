//! Text from a model: prompts, sampling and generation.
//!
//! Invariants: prompt and continuation are one text, whatever the tokenizer; equal seeds give equal texts; what is no
//! distribution is refused and never drawn from.

mod error;
mod generate;
mod logits;
pub mod prompt;

pub use error::InferError;
pub use generate::{Generator, Prefill, Programs, Prompt, Sampling, USUAL_TOKENS, visible};
pub use logits::Logits;
