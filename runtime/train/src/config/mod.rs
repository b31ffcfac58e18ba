//! Job configs: TorchTitan's TOML dialect, with linc's settings for hybrid models.
//!
//! A [`JobConfig`] comes from a TOML text, overlaid with `--section.key value` arguments; what neither
//! says has a default. Every key is declared once, in `sections.rs`. An unknown key, a wrong type or a
//! value out of range is an error with its line, and with the nearest known key.
//!
//! To add a setting: add a line to its section in `sections.rs`. Nothing else needs to change.

mod compare;
mod groups;
mod parallel;
mod resolved;
mod schedule;
mod sections;
mod unread;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use linc_checkpoint::Checkpoint;
use linc_config::shipped::Shipped;
use linc_config::{
    ConfigError, ConfigFiles, KeyInfo, Model, OVERRIDES, Override, Place, Problem, Scalar, Section, Settings,
    describe_overrides, place_among, section_order, sections, sets_nothing, take_overrides,
};
use linc_data::DataSettings;
use linc_device::words::count;

pub use compare::Change;
pub use parallel::{Accumulate, Comm, Parallelism, Reduced};
pub use resolved::Resolved;
pub use sections::{
    ActivationCheckpoint, AdjustLrFn, AlertLevel, Alerts, Compile, DecayType, GradNorms, Group, GroupRole,
    Job, LrScheduler, Metrics, NonFinite, Optimizer, OptimizerName, Profiling, Questions, Segment, Training,
    Validation,
};

/// Most tokens of an optimizer step, which take 2 GiB with their targets; ten times what the largest runs take.
const STEP_TOKENS: usize = 1 << 28;

sections! {
    /// Everything a training run is told.
    JobConfig {
        /// `[job]`
        job: Job,
        /// `[profiling]`
        profiling: Profiling,
        /// `[metrics]`
        metrics: Metrics,
        /// `[alerts]`
        alerts: Alerts,
        /// `[model]`
        model: Model,
        /// `[optimizer]`
        optimizer: Optimizer,
        /// `[lr_scheduler]`
        lr_scheduler: LrScheduler,
        /// `[training]`, but for the data.
        training: Training,
        /// `[validation]`, but for the data.
        validation: Validation,
        /// `[eval]`
        eval: Questions,
        /// What is trained and validated on, of `[training]`, `[training.mqar]` and `[validation]`.
        data: DataSettings,
        /// `[checkpoint]`
        checkpoint: Checkpoint,
        /// `[activation_checkpoint]`
        activation_checkpoint: ActivationCheckpoint,
        /// `[parallelism]`
        parallelism: Parallelism,
        /// `[comm]`
        comm: Comm,
        /// `[compile]`
        compile: Compile;
        /// `[model.overrides]`: values that replace those of the model file, by key; nested keys have dots.
        model_overrides: BTreeMap<String, Scalar>,
        /// Where settings were given.
        places: Places,
    }
}

/// Where settings were given, for messages about what only the model or the data can tell. It is no part of what a run is
/// told: all places are equal.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<String, Place>);

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// A config and the remarks that loading it gave rise to.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedConfig {
    /// Complete and checked: what is not given has its default.
    pub config: JobConfig,
    /// Settings that have no effect, one sentence each, with their place; to be shown to the user.
    pub warnings: Vec<String>,
    /// Whether the command line names the dump folder.
    pub folder_is_named: bool,
    /// The config's file, if it has one, and those of the configs that it starts from: a model is looked for beside them.
    pub files: Vec<PathBuf>,
}

impl JobConfig {
    /// Reads a config from its text. `path` only names the text in messages.
    ///
    /// # Errors
    /// Everything that is wrong with it, each problem with its place.
    pub fn load(text: &str, path: &str, overrides: &[Override]) -> Result<LoadedConfig, ConfigError> {
        Self::load_texts(&ConfigFiles::of_text(path, text), overrides)
    }

    fn load_texts(files: &ConfigFiles, overrides: &[Override]) -> Result<LoadedConfig, ConfigError> {
        Self::load_with(files, overrides, vec![], &[], |_| ()).map(|(loaded, ())| loaded)
    }

