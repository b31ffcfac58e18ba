//! Why a checkpoint cannot be written or read, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use linc_config::ConfigError;
use linc_data::DataError;
use linc_device::words::{help_to_read, help_to_write, reason};
use linc_driver::CompileError;
use linc_exec::ExecError;
use thiserror::Error;

use crate::is_named_so;
use crate::steps::newest_whole;

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
    /// The thread that writes it panicked.
    #[error(
        "the checkpoint is not written: its writer failed: {message}\n  help: older checkpoints are as they were; this is a fault of linc: please report it"
    )]
    Writer {
        /// What it said.
        message: String,
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
    #[error("{}: {message}\n  help: {}", path.display(), help_with_damage(whole.as_deref()))]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// How it differs.
        message: String,
        /// The newest checkpoint beside it that is whole.
        whole: Option<PathBuf>,
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
    #[error("{0}")]
    HuggingFace(#[from] ConfigError),
    /// Its tokenizer cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The device refuses its tensors.
    #[error(transparent)]
    Exec(#[from] ExecError),
}

impl CheckpointError {
    /// A file that is not what was written, with the newest checkpoint beside its own that is whole.
    pub fn corrupt(path: PathBuf, message: String) -> CheckpointError {
        let whole = path.ancestors().find(|path| is_named_so(path)).and_then(newest_whole);
        CheckpointError::Corrupt { path, message, whole }
    }
}

/// What to go on from in place of a checkpoint that is damaged.
fn help_with_damage(whole: Option<&Path>) -> String {
    let step = whole.and_then(Path::file_name).and_then(|name| name.to_str()?.strip_prefix("step-"));
    match whole.zip(step) {
        Some((path, step)) => format!(
            "the newest whole one beside it is {} (checkpoint.load_step {step}); or move the damaged one away",
            path.display()
        ),
        None => "name another checkpoint (checkpoint.load_step), or move this one away".to_owned(),
    }
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
            CheckpointError::corrupt(path, format!("it cannot be read: {}", reason(&source)))
        }
        _ => CheckpointError::Unreadable { path, source },
    }
}
