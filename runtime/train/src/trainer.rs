//! The training loop: batches in, one program run per step, validation, metrics and checkpoints out.

mod folder;
mod grad_norms;
mod health;
mod kept;
mod lock;
mod non_finite;
mod observer;
mod optimizer;
mod programs;
mod questions;
mod ranks;
mod resume;
mod run;
mod save;
mod shares;
mod start;
mod step;
mod sums;
#[cfg(test)]
mod tests;
mod trace;
mod validation;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use linc_checkpoint::{ModelRecord, Saving};
use linc_data::Data;
use linc_device::words::{bytes, thousands};
use linc_driver::{Model, by_name};
use linc_exec::{Executor, Profile};
use linc_plan::memory::Peak;
use linc_session::{Session, memory_parts};

use crate::alerts::Monitor;
use crate::config::JobConfig;
use crate::error::TrainError;
use crate::lr::LrSchedule;
use crate::metrics::{EventFile, Memory, MetricsFile, Record};
use crate::team::Team;

pub use folder::{Folder, is_going_on};
pub use observer::Observer;
pub use programs::{open_model, planned_memory};
pub use questions::{About, Measures, Questions};
pub use start::Machine;

use health::Health;
use kept::Kept;
use programs::{TRAIN, output};
use shares::Shares;
use step::{Meter, StepDone};
use trace::Tracer;

/// Tokens of the sample at the end.
const SAMPLE_TOKENS: usize = 160;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Steps done.
    pub step: usize,
    /// Tokens trained on in this run.
    pub tokens: u64,
    /// Tokens per second of each rank over this run, without validation and checkpoints, if there was a step.
    pub tps: Option<f64>,
    /// Loss of the last step, if there was one.
    pub loss: Option<f32>,
    /// The last validation.
    pub validation: Option<Record>,
    /// Bytes of the arena, on the device.
    pub arena: u64,
    /// Largest resident memory of the process so far, bytes: on a CPU the arena is a part of it.
    pub process_peak: u64,
    /// Where the checkpoint of the last step is, if there is one.
    pub checkpoint: Option<PathBuf>,
    /// Text from the trained model.
    pub sample: Option<String>,
    /// Ended by request before the last step.
    pub interrupted: bool,
    /// The kind of each layer.
    pub layers: Vec<&'static str>,
    /// Kernel times, where profiling was on.
    pub profile: Option<Profile>,
    /// Memory of the programs of a step.
    pub memory: Peak,
}

/// A run: its model on the device, its data, and how far it is.
pub struct Trainer {
    config: JobConfig,
    team: Team,
    shares: Shares,
    model: Model,
    record: ModelRecord,
    session: Session,
    /// What the optimizer keeps, of all ranks.
    kept: Kept,
    /// Number of the decode program.
    decode: Option<usize>,
    /// Number of the program that updates, where [`TRAIN`] only adds up gradients.
    update: Option<usize>,
    /// Names of the norms of parts of the gradients, in the order of the program's results.
    grad_norms: Vec<String>,
    /// Looks at linear layers, where that is asked for.
    health: Option<Health>,
    /// What checkpoints record of the tile sizes.
    tiles: BTreeMap<String, String>,
    data: Data,
    /// What is asked of the model beside its validation, if anything is.
    questions: Option<Box<dyn Questions>>,
    schedule: LrSchedule,
    metrics: MetricsFile,
    /// For TensorBoard, where that is asked for.
    events: Option<EventFile>,
    alerts: Monitor,
    step: usize,
    /// Steps so far that were left out since their gradients were not finite; in f16 the device counts them.
    skipped: u64,
    /// Of those, the ones just before the next step.
    skipped_in_a_row: u64,
    /// Steps done before this run.
    start_step: usize,
    tokens: u64,
    profile: Option<Profile>,
    /// Steps of this run that are not in the profile.
    unprofiled: usize,
    /// Writes traces, where profiling is on.
    tracer: Option<Tracer>,
    last_checkpoint: Option<PathBuf>,
    /// The step of the last checkpoint of this run.
    saved_step: Option<usize>,
    /// The step after which ranks have last compared their weights.
    compared_step: usize,
    /// A checkpoint that is being written, with its step and when it was begun. Before the lock, so that it is waited for while that is held.
    saving: Option<(usize, Instant, Saving)>,
    /// Nobody else writes to the dump folder; held by the rank that does.
    #[allow(dead_code, reason = "it is held, not read")]
    lock: Option<lock::Lock>,
    /// The machine's operations per second, and where that number comes from.
    peak: String,
    /// Memory of the programs of a step.
    step_memory: Peak,
}