    /// Reads a config that says more than how to train: with `keys` and sections `open` to any key besides, which `more`
    /// takes.
    ///
    /// # Errors
    /// As [`JobConfig::load`], and what `more` reports.
    pub fn load_with<T>(
        files: &ConfigFiles,
        overrides: &[Override],
        keys: Vec<KeyInfo>,
        open: &[&str],
        more: impl FnOnce(&mut Settings<'_>) -> T,
    ) -> Result<(LoadedConfig, T), ConfigError> {
        let open = [&[OVERRIDES], open].concat();
        let mut settings = Settings::new(files, overrides, [Self::keys(), keys].concat(), &open);
        let more = more(&mut settings);
        let mut config = Self::read(&mut settings);
        config.model_overrides = take_overrides(&mut settings);
        config.complete(&mut settings);
        config.places = Places(settings.places().clone());
        config.check_together(&mut settings);
        let folder_is_named = matches!(settings.places().get("job.dump_folder"), Some(Place::CommandLine(_)));
        let warnings = settings.finish()?;
        Ok((LoadedConfig { config, warnings, folder_is_named, files: files.paths() }, more))
    }

    /// Reads the `config.toml` of an earlier run; nothing if it is none, such as one that was emptied.
    pub fn of_run(text: &str) -> Option<JobConfig> {
        if sets_nothing(text) {
            return None;
        }
        Self::load(text, "config.toml", &[]).ok().map(|loaded| loaded.config)
    }

    /// What is wrong with settings, at the place of the one to look at (see [`place_among`]), if any was given.
    pub fn problem(&self, names: &[&str], message: String, help: Option<String>) -> ConfigError {
        let place = place_among(&self.places.0, names).cloned();
        ConfigError::from(Problem { message, place, help })
    }

    /// Where a setting was given, in words.
    pub fn place_of(&self, name: &str) -> Option<String> {
        self.places.0.get(name).map(Place::to_string)
    }

    /// Reads a config file, or the one of that name that is built in where there is no such file, and the configs that it
    /// starts from.
    ///
    /// # Errors
    /// As [`ConfigFiles::read`] and [`JobConfig::load`]; or nothing is set, neither there nor by overrides.
    pub fn load_file(
        path: &Path,
        overrides: &[Override],
        shipped: &Shipped,
    ) -> Result<LoadedConfig, ConfigError> {
        let files = ConfigFiles::read(path, shipped)?;
        let shown = path.display();
        // A file that was emptied by accident would else be a run of the defaults, for hours.
        if files.set_nothing() && overrides.is_empty() {
            let help = "linc init quickstart writes a config to start from; linc train --list-settings lists what may stand in one";
            return Err(ConfigError::new(format!("{shown}: the config is empty: it sets nothing")).help(help));
        }
        let mut loaded = Self::load_texts(&files, overrides)?;
        if files.set_nothing() {
            let (steps, folder) = (loaded.config.training.steps, &loaded.config.job.dump_folder);
            loaded.warnings.push(format!(
                "{shown}: the config is empty: all but the command line is as in linc train --list-settings, {} in {folder}",
                count(steps, "step")
            ));
        }
        Ok(loaded)
    }

    /// All keys with help, defaults and other spellings, in the order of the sections.
    pub fn keys() -> Vec<KeyInfo> {
        let mut keys = Vec::new();
        Self::describe(&mut keys);
        // A section may be declared in parts, by the crates that read them; it is shown as one.
        let sections = section_order(keys.iter().map(KeyInfo::section));
        keys.sort_by_key(|key| sections.iter().position(|section| section == key.section()));
        keys
    }

    /// What `--list-settings` shows: [`JobConfig::keys`], and the section whose keys are those of the model file.
    pub fn listing() -> Vec<KeyInfo> {
        let mut keys = Self::keys();
        let behind = keys.iter().rposition(|key| key.name.starts_with("model.")).map_or(0, |last| last + 1);
        keys.insert(behind, describe_overrides());
        keys
    }

    /// Batches whose gradients are added up for one optimizer step of a process that trains alone.
    pub fn accumulation_steps(&self) -> usize {
        match usize::try_from(self.training.global_batch_size) {
            Ok(global) => (global / self.training.batch_size).max(1),
            Err(_) => 1,
        }
    }

    /// `[model.overrides]` as the compiler takes them: dotted key and number.
    pub fn model_overrides(&self) -> Vec<(String, f64)> {
        self.model_overrides.iter().map(|(key, value)| (key.clone(), value.to_f64())).collect()
    }

    /// Fills in what other settings imply.
    fn complete(&mut self, settings: &mut Settings<'_>) {
        self.data.complete(settings);
        self.complete_schedule(settings);
        if settings.was_given("training.deterministic") && !self.training.deterministic {
            settings.warn(&["training.deterministic"], "runs are deterministic in any case");
        }
        self.warn_of_unread(settings);
        if settings.was_given("compile.enable") && !self.compile.enable {
            settings.warn(&["compile.enable"], "compile.enable = false is ignored: linc always compiles");
        }
        self.cut_to_the_run(settings);
    }

    /// Limits that tie several settings together.
    fn check_together(&self, settings: &mut Settings<'_>) {
        let training = &self.training;
        let tokens = training.batch_size.checked_mul(training.seq_len);
        if tokens.is_none_or(|tokens| i32::try_from(tokens).is_err()) {
            let message = format!(
                "batch_size * seq_len = {} * {} is more than 2147483647 tokens in one batch",
                training.batch_size, training.seq_len
            );
            settings.conflict(
                &["training.seq_len", "training.batch_size"],
                message,
                "use a smaller batch_size, with global_batch_size for the rest",
            );
        }
        if let Ok(global) = usize::try_from(training.global_batch_size)
            && global % training.batch_size != 0
        {
            let message =
                format!("global_batch_size {global} is not a multiple of batch_size {}", training.batch_size);
            settings.conflict(
                &["training.global_batch_size", "training.batch_size"],
                message,
                "each optimizer step runs a whole number of batches",
            );
        }
        if let Ok(global) = usize::try_from(training.global_batch_size)
            && global.checked_mul(training.seq_len).is_none_or(|tokens| tokens > STEP_TOKENS)
        {
            let message = format!(
                "global_batch_size * seq_len = {global} * {} is more than {STEP_TOKENS} tokens in one step",
                training.seq_len
            );
            let help = "use a smaller global_batch_size: the tokens of a step are held in memory";
            settings.conflict(&["training.global_batch_size", "training.seq_len"], message, help);
        }
        if training.stop_at_step.is_some() && !self.checkpoint.enable {
            let message = "stop_at_step ends with a checkpoint, and checkpoint.enable is false".to_owned();
            let help = "add [checkpoint] enable = true, or say fewer steps";
            settings.conflict(&["training.stop_at_step", "checkpoint.enable"], message, help);
        }
        self.check_schedule(settings);
        self.check_groups(settings);
        self.data.check_together(training.seq_len, self.validation.enable, settings);
    }
}

#[cfg(test)]
mod tests;
