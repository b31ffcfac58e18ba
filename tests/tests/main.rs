//! What holds across crates. One program, so that it is linked once.

mod cuda_snapshots;
mod decode;
mod documents;
mod emulated;
mod folders;
mod knowledge;
mod layering;
mod look;
mod mixed;
mod nvrtc;
mod optimizers;
mod parity;
mod parity_shapes;
mod precision;
mod random_models;
mod ranks;
mod recompute;
mod roles;
mod scaling;
mod snapshots;
mod sources;
mod tidy;
mod tiles;
mod tools;
mod training;
