//! bf16 against f32: gradients, whole training runs, memory; and the compiled bf16 program against the interpreter.

use std::collections::BTreeMap;

use linc_device::cpu::{Cpu, CpuOptions};
use linc_driver::{Compiled, Entry, Layout, Model, Options, Placement, Precision, Source, compile, names};
use linc_exec::Executor;
use linc_ir::interp::{Bindings, run};
use linc_ir::{DType, Graph, NodeId, Op, Value};
use linc_tests::models::{compiled, flavor, sized, training};
use linc_tests::reference::{bindings, distance, doubles, gradients, norm, single};

const BATCH: usize = 2;
const SEQ: usize = 24;
const VOCAB: usize = 32;

/// A hybrid with several chunks, grouped heads and a head size that the attention kernels take.
fn hybrid(ratio: &str) -> Model {
    let numbers = [
        ("dim", 32.0),
        ("n_layers", 2.0),
        ("n_heads", 4.0),
        ("n_kv_heads", 2.0),
        ("vocab_size", VOCAB as f64),
        ("ffn_dim_multiplier", 0.5),
        ("multiple_of", 8.0),
        ("linear_attention.chunk", 8.0),
    ];
    sized("nano", &numbers, ratio)
}

fn options(precision: Precision) -> Options {
    Options { precision, dumps: true, ..Options::new(BATCH, SEQ) }
}

/// The training program as a graph, after all passes.
fn graph(model: &Model, precision: Precision) -> Graph {
    last(&compiled(model, &training(), &options(precision)))
}

/// The graph after the last pass.
fn last(compiled: &Compiled) -> Graph {
    let dump = compiled.dumps.iter().find(|d| d.path.ends_with("-memory.ir")).expect("the last graph");
    linc_ir::parse(&dump.text).unwrap_or_else(|e| panic!("{e}"))
}

fn evaluate(graph: &Graph, at: &Bindings<f64>) -> BTreeMap<String, Vec<f64>> {
    doubles(&run::<f64>(graph, at).unwrap_or_else(|e| panic!("{e}")))
}

/// Relative root-mean-square error.
fn error(found: &[f64], exact: &[f64]) -> f64 {
    distance(found, exact) / norm(exact)
}

/// The program as eager bf16 computes it: every pointwise operation rounds, outside of the optimizer.
fn eager(model: &Model) -> Graph {
    let mut options = options(Precision::Bfloat16);
    options.disabled.insert("fusion".into());
    let mut graph = last(&compiled(model, &training(), &options));
    let rounds = |id: &NodeId| {
        let is_pointwise = matches!(graph.op(*id), Op::Unary(_) | Op::Binary(_));
        is_pointwise && graph.node(*id).scope != "optimizer"
    };
    for id in graph.nodes().filter(rounds).collect::<Vec<_>>() {
        let value = Value { node: id, port: 0 };
        let users = graph.users(value);
        let [narrow, wide] = [DType::Bf16, DType::F32].map(|dtype| Op::Cast { dtype });
        let rounded = graph.push(narrow, &[value]).and_then(|v| graph.push(wide, &[v]));
        let rounded = rounded.unwrap_or_else(|e| panic!("{e}"));
        users.into_iter().for_each(|(user, operand)| graph.set_operand(user, operand, rounded));
    }
    graph
}

