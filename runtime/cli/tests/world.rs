//! `linc compile --world`: what each rank of several takes and sends.

use serde_json::Value;

use crate::common::{refuse, succeed};

const BLOCK: u64 = 16384;

fn report(args: &[&str]) -> Value {
    let all =
        [&["compile", "models/llama3_debugmodel.toml", "--seq-len", "64", "--format", "json"], args].concat();
    serde_json::from_str(&succeed(&all)).expect("JSON")
}

fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {report}"))
}

#[test]
fn a_rank_sends_and_keeps_what_its_mode_says() {
    let alone = report(&[]);
    assert!(alone.get("ranks").is_none());
    let params = number(&alone, "/params");
    assert_eq!(number(&alone, "/memory/optimizer_state"), 8 * params);

    let copies = report(&["--world", "4"]);
    assert_eq!(number(&copies, "/memory/optimizer_state"), 8 * params);
    assert_eq!(number(&copies, "/ranks/data_parallel_replicate_degree"), 4);
    assert_eq!(number(&copies, "/ranks/groups/0/bytes_sent"), 2 * 3 * 4 * params / 4);

    let parts = report(&["--world", "4", "--data-parallel-shard-degree", "-1"]);
    let part = params.next_multiple_of(4 * BLOCK) / 4;
    assert_eq!(number(&parts, "/memory/optimizer_state"), 8 * part);
    assert_eq!(number(&parts, "/ranks/groups/0/bytes_sent"), 3 * (2 * 4 * part + 4 * part / BLOCK));

    let both = report(&["--world", "4", "--data-parallel-shard-degree", "2"]);
    let part = params.next_multiple_of(2 * BLOCK) / 2;
    let names =
        [0, 1].map(|group| both["ranks"]["groups"][group]["name"].as_str().expect("a name").to_owned());
    assert_eq!(names, ["dp_shard", "dp_replicate"]);
    assert_eq!(number(&both, "/ranks/groups/0/bytes_sent"), 2 * 4 * part + 4 * part / BLOCK);
    assert_eq!(number(&both, "/ranks/groups/1/bytes_sent"), 4 * part);
}

#[test]
fn people_are_told_in_lines() {
    let args = ["compile", "models/llama3_debugmodel.toml", "--seq-len", "64", "--world", "4"];
    let text = succeed(&args);
    assert!(text.contains("Ranks       4 that share batches; each has the whole optimizer;"), "{text}");
    assert!(text.contains("Exchanges   dp_replicate of 4: 2 exchanges a step, "), "{text}");
    let text = succeed(&[&args[..], &["--data-parallel-shard-degree", "2"]].concat());
    assert!(text.contains("2 share the optimizer's states, of which there are 2 copies"), "{text}");
    // A program that does not train exchanges nothing.
    let text = succeed(&[&args[..], &["--entry", "eval"]].concat());
    assert!(text.contains("Ranks       4") && !text.contains("Exchanges"), "{text}");
}

#[test]
fn degrees_that_do_not_fit_are_refused() {
    let refused = |args: &[&str], expected: &str| {
        refuse(
            &[&["compile", "models/llama3_debugmodel.toml", "--seq-len", "64"], args].concat(),
            &[expected],
        );
    };
    refused(&["--world", "0"], "--world");
    refused(&["--world", "1000000"], "expected an integer from 1 to 1024");
    for degree in ["3", "0", "-2", "8"] {
        let says = format!(
            "--data-parallel-shard-degree is {degree}, and --world is 4; expected a number that divides it"
        );
        refused(&["--world", "4", "--data-parallel-shard-degree", degree], &says);
    }
    refused(&["--data-parallel-shard-degree", "2"], "--world");
    refused(&["--world", "2", "--entry", "align", "--ratio", "0.5"], "aligned by one rank alone");
}
