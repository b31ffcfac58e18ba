//! A run that stops and goes on has the bits of one that never stopped: weights, optimizer, data position and metrics.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Folder, refuse, stoppable, succeed};
use serde_json::Value;

/// The learning rate must not depend on the number of steps, for runs that are stopped at a step nobody knows before.
const STEADY: [&str; 4] = ["--lr_scheduler.decay_ratio", "0", "--validation.freq", "2"];

/// All files of a checkpoint.
fn checkpoint(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, fs::read(path).expect("read"))
    };
    entries.map(file).collect()
}

/// What a run measured, without times.
fn measured(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).expect("metrics.jsonl");
    let timeless = |line: &str| {
        let mut record: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for key in ["tps", "step_ms", "data_ms", "tflops", "mfu", "true_mfu", "validation_tps"] {
            record.as_object_mut().expect("an object").remove(key);
        }
        record.to_string()
    };
    text.lines().map(timeless).collect()
}

/// Runs a config into a folder; what it printed.
fn train(folder: &Folder, name: &str, steps: usize, settings: &[&str]) -> String {
    let (config, steps) = (folder.config(), steps.to_string());
    let dump_folder = folder.path(name).display().to_string();
    let args = ["train", &config, "--job.dump_folder", &dump_folder, "--training.steps", &steps];
    succeed(&[&args[..], &STEADY, settings].concat())
}