#[test]
fn gradients_are_as_exact_as_those_of_eager_bf16() {
    for ratio in ["0", "0.5", "1"] {
        let model = hybrid(ratio);
        let exact = graph(&model, Precision::Float32);
        let at = bindings(&exact, VOCAB, 11, false);
        let exact = evaluate(&exact, &at);
        let (rounded, eager) =
            (evaluate(&graph(&model, Precision::Bfloat16), &at), evaluate(&eager(&model), &at));
        let plan = compiled(&model, &training(), &options(Precision::Bfloat16)).plan;
        let found = linc_tests::compiled::run(&plan, &at, 2);
        for result in [&rounded, &found] {
            let off = error(&result[names::LOSS], &exact[names::LOSS]);
            assert!(off < 5e-3, "ratio {ratio}: the loss is off by {off}");
        }
        let (rounded, eager, found) = (gradients(&rounded), gradients(&eager), gradients(&found));
        for (name, exact) in gradients(&exact) {
            let [rounded, eager, found] = [&rounded, &eager, &found].map(|of| error(&of[name], &exact));
            // A rounding is off by 2^-10 or so; random weights of this size magnify it to some percent on the way.
            assert!(rounded < 0.1, "ratio {ratio}: {name} is off by {rounded}");
            assert!(rounded < 1.5 * eager, "ratio {ratio}: {name} is off by {rounded}, eager by {eager}");
            // Kernels of attention also round between its products, on any machine that multiplies bf16.
            assert!(found < 2.0 * eager, "ratio {ratio}: {name}: compiled {found}, eager {eager}");
        }
    }
}

/// A model without attention, whose every rounding the graph shows.
fn mlp() -> Model {
    let architecture = "model mlp(tokens: [batch, seq] int) {
  param table [vocab_size, dim] init normal(1.0)
  x = embedding(tokens, table)
  for layer in layers {
    param norm [dim] init ones
    param w1 [hidden, dim] init normal(0.3)
    param w3 [hidden, dim] init normal(0.3)
    param w2 [dim, hidden] init normal(0.3)
    h = rms_norm(x, norm, 1e-5)
    x = x + (silu(h @ w1.T) * (h @ w3.T)) @ w2.T
  }
  logits = x @ table.T
}
";
    let config = format!(
        "name = \"mlp\"\nflavor = \"small\"\narchitecture = \"mlp.linc\"\ndim = 24\nn_layers = 2\nn_heads = 1\n\
         vocab_size = {VOCAB}\n[constants]\nhidden = 40\n"
    );
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let ratio = "0".parse().unwrap_or_else(|e| panic!("{e}"));
    Model::new(
        &source("mlp.toml", &config),
        &source("mlp.linc", architecture),
        &[],
        ratio,
        Placement::Uniform,
    )
    .unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn the_compiled_program_rounds_where_the_interpreter_does() {
    let model = mlp();
    let graph = graph(&model, Precision::Bfloat16);
    let at = bindings(&graph, VOCAB, 5, true);
    let plan = compiled(&model, &training(), &options(Precision::Bfloat16)).plan;
    let expected = doubles(&run::<f32>(&graph, &single(&at)).unwrap_or_else(|e| panic!("{e}")));
    for (name, found) in linc_tests::compiled::run(&plan, &at, 2) {
        // Sums in another order rarely cross a rounding boundary; where one does, an element moves by 2^-8.
        let off = error(&found, &expected[&name]);
        assert!(off < 5e-4, "{name} is off by {off}");
    }
}

/// Losses of 50 steps from the same weights on the same batches.
fn losses(precision: Precision) -> Vec<f32> {
    let plan = compiled(&hybrid("0.5"), &training(), &options(precision)).plan;
    let cpu = Cpu::new(CpuOptions { threads: Some(2), level: None }).unwrap_or_else(|e| panic!("{e}"));
    let mut executor = Executor::new(Box::new(cpu), vec![plan]).unwrap_or_else(|e| panic!("{e}"));
    executor.initialize(1).unwrap_or_else(|e| panic!("{e}"));
    let ids = |at: usize| -> Vec<u8> {
        // Text of a short period, which can be learnt.
        let id = |i: usize| ((i * i + 3 * i) % 7 + i % 3) as i32;
        (at..at + BATCH * SEQ).flat_map(|i| id(i).to_le_bytes()).collect()
    };
    let mut losses = vec![];
    for step in 0..50u16 {
        let at = usize::from(step) * 5;
        let inputs = [
            (names::TOKENS, ids(at)),
            (names::TARGETS, ids(at + 1)),
            (names::LEARNING_RATE, 3e-3f32.to_le_bytes().to_vec()),
            (names::STEP, f32::from(step + 1).to_le_bytes().to_vec()),
        ];
        for (name, bytes) in inputs {
            executor.write_input(0, name, &bytes).unwrap_or_else(|e| panic!("{e}"));
        }
        executor.run(0).unwrap_or_else(|e| panic!("{e}"));
        losses.push(executor.output(0, names::LOSS).unwrap_or_else(|e| panic!("{e}"))[0]);
    }
    losses
}

