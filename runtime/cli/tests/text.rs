//! Text in and out: special tokens, prompts, broken models.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use crate::common::{Folder, linc, refuse, succeed, workspace};

/// A folder's `generate --checkpoint` of its last step.
fn generate(folder: &Folder, step: usize) -> [String; 5] {
    let step = folder.path(&format!("run/checkpoint/step-{step}")).display().to_string();
    ["generate", "--device", "cpu", "--checkpoint", &step].map(str::to_owned)
}

fn with(command: &[String], args: &[&str]) -> Vec<String> {
    command.iter().cloned().chain(args.iter().map(|arg| (*arg).to_owned())).collect()
}

/// Runs `linc` with something piped in.
fn piped(args: &[String], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_linc"));
    command.args(args).current_dir(workspace()).env("CUDA_VISIBLE_DEVICES", "");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("linc runs");
    // A program that is content without it closes its end.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    child.wait_with_output().expect("linc ends")
}

#[test]
fn generation_starts_and_ends_as_documents_do() {
    let folder = Folder::new("special_tokens");
    let added = |id: usize, content: &str| {
        format!(
            r#"{{"id": {id}, "content": "{content}", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}}"#
        )
    };
    let tokenizer = format!(
        r#"{{"version": "1.0", "added_tokens": [{}, {}], "pre_tokenizer": {{"type": "Whitespace"}},
            "decoder": {{"type": "WordPiece", "prefix": "@@", "cleanup": false}},
            "model": {{"type": "WordLevel", "vocab": {{"?": 0, "hello": 1, "there": 2, "you": 3}}, "unk_token": "?"}}}}"#,
        added(4, "<GO>"),
        added(5, "<STOP>")
    );
    folder.file("tokenizer/tokenizer.json", tokenizer);
    // Nothing but this file says which tokens these are.
    folder.file("tokenizer/tokenizer_config.json", r#"{"bos_token": "<GO>", "eos_token": "<STOP>"}"#);
    let documents = folder.file("d.jsonl", "{\"body\": \"hello there you\"}\n".repeat(20));
    let tokenizer = folder.path("tokenizer").display().to_string();
    let settings = [
        ["--training.dataset_path", &documents],
        ["--training.text_field", "body"],
        ["--model.tokenizer_path", &tokenizer],
        ["--training.steps", "60"],
        ["--training.seq_len", "15"],
        ["--optimizer.lr", "0.01"],
        ["--validation.enable", "false"],
        ["--checkpoint.interval", "100"],
    ];
    let text = succeed(&[&["train", &folder.config()][..], &settings.concat()].concat());
    assert!(text.contains("    | hello there you\n"), "{text}");
    let wrong = [&settings.concat()[..], &["--training.text_field", "text"]].concat();
    refuse(
        &[&["train", &folder.config()][..], &wrong].concat(),
        &["d.jsonl:1", "no field `text`", "`body`", "training.text_field"],
    );
    // A checkpoint needs nothing else.
    std::fs::remove_dir_all(folder.path("tokenizer")).expect("removed");
    let greedy = with(&generate(&folder, 60), &["--greedy", "--tokens", "10", "--prompt"]);
    for prompt in ["", "hello", "hello there"] {
        assert_eq!(succeed(&with(&greedy, &[prompt])), "hello there you\n", "{prompt:?}");
    }
}

