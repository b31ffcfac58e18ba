//! `linc config`: a config with all of its settings, and the schema of configs.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::ValueEnum as _;
use linc_config::schema::{Json, json_of};
use linc_config::{Override, Place};
use linc_train::config::{JobConfig, LoadedConfig, Resolved};
use serde_json::json;

use crate::args::{ConfigArgs, Format};
use crate::log;
use crate::out;
use crate::shipped::SHIPPED;
use crate::train::check_first;

pub(crate) fn run(args: &ConfigArgs) -> Result<ExitCode> {
    if args.schema || args.overrides.iter().any(|arg| arg == "--schema") {
        out::line(schema().trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(path) = &args.config else { bail!("name a config, such as configs/quickstart.toml") };
    check_first("config", &["--schema", "--format"], path, &args.overrides)?;
    let (format, settings) = take_format("--format", args.format, &args.overrides)?;
    let overrides = Override::parse_all(&settings, &JobConfig::keys())?;
    let loaded = JobConfig::load_file(path, &overrides, &SHIPPED)?;
    for warning in &loaded.warnings {
        log::warn(warning);
    }
    match format {
        Format::Text => out::line(loaded.config.to_toml_with_origins().trim_end())?,
        Format::Json => out::line(serde_json::to_string_pretty(&report(&loaded))?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The schema of configs, as text.
pub(crate) fn schema() -> String {
    format!("{:#}\n", linc_study::sweep::schema())
}

/// The format, which behind the config arrives among the settings, and the settings.
pub(crate) fn take_format(
    option: &str,
    mut format: Format,
    overrides: &[String],
) -> Result<(Format, Vec<String>)> {
    let mut settings = Vec::new();
    let mut rest = overrides.iter();
    while let Some(arg) = rest.next() {
        let word = match arg.strip_prefix(option) {
            Some("") => rest.next().map(String::as_str),
            Some(value) if value.starts_with('=') => Some(&value[1..]),
            Some(_) | None => {
                settings.push(arg.clone());
                continue;
            }
        };
        format = match word.map(|word| Format::from_str(word, false)) {
            Some(Ok(format)) => format,
            Some(Err(_)) | None => {
                bail!("{option} takes text or json\n  help: {option} json")
            }
        };
    }
    Ok((format, settings))
}

fn report(loaded: &LoadedConfig) -> Json {
    let setting = |Resolved { section, key, value, place }: Resolved| {
        let value = value.as_deref().map_or(Json::Null, json_of);
        let (from, file, line) = match place {
            None => ("default", None, None),
            Some(Place::CommandLine(_)) => ("command line", None, None),
            Some(Place::File(place)) => ("file", Some(place.file), Some(place.line)),
        };
        let mut setting = json!({ "name": format!("{section}.{key}"), "value": value, "from": from });
        if let (Some(file), Some(line)) = (file, line) {
            setting["file"] = json!(file);
            setting["line"] = json!(line);
        }
        setting
    };
    let settings: Vec<Json> = loaded.config.resolved().into_iter().map(setting).collect();
    json!({ "settings": settings, "warnings": loaded.warnings })
}
