//! Gradients of the batches of this rank become one, and what ranks tell each other of a step.

use std::sync::atomic::{AtomicBool, Ordering};

use linc_data::{Batch, target_shares};
use linc_plan::{ParamState, Role, StateRole};

use super::Trainer;
use crate::config::Accumulate;
use crate::error::TrainError;

/// Sums over batches that wait for a neighbour of their size.
#[derive(Default)]
pub(super) struct Sums {
    waiting: Vec<Sum>,
    /// Batches in what the device holds.
    held: usize,
}

struct Sum {
    batches: usize,
    gradients: Vec<f32>,
}

pub(super) fn is_gradient(role: &Role) -> bool {
    matches!(role, Role::State(StateRole::OfParam { state: ParamState::Gradient, .. }))
}

impl Trainer {
    /// What each batch of the step counts, of all ranks in their order; nothing if any rank was asked to stop.
    pub(super) fn shares_of_all(
        &self,
        batches: &[Batch],
        stop: &AtomicBool,
    ) -> Result<Option<Vec<f64>>, TrainError> {
        let counts: Vec<usize> = batches.iter().map(Batch::target_count).collect();
        if self.team.is_alone() {
            return Ok(Some(target_shares(&counts)));
        }
        let mut mine = vec![u64::from(stop.load(Ordering::Relaxed))];
        mine.extend(counts.iter().map(|count| *count as u64));
        self.team.ranks().borrow_mut().set_context(format!("step {}", self.step + 1));
        let mut counts = vec![];
        for said in self.team.gather_numbers("the targets", &mine)? {
            if said.first() != Some(&0) {
                return Ok(None);
            }
            counts.extend(said[1..].iter().map(|count| *count as usize));
        }
        Ok(Some(target_shares(&counts)))
    }

    /// The losses of all batches of the step, in the order of the ranks. That all ranks have the same gradients shows in their norm; of the weights
    /// that says nothing ([`Trainer::compare_weights`]).
    ///
    /// # Errors
    /// [`TrainError::Apart`], on all ranks alike.
    pub(super) fn losses_of_all(&self, losses: &[f32], grad_norm: f32) -> Result<Vec<f32>, TrainError> {
        if self.team.is_alone() {
            return Ok(losses.to_vec());
        }
        let mine = [&[grad_norm], losses].concat();
        let step = self.step;
        let all = self.team.gather_numbers("the losses", &mine)?;
        self.team.ranks().borrow_mut().set_context(String::new());
        let norm = |rank: usize| all[rank].first().copied().unwrap_or(f32::NAN);
        if let Some(rank) = (1..all.len()).find(|rank| norm(*rank).to_bits() != norm(0).to_bits()) {
            return Err(TrainError::Apart {
                step,
                what: "the gradient norm",
                rank,
                beside: 0,
                first: norm(0).to_string(),
                other: norm(rank).to_string(),
            });
        }
        Ok(all.into_iter().flat_map(|rank| rank.into_iter().skip(1)).collect())
    }

    /// Before batch `index` of this rank: whether its gradients are added to what the device holds.
    pub(super) fn begin_batch(&mut self, index: usize, sums: &mut Sums) -> Result<bool, TrainError> {
        match self.config.parallelism.accumulate {
            Accumulate::Sequence => Ok(index > 0),
            // One batch is added to its neighbour by the program itself.
            Accumulate::Tree if sums.held == 1 => Ok(true),
            Accumulate::Tree => {
                if sums.held > 0 {
                    let gradients = self.session.executor.take_out(is_gradient)?;
                    sums.waiting.push(Sum { batches: sums.held, gradients });
                }
                sums.held = 0;
                Ok(false)
            }
        }
    }

    /// After a batch of this rank: sums of as many batches become one.
    pub(super) fn end_batch(&mut self, sums: &mut Sums) -> Result<(), TrainError> {
        sums.held += 1;
        while self.config.parallelism.accumulate == Accumulate::Tree
            && sums.waiting.last().is_some_and(|sum| sum.batches == sums.held)
        {
            self.add_waiting(sums)?;
        }
        Ok(())
    }

    fn add_waiting(&mut self, sums: &mut Sums) -> Result<(), TrainError> {
        if let Some(Sum { batches, gradients }) = sums.waiting.pop() {
            self.session.executor.add_to(is_gradient, &gradients)?;
            sums.held += batches;
        }
        Ok(())
    }

    /// The gradients that the device holds become the sum over all batches of this rank; over ranks the update adds them up.
    pub(super) fn end_sums(&mut self, mut sums: Sums) -> Result<(), TrainError> {
        while !sums.waiting.is_empty() {
            self.add_waiting(&mut sums)?;
        }
        Ok(())
    }
}
