//! Everything that can end a run.

use std::path::{Path, PathBuf};

use linc_checkpoint::CheckpointError;
use linc_config::ConfigError;
use linc_data::DataError;
use linc_device::DeviceError;
use linc_device::comm::CommError;
use linc_driver::CompileError;
use linc_exec::ExecError;
use linc_infer::InferError;
use linc_session::SessionError;
use linc_session::output::OutputError;
use thiserror::Error;

/// Why a run ends early.
#[derive(Debug, Error)]
pub enum TrainError {
    /// A setting is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Data or tokenizer cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model does not compile, fit or run.
    #[error("{0}")]
    Session(#[from] SessionError),
    /// A checkpoint cannot be written or read.
    #[error("{0}")]
    Checkpoint(#[from] CheckpointError),
    /// The dump folder cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// There is no sample of what the model writes.
    #[error("{0}")]
    Infer(#[from] InferError),
    /// The model cannot be asked what it is to be asked while it trains.
    #[error("{0}")]
    Questions(Box<dyn std::error::Error + Send + Sync>),
    /// The ranks cannot go on together.
    #[error(transparent)]
    Ranks(Box<CommError>),
    /// Ranks that do not compute the same.
    #[error(
        "step {step}: the ranks have come apart: {what} is {first} on rank {beside}, but {other} on rank {rank}\n  help: all begin with the same weights and make the same update: see whether all read the same checkpoint; else one computes wrong, and the memory of its machine is to be looked at"
    )]
    Apart {
        /// The step after which it was seen, counted from 1.
        step: usize,
        /// What is compared, as the subject of a sentence.
        what: &'static str,
        /// The first one that differs.
        rank: usize,
        /// One that it is to have the same as.
        beside: usize,
        /// The number or digest on rank `beside`.
        first: String,
        /// The same of the rank that differs.
        other: String,
    },
    /// What who started the run has met before it, in its words.
    #[error("{0}")]
    Start(String),
    /// What another rank cannot do, which all end by.
    #[error("rank {rank}: {message}")]
    OfRank {
        /// The first one that has an error.
        rank: usize,
        /// What it says.
        message: String,
    },
    /// The loss or gradient norm is not finite. The compiled update applies nothing of such gradients, so the weights are those
    /// before the step, which is not recorded and not saved either.
    #[error(
        "step {step}: loss is {loss}, gradient norm is {grad_norm}: the run ends, and nothing of this step is applied or saved; {}\n  \
         {dump}\n  \
         help: lower optimizer.lr or raise lr_scheduler.warmup_steps; --alerts.non_finite skip leaves such steps out",
        last_checkpoint(*step, checkpoint.as_deref())
    )]
    NotFinite {
        /// The one that failed, counted from 1.
        step: usize,
        /// Mean over its targets; NaN or infinite.
        loss: f32,
        /// Its gradient norm.
        grad_norm: f32,
        /// Where its batch and statistics are, or why they are nowhere.
        dump: String,
        /// The last checkpoint before it.
        checkpoint: Option<PathBuf>,
    },
    /// Another run writes to the folder.
    #[error(
        "{} is in use: a run is going on there{}\n  help: wait until it ends, stop it, or choose another folder with --job.dump_folder",
        folder.display(), pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
    )]
    InUse {
        /// The dump folder that is locked.
        folder: PathBuf,
        /// The process of the run, if it says so.
        pid: Option<u32>,
    },
    /// The run was asked to end before its first step.
    #[error("interrupted before the first step; nothing was trained, and nothing is saved")]
    Interrupted,
}

impl TrainError {
    /// Whether all ranks of a run come to this error, since all know what it is about.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::NotFinite { .. } | Self::Apart { .. } | Self::OfRank { .. } | Self::Interrupted)
    }

    /// Whether somebody asked to stop, and nothing is wrong.
    pub fn is_interrupt(&self) -> bool {
        matches!(
            self,
            Self::Interrupted
                | Self::Data(DataError::Interrupted)
                | Self::Session(SessionError::Exec(ExecError::Device(DeviceError::Interrupted)))
        )
    }
}

impl From<CompileError> for TrainError {
    fn from(error: CompileError) -> Self {
        SessionError::from(error).into()
    }
}

impl From<CommError> for TrainError {
    fn from(error: CommError) -> Self {
        Self::Ranks(Box::new(error))
    }
}

impl From<ExecError> for TrainError {
    fn from(error: ExecError) -> Self {
        SessionError::from(error).into()
    }
}

/// What a run that failed in a step can go on from.
fn last_checkpoint(step: usize, checkpoint: Option<&Path>) -> String {
    let Some(path) = checkpoint else { return "there is no checkpoint before it".to_owned() };
    // Between a checkpoint and the step right after it nothing changes the weights.
    let is_spoilt = path.ends_with(format!("step-{}", step - 1));
    let spoilt = match is_spoilt {
        true => ", but it has the weights of this loss: go on from an earlier one (checkpoint.load_step)",
        false => "",
    };
    format!("the last checkpoint is {}{spoilt}", path.display())
}
