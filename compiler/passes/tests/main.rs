//! The tests of the passes. One program, so that it is linked once.

mod accumulate;
mod autodiff;
mod common;
mod filetests;
mod flat;
mod mix;
mod narrow_weights;
mod pipeline;
mod positions;
mod ranks;
mod vjp;
