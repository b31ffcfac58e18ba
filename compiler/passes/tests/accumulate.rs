//! Gradients that are added up over batches and then applied are one step on the batches together.

use crate::common;

use std::collections::BTreeMap;

use linc_ir::interp::{Bindings, Results, Tensor, run};
use linc_ir::{AdamSpec, AdamWSpec, Graph, Op, ParamState, StateRole, UpdateOp};
use linc_passes::accumulate::{KEEP, SHARE};
use linc_passes::loss::{LOSS, TARGETS};
use linc_passes::memory::{Allocation, PersistentLayout, StorageAssignment};
use linc_passes::optimizer::{GRAD_NORM, LEARNING_RATE, MuonSpec, OptimizerOptions, ParamGroup, Rule, STEP};
use linc_passes::pipeline::{self, Entry, OPTIONAL, PipelineOptions};

const SEQ: usize = 9;
const STEPS: usize = 3;

fn program(
    entry: &Entry,
    batch: usize,
    options: &PipelineOptions,
) -> (Graph, StorageAssignment, PersistentLayout) {
    let mut graph = common::tiny_llama(batch, SEQ);
    let mut layout = PersistentLayout::default();
    let assignment = pipeline::run(&mut graph, entry, options, &mut layout, &mut |pass, graph| {
        linc_ir::verify(graph).unwrap_or_else(|e| panic!("after {pass}: {e}"));
    });
    (graph, assignment.expect("an assignment"), layout)
}

fn results(graph: &Graph, bindings: &Bindings<f64>) -> Results<f64> {
    run::<f64>(graph, bindings).expect("results")
}

/// Rows `[from..to]` of a tensor of `batch * SEQ` ids.
fn part(tensor: &Tensor<f64>, shape: &[usize], step: usize) -> Tensor<f64> {
    let n: usize = shape.iter().product();
    let ids = tensor.doubles()[step * n..(step + 1) * n].iter().map(|x| *x as i32).collect();
    Tensor::int(shape, ids)
}

fn close(what: &str, found: &Tensor<f64>, expected: &Tensor<f64>) {
    let (found, expected) = (found.doubles(), expected.doubles());
    assert_eq!(found.len(), expected.len(), "{what}");
    for (x, y) in found.iter().zip(&expected) {
        assert!((x - y).abs() <= 1e-12 * (1.0 + y.abs()), "{what}: {x} instead of {y}");
    }
}

fn accumulated_step_is_one_large_step(options: &PipelineOptions, optimizer: &OptimizerOptions) {
    let whole = program(&Entry::Train(optimizer.clone()), 2 * STEPS, options).0;
    let mut bindings = common::bindings(&whole, 13);
    // Batches count different numbers of targets, the last of them none: the mean of means is not the mean.
    let mut targets: Vec<i32> = bindings[TARGETS].doubles().iter().map(|t| (*t as i32).max(0)).collect();
    targets[3..8].fill(-1);
    targets[4 * SEQ..].fill(-1);
    let counts: Vec<f64> = targets
        .chunks(2 * SEQ)
        .map(|batch| batch.iter().filter(|target| **target >= 0).count() as f64)
        .collect();
    assert_eq!(counts, [13.0, 18.0, 0.0]);
    bindings.insert(TARGETS.into(), Tensor::int([targets.len()], targets));
    let expected = results(&whole, &bindings);

    let (batch, _, _) = program(&Entry::Accumulate, 2, options);
    let mut states: BTreeMap<String, Tensor<f64>> = BTreeMap::new();
    let mut loss = 0.0;
    for step in 0..STEPS {
        let mut own = bindings.clone();
        own.insert("tokens".into(), part(&bindings["tokens"], &[2, SEQ], step));
        own.insert(TARGETS.into(), part(&bindings[TARGETS], &[2 * SEQ], step));
        let share = counts[step] / counts.iter().sum::<f64>();
        own.insert(SHARE.into(), Tensor::scalar(share));
        own.insert(KEEP.into(), Tensor::scalar(if step == 0 { 0.0 } else { 1.0 }));
        for id in batch.nodes() {
            let Op::State { name, ty, role: StateRole::OfParam { state: ParamState::Gradient, .. } } =
                batch.op(id)
            else {
                continue;
            };
            // What an earlier step left is forgotten.
            let left = || Tensor::float(ty.shape.clone(), vec![7.0; ty.shape.numel()]);
            own.insert(name.clone(), states.get(name).cloned().unwrap_or_else(left));
        }
        let found = results(&batch, &own);
        loss += found.outputs[LOSS].doubles()[0] * share;
        states = found.updates.into_iter().collect();
    }
    close(LOSS, &Tensor::scalar(loss), &expected.outputs[LOSS]);

    let update = program(&Entry::Update(optimizer.clone()), 1, options).0;
    let mut own: Bindings<f64> = bindings.clone();
    own.extend(states);
    let found = results(&update, &own);
    close(GRAD_NORM, &found.outputs[GRAD_NORM], &expected.outputs[GRAD_NORM]);
    assert_eq!(found.updates.len(), expected.updates.len());
    for (name, value) in &found.updates {
        close(name, value, &expected.updates[name]);
    }
}

