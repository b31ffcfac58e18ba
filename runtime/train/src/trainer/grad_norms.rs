//! Norms of the gradients of layers, blocks or single parameters, which the program of a step computes beside that of all: where
//! `metrics.grad_norms` asks for them.

use std::collections::{BTreeMap, BTreeSet};

use linc_driver::{Parameter, names};

use super::Trainer;
use super::programs::TRAIN;
use crate::config::GradNorms;
use crate::error::TrainError;

/// The parameters of each norm, by the name that it has in metrics; in the order of the program's results.
pub(super) fn sets(wanted: GradNorms, params: &[Parameter]) -> BTreeMap<String, BTreeSet<String>> {
    let mut sets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for param in params {
        let set = match (wanted, param.scope.layer) {
            (GradNorms::None, _) => continue,
            (GradNorms::Layers, Some(layer)) => format!("layers.{layer}"),
            // Blocks have dots in the names of their parameters.
            (GradNorms::Blocks, _) if !param.scope.path.is_empty() => {
                param.scope.to_string().replace('/', ".")
            }
            (GradNorms::Layers | GradNorms::Blocks | GradNorms::Parameters, _) => param.name.clone(),
        };
        sets.entry(set).or_default().insert(param.name.clone());
    }
    sets
}

impl Trainer {
    /// The norms of the step that was done last, by their names, of all ranks' batches and before clipping. The program has
    /// computed them with the norm of all gradients, so that nothing is waited for once that was read.
    pub(super) fn grad_norms(&self) -> Result<Vec<(&str, f32)>, TrainError> {
        if self.grad_norms.is_empty() {
            return Ok(vec![]);
        }
        let program = self.update.unwrap_or(TRAIN);
        let norms = self.session.executor.output(program, names::GRAD_NORMS)?;
        Ok(self.grad_norms.iter().map(String::as_str).zip(norms).collect())
    }
}
