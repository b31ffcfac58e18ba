//! Several ranks: where each stands, what is refused, and what they do over the MPI of this machine, where there is one.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Folder, refuse, succeed, workspace};

/// `linc` under what a launcher leaves in the environment, and no other.
pub(crate) fn linc(environment: &[(&str, &str)], args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_linc"));
    command.args(args).current_dir(workspace()).env("CUDA_VISIBLE_DEVICES", "");
    command.envs(environment.iter().copied());
    command
}

pub(crate) fn said(output: &Output) -> (Option<i32>, String) {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text.into_owned())
}

fn run(mut command: Command) -> (Option<i32>, String) {
    said(&command.output().expect("linc runs"))
}

const OPEN_MPI: [(&str, &str); 2] = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "4")];
const MPICH: [(&str, &str); 2] = [("PMI_RANK", "1"), ("PMI_SIZE", "4")];
const TORCHRUN: [(&str, &str); 3] = [("RANK", "0"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "localhost")];
const SLURM: [(&str, &str); 2] = [("SLURM_PROCID", "3"), ("SLURM_STEP_NUM_TASKS", "4")];

#[test]
fn a_run_is_not_trained_once_a_rank() {
    let folder = Folder::new("ranks_train");
    let config = folder.config();
    // Ranks that cannot reach each other, each of which would be alone.
    let nowhere = [("LINC_MPI", "no/such/libmpi.so")];
    for (environment, word) in [
        (&OPEN_MPI[..], "no/such/libmpi.so: no such file"),
        (&MPICH, "no/such/libmpi.so: no such file"),
        (&TORCHRUN, "MASTER_PORT is not set"),
        (&SLURM, "srun --mpi=pmix"),
    ] {
        let (code, text) = run(linc(&[environment, &nowhere].concat(), &["train", &config]));
        assert!(code == Some(2) && text.contains(word), "{text}");
        assert!(!folder.path("run").exists(), "something was written");
    }
    let (code, text) = run(linc(&[&MPICH[..], &nowhere].concat(), &["train", &config]));
    assert_eq!(code, Some(2));
    assert!(text.starts_with("[rank 1] error: "), "{text}");
    // A world of one, and processes that are runs of their own.
    let alone = [("PMI_RANK", "0"), ("PMI_SIZE", "1")];
    let own = [&MPICH[..], &[("LINC_LAUNCHER", "none")]].concat();
    for environment in [&alone[..], &own] {
        let (code, text) = run(linc(environment, &["train", &config, "--training.steps", "1"]));
        assert_eq!(code, Some(0), "{text}");
    }
}

/// Command lines that do work, each of which several ranks would do as often as there are ranks; nothing is read before.
const WORK: [&[&str]; 19] = [
    &["sweep", "sweep_ratio"],
    &["place", "x", "--ratio", "1", "--out", "y"],
    &["report", "x"],
    &["compile", "x.toml"],
    &["generate", "x"],
    &["serve", "x"],
    &["eval", "x", "--out", "y"],
    &["look", "x", "--text", "y"],
    &["compare", "x", "y"],
    &["import", "x"],
    &["export", "x", "--out", "y"],
    &["tokenize", "x.txt", "--out", "x"],
    &["init", "quickstart", "x"],
    &["bench", "attention"],
    &["bench", "train", "x.toml"],
    &["bench", "inference", "x.toml"],
    &["bench", "cost", "x.toml"],
    &["bench", "memory", "x.toml"],
    &["launch", "-n", "2", "models"],
];

