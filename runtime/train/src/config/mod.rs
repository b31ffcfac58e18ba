//! Job configs: TorchTitan's TOML dialect, with linc's settings for hybrid models.
//!
//! A [`JobConfig`] comes from a TOML text, overlaid with `--section.key value` arguments; what neither
//! says has a default. Every key is declared once, in `sections.rs`. An unknown key, a wrong type or a
//! value out of range is an error with its line, and with the nearest known key.
//!
//! To add a setting: add a line to its section in `sections.rs`. Nothing else needs to change.

mod check;
mod compare;
mod compiler_value;
mod error;
mod legacy;
mod model_files;
mod near;
mod section;
mod sections;
mod settings;
pub mod shipped;
mod unread;
mod value;

pub use compare::Change;
pub use error::{ConfigError, FilePlace, Place, Problem};
pub use linc_driver::{Placement, Precision, Ratio, RecomputePolicy};
pub use model_files::ModelFiles;
pub(crate) use near::help_for_missing;
pub use section::KeyInfo;
pub use sections::{
    ActivationCheckpoint, AsyncMode, Checkpoint, Compile, DatasetKind, DecayType, Job, LrScheduler, Metrics,
    Model, MqarConfig, Optimizer, Parallelism, Profiling, Training, Validation,
};
pub use settings::Override;
pub use value::{Scalar, Setting};

use crate::lr::Stretches;
use section::Section;
use settings::Settings;
use shipped::Shipped;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Section whose keys are those of the model file.
const OVERRIDES: &str = "model.overrides";

/// Most tokens of an optimizer step, which take 2 GiB with their targets; ten times what the largest runs take.
const STEP_TOKENS: usize = 1 << 28;

