//! Training: the job config, the loop over steps, the learning rate, metrics, and resuming.
//!
//! To let processes share a run: a [`team::Team`] in the [`trainer::Machine`] that it trains on.
//!
//! Invariants: nothing prints (an [`trainer::Observer`] is told); a run is a function of its config, data and seed.

pub mod alerts;
pub mod config;
pub mod error;
pub mod lr;
pub mod metrics;
pub mod team;
pub mod trainer;

pub use error::TrainError;
