//! Why a checkpoint cannot be written or read, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use linc_config::ConfigError;
use linc_data::DataError;
use linc_device::words::{help_to_read, help_to_write, reason};
use linc_driver::CompileError;
use linc_exec::ExecError;
use thiserror::Error;

/// Why a checkpoint cannot be written or read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The operating system refuses; nothing was replaced.
    #[error(
        "cannot {action} {}: {}\n  help: older checkpoints are as they were; {} (job.dump_folder)",
        path.display(),
        reason(source),
        help_to_write(source)
    )]
    Io {
        /// `write`, `read`, ..
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The operating system does not let it be read.
    #[error("{}: it cannot be read: {}\n  help: {}", path.display(), reason(source), help_to_read(source))]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file is not what was written.
    #[error(
        "{}: {message}\n  help: name another checkpoint (checkpoint.load_step), or move this one away",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// How it differs.
        message: String,
    },
    /// The checkpoint is of another model.
    #[error("{}: {message}\n  help: {help}", path.display())]
    Mismatch {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        message: String,
        /// What to do.
        help: String,
    },
    /// There is no such checkpoint.
    #[error("{message}\n  help: {help}")]
    Missing {
        /// What was looked for.
        message: String,
        /// What there is, or what to name.
        help: String,
    },
    /// Its layers are not those of its model.
    #[error("{message}\n  help: it is of another version of linc: read it with that one")]
    Layers {
        /// What they are, what was expected.
        message: String,
    },
    /// The model that it describes is none any more.
    #[error("{0}")]
    Model(#[from] CompileError),
    /// A folder of Hugging Face is not what it should be: all that is wrong.
    #[error(transparent)]
    HuggingFace(#[from] ConfigError),
    /// Its tokenizer cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The device refuses its tensors.
    #[error(transparent)]
    Exec(#[from] ExecError),
}

/// The error of a file that the system refuses to write.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_path_buf();
    move |source| CheckpointError::Io { action, path, source }
}

/// The error of a file that cannot be read.
pub(crate) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_path_buf();
    move |source| match source.kind() {
        // The file is shorter than it says.
        io::ErrorKind::UnexpectedEof => {
            CheckpointError::Corrupt { path, message: format!("it cannot be read: {}", reason(&source)) }
        }
        _ => CheckpointError::Unreadable { path, source },
    }
}
