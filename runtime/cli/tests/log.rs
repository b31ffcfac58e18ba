//! `--quiet` and `--log-format json`, on every command: what is said beside results, which stay as they are.

use crate::common::{Folder, linc, refuse, succeed};
use serde_json::Value;

/// The lines of a log of objects.
fn objects(text: &str) -> Vec<Value> {
    let read = |line: &str| -> Value { serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")) };
    let lines: Vec<Value> = text.lines().map(read).collect();
    let is_whole = |line: &&Value| {
        line["level"].is_string() && line["time"].as_str().is_some_and(|time| time.ends_with('Z'))
    };
    assert_eq!(lines.iter().filter(is_whole).count(), lines.len(), "{text}");
    lines
}

/// What a command that succeeds prints, and what it says beside that.
fn said(args: &[&str]) -> (String, String) {
    let output = linc(args);
    let [printed, said] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
    assert_eq!(output.status.code(), Some(0), "linc {}: {said}", args.join(" "));
    (printed, said)
}

/// What the lines of one level say, in their order.
fn messages(lines: &[Value], level: &str) -> Vec<String> {
    let of_level = lines.iter().filter(|line| line["level"] == level);
    of_level.map(|line| line["message"].as_str().expect("a message").to_owned()).collect()
}

#[test]
fn the_log_of_a_run_may_be_objects_or_silent() {
    let folder = Folder::new("log_format");
    let config = folder.config();
    // Wherever the option stands.
    for (number, args) in [
        ["--log-format", "json", &config, ""],
        [&config, "--log-format", "json", ""],
        [&config, "--log-format=json", "", ""],
    ]
    .iter()
    .enumerate()
    {
        let run = folder.path(&format!("run{number}")).display().to_string();
        let args: Vec<&str> = args.iter().copied().filter(|arg| !arg.is_empty()).collect();
        let said = succeed(&[&["train"][..], &args, &["--job.dump_folder", &run]].concat());
        let lines = objects(&said);
        let records: Vec<&Value> = lines.iter().filter(|line| line["record"].is_object()).collect();
        assert_eq!(records.len(), 8, "six steps, two validations: {said}");
        assert!(
            records.iter().any(|line| line["record"]["step"] == 6 && line["record"]["loss"].is_f64()),
            "{said}"
        );
        assert!(lines.last().is_some_and(|line| line["summary"]["step"] == 6), "{said}");
    }
    refuse(&["train", &config, "--log-format", "xml"], &["possible values: text, json"]);
    let behind = ["train", &config, "--training.steps", "1", "--log-format", "xml"];
    refuse(&behind, &["--log-format takes text or json"]);
    let run = folder.path("objects").display().to_string();
    // A machine with other work is slow now and then, which is a warning.
    let calm = ["--alerts.enable", "false", "--job.dump_folder", &run];
    let said = succeed(&[&["train", &config, "--quiet", "--log-format", "json"][..], &calm].concat());
    let said = objects(&said);
    assert!(said.len() == 1 && said[0]["summary"]["step"] == 6, "{said:?}");
    let run = folder.path("quiet").display().to_string();
    let output = linc(&["train", &config, "--quiet", "--training.steps", "1", "--job.dump_folder", &run]);
    let (said, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.starts_with("Training completed\n") && !said.contains("INFO"), "{said}");
    assert!(warned.contains("warning: ") && warned.contains("warmup"), "{warned}");
}

#[test]
fn remarks_are_lines_or_objects_or_not_said_and_results_are_the_same() {
    let folder = Folder::new("log_remarks");
    let config = folder.config();
    succeed(&["train", &config, "--quiet"]);
    let step = folder.path("run/checkpoint/step-6").display().to_string();
    let text = folder.path("text.txt").display().to_string();
    let out = folder.path("eval").display().to_string();
    let eval = ["eval", &step, "--text", &text, "--limit", "3", "--stride", "16", "--out", &out];
    succeed(&eval);
    // Each has something to say, which ends with these words.
    let prompts = folder.file("prompts.txt", "the quick\nthe lazy\n");
    for (args, words) in [
        (&eval[..], "samples are there already"),
        (&["generate", &step, "--prompts", &prompts, "--tokens", "4", "--greedy"], "memory of a sequence"),
        (
            &["bench", "attention", "--head-dim", "16", "--seq", "32", "--rounds", "1", "--format", "json"],
            "16 features",
        ),
    ] {
        let (printed, plain) = said(args);
        assert!(plain.contains(words), "{plain}");
        let (quiet, nothing) = said(&[args, &["--quiet"]].concat());
        assert_eq!(nothing, "", "{args:?}");
        let (other, lines) = said(&[&["--log-format", "json"], args].concat());
        let lines = objects(&lines);
        let expected: Vec<&str> = plain.lines().collect();
        let infos = messages(&lines, "info");
        // Times differ from run to run.
        assert_eq!((infos.len(), lines.len()), (expected.len(), expected.len()), "{lines:?}");
        if args[0] != "bench" {
            assert_eq!((&quiet, &other), (&printed, &printed));
        }
    }
}

#[test]
fn warnings_and_errors_are_said_by_a_quiet_command_too() {
    let folder = Folder::new("log_warnings");
    let config = folder.config();
    // The warm-up is longer than the run.
    let args = ["config", &config, "--training.steps", "1"];
    let (printed, warning) = said(&args);
    let (quiet, same) = said(&[&args[..], &["--quiet"]].concat());
    assert_eq!((&quiet, &same), (&printed, &warning));
    let (other, lines) = said(&[&args[..], &["--log-format", "json"]].concat());
    let warnings = messages(&objects(&lines), "warning");
    assert_eq!(other, printed);
    assert_eq!(format!("warning: {}\n", warnings.join("\nwarning: ")), warning);

    let nowhere = ["inspect", "no_such_model.toml"];
    let plain = refuse(&nowhere, &["no_such_model.toml"]);
    let output = linc(&[&nowhere[..], &["--quiet", "--log-format=json"]].concat());
    assert_eq!(output.status.code(), Some(2));
    let lines = objects(std::str::from_utf8(&output.stderr).expect("UTF-8"));
    let errors = messages(&lines, "error");
    assert!(lines.len() == 1 && plain.trim_end().ends_with(&errors[0]), "{errors:?}");
    // An option that is nearly one of these.
    refuse(&["train", "--quite", &config], &["did you mean --quiet?"]);
    refuse(&["models", "--log-format", "yaml"], &["possible values: text, json"]);
}

/// Of runs that are started by others: of a sweep, and of ranks, which say what the program that starts them was asked to.
#[test]
fn a_sweep_is_quiet_or_says_objects() {
    let folder = Folder::new("log_sweep");
    folder.config();
    let sweep = |name: &str| {
        let to = folder.path(name).display().to_string();
        let text = format!(
            "base = \"config.toml\"\n[sweep]\ndump_folder = {to:?}\n[sweep.parameters]\ntraining.seed = [1, 2]\n"
        );
        folder.file(&format!("{name}.toml"), text)
    };
    let (table, nothing) = said(&["sweep", &sweep("quiet"), "--quiet"]);
    assert!(nothing.is_empty() && table.contains("Wrote "), "{table}{nothing}");
    let (_, lines) = said(&["sweep", &sweep("objects"), "--log-format", "json"]);
    let infos = messages(&objects(&lines), "info");
    assert!(infos.iter().any(|line| line.starts_with("[2/2] ")), "{infos:?}");
}
