//! Whole training steps as a GPU runs them, emulated: every kernel of a hybrid with the memory, the aliases and the
//! alignment that the plan gives it, against the CPU. Skips with a message where there is no C++ compiler.

use std::collections::BTreeMap;

use linc_driver::names::GRAD_NORM;
use linc_driver::{Arch, Compiled, Entry, Model, Options, Precision, Room, Target};
use linc_ir::Graph;
use linc_tests::models::{compiled, muon, sized, small_hybrid, training};
use linc_tests::reference::bindings;
use linc_tests::{compiled as cpu, emulated};

/// Root mean square of the difference over that of the expected values.
fn relative(found: &[f64], expected: &[f64]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let difference = square(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    (difference / square(&mut expected.iter().copied()).max(1e-30)).sqrt()
}

/// Two layers with heads of 64 features, in lengths that no tile divides.
fn wide_heads() -> Model {
    let numbers = [
        ("dim", 128.0),
        ("n_layers", 2.0),
        ("n_heads", 2.0),
        ("n_kv_heads", 1.0),
        ("vocab_size", 40.0),
        ("multiple_of", 8.0),
        ("ffn_dim_multiplier", 0.5),
    ];
    sized("nano", &numbers, "0.5")
}

/// The graph that became the plan.
fn graph(compiled: &Compiled) -> Graph {
    let last = compiled.dumps.iter().rfind(|d| d.path.starts_with("graph/") && d.path.ends_with(".ir"));
    linc_ir::parse(&last.expect("a graph").text).unwrap_or_else(|e| panic!("{e}"))
}

fn check(model: &Model, vocab: usize, shape: (usize, usize), precision: Precision, tolerance: f64) {
    check_entry(model, &training(), vocab, shape, precision, tolerance);
}

fn check_entry(
    model: &Model,
    entry: &Entry,
    vocab: usize,
    (batch, seq): (usize, usize),
    precision: Precision,
    tolerance: f64,
) {
    let options =
        Options { precision, target: Target::Cuda(Arch::Sm90a), dumps: true, ..Options::new(batch, seq) };
    let compiled = compiled(model, entry, &options);
    // Whole tiles of 16 bits come by TMA.
    let whole = seq.is_multiple_of(128) && precision != Precision::Float32;
    let copies = compiled.dumps.iter().any(|d| d.text.contains(" maps0,"));
    assert!(copies || !whole, "no tensor copies of {seq} tokens");
    let graph = graph(&compiled);
    // From zero moments, the new ones are the gradients.
    for warm in [false, true] {
        let at = bindings(&graph, vocab, 7, warm);
        let Some(found) = emulated::run(&compiled.plan, &at) else { return };
        let expected: BTreeMap<String, Vec<f64>> = cpu::run(&compiled.plan, &at, 2);
        assert!(expected[GRAD_NORM][0] > 0.1, "a step without gradients shows nothing");
        for (name, expected) in &expected {
            // A parameter moves by the sign of its gradient in the first step, which rounding can turn.
            if !warm && at.contains_key(name) {
                continue;
            }
            let error = relative(&found[name], expected);
            assert!(error <= tolerance, "{name}: {error:e} from the CPU's");
        }
    }
}

#[test]
fn a_step_in_float32() {
    check(&small_hybrid(), 16, (2, 11), Precision::Float32, 1e-4);
    check(&wide_heads(), 40, (1, 130), Precision::Float32, 1e-4);
}

#[test]
fn a_step_in_bfloat16() {
    check(&small_hybrid(), 16, (2, 11), Precision::Bfloat16, 2e-2);
    check(&wide_heads(), 40, (1, 130), Precision::Bfloat16, 2e-2);
    check(&wide_heads(), 40, (2, 128), Precision::Bfloat16, 2e-2);
}

#[test]
fn a_step_in_float16() {
    check(&small_hybrid(), 16, (2, 11), Precision::Float16, 3e-3);
    check(&wide_heads(), 40, (1, 130), Precision::Float16, 3e-3);
    check(&wide_heads(), 40, (1, 256), Precision::Float16, 3e-3);
}

/// Newton-Schulz iterations raise what rounding leaves of a gradient that has fewer directions than its matrix.
#[test]
fn a_step_of_muon() {
    let model = small_hybrid();
    let entry = Entry::Train(muon(&model));
    check_entry(&model, &entry, 16, (2, 11), Precision::Float32, 1e-3);
    check_entry(&model, &entry, 16, (2, 11), Precision::Float16, 1e-2);
}

/// A block of a prompt and a token, at some position, from random caches and states.
fn check_generation(model: &Model, vocab: usize, precision: Precision, tolerance: f64) {
    let tokens = 70;
    // A random position is below the vocabulary.
    let context = tokens + vocab;
    for entry in
        [Entry::Prefill { room: Room::of_one(context), tokens }, Entry::Decode(Room::of_one(256 + context))]
    {
        let target = Target::Cuda(Arch::Sm90a);
        let options = Options { precision, target, narrow_weights: true, dumps: true, ..Options::new(1, 1) };
        let compiled = compiled(model, &entry, &options);
        let at = bindings(&graph(&compiled), vocab, 11, true);
        let Some(found) = emulated::run(&compiled.plan, &at) else { return };
        let expected: BTreeMap<String, Vec<f64>> = cpu::run(&compiled.plan, &at, 2);
        assert!(
            expected.keys().any(|name| name.ends_with("state"))
                && expected.keys().any(|n| n.ends_with("cache_k"))
        );
        for (name, expected) in &expected {
            let error = relative(&found[name], expected);
            assert!(error <= tolerance, "{entry:?} {name}: {error:e} from the CPU's");
        }
    }
}

#[test]
fn a_prompt_and_a_token() {
    for (precision, tolerance) in
        [(Precision::Float32, 1e-5), (Precision::Bfloat16, 1e-2), (Precision::Float16, 2e-3)]
    {
        check_generation(&small_hybrid(), 16, precision, tolerance);
        check_generation(&wide_heads(), 40, precision, tolerance);
    }
}
