//! The model TOML: the numbers of one flavour, with the places they were written.
//!
//! One table, `KEYS` in `config/keys.rs`, says which keys exist; reading, defaults, overrides and error messages all follow it.
//! Numbers that only an architecture of the user's own needs go under `[constants]`.

use std::collections::BTreeMap;
use std::ops::Range;

use linc_ir::RopeScaling;
use toml::de::DeTable;

use self::keys::{CONSTANTS, KEYS, Key, LINEAR, SCALING, ValueKind, path};
use self::reader::Reader;
use crate::diagnostics::{Diagnostic, Diagnostics, Source};
use crate::suggest::did_you_mean;

mod keys;
mod reader;

pub use self::keys::Number;
pub(crate) use self::keys::STRUCTURAL;

/// Options of the linear attention layers (`[linear_attention]`).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LinearAttentionOptions {
    /// Rotate q and k of linear layers by position; default true.
    pub rope: bool,
    /// Multiplier of q and k before their softmaxes; default 3.
    pub temperature: f64,
    /// Chunk length of the chunked evaluation; default 64.
    pub chunk: usize,
}

/// A number with its origin.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Setting {
    pub(crate) value: Number,
    /// Where the TOML gives it; `None` for defaults and values that only an override gave.
    pub(crate) span: Option<Range<usize>>,
    /// The value is not the TOML's.
    pub(crate) overridden: bool,
}

/// A parsed model TOML.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelConfig {
    /// Name of the family, `llama3`.
    pub name: String,
    /// Name of the size, `1B`.
    pub flavor: String,
    /// File of the architecture, relative to the TOML: `llama3.linc`.
    pub architecture: String,
    source: Source,
    /// By path; keys of tables are dotted.
    settings: BTreeMap<String, Setting>,
}

