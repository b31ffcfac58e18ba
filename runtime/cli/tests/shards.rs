//! `linc tokenize`, and training on what it writes.

use std::fs;

use crate::common::{Folder, linc, refuse, succeed};

/// Distinct tales, a line each.
fn corpus(folder: &Folder) -> String {
    let line = |i: usize| {
        format!("{{\"text\": \"the {i}th fox met {} dogs and {} cats\"}}\n", i * i % 83, i * 7 % 31)
    };
    folder.file("corpus/a.jsonl", (0..2000).map(line).collect::<String>())
}

#[test]
fn shards_are_made_trained_on_and_validated_on() {
    let folder = Folder::new("shards");
    let (corpus, out) = (corpus(&folder), folder.path("shards").display().to_string());
    let tokenize = ["tokenize", &corpus, "--out", &out, "--held-out", "0.1", "--shard-tokens", "20000"];
    let said = succeed(&tokenize);
    assert!(
        said.contains("shards;") && said.contains("linc train CONFIG.toml --training.dataset_path"),
        "{said}"
    );
    assert!(succeed(&tokenize).contains("has all of it already"));
    assert!(fs::read_dir(&out).expect("a folder").count() > 4);
    let config = folder.config();
    let train = |more: &[&str]| {
        let args = ["train", &config, "--training.dataset_path", &out, "--training.steps", "4"];
        succeed(&[&args[..], more].concat())
    };
    let said = train(&["--validation.enable", "true"]);
    assert!(said.contains("byte 0 before each document, nothing after it"), "{said}");
    assert!(said.contains("bits per byte"), "{said}");
    // What was held out when they were made need not be enough for everybody.
    let none = folder.path("none").display().to_string();
    succeed(&["tokenize", &corpus, "--out", &none, "--held-out", "0"]);
    refuse(
        &["train", &config, "--training.dataset_path", &none, "--validation.enable", "true"],
        &["--held-out"],
    );
}

#[test]
fn what_cannot_be_tokenized_is_refused() {
    let folder = Folder::new("no_shards");
    let (corpus, out) = (corpus(&folder), folder.path("out").display().to_string());
    let with = |path: &str, more: &[&str], expected: &[&str]| {
        refuse(&[&["tokenize", path, "--out", &out][..], more].concat(), expected);
    };
    with(&folder.path("none").display().to_string(), &[], &["there is no such file"]);
    with(&corpus, &["--text-field", "body"], &["a.jsonl:1", "no field `body`", "--text-field"]);
    with(&corpus, &["--tokenizer", &out], &["--tokenizer"]);
    for (setting, value) in [("--held-out", "1"), ("--held-out", "x"), ("--shard-tokens", "10")] {
        with(&corpus, &[setting, value], &[setting, value]);
    }
    let file = folder.file("file", "in the way");
    refuse(&["tokenize", &corpus, "--out", &file], &["cannot write", "file"]);
    let other = linc(&["tokenize", &corpus]);
    assert_eq!(other.status.code(), Some(2), "--out is missing");
}
