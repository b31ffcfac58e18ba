//! `linc eval` as a user has it: numbers of a run, of the same model as a Hugging Face folder, after a kill, and what is refused.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Folder, linc, refuse, stoppable, succeed};

/// A trained run; its folder.
fn trained(folder: &Folder, ratio: &str) -> String {
    succeed(&["train", &folder.config(), "--model.linear_attn_ratio", ratio]);
    folder.path("run").display().to_string()
}

fn results(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("results.json")).expect("results")).expect("JSON")
}

#[test]
fn a_run_and_its_export_have_the_same_numbers() {
    let folder = Folder::new("eval");
    let run = trained(&folder, "0");
    let text = folder.path("text.txt").display().to_string();
    let [one, other, foreign] =
        ["one", "other", "foreign"].map(|name| folder.path(name).display().to_string());
    let said = succeed(&[
        "eval",
        &run,
        "--tasks",
        "text,copy,mqar",
        "--text",
        &text,
        "--limit",
        "5",
        "--out",
        &one,
        "--stride",
        "16",
    ]);
    for words in [
        "layers SS",
        "context 32, float32",
        "BOS (0) before a context",
        "perplexity",
        "copy v1",
        "results.json",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }
    let found = results(Path::new(&one));
    let text_result = &found["tasks"]["text"];
    assert_eq!(text_result["version"], 1);
    assert_eq!(text_result["prompt_hash"].as_str().map(str::len), Some(64));
    let metrics = &text_result["metrics"];
    let value = |name: &str| metrics[name]["value"].as_f64().expect("a number");
    assert!((value("perplexity").ln() - value("loss")).abs() < 1e-9);
    assert!(
        (value("bits_per_byte") - value("loss") / std::f64::consts::LN_2).abs() < 1e-9,
        "bytes are tokens"
    );
    let interval = metrics["loss"]["ci95"].as_array().expect("an interval");
    assert!(interval[0].as_f64() < metrics["loss"]["value"].as_f64());
    let lines = fs::read_to_string(folder.path("one/samples_text.jsonl")).expect("records");
    assert_eq!(lines.lines().count() as u64, text_result["samples"].as_u64().expect("a number"));
    assert_eq!(found["tasks"]["copy"]["samples"], 5);

    // As Hugging Face has it, it is the same model, to the bit.
    succeed(&["export", &format!("{run}/checkpoint/step-6"), "--out", &foreign]);
    succeed(&[
        "eval",
        &foreign,
        "--text",
        &text,
        "--out",
        &other,
        "--context",
        "32",
        "--limit",
        "5",
        "--stride",
        "16",
    ]);
    assert_eq!(results(Path::new(&other))["tasks"]["text"]["metrics"], *metrics);
    assert!(!folder.path("other/imported").exists(), "what was made for it is gone");

    // The same command again has nothing to do; another model, or other samples, are not mixed with these.
    let again = ["eval", &run, "--text", &text, "--limit", "5", "--out", &one, "--stride", "16"];
    let output = linc(&again);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("are there already"));
    assert!(results(Path::new(&one))["tasks"]["copy"].is_object(), "results of other tasks stay");
    refuse(
        &["eval", &foreign, "--text", &text, "--limit", "5", "--out", &one, "--stride", "16"],
        &["another model"],
    );
    refuse(
        &["eval", &run, "--text", &text, "--limit", "4", "--out", &one, "--stride", "16"],
        &["another setting", "limit"],
    );
}

