//! How good a model is: tasks, samples, grades, and how sure the numbers are.
//!
//! A task ([`task`]) is data and a function that makes its samples; a sample ([`sample`]) is what is asked and how the answer
//! is graded; a [`Scorer`] answers, a model or, in tests, an oracle and one that knows nothing.
//!
//! Invariants: results are functions of the model, the samples and the seed, not of how samples are batched, nor of where an
//! evaluation was ended and went on; a folder of results is of one model and one way to ask it; every task has an oracle
//! that gets all of it.
//!
//! To add a task: a module in `tasks`, or a row in one, with the function that makes its samples; its files by the names that
//! they are published under. What grades it is an arm of [`sample::Grade`].

pub mod code;
mod error;
mod in_training;
mod numbers;
mod record;
mod results;
mod run;
pub mod sample;
mod scorer;
pub mod stats;
mod subject;
pub mod task;
mod tasks;
pub mod tokens;

#[cfg(test)]
mod tests;

pub use error::EvalError;
pub use in_training::InTraining;
pub use record::Record;
pub use results::TaskResult;
pub use run::{Folder, Observer, Prepared, evaluate, prepare};
pub use scorer::{ModelScorer, Running, Scorer, Watch, Writing};
pub use subject::Subject;
