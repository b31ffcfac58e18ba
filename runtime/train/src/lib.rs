//! Training: job configs, data, tokenizers, schedules, checkpoints, metrics and the trainer.

pub mod config;
pub mod data;
pub mod lr;
