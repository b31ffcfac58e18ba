//! The same model in PyTorch: loss, gradients and a training run of `tests/golden`, by the interpreter and compiled.
//!
//! The golden files come from `tests/golden/generate.py`, which writes the model out by its equations. Gradients are
//! read from the first moments after one step: with beta1 = 0 and a norm that nothing exceeds, they are the gradients,
//! taken from the very program that trains.

use std::collections::BTreeMap;

use linc_device::cpu::{Cpu, CpuOptions};
use linc_driver::names::{GRAD_NORM, LEARNING_RATE, LOSS, STEP, TARGETS, TOKENS};
use linc_driver::{
    AdamWSpec, BatchShape, Entry, Model, OptimizerOptions, Options, PersistentLayout, Placement, Source,
    UpdateOp, compile,
};
use linc_exec::Executor;
use linc_ir::Graph;
use linc_ir::interp::{Bindings, Tensor, run};
use linc_plan::Plan;
use linc_tests::reference::{distance, norm};
use linc_tests::{compiled, models, tree};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// The files, with the layer map that each must have.
const CASES: [(&str, &str); 4] = [("softmax", "SS"), ("linear", "LL"), ("hybrid", "LSL"), ("tied", "LS")];
/// Those with a training run.
const TRAINED: [&str; 2] = ["softmax", "hybrid"];

/// A golden file: what it is about, and its tensors in double precision.
struct Golden {
    about: Value,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
}

impl Golden {
    fn load(name: &str) -> Golden {
        let path = tree::root().join(format!("tests/golden/{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let about = &header.metadata().as_ref().expect("metadata")["case"];
        let about = serde_json::from_str(about).expect("JSON");
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            (name, (view.shape().to_vec(), doubles(view.dtype(), view.data())))
        };
        Golden { about, tensors: file.tensors().into_iter().map(tensor).collect() }
    }

    fn values(&self, name: &str) -> &[f64] {
        &self.tensors[name].1
    }

    /// Tensors whose names begin with `prefix.`, without it.
    fn group<'a>(&'a self, prefix: &str) -> impl Iterator<Item = (&'a str, &'a [usize], &'a [f64])> {
        let prefix = format!("{prefix}.");
        self.tensors.iter().filter_map(move |(name, (shape, values))| {
            Some((name.strip_prefix(&prefix)?, &shape[..], &values[..]))
        })
    }

    fn model(&self) -> Model {
        let text = |key: &str| self.about[key].as_str().expect("a string").to_string();
        let config = Source { path: "golden.toml".into(), text: text("toml") };
        let layers = text("layers");
        let linear = layers.char_indices().filter(|(_, kind)| *kind == 'L').map(|(layer, _)| layer).collect();
        let (batch, seq) = self.shape();
        let shape = BatchShape { batch, seq };
        Model::new(&config, &models::source("llama3.linc"), &[], None, Placement::Layers(linear), shape)
            .unwrap_or_else(|e| panic!("{e}"))
    }

    /// Batch and sequence.
    fn shape(&self) -> (usize, usize) {
        let shape = &self.tensors[TOKENS].0;
        (shape[0], shape[1])
    }

    fn params(&self) -> Bindings<f64> {
        self.group("param").map(|(name, shape, x)| (name.into(), Tensor::float(shape, x.to_vec()))).collect()
    }

    /// Parameters and the batch that the golden gradients are of.
    fn bindings(&self) -> Bindings<f64> {
        let ints = |name: &str| self.values(name).iter().map(|x| *x as i32).collect::<Vec<i32>>();
        let mut bindings = self.params();
        bindings.insert(TOKENS.into(), Tensor::int(self.tensors[TOKENS].0.as_slice(), ints(TOKENS)));
        let targets = ints(TARGETS);
        bindings.insert(TARGETS.into(), Tensor::int([targets.len()], targets));
        bindings.insert(LEARNING_RATE.into(), Tensor::scalar(0.0));
        bindings.insert(STEP.into(), Tensor::scalar(1.0));
        bindings
    }
}

fn doubles(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        Dtype::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        Dtype::I32 => bytes.as_chunks().0.iter().map(|b| f64::from(i32::from_le_bytes(*b))).collect(),
        other => panic!("{other:?} in a golden file"),
    }
}

