//! A config as TOML, every setting spelled out; and where each value is from.

use std::fmt::Write as _;

use linc_config::schema::{Json, schema};
use linc_config::{
    KeyInfo, OVERRIDES, Place, Scalar, Section as _, Setting as _, describe_overrides, quote, section_order,
};
use linc_data::DatasetKind;

use super::JobConfig;

/// Where comments about values begin, in characters, if the value leaves room.
const COMMENTS: usize = 44;

/// A setting of a config, with where its value is from.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Its section: `training.mqar`.
    pub section: String,
    /// Its name in the section, as it is written before the `=`.
    pub key: String,
    /// The value in TOML spelling; `None` if it is not set.
    pub value: Option<String>,
    /// Where it was given; `None` for a default.
    pub place: Option<Place>,
}

impl Resolved {
    /// `command line`, file and line, or `default`.
    pub fn origin(&self) -> String {
        match &self.place {
            Some(Place::CommandLine(_)) => "command line".to_owned(),
            Some(Place::File(place)) => format!("{}:{}", place.file, place.line),
            None => "default".to_owned(),
        }
    }
}

impl JobConfig {
    /// The JSON schema of configs.
    pub fn schema() -> Json {
        Self::schema_with(vec![], &[])
    }

    /// The JSON schema of configs that say more than how to train; see [`JobConfig::load_with`]. Each open section comes with
    /// what its values are, and what it is about.
    pub fn schema_with(keys: Vec<KeyInfo>, open: &[(&str, Json, &str)]) -> Json {
        let overrides = describe_overrides().about;
        let open = [&[(OVERRIDES, Scalar::schema(), overrides.as_str())], open].concat();
        schema(&[Self::keys(), keys].concat(), &open)
    }

    /// Every setting in the order of the sections, also those that are not set; but for a part that only data which are not
    /// asked for would read.
    pub fn resolved(&self) -> Vec<Resolved> {
        let entries = self.entries();
        let value =
            |name: &str| entries.iter().find(|entry| entry.name() == name).map(|entry| entry.value.clone());
        let (kind, data) = (self.data.training.dataset, &self.data);
        let is_idle = |section: &str| match section {
            "training.mqar" => kind != DatasetKind::Mqar && data.mqar == Default::default(),
            "training.recall" => kind.task().is_none() && data.recall == Default::default(),
            _ => false,
        };
        let keys = Self::keys();
        let mut all = Vec::new();
        for section in section_order(keys.iter().map(|key| key.section())) {
            for key in keys.iter().filter(|key| key.section() == section && !is_idle(&section)) {
                all.push(Resolved {
                    section: section.clone(),
                    key: key.name[section.len() + 1..].to_owned(),
                    value: value(&key.name),
                    place: self.places.0.get(&key.name).cloned(),
                });
            }
            if section == "model" {
                all.extend(self.model_overrides.iter().map(|(key, value)| Resolved {
                    section: OVERRIDES.to_owned(),
                    key: key.split('.').map(toml_key).collect::<Vec<_>>().join("."),
                    value: value.to_toml(),
                    place: self.places.0.get(&format!("{OVERRIDES}.{key}")).cloned(),
                }));
            }
        }
        all
    }

    /// The config as TOML, every setting spelled out. [`JobConfig::load`] gives the same config back.
    pub fn to_toml(&self) -> String {
        self.write(|_| None)
    }

    /// The same, with a comment behind each value that says where it is from; settings that are not set are comments.
    pub fn to_toml_with_origins(&self) -> String {
        self.write(|setting| Some(setting.origin()))
    }

    fn write(&self, comment: impl Fn(&Resolved) -> Option<String>) -> String {
        let mut out = String::new();
        let mut section = String::new();
        for setting in self.resolved() {
            let comment = comment(&setting);
            let line = match (&setting.value, &comment) {
                (Some(value), _) => format!("{} = {value}", setting.key),
                (None, Some(_)) => format!("# {} is not set", setting.key),
                (None, None) => continue,
            };
            if setting.section != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                section.clone_from(&setting.section);
                let _ = writeln!(out, "{gap}[{section}]");
            }
            match comment.filter(|_| setting.value.is_some()) {
                // A name of a file may have characters that no comment has.
                Some(origin) => {
                    let origin = origin.replace(char::is_control, "\u{fffd}");
                    let _ = writeln!(out, "{line:COMMENTS$}  # {origin}");
                }
                None => {
                    let _ = writeln!(out, "{line}");
                }
            }
        }
        out
    }
}

fn toml_key(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { key.to_owned() } else { quote(key) }
}
