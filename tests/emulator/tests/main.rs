//! The tests of the emulator. One program, so that it is linked once.

mod common;
mod contract;
mod faults;
mod kernels;
mod pipelines;
mod traffic;