impl Trainer {
    /// So many steps at the start of this run do not count in its profile: they touch memory for the first time.
    pub fn leave_out_of_profile(&mut self, steps: usize) {
        self.unprofiled = steps;
    }

    /// What runs the programs: it knows what the device can do at most.
    pub fn executor(&mut self) -> &mut Executor {
        &mut self.session.executor
    }

    /// TorchTitan's start-up lines, with the layer map.
    fn announce(&self, start: Option<String>, optimizer: &[String], observer: &mut dyn Observer) {
        let (model, training) = (&self.model, &self.config.training);
        if self.config.job.print_config {
            observer.message(&format!("Running with config:\n{}", self.config.to_toml()));
        }
        let device = self.session.executor.describe_device();
        let memory = bytes(self.session.executor.device_bytes());
        if !self.team.is_alone() {
            observer.message(&format!(
                "Ranks: {}, of which each has all parameters, {} and {} of a step ({})",
                self.team.size(),
                match self.shares.shards {
                    1 => "the whole optimizer".to_owned(),
                    shards => format!("one of {shards} parts of the optimizer"),
                },
                match self.shares.batches {
                    1 => "one batch".to_owned(),
                    batches => format!("{batches} batches"),
                },
                self.team.describe()
            ));
        }
        observer.message(&format!("Device: {device}, with {memory} of memory"));
        if let Some(loading) = self.session.executor.loading() {
            observer.message(&format!("Compiled {loading}"));
        }
        let count = thousands(model.sizes.params);
        observer.message(&format!("Model {} size: {count} total parameters", model.title()));
        observer.message(&format!(
            "Linear attention ratio {} ({}): {}",
            model.share_text(),
            model.placement,
            model.layer_map()
        ));
        optimizer.iter().for_each(|line| observer.message(line));
        observer.message(&format!("Data: {}", self.data.summary));
        observer.message(&format!("Peak FLOPS used for computing MFU: {}", self.peak));
        let Peak { bytes: all, categories, kept } = &self.step_memory;
        observer.message(&format!("Memory of a step: {}: {}", bytes(*all), memory_parts(categories)));
        observer.message(&format!("Kept for the backward at most: {}", memory_parts(kept)));
        observer.message(&format!(
            "Trainer is initialized with local batch size {}, global batch size {}, sequence length {}, total steps {} ({}).",
            training.batch_size,
            training.batch_size * self.shares.ranks * self.shares.batches,
            training.seq_len,
            training.steps,
            self.schedule.describe()
        ));
        if let Some(message) = start {
            observer.message(&message);
        }
        if self.step < self.end_step() {
            observer.message(&format!("Training starts at step {}.", self.step + 1));
        } else if self.step < training.steps {
            observer.message(&format!(
                "Nothing is left to train: step {} is done, and training.stop_at_step ends this start there; leave it out to go on.",
                self.step
            ));
        } else {
            observer.message(&format!(
                "Nothing is left to train: step {} of training.steps = {} is done; raise it to go on.",
                self.step, training.steps
            ));
        }
    }

