//! What a run asks of its model beside validating it: by whoever starts the run, with programs beside those of a step.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use linc_data::Tokenizer;
use linc_driver::{Entry, Model, Options};
use linc_infer::InferError;
use linc_session::Session;

use super::{Observer, Trainer};
use crate::error::TrainError;
use crate::metrics::Record;

/// The run that questions are asked in.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Its layers and sizes.
    pub model: &'a Model,
    /// Makes tokens of texts; nothing where tokens are no text.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Tokens of its sequences: those that programs of questions may have, whose tables are the run's.
    pub context: usize,
    /// Options of its programs that do not train.
    pub options: &'a Options,
    /// Number of the first program of the questions.
    pub first: usize,
    /// The program that takes a token of one sequence and gives the logits of the next, if there is one.
    pub decode: Option<usize>,
    /// Set by a request to end.
    pub stop: &'a AtomicBool,
}

/// Measures by name, such as `mqar/acc`.
pub type Measures = BTreeMap<String, f64>;

/// Asks a model in training. What it reads and draws is its own, and it changes nothing of the run: a run has the same bits
/// with and without it.
pub trait Questions {
    /// Makes ready, before anything is allocated: the programs that it needs, by number from [`About::first`] on.
    ///
    /// # Errors
    /// What is asked for cannot be asked of this model.
    fn begin(&mut self, about: About<'_>) -> Result<Vec<(Entry, Options)>, TrainError>;

    /// Asks the model as it is in `session`; nothing if `stop` is set before all was asked. `tell` hears of a task, and how
    /// many of its samples are done out of all.
    ///
    /// # Errors
    /// What the device refuses, or the model says nothing that is a number.
    fn ask(
        &mut self,
        session: &mut Session,
        stop: &AtomicBool,
        tell: &mut dyn FnMut(&str, usize, usize),
    ) -> Result<Option<Measures>, TrainError>;
}

impl Trainer {
    /// Whether questions follow the step that was done last.
    pub(super) fn asks(&self) -> bool {
        let due = self.step == self.end_step() || self.step.is_multiple_of(self.config.eval.freq);
        self.questions.is_some() && due
    }

    /// Questions that are due and that the run did not get through with.
    pub(super) fn owes_questions(&self) -> bool {
        self.step > 0 && self.asks() && self.metrics.measured().evaluation != Some(self.step)
    }

    /// Asks, records and tells; false if `stop` was set before all was asked.
    pub(super) fn ask_and_tell(
        &mut self,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<bool, TrainError> {
        let Some(questions) = &mut self.questions else { return Ok(true) };
        let mut tell = |task: &str, done, total| observer.asking(task, done, total);
        let measures = match questions.ask(&mut self.session, stop, &mut tell) {
            Ok(Some(measures)) => measures,
            Ok(None) => return Ok(false),
            // Training may get over it, and says itself when it does not.
            Err(TrainError::Infer(error @ InferError::LogitsNotFinite { .. })) => {
                observer.message(&format!("No evaluation after step {}: {error}", self.step));
                self.metrics.pass_over(self.step);
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        // JSON has no others; a loss without end is one of a token that the model finds impossible.
        let (finite, others): (Measures, Measures) = measures.into_iter().partition(|(_, x)| x.is_finite());
        for (name, value) in others {
            observer.message(&format!(
                "Evaluation after step {}: {name} is {value}, and not recorded",
                self.step
            ));
        }
        self.metrics.pass_over(self.step);
        let record = Record { evaluation: finite, ..Record::new(self.step, self.tokens) };
        if !record.evaluation.is_empty() {
            self.write(&record)?;
            observer.evaluation(&record);
        }
        Ok(true)
    }
}
