//! From a TOML tree to settings: every unknown, missing and ill-typed key is reported, not only the first.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Absent, CONSTANTS, KEYS, Key, SCALING, TABLES, ValueKind, path};
use super::{Number, Setting, scaling_message};
use crate::diagnostics::{Diagnostic, Source};
use crate::lexer::{KEYWORDS, NOT};
use crate::suggest::did_you_mean;

/// Collects settings and errors from a TOML tree.
pub(super) struct Reader<'a> {
    source: &'a Source,
    pub(super) settings: BTreeMap<String, Setting>,
    pub(super) texts: BTreeMap<String, String>,
    pub(super) errors: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
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

    pub(super) fn table(&mut self, table: &str, content: &DeTable<'_>) {
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
            self.value(path(CONSTANTS, name), ValueKind::Any, value);
        }
    }

    fn value(&mut self, path: String, kind: ValueKind, value: &Spanned<DeValue<'_>>) {
        let number = match value.get_ref() {
            DeValue::String(text) if kind == ValueKind::Text => {
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

    /// One error for all keys that a table must have and has not.
    pub(super) fn missing(&mut self, table: &str, span: Range<usize>) {
        let absent = |path: &String| !self.settings.contains_key(path) && !self.texts.contains_key(path);
        let required = KEYS.iter().filter(|k| k.table == table && k.absent == Absent::Error);
        let missing: Vec<&Key> = required.filter(|k| absent(&k.path())).collect();
        if missing.is_empty() {
            return;
        }
        let paths: Vec<String> = missing.iter().map(|k| format!("`{}`", k.path())).collect();
        let lines: Vec<String> =
            missing.iter().map(|k| format!("`{} = ...` ({})", k.name, k.kind.describe())).collect();
        let plural = if missing.len() == 1 { "key" } else { "keys" };
        let message = format!("missing {plural} {}", paths.join(", "));
        self.error(span, message, Some(format!("add {}", lines.join(", "))));
    }

    pub(super) fn check_scaling(&mut self) {
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
