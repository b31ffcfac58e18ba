//! Kernels on a real device against the tile interpreter, and losses of one device against those of another: what the
//! tests on the emulator cannot know of a GPU. `tests/gpu.sh` runs it where there is neither Rust nor a network.
//!
//! Invariant: a case passes if its results are as near to the interpreter's as the case itself asks for, no byte outside
//! of its results has changed, and a second run gives the same bits.

pub mod check;
pub mod group;
pub mod losses;
pub mod matmul;
