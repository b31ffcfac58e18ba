//! `linc train`: runs a job and shows how it goes.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use linc_config::{ConfigError, ModelFiles, Override, nearest};
use linc_device::comm::{Place, connect};
use linc_device::signals;
use linc_device::words::{bytes, thousands};
use linc_eval::InTraining;
use linc_exec::{ExecError, Profile, ProfileRow};
use linc_train::TrainError;
use linc_train::config::{Comm, JobConfig, LoadedConfig};
use linc_train::team::{Team, Timeouts};
use linc_train::trainer::{Folder, Machine, Observer, Questions, Summary, Trainer};

use serde_json::{Value, json};

use crate::args::TrainArgs;
use crate::console::Console;
use crate::log::{self, Log, object};
use crate::out;
use crate::ranks::{label, say};
use crate::shipped::SHIPPED;
use crate::table::table;
use crate::wrap::indented;

/// What requests to end are answered with.
const NOTICES: signals::Notices = signals::Notices {
    first: "\nInterrupted: ending in order (press Ctrl-C again to quit at once)\n",
    second: "\nEnded at once: steps since the last checkpoint are not saved\n",
};

/// Of ranks other than the first, which says it for all.
const NO_NOTICES: signals::Notices = signals::Notices { first: "", second: "" };

pub(crate) fn run(args: &TrainArgs, log: Log) -> Result<ExitCode> {
    // Switches after the config file arrive among the overrides.
    let (switches, settings): (Vec<String>, Vec<String>) =
        args.overrides.iter().cloned().partition(|a| ["--profile", "--list-settings"].contains(&a.as_str()));
    let has = |switch: &str| switches.iter().any(|s| s == switch);
    if args.list_settings || has("--list-settings") {
        return list_settings();
    }
    let asked = load(args, &settings, args.profile || has("--profile"));
    let place = Place::of_process()?;
    if place.world == 1 {
        return train(asked?, log, &Team::alone());
    }
    over_ranks(&place, asked, log)
}

/// What a run is told.
struct Asked {
    loaded: LoadedConfig,
    files: ModelFiles,
    questions: Option<Box<dyn Questions>>,
}

fn load(args: &TrainArgs, settings: &[String], profile: bool) -> Result<Asked> {
    let Some(path) = &args.config else { bail!("name a config, such as configs/quickstart.toml") };
    check_first("train", &["--profile", "--list-settings"], path, &args.overrides)?;
    let mut loaded =
        JobConfig::load_file(path, &Override::parse_all(settings, &JobConfig::keys())?, &SHIPPED)?;
    loaded.config.profiling.enable_profiling |= profile;
    let files = ModelFiles::resolve(&loaded.config.model, &loaded.files, &SHIPPED)?;
    let questions = InTraining::of(&loaded.config)?;
    Ok(Asked { loaded, files, questions })
}

/// This process as one of several. What all find wrong the first says; what only one meets, that one says, and ends all.
fn over_ranks(place: &Place, asked: Result<Asked>, log: Log) -> Result<ExitCode> {
    label(place);
    let comm = asked.as_ref().map_or_else(|_| Comm::default(), |asked| asked.loaded.config.comm.clone());
    let seconds = |seconds: usize| Duration::from_secs(seconds as u64);
    let (init, train_time) = (seconds(comm.init_timeout_seconds), seconds(comm.train_timeout_seconds));
    let team = Team::new(connect(place, init, say)?, Timeouts { init, train: train_time });
    let asked = asked.map_err(|error| match error.downcast::<ConfigError>() {
        Ok(error) => TrainError::Config(error),
        Err(error) => TrainError::Start(error.to_string()),
    });
    let log = Log { quiet: log.quiet || !team.is_first(), ..log };
    let result = team
        .settle("reading the config", asked)
        .map_err(anyhow::Error::from)
        .and_then(|asked| train(asked, log, &team));
    let error = match result {
        Ok(code) => {
            team.finish()?;
            return Ok(code);
        }
        Err(error) => error,
    };
    // The run has ended in order, but nobody reads what the first rank says.
    if error.is::<io::Error>() {
        team.finish()?;
        return Err(error);
    }
    if !error.downcast_ref::<TrainError>().is_some_and(|error| team.share(error)) {
        // Where ranks are processes, this ends all of them.
        team.abort(2, &error.to_string());
        return Err(error);
    }
    let is_first = team.is_first();
    team.finish()?;
    if is_first { Err(error) } else { Ok(ExitCode::from(2)) }
}