#[test]
fn prompts_come_from_arguments_files_and_pipes() {
    let folder = Folder::new("prompts");
    succeed(&["train", &folder.config()]);
    let generate = with(&generate(&folder, 6), &["--greedy", "--tokens", "6"]);
    let expected = succeed(&with(&generate, &["--prompt", "the quick"]));
    assert!(expected.starts_with("the quick"), "{expected}");
    let file = folder.file("prompt.txt", "\u{feff}the quick\r\n");
    assert_eq!(succeed(&with(&generate, &["--prompt-file", &file])), expected);
    for args in [&[][..], &["--prompt-file", "-"]] {
        let output = piped(&with(&generate, args), b"the quick\n");
        assert_eq!(
            (output.status.code(), output.stdout.as_slice()),
            (Some(0), expected.as_bytes()),
            "{args:?}"
        );
    }
    // A prompt that is given is the prompt.
    let output = piped(&with(&generate, &["--prompt", "the quick"]), b"brown");
    assert_eq!(output.stdout, expected.as_bytes());
    let output = piped(&generate, b"");
    assert_eq!(output.stdout, succeed(&with(&generate, &["--prompt", ""])).into_bytes());

    let both = with(&generate, &["--prompt", "a", "--prompt-file", &file]);
    refuse(&both, &["--prompt", "--prompt-file", "cannot be used with"]);
    refuse(&with(&generate, &["--prompt-file", &folder.path("none").display().to_string()]), &["none"]);
    let output = piped(&generate, b"caf\xe9");
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("standard input is not UTF-8 text: byte 3 is 0xe9"), "{error}");
}

#[test]
fn a_silent_pipe_is_waited_for_with_a_word() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_linc"));
    command.args(["generate", "--checkpoint", "none"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("linc runs");
    let pipe = child.stdin.take().expect("a pipe");
    let mut said = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let first = said.next().expect("a line").expect("UTF-8");
    assert_eq!(first, "reading the prompt from standard input; --prompt '' for none");
    drop(pipe);
    let rest: Vec<String> = said.map(|line| line.expect("UTF-8")).collect();
    assert!(rest.concat().contains("none") && child.wait().expect("ends").code() == Some(2), "{rest:?}");
}

#[test]
fn a_model_that_diverged_says_so() {
    let folder = Folder::new("diverged");
    let settings = [
        ["--optimizer.lr", "1e39"],
        ["--lr_scheduler.warmup_steps", "0"],
        ["--lr_scheduler.lr_min", "1.0"],
        ["--training.steps", "1"],
        ["--validation.enable", "false"],
    ];
    let text = succeed(&[&["train", &folder.config()][..], &settings.concat()].concat());
    assert!(text.contains("No sample of what the model writes") && !text.contains("    | "), "{text}");
    let generate = with(&generate(&folder, 1), &["--prompt", "the"]);
    refuse(&generate, &["step-1: after 4 tokens", "not finite", "diverged", "earlier checkpoint"]);
    assert!(linc(&generate).stdout.is_empty(), "no prompt that nothing follows");
    // Of many, each has a line that says so, in pieces as well.
    let prompts = folder.file("prompts.txt", "the\na\n");
    for stream in [&[][..], &["--stream"]] {
        let many = with(&self::generate(&folder, 1), &[&["--prompts", &prompts][..], stream].concat());
        let output = linc(&many);
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let failed = text.lines().filter(|line| line.contains("\"finish_reason\":\"error\"")).count();
        assert_eq!((output.status.code(), failed), (Some(2), 2), "{stream:?}: {text}");
    }
}

#[test]
fn a_run_that_diverges_ends_and_says_what_is_left() {
    let folder = Folder::new("diverges");
    // The first update makes infinities of the weights, which only the step after it can show.
    let settings =
        [["--optimizer.lr", "1e39"], ["--lr_scheduler.warmup_steps", "0"], ["--validation.enable", "false"]];
    let train = with(&["train".to_owned(), folder.config()], &settings.concat());
    let said =
        refuse(&train, &["step 2: loss is NaN", "no checkpoint before it", "help: lower optimizer.lr"]);
    assert!(!said.contains("checkpoint.load_step"), "{said}");
    let records = || std::fs::read_to_string(folder.path("run/metrics.jsonl")).expect("metrics.jsonl");
    assert_eq!(records().lines().count(), 1, "{}", records());
    assert!(!folder.path("run/checkpoint").exists(), "it saved what is spoilt");

    // What was saved right before the step has the weights that it failed with.
    let often = with(&train, &["--checkpoint.interval", "1", "--job.dump_folder"]);
    let often = with(&often, &[&folder.path("often").display().to_string()]);
    refuse(
        &often,
        &["last checkpoint is", "step-1", "it has the weights of this loss", "checkpoint.load_step"],
    );
}