/// The plan of a program and the graph that it was made from.
fn program(model: &Model, entry: &Entry, (batch, seq): (usize, usize)) -> (Plan, Graph) {
    let options = Options { dumps: true, ..Options::new(batch, seq) };
    let done =
        compile(model, entry, &options, &mut PersistentLayout::default()).unwrap_or_else(|e| panic!("{e}"));
    let last = done.dumps.iter().rfind(|d| d.path.ends_with(".ir")).expect("the graph after the last pass");
    (done.plan, linc_ir::parse(&last.text).unwrap_or_else(|e| panic!("{}: {e}", last.path)))
}

/// A training program whose first moments are the gradients.
fn gradient_entry() -> Entry {
    let adamw = AdamWSpec { beta1: 0.0, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    Entry::Train(OptimizerOptions {
        update: UpdateOp::AdamW(adamw),
        groups: vec![],
        max_norm: 1e30,
        norms: vec![],
    })
}

fn gradient<'a>(results: &'a BTreeMap<String, Vec<f64>>, param: &str) -> &'a [f64] {
    results.get(&format!("{param}.exp_avg")).unwrap_or_else(|| panic!("{param} is not trained"))
}

/// Loss, norm and moments by name.
fn interpret(graph: &Graph, bindings: &Bindings<f64>) -> BTreeMap<String, Vec<f64>> {
    let results = run::<f64>(graph, bindings).unwrap_or_else(|e| panic!("{e}"));
    linc_tests::reference::doubles(&results)
}

fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |max, x| max.max(x.abs()))
}

#[test]
fn layer_maps_are_those_of_the_golden_files() {
    for (name, layers) in CASES {
        let golden = Golden::load(name);
        assert_eq!(golden.model().layer_map(), layers);
        assert_eq!(golden.about["layers"], layers);
    }
}

#[test]
fn interpreter_equals_pytorch() {
    for (name, _) in CASES {
        let golden = Golden::load(name);
        let (_, graph) = program(&golden.model(), &gradient_entry(), golden.shape());
        let found = interpret(&graph, &golden.bindings());
        let expected = golden.values("loss")[0];
        let error = (found[LOSS][0] - expected).abs() / expected;
        assert!(error <= 1e-9, "{name}: loss {} instead of {expected}", found[LOSS][0]);

        let (mut all, mut count) = (vec![], 0);
        for (param, _, expected) in golden.group("grad") {
            let found = gradient(&found, param);
            assert_eq!(found.len(), expected.len(), "{name}: {param}");
            let difference: Vec<f64> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
            let (error, scale) = (largest(&difference), largest(expected));
            // NaN compares with nothing, and nothing is measured against 0.
            assert!(scale > 0.0 && error <= 1e-9 * scale, "{name}: {param}: {error:e} of {scale:e}");
            all.extend_from_slice(expected);
            count += 1;
        }
        assert_eq!(count, golden.group("param").count(), "{name}");
        assert!((found[GRAD_NORM][0] - norm(&all)).abs() <= 1e-9 * norm(&all), "{name}");
    }
}

#[test]
fn compiled_equals_interpreter() {
    for (name, _) in CASES {
        let golden = Golden::load(name);
        let (plan, graph) = program(&golden.model(), &gradient_entry(), golden.shape());
        let bindings = golden.bindings();
        let expected = interpret(&graph, &bindings);
        for threads in [1, 2] {
            let found = compiled::run(&plan, &bindings, threads);
            for output in [LOSS, GRAD_NORM] {
                let (found, expected) = (found[output][0], expected[output][0]);
                let error = (found - expected).abs() / expected;
                assert!(error <= 1e-4, "{name}: {output} {found} instead of {expected}");
            }
            for (param, _, _) in golden.group("param") {
                let (found, expected) = (gradient(&found, param), gradient(&expected, param));
                let (error, scale) = (distance(found, expected), norm(expected));
                assert!(scale > 0.0 && error <= 1e-4 * scale, "{name}: {param}: {error:e} of {scale:e}");
            }
        }
    }
}

/// The run of a golden file: the program, and per step its tokens, targets and learning rate.
struct Run {
    golden: Golden,
    plan: Plan,
    graph: Graph,
    steps: Vec<(Vec<i32>, Vec<i32>, f64)>,
}

