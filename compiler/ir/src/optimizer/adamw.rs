//! AdamW (arXiv 1711.05101): Adam with decoupled weight decay.

use linc_text::Parsed;

use super::Update;
use crate::attributes::Attributes;
use crate::facts::{Facts, OperandTypes, Overwrites, compute};
use crate::role::ParamState;

/// Hyperparameters that are fixed at compile time.
#[derive(Clone, PartialEq, Debug)]
pub struct AdamWSpec {
    /// First-moment decay.
    pub beta1: f64,
    /// Second-moment decay.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
}

impl Default for AdamWSpec {
    /// TorchTitan's.
    fn default() -> Self {
        AdamWSpec { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 }
    }
}

impl AdamWSpec {
    const NAME: &str = "adamw";

    pub(super) fn parse(name: &str, a: &mut Attributes) -> Parsed<Option<Self>> {
        if name != Self::NAME {
            return Ok(None);
        }
        Self::read(a).map(Some)
    }

    pub(super) fn read(a: &mut Attributes) -> Parsed<Self> {
        let (beta1, beta2) = (a.f64("beta1")?, a.f64("beta2")?);
        Ok(AdamWSpec { beta1, beta2, eps: a.f64("eps")?, weight_decay: a.f64("weight_decay")? })
    }
}

impl Update for AdamWSpec {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn states(&self) -> &'static [(ParamState, &'static str)] {
        // PyTorch's words.
        &[(ParamState::FirstMoment, "exp_avg"), (ParamState::SecondMoment, "exp_avg_sq")]
    }

    fn facts(&self) -> &'static Facts {
        const {
            &Facts {
                overwrites: Overwrites::Always(&[(0, 0), (1, 2), (2, 3)]),
                ..compute(OperandTypes::Wide, &[])
            }
        }
    }

    fn attributes(&self) -> Vec<String> {
        vec![
            format!("beta1 = {:?}", self.beta1),
            format!("beta2 = {:?}", self.beta2),
            format!("eps = {:?}", self.eps),
            format!("weight_decay = {:?}", self.weight_decay),
        ]
    }
}
