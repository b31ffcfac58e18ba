//! bf16 and f16 against f32: gradients and memory; and the compiled program against the interpreter. Whole training runs
//! are in `training.rs`.

use std::collections::BTreeMap;

use linc_driver::{
    BatchShape, Compiled, Entry, Model, Options, PersistentLayout, Placement, Precision, Room, Source,
    compile, names,
};
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

/// The program as eager mixed precision computes it: every pointwise operation rounds, outside of the optimizer.
fn eager(model: &Model, precision: Precision) -> Graph {
    let mut options = options(precision);
    let narrow = precision.narrow().expect("a narrow type");
    options.disabled.insert("fusion".into());
    let mut graph = last(&compiled(model, &training(), &options));
    let rounds = |id: &NodeId| {
        let is_pointwise = matches!(graph.op(*id), Op::Unary(_) | Op::Binary(_));
        is_pointwise && !["optimizer", "loss_scale"].contains(&graph.node(*id).scope.path.as_str())
    };
    for id in graph.nodes().filter(rounds).collect::<Vec<_>>() {
        let value = Value { node: id, port: 0 };
        let users = graph.users(value);
        let [narrow, wide] = [narrow, DType::F32].map(|dtype| Op::Cast { dtype });
        let rounded = graph.push(narrow, &[value]).and_then(|v| graph.push(wide, &[v]));
        let rounded = rounded.unwrap_or_else(|e| panic!("{e}"));
        users.into_iter().for_each(|(user, operand)| graph.set_operand(user, operand, rounded));
    }
    graph
}

#[test]
fn gradients_are_as_exact_as_those_of_eager_mixed_precision() {
    // A rounding is off by 2^-10 or 2^-13; random weights of this size magnify it to some percent on the way.
    let kinds = [(Precision::Bfloat16, 5e-3, 0.1), (Precision::Float16, 1e-3, 0.013)];
    for ((precision, loss, limit), ratio) in kinds.into_iter().flat_map(|k| ["0", "0.5", "1"].map(|r| (k, r)))
    {
        let model = hybrid(ratio);
        let rounded = graph(&model, precision);
        let at = bindings(&rounded, VOCAB, 11, false);
        let exact = evaluate(&graph(&model, Precision::Float32), &at);
        let (rounded, eager) = (evaluate(&rounded, &at), evaluate(&eager(&model, precision), &at));
        let plan = compiled(&model, &training(), &options(precision)).plan;
        let found = linc_tests::compiled::run(&plan, &at, 2);
        for result in [&rounded, &found] {
            let off = error(&result[names::LOSS], &exact[names::LOSS]);
            assert!(off < loss, "{precision:?}, ratio {ratio}: the loss is off by {off}");
        }
        let (rounded, eager, found) = (gradients(&rounded), gradients(&eager), gradients(&found));
        for (name, exact) in gradients(&exact) {
            let [rounded, eager, found] = [&rounded, &eager, &found].map(|of| error(&of[name], &exact));
            assert!(rounded < limit, "{precision:?}, ratio {ratio}: {name} is off by {rounded}");
            assert!(
                rounded < 1.5 * eager,
                "{precision:?}, ratio {ratio}: {name} is off by {rounded}, eager by {eager}"
            );
            // Kernels of attention also round between its products, on any machine that multiplies 16 bits.
            assert!(
                found < 2.0 * eager,
                "{precision:?}, ratio {ratio}: {name}: compiled {found}, eager {eager}"
            );
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
    let shape = BatchShape { batch: BATCH, seq: SEQ };
    let (config, text) = (source("mlp.toml", &config), source("mlp.linc", architecture));
    Model::new(&config, &text, &[], None, Placement::Uniform, shape).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn the_compiled_program_rounds_where_the_interpreter_does() {
    // Sums in another order rarely cross a rounding boundary; where one does, an element moves by 2^-8 or 2^-11.
    for (precision, limit) in [(Precision::Bfloat16, 5e-4), (Precision::Float16, 1e-4)] {
        let model = mlp();
        let graph = graph(&model, precision);
        let at = bindings(&graph, VOCAB, 5, true);
        let plan = compiled(&model, &training(), &options(precision)).plan;
        let expected = doubles(&run::<f32>(&graph, &single(&at)).unwrap_or_else(|e| panic!("{e}")));
        for (name, found) in linc_tests::compiled::run(&plan, &at, 2) {
            let off = distance(&found, &expected[&name]);
            assert!(off <= limit * norm(&expected[&name]), "{precision:?}: {name} is off by {off}");
        }
    }
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
    // A few scalars more.
    let half = kept(Precision::Float16);
    assert!(half.0 - rounded.0 < 64 && half.1 == rounded.1, "{half:?} and {rounded:?}");
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
        assert_eq!(casts.count(), matrices.count() - 1, "{}", recompute);
    }
}

#[test]
fn sister_programs_share_the_masters() {
    let model = hybrid("0.5");
    let mut layout = PersistentLayout::default();
    let entries = [training(), Entry::Accumulate, Entry::Eval, Entry::Decode(Room::of_one(SEQ))];
    let mut places: BTreeMap<String, (u64, Vec<usize>)> = BTreeMap::new();
    for entry in entries {
        let options = if matches!(entry, Entry::Decode(_)) {
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
