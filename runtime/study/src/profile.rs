//! Where the time of a config's training steps goes: a few of them, beside the limits of their machine.
//!
//! The steps are those of `linc train`, with the config's data, optimizer and precision; what a run writes, validates, says at its end
//! and is asked on the way is left out, and its folder is a temporary one that is removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use linc_bench::{BenchError, Machine, Open, Roofline};
use linc_config::ModelFiles;
use linc_device::Load;
use linc_train::TrainError;
use linc_train::config::JobConfig;
use linc_train::trainer::{Folder, Observer, Trainer};
use serde::Serialize;
use thiserror::Error;

/// Why there is no profile.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// The machine cannot be measured.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// The config does not come to train.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// No place for what a run writes.
    #[error("cannot make the temporary folder {}: {}", .0.display(), linc_device::words::reason(.1))]
    Folder(PathBuf, std::io::Error),
}

/// Steps to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfiledSteps {
    /// Steps before those that are profiled: the first ones touch memory for the first time.
    pub warmup: usize,
    /// Steps that are profiled, at least 1.
    pub steps: usize,
}

/// Steps of a config beside their machine's limits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProfileReport {
    /// The limits.
    pub machine: Machine,
    /// Steps that the profile is the mean of.
    pub steps: usize,
    /// Tokens of a step, of all its batches.
    pub tokens: usize,
    /// The kind of each layer, first to last.
    pub layers: Vec<&'static str>,
    /// Per step.
    pub roofline: Roofline,
    /// Bytes of the arena as far as a step needs it.
    pub bytes: u64,
    /// Bytes that a step needs at least: what is in use at the fullest launch.
    pub floor_bytes: u64,
    /// Share of the machine that other processes took meanwhile, if the system says so.
    pub others: Option<f64>,
}

/// Profiles steps of a config; nothing if `stop` ended it. The device is opened once to measure it, and once for the run.
///
/// # Errors
/// [`ProfileError`]: what `linc train` would refuse, or what the device refuses.
pub fn profile(
    config: JobConfig,
    files: &ModelFiles,
    wanted: ProfiledSteps,
    open: &mut Open<'_>,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Option<ProfileReport>, ProfileError> {
    let folder = Temporary::new()?;
    let config = only_steps(config, &folder.0, wanted);
    let tokens = config.training.batch_size * config.accumulation_steps() * config.training.seq_len;
    observer.message("Measuring the machine");
    let mut machine = Machine::measure(open()?)?;
    let device = open()?;
    let begun = Load::now();
    let mut trainer = Trainer::new(config, files, Folder::Named, None, device, stop, observer)?;
    trainer.leave_out_of_profile(wanted.warmup);
    let summary = trainer.run(stop, observer)?;
    let Some(profile) = summary.profile.filter(|_| !summary.interrupted) else { return Ok(None) };
    machine.raise_peak(trainer.executor());
    let others = Load::others_since(begun);
    Ok(Some(ProfileReport {
        roofline: Roofline::of(&profile, &machine, &summary.layers, profile.runs),
        machine,
        steps: wanted.steps,
        tokens,
        layers: summary.layers,
        bytes: summary.memory.bytes,
        floor_bytes: summary.memory.floor(),
        others,
    }))
}

/// The same training, but for all that is no step, and over after so many.
fn only_steps(mut config: JobConfig, folder: &Path, wanted: ProfiledSteps) -> JobConfig {
    let steps = wanted.warmup + wanted.steps;
    config.job.dump_folder = folder.display().to_string();
    config.checkpoint.enable = false;
    config.validation.enable = false;
    config.metrics.enable_tensorboard = false;
    config.profiling.enable_profiling = true;
    // No step is a multiple of this: traces are for `linc train`.
    config.profiling.profile_freq = usize::MAX;
    // A run that is through writes a sample.
    config.training.steps = config.training.steps.max(steps + 1);
    config.training.stop_at_step = Some(steps);
    config
}

/// A folder of this process, removed with what is in it.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Result<Temporary, ProfileError> {
        let path = std::env::temp_dir().join(format!("linc-profile-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|error| ProfileError::Folder(path.clone(), error))?;
        Ok(Temporary(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What is left lies where the system clears up.
        let _ = fs::remove_dir_all(&self.0);
    }
}
