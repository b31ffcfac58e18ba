//! `linc watch` and `linc completions`, as a user has them.

use std::fs;
use std::process::{Command, Stdio};

use crate::common::{Folder, linc, refuse, succeed};

#[test]
fn a_run_is_watched_as_text_where_there_is_no_terminal() {
    let folder = Folder::new("watch");
    let config = folder.config();
    succeed(&["train", &config, "--metrics.linear_health_freq", "3"]);
    let run = folder.path("run").display().to_string();
    for args in [&["watch", &run][..], &["watch", "--once", &run]] {
        let said = succeed(args);
        assert!(said.starts_with(&format!("{run} (finished)\n")), "{said}");
        assert!(said.contains("layers LS") && said.contains("6/6"), "{said}");
        assert!(
            said.contains("linear layers  effective positions ")
                && said.contains("fast path 100.0 % (step 6)"),
            "{said}"
        );
        for name in ["loss", "validation", "best", "tokens/s", "memory", "learning rate", "gradient norm"] {
            assert!(said.lines().any(|line| line.trim_start().starts_with(name)), "no {name:?} in {said}");
        }
    }
    // The numbers are those of the file.
    let text = fs::read_to_string(folder.path("run/metrics.jsonl")).expect("metrics");
    let last: serde_json::Value = text
        .lines()
        .rev()
        .find(|line| line.contains("\"loss\""))
        .and_then(|l| serde_json::from_str(l).ok())
        .expect("a record");
    let loss = format!("{:.4}", last["loss"].as_f64().expect("a loss"));
    assert!(succeed(&["watch", &run]).contains(&loss));
    // A folder of runs, one of which is cut off in a line.
    fs::create_dir_all(folder.path("other")).expect("a folder");
    fs::write(folder.path("other/metrics.jsonl"), &text[..text.len() / 2]).expect("written");
    let said = succeed(&["watch", &folder.0.display().to_string()]);
    assert!(said.contains("run (finished)") && said.contains("other (running)"), "{said}");
    refuse(
        &["watch", &folder.path("rum").display().to_string()],
        &["there is no such folder", "did you mean"],
    );
    refuse(&["watch", &config], &["a file", "metrics.jsonl"]);
    refuse(&["watch", &folder.path("run/checkpoint").display().to_string()], &["no run has written there"]);
}

#[test]
fn a_terminal_is_drawn_on_and_given_back() {
    let folder = Folder::new("watch_terminal");
    succeed(&["train", &folder.config()]);
    let run = folder.path("run").display().to_string();
    let command = format!("stty rows 30 cols 100; exec {} watch {run}", env!("CARGO_BIN_EXE_linc"));
    let mut script = Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = script.spawn() else {
        eprintln!("skipped: there is no program `script` to make a terminal with");
        return;
    };
    // Another curve, and the end.
    std::thread::sleep(std::time::Duration::from_millis(4000));
    std::io::Write::write_all(child.stdin.as_mut().expect("a pipe"), b"\tlq").expect("typed");
    let output = child.wait_with_output().expect("it ends");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    for words in ["\x1b[?1049h", "loss,", "learning", "finished", "\x1b[?1049l"] {
        assert!(shown.contains(words), "no {words:?} in {shown:?}");
    }
}

#[test]
fn shells_get_scripts_with_all_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = succeed(&["completions", shell]);
        for word in ["train", "watch", "compile", "max-shard-size"] {
            assert!(script.contains(word), "no {word} for {shell}");
        }
    }
    let script = succeed(&["completions", "bash"]);
    let complete = format!(
        "{script}\nCOMP_WORDS=(linc comp); COMP_CWORD=1; _linc linc comp linc; echo ${{COMPREPLY[@]}}"
    );
    if let Ok(output) = Command::new("bash").args(["-c", &complete]).output() {
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.trim(), "compile compare completions", "{}", String::from_utf8_lossy(&output.stderr));
    }
    let output = linc(&["completions", "cmd"]);
    assert_eq!(output.status.code(), Some(2));
}
