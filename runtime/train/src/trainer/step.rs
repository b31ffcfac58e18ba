//! One step of the optimizer: its batches, their gradients, the update.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use linc_data::{Batch, DataState};
use linc_driver::names;

use super::Trainer;
use super::non_finite::{Verdict, verdict};
use super::programs::TRAIN;
use super::sums::Sums;
use crate::error::TrainError;

/// What a step gave.
pub(super) struct StepDone {
    /// Mean over all targets of its batches.
    pub(super) loss: f32,
    /// Norm of its gradient.
    pub(super) grad_norm: f32,
    /// In f16, the scale of the loss, and the steps skipped so far.
    pub(super) scaling: Option<(f32, f32)>,
    /// Nothing of it was applied.
    pub(super) skipped: bool,
}

/// Time and tokens since the last record.
#[derive(Default)]
pub(super) struct Meter {
    pub(super) steps: u64,
    pub(super) tokens: u64,
    pub(super) time: Duration,
    pub(super) data: Duration,
}

impl Trainer {
    /// Tokens of an optimizer step, over all ranks.
    pub(super) fn step_tokens(&self) -> u64 {
        self.rank_tokens() * self.shares.ranks as u64
    }

    /// Tokens of an optimizer step that this rank computes with.
    pub(super) fn rank_tokens(&self) -> u64 {
        let training = &self.config.training;
        (training.batch_size * self.shares.batches * training.seq_len) as u64
    }

    /// One optimizer step. If `stop` is set before its update, nothing: what its batches added up is forgotten, and the
    /// data are where they were.
    pub(super) fn train_step(
        &mut self,
        meter: &mut Meter,
        stop: &AtomicBool,
    ) -> Result<Option<StepDone>, TrainError> {
        let position = self.data.training.state();
        let begun = Instant::now();
        let mut batches: Vec<Batch> = vec![];
        for index in 0..self.shares.batches {
            if index > 0 && self.team.is_alone() && stop.load(Ordering::Relaxed) {
                self.data.training.restore(&position)?;
                return Ok(None);
            }
            batches.push(self.data.training.next_batch()?);
        }
        meter.data += begun.elapsed();
        self.keep_for_health(&batches[0]);
        if let Some(tracer) = &mut self.tracer {
            tracer.data(begun);
        }
        // Ranks end together or not at all: what one of them was asked in the middle of a step waits for the next.
        let never = AtomicBool::new(false);
        let Some(shares) = self.shares_of_all(&batches, stop)? else { return self.take_back(&position) };
        let stop = if self.team.is_alone() { stop } else { &never };
        let first = self.team.rank() * batches.len();
        let mut losses = vec![];
        let mut sums = Sums::default();
        for (index, batch) in batches.iter().enumerate() {
            let keeps = self.begin_batch(index, &mut sums)?;
            self.feed_batch(batch, keeps, shares[first + index])?;
            if !self.run_program(TRAIN, stop)? {
                return self.take_back(&position);
            }
            losses.push(self.session.scalar(TRAIN, names::LOSS)?);
            self.end_batch(&mut sums)?;
        }
        if let Some(update) = self.update {
            self.end_sums(sums)?;
            self.feed_optimizer(update)?;
            if !self.run_program(update, stop)? {
                return self.take_back(&position);
            }
        }
        self.step += 1;
        if let Some(profile) = &mut self.profile {
            // Times are shown per step, however many programs it takes.
            profile.runs = (self.step - self.start_step).saturating_sub(self.unprofiled) as u64;
        }
        let program = self.update.unwrap_or(TRAIN);
        let grad_norm = self.session.scalar(program, names::GRAD_NORM)?;
        let losses = self.losses_of_all(&losses, grad_norm)?;
        // Of one batch it is exact.
        let loss =
            losses.iter().zip(&shares).map(|(loss, share)| share * f64::from(*loss)).sum::<f64>() as f32;
        let scaling = if self.config.training.mixed_precision_param.scales_loss() {
            let scale = self.session.scalar(program, names::LOSS_SCALE)?;
            Some((scale, self.session.scalar(program, names::SKIPPED_STEPS)?))
        } else {
            None
        };
        let setting = self.config.alerts.non_finite;
        let verdict =
            verdict(loss, grad_norm, scaling.map(|(scale, _)| scale), setting, self.skipped_in_a_row);
        match verdict {
            Verdict::Done => self.skipped_in_a_row = 0,
            Verdict::Skipped => {
                self.forget_gradients()?;
                // In f16 the device counts.
                if scaling.is_none() {
                    self.skipped += 1;
                    self.skipped_in_a_row += 1;
                }
            }
            Verdict::End => {
                // That the step is not finite is the news, whatever else fails.
                let dump = match self.dump(self.step, &batches) {
                    Ok(folder) => {
                        format!(
                            "its batch, and statistics of weights and moments, are in {}",
                            folder.display()
                        )
                    }
                    Err(error) => format!("its batch could not be kept: {error}"),
                };
                // Which one that is, is known when none is being written any more.
                let checkpoint = None;
                return Err(TrainError::NotFinite { step: self.step, loss, grad_norm, dump, checkpoint });
            }
        }
        Ok(Some(StepDone { loss, grad_norm, scaling, skipped: verdict == Verdict::Skipped }))
    }

