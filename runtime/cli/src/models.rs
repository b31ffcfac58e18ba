//! `linc models` and `linc init`: the models and configs that are part of the program.

use std::process::ExitCode;

use anyhow::Result;
use linc_config::shipped::{self, ShippedFile};

use crate::args::InitArgs;
use crate::config;
use crate::out;
use crate::shipped::SHIPPED;

/// Lists what is built in.
pub(crate) fn list() -> Result<ExitCode> {
    let width = SHIPPED.models.iter().chain(SHIPPED.configs).map(|file| file.name().len()).max().unwrap_or(0);
    let lines = |files: &[ShippedFile]| -> String {
        files.iter().map(|file| format!("  {:width$}  {}\n", file.name(), file.title())).collect()
    };
    out::prose(format_args!("Models, for linc compile:\n{}", lines(SHIPPED.models)))?;
    let (sweeps, runs): (Vec<ShippedFile>, Vec<ShippedFile>) =
        SHIPPED.configs.iter().partition(|file| file.is_sweep());
    out::prose(format_args!("Configs, for linc train:\n{}", lines(&runs)))?;
    out::prose(format_args!("Sweeps, for linc sweep:\n{}", lines(&sweeps)))?;
    out::prose("linc init NAME writes a config and its model into this folder, to be edited.")?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the files of a config or model.
pub(crate) fn init(args: &InitArgs) -> Result<ExitCode> {
    let written = shipped::init(&SHIPPED, &args.name, &args.folder, &config::schema())?;
    for file in &written.files {
        out::line(format_args!("Wrote {}", file.display()))?;
    }
    let is_sweep = SHIPPED.configs.iter().any(|file| file.is_sweep() && written.config.ends_with(file.path));
    let command = if is_sweep { "sweep" } else { "train" };
    out::line(format_args!("\nNow edit them, and: linc {command} {}", written.config.display()))?;
    Ok(ExitCode::SUCCESS)
}
