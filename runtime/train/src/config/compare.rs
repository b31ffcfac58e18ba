//! How two configs differ, and whether the difference makes them two runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use linc_config::{OVERRIDES, Section as _, Setting as _};

use super::JobConfig;

/// Settings that say where a run writes, what it shows, how far it goes and how it is carried out: with other values of
/// these, what is trained up to a step has the same bits. (The learning rate may depend on the number of steps; a run
/// that is asked for more of them is meant to go on all the same.)
const OUTWARD: &[&str] = &[
    "job.",
    "profiling.",
    "metrics.",
    "alerts.",
    "training.steps",
    "training.stop_at_step",
    "training.threads",
    "training.deterministic",
    "validation.freq",
    "validation.steps",
    "eval.",
    "checkpoint.enable",
    "checkpoint.folder",
    "checkpoint.interval",
    "checkpoint.keep_latest_k",
    "checkpoint.load_step",
    "checkpoint.last_save_model_only",
    "checkpoint.async_mode",
    "activation_checkpoint.",
    "parallelism.data_parallel_replicate_degree",
    "parallelism.data_parallel_shard_degree",
    "comm.",
    "compile.enable",
    "compile.dump",
    "compile.autotune_seconds",
];

/// Settings that decide, with others, how much of the training text is held out.
const HOLDING_OUT: &[&str] = &["validation.enable", "validation.fraction"];

/// Settings of which nobody needs to hear that a start has others than the one before: where it writes and what it shows,
/// and what it was asked to load.
const PASSING: &[&str] = &[
    "job.",
    "profiling.",
    "metrics.",
    "alerts.",
    "training.stop_at_step",
    "checkpoint.load_step",
    "compile.dump",
];

const GLOBAL_BATCH: &str = "training.global_batch_size";

/// A setting with two values, in TOML spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `section.key`.
    pub name: String,
    /// The earlier value; `None` if it was not set.
    pub old: Option<String>,
    /// The value now.
    pub new: Option<String>,
    shapes: bool,
}

impl Change {
    /// Whether it changes what is trained.
    pub fn shapes(&self) -> bool {
        self.shapes
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unset".to_owned());
        write!(f, "{} {} -> {}", self.name, shown(&self.old), shown(&self.new))
    }
}

impl JobConfig {
    /// How `self` differs from an earlier config, but for what concerns one start only.
    pub fn changes_since(&self, earlier: &Self) -> Vec<Change> {
        let (mut old, mut new) = (earlier.settings(), self.settings());
        // Where several ranks decide the sequences of a step, their number is filled in: what is not is of one process.
        for (settings, config, other) in [(&mut old, earlier, self), (&mut new, self, earlier)] {
            if config.training.global_batch_size < 0 && other.training.global_batch_size >= 0 {
                settings.insert(GLOBAL_BATCH.into(), config.training.batch_size.to_string());
            }
        }
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
        let changed = changed.filter(|name| !is_of(name, PASSING));
        // What is held out of the text is not trained on, and its share is decided by several settings together.
        let same_text = self.held_out_share() == earlier.held_out_share();
        let shapes = |name: &String| match is_of(name, HOLDING_OUT) {
            true => !same_text,
            false => !is_of(name, OUTWARD),
        };
        let change = |name: &String| Change {
            shapes: shapes(name),
            name: name.clone(),
            old: old.get(name).cloned(),
            new: new.get(name).cloned(),
        };
        changed.map(change).collect()
    }

    /// Share of the training data that is held out for validation.
    pub(crate) fn held_out_share(&self) -> f64 {
        self.data.held_out_share(self.validation.enable)
    }

    /// Every setting that is set, by name, in TOML spelling.
    fn settings(&self) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> =
            self.entries().into_iter().map(|entry| (entry.name(), entry.value)).collect();
        for (key, value) in &self.model_overrides {
            all.insert(format!("{OVERRIDES}.{key}"), value.to_toml().unwrap_or_default());
        }
        all
    }
}

