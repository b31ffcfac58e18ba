//! The tests of generated CUDA. One program, so that it is linked once.

mod attention;
mod files;
mod library;
mod mutations;
mod pipelines;
mod products;
mod streams;
