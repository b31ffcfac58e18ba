//! The loop over the steps, how it ends, and what it leaves: checkpoints and a sample.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use linc_device::process;
use linc_device::words::count;
use linc_infer::{Generator, InferError, Programs, Request, Sampling};

use super::programs::{TRAIN, output};
use super::step::{Meter, StepDone};
use super::{Observer, SAMPLE_TOKENS, Summary, Trainer};
use crate::alerts::{Alert, AlertKind};
use crate::config::AlertLevel;
use crate::error::TrainError;
use crate::metrics::Record;

/// How long commands of alerts are waited for once somebody asked the run to end.
const GRACE: Duration = Duration::from_secs(5);

/// What is known while a run goes on.
#[derive(Default)]
struct Progress {
    /// Time of the steps.
    total: Duration,
    loss: Option<f32>,
    validation: Option<Record>,
    /// A request to stop came before all was done.
    interrupted: bool,
}

impl Trainer {
    /// Trains until the last step, or until `stop` is set: then the step that it is in is taken back, or finished if its update
    /// has begun (on a GPU, the program that runs), and a checkpoint is saved.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`], or what device and disk refuse.
    pub fn run(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Summary, TrainError> {
        self.train(stop, observer).map_err(|error| self.ended_by(error, observer))
    }

    fn train(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Summary, TrainError> {
        let start_tokens = self.tokens;
        let mut progress = Progress::default();
        let mut meter = Meter::default();
        if self.owes_validation() {
            self.validate_and_tell(&mut progress, stop, observer)?;
        }
        if self.owes_questions() && !progress.interrupted {
            progress.interrupted = !self.ask_and_tell(stop, observer)?;
        }
        while self.step < self.end_step() && !progress.interrupted {
            // Ranks stop together, in the middle of a step.
            if self.team.is_alone() && stop.load(Ordering::Relaxed) {
                progress.interrupted = true;
                break;
            }
            self.next_step(&mut progress, &mut meter, stop, observer)?;
        }
        self.compare_weights()?;
        self.wait_for_checkpoint(observer)?;
        self.remove_left_over()?;
        if progress.interrupted {
            self.end_early(observer)?;
        }
        self.finish_alerts(progress.interrupted, observer);
        if let Some(tracer) = self.tracer.as_ref().filter(|tracer| tracer.written > 0) {
            let (written, folder) = (count(tracer.written, "trace"), tracer.folder().display());
            observer.message(&format!("Wrote {written} to {folder}; https://ui.perfetto.dev opens them"));
        }
        let is_through = self.step >= self.config.training.steps;
        if !is_through && !progress.interrupted {
            let step = self.step;
            observer.message(&format!(
                "Ended after step {step} for training.stop_at_step; without it, the run goes on"
            ));
        }
        let samples = is_through && !progress.interrupted && self.team.is_first();
        let sample = if samples { self.sample(stop, observer)? } else { None };
        let tokens = self.tokens - start_tokens;
        Ok(Summary {
            step: self.step,
            tokens,
            tps: progress
                .loss
                .map(|_| tokens as f64 / self.team.size() as f64 / progress.total.as_secs_f64().max(1e-9)),
            loss: progress.loss,
            validation: progress.validation,
            arena: self.session.executor.arena_bytes(),
            process_peak: process::peak_memory(),
            checkpoint: self.last_checkpoint.clone().filter(|_| self.saved_step == Some(self.step)),
            sample,
            interrupted: progress.interrupted,
            layers: self.session.reports[TRAIN].layers.clone(),
            profile: self.profile.take(),
            memory: self.step_memory.clone(),
        })
    }

    /// A step with what follows it: its record, a validation, a checkpoint.
    fn next_step(
        &mut self,
        progress: &mut Progress,
        meter: &mut Meter,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let begun = Instant::now();
        let Some(done) = self.train_step(meter, stop)? else {
            progress.interrupted = true;
            return Ok(());
        };
        progress.loss = Some(done.loss);
        let elapsed = begun.elapsed();
        meter.time += elapsed;
        progress.total += elapsed;
        meter.steps += 1;
        meter.tokens += self.rank_tokens();
        self.tokens += self.step_tokens();
        observer.step(self.step, done.loss);
        self.watch(&done, observer)?;
        if let Some(tracer) = &mut self.tracer {
            tracer.step(self.step).map_err(output("write", tracer.folder()))?;
        }
        self.compare_weights_now_and_then()?;
        self.look_after_checkpoint(observer)?;
        let (last, ends) = (self.step == self.config.training.steps, self.step == self.end_step());
        if self.step == 1 || self.step.is_multiple_of(self.config.metrics.log_freq) || ends {
            let mut record = self.training_record(&done, &std::mem::take(meter))?;
            record.linear_attention = self.health(stop)?;
            self.write(&record)?;
            observer.record(&record, self.memory());
            let free = self.session.executor.free_share();
            let lines = self.alerts.record(&record, free);
            self.tell_alerts(lines, observer)?;
        }
        if self.validates() {
            self.validate_and_tell(progress, stop, observer)?;
        }
        if self.asks() && !progress.interrupted {
            progress.interrupted = !self.ask_and_tell(stop, observer)?;
        }
        let c = &self.config.checkpoint;
        // Steps that were left out may be the first of many, whose checkpoints would take the place of good ones.
        let is_sound = self.skipped_in_a_row == 0;
        let is_due = c.enable && (last || self.step.is_multiple_of(c.interval));
        if is_sound && (is_due || (ends && !last)) {
            self.save(last, observer)?;
        }
        Ok(())
    }

    /// Alerts of a step: of its loss, and of one that was left out.
    fn watch(&mut self, done: &StepDone, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let lines = match done.skipped && done.scaling.is_none() {
            false => self.alerts.step(self.step, f64::from(done.loss)),
            true => self.alerts.say(Alert {
                level: AlertLevel::Warn,
                kind: AlertKind::NonFinite,
                step: self.step,
                message: format!(
                    "step {} is left out: loss is {}, gradient norm is {}; {} so far",
                    self.step, done.loss, done.grad_norm, self.skipped
                ),
            }),
        };
        self.tell_alerts(lines, observer)
    }

    /// What ends the run, whatever it is: the checkpoint that is being written is waited for, and commands of alerts are.
    /// Whatever else fails now is only said.
    fn ended_by(&mut self, mut error: TrainError, observer: &mut dyn Observer) -> TrainError {
        if let Err(other) = self.wait_for_checkpoint(observer) {
            observer.message(&other.to_string());
        }
        if let TrainError::NotFinite { checkpoint, .. } = &mut error {
            checkpoint.clone_from(&self.last_checkpoint);
        }
        if let Err(other) = self.alert_of(&error, observer) {
            observer.message(&other.to_string());
        }
        self.finish_alerts(false, observer);
        error
    }

    /// Waits for commands of alerts that still run; not for long where somebody asked the run to end.
    fn finish_alerts(&mut self, interrupted: bool, observer: &mut dyn Observer) {
        let limit = if interrupted { GRACE } else { Duration::MAX };
        if let Some(waiting) = self.alerts.begin_to_finish(limit) {
            observer.message(&waiting);
        }
        for line in self.alerts.finish() {
            observer.warning(&line);
        }
    }

    /// The alert of what ends the run.
    fn alert_of(&mut self, error: &TrainError, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let TrainError::NotFinite { step, loss, grad_norm, .. } = error else { return Ok(()) };
        let message = format!("step {step}: loss is {loss}, gradient norm is {grad_norm}; the run ends");
        let alert = Alert { level: AlertLevel::Error, kind: AlertKind::NonFinite, step: *step, message };
        let lines = self.alerts.say(alert);
        self.tell_alerts(lines, observer)
    }

    fn tell_alerts(
        &self,
        lines: io::Result<Vec<String>>,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        for line in lines.map_err(output("write", self.alerts.path()))? {
            observer.warning(&line);
        }
        Ok(())
    }

    /// A validation that is due and that the run did not get through with.
    pub(super) fn owes_validation(&self) -> bool {
        self.step > 0 && self.validates() && self.metrics.measured().validation != Some(self.step)
    }

    fn validate_and_tell(
        &mut self,
        progress: &mut Progress,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let Some(record) = self.validate(stop, observer)? else {
            progress.interrupted = true;
            return Ok(());
        };
        self.write(&record)?;
        observer.validation(&record, self.memory());
        progress.validation = Some(record);
        Ok(())
    }

    /// Saves what was trained since the last checkpoint, and says how to go on.
    fn end_early(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        if self.step == 0 {
            observer.message("Interrupted before the first step; nothing was trained, and nothing is saved");
            return Ok(());
        }
        if self.saved_step != Some(self.step) {
            self.save(self.step == self.config.training.steps, observer)?;
            // Nothing is left to do meanwhile, and what becomes of it decides how the run may go on.
            self.wait_for_checkpoint(observer)?;
        }
        let c = &self.config.checkpoint;
        // Without checkpoint.enable a run does not look for its checkpoints by itself.
        let again = if c.enable && c.load_step < 0 {
            "run the same command again".to_string()
        } else {
            let folder = &self.config.job.dump_folder;
            format!("add --job.dump_folder {folder} --checkpoint.load_step {}", self.step)
        };
        observer.message(&format!("Interrupted after step {}; to go on, {again}", self.step));
        Ok(())
    }

    /// Text from the trained model, where its tokens are text; the part before `stop` is set.
    fn sample(
        &mut self,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Option<String>, TrainError> {
        let (Some(tokenizer), Some(program)) = (self.data.tokenizer.clone(), self.decode) else {
            return Ok(None);
        };
        let sampling =
            Sampling { temperature: 0.8, top_k: 40, seed: self.config.training.seed, ..Sampling::default() };
        let context = self.config.training.seq_len;
        // Its prompt is a token.
        let programs = Programs::of_one(context, program);
        let mut generator =
            Generator::new(&mut self.session, programs, self.model.sizes.vocab_size, &tokenizer);
        // Tokenizers without a token to start with start with a line break, if they have one.
        let count = Some(SAMPLE_TOKENS.min(context.saturating_sub(1)));
        let Ok(prompt) = generator.prompt("", count).or_else(|_| generator.prompt("\n", count)) else {
            return Ok(None);
        };
        let request =
            Request { prompt: prompt.ids, tokens: prompt.count, sampling, stop: [].into(), scores: None };
        let team = &self.team;
        let mut go_on = |_: &str| {
            // The others wait for this one to end.
            team.give_sign();
            !stop.load(Ordering::Relaxed)
        };
        match generator.generate(request, &mut go_on) {
            Ok(text) => Ok(Some(text)),
            // The last update may be what broke the weights; everything else that the run has to tell is still true.
            Err(error @ InferError::LogitsNotFinite { .. }) => {
                observer.message(&format!("No sample of what the model writes: {error}"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
