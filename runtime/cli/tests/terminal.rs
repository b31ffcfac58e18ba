//! What a terminal shows: lines that fit, a bar where it can be drawn, colours where they are wanted, and what to type first.

use std::process::{Command, Output};

use crate::common::{Folder, linc, workspace};

/// Steps that take longer than the moment after which there is a bar, on a fast machine too.
const LONG: [&str; 10] = [
    "--training.steps",
    "600",
    "--metrics.log_freq",
    "100",
    "--checkpoint.enable",
    "false",
    "--validation.enable",
    "false",
    "--training.batch_size",
    "16",
];

/// Runs `linc` in a terminal of 80 columns, by the program `script` of util-linux; nothing where there is none.
fn in_terminal(variables: &[(&str, &str)], args: &[&str]) -> Option<String> {
    let output = behind("", variables, args)?;
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}");
    Some(shown)
}

/// As [`in_terminal`], behind another command, whatever the end.
fn behind(command: &str, variables: &[(&str, &str)], args: &[&str]) -> Option<Output> {
    let quoted: Vec<String> = args.iter().map(|arg| format!("'{arg}'")).collect();
    let line =
        format!("stty rows 24 cols 80; exec {command} '{}' {}", env!("CARGO_BIN_EXE_linc"), quoted.join(" "));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).current_dir(workspace());
    command.env("TERM", "xterm-256color").env_remove("NO_COLOR").envs(variables.iter().copied());
    let output = command.output().ok();
    if output.is_none() {
        eprintln!("skipped: there is no program `script` to make a terminal with");
    }
    output
}

/// Text without the sequences that move the cursor and set colours.
fn plain(shown: &str) -> String {
    let mut parts = shown.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    let after =
        |part: &str| part.find(|c: char| c.is_ascii_alphabetic()).map_or("", |at| &part[at + 1..]).to_owned();
    parts.fold(first, |text, part| text + &after(part))
}

#[test]
fn lines_of_a_run_fit_the_terminal() {
    let folder = Folder::new("terminal");
    let config = folder.config();
    let args = [&["train", config.as_str()], &LONG[..]].concat();
    let Some(shown) = in_terminal(&[], &args) else { return };
    let text = plain(&shown);
    let lines: Vec<&str> = text.split(['\r', '\n']).filter(|line| !line.is_empty()).collect();
    let logged: Vec<&&str> = lines.iter().filter(|line| line.contains("  loss: ")).collect();
    assert!(logged.len() >= 6 && logged.iter().all(|line| line.contains("tps: ")), "{text}");
    let log = lines.iter().take_while(|line| !line.contains("Training completed"));
    // A warning is a line of its own kind, and a path is not cut.
    let long: Vec<&&str> =
        log.filter(|line| line.chars().count() > 80 && line.contains(' ') && !line.contains('/')).collect();
    assert!(long.is_empty(), "{long:?}");
    let sample: Vec<&&str> = lines.iter().filter(|line| line.starts_with("    | ")).collect();
    assert!(sample.len() > 1 && sample.iter().all(|line| line.chars().count() < 80), "{sample:?}");
    let bars: Vec<&&str> = lines.iter().filter(|line| line.contains('█') || line.contains('░')).collect();
    assert!(bars.iter().any(|bar| bar.contains("/600  loss ")), "no bar in {text}");
    assert!(shown.contains("\x1b[32m"), "fields have colours");
}

#[test]
fn a_long_validation_has_a_bar() {
    let folder = Folder::new("terminal_validation");
    let (config, text) = (folder.config(), "a stitch in time saves nine, and the early bird\n".repeat(6000));
    let path = folder.file("held_out.txt", text);
    let settings = ["--validation.dataset_path", &path, "--validation.steps", "-1", "--training.steps", "1"];
    let Some(shown) = in_terminal(&[], &[&["train", config.as_str()], &settings[..]].concat()) else {
        return;
    };
    let text = plain(&shown);
    let bars: Vec<&str> =
        text.split(['\r', '\n']).filter(|line| line.contains("validation batch ")).collect();
    assert!(!bars.is_empty() && bars.iter().all(|bar| bar.chars().count() <= 80), "{text}");
    assert!(text.contains("validate step:  1  loss: "), "{text}");
}

