//! Ctrl-C, SIGTERM and SIGHUP: the first request ends a run in order, whatever it is doing; the second at once.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Folder, stoppable, succeed};
use serde_json::Value;

fn spawn(settings: &[&str]) -> Child {
    stoppable()
        .args(settings)
        .env("CUDA_VISIBLE_DEVICES", "")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("linc runs")
}

/// A run whose shell has told it to ignore signals: as a shell without job control starts what it runs in the background,
/// and as `nohup` starts a program.
fn spawn_ignoring(signals: &str, settings: &[&str]) -> Child {
    Command::new("sh")
        .args(["-c", &format!("trap '' {signals}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_linc")])
        .args(settings)
        .env("CUDA_VISIBLE_DEVICES", "")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh runs")
}

fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
}

/// Waits for the end of a child, which must come soon; its exit code.
fn end(child: &mut Child, soon: Duration) -> Option<i32> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a status") {
            return status.code();
        }
        assert!(begun.elapsed() < soon, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads a child's output until a line has the words; it stays open.
fn wait_for(child: &mut Child, words: &str) -> BufReader<std::process::ChildStdout> {
    let mut output = BufReader::new(child.stdout.take().expect("standard output"));
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        assert!(output.read_line(&mut line).expect("text") > 0, "it ended before it said {words:?}");
    }
    output
}

/// What a run measured, without times.
fn measured(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).expect("metrics.jsonl");
    let timeless = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        format!("{} {} {} {}", record["step"], record["loss"], record["grad_norm"], record["validation_loss"])
    };
    text.lines().map(timeless).collect()
}

#[test]
fn the_second_request_ends_a_run_that_cannot_end_in_order() {
    // Neither a validation nor a checkpoint on a slow disk looks like a pipe that is full.
    let no_pauses = ["--validation.enable", "false", "--checkpoint.interval", "100000000"];
    for (first, second, code) in [("-TERM", "-TERM", 143), ("-HUP", "-INT", 130)] {
        let folder = Folder::new("signals_second");
        let config = folder.config();
        let mut child =
            spawn(&[&["train", &config, "--training.steps", "100000000"][..], &no_pauses].concat());
        // Nobody reads what it says: when the pipe is full it waits, and so does the end in order.
        let (begun, metrics) = (Instant::now(), folder.path("run/metrics.jsonl"));
        let mut steps = (0, Instant::now());
        while steps.0 == 0 || steps.1.elapsed() < Duration::from_millis(1500) {
            let lines = fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
            if lines != steps.0 {
                steps = (lines, Instant::now());
            }
            assert!(begun.elapsed() < Duration::from_secs(90), "the pipe does not fill");
            std::thread::sleep(Duration::from_millis(20));
        }
        send(&child, first);
        // Closing a terminal may come as two signals.
        if first == "-HUP" {
            std::thread::sleep(Duration::from_millis(50));
            send(&child, first);
        }
        std::thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().expect("a status").is_none(), "it waits for its reader");
        send(&child, second);
        assert_eq!(end(&mut child, Duration::from_secs(5)), Some(code));
        let said = std::io::read_to_string(child.stderr.take().expect("standard error")).expect("text");
        let notices: Vec<&str> =
            said.lines().filter(|line| !line.is_empty() && !line.contains("warning:")).collect();
        assert!(
            matches!(notices[..], [first, last] if first.starts_with("Interrupted: ") && last.starts_with("Ended at once: ")),
            "{said}"
        );
    }
}

#[test]
fn a_full_pipe_of_errors_does_not_keep_a_run_from_its_end() {
    let folder = Folder::new("signals_full");
    let config = folder.config();
    let settings = ["--training.steps", "100000000", "--validation.enable", "false"];
    // Standard error is a pipe that has no room left and that nobody reads.
    let line = "mkfifo \"$1\"; exec 3<>\"$1\"; dd if=/dev/zero of=\"$1\" bs=4096 count=64 oflag=nonblock 2>/dev/null; \
                shift; exec \"$@\" 2>&3";
    let pipe = folder.path("pipe").display().to_string();
    let mut command = Command::new("sh");
    command.args([
        "-c",
        line,
        "sh",
        &pipe,
        "env",
        "--default-signal=INT",
        env!("CARGO_BIN_EXE_linc"),
        "train",
        &config,
    ]);
    let child = command.args(settings).env("CUDA_VISIBLE_DEVICES", "").stdout(Stdio::piped()).spawn();
    let mut child = child.expect("sh runs");
    let output = wait_for(&mut child, "step:  1");
    send(&child, "-INT");
    send(&child, "-INT");
    assert_eq!(end(&mut child, Duration::from_secs(20)), Some(130));
    drop(output);
}