    /// A step that was not done.
    fn take_back(&mut self, position: &DataState) -> Result<Option<StepDone>, TrainError> {
        self.data.training.restore(position)?;
        self.forget_gradients()?;
        Ok(None)
    }

    /// Gives the training program a batch, which has that share of the step's targets, and is added to those before or not.
    fn feed_batch(&mut self, batch: &Batch, keeps: bool, share: f64) -> Result<(), TrainError> {
        let x = &mut self.session.executor;
        x.write_input(TRAIN, names::TOKENS, bytemuck::cast_slice(&batch.tokens))?;
        x.write_input(TRAIN, names::TARGETS, bytemuck::cast_slice(&batch.targets))?;
        if let Some(positions) = &batch.positions {
            x.write_input(TRAIN, names::POSITIONS, bytemuck::cast_slice(positions))?;
        }
        match self.update {
            None => {
                // One batch is all of its step, but where other ranks have others.
                if !self.team.is_alone() {
                    x.write_input(TRAIN, names::SHARE, bytemuck::bytes_of(&(share as f32)))?;
                }
                self.feed_optimizer(TRAIN)
            }
            Some(_) => {
                let keep = if keeps { 1f32 } else { 0.0 };
                x.write_input(TRAIN, names::KEEP, bytemuck::bytes_of(&keep))?;
                Ok(x.write_input(TRAIN, names::SHARE, bytemuck::bytes_of(&(share as f32)))?)
            }
        }
    }

    /// Learning rate and number of the step that is to be done.
    fn feed_optimizer(&mut self, program: usize) -> Result<(), TrainError> {
        let lr = self.schedule.lr(self.step) as f32;
        // As for PyTorch's scaler, a step that was skipped is none of the optimizer's.
        let number = (self.step as u64 + 1).saturating_sub(self.skipped).max(1) as f32;
        let x = &mut self.session.executor;
        x.write_input(program, names::LEARNING_RATE, bytemuck::bytes_of(&lr))?;
        Ok(x.write_input(program, names::STEP, bytemuck::bytes_of(&number))?)
    }

    /// False if `stop` ended it before it changed weights or the optimizer's state.
    fn run_program(&mut self, program: usize, stop: &AtomicBool) -> Result<bool, TrainError> {
        let x = &mut self.session.executor;
        let is_profiled = self.step - self.start_step >= self.unprofiled;
        match self.profile.as_mut().filter(|_| is_profiled) {
            Some(profile) => {
                let begun = Instant::now();
                let times = x.run_profiled(program, profile)?;
                if let Some(tracer) = &mut self.tracer {
                    tracer.program(begun, x.plan(program), &times, &self.session.reports[TRAIN].layers);
                }
                Ok(true)
            }
            None => Ok(x.run_until(program, stop)?),
        }
    }
}