fn train(asked: Asked, log: Log, team: &Team) -> Result<ExitCode> {
    let Asked { loaded, files, questions } = asked;
    let folder = if loaded.folder_is_named { Folder::Named } else { Folder::OfConfig };
    let config = loaded.config;
    let stop = log::catch(if team.is_first() { NOTICES } else { NO_NOTICES });
    let color = !config.metrics.disable_color_printing;
    let mut console = Console::new(config.training.steps, color, log, stop);
    for warning in loaded.warnings.iter().filter(|_| team.is_first()) {
        console.warn(warning);
    }
    let threads = team.threads(config.training.threads)?;
    let opened = match team.is_alone() {
        true => config.training.device.open(threads),
        false => config.training.device.open_of_rank(team.place_by_gpus()?, threads),
    };
    let opened = opened.map_err(ExecError::from).map_err(TrainError::from);
    let opened = team.settle("opening the device", opened)?;
    if let Some(warning) = opened.warning {
        console.warn(&warning);
    }
    if let Some(note) = opened.note {
        console.message(&note);
    }
    let mut device = opened.device;
    let mut kernels = console.progress().of_kernels();
    device.watch(Box::new(move |done, total| kernels(done, total) && !stop.load(Ordering::Relaxed)));
    let machine = Machine { device, team: team.clone() };
    let result = Trainer::new(config, &files, folder, questions, machine, stop, &mut console)
        .and_then(|mut trainer| trainer.run(stop, &mut console));
    let stopped = match &result {
        Ok(summary) => summary.interrupted,
        Err(error) => error.is_interrupt() && team.share(error),
    };
    // Before anything that only one rank may fail in.
    let stopped = if stopped { Some(ExitCode::from(team.exit_code(signals::exit_code())?)) } else { None };
    let shown = console.finish();
    let summary = match (result, stopped) {
        // A run that nobody can see any more was stopped for that reason.
        (result, Some(code)) => {
            shown?;
            if let (Err(error), true) = (result, team.is_first()) {
                log::ended(error);
            }
            return Ok(code);
        }
        (result, None) => result?,
    };
    shown?;
    match log.is_json() {
        _ if !team.is_first() => {}
        true => out::line_whole(object("info", json!({ "summary": summary_json(&summary) })))?,
        false => out::line(summary_text(&summary, console.width()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses a setting or a switch where the config stands, for a command with these switches.
pub(crate) fn check_first(command: &str, switches: &[&str], config: &Path, rest: &[String]) -> Result<()> {
    let Some(first) = config.to_str().filter(|first| first.starts_with('-')) else { return Ok(()) };
    if !first.contains('.') {
        let near = nearest(first, switches.iter().copied().chain(log::OPTIONS).chain(["--help"]));
        let near = near.map_or_else(
            || format!("linc {command} --help lists them"),
            |near| format!("did you mean {near}?"),
        );
        bail!("{first} is no option of linc {command}\n  help: {near}");
    }
    // The config may stand behind its settings.
    let named = rest.iter().position(|arg| !arg.starts_with('-') && arg.ends_with(".toml"));
    let config = named.map_or("configs/quickstart.toml", |at| &rest[at]);
    let others = rest.iter().enumerate().filter(|(at, _)| Some(*at) != named).map(|(_, arg)| arg.as_str());
    let settings: Vec<&str> = std::iter::once(first).chain(others).collect();
    bail!(
        "{first} changes a setting of a config, but no config is named before it\n  help: linc {command} {config} {}",
        settings.join(" ")
    )
}

fn list_settings() -> Result<ExitCode> {
    let mut section = String::new();
    for key in JobConfig::listing() {
        if key.section() != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            section = key.section().to_owned();
            out::prose(format_args!("{gap}[{section}] {}", key.about))?;
        }
        let default = key.default.as_deref().unwrap_or("unset");
        out::prose(format_args!(
            "  --{} ({}; default {default})\n      {}",
            key.name, key.expected, key.help
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn summary_json(summary: &Summary) -> Value {
    json!({
        "step": summary.step,
        "loss": summary.loss,
        "validation": summary.validation,
        "tps": summary.tps,
        "arena_bytes": summary.arena,
        "process_peak_bytes": summary.process_peak,
        "checkpoint": summary.checkpoint,
        "sample": summary.sample,
    })
}

fn summary_text(summary: &Summary, width: Option<usize>) -> String {
    let mut rows = vec![("steps", thousands(summary.step as u64))];
    rows.extend(summary.loss.map(|loss| ("training loss", format!("{loss:.4}"))));
    if let Some(record) = &summary.validation {
        rows.extend(record.validation_loss.map(|loss| ("validation loss", format!("{loss:.4}"))));
        rows.extend(record.validation_bits_per_byte.map(|bits| ("bits per byte", format!("{bits:.4}"))));
        let accuracy = record.validation_accuracy;
        rows.extend(accuracy.map(|share| ("recall accuracy", format!("{:.2}%", 100.0 * share))));
    }
    rows.extend(summary.tps.map(|tps| ("tokens/s", thousands(tps.round() as u64))));
    rows.push(("arena memory", bytes(summary.arena)));
    rows.push(("process peak", bytes(summary.process_peak)));
    rows.extend(summary.checkpoint.as_ref().map(|path| ("checkpoint", path.display().to_string())));
    let mut text = String::from("Training completed");
    for (name, value) in rows {
        text.push_str(&format!("\n  {name:16} {value}"));
    }
    if let Some(sample) = &summary.sample {
        text.push_str(&format!("\n  sample\n{}", indented(sample, width)));
    }
    if let Some(profile) = &summary.profile {
        let kind =
            |layer: usize| summary.layers.get(layer).map_or_else(String::new, |kind| (*kind).to_owned());
        let parts = profile_table(profile, "part", &profile.parts(kind));
        text.push_str(&format!("\n\n{parts}\n\n{}", profile_table(profile, "kernel", &profile.rows())));
    }
    text
}

fn profile_table(profile: &Profile, what: &str, rows: &[ProfileRow]) -> String {
    let total = profile.total().as_secs_f64().max(1e-12);
    let runs = profile.runs.max(1) as f64;
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let seconds = row.time.as_secs_f64();
            vec![
                row.name.clone(),
                format!("{:.1}", row.calls as f64 / runs),
                format!("{:.3}", 1e3 * seconds / runs),
                format!("{:.1}%", 100.0 * seconds / total),
                format!("{:.1}", row.gflops()),
                format!("{:.1}", row.gbytes()),
            ]
        })
        .collect();
    table(&[what, "calls/step", "ms/step", "share", "GFLOP/s", "GB/s"], &rows)
}