impl Run {
    fn load(name: &str) -> Run {
        let golden = Golden::load(name);
        let options = &golden.about["training"];
        let number = |value: &Value| value.as_f64().expect("a number");
        let adamw = AdamWSpec {
            beta1: number(&options["betas"][0]),
            beta2: number(&options["betas"][1]),
            eps: number(&options["eps"]),
            weight_decay: number(&options["weight_decay"]),
        };
        let entry = Entry::Train(OptimizerOptions {
            update: UpdateOp::AdamW(adamw),
            groups: vec![],
            max_norm: number(&options["max_norm"]),
            norms: vec![],
        });
        let (plan, graph) = program(&golden.model(), &entry, golden.shape());
        let (batch, seq) = golden.shape();
        let sequences: Vec<&[f64]> = golden.values("train.ids").chunks(seq + 1).collect();
        let part = |rows: &[&[f64]], from: usize| -> Vec<i32> {
            rows.iter().flat_map(|row| row[from..from + seq].iter().map(|id| *id as i32)).collect()
        };
        let rates = golden.values("train.lr");
        let steps = sequences.chunks(batch).zip(rates).map(|(rows, lr)| (part(rows, 0), part(rows, 1), *lr));
        let steps: Vec<_> = steps.collect();
        assert_eq!(steps.len() as f64, number(&options["steps"]));
        Run { golden, plan, graph, steps }
    }

    /// Compares losses and norms of all steps with PyTorch's.
    fn check(&self, name: &str, found: &[(f64, f64)]) {
        let expected = self.golden.values("train.losses").iter().zip(self.golden.values("train.grad_norms"));
        assert_eq!(found.len(), self.golden.values("train.losses").len());
        for (step, ((loss, norm), (expected_loss, expected_norm))) in found.iter().zip(expected).enumerate() {
            let off = (loss - expected_loss).abs();
            assert!(off <= 1e-3, "{name}, step {step}: loss {loss} instead of {expected_loss}");
            let off = (norm - expected_norm).abs() / expected_norm;
            assert!(off <= 1e-2, "{name}, step {step}: norm {norm} instead of {expected_norm}");
        }
        let (first, last) = (found[0].0, found[found.len() - 1].0);
        assert!(last < 0.6 * first, "{name}: nothing was learned, {first} -> {last}");
    }
}

#[test]
fn interpreted_training_follows_pytorch() {
    for name in TRAINED {
        let run_of = Run::load(name);
        let (batch, seq) = run_of.golden.shape();
        let mut bindings = run_of.golden.params();
        let mut losses = vec![];
        for (step, (tokens, targets, lr)) in run_of.steps.iter().enumerate() {
            bindings.insert(TOKENS.into(), Tensor::int([batch, seq], tokens.clone()));
            bindings.insert(TARGETS.into(), Tensor::int([batch * seq], targets.clone()));
            bindings.insert(LEARNING_RATE.into(), Tensor::scalar(*lr));
            bindings.insert(STEP.into(), Tensor::scalar(step as f64 + 1.0));
            let results = run::<f64>(&run_of.graph, &bindings).unwrap_or_else(|e| panic!("{e}"));
            losses.push((results.outputs[LOSS].doubles()[0], results.outputs[GRAD_NORM].doubles()[0]));
            bindings.extend(results.updates);
        }
        run_of.check(name, &losses);
    }
}

#[test]
fn compiled_training_follows_pytorch() {
    for name in TRAINED {
        let run_of = Run::load(name);
        let cpu = Cpu::new(CpuOptions { threads: Some(2), level: None }).unwrap_or_else(|e| panic!("{e}"));
        let losses = train_compiled(&run_of, cpu).unwrap_or_else(|e| panic!("{name}: {e}"));
        run_of.check(name, &losses);
    }
}

fn train_compiled(run_of: &Run, cpu: Cpu) -> Result<Vec<(f64, f64)>, linc_exec::ExecError> {
    let floats =
        |x: &[f64]| -> Vec<u8> { x.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect::<Vec<u8>>() };
    let ints = |x: &[i32]| -> Vec<u8> { x.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let mut executor = Executor::new(Box::new(cpu), vec![run_of.plan.clone()])?;
    executor.initialize(0)?;
    for (param, _, values) in run_of.golden.group("param") {
        executor.write_tensor(param, &floats(values))?;
    }
    let mut losses = vec![];
    for (step, (tokens, targets, lr)) in run_of.steps.iter().enumerate() {
        executor.write_input(0, TOKENS, &ints(tokens))?;
        executor.write_input(0, TARGETS, &ints(targets))?;
        executor.write_input(0, LEARNING_RATE, &floats(&[*lr]))?;
        executor.write_input(0, STEP, &floats(&[step as f64 + 1.0]))?;
        executor.run(0)?;
        let scalar = |name| executor.output(0, name).map(|x| f64::from(x[0]));
        losses.push((scalar(LOSS)?, scalar(GRAD_NORM)?));
    }
    Ok(losses)
}
