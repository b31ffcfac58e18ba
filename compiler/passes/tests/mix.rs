//! Mixed layers by the interpreter in f64: the bits of plain models at gates of 1 and 0, derivatives in the gates, and the
//! alignment of linear branches.

use std::collections::BTreeSet;

use linc_ir::interp::{Bindings, Data, Tensor, run};
use linc_ir::{Graph, NodeId, Op};
use linc_passes::mix::{self, ALIGNMENT, DIVERGENCE, GATE_GRADIENTS, TEACHER, WEIGHTS};
use linc_passes::{attention, autodiff, loss};

use crate::common;

const BATCH: usize = 2;
const SEQ: usize = 9;
const VOCAB: usize = 13;
const LAYERS: usize = 2;

fn lowered(mut graph: Graph, kinds: &str) -> Graph {
    let options = common::options(kinds);
    attention::run(&mut graph, &options.kinds, &options.attention).expect("lowered attention");
    linc_ir::verify(&graph).expect("a well-formed graph");
    graph
}

fn output(graph: &Graph, bindings: &Bindings<f64>, name: &str) -> Vec<f64> {
    run::<f64>(graph, bindings).unwrap_or_else(|e| panic!("{e}")).outputs[name].doubles()
}

/// Values for a mixed graph, whose copies are what they are copies of.
fn bindings(plain: &Graph, mixed: &Graph) -> Bindings<f64> {
    let mut bindings = common::bindings(plain, VOCAB as i32);
    for copy in mix::copies(plain) {
        let value = bindings[&copy.of].clone();
        bindings.insert(copy.name, value);
    }
    for id in mixed.nodes() {
        if let Op::Input { name, ty } = mixed.op(id)
            && !bindings.contains_key(name)
        {
            bindings.insert(name.clone(), Tensor::full(ty, 0.0));
        }
    }
    bindings
}

fn set(bindings: &mut Bindings<f64>, name: &str, values: Vec<f64>) {
    let Data::Float(data) = &mut bindings.get_mut(name).expect("bound").data else { panic!("not float") };
    assert_eq!(data.len(), values.len());
    *data = values;
}

#[test]
fn queries_and_keys_have_copies_and_nothing_else() {
    let plain = common::tiny_llama(BATCH, SEQ);
    let names: Vec<String> = mix::copies(&plain).into_iter().map(|copy| copy.of).collect();
    let expected = (0..LAYERS)
        .flat_map(|layer| ["wq", "wk"].map(|name| format!("layers.{layer}.attention.{name}.weight")));
    assert_eq!(names, expected.collect::<Vec<_>>());
}

#[test]
fn keys_that_are_values_too_have_no_copy_and_a_norm_of_queries_has_one() {
    let text = "model a(tokens: [batch, seq] int) {
      param embedding_table [vocab_size, dim] init normal(1.0)
      x = embedding(tokens, embedding_table)
      for layer in layers {
        block attention {
          param wq [dim, dim] init normal(0.5)
          param wk [dim, dim] init normal(0.5)
          param gain [head_dim] init ones
          q = rms_norm(split_heads(x @ wq.T, n_heads), gain, 0.00001)
          k = split_heads(x @ wk.T, n_heads)
          x = x + merge_heads(attention(q, k, k))
        }
      }
      logits = x @ embedding_table.T
    }";
    let plain = common::plain(text, BATCH, SEQ);
    let of: BTreeSet<String> = mix::copies(&plain).into_iter().map(|copy| copy.of).collect();
    let expected = (0..LAYERS)
        .flat_map(|layer| ["gain", "wq"].map(|name| format!("layers.{layer}.attention.{name}.weight")));
    assert_eq!(of, expected.collect());
    let mut mixed = plain.clone();
    mix::run(&mut mixed).expect("mixed layers");
    linc_ir::verify(&mixed).expect("a well-formed graph");
}

#[test]
fn gates_of_one_and_zero_give_the_plain_models() {
    let plain = common::tiny_llama(BATCH, SEQ);
    let mut mixed = plain.clone();
    let gates = mix::run(&mut mixed).expect("mixed layers");
    assert_eq!(gates.len(), LAYERS);
    let mut bindings = bindings(&plain, &mixed);
    let mixed = lowered(mixed, "SS");
    for kinds in ["SS", "SL", "LS", "LL"] {
        for (layer, kind) in kinds.chars().enumerate() {
            set(&mut bindings, &mix::gate(layer), vec![f64::from(u8::from(kind == 'S')); BATCH]);
        }
        let expected = output(&lowered(plain.clone(), kinds), &bindings, loss::LOGITS);
        assert_eq!(output(&mixed, &bindings, loss::LOGITS), expected, "{kinds}");
    }
    // Each sequence has gates of its own.
    set(&mut bindings, &mix::gate(0), vec![1.0, 0.0]);
    set(&mut bindings, &mix::gate(1), vec![0.0, 1.0]);
    let found = output(&mixed, &bindings, loss::LOGITS);
    let half = found.len() / 2;
    assert_eq!(found[..half], output(&lowered(plain.clone(), "SL"), &bindings, loss::LOGITS)[..half]);
    assert_eq!(found[half..], output(&lowered(plain, "LS"), &bindings, loss::LOGITS)[half..]);
}

/// KL(p ‖ q) of the softmaxes of two rows.
fn divergence(p: &[f64], q: &[f64]) -> f64 {
    let log_softmax = |row: &[f64]| {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum = row.iter().map(|x| (x - max).exp()).sum::<f64>().ln() + max;
        row.iter().map(|x| x - sum).collect::<Vec<f64>>()
    };
    log_softmax(p).iter().zip(log_softmax(q)).map(|(p, q)| p.exp() * (p - q)).sum()
}

