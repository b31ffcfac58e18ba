//! Sweeps: what they write, and that nothing is done twice or lost, whatever ends them.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Folder, linc, refuse, stoppable, succeed};
use serde_json::Value;

/// A sweep of the smallest run over two ratios and two seeds; its file.
fn sweep(folder: &Folder, sweep: &str) -> String {
    folder.config();
    let to = folder.path("sweep").display().to_string();
    folder.file("sweep.toml", format!("base = \"config.toml\"\n[sweep]\ndump_folder = {to:?}\n{sweep}"))
}

const RATIOS: &str = "[sweep.parameters]\nmodel.linear_attn_ratio = [0.0, 1.0]\ntraining.seed = [1, 2]\n";

/// What the runs of a sweep measured, without times.
fn measured(folder: &Path) -> Vec<String> {
    let runs = fs::read_dir(folder.join("runs")).expect("runs");
    let mut all: Vec<String> = runs
        .map(|run| {
            let run = run.expect("a run").path();
            let text = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics.jsonl");
            let lines: Vec<String> = text
                .lines()
                .map(|line| {
                    let record: Value = serde_json::from_str(line).expect("a record");
                    format!("{} {} {}", record["step"], record["loss"], record["validation_loss"])
                })
                .collect();
            format!("{}\n{}", run.file_name().expect("a name").display(), lines.join("\n"))
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_sweep_compares_its_runs_and_does_none_of_them_twice() {
    let folder = Folder::new("sweep_ratios");
    let file = sweep(&folder, RATIOS);
    let listed = succeed(&["sweep", &file, "--dry-run"]);
    assert!(listed.contains("4 runs") && listed.contains("linear_attn_ratio=1.0_seed=2"), "{listed}");
    assert!(!folder.path("sweep").exists(), "a dry run writes nothing");

    let table = succeed(&["sweep", &file, "--sweep.runs_at_once", "2"]);
    let rows: Vec<&str> =
        table.lines().filter(|line| line.starts_with("0.0 ") || line.starts_with("1.0 ")).collect();
    assert_eq!(rows.len(), 2, "{table}");
    let csv = fs::read_to_string(folder.path("sweep/results.csv")).expect("results.csv");
    let cells: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(cells[0][..3], ["model.linear_attn_ratio", "validation_loss", "validation_loss_half_width"]);
    // The mean over the seeds of the last validation, and of the differences seed by seed.
    let last = |name: &str| -> f64 {
        let path = folder.path("sweep/runs").join(name).join("metrics.jsonl");
        let text = fs::read_to_string(path).expect("metrics.jsonl");
        let records = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a record"));
        let losses: Vec<f64> = records.filter_map(|record| record["validation_loss"].as_f64()).collect();
        *losses.last().expect("a validation")
    };
    let losses = |ratio: &str| [1, 2].map(|seed| last(&format!("linear_attn_ratio={ratio}_seed={seed}")));
    let (softmax, linear) = (losses("0.0"), losses("1.0"));
    let number = |row: usize, column: usize| cells[row][column].parse::<f64>().expect("a number");
    assert!((number(1, 1) - (softmax[0] + softmax[1]) / 2.0).abs() < 1e-12);
    let differences = [linear[0] - softmax[0], linear[1] - softmax[1]];
    assert!((number(2, 3) - (differences[0] + differences[1]) / 2.0).abs() < 1e-12);
    assert!((number(2, 4) - 12.706 * (differences[0] - differences[1]).abs() / 2.0).abs() < 1e-9);

    // The config of one run gives the same alone.
    let alone = folder.path("alone").display().to_string();
    let config = folder.path("sweep/configs/linear_attn_ratio=1.0_seed=2.toml").display().to_string();
    succeed(&["train", &config, "--job.dump_folder", &alone]);
    let of = |folder: &Path| fs::read(folder.join("checkpoint/step-6/model.safetensors")).expect("weights");
    assert_eq!(of(Path::new(&alone)), of(&folder.path("sweep/runs/linear_attn_ratio=1.0_seed=2")));

    let before = measured(&folder.path("sweep"));
    let logs = |name: &str| fs::metadata(folder.path("sweep/logs").join(name)).expect("a log").len();
    let log = logs("linear_attn_ratio=0.0_seed=1.log");
    assert_eq!(succeed(&["sweep", &file]), table, "the same table, of the same records");
    assert_eq!(measured(&folder.path("sweep")), before);
    assert_eq!(logs("linear_attn_ratio=0.0_seed=1.log"), log, "nothing was started");

    // A run whose folder is gone is done again.
    fs::remove_dir_all(folder.path("sweep/runs/linear_attn_ratio=0.0_seed=1")).expect("removed");
    succeed(&["sweep", &file]);
    assert_eq!(measured(&folder.path("sweep")), before);
    // A run whose folder is gone is done again.
    fs::remove_dir_all(folder.path("sweep/runs/linear_attn_ratio=0.0_seed=1")).expect("removed");
    succeed(&["sweep", &file]);
    assert_eq!(measured(&folder.path("sweep")), before);
    // More steps go on with the runs; other settings would mix two sweeps.
    succeed(&["sweep", &file, "--training.steps", "8"]);
    assert!(measured(&folder.path("sweep")).iter().all(|run| run.contains("\n8 ")));
    refuse(&["sweep", &file], &["was made with other settings", "training.steps 8 -> 6"]);
    refuse(
        &["sweep", &file, "--training.steps", "8", "--optimizer.lr", "1e-4"],
        &["was made with other settings", "optimizer.lr", "--sweep.dump_folder"],
    );
}

#[test]
fn a_run_that_fails_is_recorded_and_the_others_go_on() {
    let folder = Folder::new("sweep_fails");
    // A warm-up of one step to such a rate leaves no finite number.
    let file = sweep(&folder, "[sweep.parameters]\noptimizer.lr = [1e-3, 1e30]\n");
    let output = linc(&["sweep", &file, "--lr_scheduler.warmup_steps", "0", "--training.max_norm", "1e30"]);
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("1 of 2 runs failed") && error.contains("--retry-failed"), "{error}");
    assert!(text.contains("0 (1 failed)"), "{text}");
    let outcome = fs::read_to_string(folder.path("sweep/outcomes/lr=1e30.json")).expect("an outcome");
    assert!(outcome.contains("\"failed\"") && outcome.contains("gradient norm"), "{outcome}");
    let log = folder.path("sweep/logs/lr=1e30.log");
    let size = || fs::metadata(&log).expect("a log").len();
    let before = size();
    linc(&["sweep", &file, "--lr_scheduler.warmup_steps", "0", "--training.max_norm", "1e30"]);
    assert_eq!(size(), before, "it is not done again by itself");
    linc(&[
        "sweep",
        &file,
        "--retry-failed",
        "--lr_scheduler.warmup_steps",
        "0",
        "--training.max_norm",
        "1e30",
    ]);
    assert!(size() > before, "it is done again when asked for");
}

#[test]
fn halving_goes_on_with_the_best() {
    let folder = Folder::new("sweep_halving");
    let file = sweep(
        &folder,
        "method = \"halving\"\nhalving_steps = 2\nhalving_factor = 2\n[sweep.parameters]\n\
         optimizer.lr = [1e-9, 1e-2, 1e-8, 3e-3]\n",
    );
    succeed(&["sweep", &file]);
    // Only the one that was trained for all steps has a value that is compared.
    let csv = fs::read_to_string(folder.path("sweep/results.csv")).expect("results.csv");
    let compared = csv.lines().skip(1).filter(|line| !line.split(',').nth(1).unwrap_or_default().is_empty());
    assert_eq!(compared.count(), 1, "{csv}");
    let steps = |name: &str| {
        let text = fs::read_to_string(folder.path("sweep/outcomes").join(name)).expect("an outcome");
        serde_json::from_str::<Value>(&text).expect("an outcome")["steps"].as_u64()
    };
    // Rounds of 2, 4 and all 6 steps: what hardly learns ends first.
    assert_eq!([steps("lr=1e-9.json"), steps("lr=1e-8.json")], [Some(2), Some(2)]);
    let mut rest = [steps("lr=1e-2.json"), steps("lr=3e-3.json")];
    rest.sort_unstable();
    assert_eq!(rest, [Some(4), Some(6)]);
    // A run that was carried on in parts has the bits of one that was not.
    let winner = if steps("lr=1e-2.json") == Some(6) { "lr=1e-2" } else { "lr=3e-3" };
    let (config, alone) = (folder.path(&format!("sweep/configs/{winner}.toml")), folder.path("alone"));
    succeed(&["train", &config.display().to_string(), "--job.dump_folder", &alone.display().to_string()]);
    let of = |folder: &Path| fs::read(folder.join("checkpoint/step-6/model.safetensors")).expect("weights");
    assert_eq!(of(&alone), of(&folder.path(&format!("sweep/runs/{winner}"))));
}

#[test]
fn a_sweep_that_is_ended_in_any_way_goes_on_to_the_same_end() {
    let folder = Folder::new("sweep_ends");
    let file = sweep(&folder, RATIOS);
    let long = ["--training.steps", "60", "--checkpoint.interval", "10", "--validation.freq", "30"];
    let to = |name: &str| folder.path(name).display().to_string();
    let arguments = |name: &str| {
        let own = ["sweep", &file, "--sweep.dump_folder", &to(name)].map(str::to_owned);
        [own.to_vec(), long.map(str::to_owned).to_vec()].concat()
    };
    let undisturbed = succeed(&arguments("undisturbed"));
    for (signal, wait) in [("-KILL", 250), ("-INT", 400), ("-TERM", 150), ("-KILL", 500)] {
        let mut started = stoppable()
            .args(arguments("disturbed"))
            .env("CUDA_VISIBLE_DEVICES", "")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("linc runs");
        std::thread::sleep(Duration::from_millis(wait));
        let _ = Command::new("kill").args([signal, &started.id().to_string()]).status();
        let begun = Instant::now();
        while started.try_wait().expect("a status").is_none() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not end after {signal}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    // Runs that a kill of the sweep left behind are waited for.
    let table = succeed(&arguments("disturbed"));
    let timeless = |table: &str| -> Vec<String> {
        let lines = table.lines().filter(|line| line.starts_with("0.0 ") || line.starts_with("1.0 "));
        lines.map(|line| line.split_whitespace().take(5).collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(timeless(&table), timeless(&undisturbed));
    assert_eq!(measured(&folder.path("disturbed")), measured(&folder.path("undisturbed")));
}

#[test]
fn two_sweeps_do_not_write_to_one_folder() {
    let folder = Folder::new("sweep_twice");
    let file = sweep(&folder, RATIOS);
    let mut first = stoppable()
        .args(["sweep", &file, "--training.steps", "100000", "--validation.freq", "100000"])
        .env("CUDA_VISIBLE_DEVICES", "")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("linc runs");
    let begun = Instant::now();
    while !folder.path("sweep/logs").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    refuse(&["sweep", &file, "--training.steps", "100000"], &["is in use: a sweep is going on there"]);
    Command::new("kill").args(["-TERM", &first.id().to_string()]).status().expect("kill");
    assert_eq!(first.wait().expect("it ends").code(), Some(143));
}

#[test]
fn what_is_no_sweep_is_refused_with_a_remedy() {
    let folder = Folder::new("sweep_refused");
    let file = sweep(&folder, RATIOS);
    let config = folder.config();
    refuse(&["train", &file], &["makes this a sweep", "linc sweep"]);
    refuse(&["sweep", &config], &["varies nothing", "[sweep.parameters]"]);
    refuse(&["sweep", "nowhere.toml"], &["nowhere.toml"]);
    refuse(&["sweep", "configs/sweep_ratoi.toml"], &["sweep_ratio"]);
    refuse(&["sweep", &file, "--dry-rum"], &["did you mean --dry-run?"]);
    refuse(&["sweep", &file, "--sweep.metod", "grid"], &["did you mean `--sweep.method`?"]);
    refuse(&["sweep", &file, "--sweep.dump_folder", "/proc/none"], &["cannot write", "/proc/none"]);
}

#[test]
fn what_nobody_measured_ends_a_halving_with_an_error() {
    let folder = Folder::new("sweep_unmeasured");
    // Both end in the first round, whose update leaves no finite number.
    let file = sweep(
        &folder,
        "method = \"halving\"\nhalving_steps = 2\nhalving_factor = 2\n[sweep.parameters]\noptimizer.lr = [1e30, 2e30]\n",
    );
    let wild = ["--lr_scheduler.warmup_steps", "0", "--training.max_norm", "1e30"];
    refuse(&[&["sweep", &file][..], &wild].concat(), &["no run has a validation_loss at step 2"]);
}
