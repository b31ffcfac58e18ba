//! What a run leaves behind and what it goes on with when the loss or the gradients of a step are not finite. Nothing of such a
//! step is applied: the compiled update looks at the norm of the gradients itself.

use std::path::{Path, PathBuf};

use linc_data::Batch;
use linc_plan::{DType, ParamState, Role, StateRole};
use linc_session::output::write_files;
use serde::{Deserialize, Serialize};

use super::Trainer;
use super::sums::is_gradient;
use crate::config::NonFinite;
use crate::error::TrainError;

/// The smallest scale of the loss at which an overflow is not the end: gradients of 1 are beyond f16 by then.
const SMALLEST_SCALE: f32 = 1.0 / 65536.0;

/// Steps in a row that may be skipped: then it is not the batch that is at fault.
const IN_A_ROW: u64 = 20;

/// What follows a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It was applied.
    Done,
    /// It was not, and the next one is another batch.
    Skipped,
    /// The run ends.
    End,
}

/// Judges a step by its loss and the norm of its gradients; `scale` is that of the loss in f16, and `in_a_row` how many steps
/// were skipped just before.
///
/// In f16 a gradient that is not finite is what the scale is there to find out, be it that of an overflow in the forward, which
/// the loss shows as well: the step has updated nothing, and the next is another batch at half the scale, as with
/// `torch.amp.GradScaler`. That ends where no scale helps.
pub(super) fn verdict(
    loss: f32,
    grad_norm: f32,
    scale: Option<f32>,
    setting: NonFinite,
    in_a_row: u64,
) -> Verdict {
    if loss.is_finite() && grad_norm.is_finite() {
        return Verdict::Done;
    }
    // A loss that is no number with gradients that are is an update that should not have been.
    let may_skip = match scale {
        Some(scale) => scale > SMALLEST_SCALE,
        None => setting == NonFinite::Skip && in_a_row < IN_A_ROW,
    };
    if !grad_norm.is_finite() && may_skip { Verdict::Skipped } else { Verdict::End }
}

/// A tensor, for whoever looks for the fault.
#[derive(Serialize, Deserialize)]
struct Statistics {
    name: String,
    role: String,
    numel: usize,
    /// Infinite or no numbers.
    non_finite: usize,
    /// Of the finite ones.
    max_abs: f64,
    rms: f64,
}

impl Statistics {
    /// With those of another part of the tensor.
    fn join(&mut self, part: &Statistics) {
        let squares = |of: &Statistics| of.rms * of.rms * (of.numel - of.non_finite) as f64;
        let squares = squares(self) + squares(part);
        self.numel += part.numel;
        self.non_finite += part.non_finite;
        self.max_abs = self.max_abs.max(part.max_abs);
        self.rms = (squares / (self.numel - self.non_finite).max(1) as f64).sqrt();
    }
}

impl Trainer {
    /// Clears the gradients that batches of a step added up. The next step multiplies by zero what is there, which is not
    /// zero where it is infinite or no number.
    pub(super) fn forget_gradients(&mut self) -> Result<(), TrainError> {
        if self.update.is_some() {
            let x = &mut self.session.executor;
            for gradient in x.tensors(is_gradient) {
                x.clear_tensor(&gradient.name)?;
            }
        }
        Ok(())
    }

    /// Writes the batches of a step, of all ranks, and what the weights and the optimizer's states look like; the folder.
    pub(super) fn dump(&self, step: usize, batches: &[Batch]) -> Result<PathBuf, TrainError> {
        let folder = Path::new(&self.config.job.dump_folder).join(format!("non-finite-step-{step}"));
        let rows: Vec<serde_json::Value> = batches
            .iter()
            .map(|batch| {
                let mut row = serde_json::json!({ "tokens": batch.tokens, "targets": batch.targets });
                // Where documents are kept apart, the same tokens give another result without them.
                if let Some(positions) = &batch.positions {
                    row["positions"] = serde_json::json!(positions);
                }
                row
            })
            .collect();
        let rows = self.rows_of_all(rows)?;
        let statistics = self.statistics_of_all()?;
        if !self.team.is_first() {
            return Ok(folder);
        }
        let shape = [self.config.training.batch_size, self.config.training.seq_len];
        let batch = serde_json::json!({ "step": step, "shape": shape, "batches": rows }).to_string();
        let statistics = serde_json::to_string_pretty(&statistics).unwrap_or_default();
        let norms = self.grad_norms()?.into_iter().map(|(name, norm)| {
            // JSON has no infinity, and which part has one is what is looked for.
            let norm = if norm.is_finite() { norm.into() } else { norm.to_string().into() };
            (name.to_owned(), norm)
        });
        let norms =
            serde_json::to_string_pretty(&norms.collect::<serde_json::Map<_, _>>()).unwrap_or_default();
        let mut files = vec![("batch.json", batch.as_bytes()), ("statistics.json", statistics.as_bytes())];
        if !self.grad_norms.is_empty() {
            files.push(("grad_norms.json", norms.as_bytes()));
        }
        write_files(&folder, &files)?;
        Ok(folder)
    }

