//! Limits of single settings. Each carries its own words, which errors and `--list-settings` show; the caller adds where
//! the setting stands.

use serde_json::{Map, Value, json};

use crate::value::Setting;

/// What a setting may be, beyond its type.
pub struct Check<T> {
    /// What a person should write: `an integer of at least 1`. It replaces the words of the type.
    pub allowed: String,
    wrong: Wrong<T>,
    /// The same for a JSON schema, as far as its words go.
    limits: Map<String, Value>,
}

/// The part of a value that is not allowed, in TOML spelling.
type Wrong<T> = Box<dyn Fn(&T) -> Option<String>>;

impl<T: Setting + 'static> Check<T> {
    /// A limit that `allowed` completes the sentence "expected .." for.
    pub fn new(allowed: impl Into<String>, holds: impl Fn(&T) -> bool + 'static) -> Self {
        let wrong = move |value: &T| (!holds(value)).then(|| value.to_toml().unwrap_or_default());
        Self { allowed: allowed.into(), wrong: Box::new(wrong), limits: Map::new() }
    }

    /// As [`Check::new`]; `wrong` gives the part of a value that is not allowed, in TOML spelling.
    pub fn of_parts(allowed: impl Into<String>, wrong: impl Fn(&T) -> Option<String> + 'static) -> Self {
        Self { allowed: allowed.into(), wrong: Box::new(wrong), limits: Map::new() }
    }

    /// Says the limit in words of JSON schemas too, such as `minimum`: they are added to those of the type.
    #[must_use]
    pub fn in_schema(mut self, limits: Value) -> Self {
        if let Value::Object(limits) = limits {
            self.limits = limits;
        }
        self
    }

    pub(crate) fn limits(&self) -> &Map<String, Value> {
        &self.limits
    }

    /// Looks at a value.
    ///
    /// # Errors
    /// What is allowed and what was found.
    pub fn apply(&self, value: &T) -> Result<(), String> {
        match (self.wrong)(value) {
            Some(found) => Err(format!("expected {}, found {found}", self.allowed)),
            None => Ok(()),
        }
    }

    /// For a setting that may be left out.
    pub fn if_set(self) -> Check<Option<T>> {
        let wrong = self.wrong;
        let wrong = Box::new(move |value: &Option<T>| value.as_ref().and_then(&wrong));
        Check { allowed: self.allowed, wrong, limits: self.limits }
    }
}

/// A count of something that there is.
pub fn positive() -> Check<usize> {
    at_least(1)
}

/// A count with a lower limit.
pub fn at_least(least: usize) -> Check<usize> {
    Check::new(format!("an integer of at least {least}"), move |value| *value >= least)
        .in_schema(json!({ "minimum": least }))
}

/// Counts of something that there is, at least one of them.
pub fn positive_list() -> Check<Vec<usize>> {
    Check::new("a list of at least one integer, each at least 1", |values: &Vec<usize>| {
        !values.is_empty() && values.iter().all(|value| *value > 0)
    })
    .in_schema(json!({ "minItems": 1, "minimum": 1 }))
}

/// A count that is kept in 32 bits.
pub fn fits_u32() -> Check<usize> {
    Check::new("an integer from 0 to 4294967295", |value| u32::try_from(*value).is_ok())
        .in_schema(json!({ "maximum": u32::MAX }))
}

/// TOML's integers are signed: a larger seed could not be written to config.toml.
pub fn fits_toml() -> Check<u64> {
    Check::new("an integer from 0 to 9223372036854775807", |value| i64::try_from(*value).is_ok())
        .in_schema(json!({ "maximum": i64::MAX }))
}

/// A count, or -1 for as many as there are.
pub fn minus_one_or_positive() -> Check<i64> {
    Check::new("-1 or an integer of at least 1", |value| *value == -1 || *value >= 1)
        .in_schema(json!({ "minimum": -1, "not": { "const": 0 } }))
}

/// A number of something counted from 0, or -1 for the newest.
pub fn at_least_minus_one() -> Check<i64> {
    Check::new("-1 or an integer of at least 0", |value| *value >= -1).in_schema(json!({ "minimum": -1 }))
}

/// A size or rate, which may be 0.
pub fn non_negative() -> Check<f64> {
    Check::new("a finite number of at least 0", |value: &f64| value.is_finite() && *value >= 0.0)
        .in_schema(json!({ "minimum": 0 }))
}

/// A size that is not 0.
pub fn above_zero() -> Check<f64> {
    Check::new("a finite number above 0", |value: &f64| value.is_finite() && *value > 0.0)
        .in_schema(json!({ "exclusiveMinimum": 0 }))
}

/// A part of a whole, up to all of it.
pub fn share() -> Check<f64> {
    Check::new("a number from 0 to 1", |value| (0.0..=1.0).contains(value))
        .in_schema(json!({ "minimum": 0, "maximum": 1 }))
}

/// A part of a whole, but not all of it.
pub fn below_one() -> Check<f64> {
    Check::new("a number from 0 to below 1", |value| (0.0..1.0).contains(value))
        .in_schema(json!({ "minimum": 0, "exclusiveMaximum": 1 }))
}

/// A name.
pub fn not_empty() -> Check<String> {
    Check::new("a string that is not empty", |value: &String| !value.trim().is_empty())
        .in_schema(json!({ "pattern": "\\S" }))
}

/// A word of a few.
pub fn one_of(allowed: &'static [&'static str]) -> Check<String> {
    let words = format!("\"{}\" (what this version supports)", allowed.join("\" or \""));
    Check::new(words, |value: &String| allowed.contains(&value.as_str()))
        .in_schema(json!({ "enum": allowed }))
}
