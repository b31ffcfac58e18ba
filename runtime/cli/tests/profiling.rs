//! `linc profile`: steps of a config beside the limits of its machine, and nothing that a run leaves behind.

use std::fs;

use crate::common::{Folder, refuse, succeed};
use serde_json::Value;

const SMALL: [&str; 8] = [
    "--model.linear_attn_ratio",
    "0.5",
    "--training.seq_len",
    "32",
    "--training.batch_size",
    "2",
    "--training.device",
    "cpu",
];

fn json(args: &[&str]) -> Value {
    let text = succeed(&[&["profile", "configs/quickstart.toml", "--format", "json"], args, &SMALL].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn total(report: &Value, table: &str, field: &str) -> f64 {
    let rows = report["roofline"][table].as_array().expect("rows");
    rows.iter().map(|row| row[field].as_f64().expect("a number")).sum()
}

#[test]
fn steps_are_profiled_and_nothing_is_left() {
    let folder = Folder::new("profile");
    let dump = folder.path("run").display().to_string();
    let report = json(&["--steps", "2", "--warmup", "1", "--job.dump_folder", &dump]);
    assert!(fs::metadata(&dump).is_err(), "{dump} was made");
    assert_eq!((&report["steps"], &report["tokens"]), (&2.into(), &64.into()));
    let ms = report["roofline"]["ms"].as_f64().expect("a number");
    for table in ["kernels", "work", "parts"] {
        assert!((total(&report, table, "ms") / ms - 1.0).abs() < 1e-6, "{report}");
    }
    let parts: Vec<&str> = report["roofline"]["parts"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["name"].as_str())
        .collect();
    for expected in ["softmax attention", "linear attention", "feed_forward", "loss", "optimizer"] {
        assert!(parts.contains(&expected), "{parts:?}");
    }
    let [bytes, floor] = ["bytes", "floor_bytes"].map(|name| report[name].as_u64().expect("a number"));
    assert!(floor > 0 && floor <= bytes, "{floor} of {bytes}");
    // A step of two batches launches what adds up gradients twice, and what updates once.
    let twice = json(&["--steps", "1", "--warmup", "0", "--training.global_batch_size", "4"]);
    assert_eq!(twice["tokens"], 128);
    let launches = |report: &Value, kind: &str| {
        let rows = report["roofline"]["work"].as_array().expect("rows");
        let row = rows.iter().find(|row| row["name"] == kind).expect("the kind");
        row["launches"].as_f64().expect("a number")
    };
    let attention = "softmax attention forward";
    assert_eq!(launches(&twice, attention), 2.0 * launches(&report, attention));
    let text = succeed(&[&["profile", "quickstart", "--steps", "1"][..], &SMALL].concat());
    for expected in ["of peak", "linear attention backward", "less time", "Memory of a step: "] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}

#[test]
fn what_cannot_be_profiled_is_refused() {
    refuse(&["profile", "none.toml"], &["none.toml"]);
    refuse(&["profile", "quickstart", "--steps", "0"], &["--steps", "at least 1"]);
    refuse(&["profile", "quickstart", "--steps", "many"], &["--steps", "many", "integer"]);
    // Behind a setting, too.
    let behind = ["profile", "quickstart", "--training.seq_len", "32", "--steps", "many"];
    refuse(&behind, &["--steps", "many", "integer"]);
    refuse(&[&behind[..5], &["0"]].concat(), &["--steps", "at least 1"]);
    refuse(&["profile", "quickstart", "--training.seq_length", "4"], &["seq_length", "seq_len"]);
    refuse(&["profile", "--steps.x", "4"], &["no config is named"]);
    refuse(&["profile", "--training.seq_len", "4"], &["linc profile"]);
    let device = ["profile", "quickstart", "--training.device", "cuda:x"];
    refuse(&device, &["cuda:N"]);
}
