//! What optimizers do to parameters: an operation for each, of operands that all have in common.
//!
//! To add one: a module here, with its hyperparameters, states, facts and text, its formula in `interp/optimizer.rs`, a
//! variant of [`UpdateOp`], and what the compiler then asks for in these two files. Nothing else in this crate knows
//! optimizers.

mod adam;
mod adamw;

pub use adam::AdamSpec;
pub use adamw::AdamWSpec;

use crate::error::IrError;
use crate::facts::Facts;
use crate::infer::{Check, Types};
use crate::registered::registered;
use crate::role::ParamState;
use crate::types::Shape;

registered! {
    /// The update of parameters by one optimizer: `(p, g, states.., lr [], step [], clip [], [update []]) -> (p', states'..)`
    /// of `clip*g`, where `step` counts from 1. States are like p. If `update` is there and 0, p and the states stay, whatever
    /// the other operands are.
    UpdateOp, in Op::Update, each Update {
        /// Adam with decoupled weight decay: two moments of each parameter.
        AdamW(AdamWSpec),
        /// Adam with weight decay as a part of the gradient: the same moments.
        Adam(AdamSpec),
    }
}

/// What every optimizer answers.
pub(crate) trait Update {
    /// The name in the text form.
    fn name(&self) -> &'static str;

    /// See [`UpdateOp::states`].
    fn states(&self) -> &'static [(ParamState, &'static str)];

    /// See [`Op::facts`].
    fn facts(&self) -> &'static Facts;

    /// The hyperparameters as `key = value`.
    fn attributes(&self) -> Vec<String>;
}

impl UpdateOp {
    /// The name in the text form.
    pub fn name(&self) -> &'static str {
        self.operation().name()
    }

    /// The states of a parameter, in the order of operands and results, each with the word for it in names of checkpoints.
    pub fn states(&self) -> &'static [(ParamState, &'static str)] {
        self.operation().states()
    }

    /// Whether the operands say if anything is updated.
    pub fn is_guarded(&self, operands: usize) -> bool {
        operands > self.states().len() + 5
    }

    pub(crate) fn facts(&self) -> &'static Facts {
        self.operation().facts()
    }

    pub(crate) fn attributes(&self) -> Vec<String> {
        self.operation().attributes()
    }

    /// The typing rule, of all optimizers.
    pub(crate) fn results(&self, check: &Check<'_>) -> Types {
        let (states, operands) = (self.states().len(), check.operands.len());
        check.arity(states + 5..=states + 6)?;
        for i in 1..states + 2 {
            check.same(i, check.shape(0), "the parameter")?;
        }
        for i in states + 2..operands {
            check.same(i, &Shape::default(), "a scalar")?;
        }
        // A step is far smaller than what 16 bits resolve.
        check.one_dtype(&(0..operands).collect::<Vec<_>>())?;
        self.check_masters(check)?;
        Ok([0].into_iter().chain(2..states + 2).map(|i| check.like(i)).collect())
    }

    fn check_masters(&self, check: &Check<'_>) -> Result<(), IrError> {
        match check.dtype(0) {
            dtype if dtype.is_narrow() => check.fail(format!("updates masters of f32, these are {dtype}")),
            _ => Ok(()),
        }
    }
}
