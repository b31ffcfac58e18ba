//! Random `.linc` models: the passes keep the meaning of the graph that the language builds, the gradients are those of
//! its loss, decoding token by token gives the logits of the whole sequence after a prompt of any length, the plans of all
//! programs keep the rules, and the compiled program computes what the interpreter computes.
//!
//! The seed is fixed, so that a run is repeatable; raise `CASES` to look further.

use std::collections::BTreeMap;

use linc_driver::names::{GRAD_NORM, LOGITS, LOSS, POSITION, POSITIONS, SLOT, TARGETS, TOKEN_MASK, TOKENS};
use linc_driver::{
    Arch, Entry, Model, OptimizerOptions, Options, PassSetting, PersistentLayout, Precision, Room, Target,
};
use linc_ir::Graph;
use linc_ir::interp::{Bindings, Tensor, run};
use linc_lang::{BuildShape, ModelConfig, Source, build};
use linc_passes::recompute::budget::Machine;
use linc_passes::{attention, pipeline};
use linc_plan::validate::validate;
use linc_tests::models::training;
use linc_tests::random::{Architecture, architecture};
use linc_tests::reference::{bindings, cross_entropy, distance, doubles, gradients, norm, single};
use linc_tests::{compiled, models};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const CASES: u32 = 48;
/// Head sizes for the interpreter.
const ANY: &[usize] = &[1, 2, 3, 4, 5, 6, 8];
/// Head sizes that the attention kernels take.
const KERNELS: &[usize] = &[8, 16, 24];

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: CASES,
        rng_seed: RngSeed::Fixed(20_240_614),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    }
}

/// The graph as the language builds it, nothing lowered.
fn built(case: &Architecture, model: &Model, (batch, seq): (usize, usize)) -> Graph {
    let config = ModelConfig::parse(&Source { path: "random.toml".into(), text: case.toml() });
    let text = Source { path: "random.linc".into(), text: case.linc() };
    let architecture = linc_lang::Architecture::parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let shape = BuildShape { batch, seq, rope_len: case.shape.1 };
    build(&architecture, &config.unwrap_or_else(|e| panic!("{e}")), &shape, &model.kinds)
        .unwrap_or_else(|e| panic!("{e}"))
        .graph
}

/// The graph after all passes that are on.
fn lowered(case: &Architecture, model: &Model, entry: &Entry, shape: (usize, usize)) -> Graph {
    let mut graph = built(case, model, shape);
    let options = pipeline::PipelineOptions {
        kinds: model.kinds.clone(),
        attention: model.attention_options(Target::Cpu),
        precision: case.precision,
        loss_scale: Default::default(),
        min_loss_rows: 64,
        sort_tokens: true,
        pack_heads: Some(1),
        narrow_weights: false,
        documents: false,
        recompute: case.recompute,
        machine: Machine { cost: |_, _| (1, 1), balance: 1.0 },
        mesh: Default::default(),
        reduce: Default::default(),
        disabled: case.disabled.clone(),
    };
    pipeline::run(&mut graph, entry, &options, &mut PersistentLayout::default(), &mut |pass, graph| {
        linc_ir::verify(graph).unwrap_or_else(|e| panic!("after {pass}: {e}"));
    })
    .unwrap_or_else(|e| panic!("{e}"));
    graph
}

/// The architecture with causal attention, for one sequence of several tokens.
fn generating(case: Architecture) -> Architecture {
    Architecture {
        with: linc_tests::random::Switches { causal: true, ..case.with },
        shape: (1, case.shape.1.max(2)),
        ..case
    }
}

fn evaluate(graph: &Graph, bindings: &Bindings<f64>) -> BTreeMap<String, Vec<f64>> {
    doubles(&run::<f64>(graph, bindings).unwrap_or_else(|e| panic!("{e}")))
}