/// Whether a name is in a list of names and, with a dot at their end, sections.
fn is_of(name: &str, list: &[&str]) -> bool {
    list.iter().any(|entry| if entry.ends_with('.') { name.starts_with(entry) } else { name == *entry })
}

#[cfg(test)]
mod tests {
    use super::*;
    use linc_config::{KeyInfo, Scalar};

    #[test]
    fn lists_name_settings_that_exist() {
        let keys = JobConfig::keys();
        for entry in OUTWARD.iter().chain(HOLDING_OUT).chain(PASSING) {
            assert!(keys.iter().any(|key| is_of(&key.name, &[entry])), "{entry}");
        }
    }

    #[test]
    fn every_setting_is_compared() {
        let written = JobConfig::default().settings();
        let unset = |key: &&KeyInfo| key.default.is_some();
        let keys = JobConfig::keys();
        let names: Vec<&String> = keys.iter().filter(unset).map(|key| &key.name).collect();
        assert_eq!(names.len(), written.len());
        assert!(names.iter().all(|name| written.contains_key(*name)));
    }

    #[test]
    fn changes_are_named_and_weighed() {
        let old = JobConfig::default();
        let mut new = old.clone();
        new.job.dump_folder = "elsewhere".into();
        new.checkpoint.load_step = 4;
        assert_eq!(new.changes_since(&old), []);
        new.training.steps = 7;
        new.optimizer.lr = 0.5;
        new.data.training.dataset_path = Some("a.txt".into());
        new.model_overrides.insert("dim".into(), Scalar::Int(64));
        let changes = new.changes_since(&old);
        let shown: Vec<String> = changes.iter().map(Change::to_string).collect();
        let expected = [
            "model.overrides.dim unset -> 64",
            "optimizer.lr 0.0008 -> 0.5",
            "training.dataset_path unset -> \"a.txt\"",
            "training.steps 10000 -> 7",
        ];
        assert_eq!(shown, expected);
        assert_eq!(changes.iter().map(Change::shapes).collect::<Vec<_>>(), [true, true, true, false]);
    }

    #[test]
    fn the_sequences_of_a_step_are_compared_as_what_they_come_to() {
        let mut alone = JobConfig::default();
        alone.training.batch_size = 2;
        let mut said = alone.clone();
        said.training.global_batch_size = 2;
        assert_eq!((said.changes_since(&alone), alone.changes_since(&said)), (vec![], vec![]));
        said.training.global_batch_size = 8;
        let changes = alone.changes_since(&said);
        assert_eq!(changes[0].to_string(), "training.global_batch_size 8 -> 2");
        assert!(changes[0].shapes());
        assert_eq!(said.changes_since(&alone)[0].to_string(), "training.global_batch_size 2 -> 8");
        assert!(JobConfig::keys().iter().any(|key| key.name == GLOBAL_BATCH));
    }

    #[test]
    fn what_is_held_out_is_not_trained_on() {
        let shaping = |old: &JobConfig, edit: fn(&mut JobConfig)| {
            let mut new = old.clone();
            edit(&mut new);
            let changes = new.changes_since(old);
            assert!(!changes.is_empty());
            changes.iter().any(Change::shapes)
        };
        let mut config = JobConfig::default();
        assert!(shaping(&config, |c| c.validation.enable = true));
        assert!(!shaping(&config, |c| c.data.validation.fraction = 0.1), "nothing is held out");
        config.validation.enable = true;
        assert!(shaping(&config, |c| c.data.validation.fraction = 0.1));
        // With data of its own to validate on, all of the text is trained on.
        config.data.validation.dataset = Some(config.data.training.dataset);
        assert!(!shaping(&config, |c| c.validation.enable = false));
        assert!(!shaping(&config, |c| c.data.validation.fraction = 0.1));
    }
}
