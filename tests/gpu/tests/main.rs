//! The tests of the check for GPUs. One program, so that it is linked once.

mod cpu;
mod nvrtc;
