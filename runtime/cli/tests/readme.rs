//! Every command of the README, pasted in order into an empty folder: each works, and no run is in the way of another.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{Folder, workspace};

/// The lines of the README's shell blocks that begin with `linc`, without their remarks.
fn commands(readme: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut is_shell = false;
    for line in readme.lines() {
        match line.strip_prefix("```") {
            Some(language) => is_shell = !is_shell && language == "sh",
            None if is_shell && line.starts_with("linc ") => {
                let command = line.split(" #").next().unwrap_or(line);
                commands.push(command.trim().to_owned());
            }
            None => {}
        }
    }
    commands
}

/// Whether it trains the quickstart, by its path or its name.
fn trains(command: &str) -> bool {
    ["linc train configs/quickstart", "linc train quickstart"].iter().any(|start| command.starts_with(start))
}

/// The same command on less work: few steps of short sequences, one round of a measurement.
fn quick(command: &str) -> String {
    let mut words: Vec<&str> = command.split(' ').collect();
    if let Some(at) = words.iter().position(|word| *word == "--training.steps") {
        words.drain(at..at + 2);
    }
    let command = words.join(" ").replace("step-300", "step-3").replace("--tokens 200", "--tokens 20");
    let command = command.replace("--seq 1024,4096", "--seq 64").replace("--seq 256", "--seq 64");
    if trains(&command) {
        let less = "--training.steps 3 --training.batch_size 2 --training.seq_len 64 --validation.steps 1";
        return format!("{command} {less}");
    }
    if command.starts_with("linc sweep") {
        return format!(
            "{command} --training.steps 2 --training.batch_size 1 --training.seq_len 32 --validation.steps 1"
        );
    }
    if command.starts_with("linc bench") { format!("{command} --rounds 1 --warmup 0") } else { command }
}

/// Runs a command as a shell does, with `linc` on its path, on a machine whose GPUs, if any, are not seen.
fn run(folder: &Path, command: &str) -> Output {
    let binary = Path::new(env!("CARGO_BIN_EXE_linc"));
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", binary.parent().expect("a folder").display());
    Command::new("sh")
        .args(["-c", command])
        .current_dir(folder)
        .env("PATH", path)
        .env("CUDA_VISIBLE_DEVICES", "")
        // Compiling kernels for GPUs takes long, and other tests do it.
        .env_remove("LINC_NVRTC")
        .env("LINC_CACHE_DIR", folder.join("cache"))
        .output()
        .expect("a shell")
}

#[test]
fn every_command_of_the_readme_works_one_after_the_other() {
    let folder = Folder::new("readme");
    let readme = fs::read_to_string(workspace().join("README.md")).expect("the README");
    folder.file("README.md", &readme);
    folder.file("books/a.txt", "It was a dark night, and the wind blew over the hills.\n".repeat(100));
    let mut commands = commands(&readme);
    assert!(commands.len() > 12, "{commands:?}");
    // What the help shows comes last.
    for help in ["linc --help", "linc train --help"] {
        let text = String::from_utf8(run(&folder.0, help).stdout).expect("UTF-8");
        let examples = text.lines().filter_map(|line| line.strip_prefix("  linc "));
        // A column of remarks is two blanks away.
        let examples = examples.map(|line| format!("linc {}", line.split("  ").next().unwrap_or(line)));
        commands.extend(examples.filter(|command| !command.contains("COMMAND")));
    }
    let mut runs = 0;
    for command in &commands {
        let output = run(&folder.0, &quick(command));
        let (text, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if command.contains("--training.device cuda") {
            // Without a GPU it says so.
            assert_eq!(output.status.code(), Some(2), "{command}: {text}{error}");
            assert!(error.contains("error: ") && error.contains("NVIDIA"), "{command}: {error}");
            continue;
        }
        assert_eq!(output.status.code(), Some(0), "{command}: {text}{error}");
        assert!(!text.trim().is_empty(), "{command} says nothing");
        if trains(command) {
            runs += 1;
            assert!(text.contains("Training starts at step 1."), "{command} trains nothing: {text}");
            assert!(text.contains("step:  3  loss:"), "{command}: {text}");
        }
    }
    let folders = fs::read_dir(folder.path("outputs")).expect("outputs").filter_map(Result::ok);
    let runs_of = |name: &str| name == "quickstart" || name.starts_with("quickstart-");
    let count = folders.filter(|entry| runs_of(&entry.file_name().to_string_lossy())).count();
    assert_eq!(count, runs, "every run has a folder of its own");
    assert!(folder.path("my_model/configs/quickstart.toml").is_file());
    // What `linc init` wrote is found and trains, from the folder that it was written to.
    let edited = quick("linc train configs/quickstart.toml");
    let output = run(&folder.path("my_model"), &edited);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn remarks_and_other_blocks_are_no_commands() {
    let text = "```sh\nlinc a 'b'   # remark\ncargo b\n```\nlinc c\n```\nlinc d\n```\n";
    assert_eq!(commands(text), ["linc a 'b'"]);
}
