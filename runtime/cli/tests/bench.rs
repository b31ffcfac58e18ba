//! `linc bench` on tiny sizes: rows for all that was asked for, numbers that fit together, and what is refused.

use crate::common::{refuse, succeed};
use serde_json::Value;

const MODEL: &str = "models/llama3_nano.toml";
const QUICK: [&str; 6] = ["--device", "cpu", "--rounds", "2", "--warmup", "1"];

fn json(args: &[&str]) -> Value {
    let text = succeed(&[&["bench"], args, &QUICK, &["--format", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn rows(report: &Value) -> &Vec<Value> {
    report["rows"].as_array().expect("rows")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn check_times(ms: &Value) {
    let [min, median, max] = ["min", "median", "max"].map(|name| number(&ms[name]));
    assert!(0.0 <= min && min <= median && median <= max && max > 0.0, "{ms}");
    assert_eq!(ms["runs"], 2);
}

const HEADS: [&str; 6] = ["--head-dim", "16,32", "--heads", "4", "--kv-heads", "2"];

#[test]
fn attention_has_a_row_for_each_kind_pass_and_size() {
    for precision in ["float32", "bfloat16", "float16"] {
        let args = [&["attention"], &HEADS[..], &["--seq", "32,70", "--precision", precision]].concat();
        let report = json(&args);
        assert_eq!(report["bench"], "attention");
        assert_eq!(report["precision"], precision);
        assert_eq!(rows(&report).len(), 2 * 2 * 2 * 2);
        for row in rows(&report) {
            check_times(&row["ms"]);
            let [seq, head_dim, flops] = ["seq", "head_dim", "flops"].map(|name| number(&row[name]));
            assert!(number(&row["tflops"]) > 0.0 && number(&row["gbytes"]) > 0.0, "{row}");
            if row["kind"] == "softmax" {
                // Two products forward and five backward, over the pairs that are not masked.
                let products = if row["pass"] == "forward" { 4.0 } else { 10.0 };
                let expected = products * 4.0 * head_dim * seq * (seq + 1.0) / 2.0;
                // A backward of several kernels shares its operations out evenly.
                assert!((flops - expected).abs() < 4.0, "{row}: expected {expected}");
            }
        }
    }
}

#[test]
fn attention_measures_what_is_asked_for() {
    let args = ["attention", "--head-dim", "16", "--seq", "40", "--kind", "linear", "--pass", "forward"];
    let report = json(&args);
    let [row] = &rows(&report)[..] else { panic!("{report}") };
    assert_eq!((&row["kind"], &row["pass"]), (&"linear".into(), &"forward".into()));
    let twice = json(&["attention", "--head-dim", "16", "--seq", "40", "--kind", "softmax,softmax"]);
    assert_eq!(rows(&twice).len(), 2);
    let args = ["bench", "attention", "--head-dim", "16", "--seq", "40"];
    let text = succeed(&[&args[..], &QUICK].concat());
    for expected in ["TFLOP/s", "softmax forward", "linear backward", "2 rounds", "cpu, "] {
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn training_steps_at_every_ratio_and_length() {
    let report = json(&["train", MODEL, "--ratio", "0,0.5,1", "--seq", "32,64", "--batch-size", "2"]);
    assert!(number(&report["peak_flops"]) > 0.0);
    let found: Vec<(f64, f64)> =
        rows(&report).iter().map(|row| (number(&row["seq"]), number(&row["ratio"]))).collect();
    assert_eq!(found, [(32.0, 0.0), (32.0, 0.5), (32.0, 1.0), (64.0, 0.0), (64.0, 0.5), (64.0, 1.0)]);
    for row in rows(&report) {
        check_times(&row["ms"]);
        let tokens = 2.0 * number(&row["seq"]) / number(&row["ms"]["median"]) * 1e3;
        assert!((number(&row["tokens_per_s"]) / tokens - 1.0).abs() < 1e-6, "{row}");
        for name in ["mfu", "titan_mfu", "bytes", "compile_s"] {
            assert!(number(&row[name]) > 0.0, "{row}");
        }
        assert!(number(&row["first_step_s"]) >= number(&row["compile_s"]), "{row}");
        // Random tokens of 256 are not learned.
        assert!((number(&row["loss"]) - 256f64.ln()).abs() < 1.0, "{row}");
    }
    let args = ["bench", "train", MODEL, "--seq", "32", "--ratio", "3/4", "--precision", "bfloat16"];
    let text = succeed(&[&args[..], &QUICK].concat());
    for expected in ["tokens/s", "TorchTitan's", "llama3 nano 0.75", "MiB"] {
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn kernels_beside_a_copy() {
    let report = json(&["memory", MODEL, "--seq", "64", "--precision", "bfloat16"]);
    let copy = number(&report["copy"]["gbytes"]);
    check_times(&report["copy"]["ms"]);
    let steps: Vec<&str> = rows(&report).iter().filter_map(|row| row["step"].as_str()).collect();
    for expected in ["rms_norm", "rms_norm_grad", "rope", "adamw", "embedding", "fused", "cross_entropy"] {
        assert!(steps.iter().any(|step| step.contains(expected)), "{expected} is not among {steps:?}");
    }
    assert!(!steps.iter().any(|step| step.contains("attention ") && step.contains("softmax")), "{steps:?}");
    for row in rows(&report) {
        assert!((number(&row["share"]) * copy / number(&row["gbytes"]) - 1.0).abs() < 1e-6, "{row}");
    }
    let text = succeed(&[&["bench", "memory", MODEL, "--seq", "32"][..], &QUICK].concat());
    for expected in ["of copy", "100.0%", "Launches that move less than"] {
        assert!(text.contains(expected), "{text}");
    }
    check_times(&report["small"]["ms"]);
}

#[test]
fn a_step_beside_the_limits_of_its_processor() {
    let report = json(&["cpu", MODEL, "--ratio", "0.5", "--seq", "64", "--batch-size", "2"]);
    let machine = &report["machine"];
    let sets = machine["instruction_sets"].as_array().expect("instruction sets");
    assert_eq!(sets[0]["name"], "portable");
    for set in sets {
        let [one, all] = ["one_thread", "all_threads"].map(|name| number(&set[name]));
        assert!(one > 0.0 && one <= all && all <= number(&machine["peak_flops"]), "{machine}");
    }
    check_times(&report["ms"]);
    let roofline = &report["roofline"];
    let ms = number(&roofline["ms"]);
    for table in ["kernels", "work", "parts"] {
        let rows = roofline[table].as_array().expect("rows");
        let total: f64 = rows.iter().map(|row| number(&row["ms"])).sum();
        assert!((total / ms - 1.0).abs() < 1e-6, "{table}: {total} of {ms}");
        for row in rows {
            assert!(number(&row["of_peak"]) >= 0.0 && number(&row["of_copy"]) <= 1.0 + 1e-9, "{row}");
            let [ms, lost] = ["ms", "lost_ms"].map(|name| number(&row[name]));
            assert!(lost <= ms, "{row}");
        }
    }
    let names = |table: &str| -> Vec<&str> {
        let rows = roofline[table].as_array().expect("rows");
        rows.iter().filter_map(|row| row["name"].as_str()).collect()
    };
    for expected in ["softmax attention", "linear attention", "feed_forward", "loss", "optimizer"] {
        assert!(names("parts").contains(&expected), "{:?}", names("parts"));
    }
    for expected in ["products", "norms", "pointwise", "optimizer", "loss", "embedding"] {
        assert!(names("work").contains(&expected), "{:?}", names("work"));
    }
    for kind in ["softmax", "linear"] {
        for pass in ["forward", "backward"] {
            assert!(names("work").contains(&&*format!("{kind} attention {pass}")), "{:?}", names("work"));
        }
    }
    let others = &report["others"];
    assert!(others.is_null() || (0.0..=1.0).contains(&number(others)), "{others}");
    let [bytes, floor] = ["bytes", "floor_bytes"].map(|name| number(&report[name]));
    assert!(floor > 0.0 && floor <= bytes && bytes <= 1.15 * floor, "{bytes} above {floor}");
    let text = succeed(&[&["bench", "cpu", "--seq", "32", "--set", "n_layers=1"][..], &QUICK].concat());
    for expected in
        ["portable", "of peak", "softmax attention backward", "less time", "Memory: ", "llama3 nano (S)"]
    {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    refuse(&["bench", "cpu", "--seq", "0"], &["--seq", "at least 1"]);
    refuse(&["bench", "cpu", "--device", "cuda"], &["--device is cuda", "processor"]);
    refuse(&["bench", "cpu", "models/llama3_405b.toml"], &["GiB", "parameters"]);
    refuse(&["bench", "cpu", "llama3_nona"], &["llama3_nano"]);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let attention = |args: &[&str], expected: &[&str]| {
        refuse(&[&["bench", "attention", "--device", "cpu"], args].concat(), expected);
    };
    attention(&["--heads", "3", "--kv-heads", "2"], &["3 query heads", "2 key/value heads"]);
    attention(&["--head-dim", "12"], &["--head-dim is 12", "multiple of 8"]);
    attention(&["--seq", "0"], &["at least 1"]);
    attention(&["--batch-size", "0"], &["at least 1"]);
    attention(&["--kind", "softmx"], &["softmx", "softmax, linear"]);
    attention(&["--pass", "sideways"], &["sideways", "forward, backward"]);
    attention(&["--seq", "1k"], &["1k"]);
    attention(&["--rounds", "0"], &["--rounds"]);
    attention(&["--precision", "fp16"], &["--precision", "fp16", "bfloat16", "float16"]);
    let train = |args: &[&str], expected: &[&str]| {
        refuse(&[&["bench", "train", "--device", "cpu"], args].concat(), expected);
    };
    train(&["models/none.toml"], &["none.toml"]);
    train(&[MODEL, "--ratio", "0,2"], &["`--ratio 2`", "from 0 to 1"]);
    train(&[MODEL, "--seq", "0"], &["at least 1"]);
    train(&[MODEL, "--recompute", "some"], &["--recompute", "selective"]);
    train(&[MODEL, "--selective-layers", "2", "--recompute", "full"], &["--selective-layers belongs to"]);
    train(&[MODEL, "--memory-budget", "0.1"], &["--memory-budget belongs to"]);
    train(&[MODEL, "--recompute", "memory_budget", "--memory-budget", "2"], &["from 0 to 1"]);
    train(&["models/llama3_405b.toml"], &["GiB", "parameters"]);
    refuse(&["bench", "memory", "--device", "cpu", MODEL, "--set", "n_layers"], &["--set"]);
    refuse(&["bench", "train", MODEL, "--device", "cuda:x"], &["cuda:N"]);
    refuse(&["bench", "train", MODEL, "--device", "cuda"], &["there is no "]);
    refuse(&["bench", "speed"], &["speed"]);
}

#[test]
fn inference_has_a_row_for_each_length_ratio_and_batch() {
    let args = ["inference", MODEL, "--ratio", "0,0.5,1", "--seq", "40,80", "--batch-size", "1,3"];
    let report = json(&args);
    assert_eq!(rows(&report).len(), 2 * 3 * 2);
    for row in rows(&report) {
        check_times(&row["prefill_ms"]);
        check_times(&row["decode_ms"]);
        let [ratio, batch, length] = ["ratio", "batch", "length"].map(|name| number(&row[name]));
        let speeds = ["prefill_tokens_per_s", "decode_tokens_per_s"].map(|name| number(&row[name]));
        let expected = [length, batch].map(|amount| amount * 1e3);
        for ((speed, amount), name) in speeds.into_iter().zip(expected).zip(["prefill_ms", "decode_ms"]) {
            assert!((speed * number(&row[name]["median"]) / amount - 1.0).abs() < 1e-6, "{row}");
        }
        // Caches grow with the length, states do not; each layer has one of the two.
        let [cache, state] = ["cache_bytes", "state_bytes"].map(|name| number(&row[name]));
        assert_eq!((cache == 0.0, state == 0.0), (ratio == 1.0, ratio == 0.0), "{row}");
        let same = |other: &&Value| other["ratio"] == row["ratio"] && other["batch"] == row["batch"];
        for other in rows(&report).iter().filter(same) {
            let times = number(&other["length"]) / length;
            assert_eq!(
                (number(&other["cache_bytes"]), number(&other["state_bytes"])),
                (cache * times, state)
            );
        }
        assert!(number(&row["bytes"]) > batch * (cache + state), "{row}");
        // All but gains, and the rows of the table that are not looked up.
        let weights = number(&row["weight_bytes"]);
        assert!(weights > 0.3 * number(&row["bytes"]).min(4e6) && weights < number(&row["bytes"]), "{row}");
    }
    refuse(&["bench", "inference", MODEL, "--seq", "0"], &["--seq", "at least 1"]);
    refuse(&["bench", "inference", MODEL, "--batch-size", "9999"], &["9999 sequences at once"]);
}

#[test]
fn cost_has_a_point_for_each_work_ratio_and_length() {
    let folder = crate::common::Folder::new("bench_cost");
    let to = folder.path("cost").display().to_string();
    let args =
        ["cost", MODEL, "--ratio", "1,0,0.5", "--seq", "256,64,128", "--out", &to, "--set", "n_layers=2"];
    let report = json(&args);
    let measured = &report["measured"];
    let found: Vec<(&str, f64, f64)> = rows(measured)
        .iter()
        .map(|row| (row["work"].as_str().expect("a word"), number(&row["ratio"]), number(&row["length"])))
        .collect();
    assert_eq!(found.len(), 3 * 3 * 3);
    assert_eq!(
        found[..4],
        [("training", 0.0, 64.0), ("prefill", 0.0, 64.0), ("decode", 0.0, 64.0), ("training", 0.5, 64.0)]
    );
    for row in rows(measured) {
        let [ms, parts, attention] =
            [&row["ms"]["median"], &row["parts_ms"], &row["attention_ms"]].map(number);
        assert!(ms > 0.0 && attention > 0.0 && attention < parts, "{row}");
        let [bytes, flops, of_attention] =
            ["bytes", "flops", "attention_flops"].map(|name| number(&row[name]));
        assert!(of_attention > 0.0 && of_attention < flops, "{row}");
        // What is in use at the peak is in the arena.
        let in_use: f64 = row["memory"].as_object().expect("categories").values().map(number).sum();
        assert!(in_use > 0.0 && in_use <= bytes, "{row}");
        let kernels = row["bounds"]["kernels"].as_array().expect("kernels");
        // The peak of a CPU is measured, on a machine that may have been busy then; twice as many operations are a miscount.
        let most = |kernel: &Value| if kernel["limit"] == "flops" { f64::INFINITY } else { 1.0 + 1e-9 };
        assert!(
            !kernels.is_empty() && kernels.iter().all(|kernel| number(&kernel["attained"]) <= most(kernel)),
            "{row}"
        );
        let kept = ["cache_bytes", "state_bytes"].map(|name| number(&row[name]) > 0.0);
        let ratio = number(&row["ratio"]);
        assert_eq!(
            kept,
            if row["work"] == "training" { [false; 2] } else { [ratio < 1.0, ratio > 0.0] },
            "{row}"
        );
    }
    // Operations grow as theory says, whatever the times do.
    let exponents = report["exponents"].as_array().expect("exponents");
    for (ratio, theory) in [(0.0, 2.0), (1.0, 1.0)] {
        let of = |fit: &&Value| {
            fit["work"] == "training" && fit["quantity"] == "attention_time" && number(&fit["ratio"]) == ratio
        };
        let fit = exponents.iter().find(of).expect("an exponent");
        assert_eq!(number(&fit["theory"]), theory);
        assert!((number(&fit["plan"]) - theory).abs() < 0.1, "{fit}");
    }
    let said = succeed(&["report", &to]);
    assert!(said.contains("llama3 nano in float32") && said.contains("theory says 2"), "{said}");
    let page = std::fs::read_to_string(folder.path("cost/report.html")).expect("a page");
    assert!(page.contains("figure-cost-training") && page.contains("id=\"cost-kernels\""));
    // A time that nothing keeps: the longer lengths are not tried.
    let text = succeed(
        &[&["bench", "cost", MODEL, "--ratio", "0", "--seq", "64,65536", "--seconds", "1"][..], &QUICK]
            .concat(),
    );
    assert!(text.contains("not tried: ") && text.contains("points were not measured"), "{text}");
    refuse(
        &[&["bench", "cost", MODEL, "--seq", "64", "--batch-size", "9999"][..], &QUICK].concat(),
        &["9999 sequences at once", "expected 1 to"],
    );
    // Nothing that fits is nothing measured.
    refuse(
        &[&["bench", "cost", MODEL, "--ratio", "0", "--seq", "32768", "--batch-size", "4096"][..], &QUICK]
            .concat(),
        &["fit", "help:"],
    );
    refuse(&["bench", "cost", MODEL, "--ratio", "2"], &["from 0 to 1"]);
    refuse(&["bench", "cost", MODEL, "--seconds", "0"], &["--seconds"]);
    refuse(
        &[&["bench", "cost", MODEL, "--seq", "32", "--out", "/proc/none"][..], &QUICK].concat(),
        &["cannot create"],
    );
    folder.file("cost/cost.json", "{\"measured\": 3}");
    refuse(&["report", &to], &["cost.json is no measurement"]);
}
