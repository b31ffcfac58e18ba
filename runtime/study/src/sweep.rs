//! A sweep: a config with a section `[sweep]` that says which of its settings are varied, and the runs that follow.

mod carry_out;
mod child;
mod contents;
mod halving;
mod outcome;
mod points;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use linc_config::schema::Json;
use linc_config::shipped::Shipped;
use linc_config::{
    ConfigError, ConfigFiles, KeyInfo, ModelFiles, Override, Place, Problem, Section as _, Settings,
};
use linc_train::config::JobConfig;

use crate::error::{StudyError, file};

pub use carry_out::{Summary, Watcher, carry_out};
pub use contents::Contents;
pub use outcome::{Outcome, Status};
pub use settings::{Method, Metric, PARAMETERS, SweepSettings};

/// Settings that are the sweep's to say: by how runs are carried out, what they train does not differ.
const OWN: &[&str] = &[
    "job.dump_folder",
    "training.threads",
    "training.device",
    "training.stop_at_step",
    "checkpoint.folder",
    "checkpoint.load_step",
];

/// Longest name of a run, in bytes: a file system takes 255.
const LONGEST_NAME: usize = 120;

/// One run of a sweep.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its name: what it has that others do not. The name of its folder as well.
    pub name: String,
    /// The settings that are varied, with its values.
    pub values: Vec<(String, String)>,
    /// All that it is told.
    pub config: JobConfig,
    /// The model that it trains.
    pub files: ModelFiles,
}

/// Runs that are to be compared.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// What `[sweep]` says.
    pub settings: SweepSettings,
    /// Where all of it is written.
    pub folder: PathBuf,
    /// The runs, in the order in which they start.
    pub runs: Vec<Run>,
    /// Settings of the file without effect, one sentence each.
    pub warnings: Vec<String>,
}

/// The keys of `[sweep]`.
pub fn keys() -> Vec<KeyInfo> {
    let mut keys = vec![];
    SweepSettings::describe(&mut keys);
    keys
}

/// The JSON schema of configs, sweeps among them.
pub fn schema() -> Json {
    let about = "Settings that the sweep varies, each with its values or its range.";
    JobConfig::schema_with(keys(), &[(PARAMETERS, Json::Bool(true), about)])
}

/// What `[sweep]` says, with the places of it.
struct Described {
    settings: SweepSettings,
    parameters: BTreeMap<String, Vec<settings::Given>>,
    places: BTreeMap<String, Place>,
}

impl Described {
    fn take(settings: &mut Settings<'_>) -> Described {
        let own = SweepSettings::read(settings);
        let parameters = settings.take_open(PARAMETERS, &vec![]);
        Described { settings: own, parameters, places: settings.places().clone() }
    }
}

impl Sweep {
    /// Reads a sweep, and makes the config of each of its runs. `overrides` hold for all of them.
    ///
    /// # Errors
    /// Everything that is wrong with the file or would be with a run, at its place.
    pub fn load(path: &Path, overrides: &[Override], shipped: &Shipped) -> Result<Sweep, StudyError> {
        let files = ConfigFiles::read(path, shipped)?;
        let load = |overrides: &[Override]| {
            JobConfig::load_with(&files, overrides, keys(), &[PARAMETERS], Described::take)
        };
        let (base, described) = load(overrides)?;
        let Described { settings, parameters, places } = described;
        let points = points::points(&settings, &parameters, &places)?;
        let folder = settings
            .dump_folder
            .clone()
            .map_or_else(|| Path::new("outputs").join(path.file_stem().unwrap_or_default()), PathBuf::from);
        let place = |name: &str| {
            let of_range = ["values", "min", "value"].map(|key| format!("{PARAMETERS}.{name}.{key}"));
            let names = [&[format!("{PARAMETERS}.{name}"), "sweep.runs".to_owned()][..], &of_range].concat();
            names.iter().find_map(|name| places.get(name)).cloned()
        };
        let names = names(&points.iter().map(|point| shown(&point.0)).collect::<Vec<_>>());
        let mut runs = vec![];
        if base.config.training.stop_at_step.is_some() {
            let help = "leave it out; training.steps says how far runs go".to_owned();
            let message = "a sweep ends its runs itself".to_owned();
            return Err(base.config.problem(&["training.stop_at_step"], message, Some(help)).into());
        }
        for (point, name) in points.iter().zip(names) {
            if let Some((own, _)) = point.0.iter().find(|(name, _)| OWN.contains(&name.as_str())) {
                let message = format!("`{own}` cannot be varied: the sweep says it for each run");
                let help = Some(
                    "leave it out of the sweep's parameters; runs do not train otherwise by it".to_owned(),
                );
                return Err(ConfigError::from(Problem { message, place: place(own), help }).into());
            }
            if let Some((varied, _)) =
                point.0.iter().find(|(name, _)| overrides.iter().any(|o| o.name == *name))
            {
                let message = format!("`--{varied}` is given for all runs, and the sweep varies it");
                let help = Some("leave it out, or change its values in [sweep.parameters]".to_owned());
                return Err(ConfigError::from(Problem { message, place: place(varied), help }).into());
            }
            let own = point.0.iter().map(|(name, value)| Override {
                name: name.clone(),
                value: Some(value.0.clone()),
                place: place(name),
            });
            let overrides: Vec<Override> = overrides.iter().cloned().chain(own).collect();
            let (loaded, _) = load(&overrides)?;
            let mut config = loaded.config;
            check_compared(&settings, &config)?;
            let files = ModelFiles::resolve(&config.model, &loaded.files, shipped)?;
            // The config of the run lies elsewhere, from where the model would not be found.
            if let Ok(path) = fs::canonicalize(&files.model_path) {
                config.model.path = Some(path.display().to_string());
            }
            config.job.dump_folder = folder.join("runs").join(&name).display().to_string();
            runs.push(Run { name, values: shown(&point.0), config, files });
        }
        Ok(Sweep { settings, folder, runs, warnings: base.warnings })
    }

