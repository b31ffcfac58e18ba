//! `linc launch` and `linc bench exchange`, and what commands do that are started as several ranks.

use std::env;
use std::ffi::OsString;
use std::process::{self, ExitCode};
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use clap::Parser;
use linc_bench::{BenchError, ExchangeBench, ExchangeReport, Pattern, exchange as measure};
use linc_device::comm::{LAUNCHER_VARIABLE, Place, Ranks, Starter, become_command, connect, of_processes};
use linc_device::process::machine;
use linc_device::words::{bytes, count};
use serde_json::{Value, json};

use crate::args::{BenchCommand, BenchExchangeArgs, Cli, Command, Format, LaunchArgs};
use crate::bench::{distinct, teller, times, timing};
use crate::log::{self, Log};
use crate::out;
use crate::progress::Progress;
use crate::table::table;

/// Becomes the program that starts ranks.
pub(crate) fn launch(args: &LaunchArgs) -> Result<ExitCode> {
    // What the command line has wrong is said once, not by each rank.
    let words = std::iter::once("linc".into()).chain(args.command.iter().cloned());
    let command = Cli::try_parse_from(words).unwrap_or_else(|error| error.exit()).command;
    match nature(&command) {
        (_, Nature::Shares) => {}
        (_, Nature::Starts) => bail!("linc launch starts another command, not itself"),
        (name, Nature::Works | Nature::Prints) if args.ranks > 1 => bail!(
            "{}\n  help: start it once: linc {name} .., without launch -n {}",
            not_shared(name, args.ranks),
            args.ranks
        ),
        (_, Nature::Works | Nature::Prints) => {}
    }
    let starter = Starter::find()?;
    if let Some(warning) = Starter::warning(args.ranks) {
        log::warn(warning);
    }
    let program = env::current_exe().context("the program does not know where it is")?;
    // Each rank says what this one was asked to say.
    let mut words: Vec<OsString> = Log::of_process().arguments().into_iter().map(OsString::from).collect();
    words.extend(args.command.iter().cloned());
    Ok(ExitCode::from(become_command(starter.command(args.ranks, &program, &words))?))
}

/// Refuses commands that would do the same work once a rank, and write to the same folders.
pub(crate) fn check(command: &Command) -> Result<()> {
    let (name, nature) = nature(command);
    match nature {
        Nature::Works | Nature::Starts => {}
        Nature::Shares | Nature::Prints => return Ok(()),
    }
    let place = Place::of_process()?;
    if place.world == 1 {
        return Ok(());
    }
    label(&place);
    bail!(
        "this is {place}: {}\n  help: start it once, without the launcher; or with {LAUNCHER_VARIABLE}=none if each is a run of its own, in its own folder",
        not_shared(name, place.world)
    )
}

fn not_shared(command: &str, ranks: usize) -> String {
    format!(
        "linc {command} does not share its work among ranks yet, and {} would do the same work",
        count(ranks, "rank")
    )
}

/// What comes of a command that several ranks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    /// Each does its part.
    Shares,
    /// Each would do all of it, and write where the others write.
    Works,
    /// Each would say the same: no harm, and no use.
    Prints,
    /// Each would start ranks.
    Starts,
}

/// The words of a command, and its nature.
fn nature(command: &Command) -> (&'static str, Nature) {
    use Nature::{Prints, Shares, Starts, Works};
    match command {
        Command::Train(_) => ("train", Shares),
        Command::Sweep(_) => ("sweep", Works),
        Command::Place(_) => ("place", Works),
        Command::Report(_) => ("report", Works),
        Command::Config(_) => ("config", Prints),
        Command::Profile(_) => ("profile", Works),
        Command::Compile(_) => ("compile", Works),
        Command::Inspect(_) => ("inspect", Prints),
        Command::Generate(_) => ("generate", Works),
        Command::Serve(_) => ("serve", Works),
        Command::Eval(_) => ("eval", Works),
        Command::Look(_) => ("look", Works),
        Command::Compare(_) => ("compare", Works),
        Command::Import(_) => ("import", Works),
        Command::Export(_) => ("export", Works),
        Command::Tokenize(_) => ("tokenize", Works),
        Command::Launch(_) => ("launch", Starts),
        Command::Bench(BenchCommand::Exchange(_)) => ("bench exchange", Shares),
        Command::Bench(BenchCommand::Attention(_)) => ("bench attention", Works),
        Command::Bench(BenchCommand::Train(_)) => ("bench train", Works),
        Command::Bench(BenchCommand::Inference(_)) => ("bench inference", Works),
        Command::Bench(BenchCommand::Cost(_)) => ("bench cost", Works),
        Command::Bench(BenchCommand::Memory(_)) => ("bench memory", Works),
        Command::Bench(BenchCommand::Cpu(_)) => ("bench cpu", Works),
        #[cfg(feature = "watch")]
        Command::Watch(_) => ("watch", Prints),
        Command::Completions(_) => ("completions", Prints),
        Command::Models => ("models", Prints),
        Command::Init(_) => ("init", Works),
    }
}

