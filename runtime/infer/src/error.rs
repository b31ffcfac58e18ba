//! Why a model writes nothing.

use linc_data::DataError;
use linc_device::words::count;
use linc_driver::CompileError;
use linc_exec::ExecError;
use linc_session::SessionError;
use thiserror::Error;

/// Why a model writes nothing, or no further.
#[derive(Debug, Error)]
pub enum InferError {
    /// The model cannot run, or not this long.
    #[error("{0}")]
    Session(#[from] SessionError),
    /// The prompt cannot be tokenized.
    #[error(transparent)]
    Data(#[from] DataError),
    /// No token can be drawn from what a model says of the next one.
    #[error(
        "after {} the model's logits are not finite (the first is {logit}), so no next token can be chosen\n  help: weights that are not finite come from a run that diverged: take an earlier checkpoint; in float16 values above 65504 are infinite: take another precision",
        count(*tokens, "token")
    )]
    LogitsNotFinite {
        /// Tokens read so far.
        tokens: usize,
        /// The first logit that is NaN or infinite.
        logit: f32,
    },
    /// A request that the model cannot fulfil.
    #[error("{message}\n  help: {help}")]
    Request {
        /// What was asked for, and what is expected.
        message: String,
        /// What to do.
        help: String,
    },
}

impl InferError {
    /// The error of a request.
    pub(crate) fn request(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Request { message: message.into(), help: help.into() }
    }
}

impl From<CompileError> for InferError {
    fn from(error: CompileError) -> Self {
        SessionError::from(error).into()
    }
}

impl From<ExecError> for InferError {
    fn from(error: ExecError) -> Self {
        SessionError::from(error).into()
    }
}