    fn training_record(&mut self, done: &StepDone, meter: &Meter) -> Result<Record, TrainError> {
        // JSON has no infinity.
        let finite = self.grad_norms()?.into_iter().filter(|(_, norm)| norm.is_finite());
        let grad_norms = finite.map(|(name, norm)| (name.to_owned(), f64::from(norm))).collect();
        let report = &self.session.reports[TRAIN];
        let flops_per_token: u64 = [Some(TRAIN), self.update]
            .iter()
            .flatten()
            .map(|p| self.session.reports[*p].flops_per_token)
            .sum();
        let tps = meter.tokens as f64 / meter.time.as_secs_f64().max(1e-9);
        let steps = meter.steps.max(1) as f64;
        let titan = report.titan_flops_per_token as f64 * tps;
        let owned =
            |categories| by_name(categories).into_iter().map(|(name, n)| (name.to_string(), n)).collect();
        let executor = &mut self.session.executor;
        let true_share = executor.share_of_peak(flops_per_token as f64 * tps);
        // The convention counts operations that nobody does, such as those of masked scores.
        let titan_share = (titan / executor.peak_flops().max(1.0)).min(1.0);
        Ok(Record {
            loss: Some(f64::from(done.loss)),
            grad_norm: Some(f64::from(done.grad_norm)),
            grad_norms,
            loss_scale: done.scaling.map(|(scale, _)| f64::from(scale)),
            skipped_steps: match done.scaling {
                Some((_, skipped)) => Some(skipped as u64),
                None => (self.skipped > 0).then_some(self.skipped),
            },
            lr: Some(self.schedule.lr(self.step - 1)),
            tps: Some(tps),
            step_ms: Some(1e3 * meter.time.as_secs_f64() / steps),
            data_ms: Some(1e3 * meter.data.as_secs_f64() / steps),
            tflops: Some(titan / 1e12),
            mfu: Some(100.0 * titan_share),
            true_mfu: Some(100.0 * true_share),
            memory: owned(&self.step_memory.categories),
            kept_memory: owned(&self.step_memory.kept),
            ..Record::new(self.step, self.tokens)
        })
    }

    fn write(&mut self, record: &Record) -> Result<(), TrainError> {
        let path = Path::new(&self.config.job.dump_folder).join("metrics.jsonl");
        self.metrics.write(record).map_err(output("write", &path))?;
        if let Some(events) = &mut self.events {
            let folder = Path::new(&self.config.job.dump_folder).join(&self.config.metrics.save_tb_folder);
            events.write(record).map_err(output("write", &folder))?;
        }
        Ok(())
    }

    /// The step after which this start ends.
    fn end_step(&self) -> usize {
        let training = &self.config.training;
        training.stop_at_step.map_or(training.steps, |step| step.min(training.steps))
    }

    /// Whether a validation follows the step that was done last.
    fn validates(&self) -> bool {
        let validation = &self.config.validation;
        let due = self.step == self.end_step() || self.step.is_multiple_of(validation.freq);
        validation.enable && self.data.validation.is_some() && due
    }

    /// Measures on the validation part; nothing if `stop` is set before it is through.
    fn validate(
        &mut self,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Option<Record>, TrainError> {
        let mut record = Record::new(self.step, self.tokens);
        if let Some(data) = &self.data.validation {
            let begun = Instant::now();
            let (steps, vocab) = (self.config.validation.steps, self.model.sizes.vocab_size);
            let team = &self.team;
            if !validation::validate(
                &mut self.session,
                data,
                team,
                (steps, vocab),
                &mut record,
                stop,
                observer,
            )? {
                return Ok(None);
            }
            let tokens =
                data.batches_of(steps) * self.config.training.batch_size * self.config.training.seq_len
                    / self.team.size();
            record.validation_tps = Some(tokens as f64 / begun.elapsed().as_secs_f64().max(1e-9));
        }
        Ok(Some(record))
    }

    fn memory(&self) -> Memory {
        Memory { arena: self.session.executor.arena_bytes(), machine: self.session.executor.device_bytes() }
    }
}