/// Logits by the shortest way: the built graph with its attentions chosen, and no other pass.
fn logits(case: &Architecture, model: &Model, bindings: &Bindings<f64>) -> Vec<f64> {
    let mut graph = built(case, model, case.shape);
    attention::run(&mut graph, &model.kinds, &model.attention_options(Target::Cpu))
        .unwrap_or_else(|e| panic!("{e}"));
    evaluate(&graph, bindings).remove(LOGITS).expect("logits")
}

fn loss(case: &Architecture, model: &Model, bindings: &Bindings<f64>) -> f64 {
    let targets = bindings[TARGETS].ints().expect("targets");
    cross_entropy(&logits(case, model, bindings), targets, case.vocab)
}

fn close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) -> Result<(), TestCaseError> {
    let (distance, norm) = (distance(found, expected), norm(expected));
    prop_assert!(
        distance <= tolerance,
        "{what}: differs by {distance:e} (norm {norm:e}, tolerance {tolerance:e})"
    );
    Ok(())
}

/// Every wanted tensor within 1e-4 of its norm, more where plain f32 arithmetic is worse than that, too.
fn same(
    graph: &Graph,
    at: &Bindings<f64>,
    found: &BTreeMap<String, Vec<f64>>,
    floor: f64,
    wanted: impl Fn(&str) -> bool,
) -> Result<(), TestCaseError> {
    let plain = doubles(&run::<f32>(graph, &single(at)).unwrap_or_else(|e| panic!("{e}")));
    for (name, value) in evaluate(graph, at).iter().filter(|(name, _)| wanted(name)) {
        // A square has the square's size, and twice the relative error.
        let (relative, floor) = if name.ends_with("_sq") { (2e-4, floor * floor) } else { (1e-4, floor) };
        close(
            name,
            &found[name],
            value,
            relative * norm(value) + floor + 4.0 * distance(&plain[name], value),
        )?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn passes_keep_the_loss_of_the_built_graph_and_differentiate_it(case in architecture(ANY)) {
        let model = case.model();
        let graph = lowered(&case, &model, &training(), case.shape);
        let at = bindings(&graph, case.vocab, case.seed, false);
        let results = evaluate(&graph, &at);
        let expected = loss(&case, &model, &at);
        close(LOSS, &results[LOSS], &[expected], 1e-9 * (1.0 + expected.abs()))?;

        // The loss along a random direction, by central differences: its slope is the gradient's share of it.
        let gradients = gradients(&results);
        let direction = bindings(&graph, case.vocab, !case.seed, false);
        let moved = |h: f64| {
            let mut there = at.clone();
            for name in gradients.keys() {
                let step = direction[*name].doubles();
                let values = at[*name].doubles().iter().zip(step).map(|(x, d)| x + h * d).collect();
                there.insert((*name).to_string(), Tensor::float(at[*name].shape.clone(), values));
            }
            loss(&case, &model, &there)
        };
        // Small, so that no kink of a gate lies between; in double precision the difference still has nine digits.
        let h = 1e-6;
        let slope = (moved(h) - moved(-h)) / (2.0 * h);
        let dot = |name: &str, g: &Vec<f64>| -> f64 {
            direction[name].doubles().iter().zip(g).map(|(d, g)| d * g).sum()
        };
        let share: f64 = gradients.iter().map(|(name, g)| dot(name, g)).sum();
        let size: f64 = gradients.values().map(|g| norm(g)).sum();
        close("slope of the loss", &[share], &[slope], 1e-6 * (1.0 + size))?;
    }

    #[test]
    fn optional_passes_keep_every_update(case in architecture(ANY)) {
        let model = case.model();
        let plain = Architecture {
            disabled: linc_driver::OPTIONAL_PASSES.iter().map(|p| (*p).to_string()).collect(),
            ..case.clone()
        };
        let reference = lowered(&plain, &model, &training(), case.shape);
        let at = bindings(&reference, case.vocab, case.seed, true);
        let expected = evaluate(&reference, &at);
        let found = evaluate(&lowered(&case, &model, &training(), case.shape), &at);
        prop_assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, value) in &expected {
            close(name, &found[name], value, 1e-9 * (1.0 + norm(value)))?;
        }
    }

    #[test]
    fn decoding_gives_the_logits_of_the_whole_sequence(case in architecture(ANY)) {
        let case = generating(case);
        let model = case.model();
        let (_, seq) = case.shape;
        let whole = lowered(&case, &model, &Entry::Forward, case.shape);
        let at = bindings(&whole, case.vocab, case.seed, false);
        let tokens = at[TOKENS].ints().expect("tokens").to_vec();
        let expected = evaluate(&whole, &at).remove(LOGITS).expect("logits");

        // Blocks of a prompt of each length, of which the last is rarely full; then token by token.
        let block = 1 + case.seed as usize % 3;
        let context = seq.next_multiple_of(block);
        let step = lowered(&case, &model, &Entry::Decode(Room::of_one(context)), case.shape);
        let entry = Entry::Prefill { room: Room::of_one(context), tokens: block };
        let prompt = lowered(&case, &model, &entry, case.shape);
        for length in 0..seq {
            let mut state = at.clone();
            for (i, part) in tokens[..length].chunks(block).enumerate() {
                let first = (i * block) as i32;
                let filled = |values: Vec<i32>, with: i32| [values, vec![with; block - part.len()]].concat();
                let mask = (0..block).map(|j| f64::from(u8::from(j < part.len())));
                let places = (first..).take(part.len()).collect();
                state.insert(TOKENS.into(), Tensor::int([1, block], filled(part.to_vec(), 0)));
                state.insert(POSITION.into(), Tensor::int([1], vec![first]));
                state.insert(SLOT.into(), Tensor::int([1], vec![0]));
                state.insert(POSITIONS.into(), Tensor::int([block], filled(places, first)));
                state.insert(TOKEN_MASK.into(), Tensor::float([block], mask.collect()));
                state.extend(run::<f64>(&prompt, &state).unwrap_or_else(|e| panic!("{e}")).updates);
            }
            let mut found = vec![];
            for (position, token) in tokens.iter().enumerate().skip(length) {
                state.insert(TOKENS.into(), Tensor::int([1, 1], vec![*token]));
                state.insert(POSITION.into(), Tensor::int([1], vec![position as i32]));
                state.insert(SLOT.into(), Tensor::int([1], vec![0]));
                let results = run::<f64>(&step, &state).unwrap_or_else(|e| panic!("{e}"));
                found.extend(results.outputs[LOGITS].doubles());
                state.extend(results.updates);
            }
            let what = format!("{LOGITS} after a prompt of {length}");
            close(&what, &found, &expected[length * case.vocab..], 1e-9 * (1.0 + norm(&expected)))?;
        }
    }

    #[test]
    fn plans_of_all_programs_keep_the_rules_of_a_plan(
        case in architecture(KERNELS),
        precision in prop::sample::select(Precision::ALL.to_vec()),
        narrow_weights in any::<bool>(),
        orthogonal in any::<bool>(),
    ) {
        // Decoding has one sequence, however many are trained on at once.
        let batch = case.shape.0;
        let case = Architecture { shape: (batch, case.shape.1.max(2)), ..generating(case) };
        let model = case.model();
        let seq = case.shape.1;
        let optimizer = if orthogonal { models::muon(&model) } else { OptimizerOptions::default() };
        let sessions = |optimizer: OptimizerOptions| {
            let whole = [
                vec![Entry::Train(optimizer.clone()), Entry::Eval, Entry::Decode(Room::of_one(seq))],
                vec![Entry::Accumulate, Entry::Forward, Entry::Update(optimizer)],
            ];
            let context = seq.next_multiple_of(4);
            let written = vec![Entry::Decode(Room::of_one(context)), Entry::Prefill { room: Room::of_one(context), tokens: 4 }];
            whole.into_iter().map(|entries| (entries, false)).chain([(written, narrow_weights)])
        };
        for target in [Target::Cpu, Target::Cuda(Arch::Sm80)] {
            for (entries, narrow_weights) in sessions(optimizer.clone()) {
                let mut layout = PersistentLayout::default();
                for entry in entries {
                    let one = matches!(entry, Entry::Decode(_) | Entry::Prefill { .. });
                    let options = Options {
                        precision,
                        target,
                        narrow_weights,
                        recompute: case.recompute,
                        disabled: case.disabled.clone(),
                        ..Options::new(if one { 1 } else { batch }, seq)
                    };
                    let compiled = linc_driver::compile(&model, &entry, &options, &mut layout);
                    let plan = compiled.unwrap_or_else(|e| panic!("{entry:?}: {e}")).plan;
                    validate(&plan).unwrap_or_else(|e| panic!("{entry:?} of {}: {e}", case.linc()));
                }
            }
        }
    }

    #[test]
    fn recomputation_and_fusion_keep_every_bit_of_a_narrow_update(
        case in architecture(ANY),
        precision in prop::sample::select(vec![Precision::Bfloat16, Precision::Float16]),
    ) {
        let model = case.model();
        let case = Architecture { precision, ..case };
        let mut plain = case.clone();
        plain.disabled.extend(["recompute", "fusion", "residual"].map(String::from));
        let reference = lowered(&plain, &model, &training(), case.shape);
        let at = bindings(&reference, case.vocab, case.seed, true);
        let expected = evaluate(&reference, &at);
        prop_assert_eq!(evaluate(&lowered(&case, &model, &training(), case.shape), &at), expected);
    }

    #[test]
    fn the_compiled_bf16_program_is_as_exact_as_the_interpreter(case in architecture(KERNELS)) {
        let model = case.model();
        let exact = lowered(&case, &model, &training(), case.shape);
        let case = Architecture { precision: Precision::Bfloat16, ..case };
        let options = Options {
            precision: case.precision,
            recompute: case.recompute,
            disabled: case.disabled.clone(),
            ..Options::new(case.shape.0, case.shape.1)
        };
        let plan = models::compiled(&model, &training(), &options).plan;
        let graph = lowered(&case, &model, &training(), case.shape);
        let at = bindings(&exact, case.vocab, case.seed, false);
        let (exact, rounded) = (evaluate(&exact, &at), evaluate(&graph, &at));
        let found = compiled::run(&plan, &at, 2);
        // The gradients of all parameters together: single ones may be all rounding.
        let (exact, rounded, found) = (gradients(&exact), gradients(&rounded), gradients(&found));
        let all = |of: &BTreeMap<&str, Vec<f64>>| of.values().flatten().copied().collect::<Vec<f64>>();
        let [exact, rounded, found] = [all(&exact), all(&rounded), all(&found)];
        let error = distance(&rounded, &exact);
        close("gradients", &found, &exact, 2.0 * error + norm(&exact) / 128.0)?;
        close("gradients", &found, &rounded, 2.0 * error + norm(&exact) / 128.0)?;
    }

    #[test]
    fn the_compiled_program_computes_what_the_interpreter_computes(case in architecture(KERNELS)) {
        let model = case.model();
        let graph = lowered(&case, &model, &training(), case.shape);
        // From zero moments, the new ones are the gradients; parameters move by their signs, which rounding can turn.
        let cold = bindings(&graph, case.vocab, case.seed, false);
        let floor = 1e-5 * evaluate(&graph, &cold)[GRAD_NORM][0].min(1.0);
        let is_gradient = |name: &str| !cold.contains_key(name);
        // From moments as after some steps, parameters move smoothly.
        let warm = bindings(&graph, case.vocab, case.seed, true);
        // What is shaped for another machine computes the same.
        for target in [Target::Cpu, Target::Cuda(Arch::Sm90a)] {
            let options = Options {
                precision: case.precision,
                target,
                recompute: case.recompute,
                disabled: case.disabled.clone(),
                ..Options::new(case.shape.0, case.shape.1)
            };
            let plan = models::compiled(&model, &training(), &options).plan;
            same(&graph, &cold, &compiled::run(&plan, &cold, 2), floor, is_gradient)?;
            same(&graph, &warm, &compiled::run(&plan, &warm, 1), 0.0, |_| true)?;
        }
    }
}
