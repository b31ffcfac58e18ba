//! Why a model does not come to run on a device.

use linc_driver::CompileError;
use linc_exec::ExecError;
use thiserror::Error;

/// Why a model does not come to run on a device, or stops running.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The model does not compile.
    #[error(transparent)]
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
