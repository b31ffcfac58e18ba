//! Limits of single settings. Each says what is allowed; the caller adds where the setting stands.

use std::path::{Component, Path};

use super::value::Setting;

type Check = Result<(), String>;

fn require(holds: bool, allowed: &str, found: &impl Setting) -> Check {
    if holds {
        return Ok(());
    }
    let found = found.to_toml().unwrap_or_default();
    Err(format!("expected {allowed}, found {found}"))
}

pub(super) fn positive(value: &usize) -> Check {
    at_least(value, 1)
}

pub(super) fn at_least(value: &usize, least: usize) -> Check {
    require(*value >= least, &format!("an integer of at least {least}"), value)
}

pub(super) fn positive_list(values: &Vec<usize>) -> Check {
    require(
        !values.is_empty() && values.iter().all(|value| *value > 0),
        "a list of at least one integer, each at least 1",
        values,
    )
}

pub(super) fn fits_u32(value: &usize) -> Check {
    require(u32::try_from(*value).is_ok(), "an integer of at most 4294967295", value)
}

/// TOML's integers are signed: a larger seed could not be written to config.toml.
pub(super) fn fits_toml(value: &u64) -> Check {
    require(i64::try_from(*value).is_ok(), "an integer of at most 9223372036854775807", value)
}

pub(super) fn minus_one_or_positive(value: &i64) -> Check {
    require(*value == -1 || *value >= 1, "-1 or an integer of at least 1", value)
}

pub(super) fn at_least_minus_one(value: &i64) -> Check {
    require(*value >= -1, "-1 or an integer of at least 0", value)
}

pub(super) fn non_negative(value: &f64) -> Check {
    require(value.is_finite() && *value >= 0.0, "a finite number of at least 0", value)
}

pub(super) fn above_zero(value: &f64) -> Check {
    require(value.is_finite() && *value > 0.0, "a finite number above 0", value)
}

pub(super) fn share(value: &f64) -> Check {
    require((0.0..=1.0).contains(value), "a number from 0 to 1", value)
}

pub(super) fn below_one(value: &f64) -> Check {
    require((0.0..1.0).contains(value), "a number from 0 to below 1", value)
}

pub(super) fn held_out_share(value: &f64) -> Check {
    require((0.0..=0.9).contains(value), "a number from 0 to 0.9", value)
}

pub(super) fn not_empty(value: &String) -> Check {
    require(!value.trim().is_empty(), "a string that is not empty", value)
}

/// A folder elsewhere could be that of several runs, each of which would take the other's files for its own.
pub(super) fn inside_dump_folder(value: &String) -> Check {
    let stays = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    let holds = !value.trim().is_empty() && Path::new(value).components().all(stays);
    require(holds, "the name of a folder inside the dump folder, not absolute and without ..", value)
}

pub(super) fn one_of(value: &String, allowed: &[&str]) -> Check {
    require(
        allowed.contains(&value.as_str()),
        &format!("\"{}\" (what this version supports)", allowed.join("\" or \"")),
        value,
    )
}

pub(super) fn optional_passes(names: &[String]) -> Check {
    let known = linc_driver::OPTIONAL_PASSES;
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => {
            Err(format!("no pass named \"{name}\" can be left out; those are {}", known.join(", ")))
        }
        None => Ok(()),
    }
}

pub(super) fn only_one_rank(value: &i64) -> Check {
    require(
        matches!(value, 1 | -1),
        "1 (or -1): linc trains on one device and does not split a model or batch over several",
        value,
    )
}

pub(super) fn selective_option(value: &String) -> Check {
    let every = value.parse::<usize>().is_ok_and(|every| every > 0);
    require(every || value == "op", "\"op\" or an integer of at least 1 in quotes", value)
}
