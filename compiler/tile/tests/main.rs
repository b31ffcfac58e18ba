//! The tests of tile programs and of the kernel library. One program, so that it is linked once.

mod attention_decode;
mod attention_linear;
mod attention_linear_chunked;
mod attention_prefill;
mod attention_softmax;
mod attention_support;
mod cost;
mod fuzz;
mod interp;
mod library_kernels;
mod text;
mod verify;
