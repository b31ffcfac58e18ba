//! Everything that can end a study.

use std::path::PathBuf;

use linc_checkpoint::CheckpointError;
use linc_config::ConfigError;
use linc_device::DeviceError;
use linc_device::words::reason;
use linc_eval::EvalError;
use linc_exec::ExecError;
use linc_infer::InferError;
use linc_session::SessionError;
use linc_train::TrainError;
use thiserror::Error;

/// Why a study cannot be done.
#[derive(Debug, Error)]
pub enum StudyError {
    /// The sweep's file, or a config that it makes, is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A model of the sweep does not compile.
    #[error("run {run}: {error}")]
    Run {
        /// Its name.
        run: String,
        /// What is wrong with it.
        error: Box<TrainError>,
    },
    /// The model does not come to run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The device refuses.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A checkpoint that cannot be read, or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A model cannot be asked, or there are no samples.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// A model says nothing that is a number.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// Ended by request.
    #[error("interrupted")]
    Interrupted,
    /// The machine cannot be opened.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A file of the study.
    #[error("cannot {action} {}: {}", path.display(), reason(error))]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Another sweep goes on.
    #[error(
        "{} is in use: a sweep is going on there\n  help: wait until it ends, or choose another folder with --sweep.dump_folder",
        folder.display()
    )]
    InUse {
        /// Where both would write.
        folder: PathBuf,
    },
    /// The folder has a run of that name with other settings.
    #[error(
        "{} was made with other settings: {changes}\n  help: choose another folder with --sweep.dump_folder, or delete that one",
        folder.display()
    )]
    OtherSettings {
        /// The run's folder.
        folder: PathBuf,
        /// Settings, before and now.
        changes: String,
    },
    /// Nothing to report on.
    #[error("{message}\n  help: {help}")]
    Nothing {
        /// What was looked for.
        message: String,
        /// What to do.
        help: String,
    },
}

/// Turns what the system says of a file into an error that names it.
pub(crate) fn file(
    action: &'static str,
    path: &std::path::Path,
) -> impl FnOnce(std::io::Error) -> StudyError {
    let path = path.to_path_buf();
    move |error| StudyError::File { action, path, error }
}