#[test]
fn no_bar_is_drawn_behind_the_notice_of_a_signal() {
    let folder = Folder::new("terminal_interrupted");
    let config = folder.config();
    // Steps of many batches, so that one goes on behind the signal.
    let long =
        ["--training.steps", "100000", "--training.global_batch_size", "400", "--validation.enable", "false"];
    let args = [&["train", config.as_str()][..], &long].concat();
    let Some(output) = behind("timeout --foreground -s INT 8", &[], &args) else { return };
    let text = plain(&String::from_utf8_lossy(&output.stdout));
    let (before, after) = text.split_once("Interrupted: ").unwrap_or_else(|| panic!("no notice in {text}"));
    assert!(before.contains("/100000  loss "), "no bar in {text}");
    assert!(!after.contains('█') && !after.contains('░') && !after.contains("/100000  loss "), "{after}");
    assert!(after.contains("to go on, run the same command again"), "{after}");
}

#[test]
fn plain_terminals_get_plain_text() {
    let folder = Folder::new("plain");
    let config = folder.config();
    let args = [&["train", config.as_str()], &LONG[..]].concat();
    let Some(shown) = in_terminal(&[("TERM", "dumb")], &args) else { return };
    assert!(!shown.contains('\x1b') && !shown.contains('░'), "{shown:?}");
    let folder = Folder::new("no_color");
    let config = folder.config();
    let args = ["train", config.as_str(), "--training.steps", "3"];
    let Some(shown) = in_terminal(&[("NO_COLOR", "1")], &args) else { return };
    assert!(!shown.contains("\x1b[3"), "{shown:?}");
    let folder = Folder::new("empty_no_color");
    let config = folder.config();
    // Empty is as if it were not set: see no-color.org.
    let Some(shown) = in_terminal(&[("NO_COLOR", "")], &["train", &config, "--training.steps", "3"]) else {
        return;
    };
    assert!(shown.contains("\x1b[3"), "{shown:?}");
}

#[test]
fn tables_and_lists_fit_the_terminal() {
    for args in [
        &["compile", "llama3_nano", "--ratio", "0.5"][..],
        &["compile", "llama3_nano", "--modes"],
        &["inspect", "llama3_nano"],
        &["models"],
        &["train", "--list-settings"],
        &["--help"],
        &["generate", "--help"],
        &["compile", "--help"],
    ] {
        let Some(shown) = in_terminal(&[], args) else { return };
        let text = plain(&shown);
        let long: Vec<&str> = text.split(['\r', '\n']).filter(|line| line.chars().count() > 80).collect();
        // A word that is longer, such as the type of a setting, is not cut.
        let cut: Vec<&&str> = long.iter().filter(|line| line.trim().contains(' ')).collect();
        assert!(cut.is_empty() && text.lines().count() > 5, "{args:?}: {cut:#?}");
    }
}

#[test]
fn help_says_what_to_type_first() {
    let text = |output: &Output| {
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    for args in [&[][..], &["--help"], &["-h"]] {
        let help = text(&linc(args));
        let first = help.find("linc train quickstart").unwrap_or_else(|| panic!("{args:?}: {help}"));
        assert!(help.find("linc generate outputs").is_some_and(|next| first < next), "{args:?}: {help}");
        assert!(help.contains("linc models") && help.contains("linc COMMAND --help"), "{args:?}: {help}");
    }
    for args in [&["train"][..], &["train", "--help"]] {
        let help = text(&linc(args));
        assert!(help.contains("Examples:\n  linc train configs/quickstart.toml\n"), "{args:?}: {help}");
        assert!(
            help.contains("linc train --list-settings") && help.contains("--job.dump_folder"),
            "{args:?}: {help}"
        );
    }
}
