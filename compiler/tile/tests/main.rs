//! The tests of tile programs and of the kernel library. One program, so that it is linked once.

mod attention_decode;
mod attention_efficient;
mod attention_efficient_chunked;
mod attention_prefill;
mod attention_softmax;
mod attention_support;
mod cost;
mod fuzz;
mod interp;
mod library_kernels;
mod programs;
mod text;
mod verify;
