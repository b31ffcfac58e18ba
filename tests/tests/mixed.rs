//! Models whose layers mix kinds, compiled, on the CPU: one program gives, at gates of 1 and 0, the bits of every model that an
//! explicit list of linear layers makes; aligning changes the linear branches and nothing else.

use std::collections::BTreeMap;

use linc_device::cpu::{Cpu, CpuOptions};
use linc_driver::{
    BatchShape, Entry, Mixed, Model, OptimizerOptions, Options, PersistentLayout, Placement, Source, compile,
    copies, names,
};
use linc_exec::Executor;
use linc_plan::Role;
use linc_tests::models;

const LAYERS: usize = 4;
const BATCH: usize = 2;
const SEQ: usize = 40;
const VOCAB: usize = 48;

/// Several chunks of linear attention, grouped heads, and a feed-forward network.
fn model(linear: Vec<usize>, rope: bool) -> Model {
    let numbers = [
        ("dim", 32.0),
        ("n_layers", LAYERS as f64),
        ("n_heads", 4.0),
        ("n_kv_heads", 2.0),
        ("vocab_size", VOCAB as f64),
        ("multiple_of", 8.0),
        ("linear_attention.chunk", 16.0),
        ("linear_attention.rope", f64::from(u8::from(rope))),
    ];
    let numbers: Vec<(String, f64)> = numbers.iter().map(|(key, value)| ((*key).into(), *value)).collect();
    let (config, text) = (models::source("llama3_nano.toml"), models::source("llama3.linc"));
    let shape = BatchShape { batch: BATCH, seq: SEQ };
    Model::new(&config, &text, &numbers, None, Placement::Layers(linear), shape)
        .unwrap_or_else(|e| panic!("{e}"))
}

fn executor(model: &Model, entries: &[Entry]) -> Executor {
    let mut layout = PersistentLayout::default();
    let plan = |entry: &Entry| {
        let options = Options::new(BATCH, SEQ);
        compile(model, entry, &options, &mut layout).unwrap_or_else(|e| panic!("{e}")).plan
    };
    let plans = entries.iter().map(plan).collect();
    let cpu = Cpu::new(CpuOptions { threads: Some(2), level: None }).unwrap_or_else(|e| panic!("{e}"));
    let mut executor = Executor::new(Box::new(cpu), plans).unwrap_or_else(|e| panic!("{e}"));
    executor.initialize(5).unwrap_or_else(|e| panic!("{e}"));
    // Initial projections are so small that all kinds of attention say nearly the same.
    for (name, bytes) in params(&executor) {
        if name.contains("attention.w") {
            let larger =
                bytes.as_chunks().0.iter().map(|x| 6.0 * f32::from_le_bytes(*x)).collect::<Vec<f32>>();
            executor.write_tensor(&name, &floats(&larger)).unwrap_or_else(|e| panic!("{e}"));
        }
    }
    executor
}

