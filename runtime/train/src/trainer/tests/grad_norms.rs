//! Norms of parts of the gradients, beside the norm of all and the gradients themselves.

use std::collections::BTreeMap;

use linc_plan::{ParamState, StateRole};

use super::*;

/// Two steps with these settings; the weights behind them, and the norms of the last record and of all gradients in it.
fn trained(training: &str, sections: &str, norms: &str) -> (Trainer, BTreeMap<String, f64>, f64) {
    let folder = tempfile::tempdir().expect("a folder");
    let sections = format!("{sections}[metrics]\nlog_freq = 1\ngrad_norms = \"{norms}\"\n");
    let (mut trainer, _) = ready_with(folder.path(), &format!("steps = 2\n{training}"), &sections);
    trainer.run(&AtomicBool::new(false), &mut Silent).unwrap_or_else(|e| panic!("{e}"));
    let text = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).expect("metrics");
    let mut records = text.lines().map(|line| serde_json::from_str::<Record>(line).expect("a record"));
    let last = records.rfind(|record| record.loss.is_some()).expect("a record");
    (trainer, last.grad_norms, last.grad_norm.expect("a norm"))
}

fn close(what: &str, found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-5 * expected, "{what}: {found} instead of {expected}");
}

#[test]
fn parts_have_the_norm_of_all_together_and_change_no_bit() {
    let accumulates = "global_batch_size = 3\n";
    for (training, sections) in [
        ("", ""),
        (accumulates, ""),
        ("mixed_precision_param = \"bfloat16\"\n", ""),
        ("mixed_precision_param = \"float16\"\nmax_norm = 0.1\n", ""),
        ("max_norm = 0.1\n", "[optimizer]\nname = \"Muon\"\n"),
    ] {
        let (plain, none, _) = trained(training, sections, "none");
        assert!(none.is_empty());
        let kinds = [
            (
                "blocks",
                &["layers.0.attention", "layers.1.attention_norm.weight", "layers.1.feed_forward"][..],
            ),
            ("layers", &["layers.0", "layers.1", "norm.weight", "output.weight", "tok_embeddings.weight"]),
            ("parameters", &["layers.0.attention.wq.weight", "layers.1.feed_forward.w3.weight"]),
        ];
        // Which parts there are does not depend on the rest.
        let asked = if training.is_empty() { 3 } else { 1 };
        for (wanted, names) in kinds.into_iter().take(asked) {
            let what = format!("{wanted} {training}{sections}");
            let (trainer, norms, all) = trained(training, sections, wanted);
            assert!(tensors(&trainer) == tensors(&plain), "{what}: other bits");
            for name in names {
                assert!(norms.contains_key(*name), "{what}: {norms:?}");
            }
            assert_eq!(norms.len() == names.len(), wanted == "layers", "{what}: {norms:?}");
            close(&what, norms.values().map(|norm| norm * norm).sum::<f64>().sqrt(), all);
        }
    }
}

#[test]
fn each_norm_is_that_of_its_gradient() {
    // Several batches leave their gradients in states.
    let (trainer, norms, _) = trained("global_batch_size = 2\nmax_norm = 0.01\n", "", "parameters");
    let executor = &trainer.session.executor;
    let mut seen = 0;
    for tensor in executor.tensors(|role| matches!(role, Role::State(_))) {
        let Role::State(StateRole::OfParam { state: ParamState::Gradient, of }) = &tensor.role else {
            continue;
        };
        let bytes = executor.read_tensor(&tensor.name).expect("a gradient");
        let values = bytes.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
        close(of, norms[of], values.map(|x| x * x).sum::<f64>().sqrt());
        seen += 1;
    }
    assert_eq!((seen, norms.len()), (trainer.model.parameters.len(), seen));
}

#[test]
fn the_norms_of_a_step_that_is_not_finite_are_beside_its_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = "[optimizer]\nlr = 1e30\n[metrics]\ngrad_norms = \"blocks\"\n";
    let (mut trainer, _) = ready_with(folder.path(), "steps = 40\n", settings);
    trainer.run(&AtomicBool::new(false), &mut Silent).expect_err("it cannot go on");
    let path = folder.path().join("run/non-finite-step-2/grad_norms.json");
    let text = std::fs::read_to_string(path).expect("a file");
    let norms: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    assert_eq!(norms.len(), trainer.grad_norms.len());
    assert!(norms.values().any(|norm| norm == "NaN" || norm == "inf"), "{text}");
}
