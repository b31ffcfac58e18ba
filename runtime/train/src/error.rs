//! Everything that can end a run.

use std::io;
use std::path::{Path, PathBuf};

use linc_driver::CompileError;
use linc_exec::ExecError;
use linc_exec::device::words::help_to_write;
use thiserror::Error;

use crate::checkpoint::CheckpointError;
use crate::config::ConfigError;
use crate::data::DataError;

/// Why a run ends early.
#[derive(Debug, Error)]
pub enum TrainError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Data or tokenizer cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
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
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The dump folder cannot be written.
    #[error("cannot {action} {}: {source}\n  help: {} (job.dump_folder, or --out of linc compile)", path.display(), help_to_write(source))]
    Output {
        /// `create`, `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The loss or gradient norm is not finite. Both are known when the step's program has run, and with it the update:
    /// the weights on the device are spoilt (in f16 they are not, but no scale of the loss helps any more). The step is
    /// not recorded and not saved, so what is on disk is of the steps before.
    #[error(
        "step {step}: loss is {loss}, gradient norm is {grad_norm}: the run ends, and nothing of this step is saved; {}\n  help: lower optimizer.lr or raise lr_scheduler.warmup_steps",
        last_checkpoint(*step, checkpoint.as_deref())
    )]
    NotFinite {
        /// The step.
        step: usize,
        /// Its loss.
        loss: f32,
        /// Its gradient norm.
        grad_norm: f32,
        /// The last checkpoint before it.
        checkpoint: Option<PathBuf>,
    },
    /// Another run writes to the folder.
    #[error(
        "{} is in use: a run is going on there{}\n  help: wait until it ends, stop it, or choose another folder with --job.dump_folder",
        folder.display(), pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The process of the run, if it says so.
        pid: Option<u32>,
    },
    /// No token can be drawn from what a model says of the next one.
    #[error(
        "after {tokens} tokens the model's logits are not finite (the first is {logit}), so no next token can be chosen\n  help: weights that are not finite come from a run that diverged: take an earlier checkpoint; in float16 values above 65504 are infinite: take another precision"
    )]
    LogitsNotFinite {
        /// Tokens read so far.
        tokens: usize,
        /// The first logit that is NaN or infinite.
        logit: f32,
    },
    /// The run was asked to end before its first step.
    #[error("interrupted before the first step; nothing was trained, and nothing is saved")]
    Interrupted,
    /// A request that the model or checkpoint cannot fulfil.
    #[error("{0}")]
    Request(String),
}

impl TrainError {
    /// Whether somebody asked to stop, and nothing is wrong.
    pub fn is_interrupt(&self) -> bool {
        matches!(self, Self::Interrupted | Self::Data(DataError::Interrupted))
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
