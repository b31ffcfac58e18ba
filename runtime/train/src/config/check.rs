//! Limits of single settings. Each carries its own words, which errors and `--list-settings` show; the caller adds where
//! the setting stands.

use std::path::{Component, Path};

use super::value::Setting;

/// What a setting may be, beyond its type.
pub(crate) struct Check<T> {
    /// What a person should write: `an integer of at least 1`. It replaces the words of the type.
    pub(crate) allowed: String,
    wrong: Wrong<T>,
}

/// The part of a value that is not allowed, in TOML spelling.
type Wrong<T> = Box<dyn Fn(&T) -> Option<String>>;

impl<T: Setting + 'static> Check<T> {
    fn new(allowed: impl Into<String>, holds: impl Fn(&T) -> bool + 'static) -> Self {
        let wrong = move |value: &T| (!holds(value)).then(|| value.to_toml().unwrap_or_default());
        Self { allowed: allowed.into(), wrong: Box::new(wrong) }
    }

    /// Says what is allowed if the value is not.
    pub(crate) fn apply(&self, value: &T) -> Result<(), String> {
        match (self.wrong)(value) {
            Some(found) => Err(format!("expected {}, found {found}", self.allowed)),
            None => Ok(()),
        }
    }

    /// For a setting that may be left out.
    pub(super) fn if_set(self) -> Check<Option<T>> {
        let wrong = self.wrong;
        Check { allowed: self.allowed, wrong: Box::new(move |value| value.as_ref().and_then(&wrong)) }
    }
}

pub(super) fn positive() -> Check<usize> {
    at_least(1)
}

pub(super) fn at_least(least: usize) -> Check<usize> {
    Check::new(format!("an integer of at least {least}"), move |value| *value >= least)
}

pub(super) fn positive_list() -> Check<Vec<usize>> {
    Check::new("a list of at least one integer, each at least 1", |values: &Vec<usize>| {
        !values.is_empty() && values.iter().all(|value| *value > 0)
    })
}

pub(super) fn fits_u32() -> Check<usize> {
    Check::new("an integer from 0 to 4294967295", |value| u32::try_from(*value).is_ok())
}

/// TOML's integers are signed: a larger seed could not be written to config.toml.
pub(super) fn fits_toml() -> Check<u64> {
    Check::new("an integer from 0 to 9223372036854775807", |value| i64::try_from(*value).is_ok())
}

pub(super) fn minus_one_or_positive() -> Check<i64> {
    Check::new("-1 or an integer of at least 1", |value| *value == -1 || *value >= 1)
}

pub(super) fn at_least_minus_one() -> Check<i64> {
    Check::new("-1 or an integer of at least 0", |value| *value >= -1)
}

pub(super) fn non_negative() -> Check<f64> {
    Check::new("a finite number of at least 0", |value: &f64| value.is_finite() && *value >= 0.0)
}

pub(super) fn above_zero() -> Check<f64> {
    Check::new("a finite number above 0", |value: &f64| value.is_finite() && *value > 0.0)
}

pub(super) fn share() -> Check<f64> {
    Check::new("a number from 0 to 1", |value| (0.0..=1.0).contains(value))
}

pub(super) fn below_one() -> Check<f64> {
    Check::new("a number from 0 to below 1", |value| (0.0..1.0).contains(value))
}

pub(super) fn held_out_share() -> Check<f64> {
    Check::new("a number from 0 to 0.9", |value| (0.0..=0.9).contains(value))
}

pub(super) fn not_empty() -> Check<String> {
    Check::new("a string that is not empty", |value: &String| !value.trim().is_empty())
}

/// A folder elsewhere could be that of several runs, each of which would take the other's files for its own.
pub(super) fn inside_dump_folder() -> Check<String> {
    let stays = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    Check::new(
        "the name of a folder inside the dump folder, not absolute and without ..",
        move |value: &String| !value.trim().is_empty() && Path::new(value).components().all(stays),
    )
}

pub(super) fn one_of(allowed: &'static [&'static str]) -> Check<String> {
    let words = format!("\"{}\" (what this version supports)", allowed.join("\" or \""));
    Check::new(words, |value: &String| allowed.contains(&value.as_str()))
}

pub(super) fn optional_passes() -> Check<Vec<String>> {
    let known = linc_driver::OPTIONAL_PASSES;
    Check {
        allowed: format!("names of passes that can be left out, which are {}", known.join(", ")),
        wrong: Box::new(move |names: &Vec<String>| {
            names.iter().find(|name| !known.contains(&name.as_str()))?.to_toml()
        }),
    }
}

pub(super) fn only_one_rank() -> Check<i64> {
    Check::new(
        "1 (or -1): linc trains on one device and does not split a model or batch over several",
        |value| matches!(value, 1 | -1),
    )
}

pub(super) fn selective_option() -> Check<String> {
    Check::new("\"op\" or an integer of at least 1 in quotes", |value: &String| {
        value.parse::<usize>().is_ok_and(|every| every > 0) || value == "op"
    })
}