impl ModelConfig {
    /// Reads a model TOML. Whether its numbers fit together is checked when the model is built, after
    /// overrides.
    ///
    /// # Errors
    /// Malformed TOML; every unknown, missing or ill-typed key.
    pub fn parse(source: &Source) -> Result<Self, Diagnostics> {
        let fail = |errors| Err(Diagnostics::new(errors, vec![source.clone()]));
        let root = match DeTable::parse(&source.text) {
            Ok(root) => root,
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                let message = format!("malformed TOML: {}", error.message().replace('\n', ", "));
                return fail(vec![Diagnostic::new(&source.path, span, message)]);
            }
        };
        let mut reader = Reader::new(source);
        reader.table("", root.get_ref());
        reader.missing("", 0..0);
        reader.check_scaling();
        if !reader.errors.is_empty() {
            reader.errors.sort_by_key(|e| e.place.as_ref().map_or(0, |p| p.span.start));
            return fail(reader.errors);
        }
        let mut text = |name: &str| reader.texts.remove(name).unwrap_or_default();
        Ok(ModelConfig {
            name: text("name"),
            flavor: text("flavor"),
            architecture: text("architecture"),
            source: source.clone(),
            settings: reader.settings,
        })
    }

    /// Sets a number, as a command line or a test does. Keys of tables are dotted
    /// (`linear_attention.chunk`, `constants.window`). Flags take 0 and 1.
    ///
    /// # Errors
    /// An unknown key, or a value that the key does not take.
    pub fn override_number(&mut self, key: &str, value: f64) -> Result<(), Diagnostics> {
        let fail = |error| Err(Diagnostics::new(vec![error], vec![self.source.clone()]));
        let kind = KEYS.iter().find(|k| k.path() == key && k.kind != ValueKind::Text).map(|k| k.kind);
        let present = self.settings.contains_key(key);
        let Some(kind) = kind.or(present.then_some(ValueKind::Any)) else {
            let keys: Vec<String> =
                KEYS.iter().filter(|k| k.kind != ValueKind::Text).map(Key::path).collect();
            let known = keys.iter().chain(self.settings.keys()).map(String::as_str);
            let listed = || self.settings.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let help =
                did_you_mean(key, known).unwrap_or_else(|| format!("{} has {}", self.source.path, listed()));
            return fail(Diagnostic::nowhere(format!("the model has no number `{key}`")).help(help));
        };
        if key.starts_with(SCALING) && !present {
            let message = format!("cannot set `{key}`: {} has no [{SCALING}]", self.source.path);
            return fail(Diagnostic::nowhere(message));
        }
        let whole = value.fract() == 0.0 && value.abs() < 2f64.powi(53);
        let is_flag = kind == ValueKind::Flag || matches!(self.number(key), Some(Number::Bool(_)));
        let number = match value {
            0.0 | 1.0 if is_flag => Number::Bool(value != 0.0),
            _ if whole => Number::Int(value as i64),
            _ => Number::Float(value),
        };
        let Some(number) = kind.accept(number) else {
            let flag = if kind == ValueKind::Flag { " (1 or 0)" } else { "" };
            let message = format!("`{key}` must be {}{flag}, not {value}", kind.describe());
            return fail(match self.settings.get(key).and_then(|s| s.span.clone()) {
                Some(span) => Diagnostic::new(&self.source.path, span, message).remark(format!("overridden to {value}")),
                None => Diagnostic::nowhere(message).help(format!("{} does not say `{key}`: leave it out, or mend the value on the command line or in the config", self.source.path)),
            });
        };
        let span = self.settings.get(key).and_then(|s| s.span.clone());
        self.settings.insert(key.to_string(), Setting { value: number, span, overridden: true });
        Ok(())
    }

    /// Number of layers.
    pub fn n_layers(&self) -> usize {
        match self.number("n_layers") {
            Some(Number::Int(layers)) => usize::try_from(layers).unwrap_or(1),
            Some(Number::Float(_) | Number::Bool(_)) | None => 1,
        }
    }

    /// A number by its dotted key, without derived defaults.
    pub fn number(&self, key: &str) -> Option<Number> {
        self.settings.get(key).map(|s| s.value)
    }

    /// All numbers by their dotted keys, without derived defaults.
    pub fn numbers(&self) -> impl Iterator<Item = (&str, Number)> {
        self.settings.iter().map(|(key, setting)| (key.as_str(), setting.value))
    }

    /// RoPE frequency scaling, if the model has `[rope_scaling]`.
    pub fn rope_scaling(&self) -> Option<RopeScaling> {
        let number = |name| self.number(&path(SCALING, name)).map(Number::as_f64);
        Some(RopeScaling {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_position: number("original_max_position_embeddings")? as usize,
        })
    }

    /// Options of the linear attention layers.
    pub fn linear_attention(&self) -> LinearAttentionOptions {
        let number = |name| self.number(&path(LINEAR, name)).map_or(0.0, Number::as_f64);
        LinearAttentionOptions {
            rope: number("rope") != 0.0,
            temperature: number("temperature"),
            chunk: number("chunk") as usize,
        }
    }

    /// The text this was read from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The numbers an architecture sees, by name, derived ones included.
    ///
    /// # Errors
    /// Numbers that do not fit together.
    pub(crate) fn resolve(&self) -> Result<BTreeMap<String, Setting>, Vec<Diagnostic>> {
        let mut all: BTreeMap<String, Setting> = BTreeMap::new();
        for (path, setting) in &self.settings {
            match path.split_once('.') {
                None => all.insert(path.clone(), setting.clone()),
                Some((CONSTANTS, name)) => all.insert(name.to_string(), setting.clone()),
                Some(_) => None,
            };
        }
        let mut errors = Vec::new();
        let whole = |all: &BTreeMap<String, Setting>, name: &str| match all.get(name).map(|s| s.value) {
            Some(Number::Int(value)) => value,
            Some(Number::Float(_) | Number::Bool(_)) | None => 1,
        };
        let derived = |value| Setting { value: Number::Int(value), span: None, overridden: false };
        let (dim, heads) = (whole(&all, "dim"), whole(&all, "n_heads"));
        all.entry("n_kv_heads".into()).or_insert_with(|| derived(heads));
        if whole(&all, "n_kv_heads") > heads || heads % whole(&all, "n_kv_heads") != 0 {
            let groups = whole(&all, "n_kv_heads");
            let message = format!("n_heads = {heads} is not a multiple of n_kv_heads = {groups}");
            let error = self.at(&all, "n_kv_heads", message).help(
                "each key/value head serves the same number of query heads: choose a divisor of n_heads"
                    .to_string(),
            );
            errors.push(self.also(error, &all, "n_heads"));
        }
        if !all.contains_key("head_dim") {
            if dim % heads == 0 {
                all.insert("head_dim".into(), derived(dim / heads));
            } else {
                let message = format!("dim = {dim} is not divisible by n_heads = {heads}");
                let help = "change one of them, or give `head_dim` itself".to_string();
                let error = self.at(&all, "n_heads", message).help(help);
                errors.push(self.also(error, &all, "dim"));
            }
        }
        let scaling = |name| self.number(&path(SCALING, name)).map(Number::as_f64);
        if let (Some(low), Some(high)) = (scaling("low_freq_factor"), scaling("high_freq_factor"))
            && high <= low
        {
            // The reader has checked what the TOML says, so an override did this.
            errors.push(Diagnostic::nowhere(scaling_message(low, high)));
        }
        if errors.is_empty() { Ok(all) } else { Err(errors) }
    }

    /// An error at the place that gives `name`.
    fn at(&self, all: &BTreeMap<String, Setting>, name: &str, message: String) -> Diagnostic {
        match all.get(name).and_then(|s| s.span.clone().map(|span| (s, span))) {
            Some((setting, span)) => {
                let note = if setting.overridden {
                    format!("overridden to {}", setting.value)
                } else {
                    String::new()
                };
                Diagnostic::new(&self.source.path, span, message).remark(note)
            }
            None => Diagnostic::nowhere(message),
        }
    }

    /// Adds the places that give numbers to each of the errors.
    #[must_use]
    pub fn point_at(&self, errors: Diagnostics, names: &[&str]) -> Diagnostics {
        // The model was built, so its numbers fit together.
        let Ok(settings) = self.resolve() else { return errors };
        let all = |error| names.iter().fold(error, |error, name| self.also(error, &settings, name));
        errors.in_addition(&self.source, all)
    }

    /// Adds the place that gives `name` to an error.
    pub(crate) fn also(&self, error: Diagnostic, all: &BTreeMap<String, Setting>, name: &str) -> Diagnostic {
        let (value, span, overridden) = match all.get(name) {
            Some(Setting { value, span: Some(span), overridden }) => (value, span, overridden),
            Some(Setting { span: None, overridden: false, .. }) if name == "head_dim" => {
                return self.also(self.also(error, all, "dim"), all, "n_heads");
            }
            Some(Setting { span: None, .. }) | None => return error,
        };
        // The excerpt shows what the TOML says; only an override needs words.
        let text = if *overridden { format!("overridden to {value}") } else { String::new() };
        error.label(&self.source.path, span.clone(), text)
    }

    /// Where the TOML gives a visible name, if it does.
    pub(crate) fn given(&self, name: &str) -> Option<Range<usize>> {
        let constant = path(CONSTANTS, name);
        self.settings.get(name).or_else(|| self.settings.get(&constant))?.span.clone()
    }
}

fn scaling_message(low: f64, high: f64) -> String {
    format!("high_freq_factor = {high:?} must be larger than low_freq_factor = {low:?}")
}
