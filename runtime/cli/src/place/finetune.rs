//! Training the hybrid of `linc place` as `linc train` does. What is wrong with its config is said before the layers are weighed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use linc_config::{ModelFiles, Override};
use linc_device::Choice;
use linc_driver::{Placement, Ratio, layer_kinds};
use linc_study::place::Placed;
use linc_train::config::JobConfig;

use crate::args::{Format, PlaceArgs, TrainArgs};
use crate::log::{self, Log};
use crate::shipped::SHIPPED;
use crate::train;

/// The config that the hybrid is trained by, if it is to be, checked with all settings but the layers.
pub(super) fn config(args: &PlaceArgs, ratio: Ratio, folder: &Path) -> Result<Option<PathBuf>> {
    if args.finetune.is_none() {
        return Ok(None);
    }
    let config = named(args)?;
    let settings = settings(args, ratio, Placement::Uniform.to_string(), &folder.join("step-0"), folder);
    let loaded =
        JobConfig::load_file(&config, &Override::parse_all(&settings, &JobConfig::keys())?, &SHIPPED)?;
    ModelFiles::resolve(&loaded.config.model, &loaded.files, &SHIPPED)?;
    // A run that is there would go on, and with as many steps would be over at once.
    let dump = Path::new(&loaded.config.job.dump_folder);
    if dump.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        bail!(
            "{} has a run already, which --finetune would go on with in place of the hybrid\n  help: choose another --out, or another folder for the run (-- --job.dump_folder DIR)",
            dump.display()
        );
    }
    Ok(Some(config))
}

fn named(args: &PlaceArgs) -> Result<PathBuf> {
    if let Some(config) = &args.config {
        return Ok(config.clone());
    }
    // A run has its config in its folder, beside that of its checkpoints.
    let path = args.checkpoint.canonicalize().unwrap_or_else(|_| args.checkpoint.clone());
    let is_checkpoint = path.join("state.json").is_file();
    let run = if is_checkpoint { path.ancestors().nth(2) } else { Some(&*path) };
    let found = run.map(|run| run.join("config.toml")).filter(|config| config.is_file());
    match found {
        Some(config) => Ok(config),
        None => bail!(
            "--finetune needs a config, and there is none of the run that {} is of\n  help: name one with --config",
            args.checkpoint.display()
        ),
    }
}

/// Settings of the run: what the placement asks for, where nothing else is said.
fn settings(args: &PlaceArgs, ratio: Ratio, placement: String, hybrid: &Path, folder: &Path) -> Vec<String> {
    let steps = args.finetune.unwrap_or_default().to_string();
    let mut settings = vec![
        ("model.linear_attn_ratio", ratio.to_string()),
        ("model.linear_attn_placement", placement),
        ("checkpoint.initial_load_path", hybrid.display().to_string()),
        ("checkpoint.initial_load_model_only", "true".into()),
        ("training.steps", steps),
        ("job.dump_folder", folder.join("finetuned").display().to_string()),
    ];
    // What was not said is the config's to say.
    if args.device != Choice::Auto {
        settings.push(("training.device", args.device.to_string()));
    }
    if args.threads > 0 {
        settings.push(("training.threads", args.threads.to_string()));
    }
    settings.extend(args.seed.map(|seed| ("training.seed", seed.to_string())));
    let given = |key: &str| {
        let of = |given: &String| given.strip_prefix("--").map(|given| given.split('=').next() == Some(key));
        args.overrides.iter().any(|given| of(given) == Some(true))
    };
    let settings = settings.into_iter().filter(|(key, _)| !given(key));
    let settings = settings.flat_map(|(key, value)| [format!("--{key}"), value]);
    settings.chain(args.overrides.iter().cloned()).collect()
}

/// Trains the hybrid.
pub(super) fn run(
    args: &PlaceArgs,
    placed: &Placed,
    config: &Path,
    hybrid: &Path,
    folder: &Path,
) -> Result<ExitCode> {
    let placement = Placement::Layers(placed.linear.clone());
    let kinds = layer_kinds(placed.layers, None, &placement)?;
    let overrides = settings(args, Ratio::of(&kinds), placement.to_string(), hybrid, folder);
    log::say(format_args!("\nTraining the hybrid by {}", config.display()));
    let mut log = Log::of_process();
    // What the run says stands behind the placement.
    if args.format == Format::Json {
        log.format = Format::Json;
    }
    let config = Some(config.to_path_buf());
    train::run(&TrainArgs { config, profile: false, list_settings: false, overrides }, log)
}