#[test]
#[cfg(unix)]
fn an_evaluation_that_was_killed_goes_on_and_ends_with_the_same_numbers() {
    let folder = Folder::new("eval_killed");
    let run = trained(&folder, "0.5");
    let text = folder.file("long.txt", "the quick brown fox jumps over the lazy dog\n".repeat(300));
    let args = |out: &str| {
        let out = folder.path(out).display().to_string();
        ["eval", &run, "--text", &text, "--out", &out, "--device", "cpu", "--stride", "4"].map(str::to_owned)
    };
    succeed(&args("whole"));
    let path = folder.path("killed/samples_text.jsonl");
    let mut child = stoppable()
        .args(args("killed"))
        .env("CUDA_VISIBLE_DEVICES", "")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("linc runs");
    let begun = Instant::now();
    while fs::metadata(&path).map_or(0, |about| about.len()) < 10_000 {
        assert!(begun.elapsed() < Duration::from_secs(120), "it writes records");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("it is there");
    child.wait().expect("it was there");
    let kept = fs::read(&path).expect("records");
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    succeed(&args("killed"));
    let whole = fs::read(folder.path("whole/samples_text.jsonl")).expect("records");
    assert!(lines(&kept) < lines(&whole), "it was killed before its end");
    assert!(fs::read(&path).expect("records") == whole, "no sample is there twice, and none is missing");
    let metrics = |out: &str| results(&folder.path(out))["tasks"]["text"]["metrics"].clone();
    assert_eq!(metrics("killed"), metrics("whole"));
}

#[test]
fn what_cannot_be_evaluated_is_refused() {
    let folder = Folder::new("eval_refused");
    let run = trained(&folder, "0.5");
    let text = folder.path("text.txt").display().to_string();
    let out = folder.path("out").display().to_string();
    let refused = |args: &[&str], words: &[&str]| {
        refuse(&[&["eval", run.as_str(), "--out", &out], args].concat(), words);
    };
    refused(&[], &["no task is asked for", "--list-tasks"]);
    refused(&["--tasks", "mmlo"], &["no task \"mmlo\"", "did you mean mmlu?"]);
    refused(&["--tasks", "copy,copy"], &["asked for twice"]);
    refused(&["--tasks", "text"], &["needs a text", "--text"]);
    refused(&["--text", "none.txt"], &["none.txt"]);
    refused(
        &["--tasks", "mmlu", "--data", "no_such_folder"],
        &["no_such_folder", "no such folder", "--data"],
    );
    refused(&["--text", &text, "--bos", "autoo"], &["--bos is \"autoo\"", "did you mean"]);
    refused(&["--tasks", "copy", "--stride", "8"], &["--stride is read by none", "text, wikitext"]);
    refused(&["--text", &text, "--lengths", "32"], &["--lengths is read by none", "mqar"]);
    refused(&["--text", &text, "--stride", "33"], &["--stride is 33"]);
    refused(&["--tasks", "copy", "--lengths", "64"], &["--lengths has 64", "--context of 64"]);
    refused(&["--tasks", "hellaswag", "--shots", "3"], &["no examples", "--shots"]);
    for count in ["999999999999999999", "1000000000", "1001", "0"] {
        refused(&["--tasks", "humaneval", "--completions", count], &["--completions", "from 1 to 1000"]);
    }
    refused(&["--tasks", "copy", "--vocab", "257"], &["--vocab is 257", "256 tokens"]);
    refused(&["--text", &text, "--vocab", "32"], &["--vocab is for tasks on tokens"]);
    let problem = json!({
        "task_id": "Made/7",
        "prompt": "def f(x):\n    # Gives back what is one more than x.\n",
        "test": "def check(f):\n    assert f(1) == 2\n",
        "entry_point": "f",
        "canonical_solution": "    return x + 1\n",
    });
    folder.file("HumanEval.jsonl", format!("{problem}\n"));
    let data = folder.path("").display().to_string();
    refused(
        &["--tasks", "humaneval", "--data", &data],
        &["HumanEval.jsonl:1", "Made/7", "exceeds the context of 32", "--context"],
    );
    folder.file("gsm8k/test.jsonl", "{\"question\": \"1 + 1?\", \"answer\": \"#### 2\"}\n");
    let other = folder.path("other").display().to_string();
    refuse(
        &["eval", &run, "--out", &other, "--tasks", "gsm8k", "--data", &data, "--shots", "0"],
        &["1 of 1 prompts of the task gsm8k", "no room", "the context of 32", "a context of 281 has room"],
    );
    let requests = folder.file("samples.jsonl", "{\"arguments\": [[\"a\", \" b\"]]}\nno JSON\n");
    refused(&["--requests", &requests], &["samples.jsonl:2", "no JSON"]);
    refuse(&["eval", "no_such_model", "--text", &text, "--out", &out], &["no_such_model", "help: "]);
    // A damaged model, and a file where a folder is to be.
    let weights = folder.path("run/checkpoint/step-6/model.safetensors");
    let whole = fs::read(&weights).expect("weights");
    fs::write(&weights, &whole[..whole.len() / 2]).expect("cut off");
    refused(&["--text", &text], &["model.safetensors"]);
    fs::write(&weights, &whole).expect("whole again");
    refuse(&["eval", &run, "--text", &text, "--out", &text], &["cannot be written"]);
}

#[test]
fn tokens_to_draw_from_can_be_fewer_than_the_models() {
    let folder = Folder::new("eval_vocab");
    let run = trained(&folder, "0.5");
    let largest = |vocab: &[&str], out: &str| {
        let out = folder.path(out);
        let at = out.display().to_string();
        let args = ["eval", &run, "--tasks", "copy", "--limit", "20", "--out", &at];
        succeed(&[&args, vocab].concat());
        let lines = fs::read_to_string(out.join("samples_copy.jsonl")).expect("samples");
        let samples = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let tokens = samples.flat_map(|one| one["doc"]["tokens"].as_array().expect("tokens").clone());
        let chance = results(&out)["tasks"]["copy"]["chance"].clone();
        (tokens.filter_map(|token| token.as_u64()).max().expect("tokens"), chance)
    };
    let (of_some, of_all) = (largest(&["--vocab", "8"], "some"), largest(&[], "all"));
    assert_eq!(of_some, (7, json!(1.0 / 8.0)));
    assert!(of_all.0 > 200 && of_all.1 == json!(1.0 / 256.0), "{of_all:?}");
}

#[test]
fn what_a_model_is_asked_while_it_trains_changes_nothing_and_is_what_linc_eval_asks() {
    let folder = Folder::new("eval_in_training");
    let plain = trained(&folder, "0.5");
    let text = folder.path("text.txt").display().to_string();
    let asked = folder.path("asked").display().to_string();
    let config = folder.config();
    let command = [
        "train",
        &config,
        "--model.linear_attn_ratio",
        "0.5",
        "--job.dump_folder",
        &asked,
        "--eval.tasks",
        "text,copy,mqar",
        "--eval.text",
        &text,
        "--eval.freq",
        "4",
        "--eval.limit",
        "3",
        "--metrics.enable_tensorboard",
        "true",
    ];
    let said = succeed(&command);
    assert!(said.contains("evaluate step:  4") && said.contains("copy/acc: "), "{said}");
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let bytes = |run: &str| fs::read(Path::new(run).join("checkpoint/step-6").join(file)).expect("there");
        assert!(bytes(&plain) == bytes(&asked), "{file} has other bits");
    }
    let records = || -> Vec<Value> {
        let lines = fs::read_to_string(Path::new(&asked).join("metrics.jsonl")).expect("metrics");
        let all = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        all.filter(|record| record["evaluation"].is_object()).collect()
    };
    let steps = |records: &[Value]| records.iter().map(|record| record["step"].clone()).collect::<Vec<_>>();
    assert_eq!(steps(&records()), [4, 6]);

    // Of the checkpoint, to the bit.
    let out = folder.path("out").display().to_string();
    let tasks = "text,copy,mqar";
    succeed(&["eval", &asked, "--tasks", tasks, "--text", &text, "--limit", "3", "--out", &out]);
    let found = results(Path::new(&out));
    let last = records()[1]["evaluation"].clone();
    for (name, value) in last.as_object().expect("measures") {
        let (task, measure) = name.split_once('/').expect("a task and a measure");
        assert_eq!(found["tasks"][task]["metrics"][measure]["value"], *value, "{name}");
    }
    assert!(
        ["text/loss", "text/loss_of_ar_hits", "copy/acc", "mqar/acc"].iter().all(|name| last[*name].is_f64())
    );

    // A run that was killed before its last evaluation makes up for it, and has no earlier one twice.
    let path = Path::new(&asked).join("metrics.jsonl");
    let lines = fs::read_to_string(&path).expect("metrics");
    let kept: Vec<&str> = lines.lines().take(lines.lines().count() - 1).collect();
    fs::write(&path, kept.join("\n") + "\n").expect("cut");
    succeed(&command);
    assert_eq!((steps(&records()), records()[1]["evaluation"].clone()), (vec![4.into(), 6.into()], last));
    let again = fs::read_to_string(&path).expect("metrics");
    succeed(&command);
    assert_eq!(again, fs::read_to_string(&path).expect("metrics"), "nothing is owed any more");
}

