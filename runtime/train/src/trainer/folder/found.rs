//! What a folder holds of an earlier run, and whether that run can go on.

use std::fs;
use std::path::{Path, PathBuf};

use linc_checkpoint::{CheckpointError, ModelRecord, check_model};
use linc_data::TrainingData;
use linc_device::words::count;

use super::super::resume::check_resumable;
use crate::config::{Change, JobConfig};
use crate::error::TrainError;
use crate::metrics::{self, Measured};

/// What a folder holds of earlier runs.
pub(super) struct Found {
    pub(super) folder: PathBuf,
    /// The settings of the last start there.
    config: Option<JobConfig>,
    /// Its newest checkpoint.
    pub(super) newest: Option<usize>,
    /// Whether anything was trained there.
    pub(super) is_used: bool,
}

impl Found {
    pub(super) fn look(folder: PathBuf, config: &JobConfig) -> Self {
        let text = fs::read_to_string(folder.join("config.toml")).ok();
        let earlier = text.and_then(|text| JobConfig::of_run(&text));
        let newest = linc_checkpoint::steps(&folder.join(&config.checkpoint.folder)).last().copied();
        let records = fs::metadata(folder.join("metrics.jsonl")).is_ok_and(|m| m.len() > 0);
        let is_used = newest.is_some() || records;
        Found { config: earlier, newest, is_used, folder }
    }

    /// What the settings change of what the run there trains; `None` if its settings are not known.
    fn changes(&self, config: &JobConfig) -> Option<Vec<Change>> {
        let changes = config.changes_since(self.config.as_ref()?);
        Some(changes.into_iter().filter(Change::shapes).collect())
    }

    pub(super) fn has_same_settings(&self, config: &JobConfig) -> bool {
        self.changes(config).is_some_and(|changes| changes.is_empty())
    }

    pub(super) fn checkpoint(&self, config: &JobConfig, step: usize) -> PathBuf {
        self.folder.join(&config.checkpoint.folder).join(format!("step-{step}"))
    }

    /// Whether `config`, whose settings are those of the run there, is that run, of which the checkpoint is whole: its
    /// model, its data.
    pub(super) fn is_run_of(
        &self,
        path: &Path,
        record: &ModelRecord,
        data: &TrainingData,
        proceed: &mut dyn FnMut() -> Result<(), TrainError>,
    ) -> Result<Result<(), String>, TrainError> {
        let state = linc_checkpoint::describe(path)?;
        if let Err(error) = check_model(path, &state.model, record) {
            return Ok(Err(first_line(&error)));
        }
        if let Err(error) = data.state().check_same_data(&state.data) {
            return Ok(Err(first_line(&error)));
        }
        check_resumable(path, &state)?;
        linc_checkpoint::open_while(path, &mut |_, _| proceed())?;
        Ok(Ok(()))
    }

    /// Why the run there cannot go on from a checkpoint that is damaged, with what is left of it.
    pub(super) fn damage(&self, config: &JobConfig, newest: usize, error: &CheckpointError) -> String {
        let folder = self.folder.display();
        let steps = linc_checkpoint::steps(&self.folder.join(&config.checkpoint.folder));
        let earlier = steps.into_iter().rfind(|step| *step < newest);
        let help = earlier.map_or_else(String::new, |step| {
            format!(" (to go on from step {step} there, add --job.dump_folder {folder} --checkpoint.load_step {step})")
        });
        format!("{}{help}", cannot_go_on(&self.folder, &first_line(error)))
    }

    /// Whether the run there was stopped in the validation or the questions after its last step, and can make up for it.
    pub(super) fn owes_a_measurement(&self, config: &JobConfig, last: usize) -> bool {
        let (validates, asks) = (config.validation.enable, !config.eval.tasks.is_empty());
        let lacks = |measured: Measured| {
            (validates && measured.validation != Some(last)) || (asks && measured.evaluation != Some(last))
        };
        (validates || asks)
            && metrics::last_measured(&self.folder.join("metrics.jsonl")).is_ok_and(lacks)
            && self.is_resumable(config, last)
    }

    /// Whether a checkpoint has more than weights.
    fn is_resumable(&self, config: &JobConfig, step: usize) -> bool {
        linc_checkpoint::describe(&self.checkpoint(config, step)).is_ok_and(|state| state.has_optimizer())
    }

    /// What to say where the last checkpoint has the weights only.
    fn help_with_weights(&self, config: &JobConfig, last: usize) -> String {
        let path = self.checkpoint(config, last);
        let mut help = format!(
            "its last checkpoint has the weights only: to train these further, say --checkpoint.initial_load_path {}",
            path.display()
        );
        let steps = linc_checkpoint::steps(&self.folder.join(&config.checkpoint.folder));
        if let Some(earlier) =
            steps.into_iter().rfind(|step| *step < last && self.is_resumable(config, *step))
        {
            let folder = self.folder.display();
            help += &format!(
                "; to go on from step {earlier}, add --job.dump_folder {folder} --checkpoint.load_step {earlier}"
            );
        }
        help
    }

    /// Why a run of `config` is not the one there, with what to say to go on with that one.
    pub(super) fn why_not(&self, config: &JobConfig) -> String {
        let folder = self.folder.display();
        match (self.changes(config), self.newest) {
            (None, _) => {
                format!("{folder} holds an earlier run whose config.toml is missing, empty or damaged")
            }
            (Some(changes), newest) if !changes.is_empty() => {
                let changes: Vec<String> = changes.iter().map(Change::to_string).collect();
                let help = match newest {
                    Some(_) => format!("; to go on with that one, add --job.dump_folder {folder}"),
                    None => String::new(),
                };
                format!("{folder} holds a run with other settings ({}){help}", changes.join(", "))
            }
            (Some(_), Some(step)) if config.checkpoint.enable => {
                let help = match self.is_resumable(config, step) {
                    true => "to go on with it, ask for more in training.steps".into(),
                    false => self.help_with_weights(config, step),
                };
                format!("{folder} holds a run with these settings, with {} done; {help}", count(step, "step"))
            }
            (Some(_), Some(step)) => format!(
                "{folder} holds an earlier run with these settings; \
                 to go on with it, add --job.dump_folder {folder} --checkpoint.load_step {step}"
            ),
            (Some(_), None) => format!("{folder} holds an earlier run with these settings"),
        }
    }
}

pub(super) fn cannot_go_on(folder: &Path, reason: &str) -> String {
    format!("{} holds a run that cannot go on: {reason}", folder.display())
}

fn first_line(error: &impl ToString) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}
