//! Graph to graph: differentiation, optimizer, attention lowering, clean-up, fusion, schedule, memory.
//!
//! Invariants: one file a pass; no pass knows another, only `pipeline.rs` knows the order; a pass that is on by default
//! keeps results bitwise (`precision` is asked for, and the only one that rounds); every pass leaves a graph that verifies. The ratio is read in `placement.rs` and nowhere else.

pub mod accumulate;
pub mod attention;
pub mod autodiff;
pub mod canonicalize;
pub mod cse;
pub mod dce;
pub mod error;
pub mod exchanges;
pub mod fusion;
pub mod loss;
pub mod loss_scale;
pub mod memory;
pub mod merge_matmuls;
pub mod mesh;
pub mod mix;
pub mod optimizer;
pub mod pack_heads;
pub mod parallelize;
pub mod pipeline;
pub mod placement;
pub mod positions;
pub mod precision;
pub mod recompute;
pub mod residual;
pub mod schedule;
pub mod setting;
pub mod sort_tokens;

pub use error::PassError;
