//! `linc-gpu-check`: kernels of a device against the interpreter, and losses of two runs against each other. Exit codes:
//! 0 all is well, 1 something differs, 2 there is nothing to check with.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use linc_device::{Choice, Device, Opened};
use linc_gpu_check::check::{self, Outcome};
use linc_gpu_check::group::{self, Extent};
use linc_gpu_check::{losses, matmul};

/// Checks of kernels and of training on a device.
#[derive(Debug, Parser)]
#[command(name = "linc-gpu-check", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every kernel and matmul, compare with the interpreter, and demand the same bits twice
    Kernels {
        /// Where to run: cuda, cuda:N or cpu
        #[arg(long, default_value = "cuda")]
        device: Choice,
        /// Groups, separated by commas; all if not given
        #[arg(long, value_delimiter = ',')]
        group: Vec<String>,
        /// Some of every group
        #[arg(long)]
        quick: bool,
        /// Print the names of groups
        #[arg(long)]
        list: bool,
        /// Failures of a group that are printed
        #[arg(long, default_value_t = 20)]
        show: usize,
    },
    /// Compare the losses of two runs, step by step
    Losses {
        /// metrics.jsonl of a run
        a: PathBuf,
        /// metrics.jsonl of another
        b: PathBuf,
        /// Largest difference of a step, nats
        #[arg(long)]
        tolerance: f64,
    },
}

/// Matmuls are no tile programs, and a group of their own.
const MATMULS: &str = "matmuls";

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Kernels { list: true, .. } => {
            println!("{}", names().join("\n"));
            ExitCode::SUCCESS
        }
        Command::Kernels { device, group, quick, show, list: false } => kernels(device, &group, quick, show),
        Command::Losses { a, b, tolerance } => compare(&a, &b, tolerance),
    }
}

fn names() -> Vec<&'static str> {
    [MATMULS].into_iter().chain(group::names()).collect()
}

fn kernels(choice: Choice, wanted: &[String], quick: bool, show: usize) -> ExitCode {
    if let Some(unknown) = wanted.iter().find(|name| !names().contains(&name.as_str())) {
        eprintln!("error: there is no group {unknown}; there are {}", names().join(", "));
        return ExitCode::from(2);
    }
    let mut device = match choice.open(None) {
        Ok(Opened { device, note: None, .. }) => device,
        // `auto` that came to the CPU: nobody asked for a check of the CPU.
        Ok(Opened { note: Some(note), .. }) => {
            eprintln!("error: {note}");
            return ExitCode::from(2);
        }
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    println!("{}", device.describe());
    let extent = if quick { Extent::QUICK } else { Extent::FULL };
    let mut failed = false;
    for name in names().into_iter().filter(|name| wanted.is_empty() || wanted.iter().any(|w| w == name)) {
        let begun = Instant::now();
        let outcome = run(&mut *device, name, extent);
        let (cases, bad) = (outcome.cases, outcome.failures.len());
        let verdict = if bad == 0 { "ok".to_string() } else { format!("{bad} FAILURES") };
        println!("{name:20} {cases:5} cases {:7.1} s  {verdict}", begun.elapsed().as_secs_f64());
        for failure in outcome.failures.iter().take(show) {
            println!("    {failure}");
        }
        failed |= bad > 0 || cases == 0;
    }
    ExitCode::from(u8::from(failed))
}

fn run(device: &mut dyn Device, name: &str, extent: Extent) -> Outcome {
    if name == MATMULS {
        return matmul::run(device, extent.every).unwrap_or_else(|error| Outcome {
            cases: 1,
            failures: vec![format!("the device failed: {error}")],
        });
    }
    match group::checks(name, extent) {
        Some(checks) => check::run(device, &checks),
        None => Outcome::default(),
    }
}

fn compare(a: &Path, b: &Path, tolerance: f64) -> ExitCode {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string());
        text.and_then(|text| losses::read(&text)).map_err(|e| format!("{}: {e}", path.display()))
    };
    let compared = read(a).and_then(|a| Ok((a, read(b)?))).and_then(|(a, b)| losses::compare(&a, &b));
    match compared {
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
        Ok(found) => {
            let far = found.worst > tolerance;
            println!(
                "{} steps: losses differ by {:.5} at most (step {}), {:.5} on average; the first run learns {:.3} nats: {}",
                found.steps,
                found.worst,
                found.at,
                found.mean,
                found.learned,
                if far { format!("FAILED, allowed {tolerance}") } else { format!("ok, allowed {tolerance}") }
            );
            ExitCode::from(u8::from(far))
        }
    }
}
