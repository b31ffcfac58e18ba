//! Why a model does not come to run on a device.
//!
//! What the compiler says stays in the chain of sources, here and in the errors of the crates above, so that who prints an
//! error can tell one with a place in a text from others.

use linc_driver::CompileError;
use linc_exec::ExecError;
use thiserror::Error;

/// Why a model does not come to run on a device, or stops running.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The model does not compile.
    #[error("{0}")]
    Compile(#[from] CompileError),
    /// The device refuses.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The model does not fit, with the plan's table.
    #[error("{error}\n  help: {help}\n{table}")]
    DoesNotFit {
        /// Needed and available bytes.
        error: ExecError,
        /// Bytes by category.
        table: String,
        /// What needs less.
        help: &'static str,
    },
}
