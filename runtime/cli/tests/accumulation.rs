//! `training.global_batch_size`: several batches make one step.

mod common;

use std::fs;
use std::path::Path;

use common::{Folder, refuse, succeed};
use serde_json::Value;

fn records(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).expect("metrics.jsonl");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Trains into a folder of its own; what it measured.
fn train(folder: &Folder, name: &str, settings: &[&str]) -> Vec<Value> {
    let (config, run) = (folder.config(), folder.path(name).display().to_string());
    succeed(&[&["train", &config, "--job.dump_folder", &run][..], settings].concat());
    records(&folder.path(name))
}

fn numbers(records: &[Value], key: &str) -> Vec<f64> {
    records.iter().filter_map(|r| r[key].as_f64()).collect()
}

#[test]
fn batches_that_are_added_up_train_like_one_large_batch() {
    let folder = Folder::new("accumulation");
    // In 16 bits, a gradient that is divided by the number of batches rounds to other numbers.
    let cases = [
        ("0", "float32", 1.0),
        ("0.5", "float32", 1.0),
        ("1", "float32", 1.0),
        ("0.5", "bfloat16", 30.0),
        ("0.5", "float16", 4.0),
    ];
    for (ratio, precision, looser) in cases {
        let ratio = ["--model.linear_attn_ratio", ratio, "--training.mixed_precision_param", precision];
        let whole = train(&folder, "whole", &[&["--training.batch_size", "6"][..], &ratio].concat());
        let parts = train(&folder, "parts", &[&["--training.global_batch_size", "6"][..], &ratio].concat());
        // The validation of both is on the same text, in other batches.
        for (key, tolerance) in [("loss", 1e-4), ("grad_norm", 1e-3), ("tokens", 0.0), ("lr", 0.0)] {
            let (whole, parts) = (numbers(&whole, key), numbers(&parts, key));
            assert_eq!(whole.len(), parts.len(), "{key}");
            assert!(whole.len() >= 6, "{key}");
            for (a, b) in whole.iter().zip(&parts) {
                assert!((a - b).abs() <= looser * tolerance * a.abs(), "{ratio:?} {key}: {a} and {b}");
            }
        }
        fs::remove_dir_all(folder.path("whole")).expect("removed");
        fs::remove_dir_all(folder.path("parts")).expect("removed");
    }
}

#[test]
fn accumulation_repeats_and_resumes_with_the_same_bits() {
    let folder = Folder::new("accumulation_bits");
    let weights = |name: &str| {
        let step = folder.path(name).join("checkpoint/step-6");
        ["model.safetensors", "optimizer.safetensors", "state.json"]
            .map(|f| fs::read(step.join(f)).expect("read"))
    };
    let settings = ["--training.global_batch_size", "4", "--training.threads"];
    train(&folder, "one", &[&settings[..], &["1"]].concat());
    train(&folder, "two", &[&settings[..], &["2"]].concat());
    let whole = weights("one");
    assert!(whole == weights("two"), "the number of threads changes the bits");
    train(&folder, "one", &[&settings[..], &["2", "--checkpoint.load_step", "3"]].concat());
    assert!(whole == weights("one"), "resuming changes the bits");
}

#[test]
fn a_step_is_a_whole_number_of_batches() {
    let folder = Folder::new("accumulation_whole");
    let config = folder.config();
    refuse(
        &["train", &config, "--training.global_batch_size", "3"],
        &["global_batch_size", "multiple", "help:"],
    );
    let text = succeed(&["train", &config, "--training.global_batch_size", "4", "--profile"]);
    assert!(text.contains("local batch size 2, global batch size 4"), "{text}");
    // Once a step, and twice: the profile counts steps, not programs.
    let calls = |kernel: &str| {
        let row =
            text.lines().find(|l| l.starts_with(kernel)).unwrap_or_else(|| panic!("no {kernel}: {text}"));
        row.split_whitespace().nth(1).map(str::to_string)
    };
    assert_eq!(calls("norm_finish").as_deref(), Some("1.0"));
    assert_eq!(calls("embedding_grad").as_deref(), Some("2.0"));
}
