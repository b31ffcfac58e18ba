//! What the plan says of memory, beside what a process takes.

use std::fs;

use crate::common::{Folder, succeed};
use serde_json::Value;

/// A row of the summary, `123.45 MiB`, in bytes.
pub(crate) fn row(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.trim_start().starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name}: {text}"));
    let words: Vec<&str> = line.split_whitespace().rev().take(2).collect();
    let unit = ["B", "KiB", "MiB", "GiB"].iter().position(|unit| *unit == words[0]).expect("a unit");
    words[1].parse::<f64>().expect("a number") * 1024f64.powi(unit as i32)
}

#[test]
fn a_process_takes_what_the_plan_says() {
    let folder = Folder::new("memory");
    let config = folder.config();
    let run = folder.path("run");
    let train = |settings: &str| {
        let settings: Vec<&str> = settings.split_whitespace().collect();
        let more = ["--checkpoint.enable", "false", "--validation.enable", "false", "--training.steps", "2"];
        let text = succeed(&[&["train", &config][..], &more, &settings].concat());
        let records = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics.jsonl");
        let record: Value = serde_json::from_str(records.lines().next().expect("a record")).expect("JSON");
        fs::remove_dir_all(&run).expect("removed");
        (row(&text, "arena memory"), row(&text, "process peak"), record)
    };
    // Code, threads and data of a process whose arena is next to nothing.
    let (arena, process, _) = train("--training.seq_len 32");
    let besides = process - arena;
    assert!(arena < f64::from(8 << 20) && besides < f64::from(192 << 20), "{arena} and {process} bytes");
    // Weights and moments are most, with and without gradients that are added up; activations are most.
    let cases = [
        ("--model.overrides.dim 1024 --model.overrides.n_layers 2", "optimizer_state"),
        (
            "--model.overrides.dim 1024 --model.overrides.n_layers 2 --training.global_batch_size 4",
            "optimizer_state",
        ),
        (
            "--model.overrides.dim 64 --training.seq_len 4096 --model.linear_attn_ratio 1 --training.batch_size 8",
            "activations",
        ),
    ];
    for (settings, most) in cases {
        let (arena, process, record) = train(settings);
        assert!(arena > f64::from(200 << 20), "{settings}: an arena of {arena} bytes tells nothing");
        // Besides, matmuls pack operands and initial values are drawn; and an arena has gaps.
        let error = process - besides - arena;
        assert!(
            error.abs() <= 0.05 * arena + f64::from(24 << 20),
            "{settings}: {process} bytes, with {besides} besides the arena's {arena}"
        );
        let memory = |name: &str| record["memory"][name].as_f64().expect("a number of bytes");
        let sum: f64 =
            record["memory"].as_object().expect("categories").keys().map(|name| memory(name)).sum();
        assert!(
            (sum - arena).abs() <= 0.05 * arena,
            "{settings}: categories of {sum} bytes, an arena of {arena}"
        );
        let kept = record["kept_memory"]["activations"].as_f64().expect("a number of bytes");
        assert!(kept > 0.0 && kept >= memory("activations"), "{settings}: {record}");
        match most {
            "optimizer_state" => assert_eq!(memory(most), 2.0 * memory("parameters"), "{settings}"),
            _ => assert!(memory(most) > 0.3 * arena, "{settings}: {record}"),
        }
    }
}
