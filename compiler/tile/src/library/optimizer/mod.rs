//! Updates of parameters, a module for each optimizer. All take p, g, the states, lr, step, clip, and \[update\] where the
//! step may be skipped; p and the states are updated in place.

mod adamw;

pub use adamw::{AdamWKernelSpec, Decay, adamw};
