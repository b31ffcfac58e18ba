#![doc = include_str!("../README.md")]

pub use linc_codegen_cuda as cuda;
pub use linc_tile as tile;

mod cache;
mod error;
mod process;
mod report;
mod toolchain;

pub use error::{Error, Fault, FaultKind};
pub use process::{Options, Order};
pub use report::{Access, Global, Operation, Report, Shared, Traffic};
pub use toolchain::{Built, Emulator};
