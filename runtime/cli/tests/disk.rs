//! Disks that are full, folders that cannot be written, readers that go away: said or quiet, and nothing lost.

use std::fs;
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
