//! The program that shows what attention reads and gives: it computes what the program without that does, to the bit; what it
//! shows fits the weights of each kind; and a factor takes out of the model what it is for.

use linc_device::cpu::{Cpu, CpuOptions};
use linc_driver::names::{Exposed, Part};
use linc_driver::{
    AttentionKind, BatchShape, Entry, Model, Options, PersistentLayout, Target, compile, looked_at, names,
};
use linc_exec::Executor;
use linc_tests::models;

/// More than a chunk of the linear layers.
const SEQ: usize = 70;

fn model() -> Model {
    let kinds =
        vec![AttentionKind::Softmax, AttentionKind::Efficient, AttentionKind::Elu, AttentionKind::Efficient];
    let (config, text) = (models::source("llama3_nano.toml"), models::source("llama3.linc"));
    // Trained on batches of several sequences: what is looked at is one of them.
    let shape = BatchShape { batch: 4, seq: 32 };
    Model::with_kinds(&config, &text, &[], kinds, shape).unwrap_or_else(|e| panic!("{e}"))
}

/// Scores as number 0, the same with a look as number 1.
fn executor(model: &Model) -> Executor {
    let mut layout = PersistentLayout::default();
    let options = Options::new(1, SEQ);
    let entries = [Entry::Score { context: SEQ }, Entry::Look { context: SEQ }];
    let plans = entries
        .iter()
        .map(|entry| compile(model, entry, &options, &mut layout).unwrap_or_else(|e| panic!("{e}")).plan);
    let plans = plans.collect();
    let cpu = Cpu::new(CpuOptions { threads: Some(1), level: None }).unwrap_or_else(|e| panic!("{e}"));
    let mut executor = Executor::new(Box::new(cpu), plans).unwrap_or_else(|e| panic!("{e}"));
    executor.initialize(3).unwrap_or_else(|e| panic!("{e}"));
    executor
}

fn write<T: Copy>(
    executor: &mut Executor,
    program: usize,
    name: &str,
    values: &[T],
    bytes: fn(T) -> [u8; 4],
) {
    let bytes: Vec<u8> = values.iter().flat_map(|x| bytes(*x)).collect();
    executor.write_input(program, name, &bytes).unwrap_or_else(|e| panic!("{e}"));
}

/// The log-probabilities of a program; attention `without` gives nothing.
fn run(executor: &mut Executor, model: &Model, program: usize, without: Option<usize>) -> Vec<f32> {
    let tokens: Vec<i32> = (0..SEQ).map(|t| (t * t + 7 * t) as i32 % 256).collect();
    let mut targets = tokens[1..].to_vec();
    targets.push(-1);
    write(executor, program, names::TOKENS, &tokens, i32::to_le_bytes);
    write(executor, program, names::TARGETS, &targets, i32::to_le_bytes);
    if program == 1 {
        for (attention, of) in
            looked_at(model, Target::Cpu).unwrap_or_else(|e| panic!("{e}")).iter().enumerate()
        {
            let factor = if Some(attention) == without { 0.0 } else { 1.0 };
            let name = Exposed { attention, part: Part::Factor }.to_string();
            write(executor, program, &name, &vec![factor; of.heads * of.head_dim], f32::to_le_bytes);
        }
    }
    executor.run(program).unwrap_or_else(|e| panic!("{e}"));
    executor.output(program, names::LOG_PROBS).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn looking_changes_nothing() {
    let model = model();
    let mut executor = executor(&model);
    let scored = run(&mut executor, &model, 0, None);
    assert_eq!(run(&mut executor, &model, 1, None), scored);
    assert!(scored.iter().all(|log_prob| log_prob.is_finite()));
}

#[test]
fn weights_times_values_are_what_the_program_gave() {
    let model = model();
    let mut executor = executor(&model);
    run(&mut executor, &model, 1, None);
    let attentions = looked_at(&model, Target::Cpu).unwrap_or_else(|e| panic!("{e}"));
    let kinds: Vec<AttentionKind> = attentions.iter().map(|attention| attention.kind).collect();
    assert_eq!(kinds, model.kinds);
    for (attention, of) in attentions.iter().enumerate() {
        let part = |part: Part| {
            let name = Exposed { attention, part }.to_string();
            executor.output(1, &name).unwrap_or_else(|e| panic!("{e}"))
        };
        let [q, k, v, out] = [Part::Queries, Part::Keys, Part::Values, Part::Output].map(part);
        let d = of.head_dim;
        let rows = |x: &[f32], heads: usize, head: usize| -> Vec<f32> {
            x.chunks_exact(heads * d).flat_map(|row| row[head * d..][..d].to_vec()).collect()
        };
        for head in 0..of.heads {
            let group = head / (of.heads / of.kv_heads);
            let weights = of.weights(&rows(&q, of.heads, head), &rows(&k, of.kv_heads, group));
            let (values, given) = (rows(&v, of.kv_heads, group), rows(&out, of.heads, head));
            let mut a = vec![0.0; SEQ * SEQ];
            weights.rows(0..SEQ, &mut a);
            for t in 0..SEQ {
                let row = &a[t * SEQ..][..SEQ];
                assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{:?}", of.kind);
                for i in 0..d {
                    let sum: f64 = (0..SEQ).map(|s| row[s] * f64::from(values[s * d + i])).sum();
                    let difference = (sum - f64::from(given[t * d + i])).abs();
                    assert!(difference < 1e-4, "{:?}, head {head}, token {t}: {difference}", of.kind);
                }
            }
        }
    }
}

/// A layer whose attention gives nothing is one whose output projection is nothing.
#[test]
fn a_factor_of_nothing_takes_an_attention_out() {
    let model = model();
    for layer in 0..model.kinds.len() {
        let mut executor = executor(&model);
        let found = run(&mut executor, &model, 1, Some(layer));
        executor
            .clear_tensor(&format!("layers.{layer}.attention.wo.weight"))
            .unwrap_or_else(|e| panic!("{e}"));
        let expected = run(&mut executor, &model, 0, None);
        let furthest = found.iter().zip(&expected).fold(0.0, |m: f32, (x, y)| m.max((x - y).abs()));
        assert!(furthest < 1e-5, "layer {layer}: {furthest}");
    }
}
