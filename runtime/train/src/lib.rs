//! Training: job configs, data, tokenizers, schedules, checkpoints, metrics, the trainer and generation.
//!
//! Invariants: nothing prints (an [`trainer::Observer`] is told); a run is a function of its config, data and seed; a
//! checkpoint holds all that the rest of the run depends on.

pub mod autotune;
pub mod bench;
pub mod checkpoint;
pub mod config;
pub mod data;
pub mod error;
pub mod generate;
pub mod lr;
pub mod metrics;
pub mod output;
pub mod prompt;
pub mod session;
pub mod system;
pub mod trainer;

pub use error::TrainError;
pub use linc_exec as exec;
