//! What a rank takes of memory, beside what its plan and `linc compile --world` say.
#![cfg(unix)]

use std::fs;

use serde_json::Value;

use crate::common::{Folder, succeed};
use crate::memory::row;
use crate::ranks::{launch, said};

/// One rank of two, which share batches, as `copies` of the optimizer say: bytes of its arena and of its process, and its first record.
fn rank_of_two(folder: &Folder, copies: &str, settings: &str) -> Option<(f64, f64, Value)> {
    let (config, run) = (folder.config(), folder.path("run"));
    let more = "--checkpoint.enable false --validation.enable false --training.steps 2 --parallelism.data_parallel_replicate_degree";
    let words: Vec<&str> = ["train", &config]
        .into_iter()
        .chain(more.split(' '))
        .chain([copies])
        .chain(settings.split(' '))
        .collect();
    let (code, text) = said(&launch("2", &words)?.output().expect("linc runs"));
    assert_eq!(code, Some(0), "{text}");
    let records = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics.jsonl");
    let record = serde_json::from_str(records.lines().next().expect("a record")).expect("JSON");
    fs::remove_dir_all(&run).expect("removed");
    Some((row(&text, "arena memory"), row(&text, "process peak"), record))
}

#[test]
fn a_rank_takes_what_the_plan_and_the_compiler_say() {
    let folder = Folder::new("memory_of_ranks");
    let mut moments = vec![];
    for (copies, shards) in [("2", "1"), ("1", "-1")] {
        // Of a rank whose arena is next to nothing: code, threads and what MPI takes.
        let Some((arena, process, _)) = rank_of_two(&folder, copies, "--training.seq_len 32") else { return };
        let besides = process - arena;
        let settings = "--model.overrides.dim 1024";
        let Some((arena, process, record)) = rank_of_two(&folder, copies, settings) else { return };
        assert!(arena > f64::from(200 << 20), "an arena of {arena} bytes tells nothing");
        let error = process - besides - arena;
        assert!(
            error.abs() <= 0.03 * arena + f64::from(24 << 20),
            "{copies} copies: {process} bytes, with {besides} besides the arena's {arena}"
        );
        let compiled = [
            "compile",
            "models/llama3_nano.toml",
            "--ratio",
            "0.5",
            "--set",
            "dim=1024",
            "--set",
            "n_layers=2",
            "--batch-size",
            "2",
            "--seq-len",
            "32",
            "--world",
            "2",
            "--data-parallel-shard-degree",
            shards,
            "--format",
            "json",
        ];
        let compiled: Value = serde_json::from_str(&succeed(&compiled)).expect("JSON");
        for (category, bytes) in record["memory"].as_object().expect("categories") {
            let predicted = compiled["memory"][category].as_f64().expect("a number of bytes");
            assert_eq!(Some(predicted), bytes.as_f64(), "{category} with {copies} copies");
        }
        moments.push(record["memory"]["optimizer_state"].as_f64().expect("a number of bytes"));
    }
    // But for what the parts are rounded up to.
    let part = moments[0] / 2.0;
    assert!((part..part + f64::from(2 * 4 * 16384)).contains(&moments[1]), "{moments:?}");
}
