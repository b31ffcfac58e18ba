#![doc = include_str!("../README.md")]

mod cache;
mod error;
mod process;
mod report;
mod toolchain;

pub use error::{Error, Fault, FaultKind};
pub use process::{LaunchOptions, Order};
pub use report::{Access, Global, Operation, Report, Shared, Traffic};
pub use toolchain::{Built, Emulator};
