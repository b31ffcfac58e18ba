//! Why programs cannot run.

use linc_device::DeviceError;
use linc_device::available_memory::{Available, shortage};
use thiserror::Error;

/// Why a program cannot run.
#[derive(Debug, Error)]
pub enum ExecError {
    /// The device refuses.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The arena is larger than the memory that can be had.
    #[error("the model does not fit: {}", shortage(*needed, Some(available)))]
    DoesNotFit {
        /// Bytes of the arena.
        needed: u64,
        /// Memory that can be had now, and what limits it.
        available: Available,
    },
    /// A tensor that the plan does not have, or of another size: a bug of the caller.
    #[error("tensor {name}: {message}")]
    Tensor {
        /// The name that the caller asked for.
        name: String,
        /// What is wrong.
        message: String,
    },
}
