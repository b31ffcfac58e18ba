//! The keys of a model TOML: what each takes and what happens without it.

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
pub(super) enum ValueKind {
    Text,
    /// A whole number from 1.
    Count,
    /// A finite number above 0.
    Positive,
    Flag,
    /// Any finite number or flag.
    Any,
}

impl ValueKind {
    pub(super) fn describe(self) -> &'static str {
        match self {
            ValueKind::Text => "a string",
            ValueKind::Count => "a whole number from 1 to 2147483647",
            ValueKind::Positive => "a number above 0",
            ValueKind::Flag => "true or false",
            ValueKind::Any => "a number, true or false",
        }
    }

    /// The number as this kind stores it, or `None` if it does not fit.
    pub(super) fn accept(self, number: Number) -> Option<Number> {
        match (self, number) {
            (ValueKind::Text, _) => None,
            (ValueKind::Count, Number::Int(i)) => (1..=i64::from(i32::MAX)).contains(&i).then_some(number),
            (ValueKind::Positive, Number::Int(_) | Number::Float(_)) => {
                let value = number.as_f64();
                (value.is_finite() && value > 0.0).then_some(Number::Float(value))
            }
            (ValueKind::Flag, Number::Bool(_)) => Some(number),
            (ValueKind::Any, Number::Float(value)) => value.is_finite().then_some(number),
            (ValueKind::Any, Number::Int(_) | Number::Bool(_)) => Some(number),
            (ValueKind::Count, Number::Float(_) | Number::Bool(_))
            | (ValueKind::Positive, Number::Bool(_))
            | (ValueKind::Flag, Number::Int(_) | Number::Float(_)) => None,
        }
    }
}

/// What happens when a key is absent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Absent {
    Error,
    Default(Number),
    /// Computed from other keys when the model is built.
    Derived,
}

pub(super) struct Key {
    pub(super) table: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: ValueKind,
    pub(super) absent: Absent,
}

const fn key(table: &'static str, name: &'static str, kind: ValueKind, absent: Absent) -> Key {
    Key { table, name, kind, absent }
}

pub(super) const SCALING: &str = "rope_scaling";
pub(super) const LINEAR: &str = "linear_attention";
pub(super) const CONSTANTS: &str = "constants";
pub(super) const TABLES: [&str; 3] = [SCALING, LINEAR, CONSTANTS];

/// Every key of a model TOML.
pub(super) const KEYS: [Key; 21] = [
    key("", "architecture", ValueKind::Text, Absent::Error),
    key("", "name", ValueKind::Text, Absent::Error),
    key("", "flavor", ValueKind::Text, Absent::Error),
    key("", "dim", ValueKind::Count, Absent::Error),
    key("", "n_layers", ValueKind::Count, Absent::Error),
    key("", "n_heads", ValueKind::Count, Absent::Error),
    key("", "n_kv_heads", ValueKind::Count, Absent::Derived),
    key("", "head_dim", ValueKind::Count, Absent::Derived),
    key("", "vocab_size", ValueKind::Count, Absent::Error),
    key("", "ffn_dim_multiplier", ValueKind::Positive, Absent::Default(Number::Float(1.0))),
    key("", "multiple_of", ValueKind::Count, Absent::Default(Number::Int(256))),
    key("", "norm_eps", ValueKind::Positive, Absent::Default(Number::Float(1e-5))),
    key("", "rope_theta", ValueKind::Positive, Absent::Default(Number::Float(10000.0))),
    key("", "tie_embeddings", ValueKind::Flag, Absent::Default(Number::Bool(false))),
    key(SCALING, "factor", ValueKind::Positive, Absent::Error),
    key(SCALING, "low_freq_factor", ValueKind::Positive, Absent::Error),
    key(SCALING, "high_freq_factor", ValueKind::Positive, Absent::Error),
    key(SCALING, "original_max_position_embeddings", ValueKind::Count, Absent::Error),
    key(LINEAR, "rope", ValueKind::Flag, Absent::Default(Number::Bool(true))),
    key(LINEAR, "temperature", ValueKind::Positive, Absent::Default(Number::Float(3.0))),
    key(LINEAR, "chunk", ValueKind::Count, Absent::Default(Number::Int(64))),
];

/// Keys that size the model whatever the architecture reads.
pub(crate) const STRUCTURAL: [&str; 4] = ["dim", "n_layers", "n_heads", "vocab_size"];

impl Key {
    /// `dim`, `rope_scaling.factor`
    pub(super) fn path(&self) -> String {
        path(self.table, self.name)
    }
}

pub(super) fn path(table: &str, name: &str) -> String {
    if table.is_empty() { name.to_string() } else { format!("{table}.{name}") }
}
