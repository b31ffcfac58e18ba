//! `linc profile`: a few steps of a config beside the limits of its machine.

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use linc_config::{ModelFiles, Override};
use linc_device::signals;
use linc_device::words::{bytes, count, thousands};
use linc_study::profile::{ProfileError, ProfileReport, ProfiledSteps, profile};
use linc_train::config::JobConfig;
use linc_train::metrics::{Memory, Record};
use linc_train::trainer::Observer;
use serde_json::json;

use crate::args::{Format, ProfileArgs};
use crate::config::take_format;
use crate::device::opener;
use crate::log;
use crate::out;
use crate::progress::Progress;
use crate::roofline;
use crate::shipped::SHIPPED;
use crate::train::check_first;

const NOTICES: signals::Notices = signals::Notices {
    first: "\nInterrupted: ending in order (press Ctrl-C again to quit at once)\n",
    second: "\nEnded at once\n",
};

/// More steps tell nothing more.
const MOST_STEPS: usize = 1_000_000;

pub(crate) fn run(args: &ProfileArgs) -> Result<ExitCode> {
    check_first("profile", &["--steps", "--warmup", "--format"], &args.config, &args.overrides)?;
    // What stands behind the config arrives among the settings.
    let (format, settings) = take_format("--format", args.format, &args.overrides)?;
    let (steps, settings) = take_count("--steps", args.steps, settings)?;
    let (warmup, settings) = take_count("--warmup", args.warmup, settings)?;
    if steps == 0 {
        bail!("--steps is 0; expected at least 1")
    }
    let loaded =
        JobConfig::load_file(&args.config, &Override::parse_all(&settings, &JobConfig::keys())?, &SHIPPED)?;
    let config = loaded.config;
    let stop = log::catch(NOTICES);
    for warning in &loaded.warnings {
        log::warn(warning);
    }
    let mut shown = Shown { bar: Progress::new(), steps: warmup + steps };
    let files = ModelFiles::resolve(&config.model, &loaded.files, &SHIPPED)?;
    let (choice, threads) = (config.training.device, config.training.threads);
    let mut open = opener(choice, threads, shown.bar.clone(), || !stop.load(Ordering::Relaxed));
    let title = args.config.display().to_string();
    log::say(format_args!("Profiling {} of {title}, after {warmup} to warm up", count(steps, "step")));
    let wanted = ProfiledSteps { warmup, steps };
    let report = profile(config, &files, wanted, &mut *open, stop, &mut shown);
    shown.bar.clear();
    let report = match report {
        Err(ProfileError::Train(error)) => return Err(error.into()),
        other => other?,
    };
    let Some(report) = report else {
        return Ok(ExitCode::from(signals::exit_code().unwrap_or(130)));
    };
    roofline::warn_of_others(report.others);
    match format {
        Format::Text => show(&report)?,
        Format::Json => {
            let mut object = serde_json::to_value(&report)?;
            object["tool"] = json!("linc");
            object["config"] = json!(title);
            out::line(serde_json::to_string_pretty(&object)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A bar for what takes long; what a run says besides belongs to runs.
struct Shown {
    bar: Progress,
    steps: usize,
}

impl Observer for Shown {
    fn message(&mut self, _: &str) {}

    fn warning(&mut self, text: &str) {
        self.bar.suspend(|| log::warn(text));
    }

    fn progress(&mut self, what: &str, done: u64, total: u64) {
        self.bar.show(what, &format!("{what} {} of {}", bytes(done), bytes(total)), done, total);
    }

    fn tuning(&mut self, done: usize, runs: usize) {
        self.bar.show("tile sizes", "measuring tile sizes", done as u64, runs as u64);
    }

    fn step(&mut self, step: usize, _: f32) {
        self.bar.count("steps", step, self.steps);
    }

    fn validating(&mut self, _: usize, _: usize) {}

    fn asking(&mut self, _: &str, _: usize, _: usize) {}

    fn record(&mut self, _: &Record, _: Memory) {}

    fn validation(&mut self, _: &Record, _: Memory) {}

    fn evaluation(&mut self, _: &Record) {}
}

/// A number behind an option, which behind the config arrives among the settings, and the settings without it.
fn take_count(option: &str, given: usize, settings: Vec<String>) -> Result<(usize, Vec<String>)> {
    let (mut found, mut left) = (given, vec![]);
    let mut rest = settings.into_iter();
    while let Some(arg) = rest.next() {
        let word = match arg.strip_prefix(option) {
            Some("") => rest.next().unwrap_or_default(),
            Some(value) if value.starts_with('=') => value[1..].to_owned(),
            Some(_) | None => {
                left.push(arg);
                continue;
            }
        };
        found = match word.parse() {
            Ok(number) => number,
            Err(_) => bail!("{option} is \"{word}\"; expected an integer\n  help: {option} 5"),
        };
    }
    if found > MOST_STEPS {
        bail!("{option} is {found}; expected at most {MOST_STEPS}\n  help: 5 say enough")
    }
    Ok((found, left))
}

fn show(report: &ProfileReport) -> Result<()> {
    out::line(format_args!("{}\n\n{}", report.machine.device, roofline::limits(&report.machine)))?;
    let (steps, tokens) = (count(report.steps, "step"), thousands(report.tokens as u64));
    out::prose(format_args!(
        "\nThe mean of {steps} of {tokens} tokens each: kernels take {} ms.",
        crate::bench::ms(report.roofline.ms)
    ))?;
    roofline::show(&report.roofline)?;
    Ok(out::prose(format_args!(
        "\nMemory of a step: {}",
        roofline::beside_floor(report.bytes, report.floor_bytes)
    ))?)
}
