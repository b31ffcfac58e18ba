//! The whole pipeline keeps the meaning of the program, with every optional pass on or off.

use crate::common;

use linc_ir::interp::{Bindings, Results, run};
use linc_ir::{BinaryOp, Graph, Op};
use linc_passes::memory::PersistentLayout;
use linc_passes::optimizer::OptimizerOptions;
use linc_passes::pipeline::{self, Entry, OPTIONAL, PipelineOptions};
use linc_passes::recompute::{Limit, Policy};

fn train(options: &PipelineOptions) -> Graph {
    let mut graph = common::tiny_llama(2, 9);
    let entry = Entry::Train(OptimizerOptions::default());
    let mut layout = PersistentLayout::default();
    pipeline::run(&mut graph, &entry, options, &mut layout, &mut |pass, graph| {
        linc_ir::verify(graph).unwrap_or_else(|e| panic!("after {pass}: {e}"));
    })
    .expect("a lowered graph");
    graph
}

fn evaluate(graph: &Graph, bindings: &Bindings<f64>) -> Results<f64> {
    run::<f64>(graph, bindings).expect("results")
}

fn assert_same(a: &Results<f64>, b: &Results<f64>, what: &str) {
    assert_eq!(a.updates.len(), b.updates.len());
    for (name, x) in a.outputs.iter().chain(&a.updates) {
        let y = b
            .outputs
            .get(name)
            .or_else(|| b.updates.get(name))
            .unwrap_or_else(|| panic!("{what}: no {name}"));
        for (x, y) in x.doubles().iter().zip(y.doubles()) {
            assert!((x - y).abs() <= 1e-9 * (1.0 + x.abs()), "{what}: {name}: {x} vs {y}");
        }
    }
}

#[test]
fn every_optional_pass_can_be_switched_off() {
    let all = common::options("LS");
    let reference = train(&all);
    let bindings = common::bindings(&reference, 13);
    let expected = evaluate(&reference, &bindings);
    for pass in OPTIONAL {
        let mut options = all.clone();
        options.disabled.insert(pass.to_string());
        assert_same(&expected, &evaluate(&train(&options), &bindings), pass);
    }
    let mut none = all.clone();
    none.disabled = OPTIONAL.iter().map(|p| p.to_string()).collect();
    assert_same(&expected, &evaluate(&train(&none), &bindings), "all passes off");
}

#[test]
fn recompute_policies_agree() {
    let mut options = common::options("LS");
    let bindings = common::bindings(&train(&options), 13);
    let expected = evaluate(&train(&options), &bindings);
    let budget = Policy::Budget(Limit::Share(0.5));
    for policy in [Policy::None, Policy::Layers(2), Policy::Full, budget] {
        options.recompute = policy;
        assert_same(&expected, &evaluate(&train(&options), &bindings), &policy.to_string());
    }
}

#[test]
fn unknown_pass_names_are_refused() {
    let mut options = common::options("LS");
    options.disabled.insert("fuson".into());
    let mut graph = common::tiny_llama(1, 4);
    let result =
        pipeline::run(&mut graph, &Entry::Eval, &options, &mut PersistentLayout::default(), &mut |_, _| {});
    assert!(result.expect_err("an error").to_string().contains("fuson"));
}

#[test]
fn projections_are_merged_and_norms_take_their_residual_sums() {
    let graph = train(&common::options("SS"));
    let count = |wanted: fn(&Op) -> bool| graph.nodes().filter(|n| wanted(graph.op(*n))).count();
    // Per layer: qkv, wo, gate/up, w2 forward; for each an input and a weight gradient.
    assert_eq!(count(|op| matches!(op, Op::MatMul { .. })), 2 * 4 * 3);
    // Per layer two residual sums forward and two where gradients meet are parts of norms and of their gradients; but
    // the last sum, whose norm only the backward reads, which computes the loss as well.
    let operands = |wanted: fn(&Op) -> bool, operands: usize| {
        graph.nodes().filter(|n| wanted(graph.op(*n)) && graph.operands(*n).len() == operands).count()
    };
    assert_eq!(operands(|op| matches!(op, Op::RmsNorm { .. }), 3), 2 * 2 - 1);
    assert_eq!(operands(|op| matches!(op, Op::RmsNormGrad { .. }), 4), 2 * 2);
    assert_eq!(count(|op| matches!(op, Op::Unary(_) | Op::Binary(_))), 1);
    assert_eq!(count(|op| *op == Op::Binary(BinaryOp::Add)), 1);
}

#[test]
fn full_logits_never_exist() {
    let graph = train(&common::options("LS"));
    let logits = 2 * 9 * 13;
    for id in graph.nodes().filter(|n| !matches!(graph.op(*n), Op::LinearCrossEntropyGrad { .. })) {
        for value in graph.results(id) {
            assert_ne!(graph.ty(value).shape.numel(), logits, "{}", graph.op(id).name());
        }
    }
}

#[test]
fn layers_are_recomputed_wherever_their_loop_is() {
    let recomputed = |loops: &str| {
        let text = format!(
            "model m(tokens: [batch, seq] int) {{
               param table [vocab_size, dim] init normal(1.0)
               x = embedding(tokens, table)
               {loops}
               let logits = x @ table.T
             }}"
        );
        let mut graph = common::plain(&text, 1, 4);
        let mut options = common::options("SS");
        options.recompute = Policy::Full;
        let mut copies = 0;
        let mut observe = |pass: &'static str, graph: &Graph| {
            if pass == "recompute" {
                copies = graph.nodes().filter(|id| graph.node(*id).recompute).count();
            }
        };
        let (entry, mut layout) = (Entry::Train(OptimizerOptions::default()), PersistentLayout::default());
        pipeline::run(&mut graph, &entry, &options, &mut layout, &mut observe).expect("a program");
        copies
    };
    let stack = "for layer in layers { x = x + tanh(exp(x)) }";
    let plain = recomputed(stack);
    assert!(plain > 0);
    assert_eq!(recomputed(&format!("block encoder {{ {stack} }}")), plain);
}
