//! `linc compile --modes` and `--fit`.

use crate::common::{Folder, refuse, succeed};

const MODEL: &str = "models/llama3_nano.toml";

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn modes_are_compared() {
    let text = succeed(&["compile", MODEL, "--ratio", "0.5", "--seq-len", "256", "--modes"]);
    for mode in ["none", "selective", "selective 2", "full", "memory_budget 0.5"] {
        assert!(text.lines().any(|line| line.starts_with(&format!("{mode} "))), "{mode}: {text}");
    }
    let rows = json(&succeed(&["compile", MODEL, "--seq-len", "256", "--modes", "--format", "json"]));
    let rows = rows.as_array().expect("rows");
    assert!(rows[3]["peak_bytes"].as_u64() < rows[0]["peak_bytes"].as_u64(), "full takes less than none");
    assert!(rows[3]["recomputed_flops"].as_u64() > Some(0));
}

#[test]
fn the_batch_that_fits_can_be_trained_with() {
    let args = ["compile", MODEL, "--ratio", "0.5", "--seq-len", "128", "--fit", "100MiB"];
    let text = succeed(&args);
    let line = text.lines().find_map(|line| line.strip_prefix("batch_size = ")).expect("lines for a config");
    let batch: u64 = line.parse().expect("a number");
    let found = json(&succeed(&[&args[..], &["--format", "json"]].concat()));
    let best = &found["candidates"][found["best"].as_u64().expect("best") as usize];
    assert_eq!(best["batch"].as_u64(), Some(batch));
    assert!(best["peak_bytes"].as_u64() <= Some(100 << 20));
    let args = ["compile", MODEL, "--ratio", "0.5", "--seq-len", "128", "--recompute", "memory_budget"];
    let card = succeed(&[&args[..], &["--memory-budget", "100MiB", "--batch-size", line]].concat());
    assert!(card.contains("memory_budget 100MiB"), "{card}");
}

#[test]
fn what_cannot_fit_is_refused() {
    let fit = |args: &[&str], expected: &[&str]| refuse(&[&["compile", MODEL], args].concat(), expected);
    fit(&["--fit", "1MiB"], &["takes", "MiB", "or lower the batch size"]);
    fit(&["--fit", "0.5"], &["an amount of memory with its unit, such as 24GiB"]);
    fit(&["--fit", "much"], &["an amount of memory with its unit, such as 24GiB"]);
    fit(&["--fit", "1GiB", "--entry", "eval"], &["only a training step recomputes"]);
    fit(&["--modes", "--fit", "1GiB"], &["cannot be used with"]);
    fit(
        &["--recompute", "memory_budget", "--memory-budget", "1MiB"],
        &["help: raise the memory budget, or lower"],
    );
    let folder = Folder::new("fit_train");
    let mode =
        ["--activation_checkpoint.mode", "memory_budget", "--activation_checkpoint.memory_budget", "1KiB"];
    refuse(
        &[&["train", &folder.config()][..], &mode].concat(),
        &["command line: `--activation_checkpoint.memory_budget 1KiB`", "takes", "raise the memory budget"],
    );
}
