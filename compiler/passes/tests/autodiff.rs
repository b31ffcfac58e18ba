//! Gradients of a whole model against finite differences, in f64.

use crate::common;

use linc_ir::interp::{Bindings, Data, run};
use linc_ir::{Graph, Value};
use linc_passes::loss::LOSS;
use linc_passes::{attention, autodiff, loss};

fn loss_of(graph: &Graph, bindings: &Bindings<f64>) -> f64 {
    run::<f64>(graph, bindings).expect("the loss").outputs[LOSS].doubles()[0]
}

fn check(kinds: &str, rope_on_linear: bool) {
    let mut graph = common::tiny_llama(2, 9);
    loss::attach(&mut graph).expect("logits");
    loss::chunk(&mut graph, 64).expect("a chunked loss");
    let mut options = common::options(kinds);
    options.attention.efficient.rope = rope_on_linear;
    let bindings = common::bindings(&graph, 13);

    let mut forward = graph.clone();
    attention::run(&mut forward, &options.kinds, &options.attention).expect("lowered attention");

    let gradients = autodiff::run(&mut graph, LOSS).expect("gradients");
    for (param, grad) in &gradients {
        let name = graph.op(*param).leaf_name().expect("a name").to_string();
        graph.outputs.push((name, *grad));
    }
    attention::run(&mut graph, &options.kinds, &options.attention).expect("lowered attention");
    linc_ir::verify(&graph).expect("a well-formed graph");
    let results = run::<f64>(&graph, &bindings).expect("gradients");

    for (param, _) in &gradients {
        let name = graph.op(*param).leaf_name().expect("a name");
        let grad = results.outputs[name].doubles();
        let n = graph.ty(Value { node: *param, port: 0 }).shape.numel();
        let scale = grad.iter().fold(0.0f64, |a, g| a.max(g.abs()));
        for index in [0, n / 3, n / 2, n - 1] {
            let shifted = |delta: f64| {
                let mut moved = bindings.clone();
                let Data::Float(data) = &mut moved.get_mut(name).expect("bound").data else {
                    panic!("not float")
                };
                data[index] += delta;
                loss_of(&forward, &moved)
            };
            let eps = 1e-5;
            let numeric = (shifted(eps) - shifted(-eps)) / (2.0 * eps);
            let error = (numeric - grad[index]).abs();
            assert!(error <= 1e-7 * scale.max(1e-2), "{kinds} {name}[{index}]: {numeric} vs {}", grad[index]);
        }
    }
}

#[test]
fn hybrid() {
    check("LS", false);
    check("SL", true);
}

#[test]
fn all_of_one_kind() {
    check("SS", false);
    check("LL", false);
}