/// Everything a training run is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobConfig {
    /// `[job]`
    pub job: Job,
    /// `[profiling]`
    pub profiling: Profiling,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[model]`
    pub model: Model,
    /// `[model.overrides]`: values that replace those of the model file, by key; nested keys have dots.
    pub model_overrides: BTreeMap<String, Scalar>,
    /// `[optimizer]`
    pub optimizer: Optimizer,
    /// `[lr_scheduler]`
    pub lr_scheduler: LrScheduler,
    /// `[training]`
    pub training: Training,
    /// `[training.mqar]`
    pub mqar: MqarConfig,
    /// `[validation]`
    pub validation: Validation,
    /// `[checkpoint]`
    pub checkpoint: Checkpoint,
    /// `[activation_checkpoint]`
    pub activation_checkpoint: ActivationCheckpoint,
    /// `[parallelism]`
    pub parallelism: Parallelism,
    /// `[compile]`
    pub compile: Compile,
    /// Where settings were given.
    pub places: Places,
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
pub struct Loaded {
    /// The config.
    pub config: JobConfig,
    /// Settings that have no effect, one sentence each, with their place; to be shown to the user.
    pub warnings: Vec<String>,
    /// Whether the command line names the dump folder.
    pub folder_is_named: bool,
}

impl JobConfig {
    /// Reads a config from its text. `path` only names the text in messages.
    ///
    /// # Errors
    /// Everything that is wrong with it, each problem with its place.
    pub fn load(text: &str, path: &str, overrides: &[Override]) -> Result<Loaded, ConfigError> {
        let mut settings = Settings::new(path, text, overrides, Self::keys(), &[OVERRIDES]);
        let mut config = Self {
            job: Section::read(&mut settings),
            profiling: Section::read(&mut settings),
            metrics: Section::read(&mut settings),
            model: Section::read(&mut settings),
            model_overrides: settings.take_open(OVERRIDES, &Scalar::Bool(false)),
            optimizer: Section::read(&mut settings),
            lr_scheduler: Section::read(&mut settings),
            training: Section::read(&mut settings),
            mqar: Section::read(&mut settings),
            validation: Section::read(&mut settings),
            checkpoint: Section::read(&mut settings),
            activation_checkpoint: Section::read(&mut settings),
            parallelism: Section::read(&mut settings),
            compile: Section::read(&mut settings),
            places: Places::default(),
        };
        config.places = Places(settings.places().clone());
        config.complete(&mut settings);
        config.check_together(&mut settings);
        let folder_is_named = matches!(settings.places().get("job.dump_folder"), Some(Place::CommandLine(_)));
        settings.finish().map(|warnings| Loaded { config, warnings, folder_is_named })
    }

    /// What is wrong with a setting, at its place if it was given.
    pub fn problem(&self, name: &str, message: String) -> ConfigError {
        let place = self.places.0.get(name).cloned();
        ConfigError::from(Problem { message, place, help: None })
    }

    /// Reads a config file, or the one of that name that is built in where there is no such file.
    ///
    /// # Errors
    /// The file cannot be read or is not UTF-8, or as [`JobConfig::load`].
    pub fn load_file(path: &Path, overrides: &[Override], shipped: &Shipped) -> Result<Loaded, ConfigError> {
        let (path, text) = model_files::read_or_shipped(path, shipped.configs, "config file")?;
        Self::load(&text, &path.display().to_string(), overrides)
    }

    /// All keys with help, defaults and other spellings, in the order of the sections.
    pub fn keys() -> Vec<KeyInfo> {
        let mut keys = Vec::new();
        Job::describe(&mut keys);
        Profiling::describe(&mut keys);
        Metrics::describe(&mut keys);
        Model::describe(&mut keys);
        Optimizer::describe(&mut keys);
        LrScheduler::describe(&mut keys);
        Training::describe(&mut keys);
        MqarConfig::describe(&mut keys);
        Validation::describe(&mut keys);
        Checkpoint::describe(&mut keys);
        ActivationCheckpoint::describe(&mut keys);
        Parallelism::describe(&mut keys);
        Compile::describe(&mut keys);
        keys
    }

    /// What `--list-settings` shows: [`JobConfig::keys`], and the section whose keys are those of the model file.
    pub fn listing() -> Vec<KeyInfo> {
        let mut keys = Self::keys();
        let behind = keys.iter().rposition(|key| key.name.starts_with("model.")).map_or(0, |last| last + 1);
        let overrides = KeyInfo {
            name: format!("{OVERRIDES}.KEY"),
            help: "Replaces a number or flag of the model file: `--model.overrides.dim 256`, or a key of a table such \
                   as `--model.overrides.linear_attention.rope false`."
                .to_owned(),
            expected: Scalar::expected(),
            default: None,
            aliases: vec![],
        };
        keys.insert(behind, overrides);
        keys
    }

    /// The config as TOML, every setting spelled out. [`JobConfig::load`] gives the same config back.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        section_toml(&self.job, &mut out);
        section_toml(&self.profiling, &mut out);
        section_toml(&self.metrics, &mut out);
        section_toml(&self.model, &mut out);
        if !self.model_overrides.is_empty() {
            let _ = writeln!(out, "[{OVERRIDES}]");
            for (key, value) in &self.model_overrides {
                let key: Vec<String> = key.split('.').map(toml_key).collect();
                let _ = writeln!(out, "{} = {}", key.join("."), value.to_toml().unwrap_or_default());
            }
            out.push('\n');
        }
        section_toml(&self.optimizer, &mut out);
        section_toml(&self.lr_scheduler, &mut out);
        section_toml(&self.training, &mut out);
        if self.training.dataset == DatasetKind::Mqar || self.mqar != MqarConfig::default() {
            section_toml(&self.mqar, &mut out);
        }
        section_toml(&self.validation, &mut out);
        section_toml(&self.checkpoint, &mut out);
        section_toml(&self.activation_checkpoint, &mut out);
        section_toml(&self.parallelism, &mut out);
        section_toml(&self.compile, &mut out);
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }

    /// Batches whose gradients are added up for one optimizer step.
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
        if self.training.dataset_path.is_some() && !settings.was_given("training.dataset") {
            self.training.dataset = DatasetKind::Text;
        }
        if self.validation.dataset_path.is_some() && self.validation.dataset.is_none() {
            self.validation.dataset = Some(DatasetKind::Text);
        }
        if self.metrics.enable_tensorboard {
            settings.warn(
                "metrics.enable_tensorboard",
                "TensorBoard files are not written; metrics.jsonl has the same values",
            );
        }
        if self.activation_checkpoint.selective_ac_option != "op" {
            settings.warn(
                "activation_checkpoint.selective_ac_option",
                "layers are not selected one by one; \"selective\" computes cheap operations again in all of them",
            );
        }
        if settings.was_given("training.deterministic") && !self.training.deterministic {
            settings.warn("training.deterministic", "runs are deterministic in any case");
        }
        self.warn_of_unread(settings);
        if settings.was_given("compile.enable") && !self.compile.enable {
            settings.warn("compile.enable", "linc always compiles");
        }
        self.cut_to_the_run(settings);
    }

    /// Says which stretches of the learning rate's schedule are longer than the run.
    fn cut_to_the_run(&self, settings: &mut Settings<'_>) {
        let (steps, wanted) = (self.training.steps, self.lr_scheduler.warmup_steps);
        let Stretches { warmup, decay, wanted_decay } = Stretches::new(self);
        if warmup < wanted {
            let whose = if settings.was_given("lr_scheduler.warmup_steps") { "" } else { " (the default)" };
            settings.warn(
                "lr_scheduler.warmup_steps",
                &format!(
                    "a warmup of {wanted} steps{whose} is longer than the run: all {steps} steps warm up"
                ),
            );
        }
        if let Some(wanted) = wanted_decay {
            settings.warn(
                "lr_scheduler.decay_ratio",
                &format!("{warmup} steps of warmup leave {decay} of {steps} steps to the decay, which would take {wanted}"),
            );
        }
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
                "training.seq_len",
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
                "training.global_batch_size",
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
            settings.conflict("training.global_batch_size", message, help);
        }
        if training.dataset == DatasetKind::Text && training.dataset_path.is_none() {
            let message = "dataset \"text\" needs dataset_path".to_owned();
            settings.conflict(
                "training.dataset",
                message,
                "name a .txt, .text, .raw, .jsonl, .ndjson or .json file, packed as .gz or not, a folder of them, or a glob",
            );
        }
        if training.dataset != DatasetKind::Text && training.dataset_path.is_some() {
            let message = format!("dataset \"{}\" is built in and reads no files", training.dataset.word());
            settings.conflict(
                "training.dataset_path",
                message,
                "leave out dataset_path, or say dataset = \"text\"",
            );
        }
        self.check_validation(settings);
        if training.dataset == DatasetKind::Mqar {
            self.check_mqar(settings);
        }
    }

    fn check_validation(&self, settings: &mut Settings<'_>) {
        let validation = &self.validation;
        match (validation.dataset, &validation.dataset_path) {
            (Some(DatasetKind::Text), None) => settings.conflict(
                "validation.dataset",
                "dataset \"text\" needs dataset_path".to_owned(),
                "name the files, or leave out dataset to validate on a held-out part of the training data",
            ),
            (Some(kind @ (DatasetKind::Stories | DatasetKind::Mqar)), Some(_)) => settings.conflict(
                "validation.dataset_path",
                format!("dataset \"{}\" is built in and reads no files", kind.word()),
                "leave out dataset_path, or say dataset = \"text\"",
            ),
            (Some(kind), _)
                if (kind == DatasetKind::Mqar) != (self.training.dataset == DatasetKind::Mqar) =>
            {
                settings.conflict(
                    "validation.dataset",
                    format!(
                        "cannot validate on \"{}\" after training on \"{}\"",
                        kind.word(),
                        self.training.dataset.word()
                    ),
                    "recall sequences and text have different vocabularies",
                );
            }
            (Some(DatasetKind::Stories), None) if self.training.dataset == DatasetKind::Stories => settings
                .conflict(
                    "validation.dataset",
                    "would validate on the very text that is trained on".to_owned(),
                    "leave out dataset to validate on a held-out part",
                ),
            (None | Some(_), _) => {}
        }
        let from_training = validation.dataset.is_none() && self.training.dataset != DatasetKind::Mqar;
        if validation.enable && from_training && validation.fraction == 0.0 {
            settings.conflict(
                "validation.fraction",
                "validation is on, but no data is held out".to_owned(),
                "say fraction = 0.05, or name other data with dataset and dataset_path",
            );
        }
    }

    /// The recall task needs room for the pairs and for one query each.
    fn check_mqar(&self, settings: &mut Settings<'_>) {
        let mqar = &self.mqar;
        let seq_len = self.training.seq_len;
        if !seq_len.is_multiple_of(2) {
            let message = format!("seq_len {seq_len} is odd; recall sequences are made of pairs");
            settings.conflict("training.seq_len", message, "use an even seq_len");
        }
        let pairs = mqar.num_kv_pairs.iter().copied().max().unwrap_or(1);
        let needed =
            mqar.num_passes.checked_add(1).and_then(|n| n.checked_mul(2)).and_then(|n| n.checked_mul(pairs));
        if needed.is_none_or(|needed| needed > seq_len) {
            let message = format!(
                "{pairs} pairs shown {} time(s) and asked once do not fit into seq_len {seq_len}",
                mqar.num_passes
            );
            settings.conflict(
                "training.mqar.num_kv_pairs",
                message,
                "2 * num_kv_pairs * (num_passes + 1) must be at most seq_len",
            );
        }
        // Keys come from 1 to vocab_size / 2 - 1, values from vocab_size / 2 on.
        if pairs > mqar.vocab_size / 2 - 1 {
            let message = format!(
                "{pairs} different keys do not fit into vocab_size {}, which has {} keys",
                mqar.vocab_size,
                mqar.vocab_size / 2 - 1
            );
            settings.conflict("training.mqar.num_kv_pairs", message, "use a larger training.mqar.vocab_size");
        }
        if i32::try_from(mqar.vocab_size).is_err() {
            let message = format!("vocab_size {} is more than 2147483647", mqar.vocab_size);
            settings.conflict("training.mqar.vocab_size", message, "tokens are 32-bit integers");
        }
    }
}

fn section_toml<S: Section>(section: &S, out: &mut String) {
    let _ = writeln!(out, "[{}]", S::NAME);
    for (key, value) in section.entries() {
        let _ = writeln!(out, "{key} = {value}");
    }
    out.push('\n');
}

fn toml_key(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { key.to_owned() } else { value::quote(key) }
}

#[cfg(test)]
mod tests;
