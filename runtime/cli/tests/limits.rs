//! Limits of the system, and numbers that no machine has: all end in order, and by name.

use std::process::Output;

use crate::common::{Folder, linc, refuse, succeed};

const MODEL: &str = "models/llama3_nano.toml";

const ABSURD: [&str; 2] = ["1000000000000000000", "4294967297"];

#[test]
fn more_threads_than_the_machine_runs_are_not_started() {
    let folder = Folder::new("threads");
    let config = folder.config();
    for absurd in ABSURD.iter().chain(&["8000"]) {
        let output = linc(&["train", &config, "--training.steps", "1", "--training.threads", absurd]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{error}");
        assert!(
            error.contains("warning: running on ") && error.contains(&format!("instead of {absurd}")),
            "{error}"
        );
    }
}

#[test]
fn absurd_sizes_are_refused() {
    for absurd in ABSURD {
        for option in ["--seq", "--batch-size"] {
            refuse(&["bench", "memory", MODEL, "--rounds", "1", option, absurd], &[absurd]);
        }
        for option in ["--seq", "--batch-size", "--heads", "--rounds", "--warmup"] {
            refuse(&["bench", "attention", option, absurd], &[absurd]);
        }
        for option in ["--seq-len", "--batch-size"] {
            refuse(&["compile", MODEL, option, absurd], &[absurd]);
        }
    }
}

#[test]
fn an_impossible_truncation_is_drawn_at_once() {
    let folder = Folder::new("truncation");
    let model = folder.file(
        "model.toml",
        "name = \"a\"\nflavor = \"b\"\narchitecture = \"a.linc\"\ndim = 16\nn_layers = 1\nn_heads = 2\nvocab_size = 256\n",
    );
    folder.file(
        "a.linc",
        "model a(tokens: [batch, seq] int) {\n  param table [vocab_size, dim] init trunc_normal(1.0, 0.000000001)\n  \
         x = embedding(tokens, table)\n  logits = x @ table.T\n}\n",
    );
    let config = std::fs::read_to_string(folder.config()).expect("a config");
    let nano = config.lines().find(|line| line.starts_with("path = ")).expect("a model").to_string();
    let own = config
        .replace(&nano, &format!("path = {model:?}"))
        .replace("linear_attn_ratio = 0.5\n", "")
        .replace("[model.overrides]\ndim = 32\nn_layers = 2\n", "");
    let text = succeed(&["train", &folder.file("own.toml", own), "--training.steps", "1"]);
    assert!(text.contains("Training completed"), "{text}");
}

/// Runs `linc` with an address space of so many KiB.
#[cfg(target_os = "linux")]
fn within(kib: usize, args: &[&str]) -> Output {
    let script = format!("ulimit -v {kib}; exec \"$0\" \"$@\"");
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", &script, env!("CARGO_BIN_EXE_linc")])
        .args(args)
        .current_dir(crate::common::workspace());
    command.output().expect("sh runs")
}

#[cfg(target_os = "linux")]
#[test]
fn a_small_stack_is_no_reason_to_end() {
    for kib in [512, 1024, 8192] {
        let script = format!("ulimit -S -s {kib}; exec \"$0\" --version");
        let mut command = std::process::Command::new("sh");
        let output = command.args(["-c", &script, env!("CARGO_BIN_EXE_linc")]).output().expect("sh runs");
        assert!(output.status.success(), "{kib} KiB: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_limit_on_memory_is_called_by_its_name() {
    let folder = Folder::new("memory_limit");
    let config = folder.config();
    succeed(&["train", &config]);
    let step = folder.path("run/checkpoint/step-6").display().to_string();
    let wide = [
        "--checkpoint",
        &step,
        "--prompt",
        "the",
        "--tokens",
        "1",
        "--context",
        "2000000",
        "--device",
        "cpu",
    ];
    let generate = [&["generate"][..], &wide].concat();
    let mut named = 0;
    for kib in [59_000, 60_000, 100_000, 150_000, 200_000, 300_000, 500_000] {
        for args in [&generate[..], &["train", &config]] {
            let output = within(kib, args);
            let error = String::from_utf8_lossy(&output.stderr);
            // Where a little suffices there is nothing to refuse.
            assert!(
                matches!(output.status.code(), Some(0 | 2)),
                "{kib} KiB, {args:?}: {:?} {error}",
                output.status
            );
            assert!(!error.contains("panicked"), "{error}");
            named += usize::from(output.status.code() == Some(2) && error.contains("ulimit -v"));
        }
    }
    assert!(named > 0, "no run says what limits it");
}

#[test]
fn a_folder_has_the_files_of_one_program() {
    let folder = Folder::new("one_program");
    let list = |name: &str, part: &str| {
        let mut names: Vec<String> = std::fs::read_dir(folder.path(name).join(part))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let out = |name: &str| folder.path(name).display().to_string();
    let decode = ["compile", MODEL, "--seq-len", "32", "--entry", "decode", "--out"];
    succeed(&["compile", MODEL, "--seq-len", "64", "--out", &out("used")]);
    succeed(&[&decode[..], &[&out("used")]].concat());
    succeed(&[&decode[..], &[&out("new")]].concat());
    for part in ["graph", "kernels", ""] {
        assert_eq!(list("used", part), list("new", part));
    }
    folder.file("other/graph/02-attention.ir", "somebody's");
    refuse(&[&decode[..], &[&out("other")]].concat(), &["has a graph", "name an empty folder"]);
    assert_eq!(list("other", "graph"), ["02-attention.ir"]);
}
