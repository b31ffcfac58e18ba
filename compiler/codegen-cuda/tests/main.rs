//! The tests of generated CUDA. One program, so that it is linked once.

mod attention;
mod files;
mod library;
mod multistage;
mod mutations;
mod pipelines;
mod products;
