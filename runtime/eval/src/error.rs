//! Why a model is not evaluated.

use std::io;
use std::path::{Path, PathBuf};

use linc_checkpoint::CheckpointError;
use linc_data::DataError;
use linc_device::DeviceError;
use linc_device::words::{help_to_read, help_to_write, reason};
use linc_infer::InferError;
use linc_session::SessionError;
use thiserror::Error;

/// Why a model is not evaluated, or no further.
#[derive(Debug, Error)]
pub enum EvalError {
    /// The model cannot run, or says nothing that is a number.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// There is no such model.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A text cannot be read or tokenized.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The device is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A file of a task, or of results.
    #[error("{}{}: {message}\n  help: {help}", path.display(), line.map_or_else(String::new, |line| format!(":{line}")))]
    File {
        /// The file, or folder.
        path: PathBuf,
        /// The line that is wrong, counted from 1.
        line: Option<usize>,
        /// What is wrong with it.
        message: String,
        /// What to do.
        help: String,
    },
    /// What was asked for cannot be.
    #[error("{message}\n  help: {help}")]
    Request {
        /// What was asked for, and what is expected.
        message: String,
        /// What to do.
        help: String,
    },
}

impl EvalError {
    pub(crate) fn request(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Request { message: message.into(), help: help.into() }
    }

    pub(crate) fn file(path: &Path, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::File { path: path.to_path_buf(), line: None, message: message.into(), help: help.into() }
    }

    pub(crate) fn line(
        path: &Path,
        line: usize,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let (path, line) = (path.to_path_buf(), Some(line));
        Self::File { path, line, message: message.into(), help: help.into() }
    }

    /// A file that the system does not let be read.
    pub(crate) fn unreadable(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |error| Self::file(path, format!("cannot be read: {}", reason(&error)), help_to_read(&error))
    }

    /// A file that the system does not let be written.
    pub(crate) fn unwritable(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |error| Self::file(path, format!("cannot be written: {}", reason(&error)), help_to_write(&error))
    }
}

impl From<SessionError> for EvalError {
    fn from(error: SessionError) -> Self {
        InferError::from(error).into()
    }
}