#[test]
fn a_request_before_the_first_step_ends_with_nothing_written() {
    let folder = Folder::new("signals_start");
    let config = folder.config();
    // Compiling this takes seconds.
    let model = [
        "--model.overrides.n_layers",
        "300",
        "--model.overrides.dim",
        "16",
        "--model.overrides.n_heads",
        "1",
    ];
    let heads = ["--model.overrides.n_kv_heads", "1"];
    let mut child = spawn(&[&["train", &config][..], &model, &heads].concat());
    let output = wait_for(&mut child, "Compiling");
    send(&child, "-INT");
    assert_eq!(end(&mut child, Duration::from_secs(60)), Some(130));
    drop(output);
    let said = std::io::read_to_string(child.stderr.take().expect("standard error")).expect("text");
    assert!(said.contains("nothing was trained") && !said.contains("error:"), "{said}");
    assert!(!folder.path("run").exists(), "a folder is left");
}

/// A run that was asked to end in the middle, and then started again by the same command, beside one that nobody asked.
struct Interrupted {
    /// What it said from then on.
    said: String,
    /// What it had measured when it ended, and when the second start had.
    before: Vec<String>,
    after: Vec<String>,
    /// What the second start said.
    again: String,
    /// What the run measured that nobody asked.
    whole: Vec<String>,
}

/// Asks a run to end as soon as it says the words.
fn interrupt(folder: &Folder, settings: &[&str], words: &str, (signal, code): (&str, i32)) -> Interrupted {
    let (config, whole) = (folder.config(), folder.path("whole").display().to_string());
    let train = [&["train", &config][..], settings].concat();
    succeed(&[&train[..], &["--job.dump_folder", &whole]].concat());
    let mut child = spawn(&train);
    let output = wait_for(&mut child, words);
    send(&child, signal);
    assert_eq!(end(&mut child, Duration::from_secs(30)), Some(code));
    let said = std::io::read_to_string(output).expect("text");
    let before = measured(&folder.path("run"));
    let again = succeed(&train);
    let [after, whole] = ["run", "whole"].map(|name| measured(&folder.path(name)));
    Interrupted { said, before, after, again, whole }
}

/// Settings of a run of four steps whose validation takes much longer than they do.
fn long_validation(folder: &Folder) -> Vec<String> {
    let text = "a stitch in time saves nine, and the early bird\n".repeat(6000);
    let path = folder.file("held_out.txt", text);
    let settings = ["--validation.dataset_path", &path, "--validation.steps", "-1", "--training.steps", "4"];
    settings.map(String::from).to_vec()
}

#[test]
fn a_long_step_is_taken_back_and_done_again_with_the_same_bits() {
    // Of many batches, and of one whose programs take long.
    for (name, size) in
        [("signals_batches", "--training.global_batch_size"), ("signals_step", "--training.batch_size")]
    {
        let folder = Folder::new(name);
        let settings = [size, "1200", "--training.steps", "2", "--validation.enable", "false"];
        let run = interrupt(&folder, &settings, "step:  1", ("-INT", 130));
        assert!(
            run.said.contains("Interrupted after step 1; to go on, run the same command again"),
            "{}",
            run.said
        );
        assert!(run.again.contains("Training starts at step 2"), "{}", run.again);
        let weights = |name: &str| {
            fs::read(folder.path(name).join("checkpoint/step-2/model.safetensors")).expect("read")
        };
        assert!(weights("run") == weights("whole"), "other bits");
        assert_eq!(run.after, run.whole);
    }
}