#[test]
fn no_work_is_done_once_a_rank() {
    for args in WORK {
        let words = if args[0] == "bench" { args[..2].join(" ") } else { args[0].to_owned() };
        let refused = format!("linc {words} does not share its work");
        let (code, text) = run(linc(&OPEN_MPI, args));
        assert_eq!(code, Some(2), "{args:?}: {text}");
        for word in ["rank 0 of 4", &refused, "LINC_LAUNCHER=none"] {
            assert!(text.contains(word), "{args:?}: {text}");
        }
        // Launched, the remedy is another: the variable of launchers says nothing to launch.
        let (code, text) = run(linc(&[], &[&["launch", "-n", "2"], args].concat()));
        assert_eq!(code, Some(2), "{args:?}: {text}");
        if args[0] != "launch" {
            let help = format!("help: start it once: linc {words} .., without launch -n 2");
            assert!(text.contains(&refused) && text.contains(&help), "{args:?}: {text}");
            assert!(!text.contains("LINC_LAUNCHER"), "{args:?}: {text}");
        }
    }
    // What only prints does no harm.
    for args in [&["models"][..], &["config", "quickstart"], &["completions", "bash"]] {
        let (code, text) = run(linc(&OPEN_MPI, args));
        assert_eq!(code, Some(0), "{args:?}: {text}");
    }
}

#[test]
fn launchers_that_contradict_each_other_are_refused() {
    let both = [&OPEN_MPI[..], &MPICH].concat();
    for args in [&["train", "quickstart"][..], &["bench", "exchange"]] {
        let (code, text) = run(linc(&both, args));
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("OMPI_COMM_WORLD_RANK = 0") && text.contains("PMI_RANK = 1"), "{text}");
    }
    let (code, text) = run(linc(&[("PMI_RANK", "one"), ("PMI_SIZE", "2")], &["bench", "exchange"]));
    assert!(code == Some(2) && text.contains("PMI_RANK is one; expected a number"), "{text}");
}

#[test]
fn ranks_without_an_mpi_are_refused_with_what_to_type() {
    let bench = ["bench", "exchange", "--timeout", "5"];
    for (environment, words) in [(&TORCHRUN[..], "MASTER_PORT is not set"), (&SLURM, "srun --mpi=pmix")] {
        let (code, text) = run(linc(environment, &bench));
        assert!(code == Some(2) && text.contains(words), "{text}");
    }
    let nothing = [&OPEN_MPI[..], &[("LINC_MPI", "no/such/libmpi.so.40")]].concat();
    let (code, text) = run(linc(&nothing, &bench));
    assert!(code == Some(2) && text.contains("no/such/libmpi.so.40: no such file"), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn one_rank_exchanges_with_itself() {
    let args = ["bench", "exchange", "--size", "4KiB,1MB", "--rounds", "2", "--warmup", "0"];
    let text = succeed(&args);
    for word in ["one rank", "all-to-all", "send-receive", "4.00 KiB", "the bits they should have"] {
        assert!(text.contains(word), "{text}");
    }
    let text = succeed(&[&args[..], &["--format", "json", "--exchange", "all-reduce"]].concat());
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["wire_bytes"] == 0 && row["ms"]["runs"] == 2), "{text}");
    let bench = |args: &[&str], words: &[&str]| refuse(&[&["bench", "exchange"], args].concat(), words);
    bench(&["--size", "3"], &["--size has 3 B", "at least 4 B"]);
    bench(&["--size", "64mb"], &["64mb", "such as"]);
    bench(&["--size", "4KiB,900000GiB"], &["GiB", "help: give smaller operands"]);
    bench(&["--ranks", "2"], &["--ranks is 2", "linc launch -n 2"]);
    bench(&["--ranks", "0"], &["at least 1"]);
    bench(&["--exchange", "allreduce"], &["allreduce", "all-reduce"]);
    bench(&["--timeout", "0"], &["seconds from 1"]);
    bench(&["--rounds", "2000000"], &["--rounds is 2000000"]);
}

