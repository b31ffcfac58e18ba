//! Runs plans on a device: one arena, tensors by name, initial values, and a profile.
//!
//! Invariants: sister plans (train, eval, decode) share the persistent part of the arena by name, so that one reads what
//! another wrote; nothing is allocated after [`Executor::new`]; initial values depend on seed and name only.

mod draw;
mod error;
mod executor;
mod init;
mod profile;

pub use error::ExecError;
pub use executor::{Executor, Halfway, TensorInfo};
pub use profile::{Profile, ProfileRow};