fn tokens() -> Vec<u8> {
    (0..BATCH * SEQ).flat_map(|i| (((i * i + 5 * i) % 31 + i % 17) as i32).to_le_bytes()).collect()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn feed(executor: &mut Executor, program: usize, name: &str, bytes: &[u8]) {
    executor.write_input(program, name, bytes).unwrap_or_else(|e| panic!("{e}"));
}

fn output(executor: &Executor, program: usize, name: &str) -> Vec<f32> {
    executor.output(program, name).unwrap_or_else(|e| panic!("{e}"))
}

/// Parameters by name.
fn params(executor: &Executor) -> BTreeMap<String, Vec<u8>> {
    let names = executor.tensors(|role| *role == Role::Param).into_iter().map(|tensor| tensor.name);
    names.map(|name| (name.clone(), executor.read_tensor(&name).unwrap_or_else(|e| panic!("{e}")))).collect()
}

/// Gives copies the values of what they are copies of.
fn start_copies(executor: &mut Executor, model: &Model) {
    for copy in copies(model).unwrap_or_else(|e| panic!("{e}")) {
        let bytes = executor.read_tensor(&copy.of).unwrap_or_else(|e| panic!("{e}"));
        executor.write_tensor(&copy.name, &bytes).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Runs a mixed program, after its other inputs are written, with one gate for each layer.
fn mixed(executor: &mut Executor, program: usize, gates: [f32; LAYERS]) {
    feed(executor, program, names::TOKENS, &tokens());
    for (layer, gate) in gates.into_iter().enumerate() {
        feed(executor, program, &names::gate(layer), &floats(&[gate; BATCH]));
    }
    executor.run(program).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn one_program_has_the_logits_of_every_placement() {
    for rope in [true, false] {
        let base = model(vec![], rope);
        let mut mixing = executor(&base, &[Entry::Mixed(Mixed::Logits)]);
        start_copies(&mut mixing, &base);
        let mut distinct = vec![];
        for placement in 0..1usize << LAYERS {
            let linear: Vec<usize> = (0..LAYERS).filter(|layer| placement >> layer & 1 == 1).collect();
            let mut plain = executor(&model(linear.clone(), rope), &[Entry::Forward]);
            for (name, _) in params(&plain) {
                let bytes = mixing.read_tensor(&name).unwrap_or_else(|e| panic!("{e}"));
                plain.write_tensor(&name, &bytes).unwrap_or_else(|e| panic!("{e}"));
            }
            feed(&mut plain, 0, names::TOKENS, &tokens());
            plain.run(0).unwrap_or_else(|e| panic!("{e}"));
            let expected = output(&plain, 0, names::LOGITS);
            let gates = std::array::from_fn(|layer| if linear.contains(&layer) { 0.0 } else { 1.0 });
            mixed(&mut mixing, 0, gates);
            assert_eq!(output(&mixing, 0, names::LOGITS), expected, "linear layers {linear:?}, rope {rope}");
            assert!(!distinct.contains(&expected), "placements differ");
            distinct.push(expected);
        }
    }
}

#[test]
fn divergences_are_nothing_at_the_teacher_and_their_derivatives_add_up_to_what_becomes_of_them() {
    let model = model(vec![], true);
    let entries = [Mixed::Logits, Mixed::Divergence, Mixed::Gradients].map(Entry::Mixed);
    let mut executor = executor(&model, &entries);
    start_copies(&mut executor, &model);
    mixed(&mut executor, 0, [1.0; LAYERS]);
    let teacher = output(&executor, 0, names::LOGITS);
    let targets = tokens();
    let weights = [1.0 / SEQ as f32; BATCH * SEQ];
    let mut run = |program: usize, gates: [f32; LAYERS]| {
        feed(&mut executor, program, names::TEACHER, &floats(&teacher));
        feed(&mut executor, program, names::TARGETS, &targets);
        feed(&mut executor, program, names::WEIGHTS, &floats(&weights));
        mixed(&mut executor, program, gates);
        let gradients = if program == 2 { output(&executor, 2, names::GATE_GRADIENTS) } else { vec![] };
        (output(&executor, program, names::DIVERGENCE), gradients)
    };
    assert!(run(1, [1.0; LAYERS]).0.iter().all(|x| *x == 0.0));
    let (all_linear, _) = run(1, [0.0; LAYERS]);
    assert_eq!(run(2, [0.0; LAYERS]).0, all_linear, "both programs say the same");
    // Midpoints of the way from all softmax to all linear.
    let points = 16;
    let mut sum = [0.0f64; BATCH];
    for point in 0..points {
        let at = 1.0 - (point as f32 + 0.5) / points as f32;
        let (_, gradients) = run(2, [at; LAYERS]);
        for (index, gradient) in gradients.iter().enumerate() {
            sum[index % BATCH] -= f64::from(*gradient) / f64::from(points);
        }
    }
    for (sequence, sum) in sum.iter().enumerate() {
        let places = &all_linear[sequence * SEQ..(sequence + 1) * SEQ];
        let expected = places.iter().map(|x| f64::from(*x)).sum::<f64>() / SEQ as f64;
        assert!(expected > 1e-3, "there is something to attribute");
        assert!((sum - expected).abs() < 0.01 * expected, "{sum}, not {expected}");
    }
}

#[test]
fn aligning_changes_copies_only_and_lowers_their_error() {
    let model = model(vec![], true);
    let align = Entry::Mixed(Mixed::Align(OptimizerOptions::default()));
    let mut executor = executor(&model, &[align, Entry::Mixed(Mixed::Logits)]);
    start_copies(&mut executor, &model);
    mixed(&mut executor, 1, [1.0; LAYERS]);
    let teacher = output(&executor, 1, names::LOGITS);
    let before = params(&executor);
    let mut errors = vec![];
    for step in 1..=30u8 {
        feed(&mut executor, 0, names::TOKENS, &tokens());
        feed(&mut executor, 0, names::LEARNING_RATE, &3e-3f32.to_le_bytes());
        feed(&mut executor, 0, names::STEP, &f32::from(step).to_le_bytes());
        executor.run(0).unwrap_or_else(|e| panic!("{e}"));
        errors.push(output(&executor, 0, names::ALIGNMENT));
    }
    let (first, last) = (&errors[0], &errors[29]);
    for layer in 0..LAYERS {
        assert!(last[layer] < 0.9 * first[layer], "layer {layer}: {} after {}", last[layer], first[layer]);
    }
    let copied: Vec<String> =
        copies(&model).unwrap_or_else(|e| panic!("{e}")).into_iter().map(|copy| copy.name).collect();
    let after = params(&executor);
    for (name, bytes) in &before {
        assert_eq!(after[name] != *bytes, copied.contains(name), "{name}");
    }
    mixed(&mut executor, 1, [1.0; LAYERS]);
    assert_eq!(output(&executor, 1, names::LOGITS), teacher, "the teacher is what it was");
}

#[test]
fn a_text_that_asks_for_the_kind_is_refused() {
    let (config, text) = (models::source("llama3_nano.toml"), models::source("llama3.linc"));
    let gate = "if kind == linear {\n param extra [dim] init ones\n h = h * extra\n }\n q =";
    let text = Source { text: text.text.replacen("q =", gate, 1), ..text };
    let shape = BatchShape { batch: BATCH, seq: SEQ };
    let model = Model::new(&config, &text, &[], None, Placement::Layers(vec![1]), shape)
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(model.reads_kind);
    let entry = Entry::Mixed(Mixed::Logits);
    let done = compile(&model, &entry, &Options::new(BATCH, SEQ), &mut PersistentLayout::default());
    let error = done.map(|_| ()).expect_err("no mixed layers").to_string();
    assert!(error.contains("asks for the kind of a layer"), "{error}");
}
