//! The tile IR: kernels as programs over tiles, written once for every machine, and the kernel library.
//!
//! Invariants: values are assigned once and typed; tiles have static shapes; the text form round-trips; nothing here
//! knows the tensor graph, a device, or a code generator. `README.md` is the guide.

pub mod builder;
pub mod cost;
pub mod error;
pub mod interp;
pub mod ir;
pub mod library;
pub mod mnemonic;
pub mod parse;
pub mod text;
pub mod verify;
mod walk;

pub use builder::Builder;
pub use error::TileError;
pub use ir::*;
pub use parse::{parse, parse_all};
pub use verify::verify;