#[test]
fn the_checkpoint_of_an_interrupted_run_is_waited_for_and_its_errors_are_told() {
    for mode in ["disabled", "async"] {
        let folder = Folder::new("signals_checkpoint");
        let config = folder.config();
        let settings = ["--training.steps", "100000000", "--checkpoint.interval", "100000000"];
        let beside = ["--validation.enable", "false", "--checkpoint.async_mode", mode];
        let train = [&["train", &config][..], &settings, &beside].concat();
        let mut child = spawn(&train);
        let output = wait_for(&mut child, "step:  1");
        send(&child, "-INT");
        assert_eq!(end(&mut child, Duration::from_secs(30)), Some(130));
        let said = std::io::read_to_string(output).expect("text");
        assert!(said.contains("Saved checkpoint"), "{mode}: {said}");

        let mut child = spawn(&train);
        let output = wait_for(&mut child, "Training starts");
        // No checkpoint can be written into a file.
        fs::rename(folder.path("run/checkpoint"), folder.path("run/away")).expect("renamed");
        fs::write(folder.path("run/checkpoint"), "").expect("written");
        let metrics = folder.path("run/metrics.jsonl");
        let before = measured(&folder.path("run")).len();
        while fs::read_to_string(&metrics).expect("text").lines().count() == before {
            std::thread::sleep(Duration::from_millis(5));
        }
        send(&child, "-INT");
        assert_eq!(end(&mut child, Duration::from_secs(30)), Some(2), "{mode}");
        let said = std::io::read_to_string(output).expect("text");
        assert!(!said.contains("run the same command again"), "{mode}: {said}");
    }
}

#[test]
fn a_validation_that_was_cut_short_is_made_up_for() {
    let folder = Folder::new("signals_validation");
    let settings = long_validation(&folder);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let run = interrupt(&folder, &settings, "step:  3", ("-TERM", 143));
    assert_eq!(run.before, run.whole[..3], "it validated to the end");
    assert!(run.again.contains("Training starts at step 4"), "{}", run.again);
    assert_eq!(run.after, run.whole);
}

#[test]
fn the_last_validation_is_made_up_for_by_the_same_command() {
    let folder = Folder::new("signals_last_validation");
    let settings = long_validation(&folder);
    let mut settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    settings.extend(["--validation.freq", "100", "--checkpoint.last_save_model_only", "true"]);
    let run = interrupt(&folder, &settings, "step:  4", ("-TERM", 143));
    assert!(
        run.said.contains("Interrupted after step 4; to go on, run the same command again"),
        "{}",
        run.said
    );
    assert_eq!(run.before, run.whole[..run.whole.len() - 1], "it validated to the end");
    assert!(run.again.contains("has 4 of 4 steps done and its last validation to do"), "{}", run.again);
    assert_eq!(run.after, run.whole);
    // Once it has been done, the command is a new run.
    let text = succeed(&[&["train", &folder.config()][..], &settings].concat());
    assert!(text.contains("run-2: "), "{text}");
}

#[test]
fn a_run_that_is_to_outlive_its_terminal_does() {
    let folder = Folder::new("signals_nohup");
    let config = folder.config();
    let mut child = spawn_ignoring("HUP", &["train", &config, "--training.steps", "400"]);
    let output = wait_for(&mut child, "step:  1");
    send(&child, "-HUP");
    let text = std::io::read_to_string(output).expect("text");
    assert!(text.contains("Training completed"), "{text}");
    assert_eq!(end(&mut child, Duration::from_secs(30)), Some(0));
}

#[test]
fn what_a_run_was_started_to_ignore_it_ignores() {
    let folder = Folder::new("signals_ignored");
    let config = folder.config();
    let settings = ["--training.steps", "600", "--metrics.log_freq", "200", "--validation.enable", "false"];
    let settings = [&settings[..], &["--checkpoint.interval", "600"]].concat();
    let mut child = spawn_ignoring("INT TERM HUP", &[&["train", &config][..], &settings].concat());
    let _output = wait_for(&mut child, "Training starts");
    for signal in ["-INT", "-TERM", "-HUP", "-INT"] {
        send(&child, signal);
    }
    assert_eq!(end(&mut child, Duration::from_secs(120)), Some(0));
    let last = measured(&folder.path("run")).pop().expect("a record");
    assert!(last.starts_with("600 "), "{last}");
}