/// Lines of other ranks than the first say whose they are.
pub(crate) fn label(place: &Place) {
    if place.rank > 0 {
        out::label(place.rank);
    }
}

pub(crate) fn say(message: &str) {
    log::error(message);
}

pub(crate) fn exchange(args: &BenchExchangeArgs) -> Result<ExitCode> {
    let place = Place::of_process()?;
    label(&place);
    let patterns = distinct(args.exchange.iter().copied());
    let patterns = if patterns.is_empty() { Pattern::ALL.to_vec() } else { patterns };
    let (sizes, over) = (distinct(args.size.iter().map(|size| size.0)), distinct(args.ranks.iter().copied()));
    let timeout = Duration::from_secs(args.timeout);
    let mut ranks = connect(&place, timeout, say)?;
    ranks.set_timeout(timeout, "--timeout");
    let is_first = ranks.rank() == 0;
    let result = agree(&mut ranks, args).and_then(|()| {
        let timing =
            timing(args.rounds, args.warmup).map_err(|error| BenchError::Request(error.to_string()))?;
        let bench = ExchangeBench { patterns, sizes, ranks: over, timing };
        let bar = if is_first { Progress::new() } else { Progress::hidden() };
        let mut tell = teller(bar);
        measure(&bench, &mut ranks, &mut |told| {
            if is_first {
                tell(told);
            }
        })
    });
    // What is returned here all ranks have found alike: one says it.
    let printed = match &result {
        Ok(report) if is_first => print(report, args),
        Err(error) if is_first => {
            say(&error.to_string());
            Ok(())
        }
        _ => Ok(()),
    };
    ranks.finish()?;
    printed?;
    Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// Processes of more ranks than these are not listed.
const MOST_NAMED: usize = 16;

/// The handshake of a measurement.
fn agree(ranks: &mut Ranks, args: &BenchExchangeArgs) -> Result<(), BenchError> {
    // Launchers name processes by their numbers alone.
    let process = format!("process {} on {}", process::id(), machine());
    let world = ranks.world();
    let processes = ranks.gather("the processes", &world, process.as_bytes())?;
    if ranks.rank() == 0 && (2..=MOST_NAMED).contains(&processes.len()) {
        let named = processes.iter().enumerate();
        let named =
            named.map(|(rank, process)| format!("rank {rank} is {}", String::from_utf8_lossy(process)));
        log::say(named.collect::<Vec<_>>().join(", "));
    }
    let BenchExchangeArgs { exchange, size, ranks: over, rounds, warmup, timeout, format: _ } = args;
    let size: Vec<String> = size.iter().map(ToString::to_string).collect();
    let size = size.join(",");
    let command = format!(
        "--exchange {exchange:?} --size {size} --ranks {over:?} --rounds {rounds} --warmup {warmup} --timeout {timeout}"
    );
    let facts: Vec<(&str, String)> = of_processes().into_iter().chain([("the command", command)]).collect();
    Ok(ranks.agree(&facts)?)
}

fn print(report: &ExchangeReport, args: &BenchExchangeArgs) -> Result<(), Error> {
    match args.format {
        Format::Text => {
            let (rounds, warmup) = (count(args.rounds, "round"), args.warmup);
            out::line(format_args!("{}\n{rounds} after {warmup} to warm up\n", report.backend))?;
            out::line(exchange_table(report))?;
            let copies = report.copies.iter().map(|copy| {
                let [median, min, max] = times(&copy.ms);
                let size = bytes(copy.bytes as u64);
                vec![size, copy.ranks.to_string(), median, min, max, format!("{:.2}", copy.gbytes)]
            });
            let header = ["copy in memory, by all ranks at once", "ranks", "ms", "min", "max", "GB/s"];
            out::line(format_args!("\n{}", table(&header, &copies.collect::<Vec<_>>())))?;
            out::line(
                "\nAll results have the bits they should have, and ranks sent the bytes of the formulas.",
            )?;
        }
        Format::Json => {
            let mut object = json!({ "tool": "linc", "bench": "exchange" });
            if let (Some(object), Value::Object(results)) =
                (object.as_object_mut(), serde_json::to_value(report)?)
            {
                object.extend(results);
            }
            out::line(serde_json::to_string_pretty(&object)?)?;
        }
    }
    Ok(())
}

fn exchange_table(report: &ExchangeReport) -> String {
    let rows = report.rows.iter().map(|row| {
        let [median, min, max] = times(&row.ms);
        vec![
            row.exchange.name().to_owned(),
            row.ranks.to_string(),
            bytes(row.bytes as u64),
            bytes(row.wire_bytes as u64),
            median,
            min,
            max,
            row.gbytes.map_or(String::new(), |gbytes| format!("{gbytes:.2}")),
            row.share.map_or(String::new(), |share| format!("{:.1}%", 100.0 * share)),
        ]
    });
    let header = ["exchange", "ranks", "of a rank", "sends", "ms", "min", "max", "GB/s", "of copy"];
    table(&header, &rows.collect::<Vec<_>>())
}
