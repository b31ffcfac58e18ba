//! `linc sweep`: runs that differ in a few settings, and a table of what they came to.

use std::env;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use linc_config::{Override, nearest};
use linc_device::signals;
use linc_device::words::{bytes, count, thousands};
use linc_study::results::{self, Point, RunRecords};
use linc_study::sweep::{self, Outcome, Run, Status, Sweep, Watcher};
use linc_train::config::JobConfig;
use linc_train::trainer::planned_memory;

use crate::args::SweepArgs;
use crate::log;
use crate::out;
use crate::progress::Progress;
use crate::shipped::SHIPPED;
use crate::table::table;

/// What requests to end are answered with.
const NOTICES: signals::Notices = signals::Notices {
    first: "\nInterrupted: the runs save what was trained (press Ctrl-C again to leave them to it)\n",
    second: "\nEnded at once: runs that were going on end by themselves\n",
};

pub(crate) fn run(args: &SweepArgs) -> Result<ExitCode> {
    if let Some(first) = args.sweep.to_str().filter(|first| first.starts_with('-')) {
        bail!("{first} stands before the sweep\n  help: linc sweep configs/sweep_ratio.toml {first}");
    }
    // Switches after the file arrive among the overrides.
    let (mut dry_run, mut retry) = (args.dry_run, args.retry_failed);
    let mut settings = vec![];
    for arg in &args.overrides {
        match arg.as_str() {
            "--dry-run" => dry_run = true,
            "--retry-failed" => retry = true,
            other if other.starts_with("--") && !other.contains('.') => {
                let near =
                    nearest(other, ["--dry-run", "--retry-failed", "--help"].into_iter().chain(log::OPTIONS));
                let near = near.map_or_else(
                    || "linc sweep --help lists them".to_owned(),
                    |near| format!("did you mean {near}?"),
                );
                bail!("{other} is no option of linc sweep\n  help: {near}");
            }
            _ => settings.push(arg.clone()),
        }
    }
    let keys = [JobConfig::keys(), sweep::keys()].concat();
    let sweep = Sweep::load(&args.sweep, &Override::parse_all(&settings, &keys)?, &SHIPPED)?;
    for warning in &sweep.warnings {
        log::warn(warning);
    }
    if dry_run {
        return list(&sweep);
    }
    let stop = log::catch(NOTICES);
    let program = env::current_exe().context("the program does not know where it is")?;
    let folder = sweep.folder.display();
    log::say(format_args!("{}, in {folder}", count(sweep.runs.len(), "run")));
    let mut shown = Shown { sweep: &sweep, progress: Progress::new() };
    let summary = sweep::carry_out(&sweep, &program, retry, stop, &mut shown)?;
    shown.progress.clear();
    let points = results::points(sweep.settings.metric, &results::of_sweep(&sweep)?);
    let path = results::write_csv(&sweep, &points)?;
    out::line(format_args!("\n{}\n", points_table(&sweep, &points)))?;
    out::line(format_args!("Wrote {}", path.display()))?;
    if summary.interrupted {
        log::ended("Interrupted; the same command goes on");
        return Ok(ExitCode::from(signals::exit_code().unwrap_or(130)));
    }
    if summary.failed > 0 {
        bail!(
            "{} of {} failed; their logs are in {folder}/logs\n  help: the same command with --retry-failed does them again",
            summary.failed,
            count(sweep.runs.len(), "run")
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// What a person sees of a sweep that goes on.
struct Shown<'a> {
    sweep: &'a Sweep,
    progress: Progress,
}

impl Watcher for Shown<'_> {
    fn message(&mut self, text: &str) {
        self.progress.suspend(|| log::say(text));
    }

    fn progress(&mut self, done: u64, total: u64, going: usize) {
        let words =
            format!("{}/{} steps, {} going on", thousands(done), thousands(total), count(going, "run"));
        self.progress.show("steps", &words, done, total);
    }

    fn ended(&mut self, outcome: &Outcome, done: usize, total: usize) {
        let how = match outcome.status {
            Status::Finished => {
                let records = RunRecords::read(&self.sweep.folder.join("runs").join(&outcome.run));
                let metric = self.sweep.settings.metric;
                let value = records.ok().and_then(|records| records.value(metric));
                value.map_or("finished".to_owned(), |value| format!("{} {value:.4}", metric.word()))
            }
            Status::Failed => {
                let message = outcome.message.as_deref().unwrap_or_default();
                format!("failed: {}", message.lines().next().unwrap_or_default())
            }
        };
        let seconds = outcome.seconds;
        self.progress.suspend(|| {
            let line = format!("[{done}/{total}] {}  {how}  ({seconds:.1} s)", outcome.run);
            match outcome.status {
                Status::Finished => log::say(line),
                Status::Failed => log::ended(line),
            }
        });
    }
}

/// The runs of a sweep, and what their plans ask for.
fn list(sweep: &Sweep) -> Result<ExitCode> {
    let device = match sweep.runs.first() {
        Some(run) => run.config.training.device.open(None)?.device,
        None => return Ok(ExitCode::SUCCESS),
    };
    let row = |run: &Run| -> Result<Vec<String>> {
        let tokens = run.config.training.steps as u64
            * (run.config.training.batch_size * run.config.accumulation_steps() * run.config.training.seq_len)
                as u64;
        let memory = planned_memory(&run.config, &run.files, &*device)?;
        Ok(vec![
            run.name.clone(),
            thousands(run.config.training.steps as u64),
            thousands(tokens),
            bytes(memory),
        ])
    };
    let rows: Vec<Vec<String>> = sweep.runs.iter().map(row).collect::<Result<_>>()?;
    out::line(table(&["run", "steps", "tokens", "memory"], &rows))?;
    out::line(format_args!("\n{}, in {}", count(sweep.runs.len(), "run"), sweep.folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// A row for each point; the interval is that of the difference, over the seeds that it has in common with the first point.
fn points_table(sweep: &Sweep, points: &[Point]) -> String {
    let names = results::settings(points);
    let last = |name: &&str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let mut header: Vec<String> = names.iter().map(last).collect();
    header.extend(
        [sweep.settings.metric.word(), "to first", "± 95 %", "runs", "tokens/s", "memory"].map(str::to_owned),
    );
    let rows: Vec<Vec<String>> = points
        .iter()
        .map(|point| {
            let value = |name: &&str| {
                let value = point.values.iter().find(|(known, _)| known == name);
                value.map_or("-".to_owned(), |(_, value)| value.clone())
            };
            let dash = || "-".to_owned();
            let mut runs = point.finished.to_string();
            for (count, how) in [(point.failed, "failed"), (point.early, "ended early")] {
                if count > 0 {
                    runs.push_str(&format!(" ({count} {how})"));
                }
            }
            let numbers = [
                point.value.map_or_else(dash, |mean| format!("{:.4}", mean.mean)),
                point.difference.map_or_else(dash, |mean| format!("{:+.4}", mean.mean)),
                point
                    .difference
                    .and_then(|mean| mean.half_width)
                    .map_or_else(dash, |half| format!("{half:.4}")),
                runs,
                point.speed.map_or_else(dash, |speed| thousands(speed.round() as u64)),
                point.memory.map_or_else(dash, bytes),
            ];
            names.iter().map(value).chain(numbers).collect()
        })
        .collect();
    table(&header.iter().map(String::as_str).collect::<Vec<_>>(), &rows)
}