#[test]
fn fifty_steps_have_the_losses_of_f32() {
    let (exact, rounded) = (losses(Precision::Float32), losses(Precision::Bfloat16));
    assert!(exact[49] < 0.7 * exact[0], "nothing was learnt: {exact:?}");
    for (step, (exact, rounded)) in exact.iter().zip(&rounded).enumerate() {
        assert!((exact - rounded).abs() < 0.01 * exact, "step {step}: {exact} in f32, {rounded} in bf16");
    }
    assert_eq!(losses(Precision::Bfloat16), rounded, "a run repeats");
}

#[test]
fn activations_take_half_of_the_memory() {
    let model = flavor("1b", "0.5");
    let kept = |precision| {
        let options = Options { precision, ..Options::new(8, 2048) };
        let report = compiled(&model, &training(), &options).report;
        assert!(report.memory["activations"] > 1 << 30, "the peak is where activations are kept");
        (report.memory["activations"], report.memory["attention"])
    };
    let (exact, rounded) = (kept(Precision::Float32), kept(Precision::Bfloat16));
    assert_eq!(rounded.0 * 2, exact.0);
    // Its statistics and states stay f32.
    assert!(rounded.1 * 10 < exact.1 * 6, "{} of {}", rounded.1, exact.1);
}

#[test]
fn weights_are_cast_once_whatever_is_recomputed() {
    use linc_driver::RecomputePolicy::{Full, None, Selective};
    let model = hybrid("0.5");
    for recompute in [None, Selective, Full] {
        let options = Options { recompute, ..options(Precision::Bfloat16) };
        let graph = last(&compiled(&model, &training(), &options));
        let matrices = graph.nodes().filter(|id| match graph.op(*id) {
            Op::Param { ty, .. } => ty.shape.rank() == 2,
            _ => false,
        });
        // All but the table of the embedding, which is read as it is.
        let casts = graph.nodes().filter(|id| {
            matches!(graph.op(*id), Op::Cast { dtype: DType::Bf16 })
                && graph.is_weight(graph.operands(*id)[0])
        });
        assert_eq!(casts.count(), matrices.count() - 1, "{}", recompute.name());
    }
}

#[test]
fn sister_programs_share_the_masters() {
    let model = hybrid("0.5");
    let mut layout = Layout::default();
    let entries = [training(), Entry::Accumulate { steps: 2 }, Entry::Eval, Entry::Decode { context: SEQ }];
    let mut places: BTreeMap<String, (u64, Vec<usize>)> = BTreeMap::new();
    for entry in entries {
        let options = if matches!(entry, Entry::Decode { .. }) {
            Options { precision: Precision::Bfloat16, ..Options::new(1, 1) }
        } else {
            options(Precision::Bfloat16)
        };
        let plan = compile(&model, &entry, &options, &mut layout).unwrap_or_else(|e| panic!("{e}")).plan;
        for binding in plan.bindings.iter().filter(|b| b.role == linc_plan::Role::Param) {
            assert_eq!(binding.dtype, linc_plan::DType::F32, "{}", binding.name);
            let at = plan.buffers[binding.at.buffer].offset + binding.at.offset;
            let place = (at, binding.shape.clone());
            assert_eq!(
                *places.entry(binding.name.clone()).or_insert(place.clone()),
                place,
                "{}",
                binding.name
            );
        }
        for binding in plan.bindings.iter().filter(|b| b.name.contains("cache_")) {
            assert_eq!(binding.dtype, linc_plan::DType::Bf16, "{}", binding.name);
        }
    }
}
