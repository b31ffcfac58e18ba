//! The model TOML: the numbers of one flavour, with the places they were written.
//!
//! One table, [`KEYS`], says which keys exist; reading, defaults, overrides and error messages all follow it.
//! Numbers that only an architecture of the user's own needs go under `[constants]`.

use std::collections::BTreeMap;
use std::ops::Range;

use linc_ir::RopeScaling;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostics::{Diagnostic, Diagnostics, Source};
use crate::lexer::{KEYWORDS, NOT};
use crate::suggest::did_you_mean;

/// A number or flag of a model.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Number {
    /// Whole.
    Int(i64),
    /// Not whole, or written with a point.
    Float(f64),
    /// True or false.
    Bool(bool),
}

impl Number {
    /// As a float; flags are 0 and 1.
    pub fn as_f64(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Float(value) => value,
            Number::Bool(value) => f64::from(u8::from(value)),
        }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Number::Int(value) => write!(f, "{value}"),
            Number::Float(value) => write!(f, "{value:?}"),
            Number::Bool(value) => write!(f, "{value}"),
        }
    }
}

/// What a key takes.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Text,
    /// A whole number from 1.
    Count,
    /// A finite number above 0.
    Positive,
    Flag,
    /// Any finite number or flag.
    Any,
}

impl Kind {
    fn describe(self) -> &'static str {
        match self {
            Kind::Text => "a string",
            Kind::Count => "a whole number from 1 to 2147483647",
            Kind::Positive => "a number above 0",
            Kind::Flag => "true or false",
            Kind::Any => "a number, true or false",
        }
    }

    /// The number as this kind stores it, or `None` if it does not fit.
    fn accept(self, number: Number) -> Option<Number> {
        match (self, number) {
            (Kind::Text, _) => None,
            (Kind::Count, Number::Int(i)) => (1..=i64::from(i32::MAX)).contains(&i).then_some(number),
            (Kind::Positive, Number::Int(_) | Number::Float(_)) => {
                let value = number.as_f64();
                (value.is_finite() && value > 0.0).then_some(Number::Float(value))
            }
            (Kind::Flag, Number::Bool(_)) => Some(number),
            (Kind::Any, Number::Float(value)) => value.is_finite().then_some(number),
            (Kind::Any, Number::Int(_) | Number::Bool(_)) => Some(number),
            (Kind::Count, Number::Float(_) | Number::Bool(_))
            | (Kind::Positive, Number::Bool(_))
            | (Kind::Flag, Number::Int(_) | Number::Float(_)) => None,
        }
    }
}

/// What happens when a key is absent.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Absent {
    Error,
    Default(Number),
    /// Computed from other keys when the model is built.
    Derived,
}

struct Key {
    table: &'static str,
    name: &'static str,
    kind: Kind,
    absent: Absent,
}

const fn key(table: &'static str, name: &'static str, kind: Kind, absent: Absent) -> Key {
    Key { table, name, kind, absent }
}

const SCALING: &str = "rope_scaling";
const LINEAR: &str = "linear_attention";
const CONSTANTS: &str = "constants";
const TABLES: [&str; 3] = [SCALING, LINEAR, CONSTANTS];

/// Every key of a model TOML.
const KEYS: [Key; 21] = [
    key("", "architecture", Kind::Text, Absent::Error),
    key("", "name", Kind::Text, Absent::Error),
    key("", "flavor", Kind::Text, Absent::Error),
    key("", "dim", Kind::Count, Absent::Error),
    key("", "n_layers", Kind::Count, Absent::Error),
    key("", "n_heads", Kind::Count, Absent::Error),
    key("", "n_kv_heads", Kind::Count, Absent::Derived),
    key("", "head_dim", Kind::Count, Absent::Derived),
    key("", "vocab_size", Kind::Count, Absent::Error),
    key("", "ffn_dim_multiplier", Kind::Positive, Absent::Default(Number::Float(1.0))),
    key("", "multiple_of", Kind::Count, Absent::Default(Number::Int(256))),
    key("", "norm_eps", Kind::Positive, Absent::Default(Number::Float(1e-5))),
    key("", "rope_theta", Kind::Positive, Absent::Default(Number::Float(10000.0))),
    key("", "tie_embeddings", Kind::Flag, Absent::Default(Number::Bool(false))),
    key(SCALING, "factor", Kind::Positive, Absent::Error),
    key(SCALING, "low_freq_factor", Kind::Positive, Absent::Error),
    key(SCALING, "high_freq_factor", Kind::Positive, Absent::Error),
    key(SCALING, "original_max_position_embeddings", Kind::Count, Absent::Error),
    key(LINEAR, "rope", Kind::Flag, Absent::Default(Number::Bool(false))),
    key(LINEAR, "temperature", Kind::Positive, Absent::Default(Number::Float(1.0))),
    key(LINEAR, "chunk", Kind::Count, Absent::Default(Number::Int(64))),
];

