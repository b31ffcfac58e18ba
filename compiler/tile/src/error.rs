//! What can be wrong with a kernel: its text, its form, or a run of it.

use linc_text::{Position, SyntaxError};
use thiserror::Error;

/// An error about one kernel, written for the person who wrote the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TileError {
    /// The text form does not parse, or what it says is not a well-formed kernel.
    #[error("line {line}, column {column}: {message}")]
    Parse {
        /// 1-based line.
        line: usize,
        /// 1-based column, in characters.
        column: usize,
        /// What was found and what was expected.
        message: String,
    },
    /// A rule of [`mod@crate::verify`] is broken.
    #[error("kernel {kernel}: {message}")]
    Verify {
        /// Kernel name.
        kernel: String,
        /// The statement in text form and the broken rule.
        message: String,
    },
    /// The interpreter stopped.
    #[error("kernel {kernel}, program {program:?}: {message}")]
    Run {
        /// Kernel name.
        kernel: String,
        /// Position in the grid.
        program: [u32; 3],
        /// The statement in text form and what went wrong.
        message: String,
    },
    /// The buffers given to the interpreter do not fit the parameters.
    #[error("kernel {kernel}: {message}")]
    Buffers {
        /// Kernel name.
        kernel: String,
        /// What was given and what was expected.
        message: String,
    },
}

impl From<SyntaxError> for TileError {
    fn from(error: SyntaxError) -> Self {
        let Position { line, column } = error.at;
        TileError::Parse { line, column, message: error.message }
    }
}
