//! What the commands give: cards, dumps, runs that repeat and resume with the same bits, generated text.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Folder, linc, stoppable, succeed, workspace};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The numbers in a checkpoint: the files behind their headers, whose metadata come in any order.
fn checkpoint(folder: &Path) -> Vec<Vec<u8>> {
    let read = |name| {
        let bytes = fs::read(folder.join(name)).expect("a checkpoint's file");
        let (length, rest) = bytes.split_first_chunk().expect("a header's length");
        rest[u64::from_le_bytes(*length) as usize..].to_vec()
    };
    ["model.safetensors", "optimizer.safetensors"].map(read).to_vec()
}

/// Number of bytes that differ.
fn differences(a: &[Vec<u8>], b: &[Vec<u8>]) -> usize {
    assert_eq!(a.iter().map(Vec::len).sum::<usize>(), b.iter().map(Vec::len).sum::<usize>());
    a.iter().flatten().zip(b.iter().flatten()).filter(|(a, b)| a != b).count()
}

fn records(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).expect("metrics.jsonl");
    text.lines().map(json).collect()
}

#[test]
fn compile_prints_the_layer_map_and_one_json_object() {
    let text = succeed(&["compile", "models/llama3_1b.toml", "--ratio", "0.75"]);
    assert!(text.contains("LLLS LLLS LLLS LLLS"), "{text}");
    assert!(text.contains("1,235,814,400"), "{text}");
    let card = json(&succeed(&["compile", "models/llama3_1b.toml", "--ratio", "3/4", "--format", "json"]));
    assert_eq!(card["params"], 1_235_814_400u64);
    let layers: Vec<&str> =
        card["layers"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(layers.len(), 16);
    assert_eq!(&layers[..4], ["linear", "linear", "linear", "softmax"]);
    let parts: u64 = card["memory"].as_object().expect("parts").values().filter_map(Value::as_u64).sum();
    let peak = card["peak_bytes"].as_u64().expect("a number");
    assert!(parts <= peak && parts > peak / 2, "{parts} of {peak} bytes");
    assert_eq!(card["floor_bytes"].as_u64(), Some(parts));
    assert!(text.contains(" times the ") && text.contains(" in use at the fullest step"), "{text}");
    assert!(card["flops_per_token"].as_u64() > Some(6 * 1_000_000_000));
    assert!(card["kernels"].as_array().expect("a list").len() > 10);
}

#[test]
fn compile_writes_every_stage() {
    let folder = Folder::new("stages");
    let out = folder.path("out");
    let args = ["compile", "models/llama3_nano.toml", "--ratio", "0.5", "--seq-len", "64", "--out"];
    succeed(&[&args[..], &[&out.display().to_string()]].concat());
    for name in ["plan.json", "memory.txt", "graph/01-build.ir", "graph/final.dot"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let plan = json(&fs::read_to_string(out.join("plan.json")).expect("the plan"));
    for kernel in plan["kernels"].as_array().expect("a list") {
        let name = kernel["name"].as_str().expect("a name");
        for kind in ["tile", "clif"] {
            assert!(out.join(format!("kernels/{name}.{kind}")).is_file(), "{name}.{kind}");
        }
    }
    let graph = succeed(&["compile", "models/llama3_nano.toml", "--dump", "attention"]);
    assert!(graph.contains("softmax_attention("), "{graph}");
}

#[test]
fn every_program_of_a_model_compiles() {
    for entry in ["train", "eval", "forward", "prefill", "decode"] {
        let args =
            ["compile", "models/llama3_nano.toml", "--ratio", "0.5", "--entry", entry, "--format", "json"];
        assert_eq!(json(&succeed(&args))["entry"], entry);
    }
}

#[test]
fn a_run_writes_its_config_metrics_and_checkpoints() {
    let folder = Folder::new("run");
    let text = succeed(&["train", &folder.config(), "--optimizer.lr", "0.02"]);
    for word in ["LS", "loss:", "grad_norm:", "tps:", "mfu:", "validation loss", "bits per byte", "sample"] {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
    let run = folder.path("run");
    let records = records(&run);
    let steps: Vec<&Value> = records.iter().filter(|r| r["loss"].is_number()).collect();
    assert_eq!(steps.len(), 6);
    for key in ["grad_norm", "lr", "tokens", "tps", "step_ms", "data_ms"] {
        assert!(steps.iter().all(|r| r[key].is_number()), "{key}");
    }
    assert!(steps[0]["memory"]["attention"].is_number());
    assert!(steps[5]["loss"].as_f64() < steps[0]["loss"].as_f64(), "the loss falls");
    let state = json(&fs::read_to_string(run.join("checkpoint/step-6/state.json")).expect("state.json"));
    assert_eq!(state["model"]["layers"], serde_json::json!(["linear", "softmax"]));
    // The resolved config is a config: it names a finished run.
    let (config, here) = (run.join("config.toml").display().to_string(), run.display().to_string());
    let again = succeed(&["train", &config, "--job.dump_folder", &here]);
    assert!(again.contains("Nothing is left to train"), "{again}");
    let card = succeed(&["inspect", &run.join("checkpoint/step-6").display().to_string()]);
    assert!(card.contains("step 6") && card.contains("LS"), "{card}");
}

#[test]
fn the_same_seed_gives_the_same_bits_for_any_number_of_threads_and_another_seed_does_not() {
    let folder = Folder::new("seeds");
    let config = folder.config();
    let run = |name: &str, settings: &[&str]| {
        let out = folder.path(name);
        let dump_folder = out.display().to_string();
        succeed(&[&["train", &config, "--job.dump_folder", &dump_folder][..], settings].concat());
        checkpoint(&out.join("checkpoint/step-6"))
    };
    let first = run("first", &["--training.threads", "1"]);
    assert_eq!(differences(&first, &run("second", &["--training.threads", "1"])), 0);
    assert_eq!(differences(&first, &run("threads", &["--training.threads", "2"])), 0);
    assert_ne!(differences(&first, &run("other", &["--training.threads", "1", "--training.seed", "1"])), 0);
    // What the backward computes again are the same operations.
    for (name, mode, more) in [
        ("none", "none", &[][..]),
        ("layers", "selective", &["--activation_checkpoint.selective_ac_option", "2"]),
        ("full", "full", &[]),
        ("budget", "memory_budget", &["--activation_checkpoint.memory_budget", "0.3"]),
    ] {
        let mode = [&["--activation_checkpoint.mode", mode][..], more].concat();
        assert_eq!(differences(&first, &run(name, &mode)), 0, "{name}");
    }
}

#[test]
fn a_resumed_run_has_the_bits_of_one_that_never_stopped() {
    let folder = Folder::new("resume");
    let config = folder.config();
    succeed(&["train", &config]);
    let whole = checkpoint(&folder.path("run/checkpoint/step-6"));
    fs::remove_dir_all(folder.path("run/checkpoint/step-6")).expect("remove");
    succeed(&["train", &config, "--checkpoint.load_step", "3"]);
    assert_eq!(differences(&checkpoint(&folder.path("run/checkpoint/step-6")), &whole), 0);
    let steps: Vec<u64> = records(&folder.path("run"))
        .iter()
        .filter(|r| r["loss"].is_number())
        .filter_map(|r| r["step"].as_u64())
        .collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6], "no step is recorded twice");
}

#[test]
fn each_start_writes_events_for_tensorboard() {
    let folder = Folder::new("tensorboard");
    let train = ["train", &folder.config(), "--metrics.enable_tensorboard", "true"];
    succeed(&train);
    let sizes = || -> Vec<u64> {
        let entries = fs::read_dir(folder.path("run/tb")).expect("a folder of events");
        entries.map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").len()).collect()
    };
    assert!(matches!(sizes()[..], [bytes] if bytes > 500), "{:?}", sizes());
    succeed(&[&train[..], &["--checkpoint.load_step", "3"]].concat());
    assert_eq!(sizes().len(), 2);
    // What was done again is kept aside.
    let aside = fs::read_to_string(folder.path("run/metrics-superseded.jsonl")).expect("records");
    assert!(aside.lines().count() >= 3, "{aside}");
}

#[test]
fn generation_repeats_and_greedy_text_does_not_depend_on_the_seed() {
    let folder = Folder::new("generate");
    succeed(&["train", &folder.config(), "--training.steps", "30"]);
    let step = folder.path("run/checkpoint/step-30").display().to_string();
    let generate = |args: &[&str]| {
        succeed(
            &[&["generate", "--checkpoint", &step, "--prompt", "the quick", "--tokens", "12"][..], args]
                .concat(),
        )
    };
    let greedy = generate(&["--greedy"]);
    assert!(greedy.starts_with("the quick"), "{greedy}");
    assert_eq!(greedy, generate(&["--greedy", "--seed", "9"]));
    assert_eq!(generate(&["--seed", "4"]), generate(&["--seed", "4"]));
}

/// The shipped configs are right, as far as it shows without training: another device would refuse them earlier.
#[test]
fn shipped_configs_are_read_and_their_models_compile() {
    let configs = fs::read_dir(workspace().join("configs")).expect("configs");
    let mut count = 0;
    for entry in configs {
        let path = entry.expect("a config").path();
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name").to_string();
        // A wrong value at the end is only met if all others were read.
        let command = if name.starts_with("sweep_") { "sweep" } else { "train" };
        let output = linc(&[command, &format!("configs/{name}"), "--training.seq_len", "0"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(error.matches("error").count(), 1, "{name}: {error}");
        assert!(error.contains("seq_len"), "{name}: {error}");
        count += 1;
    }
    assert!(count >= 9, "{count} configs");
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_saves_a_checkpoint_and_goes_on_from_there() {
    let folder = Folder::new("interrupt");
    let config = folder.config();
    let settings =
        ["--training.steps", "100000", "--checkpoint.interval", "100000", "--validation.enable", "false"];
    let mut child = stoppable()
        .args(["train", &config])
        .args(settings)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("linc runs");
    let metrics = folder.path("run/metrics.jsonl");
    let begun = Instant::now();
    while fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < 3 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no step after a minute");
        assert!(child.try_wait().expect("a status").is_none(), "the run ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
    // Its output is read while it ends, or a full pipe would stop it.
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(130));
    let text = String::from_utf8_lossy(&output.stdout);
    let line =
        text.lines().find(|l| l.contains("Interrupted after step")).unwrap_or_else(|| panic!("{text}"));
    let step: usize = line
        .split("after step ")
        .nth(1)
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("{line}"));
    assert!(folder.path(&format!("run/checkpoint/step-{step}/state.json")).is_file());
    let more = (step + 2).to_string();
    let again = succeed(&["train", &config, "--training.steps", &more, "--validation.enable", "false"]);
    assert!(again.contains(&format!("Training starts at step {}", step + 1)), "{again}");
}
