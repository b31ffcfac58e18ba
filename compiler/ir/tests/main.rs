//! The tests of the graph. One program, so that it is linked once.

mod common;
mod facts;
mod golden;
mod gradients;
mod ops;
mod precision;
mod random_text;
mod ranks;
mod text;
mod verify;
mod weights;
