//! Disks that are full, folders that cannot be written, readers that go away: said or quiet, and nothing lost.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::common::{Folder, refuse, succeed, workspace};

/// Runs `linc` with files limited to `blocks` of 512 bytes or KiB (as the shell has it): writes beyond fail as on a
/// full disk, also for root.
#[cfg(unix)]
fn limited(blocks: usize, args: &[&str]) -> Output {
    let script = format!("ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_linc")]).args(args).current_dir(workspace());
    command.output().expect("sh runs")
}

#[cfg(unix)]
fn refused(output: &Output, expected: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    for word in expected {
        assert!(error.contains(word), "no {word:?} in: {error}");
    }
    assert!(!error.contains("panicked"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_full_disk_ends_a_run_and_leaves_older_checkpoints() {
    let folder = Folder::new("full_disk");
    let config = folder.config();
    succeed(&["train", &config]);
    let weights = folder.path("run/checkpoint/step-6/model.safetensors");
    let (before, metrics) = (fs::read(&weights).expect("weights"), folder.path("run/metrics.jsonl"));
    let lines = fs::read_to_string(&metrics).expect("metrics").lines().count();
    // Room for the metrics, not for weights.
    let more = ["train", &config, "--training.steps", "9"];
    refused(
        &limited(64, &more),
        &["step-9", "model.safetensors", "older checkpoints are as they were", "ulimit -f"],
    );
    assert_eq!(fs::read(&weights).expect("weights"), before);
    let left: Vec<String> = fs::read_dir(folder.path("run/checkpoint"))
        .expect("checkpoints")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !["step-3", "step-6"].contains(&name.as_str()))
        .collect();
    assert_eq!(left, [""; 0], "a part of a checkpoint is left");
    // No room for the metrics: the old ones stay.
    refused(&limited(1, &more), &["cannot write", "dump_folder"]);
    assert!(fs::read_to_string(&metrics).expect("metrics").lines().count() >= lines);
    // With room, it goes on.
    let text = succeed(&more);
    assert!(text.contains("Training starts at step 7."), "{text}");
    let text = fs::read_to_string(&metrics).expect("metrics");
    assert_eq!(text.matches("\"step\":8,").count(), 1, "{text}");
}

/// Of files that may grow to this size or that, in no order, a run writes whole checkpoints or none, and goes on with the bits
/// of a run that always had room.
#[cfg(unix)]
#[test]
fn disks_that_are_full_again_and_again_lose_no_checkpoint() {
    let folder = Folder::new("full_disks");
    let config = folder.config();
    let often = ["--checkpoint.interval", "1", "--checkpoint.keep_latest_k", "2", "--training.steps", "20"];
    let beside = ["--checkpoint.async_mode", "async", "--validation.enable", "false"];
    let train = |name: &str, stop: &str| {
        let run = folder.path(name).display().to_string();
        let own = ["train", &config, "--job.dump_folder", &run, "--training.stop_at_step", stop];
        [&own[..], &often, &beside].concat().into_iter().map(str::to_owned).collect::<Vec<String>>()
    };
    succeed(&train("whole", "20"));
    let files = |name: &str| {
        let step = folder.path(name).join("checkpoint/step-20");
        ["model.safetensors", "optimizer.safetensors", "state.json"]
            .map(|f| fs::read(step.join(f)).expect("read"))
    };
    let largest = files("whole").iter().map(Vec::len).max().expect("files");
    for round in 1..=8 {
        let before = format!("step-{}", round * 2);
        succeed(&train("run", &before[5..]));
        let output = limited(
            round * 7919 % (largest / 512),
            &train("run", "20").iter().map(String::as_str).collect::<Vec<_>>(),
        );
        refused(&output, &["ulimit -f"]);
        let checkpoints = folder.path("run/checkpoint");
        let left: Vec<PathBuf> =
            fs::read_dir(&checkpoints).expect("checkpoints").map(|e| e.expect("an entry").path()).collect();
        assert!(left.contains(&checkpoints.join(&before)), "{left:?}");
        for step in left {
            succeed(&["inspect", &step.display().to_string()]);
        }
    }
    succeed(&train("run", "20"));
    assert!(files("run") == files("whole"), "other bits");
}

/// The script that does the same hundreds of times, and kills runs as well.
#[cfg(target_os = "linux")]
#[test]
fn runs_that_a_script_kills_and_whose_disks_it_fills_end_with_the_same_bits() {
    let folder = Folder::new("kill_runs");
    let config = folder.config();
    let work = folder.path("work").display().to_string();
    let script =
        ["tools/kill_runs.py", "--linc", env!("CARGO_BIN_EXE_linc"), "--config", &config, "--folder", &work];
    let rounds = ["--kills", "4", "--full-disks", "6", "--steps", "12"];
    let mut python = Command::new("python3");
    python.args(script).args(rounds).current_dir(workspace()).env("CUDA_VISIBLE_DEVICES", "");
    let Ok(output) = python.output() else {
        eprintln!("skipped: there is no python3");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("4 kills, ") && said.contains("6 full disks, "), "{said}");
    assert_eq!(fs::read_dir(&work).expect("its folder").count(), 0, "something is left");
}

#[cfg(unix)]
#[test]
fn a_full_disk_while_compiling_is_said() {
    let folder = Folder::new("full_disk_compile");
    let out = folder.path("out").display().to_string();
    let args = ["compile", "models/llama3_nano.toml", "--out", &out];
    refused(&limited(8, &args), &["cannot write", "out/"]);
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_of_an_export_or_an_import() {
    let folder = Folder::new("full_disk_export");
    succeed(&["train", &folder.config()]);
    let step = folder.path("run/checkpoint/step-6").display().to_string();
    let [out, again, back] = ["out", "again", "back"].map(|name| folder.path(name).display().to_string());
    succeed(&["export", &step, "--out", &out]);
    refused(&limited(8, &["export", &step, "--out", &again]), &["cannot write", "(--out)", "ulimit -f"]);
    refused(&limited(8, &["import", &out, "--out", &back]), &["cannot write", "(--out)", "ulimit -f"]);
    let left: Vec<String> = fs::read_dir(&folder.0)
        .expect("the folder")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !["config.toml", "text.txt", "run", "out"].contains(&name.as_str()))
        .collect();
    assert_eq!(left, [""; 0], "something is left");
}

#[test]
fn folders_that_cannot_be_written_are_named_before_training() {
    let folder = Folder::new("read_only");
    let config = folder.config();
    let file = folder.file("file", "not a folder");
    for place in [format!("{file}/run"), file.clone()] {
        let message =
            refuse(&["train", &config, "--job.dump_folder", &place], &[&file, "help:", "dump_folder"]);
        assert!(!message.contains("step:") && !message.contains("make room"), "{message}");
    }
    let message = refuse(&["train", &config, "--job.dump_folder", &format!("{file}/run")], &[]);
    assert!(message.contains("a part of the path is a file"), "{message}");
    assert_eq!(fs::read_to_string(&file).expect("the file"), "not a folder");
    // A system folder that takes no files, not even from root.
    if cfg!(target_os = "linux") {
        refuse(&["train", &config, "--job.dump_folder", "/proc/linc"], &["/proc/linc"]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn standard_output_on_a_full_disk_is_an_error() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let output = Command::new(env!("CARGO_BIN_EXE_linc"))
        .args(["compile", "models/llama3_nano.toml"])
        .current_dir(workspace())
        .stdout(full)
        .output()
        .expect("linc runs");
    refused(&output, &["cannot write to standard output"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for args in [
        &["compile", "models/llama3_8b.toml"][..],
        &["inspect", "models/llama3_nano.toml"],
        &["train", "--list-settings"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_linc"))
            .args(args)
            .current_dir(workspace())
            .stdout(writer)
            .output()
            .expect("linc runs");
        assert_eq!(output.status.code(), Some(141), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}
