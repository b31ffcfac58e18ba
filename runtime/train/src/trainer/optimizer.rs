//! The optimizer that a config asks for. To add one: its name in `config/sections.rs`, with settings that only it has, and an
//! arm here.

use linc_driver::{AdamWSpec, OptimizerOptions, UpdateOp};

use crate::config::{JobConfig, OptimizerName};

/// The optimizer of a training run with its numbers, which are compiled into the program of a step.
pub(super) fn optimizer(config: &JobConfig) -> OptimizerOptions {
    let settings = &config.optimizer;
    let update = match settings.name {
        OptimizerName::AdamW => UpdateOp::AdamW(AdamWSpec {
            beta1: settings.beta1,
            beta2: settings.beta2,
            eps: settings.eps,
            weight_decay: settings.weight_decay,
        }),
    };
    OptimizerOptions { update, max_norm: config.training.max_norm }
}