/// Muon for some matrices, tall and wide, and another rate for a vector.
fn muon() -> OptimizerOptions {
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    let matrices = names(&[
        "layers.0.attention.wk.weight",
        "layers.0.feed_forward.w2.weight",
        "layers.1.feed_forward.w1.weight",
    ]);
    let groups = vec![
        ParamGroup { params: matrices, rule: Rule::Muon(MuonSpec::default()), lr: 2.0 },
        ParamGroup {
            params: names(&["norm.weight"]),
            rule: Rule::Joined(UpdateOp::Adam(AdamSpec(AdamWSpec::default()))),
            lr: 0.5,
        },
    ];
    OptimizerOptions { groups, ..OptimizerOptions::default() }
}

#[test]
fn accumulated_gradients_make_the_step_of_one_large_batch() {
    for kinds in ["SS", "LS", "LL"] {
        accumulated_step_is_one_large_step(&common::options(kinds), &OptimizerOptions::default());
    }
}

#[test]
fn every_optional_pass_can_be_switched_off() {
    for pass in OPTIONAL {
        let mut options = common::options("LS");
        options.disabled.insert(pass.to_string());
        accumulated_step_is_one_large_step(&options, &OptimizerOptions::default());
        accumulated_step_is_one_large_step(&options, &muon());
    }
}

#[test]
fn states_are_updated_where_they_lie() {
    let (graph, plan, layout) = program(&Entry::Accumulate, 2, &common::options("LS"));
    let memory = common::allocated(&graph, &plan, &layout);
    let position: BTreeMap<_, _> = plan.order.iter().enumerate().map(|(i, id)| (*id, i)).collect();
    assert!(!graph.updates.is_empty());
    for (leaf, value) in &graph.updates {
        let name = graph.op(*leaf).leaf_name().expect("a name");
        let root = plan.storage[value].root;
        assert_eq!(root.node, *leaf, "{name}");
        let Allocation { persistent, offset, .. } = memory.allocations[&root];
        assert!(persistent && layout.offset(name) == Some(offset), "{name}");
        for (reader, _) in graph.users(root) {
            assert!(position[&reader] <= position[&value.node], "{name} is read after it was overwritten");
        }
    }
}

#[test]
fn the_update_has_parameters_and_states_only() {
    let graph = program(&Entry::Update(OptimizerOptions::default()), 1, &common::options("LS")).0;
    let mut inputs: Vec<&str> = graph
        .nodes()
        .filter(|n| matches!(graph.op(*n), linc_ir::Op::Input { .. }))
        .filter_map(|n| graph.op(n).leaf_name())
        .collect();
    inputs.sort_unstable();
    assert_eq!(inputs, [LEARNING_RATE, STEP]);
    assert_eq!(graph.outputs.len(), 1);
}