    /// Where a run writes.
    pub fn folder_of(&self, run: &Run) -> PathBuf {
        self.folder.join("runs").join(&run.name)
    }

    /// The config of a run, by which `linc train` does it alone.
    pub fn config_of(&self, run: &Run) -> PathBuf {
        self.folder.join("configs").join(format!("{}.toml", run.name))
    }

    /// What a run said, on both of its streams.
    pub fn log_of(&self, run: &Run) -> PathBuf {
        self.folder.join("logs").join(format!("{}.log", run.name))
    }

    /// Writes the configs of all runs, and a list of the runs.
    ///
    /// # Errors
    /// A run of that name was told something else before, or the folder cannot be written.
    fn write_configs(&self) -> Result<(), StudyError> {
        for run in &self.runs {
            let path = self.config_of(run);
            if let Ok(text) = fs::read_to_string(&path)
                && let Ok(before) = JobConfig::load(&text, "config", &[])
            {
                let changes = run.config.changes_since(&before.config);
                let mut changes: Vec<String> =
                    changes.iter().filter(|c| c.shapes()).map(ToString::to_string).collect();
                let done = Outcome::of(self, run).map_or(0, |outcome| outcome.steps);
                if done > run.config.training.steps {
                    changes.push(format!("training.steps {done} -> {}", run.config.training.steps));
                }
                // Without a record, nothing of the old settings is lost.
                if !changes.is_empty() && self.folder_of(run).join("metrics.jsonl").exists() {
                    return Err(StudyError::OtherSettings {
                        folder: self.folder_of(run),
                        changes: changes.join(", "),
                    });
                }
            }
            // What has no records any more is not done.
            if !self.folder_of(run).join("metrics.jsonl").exists() {
                Outcome::forget(self, run)?;
            }
            let text = run.config.to_toml();
            linc_device::write_entry(&path, &[text.as_bytes()]).map_err(file("write", &path))?;
        }
        Contents::of(self).write(&self.folder)
    }
}

/// Refuses a sweep that compares by what its runs do not measure.
fn check_compared(settings: &SweepSettings, config: &JobConfig) -> Result<(), ConfigError> {
    let validates = config.validation.enable;
    if settings.method == Method::Halving && !config.checkpoint.enable {
        return Err(config.problem(
            &["checkpoint.enable", "sweep.method"],
            "halving goes on with runs that ended early, and checkpoint.enable is false".to_owned(),
            Some("add [checkpoint] enable = true".to_owned()),
        ));
    }
    match settings.metric {
        Metric::TrainingLoss => Ok(()),
        Metric::ValidationLoss | Metric::ValidationAccuracy if !validates => Err(config.problem(
            &["validation.enable", "sweep.metric"],
            format!("runs are compared by {}, and do not validate", settings.metric.word()),
            Some("add [validation] enable = true, or say metric = \"training_loss\" in [sweep]".to_owned()),
        )),
        Metric::ValidationLoss | Metric::ValidationAccuracy => Ok(()),
    }
}

/// The settings of a point, as they are written on the command line.
fn shown(point: &[(String, settings::Given)]) -> Vec<(String, String)> {
    point.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect()
}

/// Names of runs: their values under the last part of each setting's name, or the whole where two settings share it.
fn names(points: &[Vec<(String, String)>]) -> Vec<String> {
    let all: BTreeSet<&String> = points.iter().flatten().map(|(name, _)| name).collect();
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let short = |name: &String| match all.iter().filter(|other| last(other) == last(name)).count() {
        1 => last(name),
        _ => name.clone(),
    };
    let mut taken = BTreeSet::new();
    let mut names = vec![];
    for point in points {
        let words: Vec<String> =
            point.iter().map(|(name, value)| format!("{}={}", short(name), value)).collect();
        // What file systems and shells take as it is.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._=+-".contains(c);
        let mut name: String = words.join("_").chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
        name.truncate(LONGEST_NAME);
        let plain = name.clone();
        let mut number = 1;
        while !taken.insert(name.clone()) {
            number += 1;
            name = format!("{plain}_{number}");
        }
        names.push(name);
    }
    names
}

#[cfg(test)]
mod tests;
