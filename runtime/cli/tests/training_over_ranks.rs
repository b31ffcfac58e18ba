//! `linc launch -n N train`: runs of several processes over the MPI of this machine, where there is one.
#![cfg(unix)]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Folder, succeed};
use crate::ranks::{launch, linc, said};

const DEGREE: &str = "--parallelism.data_parallel_replicate_degree";

/// What all runs here are told: four batches a step, whose gradients are added up in the order of ranks.
const SHARED: [&str; 6] =
    ["--training.batch_size", "1", "--training.global_batch_size", "4", "--parallelism.accumulate", "tree"];

/// A run of `ranks` processes into a folder, of which each has the whole optimizer; nothing where there is no MPI.
fn over(ranks: &str, config: &str, folder: &Path, more: &[&str]) -> Option<Command> {
    in_copies(ranks, ranks, config, folder, more)
}

/// A run of `ranks` processes that have so many copies of the optimizer between them.
fn in_copies(ranks: &str, copies: &str, config: &str, folder: &Path, more: &[&str]) -> Option<Command> {
    let folder = folder.display().to_string();
    let args = [&["train", config, "--job.dump_folder", &folder, DEGREE, copies][..], &SHARED, more].concat();
    launch(ranks, &args)
}

/// The same by one process alone.
fn alone(config: &str, folder: &Path, more: &[&str]) {
    let folder = folder.display().to_string();
    succeed(&[&["train", config, "--job.dump_folder", &folder][..], &SHARED, more].concat());
}

fn done(mut command: Command) -> String {
    let (code, text) = said(&command.output().expect("linc runs"));
    assert_eq!(code, Some(0), "{text}");
    text
}

/// Losses and norms of all steps and validations, in their order.
fn measured(folder: &Path) -> Vec<[Option<f64>; 3]> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).expect("metrics.jsonl");
    let record =
        |line: &str| -> Value { serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")) };
    let of = |record: Value| ["loss", "grad_norm", "validation_loss"].map(|key| record[key].as_f64());
    text.lines().map(record).map(of).collect()
}