#[test]
fn a_command_that_cannot_be_launched_is_refused_once() {
    refuse(&["launch", "-n", "2", "sweep", "quickstart"], &["linc sweep does not share", "2 ranks would"]);
    refuse(&["launch", "-n", "1", "launch", "-n", "2", "models"], &["not itself"]);
    refuse(&["launch", "-n", "2", "bench", "exchnge"], &["exchnge", "exchange"]);
    refuse(&["launch", "-n", "0", "bench", "exchange"], &["from 1 to 4096"]);
    refuse(&["launch", "bench", "exchange"], &["--ranks <COUNT>"]);
    let mut command = linc(&[("PATH", "/nowhere")], &["launch", "-n", "2", "bench", "exchange"]);
    command.env_remove("VIRTUAL_ENV").env_remove("CONDA_PREFIX");
    let (code, text) = run(command);
    assert!(
        code == Some(2) && text.contains("no MPI was found") && text.contains("pip install mpich"),
        "{text}"
    );
}

/// Two ranks that measure exchanges over the MPI of this machine; nothing where there is none.
fn launched(args: &[&str]) -> Option<Command> {
    launch("2", &[&["bench", "exchange"], args].concat())
}

/// Ranks over the MPI of this machine; nothing where there is none.
pub(crate) fn launch(ranks: &str, args: &[&str]) -> Option<Command> {
    let mut probe = linc(&[], &["launch", "-n", "1", "models"]);
    let (_, text) = said(&probe.stdin(Stdio::null()).output().expect("linc runs"));
    if text.contains("no MPI was found") {
        eprintln!("skipped: {text}");
        return None;
    }
    let mut command = linc(&[], &[&["launch", "-n", ranks], args].concat());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command)
}

#[test]
fn two_ranks_over_mpi() {
    let args = ["--size", "4KiB,100KB", "--rounds", "3", "--warmup", "1", "--format", "json"];
    let Some(mut command) = launched(&args) else { return };
    let output = command.output().expect("linc runs");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output).1);
    let report: Value = serde_json::from_slice(&output.stdout).expect("one object, of rank 0");
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 12);
    for row in rows {
        let [bytes, wire] = ["bytes", "wire_bytes"].map(|name| row[name].as_u64().expect("bytes"));
        let factor = match row["exchange"].as_str() {
            Some("all-reduce" | "broadcast" | "send-receive") => 2,
            _ => 1,
        };
        assert_eq!(2 * wire, factor * bytes, "{row}");
        assert!(row["share"].as_f64() > Some(0.0), "{row}");
    }
    // What all ranks find wrong one of them says. That this process is alone its ranks are not told.
    let Some(mut command) = launched(&["--ranks", "3"]) else { return };
    command.env("LINC_LAUNCHER", "none");
    let (code, text) = said(&command.output().expect("linc runs"));
    assert_eq!(code, Some(2), "{text}");
    assert_eq!(text.matches("--ranks is 3; expected 1 to 2").count(), 1, "{text}");
}

#[test]
fn a_rank_that_hangs_or_is_killed_ends_all_and_is_named() {
    let busy = ["--size", "1MiB", "--rounds", "1000000", "--timeout", "10"];
    for signal in ["-STOP", "-KILL"] {
        let Some(mut command) = launched(&busy) else { return };
        let mut child = command.spawn().expect("linc runs");
        let mut output = BufReader::new(child.stderr.take().expect("standard error"));
        // All have started, and linc says which process is which rank.
        let mut text = String::new();
        let culprit = loop {
            let before = text.len();
            assert!(output.read_line(&mut text).expect("text") > 0, "{text}");
            if let Some((_, rest)) = text[before..].split_once("rank 1 is process ") {
                break rest.split(' ').next().expect("a number").to_owned();
            }
        };
        // Somewhere in the middle.
        std::thread::sleep(Duration::from_secs(1));
        let sent = Command::new("kill").args([signal, &culprit]).status().expect("kill");
        assert!(sent.success());
        let begun = Instant::now();
        // Launchers write what is no text, too.
        let mut rest = vec![];
        output.read_to_end(&mut rest).expect("bytes");
        text.push_str(&String::from_utf8_lossy(&rest));
        let code = child.wait().expect("it ends").code();
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        if signal == "-STOP" {
            assert!(text.contains("rank 0 waits for rank 1 in"), "{text}");
            assert_eq!(code, Some(3), "{text}");
        } else {
            assert!(code != Some(0), "{text}");
        }
    }
}