/// Keys that size the model whatever the architecture reads.
pub(crate) const STRUCTURAL: [&str; 4] = ["dim", "n_layers", "n_heads", "vocab_size"];

impl Key {
    /// `dim`, `rope_scaling.factor`
    fn path(&self) -> String {
        path(self.table, self.name)
    }
}

fn path(table: &str, name: &str) -> String {
    if table.is_empty() { name.to_string() } else { format!("{table}.{name}") }
}

/// Options of the linear attention layers (`[linear_attention]`).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LinearAttentionOptions {
    /// Rotate q and k of linear layers by position; default false.
    pub rope: bool,
    /// Multiplier of q and k before their softmaxes; default 1.
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
    /// (`linear_attention.chunk`, `constants.window`).
    ///
    /// # Errors
    /// An unknown key, or a value that the key does not take.
    pub fn override_number(&mut self, key: &str, value: f64) -> Result<(), Diagnostics> {
        let fail = |error| Err(Diagnostics::new(vec![error], Vec::new()));
        let kind = KEYS.iter().find(|k| k.path() == key && k.kind != Kind::Text).map(|k| k.kind);
        let present = self.settings.contains_key(key);
        let Some(kind) = kind.or(present.then_some(Kind::Any)) else {
            let known: Vec<String> = KEYS.iter().filter(|k| k.kind != Kind::Text).map(Key::path).collect();
            let known = known.iter().chain(self.settings.keys()).map(String::as_str);
            let help = did_you_mean(key, known);
            return fail(Diagnostic::nowhere(format!("the model has no number `{key}`")).help(help));
        };
        if key.starts_with(SCALING) && !present {
            let message = format!("cannot set `{key}`: {} has no [{SCALING}]", self.source.path);
            return fail(Diagnostic::nowhere(message));
        }
        let whole = value.fract() == 0.0 && value.abs() < 2f64.powi(53);
        let number = if whole { Number::Int(value as i64) } else { Number::Float(value) };
        let Some(number) = kind.accept(number) else {
            let message = format!("`{key}` must be {}, not {value}", kind.describe());
            return fail(Diagnostic::nowhere(message));
        };
        let span = self.settings.get(key).and_then(|s| s.span.clone());
        self.settings.insert(key.to_string(), Setting { value: number, span, overridden: true });
        Ok(())
    }

    /// A number by its dotted key, without derived defaults.
    pub fn number(&self, key: &str) -> Option<Number> {
        self.settings.get(key).map(|s| s.value)
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

    /// Adds the place that gives `name` to an error.
    pub(crate) fn also(&self, error: Diagnostic, all: &BTreeMap<String, Setting>, name: &str) -> Diagnostic {
        let Some(Setting { value, span: Some(span), overridden }) = all.get(name) else {
            return error;
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

/// Collects settings and errors from a TOML tree.
struct Reader<'a> {
    source: &'a Source,
    settings: BTreeMap<String, Setting>,
    texts: BTreeMap<String, String>,
    errors: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    fn new(source: &'a Source) -> Self {
        let mut settings = BTreeMap::new();
        for key in &KEYS {
            if let Absent::Default(value) = key.absent {
                settings.insert(key.path(), Setting { value, span: None, overridden: false });
            }
        }
        Reader { source, settings, texts: BTreeMap::new(), errors: Vec::new() }
    }

    fn error(&mut self, span: Range<usize>, message: String, help: Option<String>) {
        self.errors.push(Diagnostic::new(&self.source.path, span, message).help(help));
    }

    fn table(&mut self, table: &str, content: &DeTable<'_>) {
        for (key, value) in content {
            let (name, span) = (key.get_ref().as_ref(), key.span());
            if table.is_empty() && TABLES.contains(&name) {
                match value.get_ref() {
                    DeValue::Table(inner) => {
                        self.table(name, inner);
                        self.missing(name, span);
                    }
                    other => {
                        let message = format!("`{name}` must be a table, found {}", found(other));
                        self.error(value.span(), message, Some(format!("write `[{name}]` on its own line")));
                    }
                }
            } else if table == CONSTANTS {
                self.constant(name, span, value);
            } else if let Some(known) = KEYS.iter().find(|k| k.table == table && k.name == name) {
                self.value(known.path(), known.kind, value);
            } else {
                self.unknown(table, name, span);
            }
        }
    }

    fn unknown(&mut self, table: &str, name: &str, span: Range<usize>) {
        let tables: &[&str] = if table.is_empty() { &TABLES } else { &[] };
        let known = KEYS.iter().filter(|k| k.table == table).map(|k| k.name).chain(tables.iter().copied());
        let elsewhere = KEYS.iter().find(|k| k.name == name);
        let help = did_you_mean(name, known).or_else(|| match elsewhere {
            Some(key) if key.table.is_empty() => Some(format!("`{name}` belongs above the first table")),
            Some(key) => Some(format!("`{name}` belongs under [{}]", key.table)),
            None if table.is_empty() => {
                Some(format!("a number of your own architecture goes under [{CONSTANTS}]"))
            }
            None => None,
        });
        let place = if table.is_empty() { String::new() } else { format!(" in [{table}]") };
        self.error(span, format!("unknown key `{name}`{place}"), help);
    }

    fn constant(&mut self, name: &str, span: Range<usize>, value: &Spanned<DeValue<'_>>) {
        let identifier = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty()
            && !KEYWORDS.contains(&name)
            && name != NOT;
        if !identifier {
            self.error(span, format!("`{name}` is not a name the language can use"), None);
        } else if KEYS.iter().any(|k| k.table.is_empty() && k.name == name) || TABLES.contains(&name) {
            let help = format!("move it out of [{CONSTANTS}], above the first table");
            self.error(span, format!("`{name}` is a key of every model"), Some(help));
        } else {
            self.value(path(CONSTANTS, name), Kind::Any, value);
        }
    }

    fn value(&mut self, path: String, kind: Kind, value: &Spanned<DeValue<'_>>) {
        let number = match value.get_ref() {
            DeValue::String(text) if kind == Kind::Text => {
                if text.is_empty() {
                    self.error(value.span(), format!("`{path}` is empty"), None);
                }
                self.texts.insert(path, text.to_string());
                return;
            }
            DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()).ok().map(Number::Int),
            DeValue::Float(f) => f.as_str().parse().ok().map(Number::Float),
            DeValue::Boolean(b) => Some(Number::Bool(*b)),
            DeValue::String(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
        };
        match number.and_then(|n| kind.accept(n)) {
            Some(number) => {
                let setting = Setting { value: number, span: Some(value.span()), overridden: false };
                self.settings.insert(path, setting);
            }
            None => {
                let message =
                    format!("`{path}` must be {}, found {}", kind.describe(), found(value.get_ref()));
                self.error(value.span(), message, None);
                // Present, though wrong: not missing as well.
                self.texts.insert(path, String::new());
            }
        }
    }

    fn missing(&mut self, table: &str, span: Range<usize>) {
        for key in KEYS.iter().filter(|k| k.table == table && k.absent == Absent::Error) {
            let path = key.path();
            if !self.settings.contains_key(&path) && !self.texts.contains_key(&path) {
                let message = format!("missing key `{path}`");
                let help = format!("add `{} = ...`, {}", key.name, key.kind.describe());
                self.error(span.clone(), message, Some(help));
            }
        }
    }

    fn check_scaling(&mut self) {
        let setting = |name| self.settings.get(&path(SCALING, name)).cloned();
        if let (Some(low), Some(high)) = (setting("low_freq_factor"), setting("high_freq_factor"))
            && high.value.as_f64() <= low.value.as_f64()
        {
            let message = scaling_message(low.value.as_f64(), high.value.as_f64());
            self.error(high.span.unwrap_or(0..0), message, None);
        }
    }
}

/// What a TOML value is, for `found ...`.
fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.len() < 40 => format!("the string \"{text}\""),
        DeValue::String(_) => "a long string".into(),
        DeValue::Integer(i) => i.to_string(),
        DeValue::Float(f) => f.to_string(),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "an array".into(),
        DeValue::Table(_) => "a table".into(),
    }
}