#[test]
fn divergences_are_those_of_the_logits_and_have_their_derivatives_in_the_gates() {
    let plain = common::tiny_llama(BATCH, SEQ);
    let mut graph = plain.clone();
    let gates = mix::run(&mut graph).expect("mixed layers");
    let logits = lowered(graph.clone(), "SS");
    let compared = mix::diverge(&mut graph, loss::LOGITS).expect("logits");
    loss::score(&mut graph).expect("logits");
    let gradients = autodiff::run_to(&mut graph, compared.logits, Some(compared.gradient), &gates);
    mix::output_gradients(&mut graph, &gradients.expect("gradients")).expect("an output");
    let mut bindings = bindings(&plain, &graph);
    let graph = lowered(graph, "SS");
    let at = [[0.9, 0.3], [0.2, 0.6]];
    for (layer, gates) in at.iter().enumerate() {
        set(&mut bindings, &mix::gate(layer), vec![1.0; BATCH]);
        assert_eq!(gates.len(), BATCH);
    }
    let teacher = output(&logits, &bindings, loss::LOGITS);
    set(&mut bindings, TEACHER, teacher.clone());
    // Some places count, and not all alike.
    let weights: Vec<f64> = (0..BATCH * SEQ).map(|place| [0.0, 0.5, 1.5][place % 3]).collect();
    set(&mut bindings, WEIGHTS, weights.clone());
    let of_teacher = output(&graph, &bindings, DIVERGENCE);
    assert!(of_teacher.iter().all(|x| *x == 0.0), "the teacher is the model at gates of 1");

    let gated = |bindings: &mut Bindings<f64>, at: &[[f64; 2]; 2]| {
        for (layer, gates) in at.iter().enumerate() {
            set(bindings, &mix::gate(layer), gates.to_vec());
        }
    };
    gated(&mut bindings, &at);
    let student = output(&logits, &bindings, loss::LOGITS);
    let found = output(&graph, &bindings, DIVERGENCE);
    for (place, found) in found.iter().enumerate() {
        let row = place * VOCAB..(place + 1) * VOCAB;
        let expected = divergence(&teacher[row.clone()], &student[row]);
        assert!((found - expected).abs() < 1e-12 * (1.0 + expected), "{place}: {found}, not {expected}");
    }
    let gradients = output(&graph, &bindings, GATE_GRADIENTS);
    for layer in 0..LAYERS {
        for sequence in 0..BATCH {
            let eps = 1e-5;
            let mut shifted = |delta: f64| {
                let mut at = at;
                at[layer][sequence] += delta;
                gated(&mut bindings, &at);
                let found = output(&graph, &bindings, DIVERGENCE);
                found.iter().zip(&weights).map(|(x, w)| x * w).sum::<f64>()
            };
            let numeric = (shifted(eps) - shifted(-eps)) / (2.0 * eps);
            let found = gradients[layer * BATCH + sequence];
            assert!(
                (found - numeric).abs() < 1e-7 * (1.0 + numeric.abs()),
                "{layer} {sequence}: {found}, {numeric}"
            );
        }
    }
}

#[test]
fn alignment_has_gradients_of_copies_only_and_none_from_layer_to_layer() {
    let plain = common::tiny_llama(BATCH, SEQ);
    let mut graph = plain.clone();
    let copies = mix::align(&mut graph, loss::LOSS).expect("linear branches");
    let root = graph.output(loss::LOSS).expect("a loss");
    let gradients = autodiff::run_to(&mut graph, root, None, &copies).expect("gradients");
    let names: Vec<String> = mix::copies(&plain).into_iter().map(|copy| copy.name).collect();
    let name = |id: NodeId, graph: &Graph| graph.op(id).leaf_name().expect("a name").to_string();
    let trained: BTreeSet<String> = gradients.iter().map(|(id, _)| name(*id, &graph)).collect();
    assert_eq!(trained, names.iter().cloned().collect());
    for (param, gradient) in &gradients {
        graph.outputs.push((name(*param, &graph), *gradient));
    }
    let bindings = bindings(&plain, &graph);
    let graph = lowered(graph, "SS");
    let each = output(&graph, &bindings, ALIGNMENT);
    assert_eq!(each.len(), LAYERS);
    assert!((output(&graph, &bindings, loss::LOSS)[0] - each.iter().sum::<f64>()).abs() < 1e-12);
    for copy in mix::copies(&plain) {
        let gradient = output(&graph, &bindings, &copy.name);
        let Data::Float(values) = &bindings[&copy.name].data else { panic!("not float") };
        let index = values.len() / 3;
        let shifted = |delta: f64| {
            let mut moved = bindings.clone();
            let mut values = values.clone();
            values[index] += delta;
            set(&mut moved, &copy.name, values);
            output(&graph, &moved, ALIGNMENT)
        };
        let (up, down) = (shifted(1e-5), shifted(-1e-5));
        for layer in 0..LAYERS {
            let numeric = (up[layer] - down[layer]) / 2e-5;
            let expected = if layer == copy.layer { gradient[index] } else { 0.0 };
            assert!((numeric - expected).abs() < 1e-7, "{} in {layer}: {numeric}, {expected}", copy.name);
        }
    }
}

#[test]
fn without_attention_there_is_nothing_to_mix() {
    let text = "model a(tokens: [batch, seq] int) {
      param embedding_table [vocab_size, dim] init normal(1.0)
      logits = embedding(tokens, embedding_table) @ embedding_table.T
    }";
    let mut graph = common::plain(text, BATCH, SEQ);
    let error = mix::run(&mut graph).expect_err("no attention").to_string();
    assert!(error.contains("no attention"), "{error}");
    assert!(mix::align(&mut graph, loss::LOSS).is_err());
}