/// A run that goes on until it is stopped, once it has done a few steps.
fn start(folder: &Folder, name: &str, settings: &[&str], stdout: Stdio) -> Child {
    let mut child = stoppable()
        .args(["train", &folder.config(), "--training.steps", "1000000", "--checkpoint.interval", "1000000"])
        .args(["--job.dump_folder", &folder.path(name).display().to_string()])
        .args(STEADY)
        .args(settings)
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .expect("linc runs");
    let begun = Instant::now();
    let metrics = folder.path(name).join("metrics.jsonl");
    while fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < 4 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no step after a minute");
        assert!(child.try_wait().expect("a status").is_none(), "the run ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// The only checkpoint of a run.
fn only_step(folder: &Folder, name: &str) -> usize {
    let steps: Vec<String> = fs::read_dir(folder.path(name).join("checkpoint"))
        .expect("checkpoints")
        .map(|e| e.expect("a checkpoint").file_name().to_string_lossy().into_owned())
        .collect();
    let [step] = &steps[..] else { panic!("not one checkpoint: {steps:?}") };
    step.strip_prefix("step-").and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{step}"))
}

#[test]
fn a_run_resumed_at_a_step_has_the_same_bits_and_metrics() {
    let folder = Folder::new("resume_bits");
    let runs = [
        ("shuffled", &[][..]),
        ("in_order", &["--training.shuffle", "false"]),
        ("bf16", &["--training.mixed_precision_param", "bfloat16"]),
        ("f16", &["--training.mixed_precision_param", "float16"]),
    ];
    for (name, settings) in runs {
        train(&folder, name, 7, settings);
        let whole = (checkpoint(&folder.path(name).join("checkpoint/step-7")), measured(&folder.path(name)));
        // Step 3 again, with the later checkpoint there and then without.
        let again = [settings, &["--checkpoint.load_step", "3"]].concat();
        let text = train(&folder, name, 7, &again);
        assert!(
            text.contains("step 3); later checkpoints stay until the run comes to their steps: 6, 7"),
            "{text}"
        );
        let last = folder.path(name).join("checkpoint/step-7");
        assert_eq!((checkpoint(&last), measured(&folder.path(name))), whole, "{name}");
        fs::remove_dir_all(&last).expect("removed");
        let text = train(&folder, name, 7, settings);
        assert!(text.contains("Resuming from") && text.contains("(step 6)"), "{text}");
        assert_eq!((checkpoint(&last), measured(&folder.path(name))), whole, "{name}");
    }
}

#[test]
fn a_resumed_recall_run_has_the_same_bits() {
    let folder = Folder::new("resume_recall");
    let recall = [
        ["--training.dataset", "mqar"],
        ["--training.mqar.vocab_size", "64"],
        ["--training.mqar.num_kv_pairs", "[2, 4]"],
        ["--training.mqar.num_examples", "12"],
        ["--training.mqar.num_validation_examples", "4"],
    ];
    let recall = recall.concat();
    let config = fs::read_to_string(folder.config()).expect("the config");
    let config: String =
        config.lines().filter(|l| !l.starts_with("dataset")).map(|l| format!("{l}\n")).collect();
    let config = folder.file("recall.toml", config);
    let run = |settings: &[&str]| {
        succeed(&[&["train", &config, "--training.steps", "7"][..], &recall, settings].concat());
        (checkpoint(&folder.path("run/checkpoint/step-7")), measured(&folder.path("run")))
    };
    let whole = run(&[]);
    assert_eq!(run(&["--checkpoint.load_step", "3"]), whole);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_goes_on_with_the_same_bits() {
    let folder = Folder::new("resume_interrupted");
    // Without checkpoint.enable too: Ctrl-C saves in any case.
    let off = ["--checkpoint.enable", "false"];
    for (name, settings, signal, code) in [("on", &[][..], "-TERM", 143), ("off", &off, "-INT", 130)] {
        let child = start(&folder, name, settings, Stdio::piped());
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
        let output = child.wait_with_output().expect("an end");
        assert_eq!(output.status.code(), Some(code));
        let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("Interrupted: ending in order"), "{said}");
        let step = only_step(&folder, name);
        let remedy = match name {
            "on" => "run the same command again".to_string(),
            _ => {
                let path = folder.path(name).display().to_string();
                format!("add --job.dump_folder {path} --checkpoint.load_step {step}")
            }
        };
        assert!(text.contains("Saved checkpoint"), "{text}");
        assert!(text.contains(&format!("Interrupted after step {step}; to go on, {remedy}")), "{text}");

        let load = step.to_string();
        train(&folder, name, step + 3, &["--checkpoint.load_step", &load]);
        let never = format!("{name}_never_stopped");
        train(&folder, &never, step + 3, &["--checkpoint.keep_latest_k", "1"]);
        let last = format!("checkpoint/step-{}", step + 3);
        assert_eq!(
            checkpoint(&folder.path(name).join(&last)),
            checkpoint(&folder.path(&never).join(&last)),
            "{name}"
        );
        assert_eq!(measured(&folder.path(name)), measured(&folder.path(&never)), "{name}");
    }
}

#[test]
fn a_run_whose_output_nobody_reads_any_more_saves_and_stops_quietly() {
    let folder = Folder::new("resume_pipe");
    let mut child = start(&folder, "run", &[], Stdio::piped());
    drop(child.stdout.take());
    let status = child.wait().expect("an end");
    assert_eq!(status.code(), Some(141));
    let mut said = String::new();
    child.stderr.take().expect("standard error").read_to_string(&mut said).expect("text");
    assert_eq!(said, "");
    let step = only_step(&folder, "run");
    let text = train(&folder, "run", step + 1, &[]);
    assert!(text.contains(&format!("Training starts at step {}", step + 1)), "{text}");
}

#[test]
fn an_earlier_start_does_not_lose_its_new_checkpoints_to_the_later_ones() {
    let folder = Folder::new("resume_keep");
    train(&folder, "run", 9, &["--checkpoint.keep_latest_k", "0"]);
    let keep =
        ["--checkpoint.load_step", "3", "--checkpoint.keep_latest_k", "2", "--checkpoint.interval", "2"];
    train(&folder, "run", 5, &keep);
    let there = |step: usize| folder.path(&format!("run/checkpoint/step-{step}")).is_dir();
    let steps: Vec<usize> = (1..=9).filter(|s| there(*s)).collect();
    assert_eq!(steps, [4, 5, 6, 9], "the two latest of this run, and those it has not come to");
}

#[test]
fn other_data_and_another_seed_are_refused() {
    let folder = Folder::new("resume_data");
    train(&folder, "run", 3, &[]);
    let before = (checkpoint(&folder.path("run/checkpoint/step-3")), measured(&folder.path("run")));
    let (config, run) = (folder.config(), folder.path("run").display().to_string());
    let other = folder.file("other.txt", "a stitch in time saves nine\n".repeat(300));
    for (setting, value, named) in [
        ("--training.dataset_path", other.as_str(), "training data"),
        ("--training.seed", "1", "training.seed"),
        ("--training.seq_len", "16", "training.seq_len"),
    ] {
        refuse(
            &["train", &config, "--job.dump_folder", &run, "--training.steps", "5", setting, value],
            &[named, "help:", "dump_folder"],
        );
    }
    assert_eq!((checkpoint(&folder.path("run/checkpoint/step-3")), measured(&folder.path("run"))), before);
}

#[test]
fn the_weights_of_a_softmax_model_may_start_a_hybrid() {
    let folder = Folder::new("resume_weights");
    train(&folder, "softmax", 3, &["--model.linear_attn_ratio", "0"]);
    let weights = folder.path("softmax/checkpoint/step-3").display().to_string();
    let text = train(&folder, "hybrid", 3, &["--checkpoint.initial_load_path", &weights]);
    assert!(text.contains("Starting from the weights of") && text.contains("starts at step 1."), "{text}");
    assert!(text.contains("other kinds of attention in layer 0 (softmax, now linear)"), "{text}");
}

#[test]
fn a_hybrid_with_parameters_of_its_own_starts_from_a_softmax_model_where_that_is_asked_for() {
    let folder = Folder::new("resume_linearize");
    let shipped = |name: &str| {
        let path = format!("{}/../../models/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(path).expect("a model")
    };
    let gate = "if kind == linear {\n param extra [dim] init ones\n h = h * extra\n }\n q =";
    folder.file("gated.linc", shipped("llama3.linc").replacen("q =", gate, 1));
    let toml = shipped("llama3_nano.toml").replace("llama3.linc", "gated.linc");
    let model = folder.file("gated.toml", toml);
    train(&folder, "softmax", 3, &["--model.path", &model, "--model.linear_attn_ratio", "0"]);
    let weights = folder.path("softmax/checkpoint/step-3").display().to_string();
    let hybrid = ["--model.path", &model, "--checkpoint.initial_load_path", &weights];
    let (config, run) = (folder.config(), folder.path("hybrid").display().to_string());
    let without = [&["train", &config, "--job.dump_folder", &run][..], &hybrid].concat();
    refuse(
        &without,
        &["no tensor layers.0.attention.extra.weight", "checkpoint.initial_load_linearize true"],
    );
    let linearize = [&hybrid[..], &["--checkpoint.initial_load_linearize", "true"]].concat();
    let text = train(&folder, "hybrid", 3, &linearize);
    let said = "other kinds of attention in layer 0 (softmax, now linear); what begins with initial values: \
                layers.0.attention.extra.weight";
    assert!(text.contains(said), "{text}");
    // And back: what only the hybrid has is left out, and said.
    let weights = folder.path("hybrid/checkpoint/step-3").display().to_string();
    let back = ["--model.path", &model, "--model.linear_attn_ratio", "0"];
    let start = ["--checkpoint.initial_load_path", &weights, "--checkpoint.initial_load_linearize", "true"];
    let text = train(&folder, "back", 3, &[&back[..], &start].concat());
    assert!(text.contains("what is not used: layers.0.attention.extra.weight"), "{text}");
    let other = folder.path("other").display().to_string();
    let whole =
        ["--checkpoint.initial_load_linearize", "true", "--checkpoint.initial_load_model_only", "false"];
    let args = [&["train", &config, "--job.dump_folder", &other][..], &hybrid, &whole].concat();
    refuse(&args, &["initial_load_linearize makes another model", "help:"]);
}

#[test]
fn measured_tiles_are_recorded_and_a_resumed_run_keeps_them() {
    let folder = Folder::new("resume_tiles");
    let tune = |name: &str, steps: &str, settings: &[&str]| {
        let (config, dump_folder) = (folder.config(), folder.path(name).display().to_string());
        // Two layers of softmax, over enough tokens that some size of tile usually wins.
        let own = ["train", &config, "--job.dump_folder", &dump_folder, "--training.steps", steps];
        let model = ["--model.linear_attn_ratio", "0", "--training.seq_len", "192"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_linc"));
        command.args(own).args(model).args(STEADY).args(settings);
        let output = command.env("LINC_CACHE_DIR", folder.path("cache")).output().expect("linc runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let on = ["--compile.autotune_seconds", "60"];
    let text = tune("run", "6", &on);
    assert_eq!(text.matches("(measured)").count(), 3, "{text}");
    let last = folder.path("run/checkpoint/step-6");
    let whole = checkpoint(&last);
    let state: Value = serde_json::from_slice(&whole["state.json"]).expect("state.json");
    let tiles = state["tiles"].as_object().expect("the choice");
    assert_eq!(tiles.len(), text.matches("x as fast").count(), "{text}");

    // Without the cache, and with and without asking: the same sizes and bits, and no measurement.
    fs::remove_dir_all(folder.path("cache")).expect("the cache");
    for settings in [&on[..], &[]] {
        fs::remove_dir_all(&last).expect("removed");
        let text = tune("run", "6", settings);
        assert!(text.contains("(step 3)") && !text.contains("(measured)"), "{text}");
        assert_eq!(text.matches("as the run was started with").count(), tiles.len(), "{text}");
        assert_eq!(checkpoint(&last), whole);
    }

    // A run that was started with linc's own sizes says that it stays with them.
    tune("plain", "3", &[]);
    let text = tune("plain", "6", &on);
    assert!(text.contains("Tile sizes are linc's own") && !text.contains("(measured)"), "{text}");
}

#[test]
fn shards_hold_what_one_file_does() {
    let folder = Folder::new("shards_of_weights");
    let config = folder.config();
    let run = |name: &str, rest: &[&str]| {
        let out = folder.path(name).display().to_string();
        succeed(&[&["train", &config, "--job.dump_folder", &out][..], rest].concat());
        folder.path(name).join("checkpoint")
    };
    let whole = run("whole", &[]);
    // Saved in shards, gone on with from these, and saved in others.
    run("cut", &["--training.stop_at_step", "3", "--checkpoint.max_shard_size", "20KB"]);
    let cut = run("cut", &["--checkpoint.max_shard_size", "\"30KB\""]);
    let names: Vec<String> = fs::read_dir(cut.join("step-6"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    for base in ["model", "optimizer"] {
        let first = format!("{base}-00001-of-");
        assert!(names.iter().any(|name| name.starts_with(&first)), "{names:?}");
        assert!(names.contains(&format!("{base}.safetensors.index.json")), "{names:?}");
    }
    let [whole, cut] = [whole, cut].map(|folder| folder.join("step-6").display().to_string());
    let text =
        |checkpoint: &str| succeed(&["generate", "--checkpoint", checkpoint, "--prompt", "a", "--seed", "3"]);
    assert_eq!(text(&whole).lines().next(), text(&cut).lines().next());
    let exported = |checkpoint: &str, name: &str| {
        let out = folder.path(name).display().to_string();
        succeed(&["export", checkpoint, "--out", &out]);
        fs::read(folder.path(name).join("model.safetensors")).expect("weights")
    };
    assert!(exported(&whole, "a") == exported(&cut, "b"), "other weights");
}

#[test]
fn what_is_recorded_is_the_share_that_results() {
    let folder = Folder::new("share");
    let text = fs::read_to_string(folder.config()).expect("the config");
    let checkpoint = folder.path("run").join("checkpoint/step-3");
    let cases = [
        ("linear_attn_ratio = 0.3", "4", "0.3 of 4 layers: 1 layer, 0.25 (uniform): LSSS", "0.25"),
        ("linear_attn_placement = [1]", "2", "0.5 (1): SL", "0.5"),
    ];
    for (setting, layers, said, share) in cases {
        let config = folder.file("share.toml", text.replace("linear_attn_ratio = 0.5", setting));
        let train = ["train", &config, "--training.steps", "3", "--model.overrides.n_layers", layers];
        let output = succeed(&train);
        assert!(output.contains(&format!("Linear attention ratio {said}")), "{output}");
        let state = fs::read_to_string(checkpoint.join("state.json")).expect("state.json");
        let state: Value = serde_json::from_str(&state).expect("JSON");
        assert_eq!(state["model"]["linear_attn_ratio"], share);
        let weights = fs::read(checkpoint.join("model.safetensors")).expect("weights");
        let header = String::from_utf8_lossy(&weights[8..1024]).into_owned();
        assert!(header.contains(&format!("\"linear_attn_ratio\":\"{share}\"")), "{header}");
        // The resolved config asks for the same layers, and the run goes on.
        let resolved = folder.path("run").join("config.toml").display().to_string();
        succeed(&["train", &resolved, "--training.steps", "4"]);
        fs::remove_dir_all(folder.path("run")).expect("removed");
    }
}
