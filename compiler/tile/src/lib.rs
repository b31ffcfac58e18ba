//! The tile IR: kernels as programs over tiles, written once for every machine, and the kernel library.
//!
//! Invariants: values are assigned once and typed; tiles have static shapes; the text form round-trips; nothing here
//! knows the tensor graph, a device, or a code generator.

pub mod builder;
pub mod ir;

pub use builder::Builder;
pub use ir::*;
