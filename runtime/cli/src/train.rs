//! `linc train`: runs a job and shows how it goes.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use linc_train::config::{JobConfig, Override};
use linc_train::exec::Profile;
use linc_train::exec::device::Device;
use linc_train::exec::device::cpu::{Cpu, CpuOptions};
use linc_train::trainer::{Summary, Trainer};

use crate::args::TrainArgs;
use crate::progress::Console;
use crate::table::{bytes, table};

/// The CPU with a number of threads; 0 for all.
pub(crate) fn cpu(threads: usize) -> Result<Box<dyn Device>> {
    let threads = (threads > 0).then_some(threads);
    Ok(Box::new(Cpu::new(CpuOptions { threads, ..CpuOptions::default() })?))
}

pub(crate) fn run(args: &TrainArgs) -> Result<ExitCode> {
    // Switches after the config file arrive among the overrides.
    let (switches, settings): (Vec<String>, Vec<String>) =
        args.overrides.iter().cloned().partition(|a| a == "--profile" || a == "--list-settings");
    if args.list_settings || switches.iter().any(|s| s == "--list-settings") {
        return list_settings();
    }
    let loaded = JobConfig::load_file(&args.config, &Override::parse_all(&settings)?)?;
    let mut config = loaded.config;
    config.profiling.enable_profiling |= args.profile || !switches.is_empty();
    let mut console = Console::new(config.training.steps, !config.metrics.disable_color_printing);
    for warning in &loaded.warnings {
        console.warn(warning);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        // The second request does not wait for the step.
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!(
            "\nInterrupted: finishing this step and saving a checkpoint (press Ctrl-C again to quit at once)"
        );
    })?;
    let device = cpu(config.training.threads)?;
    let peak = {
        let mut trainer = Trainer::new(config, Some(&args.config), device, &mut console)?;
        let summary = trainer.run(&stop, &mut console)?;
        console.finish();
        print_summary(&summary);
        summary.interrupted
    };
    Ok(if peak { ExitCode::from(130) } else { ExitCode::SUCCESS })
}

fn list_settings() -> Result<ExitCode> {
    for key in JobConfig::keys() {
        println!("--{} ({}; default {:?})\n    {}", key.name, key.expected, key.default, key.help);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_summary(summary: &Summary) {
    if summary.interrupted {
        return;
    }
    println!("Training completed");
    println!("  steps            {}", summary.step);
    println!("  training loss    {:.4}", summary.loss);
    if let Some(record) = &summary.validation {
        println!("  validation loss  {:.4}", record.validation_loss.unwrap_or(f64::NAN));
        if let Some(bits) = record.validation_bits_per_byte {
            println!("  bits per byte    {bits:.4}");
        }
        if let Some(accuracy) = record.validation_accuracy {
            println!("  recall accuracy  {:.2}%", 100.0 * accuracy);
        }
    }
    println!("  tokens/s         {:.0}", summary.tps);
    println!("  peak memory      {}", bytes(summary.peak_memory));
    if let Some(path) = &summary.checkpoint {
        println!("  checkpoint       {}", path.display());
    }
    if let Some(sample) = &summary.sample {
        println!("  sample\n{}", indented(sample));
    }
    if let Some(profile) = &summary.profile {
        println!("\n{}", profile_table(profile));
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    | {line}")).collect::<Vec<_>>().join("\n")
}

fn profile_table(profile: &Profile) -> String {
    let total = profile.total().as_secs_f64().max(1e-12);
    let runs = profile.runs.max(1) as f64;
    let rows: Vec<Vec<String>> = profile
        .rows()
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
    table(&["kernel", "calls/step", "ms/step", "share", "GFLOP/s", "GB/s"], &rows)
}
