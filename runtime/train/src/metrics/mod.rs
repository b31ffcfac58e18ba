//! What a run reports: TorchTitan's console line, `metrics.jsonl`, and events for TensorBoard.

mod console;
mod file;
mod tensorboard;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use console::{Memory, console_line, evaluation_line, validation_line};
pub use file::{Measured, MetricsFile, last_measured, last_step};
pub use tensorboard::EventFile;

/// What is written to files beside a record: the time by the clock on the wall.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What a record tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Steps of training: a loss, speeds and memory.
    Training,
    /// Losses on data that is not trained on.
    Validation,
    /// Measures of tasks that were asked, and nothing else.
    Evaluation,
}

/// One line of `metrics.jsonl`: a training step, a validation, or an evaluation, by its [`Record::kind`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Optimizer steps done.
    pub step: usize,
    /// Loss of the step, nats per token: the mean over all targets of its batches.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss: Option<f64>,
    /// Global gradient norm before clipping.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grad_norm: Option<f64>,
    /// The same of parts of the model, by layer, block or parameter; those that are finite.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub grad_norms: BTreeMap<String, f64>,
    /// What linear layers do, by layer and measure, such as `layers.3/effective_positions`; at the steps that it is looked at.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub linear_attention: BTreeMap<String, f64>,
    /// Scale of the step's loss, in f16.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss_scale: Option<f64>,
    /// Steps so far whose gradients overflowed, and which updated nothing, in f16.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub skipped_steps: Option<u64>,
    /// Learning rate of the step.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lr: Option<f64>,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Tokens per second since the last record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tps: Option<f64>,
    /// Milliseconds per step since the last record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub step_ms: Option<f64>,
    /// Milliseconds per step spent on data since the last record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub data_ms: Option<f64>,
    /// Model FLOP/s in TFLOP/s, TorchTitan's convention.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tflops: Option<f64>,
    /// Percent of peak, TorchTitan's convention.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mfu: Option<f64>,
    /// Percent of peak by the operations that the plan counts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub true_mfu: Option<f64>,
    /// Bytes of the arena by category at the step's peak, whichever of its programs has it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub memory: BTreeMap<String, u64>,
    /// Bytes of what is kept for the backward, by category, at the peak of that alone.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub kept_memory: BTreeMap<String, u64>,
    /// Validation loss, nats per token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validation_loss: Option<f64>,
    /// Validation loss in bits per byte of text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validation_bits_per_byte: Option<f64>,
    /// Share of recall queries answered right.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validation_accuracy: Option<f64>,
    /// Tokens per second of the validation.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validation_tps: Option<f64>,
    /// What was asked beside the validation, by task and measure, such as `mqar/acc`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub evaluation: BTreeMap<String, f64>,
}

impl Record {
    /// What it tells of, as everybody sorts records who reads them again.
    pub fn kind(&self) -> Kind {
        if self.validation_loss.is_some() {
            Kind::Validation
        } else if !self.evaluation.is_empty() {
            Kind::Evaluation
        } else {
            Kind::Training
        }
    }

    /// An empty record of a step.
    pub fn new(step: usize, tokens: u64) -> Self {
        Record {
            step,
            loss: None,
            grad_norm: None,
            grad_norms: BTreeMap::new(),
            linear_attention: BTreeMap::new(),
            loss_scale: None,
            skipped_steps: None,
            lr: None,
            tokens,
            tps: None,
            step_ms: None,
            data_ms: None,
            tflops: None,
            mfu: None,
            true_mfu: None,
            memory: BTreeMap::new(),
            kept_memory: BTreeMap::new(),
            validation_loss: None,
            validation_bits_per_byte: None,
            validation_accuracy: None,
            validation_tps: None,
            evaluation: BTreeMap::new(),
        }
    }
}
