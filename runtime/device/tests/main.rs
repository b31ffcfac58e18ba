//! The tests of devices. One program, so that it is linked once.

mod cuda;
mod device;
mod files;
mod library;
mod math;
mod random_kernels;
mod ranks;
mod sandbox;
mod support;