    fn rows_of_all(&self, rows: Vec<serde_json::Value>) -> Result<Vec<serde_json::Value>, TrainError> {
        if self.team.is_alone() {
            return Ok(rows);
        }
        let mine = serde_json::Value::from(rows).to_string();
        let all = self.team.gather("the batches of a step that is not finite", mine.as_bytes())?;
        let rows =
            |rank: Vec<u8>| serde_json::from_slice::<Vec<serde_json::Value>>(&rank).unwrap_or_default();
        Ok(all.into_iter().flat_map(rows).collect())
    }

    /// [`Trainer::statistics`], where other ranks have parts with those of them all.
    fn statistics_of_all(&self) -> Result<Vec<Statistics>, TrainError> {
        let mut all = self.team.settle("statistics of a step that is not finite", self.statistics())?;
        if self.shares.shards == 1 {
            return Ok(all);
        }
        let is_of_first_copy = self.shares.first_with_part_of(self.team.rank()) == self.team.rank();
        let mine = if is_of_first_copy && !self.team.is_first() { std::mem::take(&mut all) } else { vec![] };
        for part in
            self.team.gather_values("statistics of a step that is not finite", &mine)?.into_iter().flatten()
        {
            match all.iter_mut().find(|of_first| of_first.name == part.name) {
                Some(of_first) => of_first.join(&part),
                None => all.push(part),
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Of all weights and states of the optimizer, in the order of their names; on other ranks than the first, of what that one
    /// may lack.
    fn statistics(&self) -> Result<Vec<Statistics>, TrainError> {
        let executor = &self.session.executor;
        let wanted = |role: &Role| role_word(role).is_some();
        let mut found = vec![];
        for tensor in executor.tensors(wanted) {
            if !self.team.is_first() && tensor.shard.is_none() {
                continue;
            }
            let Some(role) = role_word(&tensor.role).filter(|_| tensor.dtype == DType::F32) else { continue };
            let bytes = executor.read_tensor(&tensor.name)?;
            let values = bytes.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
            let (mut numel, mut finite, mut max_abs, mut squares) = (0, 0usize, 0.0, 0.0);
            for value in values {
                numel += 1;
                if value.is_finite() {
                    finite += 1;
                    max_abs = f64::max(max_abs, value.abs());
                    squares += value * value;
                }
            }
            let rms = (squares / finite.max(1) as f64).sqrt();
            found.push(Statistics {
                name: tensor.name,
                role: role.to_owned(),
                numel,
                non_finite: numel - finite,
                max_abs,
                rms,
            });
        }
        Ok(found)
    }
}

/// What training keeps of its tensors; nothing for inputs, caches and tables.
fn role_word(role: &Role) -> Option<&'static str> {
    match role {
        Role::Param => Some("weight"),
        Role::State(StateRole::OfParam { state, .. }) => Some(match state {
            ParamState::Gradient => "gradient",
            ParamState::FirstMoment | ParamState::SecondMoment => "moment",
        }),
        Role::State(StateRole::LossScale) => Some("loss scale"),
        Role::State(StateRole::KeyValueCache | StateRole::Recurrent) => None,
        Role::Input | Role::Table | Role::Output => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_applied_can_be_gone_on_from() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        for setting in [NonFinite::Stop, NonFinite::Skip] {
            for scale in [None, Some(65536.0), Some(1e-5)] {
                assert_eq!(verdict(2.0, 1.0, scale, setting, 0), Verdict::Done);
                assert_eq!(verdict(nan, 1.0, scale, setting, 0), Verdict::End, "a gradient was applied");
            }
            for (loss, norm) in [(2.0, inf), (2.0, nan), (nan, nan), (inf, inf)] {
                for scale in [65536.0, 2e-5] {
                    assert_eq!(verdict(loss, norm, Some(scale), setting, 0), Verdict::Skipped);
                }
                assert_eq!(verdict(loss, norm, Some(1e-5), setting, 0), Verdict::End);
            }
        }
        assert_eq!(verdict(nan, nan, None, NonFinite::Stop, 0), Verdict::End);
        assert_eq!(verdict(nan, nan, None, NonFinite::Skip, IN_A_ROW - 1), Verdict::Skipped);
        assert_eq!(verdict(nan, nan, None, NonFinite::Skip, IN_A_ROW), Verdict::End);
    }
}
