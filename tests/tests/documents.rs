//! Documents that are packed into one sequence and kept apart, against each of them alone: loss, and gradients of all
//! parameters, of softmax layers, linear layers and both.

use std::collections::BTreeMap;

use linc_driver::names::{GRAD_NORM, LOSS, POSITIONS, TARGETS, TOKENS};
use linc_driver::{
    AdamWSpec, Arch, AttentionKind, BatchShape, CompileError, Compiled, Entry, Model, OptimizerOptions,
    Options, PersistentLayout, Source, Target, UpdateOp, compile,
};
use linc_ir::Graph;
use linc_ir::interp::{Bindings, Tensor, run};
use linc_tests::reference::{bindings, distance, doubles, norm};
use linc_tests::{compiled, emulated, models};

use AttentionKind::{Efficient, Elu, Softmax};

const VOCAB: usize = 31;

/// Lengths of the documents of each of two sequences: some begin with a chunk of 64 tokens, one is a single token.
const DOCUMENTS: [&[usize]; 2] = [&[64, 1, 30, 41], &[20, 108, 8]];

/// A model of two layers of these kinds for batches of this shape; linear layers rotate queries and keys if `rope`.
fn model(kinds: [AttentionKind; 2], rope: bool, batch: usize, seq: usize) -> Model {
    let text = format!(
        "name = \"llama3\"\nflavor = \"documents\"\narchitecture = \"llama3.linc\"\nn_layers = 2\ndim = 64\n\
         n_heads = 2\nn_kv_heads = 1\nvocab_size = {VOCAB}\nffn_dim_multiplier = 0.3\nmultiple_of = 24\n\
         [linear_attention]\ntemperature = 1.0\nrope = {rope}\n"
    );
    let config = Source { path: "documents.toml".into(), text };
    let shape = BatchShape { batch, seq };
    Model::with_kinds(&config, &models::source("llama3.linc"), &[], kinds.to_vec(), shape)
        .unwrap_or_else(|e| panic!("{e}"))
}

/// A step whose first moments are the gradients.
fn step(model: &Model, target: Target, documents: bool) -> Result<(Compiled, Graph), CompileError> {
    let adamw = AdamWSpec { beta1: 0.0, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let entry = Entry::Train(OptimizerOptions {
        update: UpdateOp::AdamW(adamw),
        groups: vec![],
        max_norm: 1e30,
        norms: vec![],
    });
    let options =
        Options { dumps: true, documents, target, ..Options::new(model.shape.batch, model.shape.seq) };
    let done = compile(model, &entry, &options, &mut PersistentLayout::default())?;
    let text = done.dumps.iter().rfind(|d| d.path.ends_with(".ir")).map(|d| d.text.as_str());
    let graph = linc_ir::parse(text.expect("a graph")).unwrap_or_else(|e| panic!("{e}"));
    Ok((done, graph))
}

/// Loss and gradients by name.
fn wanted(results: BTreeMap<String, Vec<f64>>) -> BTreeMap<String, Vec<f64>> {
    let is_wanted = |name: &String| name.ends_with(".exp_avg") || name == LOSS;
    results.into_iter().filter(|(name, _)| is_wanted(name)).collect()
}

/// The packed batch: tokens, targets and positions, and what each document alone gives, weighted by its targets.
fn check(kinds: [AttentionKind; 2], rope: bool, emulate: bool) {
    let seq: usize = DOCUMENTS[0].iter().sum();
    let packed = model(kinds, rope, DOCUMENTS.len(), seq);
    let target = if emulate { Target::Cuda(Arch::Sm90a) } else { Target::Cpu };
    let (done, graph) = step(&packed, target, true).unwrap_or_else(|e| panic!("{e}"));
    let mut all = bindings(&graph, VOCAB, 11, false);
    let positions = DOCUMENTS.iter().flat_map(|lengths| lengths.iter().flat_map(|n| 0..*n as i32));
    all.insert(POSITIONS.into(), Tensor::int([DOCUMENTS.len(), seq], positions.collect()));
    let found = if emulate {
        let Some(found) = emulated::run(&done.plan, &all) else { return };
        vec![found]
    } else {
        let exact = run::<f64>(&graph, &all).unwrap_or_else(|e| panic!("{e}"));
        vec![doubles(&exact), compiled::run(&done.plan, &all, 2)]
    };

    let ints = |name: &str| all[name].doubles().iter().map(|x| *x as i32).collect::<Vec<i32>>();
    let (tokens, targets) = (ints(TOKENS), ints(TARGETS));
    let counted = |targets: &[i32]| targets.iter().filter(|target| **target >= 0).count() as f64;
    let mut expected: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut at = 0;
    for length in DOCUMENTS.iter().flat_map(|lengths| lengths.iter()) {
        let (tokens, targets) = (&tokens[at..at + length], &targets[at..at + length]);
        at += length;
        let share = counted(targets) / counted(&ints(TARGETS));
        if share == 0.0 {
            continue;
        }
        let (_, graph) =
            step(&model(kinds, rope, 1, *length), Target::Cpu, false).unwrap_or_else(|e| panic!("{e}"));
        let mut alone: Bindings<f64> = all.clone();
        alone.insert(TOKENS.into(), Tensor::int([1, *length], tokens.to_vec()));
        alone.insert(TARGETS.into(), Tensor::int([*length], targets.to_vec()));
        alone.remove(POSITIONS);
        let results = run::<f64>(&graph, &alone).unwrap_or_else(|e| panic!("{e}"));
        for (name, values) in wanted(doubles(&results)) {
            let sum = expected.entry(name).or_insert_with(|| vec![0.0; values.len()]);
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += share * value);
        }
    }
    assert_eq!(
        expected.len(),
        1 + 3 + 2 * 9,
        "the loss, and parameters of two layers, embedding, norm, output"
    );
    for (found, tolerance) in found.into_iter().zip([if emulate { 1e-4 } else { 1e-11 }, 1e-4]) {
        assert!(found.contains_key(GRAD_NORM));
        let found = wanted(found);
        for (name, expected) in &expected {
            let (error, scale) = (distance(&found[name], expected), norm(expected));
            assert!(scale > 0.0 && error <= tolerance * scale, "{kinds:?}: {name}: {error:e} of {scale:e}");
        }
    }
}

#[test]
fn packed_documents_are_each_alone() {
    check([Softmax, Softmax], false, false);
    check([Efficient, Softmax], false, false);
    check([Efficient, Efficient], false, false);
}

/// Rotated features meet a softmax over features, which tells where a document begins unless it begins anew.
#[test]
fn positions_of_linear_layers_begin_anew() {
    check([Efficient, Efficient], true, false);
}

#[test]
fn packed_documents_are_each_alone_on_a_gpu() {
    check([Efficient, Softmax], true, true);
}

#[test]
fn a_kind_that_cannot_keep_documents_apart_refuses() {
    let error = match step(&model([Elu, Softmax], false, 1, 16), Target::Cpu, true) {
        Ok(_) => panic!("not refused"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("elu features cannot keep the documents"), "{error}");
}
