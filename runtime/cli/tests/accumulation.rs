//! `training.global_batch_size`: several batches make one step.

use std::fs;
use std::path::Path;

use crate::common::{Folder, refuse, succeed};
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
fn batches_count_by_their_targets() {
    let folder = Folder::new("accumulation_targets");
    let (config, run) = (folder.config(), folder.path("run"));
    // Sequences with 1 and 3 queries in turn, the rest of them without targets; the learning rate is 0, so that the steps
    // of a run all have the same weights.
    let settings = "--training.dataset mqar --training.mqar.vocab_size 64 --training.mqar.num_kv_pairs 1,3 \
                    --training.shuffle false --optimizer.lr 0 --validation.enable false --training.max_norm 1e30";
    let train = |settings: &[&str], batch: &str, steps: &str, more: &[&str]| {
        let shape = ["--training.batch_size", batch, "--training.steps", steps];
        let run = run.display().to_string();
        succeed(&[&["train", &config, "--job.dump_folder", &run][..], settings, &shape, more].concat());
        let records = records(Path::new(&run));
        fs::remove_dir_all(run).expect("removed");
        (numbers(&records, "loss"), numbers(&records, "grad_norm"))
    };
    // A data set that generates has no file.
    let text = fs::read_to_string(&config).expect("a config");
    let kept: Vec<&str> = text.lines().map(|l| if l.starts_with("dataset") { "" } else { l }).collect();
    fs::write(&config, kept.join("\n")).expect("written");
    let settings: Vec<&str> = settings.split_whitespace().collect();
    for (precision, tolerance) in [("float32", 1e-5), ("bfloat16", 2e-2), ("float16", 3e-3)] {
        let precision = ["--training.mixed_precision_param", precision];
        let (alone, _) = train(&settings, "1", "4", &precision);
        let expected = (alone[0] + 3.0 * alone[1] + alone[2] + 3.0 * alone[3]) / 8.0;
        let mean_of_means = alone.iter().sum::<f64>() / 4.0;
        assert!((expected - mean_of_means).abs() > 1e-3, "the sequences do not tell: {alone:?}");
        let (_, norm) = train(&settings, "4", "1", &precision);
        for batch in ["4", "2", "1"] {
            let more = [&precision[..], &["--training.global_batch_size", "4"]].concat();
            let (loss, grad_norm) = train(&settings, batch, "1", &more);
            for (found, expected) in [(loss[0], expected), (grad_norm[0], norm[0])] {
                let close = (found - expected).abs() <= tolerance * expected.abs();
                assert!(close, "{precision:?}, {batch} sequences a batch: {found} instead of {expected}");
            }
        }
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
    let often = ["--profiling.profile_freq", "3"];
    let text = succeed(
        &[&["train", &config, "--training.global_batch_size", "4", "--profile"][..], &often].concat(),
    );
    for part in ["linear layers: attention", "softmax layers: feed_forward", "optimizer", "loss"] {
        assert!(text.lines().any(|line| line.starts_with(part)), "{part}: {text}");
    }
    for step in [3, 6] {
        let path = folder.path(&format!("run/profile_traces/iteration_{step}/rank0_trace.json"));
        let trace = std::fs::read_to_string(&path).expect("a trace");
        let trace: serde_json::Value = serde_json::from_str(&trace).expect("JSON");
        let events = trace["traceEvents"].as_array().expect("events");
        // Two batches and an update, each kernel with its place in the model.
        let of = |what: &str| events.iter().filter(|e| e["args"]["operation"] == what).count();
        assert!(of("matmul") > 10 && of("adamw") == 1, "{} events", events.len());
        assert!(events.iter().any(|e| e["args"]["kind"] == "linear" && e["args"]["layer"] == 0));
    }
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

#[test]
fn an_overflow_is_forgotten_by_the_next_step() {
    let folder = Folder::new("accumulation_overflow");
    // What the model computes is of usual size, but the gradient of its embedding is beyond f16 until the scale of the loss
    // has come down several times.
    let sizes =
        "name = \"steep\"\nflavor = \"t\"\narchitecture = \"steep.linc\"\nn_heads = 4\nvocab_size = 256\n";
    let model = folder.file("steep.toml", format!("{sizes}dim = 32\nn_layers = 1\n"));
    folder.file(
        "steep.linc",
        "model steep(tokens: [batch, seq] int) {\n  param e [vocab_size, dim] init normal(0.0001)\n  \
         param head [vocab_size, dim] init normal(1.0)\n  x = embedding(tokens, e)\n  for _layer in layers {\n    \
         param w [dim, dim] init trunc_normal(0.02)\n    h = split_heads(x @ w.T, n_heads)\n    \
         x = x + merge_heads(attention(h, h, h))\n  }\n  logits = (x * 4096) @ head.T\n}\n",
    );
    let settings = "--training.mixed_precision_param float16 --training.global_batch_size 4 --training.steps 30 \
                    --optimizer.lr 1e-6 --validation.enable false";
    let settings: Vec<&str> = settings.split_whitespace().collect();
    let records = train(&folder, "run", &[&["--model.path", &model][..], &settings].concat());
    let skipped = numbers(&records, "skipped_steps");
    assert_eq!(skipped.len(), 30);
    assert!(skipped[29] >= 2.0, "nothing overflowed: {skipped:?}");
    assert!(skipped[29] <= 15.0, "one overflow is followed by others for ever: {skipped:?}");
    assert_eq!(skipped[29], skipped[20], "it goes on without: {skipped:?}");
    let norms = numbers(&records[20..], "grad_norm");
    assert!(norms.len() == 10 && norms.iter().all(|norm| norm.is_finite() && *norm > 0.0), "{norms:?}");
}