#[test]
fn what_cannot_be_asked_while_training_is_refused_before_it_begins() {
    let folder = Folder::new("eval_in_training_refused");
    let config = folder.config();
    let refused = |args: &[&str], words: &[&str]| {
        refuse(&[&["train", config.as_str()], args].concat(), words);
        assert!(!folder.path("run").exists(), "nothing was trained");
    };
    refused(&["--eval.tasks", "copi"], &["no task \"copi\"", "did you mean copy?", "--eval.tasks"]);
    refused(&["--eval.tasks", "copy,copy"], &["asked for twice"]);
    refused(&["--eval.tasks", "humaneval"], &["not asked while training", "linc eval"]);
    refused(&["--eval.tasks", "text"], &["needs a text", "eval.text"]);
    refused(&["--eval.tasks", "text", "--eval.text", "none.txt"], &["none.txt"]);
    refused(&["--eval.tasks", "copy", "--eval.lengths", "64"], &["eval.lengths has 64", "seq_len, 32"]);
    refused(&["--eval.tasks", "mmlu", "--eval.data", "no_such_folder"], &["no_such_folder", "eval.data"]);
    refused(&["--eval.tasks", "mmlu"], &["eval.data"]);
    let problem = r#"{"question": "What is 1 + 1?", "answer": "It is 2.\n#### 2"}"#;
    folder.file("data/gsm8k/test.jsonl", problem);
    folder.file("data/gsm8k/train.jsonl", [problem; 5].join("\n"));
    let data = folder.path("data").display().to_string();
    refused(&["--eval.tasks", "gsm8k", "--eval.data", &data], &["the task gsm8k", "the context of 32"]);
    refused(&["--eval.freq", "0"], &["eval.freq"]);
    let output = linc(&["train", &config, "--eval.freq", "5", "--training.steps", "1"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.contains("eval.tasks names no tasks"), "{error}");
}
