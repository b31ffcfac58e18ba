//! The kernel library against plain loops in f64: every kernel, odd sizes, on the tile interpreter with its race
//! checks on.

mod copies;
mod embeddings;
mod harness;
mod losses;
mod names;
mod norms;
mod optimizers;
mod pointwise;
mod reductions;
mod ropes;