/// The bytes of weights and moments after a step.
fn tensors(folder: &Path, step: usize) -> Vec<Vec<u8>> {
    let file = |name: &str| {
        let path = folder.join(format!("checkpoint/step-{step}/{name}.safetensors"));
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    ["model", "optimizer"].map(file).to_vec()
}

#[test]
fn processes_train_what_one_trains_and_go_on_in_any_number() {
    let folder = Folder::new("training_over_ranks");
    let config = folder.config();
    let whole = ["--checkpoint.last_save_model_only", "false"];
    alone(&config, &folder.path("one"), &whole);
    for (ranks, copies, optimizer) in [
        ("2", "2", "the whole optimizer"),
        ("4", "4", "the whole optimizer"),
        ("2", "1", "one of 2 parts of the optimizer"),
        ("4", "2", "one of 2 parts of the optimizer"),
    ] {
        let mode = format!("{ranks} ranks with {copies} copies");
        let run = folder.path(&mode.replace(' ', "_"));
        let Some(command) = in_copies(ranks, copies, &config, &run, &whole) else { return };
        let text = done(command);
        let words = format!("Ranks: {ranks}, of which each has all parameters, {optimizer}");
        // Open MPI gives ranks a terminal, whose lines are broken.
        let on_one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(on_one_line.contains(&words), "{text}");
        assert_eq!(text.matches("Training completed").count(), 1, "one rank speaks: {text}");
        assert!(!text.contains("[rank"), "{text}");
        assert_eq!(measured(&run), measured(&folder.path("one")), "{mode}");
        for step in [3, 6] {
            assert!(tensors(&run, step) == tensors(&folder.path("one"), step), "{mode}");
        }
    }
    // Four, two, one and four ranks in turn, in each mode; the folder is the same run to all of them.
    let resumed = folder.path("resumed");
    for (ranks, copies, until) in
        [("4", "4", "2"), ("2", "1", "3"), ("1", "1", "4"), ("4", "2", "5"), ("4", "1", "6")]
    {
        let more = [&whole[..], &["--training.stop_at_step", until]].concat();
        match ranks {
            "1" => alone(&config, &resumed, &more),
            _ => drop(in_copies(ranks, copies, &config, &resumed, &more).map(done)),
        }
    }
    assert!(tensors(&resumed, 6) == tensors(&folder.path("one"), 6));
    let steps = |name: &str| {
        let all = measured(&folder.path(name));
        all.into_iter().filter(|[loss, ..]| loss.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(steps("resumed"), steps("one"));
}

/// What torchrun starts: a process a rank, which are told where they meet, with `more` in their environment. Nothing else is there to end them.
pub(crate) fn by_torchrun(ranks: usize, more: &[(&str, &str)], args: &[&str]) -> Vec<Child> {
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let start = |rank: usize| {
        let [rank, world, port] = [rank, ranks, port.into()].map(|number| number.to_string());
        let environment =
            [("RANK", &*rank), ("WORLD_SIZE", &world), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", &port)];
        let mut command = linc(&[&environment[..], more].concat(), args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("linc runs")
    };
    (0..ranks).map(start).collect()
}

pub(crate) fn outputs(children: Vec<Child>) -> Vec<Output> {
    children.into_iter().map(|child| child.wait_with_output().expect("it ends")).collect()
}

#[test]
fn processes_of_torchrun_train_what_one_trains() {
    let folder = Folder::new("training_over_tcp");
    let config = folder.config();
    let whole = ["--checkpoint.last_save_model_only", "false"];
    alone(&config, &folder.path("one"), &whole);
    for copies in ["1", "2"] {
        let run = folder.path(copies).display().to_string();
        let args = ["train", &config, "--job.dump_folder", &run, DEGREE, copies];
        let all = outputs(by_torchrun(2, &[], &[&args[..], &SHARED, &whole].concat()));
        for output in &all {
            let (code, text) = said(output);
            assert_eq!(code, Some(0), "{text}");
        }
        assert!(said(&all[0]).1.contains("over TCP") && said(&all[1]).1.is_empty(), "{}", said(&all[1]).1);
        assert_eq!(measured(&folder.path(copies)), measured(&folder.path("one")), "{copies} copies");
        assert!(tensors(&folder.path(copies), 6) == tensors(&folder.path("one"), 6), "{copies} copies");
    }
    // What all find wrong is said once; what one is told otherwise names it.
    let all = outputs(by_torchrun(2, &[], &["train", &config, "--training.dataset_path", "no/such.txt"]));
    let text: String = all.iter().map(|output| said(output).1).collect();
    assert_eq!(text.matches("no/such.txt: there is no such file").count(), 1, "{text}");
    assert!(all.iter().all(|output| output.status.code() == Some(2)), "{text}");
}

#[test]
fn a_process_of_torchrun_that_is_killed_is_named_by_the_others() {
    let folder = Folder::new("killed_over_tcp");
    let config = folder.config();
    let args = ["train", &config, "--training.steps", "100000", "--checkpoint.interval", "5"];
    let mut children = by_torchrun(3, &[], &[&args[..], &["--training.global_batch_size", "6"]].concat());
    wait_for_step(&folder.path("run"), 5, &mut children[0]);
    children[1].kill().expect("a process");
    let all = outputs(children);
    for rank in [0, 2] {
        let (code, text) = said(&all[rank]);
        assert_eq!(code, Some(3), "{text}");
    }
    let text: String = all.iter().map(|output| said(output).1).collect();
    assert!(text.contains("waits for rank 1 in") && text.contains("which has ended"), "{text}");
}

#[test]
fn what_all_ranks_find_wrong_is_said_once() {
    let folder = Folder::new("ranks_refused");
    let config = folder.config();
    let cases: [(&[&str], &str); 5] = [
        (&["--parallelism.reduce", "library"], "no library of CPUs adds up gradients"),
        (&["--optimizer.name", "Muon"], "Muon updates whole matrices"),
        (&[DEGREE, "2", "--training.global_batch_size", "3"], "global_batch_size 3 is not a multiple of"),
        (&[DEGREE, "2", "--training.dataset_path", "no/such.txt"], "no/such.txt: there is no such file"),
        (&["--parallelism.tensor_parallel_degree", "2"], "expected 1 (or -1"),
    ];
    for (args, words) in cases {
        let Some(mut command) = launch("2", &[&["train", &config][..], args].concat()) else { return };
        let (code, text) = said(&command.output().expect("linc runs"));
        assert_eq!(code, Some(2), "{text}");
        assert_eq!(text.matches(words).count(), 1, "{text}");
        assert!(text.contains("help: ") || text.contains("expected "), "{text}");
    }
    assert!(!folder.path("run/config.toml").exists(), "something was written");
}

/// The processes that train into a folder, by rank.
fn processes(folder: &Path, launcher: &Child) -> Vec<(String, u32)> {
    let mut all = ranks_in(folder);
    all.retain(|(_, id)| *id != launcher.id());
    all
}

/// Whether all of them end.
fn processes_end(folder: &Path) -> bool {
    let begun = Instant::now();
    while !ranks_in(folder).is_empty() && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(20));
    }
    ranks_in(folder).is_empty()
}

/// The processes that a launcher has started to train into a folder, by rank.
fn ranks_in(folder: &Path) -> Vec<(String, u32)> {
    let wanted = folder.display().to_string();
    let mut found = vec![];
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).into_owned();
        let environment = String::from_utf8_lossy(&read("environ")).into_owned();
        let rank = environment
            .split('\0')
            .find_map(|pair| pair.strip_prefix("PMI_RANK=").or(pair.strip_prefix("OMPI_COMM_WORLD_RANK=")));
        if let Some(rank) = rank.filter(|_| command.contains(&wanted)) {
            found.push((rank.to_owned(), id));
        }
    }
    found
}

/// Waits until a run has saved a checkpoint at or after a step.
pub(crate) fn wait_for_step(folder: &Path, step: usize, launcher: &mut Child) {
    let begun = Instant::now();
    let saved = || {
        let entries = fs::read_dir(folder.join("checkpoint")).into_iter().flatten().flatten();
        let steps =
            entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok());
        steps.max().unwrap_or(0) >= step
    };
    while !saved() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no checkpoint of step {step}");
        assert!(launcher.try_wait().expect("a child").is_none(), "the run has ended before step {step}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_rank_that_is_killed_ends_all_and_the_run_goes_on_with_the_same_bits() {
    let folder = Folder::new("ranks_killed");
    let config = folder.config();
    let settings = [
        "--training.steps",
        "3000",
        "--checkpoint.interval",
        "20",
        "--validation.enable",
        "false",
        "--checkpoint.async_mode",
        "async",
        "--checkpoint.last_save_model_only",
        "false",
    ];
    alone(&config, &folder.path("whole"), &settings);
    let run = folder.path("killed");
    // The last start, of one process, finds whatever the kills have left.
    for (ranks, copies, culprit, after) in [("2", "2", "1", 20), ("4", "2", "0", 40), ("2", "1", "1", 80)] {
        let Some(mut command) = in_copies(ranks, copies, &config, &run, &settings) else { return };
        let mut launcher = command.spawn().expect("linc runs");
        wait_for_step(&run, after, &mut launcher);
        // Far more steps are left than a kill takes.
        let all = processes(&run, &launcher);
        let (_, id) = all.iter().find(|(rank, _)| rank == culprit).expect("the rank is at work");
        let sent = Command::new("kill").args(["-KILL", &id.to_string()]).status().expect("kill");
        assert!(sent.success());
        let (code, text) = said(&launcher.wait_with_output().expect("it ends"));
        assert!(code != Some(0) && !text.contains("Training completed"), "{code:?}: {text}");
        assert_eq!(text.contains("Resuming from"), after > 20, "{text}");
        assert!(processes_end(&run), "ranks are left of {ranks}");
    }
    alone(&config, &run, &settings);
    assert!(tensors(&run, 3000) == tensors(&folder.path("whole"), 3000), "other bits");
}

#[test]
fn a_request_to_one_process_saves_once_and_all_end() {
    let folder = Folder::new("ranks_interrupted");
    let config = folder.config();
    let settings =
        ["--training.steps", "100000", "--checkpoint.interval", "10", "--validation.enable", "false"];
    let run = folder.path("run");
    let Some(mut command) = over("2", &config, &run, &settings) else { return };
    let mut launcher = command.spawn().expect("linc runs");
    wait_for_step(&run, 10, &mut launcher);
    // A terminal sends it to all of them; here the rank that does not write gets it alone.
    let all = processes(&run, &launcher);
    let (_, id) = all.iter().find(|(rank, _)| rank == "1").expect("a rank");
    let sent = Command::new("kill").args(["-INT", &id.to_string()]).status().expect("kill");
    assert!(sent.success());
    let (code, text) = said(&launcher.wait_with_output().expect("it ends"));
    assert_eq!(code, Some(130), "{text}");
    assert_eq!(text.matches("Interrupted after step").count(), 1, "{text}");
    let step = text.split("Interrupted after step ").nth(1).and_then(|rest| rest.split(';').next());
    let step: usize = step.and_then(|step| step.parse().ok()).expect("a step");
    assert_eq!(tensors(&run, step).len(), 2);
}
